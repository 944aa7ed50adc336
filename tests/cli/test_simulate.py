import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.cli.simulate import BESIDE, shared
from tests.documents import FLEET, SERVICE
from tests.waiting import PATIENCE, until_blocking

POLICY = """
kind: Policy
name: quick
steps:
  - {name: ten, everyone: 10%, for: 5s}
  - {name: all, everyone: 100%, for: 5s}
conditions: []
guard: {for: 5s, hold_back: 2%}
"""
SMALL = ("--releases", 4, "--interval", "1s", "--history", "1m", "--rps", 300, "--noise", "iid")


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


def test_simulate_prints_figures_that_a_seed_repeats(turnout, policy):
    said = [
        turnout("simulate", policy, *SMALL, "-o", "json", "--fault", "errors=20%", "--jobs", jobs)
        for jobs in (1, 2)
    ]

    assert [one.status for one in said] == [0, 0]
    assert said[0].out == said[1].out
    found = json.loads(said[0].out)["faults"]["errors=20%"]
    assert found["rolled_back"]["share"] == 1.0
    assert found["detected"]["median"] < 30


@pytest.mark.parametrize("jobs", [1, 2, 3, 16])
@pytest.mark.parametrize("releases", [1, 2, 7, 100])
def test_releases_are_shared_so_that_every_process_has_some_and_all_end_at_about_a_time(releases, jobs):
    pieces = shared(range(5, 5 + releases), jobs)

    assert [seed for piece in pieces for seed in piece] == list(range(5, 5 + releases))
    assert len(pieces) >= min(jobs, releases)
    sizes = [len(piece) for piece in pieces]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= BESIDE
    assert sizes[-1] <= 3


def test_simulate_tells_false_rollbacks_from_misses(turnout, policy):
    said = turnout(
        "simulate", policy, *SMALL, "--fault", "none", "--fault", "errors=20%+lost=5%", "--jobs", 1
    )

    assert said.status == 0
    assert "none (good)" in said.lines
    assert any(line.startswith("  promoted        100 %") for line in said.lines)
    assert any("rolled back" in line and line.endswith("false") for line in said.lines)
    assert "errors=20%+lost=5% (bad)" in said.lines


def test_simulate_knows_services_that_are_faster_than_the_first_edge_of_histograms(turnout, policy):
    faults = ("--fault", "none", "--fault", "latency=x501")
    said = turnout("simulate", policy, *SMALL, "-o", "json", "--latency", 0.1, *faults, "--jobs", 1)

    found = json.loads(said.out)
    assert found["model"]["latency"] == 0.1
    assert found["faults"]["none"]["promoted"]["share"] == 1.0
    assert found["faults"]["latency=x501"]["rolled_back"]["share"] == 1.0


def test_simulate_judges_client_errors_which_are_usual_or_not(turnout, policy):
    faults = ("--fault", "none", "--fault", "client_errors=30%")
    said = turnout("simulate", policy, *SMALL, "-o", "json", *faults, "--jobs", 1)

    found = json.loads(said.out)
    assert found["model"]["client_errors"] == 0.02
    assert found["faults"]["none"]["rolled_back"]["share"] == 0.0
    assert found["faults"]["client_errors=30%"]["why"] == {"rolled back: client errors/everyone": 4}
    none = turnout("simulate", policy, *SMALL, "--client-errors", "0%", "--fault", "none", "--jobs", 1)
    assert "0.5 % errors, 0 % client errors" in none.out


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--fault", "bad"), "is not a fault"),
        (("--noise", "loud"), "known: iid, mod, harsh"),
        (("--policy", "slow"), "known: quick"),
        (("--fault", "errors=5%@segment=beta"), "no segment 'beta'; there are: none"),
        (("--fault", "silent@proxy=p3"), "no proxy 'p3'; there are: p0, p1, p2"),
        (("--interval", "1ms"), "between 500ms and 1m"),
        (("--fault", "errors=10%@5m-2m"), "is not a fault"),
        (("--segment", "nosuch=10%"), "no step of the policy is for segment 'nosuch'; there are: none"),
        (("--segment", "=10%"), "no step of the policy is for segment ''"),
        (("--fault", "latency=10%"), "is not a fault: write latency=x2; allowed: none; errors=10%"),
        (("--fault", "crash+none"), "'none' goes with nothing else"),
        (("--longest", "0s"), "--longest: is less than one --interval"),
        (("--rps", "inf"), "--rps"),
        (("--rps", "0"), "--rps"),
        (("--rps", "nan"), "--rps"),
        (("--day", "nan"), "--day"),
        (("--latency", "0"), "--latency"),
        (("--latency", "nan"), "--latency"),
        (("--client-errors", "2"), "--client-errors"),
        (("--client-errors", "120%"), "not between 0% and 100%"),
        (("--fault", "errors=10%@steps"), "@steps (of coldstart=x2"),
    ],
)
def test_simulate_says_what_is_allowed(turnout, policy, more, problem):
    said = turnout("simulate", policy, *more)

    assert said.status == 2
    assert problem in said.err


def test_simulate_takes_a_service_with_a_thousand_requests_a_day(turnout, policy):
    """One request of the canary in a quarter of an hour proves nothing in a day, and is no fault either."""
    few = ("--rps", 0.0116, "--interval", "1m", "--longest", "8h", "--releases", 1, "--jobs", 1)

    said = turnout("simulate", policy, *few, "--noise", "iid", "-o", "json", "--fault", "none")

    assert said.status == 0
    assert json.loads(said.out)["faults"]["none"]["undecided"]["share"] == 1.0


def test_simulate_counts_a_fault_of_the_guard_from_the_guard_on(turnout, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY.replace("{for: 5s, hold_back", "{for: 5m, hold_back"))

    said = turnout("simulate", tmp_path, *SMALL, "-o", "json", "--fault", "errors=20%@guarding", "--jobs", 1)

    found = json.loads(said.out)["faults"]["errors=20%@guarding"]
    assert found["rolled_back"]["share"] == 1.0
    assert found["detected"]["p95"] <= 15


def test_simulate_takes_a_fault_of_the_canary_that_ends_for_one(turnout, policy):
    said = turnout(
        "simulate", policy, *SMALL, "--fault", "errors=60%@5s-40s", "--fault", "errors=0%", "--jobs", 1
    )

    assert "errors=60%@5s-40s (bad)" in said.lines
    assert "errors=0% (good)" in said.lines
    assert not any(
        "rolled back" in line and line.endswith("false") and "100 %" in line for line in said.lines
    )


def test_a_policy_that_takes_longer_than_two_hours_is_given_the_time_that_it_takes(turnout, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY.replace("{for: 5s, hold_back", "{for: 150m, hold_back"))
    few = ("--rps", 300, "--noise", "iid", "--interval", "1m", "--history", "10m", "--releases", 1)
    cell = ("--fault", "none", "--jobs", 1, "-o", "json")

    said = turnout("simulate", tmp_path, *few, *cell)
    short = turnout("simulate", tmp_path, *few, *cell, "--longest", "30m")

    found = json.loads(said.out)
    assert (said.status, found["faults"]["none"]["promoted"]["share"]) == (0, 1.0)
    assert found["model"]["longest"] >= 210 * 60
    assert "so no release ends as promoted" not in said.err
    assert short.status == 0
    assert "takes 2h30m" in short.err
    assert "at least, so no release ends as promoted within 30m: --longest 3h30m10s\n" in short.err


def test_of_a_policy_that_takes_weeks_it_says_at_once_that_two_hours_are_too_short(turnout, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY.replace("{for: 5s, hold_back", "{for: 14d, hold_back"))
    few = ("--rps", 1, "--noise", "iid", "--interval", "1m", "--history", "1m", "--releases", 1)

    said = turnout("simulate", tmp_path, *few, "--fault", "none", "--jobs", 1)

    assert "so no release ends as promoted within 2h: --longest 14d1h10s\n" in said.err


def test_simulate_says_what_holds_releases_that_stay_undecided(turnout, policy):
    said = turnout("simulate", policy, *SMALL, "--longest", "10s", "--fault", "none", "--jobs", 1)

    held = [line for line in said.lines if "held last by" in line]
    assert held
    assert "such as: " in held[0]


SALES = """
kind: Policy
name: sales
steps: [{name: half, everyone: 50%, for: 5m}, {name: all, everyone: 100%}]
conditions: [{metric: {name: orders, margin: 10%}}, {stat: {name: upstream_rq_timeout, at_most: 0}}]
"""
METRICS = (
    "metrics: {orders: {header: x-order, better: more}, worth: {header: x-worth, sum: true, better: more}}\n"
)


def test_simulate_judges_the_metrics_of_a_service_that_is_in_the_files(turnout, tmp_path):
    (tmp_path / "sales.yaml").write_text(SALES)
    few = ("--releases", 2, "--noise", "iid", "--rps", 400, "--history", "1m", "--jobs", 1)
    alone = turnout("simulate", tmp_path, *few, "--fault", "errors=20%")
    (tmp_path / "shop.yaml").write_text(f"{FLEET}---\n{SERVICE}{METRICS}")

    known = turnout(
        "simulate", tmp_path, *few, "--metric", "orders=5%", "--fault", "metric=60%", "-o", "json"
    )

    assert "taken as passed: metric orders, stat upstream_rq_timeout" in alone.err
    assert "the file of the Service" in alone.err
    assert "taken as passed: stat upstream_rq_timeout" in known.err
    found = json.loads(known.out)
    assert [metric["name"] for metric in found["model"]["metrics"]] == ["orders"]
    assert found["faults"]["metric=60%"]["rolled_back"]["share"] == 1.0
    assert found["faults"]["metric=60%"]["why"] == {"rolled back: metric orders/everyone": 2}
    wide = turnout("simulate", tmp_path, *few, "--fault", "metric=60%+client_errors=6%")
    (harmed,) = (line for line in wide.lines if line.startswith("  harmed"))
    assert " events of metrics of the canary's requests and events" in " ".join(harmed.split())


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--metric", "sales=5%"), "no metric 'sales'; it judges: orders"),
        (("--metric", "orders=5%x3"), "only of a sum"),
        (("--metric", "orders=5"), "--metric: '5' is not a share"),
        (("--metric", "orders"), "--metric: '' is not a share"),
        (("--metric", "orders=500%"), "--metric: 500% is not between"),
        (("--service", "other"), "those that have: shop"),
        (("--fault", "metric=5%@metric=sales"), "no metric 'sales'; there are: orders"),
    ],
)
def test_simulate_says_what_is_allowed_of_metrics(turnout, tmp_path, more, problem):
    (tmp_path / "all.yaml").write_text(f"{SALES}---\n{FLEET}---\n{SERVICE}{METRICS}")

    said = turnout("simulate", tmp_path, *more)

    assert said.status == 2
    assert problem in said.err


def test_simulate_says_how_long_it_took(turnout, policy):
    said = turnout("simulate", policy, *SMALL, "--fault", "errors=20%", "--jobs", 1)

    assert said.out.splitlines()[-1].startswith("4 releases in ")


def test_simulate_runs_a_hundred_good_releases_and_a_hundred_bad_ones_if_nothing_is_said(turnout, policy):
    few = ("--interval", "30s", "--history", "1m", "--longest", "4m", "--rps", 300)

    said = turnout("simulate", policy, *few)

    assert "100 releases of each kind" in said.out
    assert "none (good)" in said.out
    assert "errors=10% (bad)" in said.out
    assert said.out.splitlines()[-1].startswith("200 releases in ")


def children(process):
    """Return the ids of a process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        if parent == process.pid:
            found.append(int(stat.parent.name))
    return found


def gone(pids):
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def leaves_interrupts(pid):
    """Return whether a process ignores SIGINT: it has begun its work."""
    ignored = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return int(ignored[1], 16) & 1 << (signal.SIGINT - 1)


START = "from controlplane.cli import main; main()"
# Python may raise an interrupt between taking a lock and knowing that it has it: then nobody gives it back.
UNLUCKY = """
import os, signal, sys, threading
came, enter = 0, threading.Condition.__enter__

def unlucky(self):
    global came
    entered = enter(self)
    mine = threading.get_ident() == threading.main_thread().ident
    came += mine and sys._getframe(1).f_code.co_name == "put"  # of work for the processes
    if mine and came == 50:
        came += 1
        os.kill(os.getpid(), signal.SIGINT)
    return entered

threading.Condition.__enter__ = unlucky
"""


@pytest.fixture
def simulating(policy):
    """Start a simulation that takes long, with two processes; it is gone when the test ends."""
    started = []

    def start(code=START):
        line = [sys.executable, "-c", code, "simulate", str(policy), "--releases", "100000", "--jobs", "2"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(line, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_an_interrupt_ends_a_simulation_wherever_it_comes(simulating):
    process = simulating(UNLUCKY + START)

    said, _ = process.communicate(timeout=PATIENCE)

    assert b"Traceback" not in said, said.decode()
    assert process.returncode == 130


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_simulation_ends_with_all_of_its_processes(simulating, sign):
    """An interrupt from a terminal comes to all of them at once; one that is killed cannot end the others."""
    process = simulating()
    until_blocking(lambda: len(children(process)) == 2)
    workers = children(process)
    until_blocking(lambda: all(map(leaves_interrupts, workers)))

    if sign is signal.SIGINT:
        os.killpg(process.pid, sign)
    else:
        process.kill()
    said, _ = process.communicate(timeout=PATIENCE)

    assert b"Traceback" not in said, said.decode()
    assert process.returncode in (130, -signal.SIGKILL)
    until_blocking(lambda: gone(workers))


def test_simulate_says_why_releases_were_rolled_back_and_tells_the_clock_from_what_was_seen(
    turnout, tmp_path
):
    text = POLICY + "deadline: 40s\non_timeout: rollback\n"
    (tmp_path / "policy.yaml").write_text(text)

    said = turnout("simulate", tmp_path, *SMALL, "--fault", "errors=0.1%", "--fault", "crash", "--jobs", 1)

    late, crash = said.out.split("crash (bad)")
    lines = [" ".join(line.split()) for line in late.splitlines()]
    assert "4 rolled back by the clock (`deadline` or `within`), such as: not promoted within 40s" in late
    assert any(line.startswith("out of time 100 %") for line in lines)
    assert any(line.startswith("rolled back 0 %") for line in lines)
    assert not any(line.startswith("found after") for line in lines)
    assert "rolled back by errors of everyone, such as: " in crash
    assert "out of time" not in crash


def test_simulate_says_what_was_over_before_the_fault_began(turnout, policy):
    said = turnout("simulate", policy, *SMALL, "--fault", "errors=10%@1h", "--jobs", 1)

    assert any(" ".join(line.split()).startswith("over before 4 of 4: promoted 4") for line in said.lines)
    assert "missed" not in said.out


def test_every_figure_can_be_counted_again_from_the_releases(turnout, policy):
    said = turnout(
        "simulate", policy, *SMALL, "-o", "json", "--seed", 7, "--fault", "errors=20%", "--jobs", 1
    )

    found = json.loads(said.out)["faults"]["errors=20%"]
    each = found["each"]
    assert [one["seed"] for one in each] == [7, 8, 9, 10]
    assert {one["outcome"] for one in each} == {"rolled back"}
    assert {one["failure"] for one in each} == {"condition"}
    took = sorted(one["seconds"] - one["begun"] for one in each)
    assert found["detected"] == {"count": 4, "median": took[1], "p95": took[3]}
    assert found["failed"] == pytest.approx(sum(one["harm"]["failed"] for one in each) / 4)
    assert found["why"] == {
        f"rolled back: {metric}": sum(one["metric"] == metric for one in each)
        for metric in {one["metric"] for one in each}
    }


GAIN = """
kind: Policy
name: gain
steps: [{name: half, everyone: 50%}]
conditions: [{metric: {name: orders, margin: 10%}}]
ends: {after: 5m, do: promote_if_better, per_user: 1}
guard: {for: 5s}
"""


def test_simulate_says_whether_a_gain_is_found_and_after_how_long(turnout, tmp_path):
    (tmp_path / "all.yaml").write_text(f"{GAIN}---\n{FLEET}---\n{SERVICE}{METRICS}")
    few = ("--releases", 2, "--noise", "iid", "--rps", 1000, "--history", "1m", "--jobs", 1)

    said = turnout("simulate", tmp_path, *few, "--metric", "orders=10%", "--fault", "metric=+80%")
    none = turnout("simulate", tmp_path, *few, "--metric", "orders=0.1%", "--fault", "metric=+1%")

    lines = [" ".join(line.split()) for line in said.lines]
    assert "metric=+80% (better)" in lines
    assert any(line.startswith("promoted 100 %") and line.endswith("found") for line in lines)
    assert any(line.startswith("orders better 100 %") and line.endswith("found") for line in lines)
    assert any(line.startswith("shown after") for line in lines)
    assert any(line.startswith("brought") for line in lines)
    ended = [" ".join(line.split()) for line in none.lines if line.startswith("  ended")]
    assert "100 %" in ended[0]
    assert "not found: the test is over" in ended[0]
    assert "2 ended, such as: " in none.out
    assert "missed" not in said.out + none.out


def test_simulate_draws_users_who_buy_again_if_it_is_told_how_many(turnout, tmp_path, policy):
    (tmp_path / "fleet.yaml").write_text(FLEET)
    (tmp_path / "shop.yaml").write_text(SERVICE + "metrics: {orders: {better: more, every: 10s}}\n")
    judged = POLICY.replace("conditions: []", "conditions: [{metric: {name: orders, margin: 50%}}]")
    (tmp_path / "judged.yaml").write_text(judged)
    files = [tmp_path / name for name in ("fleet.yaml", "shop.yaml", "judged.yaml")]
    few = (*SMALL[2:], "--releases", 1, "--jobs", 1, "--longest", "2m", "--fault", "none")

    said = turnout("simulate", *files, *few, "--users", 400, "--habit", 1.5)
    none = turnout("simulate", policy, *few, "--users", 400)

    assert said.status == 0
    assert "400 users come again: how often each buys has a deviation of 1.5 (of the logarithm)" in said.lines
    assert none.status == 2
    assert "--users: the policy judges no metric of a service that is in the files" in none.err
