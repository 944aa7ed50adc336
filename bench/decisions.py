"""The decision rule beside others, on simulated releases: the goals G1 to G9 of docs/decision-rule.md.

Run as ``python -m bench.decisions [--quick] [--only G3] [--save FILE [--resume]]``. The full run takes hours
on two cores; progress goes to standard error. Seeds from 500000 on were used for no tuning.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

from bench.cells import ADVANCE, FAST, OURS, SEED, Cell
from bench.lab import Lab
from bench.report import say
from bench.rivals import RIVALS
from controlplane.simulation.families import FAMILIES
from controlplane.simulation.loop import Ended
from controlplane.simulation.summary import Summary, summarise
from controlplane.simulation.traffic import Harm

Found = Callable[[Cell], Summary]
Answer = tuple[str, str, bool]  # goal, measured, met


def seconds(summary: Summary) -> tuple[float, float]:
    """Return median and 95th percentile of the time to a rollback."""
    return (summary.detected.median, summary.detected.p95) if summary.detected else (9e9, 9e9)


def good_cells() -> list[Cell]:
    """Return the kinds of good releases with several proxies."""
    faults = (
        *((f, n) for f in ("none", "outage=20%") for n in ("mod", "harsh")),
        ("none", "iid"), ("both=5%@2m-12m", "mod"), ("coldstart=x2", "mod"), ("lost=5%+resets=1%", "mod"),
    )  # fmt: skip
    return [Cell(fault, noise) for fault, noise in faults]


def false_rollbacks(found: Found) -> Iterator[Answer]:
    """G1: a good release is not rolled back."""
    cells = (*good_cells(), Cell("none", "mod", proxies=1), Cell("none", "harsh", proxies=1))
    for cell in (replace(cell, rule=rule) for cell in cells for rule in (OURS, ADVANCE)):
        s, most = found(cell), 0.01 if cell.proxies > 1 else 0.02
        sure = f"(95 % sure: at most {100 * s.rolled_back.high:.2g} %)"
        upper = f"{sure}, undecided {100 * s.undecided.share:.2g} %"
        text = f"{cell}: {100 * s.rolled_back.share:.2g} % of {s.releases} {upper}"
        yield f"false rollbacks <= {100 * most:.0f} %", text, s.rolled_back.share <= most


def ten_percent(found: Found) -> Iterator[Answer]:
    """G2: a fault of 10 % is found at once."""
    for interval, median, p95, failed in ((5.0, 20, 45, 12), (1.0, 12, 38, 8)):
        s = found(Cell("errors=10%", first="5%", interval=interval))
        got = seconds(s)
        yield (
            f"10 % errors at 5 %, {interval:g} s: {median}/{p95} s, <= {failed} harmed",
            f"{got[0]:.0f}/{got[1]:.0f} s, {s.failed:.1f} harmed",
            got[0] <= median and got[1] <= p95 and s.failed <= failed,
        )


def everything(found: Found) -> Iterator[Answer]:
    """G3: that all fails is seen in the first statistics."""
    for noise in ("mod", "iid", "harsh"):
        got = seconds(found(Cell("errors=100%", noise, "5%")))
        yield f"100 % errors at 5 %, {noise}: 5/5 s", f"{got[0]:.0f}/{got[1]:.0f} s", max(got) <= 5
    s = found(Cell("errors=100%", first="5%", interval=1.0))
    got = seconds(s)
    text = f"{got[0]:.0f}/{got[1]:.0f} s, {s.failed:.1f} harmed"
    yield "the same, 1 s: p95 <= 3 s, <= 12 harmed", text, got[1] <= 3 and s.failed <= 12


def ratios(found: Found) -> Iterator[Answer]:
    """G4: harmed requests beside other rules."""
    least = {5.0: (15, 30, 200, 10), 1.0: (20, 40, 300, 15)}
    for interval, goals in least.items():
        ours = found(Cell("errors=10%", first="5%", interval=interval)).failed
        for name, goal in zip(list(RIVALS)[:4], goals, strict=True):
            ratio = found(Cell("errors=10%", first="5%", interval=interval, rule=name)).failed / ours
            yield f"{goal}x fewer harmed than {name}, {interval:g} s", f"{ratio:.0f}x", ratio >= goal


BAD = (
    "errors=x5", "errors=10%", "errors=50%@segment=some", "leak=20%", "errors=10%@5m", "latency=x1.2",
    "latency=x1.5", "latency=x2", "tail=x4",
)  # fmt: skip


def misses(found: Found) -> Iterator[Answer]:
    """G5: no fault is promoted."""
    for noise, fault, rule in product(("mod", "harsh"), BAD, (OURS, ADVANCE)):
        s = found(Cell(fault, noise, rule=rule))
        text = f"{_missed(s)}, {s.failed:.1f} failed, {s.slow:.1f} slow"
        yield f"{fault}, {noise}{_under(rule)}: none promoted", text, s.promoted.share == 0


def _missed(s: Summary) -> str:
    """Return how many of a bad kind were promoted or never decided, and when the others were found."""
    promoted, undecided = (rate.share * s.releases for rate in (s.promoted, s.undecided))
    median, p95 = seconds(s)
    return f"{promoted:.0f} of {s.releases}, undecided {undecided:.0f}; found after {median:.0f}/{p95:.0f} s"


def _under(rule: str) -> str:
    return "" if rule == OURS else f", {rule.partition(', ')[2]}"


def small(found: Found) -> Iterator[Answer]:
    """G6: a small fault that lasts."""
    for rule in (OURS, ADVANCE):
        s = found(Cell("errors=0.5%", rule=rule))
        text = f"{100 * s.promoted.share:.1f} %, undecided {100 * s.undecided.share:.0f} %"
        text += f", {s.failed:.0f} harmed"
        yield f"+0.5 points, {rule}: <= 7 % promoted", text, s.promoted.share <= 0.07
        yield f"+0.5 points, {rule}: <= 90 harmed (stretch)", text, s.failed <= 90


def pace(found: Found) -> Iterator[Answer]:
    """G7: a good release is quick."""
    kinds = (("mod", "1%"), ("mod", "5%"), ("harsh", "1%"))
    for (noise, first), rule in product(kinds, (OURS, ADVANCE)):
        whole = found(Cell("none", noise, first, rule=rule)).whole
        text = f"{whole.median / 60:.1f}/{whole.p95 / 60:.1f} min" if whole else "never"
        met = whole is not None and whole.median <= 630 and whole.p95 <= 1200
        yield f"good, from {first}, {noise}{_under(rule)}: 100 % in 10.5/20 min", text, met
    whole = found(Cell("none", first="5%", rule=FAST)).whole
    met = whole is not None and whole.median <= 300
    yield "fast profile: median <= 5 min", f"{whole.median / 60:.1f} min" if whole else "never", met


def from_one_percent(found: Found) -> Iterator[Answer]:
    """G8: the same fault on few requests."""
    s = found(Cell("errors=10%"))
    text = f"{seconds(s)[0]:.0f} s, {s.failed:.1f} harmed"
    yield "10 % errors at 1 %: <= 45 s, <= 5 harmed (stretch)", text, seconds(s)[0] <= 45 and s.failed <= 5


def two_minutes(found: Found) -> Iterator[Answer]:
    """G9: every large fault within two minutes."""
    for fault, noise in (
        ("errors=10%", "harsh"),
        ("errors=10%", "mod"),
        ("latency=x2", "harsh"),
        ("latency=x2", "mod"),
    ):
        got = seconds(found(Cell(fault, noise, "5%")))
        yield f"{fault} from 5 %, {noise}: p95 <= 120 s", f"{got[1]:.0f} s", got[1] <= 120


def client_errors(found: Found) -> Iterator[Answer]:
    """What clients do wrong is no fault of the canary, unless it refuses more."""
    for noise in FAMILIES:
        s = found(Cell("none", noise, client_errors=CLIENTS))
        back = sum(count for why, count in s.why.items() if why.startswith("rolled back: client errors/"))
        text = f"{100 * s.rolled_back.share:.2g} % of {s.releases} (95 % sure: at most "
        text += f"{100 * s.rolled_back.high:.2g} %), {back} for client errors, "
        yield f"{noise}: false rollbacks <= 1 %", text + _after(s), s.rolled_back.share <= 0.01
    for noise, fault in product(("mod", "harsh"), REFUSALS):
        s = found(Cell(fault, noise, client_errors=CLIENTS))
        yield (
            f"{fault}, {noise}: none promoted",
            f"{_missed(s)}, {s.failed:.1f} refused",
            s.promoted.share == 0,
        )


def _after(summary: Summary) -> str:
    whole = summary.whole
    when = f"100 % in {whole.median / 60:.1f}/{whole.p95 / 60:.1f} min" if whole else "none promoted"
    return f"undecided {100 * summary.undecided.share:.2g} %, {when}"


def other_family(found: Found) -> Iterator[Answer]:
    """The same on noise of another shape, by the author of the rule."""
    yield from _other(found, ("switching", "switching-harsh"))


def other_author(found: Found) -> Iterator[Answer]:
    """The same on noise by someone who had not seen the rule."""
    yield from _other(found, ("users", "users-harsh"))


def _other(found: Found, noises: tuple[str, ...]) -> Iterator[Answer]:
    for noise in noises:
        s = found(Cell("none", noise))
        text = f"{100 * s.rolled_back.share:.2g} % of {s.releases}, undecided {100 * s.undecided.share:.2g} %"
        yield f"{noise}: false rollbacks <= 1 %", text, s.rolled_back.share <= 0.01
        for fault, first in (
            ("errors=10%", "5%"),
            ("errors=100%", "5%"),
            ("errors=x5", "1%"),
            ("latency=x2", "5%"),
        ):
            s = found(Cell(fault, noise, first))
            got = seconds(s)
            text = (
                f"{s.promoted.share * s.releases:.0f} of {s.releases} promoted, {got[0]:.0f}/{got[1]:.0f} s"
            )
            yield f"{noise}: {fault} from {first}", text, s.promoted.share == 0


CLIENTS = 0.02  # usual share of client errors
REFUSALS = ("client_errors=10%", "client_errors=100%", "client_errors=x5", "client_errors=10%@5m",
            "client_errors=50%@segment=some")  # fmt: skip

GOALS = {
    "G1": false_rollbacks, "G2": ten_percent, "G3": everything, "G4": ratios, "G5": misses, "G6": small,
    "G7": pace, "G8": from_one_percent, "G9": two_minutes, "other family": other_family,
    "users": other_author, "client errors": client_errors,
}  # fmt: skip


TABLE = (Cell("none"), Cell("none", "harsh"), Cell("outage=20%"), *(Cell(fault, first="5%") for fault in BAD))


def table(found: Found) -> Iterator[str]:
    """Yield all rules beside each other."""
    for cell in TABLE:
        yield f"\n{cell.fault}, {cell.noise}, from {cell.first}"
        for rule in (OURS, ADVANCE, *RIVALS):
            s = found(replace(cell, rule=rule))
            got = f"{s.detected.median:5.0f}/{s.detected.p95:5.0f} s" if s.detected else f"{'-':>13s}"
            whole = f"{s.whole.median / 60:5.1f} min" if s.whole else f"{'-':>9s}"
            yield (
                f"  {rule:32s} n {s.releases:4d}  back {100 * s.rolled_back.share:5.1f} %  "
                f"promoted {100 * s.promoted.share:5.1f} %  "
                f"after {got}  100 % {whole}  failed {s.failed:8.1f}  slow {s.slow:7.1f}"
            )


def nothing(cell: Cell) -> Summary:
    """Return what is said of a cell of which nothing is known."""
    ended = Ended("undecided", 1.0, None, Harm(1.0, 1.0), "", "", "")
    return replace(summarise([ended], bad=cell.bad), releases=0)


def plan(wanted: list[str]) -> list[Cell]:
    """Return the cells that the wanted parts ask for."""
    cells: list[Cell] = []

    def ask(cell: Cell) -> Summary:
        cells.append(cell)
        return nothing(cell)

    for name in wanted:
        for _ in table(ask) if name == "table" else GOALS[name](ask):
            pass
    return cells


def report(lab: Lab, wanted: list[str]) -> None:
    """Print each wanted goal with what was measured, and on how many releases."""
    asked: list[Summary] = []

    def find(cell: Cell) -> Summary:
        asked.append(lab.find(cell) or nothing(cell))
        return asked[-1]

    met, sizes = [], [0]
    for name in wanted:
        for what, measured, reached in GOALS[name](find) if name in GOALS else ():
            # A goal that asks nothing new says something more of the same cell.
            sizes = sorted({s.releases for s in asked}) or sizes
            asked.clear()
            if sizes[0]:
                met.append(reached)
                n = "..".join(str(size) for size in sizes)
                say(f"{name:12s} {'met    ' if reached else 'NOT MET'} {what:58s} {measured}  [n = {n}]")
            else:
                say(f"{name:12s} not run {what}")
    for line in table(find) if "table" in wanted else ():
        say(line)
    say(f"\n{sum(met)} of {len(met)} met; seeds from {SEED}")


def main() -> None:
    """Run the cells of the wanted goals, and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="40 releases per cell instead of 1000 and 200")
    parser.add_argument("--good", type=int, default=1000, help="releases per good cell")
    parser.add_argument("--bad", type=int, default=200, help="releases per bad cell")
    parser.add_argument("--only", action="append", choices=[*GOALS, "table"], help="again for several")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", type=Path, help="append each batch of releases, as JSON, when it is done")
    parser.add_argument("--resume", action="store_true", help="take up what --save has already")
    parser.add_argument("--report", action="store_true", help="the same, and run nothing")
    args = parser.parse_args()
    if (args.resume or args.report) and args.save is None:
        parser.error("--resume and --report need --save FILE")
    wanted = args.only or [*GOALS, "table"]
    good, bad = (40, 40) if args.quick else (args.good, args.bad)
    lab = Lab(good, bad, args.save)
    if args.resume or args.report:
        lab.resume()
    elif args.save is not None:
        args.save.write_text("")
    if not args.report:
        lab.run(plan(wanted), args.jobs)
    report(lab, wanted)


if __name__ == "__main__":
    main()
