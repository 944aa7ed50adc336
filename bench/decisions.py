"""The decision rule beside others, on simulated releases: the goals G1 to G9 of docs/decision-rule.md.

Run as ``python -m bench.decisions [--quick] [--only G3]``. The full run takes hours on two cores; progress
goes to standard error. Seeds from 500000 on were used for no tuning.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic

from bench.report import say
from bench.rivals import RIVALS, rival
from controlplane.policy.loading import load
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.pinning import pin
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import Ended, release
from controlplane.simulation.summary import Summary, summarise
from controlplane.simulation.traffic import Model

SEED = 500_000
OURS, ADVANCE, FAST = "Turnout", "Turnout, when_unsure: advance", "Turnout, fast"
LADDERS = {"1%": (1, 5, 10, 25, 50), "5%": (5, 10, 25, 50)}


@cache
def policy(rule: str, first: str) -> PinnedPolicy:
    """Return the standard ladder; a step takes at least a minute with what it takes to verify the split."""
    least, soak = ("10s", "1m") if rule == FAST else ("35s", "5m")
    steps = [f"{{name: s{p}, everyone: {p}%, for: {soak if p == 50 else least}}}" for p in LADDERS[first]]
    text = f"kind: Policy\nname: standard\nsteps: [{', '.join(steps)}, {{name: all, everyone: 100%}}]\n"
    text += "conditions: []\nguard: {for: 30s, hold_back: 2%}\n"
    if rule == ADVANCE:
        text += "when_unsure: {after: 20m, do: advance}\n"
    loaded = load({"standard.yaml": text.encode()})
    assert not loaded.errors, loaded.errors
    return pin(loaded.catalog.policies()[0], loaded.catalog)


@dataclass(frozen=True)
class Cell:
    """One kind of release under one rule."""

    fault: str
    noise: str = "mod"
    first: str = "1%"
    interval: float = 5.0
    proxies: int = 3
    errors: float = 0.005
    rps: float = 100.0
    rule: str = OURS

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong."""
        return tuple(Fault.parse(part) for part in self.fault.split("+"))

    @property
    def bad(self) -> bool:
        """Whether the release should be rolled back."""
        return any(fault.bad for fault in self.faults)

    @property
    def model(self) -> Model:
        """The service."""
        # One of ten requests is of a group that the policy does not know: a fault may hit it alone.
        proxies = (0.4, 0.35, 0.25) if self.proxies == 3 else (1.0,) * self.proxies
        history = 1800.0 if self.interval >= 5 else 600.0
        return Model(
            rps=self.rps, errors=self.errors, noise=self.noise, proxies=proxies, segments={"some": 0.1},
            interval=self.interval, history=history,
        )  # fmt: skip

    def run(self, seed: int) -> Ended:
        """Run one release."""
        if self.rule in RIVALS:
            shares = [p / 100 for p in LADDERS[self.first]]
            return rival(self.rule, shares, self.model, self.faults, seed)
        return release(policy(self.rule, self.first), self.model, self.faults, seed)

    def __str__(self) -> str:
        usual = Cell(self.fault)
        more = [f"{self.noise:9s}", f"from {self.first}"]
        more += [f"{self.interval:g} s"] if self.interval != usual.interval else []
        more += [f"{self.proxies} proxy"] if self.proxies != usual.proxies else []
        more += [f"{self.rps:g}/s"] if self.rps != usual.rps else []
        return f"{self.rule:30s} {self.fault:22s} {' '.join(more)}"


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
    for cell in (*good_cells(), Cell("none", "mod", proxies=1), Cell("none", "harsh", proxies=1)):
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
    for noise in ("mod", "harsh"):
        for fault in BAD:
            s = found(Cell(fault, noise))
            got = seconds(s)
            text = f"{s.promoted.share * s.releases:.0f} of {s.releases}, undecided "
            text += f"{s.undecided.share * s.releases:.0f}; found after {got[0]:.0f}/{got[1]:.0f} s, "
            text += f"{s.failed:.1f} failed, {s.slow:.1f} slow"
            yield f"{fault}, {noise}: none promoted", text, s.promoted.share == 0


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
    for noise, first in (("mod", "1%"), ("mod", "5%"), ("harsh", "1%")):
        whole = found(Cell("none", noise, first)).whole
        text = f"{whole.median / 60:.1f}/{whole.p95 / 60:.1f} min" if whole else "never"
        met = whole is not None and whole.median <= 630 and whole.p95 <= 1200
        yield f"good, from {first}, {noise}: 100 % in 10.5/20 min", text, met
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


GOALS = {
    "G1": false_rollbacks, "G2": ten_percent, "G3": everything, "G4": ratios, "G5": misses, "G6": small,
    "G7": pace, "G8": from_one_percent, "G9": two_minutes, "other family": other_family,
    "users": other_author,
}  # fmt: skip


@dataclass
class Lab:
    """Runs each cell once."""

    pool: ProcessPoolExecutor
    good: int
    bad: int
    known: dict[Cell, Summary] = field(default_factory=dict)

    def find(self, cell: Cell) -> Summary:
        """Return what a cell's releases say."""
        if cell not in self.known:
            began, n = monotonic(), self.bad if cell.bad else self.good
            ended = list(self.pool.map(cell.run, range(SEED, SEED + n), chunksize=2))
            begins = min((f.begins for f in cell.faults if f.bad), default=0.0)
            self.known[cell] = summarise(ended, bad=cell.bad, begins=begins if cell.bad else 0.0)
            sys.stderr.write(f"{cell}: {n} in {monotonic() - began:.0f} s" + "\n")
        return self.known[cell]


def table(lab: Lab, faults: Sequence[Cell]) -> Iterator[str]:
    """Yield all rules beside each other."""
    for cell in faults:
        yield f"\n{cell.fault}, {cell.noise}, from {cell.first}"
        for rule in (OURS, *RIVALS):
            s = lab.find(Cell(**(asdict(cell) | {"rule": rule})))
            got = f"{s.detected.median:5.0f}/{s.detected.p95:5.0f} s" if s.detected else f"{'-':>13s}"
            whole = f"{s.whole.median / 60:5.1f} min" if s.whole else f"{'-':>9s}"
            yield (
                f"  {rule:32s} back {100 * s.rolled_back.share:5.1f} %  "
                f"promoted {100 * s.promoted.share:5.1f} %  "
                f"after {got}  100 % {whole}  failed {s.failed:8.1f}  slow {s.slow:7.1f}"
            )


def main() -> None:
    """Run the goals and print each with what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="40 releases per cell instead of 1000 and 200")
    parser.add_argument("--good", type=int, default=1000, help="releases per good cell")
    parser.add_argument("--bad", type=int, default=200, help="releases per bad cell")
    parser.add_argument("--only", action="append", choices=[*GOALS, "table"], help="again for several")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", type=Path, help="write all figures as JSON")
    args = parser.parse_args()
    wanted = args.only or [*GOALS, "table"]
    good, bad = (40, 40) if args.quick else (args.good, args.bad)
    with ProcessPoolExecutor(args.jobs) as pool:
        lab = Lab(pool, good, bad)
        met = []
        for name, goal in GOALS.items():
            for what, measured, reached in goal(lab.find) if name in wanted else ():
                met.append(reached)
                say(f"{name:12s} {'met    ' if reached else 'NOT MET'} {what:58s} {measured}")
        if "table" in wanted:
            cells = [
                Cell("none"),
                Cell("none", "harsh"),
                Cell("outage=20%"),
                *(Cell(f, first="5%") for f in BAD),
            ]
            for line in table(lab, cells):
                say(line)
        say(
            f"\n{sum(met)} of {len(met)} met; {good} releases per good cell, {bad} per bad, seeds from {SEED}"
        )
        if args.save:
            rows = [{"cell": asdict(cell), "found": asdict(s)} for cell, s in lab.known.items()]
            args.save.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
