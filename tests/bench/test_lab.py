"""The lab of the decision rule: a stopped run goes on, and a past that is kept changes nothing."""

import json
from dataclasses import replace

from bench.cells import ADVANCE, SEED, UNSURE, Cell, policy
from bench.decisions import GOALS, plan, report
from bench.lab import BATCH, Lab, _run
from controlplane.simulation.loop import release

QUICK = Cell("errors=100%", first="5%")
GOOD = Cell("none", first="5%")


def test_stopped_run_goes_on_with_what_is_missing(tmp_path):
    file = tmp_path / "found.jsonl"
    first = Lab(good=1, bad=3, file=file)
    first.run([QUICK], jobs=1)
    with file.open("a") as cut:
        cut.write('{"cell": {"fau')

    again = Lab(good=1, bad=BATCH + 2, file=file)
    again.resume()

    assert again.known == first.known
    assert [(begin, size) for (_, begin), size in again.wanted([QUICK])] == [(0, BATCH), (BATCH, 2)]
    again = Lab(good=1, bad=3, file=file)
    again.resume()
    again.run([GOOD, QUICK], jobs=1)
    assert [json.loads(line)["cell"]["fault"] for line in file.read_text().splitlines()] == [
        "errors=100%",
        "none",
    ]
    assert again.find(QUICK) == first.find(QUICK)
    assert again.find(QUICK).rolled_back.share == 1
    assert again.find(GOOD).releases == 1
    assert again.find(Cell("crash")) is None


def test_batches_go_round_all_cells():
    lab = Lab(good=2 * BATCH, bad=BATCH + 1)

    order = [(cell.fault, begin, size) for (cell, begin), size in lab.wanted([QUICK, GOOD, QUICK])]

    assert order == [
        ("errors=100%", 0, BATCH), ("none", 0, BATCH), ("errors=100%", BATCH, 1), ("none", BATCH, BATCH),
    ]  # fmt: skip


def test_kept_past_changes_no_release():
    for cell in (QUICK, GOOD):
        kept = [cell.run(SEED), cell.run(SEED)]

        assert kept == [release(policy(cell.rule, cell.first), cell.model, cell.faults, SEED)] * 2


def test_what_ended_before_when_unsure_acts_is_not_run_again():
    cell = replace(QUICK, rule=ADVANCE)
    (ended,) = _run(cell, [SEED])
    early, late = (replace(ended, where="known", seconds=s) for s in (UNSURE - 5, UNSURE))
    lab = Lab(good=1, bad=2, known={(QUICK, 0): [early, late]})

    lab.run([cell], jobs=1)

    assert [e.where for e in lab.known[cell, 0]] == ["known", ended.where]
    assert _run(cell, [SEED]) == _run(QUICK, [SEED])
    assert QUICK.strict is None


def test_every_goal_names_its_cells():
    assert all(plan([name]) for name in GOALS)


def test_report_says_what_was_not_run_and_on_how_many_releases_the_rest_rests(capsys):
    lab = Lab(good=1, bad=1)
    lab.run([QUICK], jobs=1)

    report(lab, ["G3", "G6", "table"])

    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("G3") and "mod: 5/5 s" in line and line.endswith("[n = 1]") for line in lines)
    assert sum(line.startswith("G6") and "not run" in line for line in lines) == 4
