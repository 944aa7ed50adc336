"""What `turnout simulate` prints: how the releases of each kind ended, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from controlplane.cli.client import console
from controlplane.policy.values import format_duration

if TYPE_CHECKING:
    from controlplane.policy.pinned import PinnedPolicy
    from controlplane.simulation.faults import Fault
    from controlplane.simulation.loop import Ended
    from controlplane.simulation.summary import Rate, Shown, Summary, Times
    from controlplane.simulation.traffic import Model

CLOCK = {"late": "the clock (`deadline` or `within`)", "unsure/everyone": "the clock (`when_unsure`)"}

Line = tuple[str, str, str]  # what, how much, and a note


@dataclass(frozen=True, slots=True)
class Row:
    """Releases that had one kind of fault.

    Attributes:
        faults: What was wrong.
        first: Seed of the first of them; the others follow.
        ended: How they ended, in the order of their seeds.
    """

    faults: tuple[Fault, ...]
    first: int
    ended: Sequence[Ended]

    @property
    def bad(self) -> bool:
        """Whether they should go back."""
        return any(fault.bad for fault in self.faults)

    @property
    def kind(self) -> str:
        """What they are, in a word."""
        if self.bad:
            return "bad"
        return "better" if any(fault.gain for fault in self.faults) else "good"

    def gains(self, metric: str) -> bool:
        """Return whether a metric is better on the canary."""
        return any(fault.gain and fault.metric in (None, metric) for fault in self.faults)

    def begun(self, one: Ended) -> float | None:
        """Return the second at which what makes them bad began, or what else is wrong; None if never."""
        wrong = [fault for fault in self.faults if fault.kind != "none"]
        if not wrong:
            return 0.0
        counted = [f for f in wrong if f.bad] or [f for f in wrong if f.gain] or wrong
        seconds = (fault.begun(one.guarding, one.reached) for fault in counted)
        return min((second for second in seconds if second is not None), default=None)

    def summary(self) -> Summary:
        """Return what they say together."""
        from controlplane.simulation.summary import summarise

        return summarise(self.ended, bad=self.bad, begins=self.begun)

    def plain(self) -> dict[str, Any]:
        """Return plain values: the figures, and each release, from which they can be counted again."""
        each = [
            {"seed": seed, "begun": self.begun(one)} | asdict(one)
            for seed, one in enumerate(self.ended, self.first)
        ]
        return asdict(self.summary()) | {"each": each}


def show(policy: PinnedPolicy, model: Model, rows: Mapping[str, Row]) -> None:
    """Print how the releases of each kind ended."""
    n = len(next(iter(rows.values())).ended)
    several = "releases" if n > 1 else "release"
    console.line(
        f"policy {policy.name}, {n} {several} of each kind: {model.rps:g} requests/s, "
        f"{100 * model.errors:g} % errors, {100 * model.client_errors:g} % client errors, "
        f"noise {model.noise}, {len(model.proxies)} proxies, statistics each {model.interval:g} s"
    )
    for metric in model.metrics:
        worth = "" if metric.amount is None else f", {metric.amount:g} each in the mean"
        console.line(
            f"metric {metric.name}: {100 * metric.share:g} % of the requests that do not fail{worth}"
        )
    if model.users:
        differ = f"how often each buys has a deviation of {model.habit:g} (of the logarithm)"
        console.line(f"{model.users} users come again: {differ}")
    for name, row in rows.items():
        console.line(f"\n{name} ({row.kind})")
        found = row.summary()
        if found.before:
            over = ", ".join(f"{outcome} {count}" for outcome, count in found.before.items())
            counted = f"{sum(found.before.values())} of {found.releases}: {over}"
            _line("over before", counted, "the fault began; not counted below")
        if sum(found.before.values()) < found.releases:
            _show(policy, row, found)


def _show(policy: PinnedPolicy, row: Row, found: Summary) -> None:
    """Print what is said of those that had the fault."""
    for line in (*_outcomes(policy, row, found), *_tests(row, found.shown), *_times_and_harm(row, found)):
        _line(*line)
    for where, count in found.where.items():
        console.line(f"    {count:5d} {where}")
    for why, reason in found.reasons.items():
        outcome, _, cause = why.partition(": ")
        held = "held last" if outcome == "undecided" else outcome
        by = "" if cause == outcome else f" by {_cause(cause)}"
        console.line(f"    {found.why[why]:5d} {held}{by}, such as: {reason}")


def _line(what: str, value: str, note: str) -> None:
    if value:
        console.line(f"  {what:16s}{value:33s} {note}".rstrip())


def _cause(code: str) -> str:
    if code in CLOCK:
        return CLOCK[code]
    metric, sign, segment = code.rpartition("/")
    return f"{metric} of {segment}" if sign else code


def _outcomes(policy: PinnedPolicy, row: Row, found: Summary) -> Iterator[Line]:
    ends = policy.ends
    tested = ends is not None and ends.do == "promote_if_better"
    promoted = {"bad": "missed", "better": "found" if tested else "", "good": "though nothing is better"}
    over = (
        "the test is over, a person is asked"
        if ends and ends.do == "ask"
        else "the test is over, everyone is back"
    )
    if tested and row.kind == "better":
        over = f"not found: {over}"
    yield "rolled back", _rate(found.rolled_back), "" if row.bad else "false"
    if found.timed_out.share:
        yield "out of time", _rate(found.timed_out), "rolled back by the clock, not for what was seen"
    yield "promoted", _rate(found.promoted), promoted[row.kind] if row.kind != "good" or tested else ""
    if ends:
        yield "ended", _rate(found.ended), over
    yield "undecided", _rate(found.undecided), ""


def _tests(row: Row, shown: Mapping[str, Shown]) -> Iterator[Line]:
    for metric, said in shown.items():
        gains = row.gains(metric)
        yield f"{metric} better", _rate(said.better), "found" if gains else "false"
        yield f"{metric} worse", _rate(said.worse), "" if row.bad else "false"
        if gains:
            yield (
                "shown after",
                _times(said.after),
                f"from the begin of the gain until {metric} was better for good",
            )


def _times_and_harm(row: Row, found: Summary) -> Iterator[Line]:
    detected = "from the fault's begin to the rollback for what was seen" if row.bad else ""
    yield "found after" if row.bad else "back after", _times(found.detected), detected
    yield "last step after", _times(found.whole), ""
    yield "promoted after", _times(found.done), ""
    harm = "events of metrics that the gain brought, mean"
    if row.kind != "better":
        harm = "of the canary's requests and events, spoiled by the fault, mean"
    yield "brought" if row.kind == "better" else "harmed", _harm(found), harm


def _harm(summary: Summary) -> str:
    parts = ((summary.failed, "failed"), (summary.slow, "slow"), (summary.lost, "events of metrics"))
    return ", ".join(f"{count:.1f} {word}" for count, word in parts if count >= 0.05)


def _rate(rate: Rate) -> str:
    return f"{100 * rate.share:.3g} % (95 % sure: {100 * rate.low:.3g} to {100 * rate.high:.3g} %)"


def _times(times: Times | None) -> str:
    if times is None:
        return ""
    median, p95 = (format_duration(timedelta(seconds=round(t))) for t in (times.median, times.p95))
    return f"{median}, 95 % within {p95}"
