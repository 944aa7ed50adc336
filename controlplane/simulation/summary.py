"""What many simulated releases say together: rates with confidence intervals, times, harm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt

from controlplane.simulation.loop import Ended

Z = 1.96  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of releases with its 95 % confidence interval, all in 0..1."""

    share: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, whole: int) -> Rate:
        """Return ``count`` of ``whole`` with Wilson's interval, which holds for rates near 0 too."""
        if not whole:
            return cls(0.0, 0.0, 1.0)
        p, z = count / whole, Z * Z / whole
        middle = (p + z / 2) / (1 + z)
        half = Z * sqrt(p * (1 - p) / whole + z / (4 * whole)) / (1 + z)
        return cls(
            p, max(0.0, middle - half) if count else 0.0, min(1.0, middle + half) if count < whole else 1.0
        )


@dataclass(frozen=True, slots=True)
class Times:
    """Median and 95th percentile, in seconds, of how many."""

    count: int
    median: float
    p95: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Times | None:
        """Return the times of ``values``, None if there are none."""
        known = sorted(values)
        return cls(len(known), percentile(known, 0.5), percentile(known, 0.95)) if known else None


def percentile(known: Sequence[float], part: float) -> float:
    """Return the smallest of sorted values that ``part`` of them do not exceed."""
    return known[max(0, ceil(part * len(known)) - 1)]


@dataclass(frozen=True, slots=True)
class Shown:
    """What A/B tests have shown of one metric at last, and when they did so for good.

    Attributes:
        better: Share of the releases in which it is said to be better.
        worse: The same of worse.
        after: From the gain's begin until it was said to be better.
    """

    better: Rate
    worse: Rate
    after: Times | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Simulated releases of one policy under one fault; shares, times and harm are of those that had it.

    Attributes:
        releases: How many, with those that did not have the fault.
        bad: True if they should have been rolled back.
        before: By outcome: how many were over before the fault began.
        rolled_back: Share that was, for what was seen; of good releases these are the false ones.
        timed_out: Share that was rolled back by the clock: the time or the proof lacked.
        promoted: Share that was; of bad releases these are the misses.
        ended: Share whose A/B test was over, with everyone back or a person asked.
        undecided: Share that was none of these at the longest time.
        detected: From the fault's begin to a rollback for what was seen.
        whole: From the start to the begin of the last step, of those that were promoted.
        done: From the start to the promotion.
        failed: Requests that failed by the fault, mean.
        slow: Requests that were slower than 250 ms by the fault, mean.
        lost: Events of business metrics that the fault changed, mean.
        failed_p95: 95 % of the releases stay within.
        where: How many ended in which step.
        why: How many ended, or were held, for which cause.
        reasons: By the same: what one of them said last.
        shown: What A/B tests have shown, by metric.
    """

    releases: int
    bad: bool
    before: dict[str, int]
    rolled_back: Rate
    timed_out: Rate
    promoted: Rate
    ended: Rate
    undecided: Rate
    detected: Times | None
    whole: Times | None
    done: Times | None
    failed: float
    slow: float
    lost: float
    failed_p95: float
    where: dict[str, int] = field(default_factory=dict)
    why: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    shown: dict[str, Shown] = field(default_factory=dict)


def summarise(
    ended: Sequence[Ended], *, bad: bool, begins: float | Callable[[Ended], float | None] = 0.0
) -> Summary:
    """Return what ``ended`` says.

    Args:
        ended: At least one release.
        bad: Whether they should have been rolled back.
        begins: Second at which the fault began, or each release's own, None if it never did. Detection counts
            from then on; what was over before is counted apart.
    """
    since = [(e, begins(e) if callable(begins) else begins) for e in ended]
    had = [(e, begun) for e, begun in since if begun is not None and begun < e.seconds]
    before = [e for e, begun in since if begun is None or begun >= e.seconds]
    n, of = len(had), Counter("timed out" if e.by_clock else e.outcome for e, _ in had)
    back = [(e, begun) for e, begun in had if e.outcome == "rolled back" and not e.by_clock]
    done = [e for e, _ in had if e.outcome == "promoted"]
    failed = sorted(e.harm.failed for e, _ in had)
    causes = [(f"{e.outcome}: {e.metric}", e) for e, _ in had if e.outcome != "promoted"]
    return Summary(
        releases=len(ended),
        bad=bad,
        before=dict(sorted(Counter(e.outcome for e in before).items())),
        rolled_back=Rate.of(len(back), n),
        timed_out=Rate.of(of["timed out"], n),
        promoted=Rate.of(len(done), n),
        ended=Rate.of(of["ended"], n),
        undecided=Rate.of(of["undecided"], n),
        detected=Times.of(e.seconds - begun for e, begun in back),
        whole=Times.of(e.whole for e in done if e.whole is not None),
        done=Times.of(e.seconds for e in done),
        failed=sum(failed) / max(n, 1),
        slow=sum(e.harm.slow for e, _ in had) / max(n, 1),
        lost=sum(e.harm.lost for e, _ in had) / max(n, 1),
        failed_p95=percentile(failed, 0.95) if failed else 0.0,
        where=dict(sorted(Counter(f"{e.outcome} in {e.where}" for e, _ in had).items())),
        why=dict(sorted(Counter(cause for cause, _ in causes).items())),
        reasons={cause: e.reason for cause, e in causes},
        shown=_shown(had),
    )


def _shown(had: Sequence[tuple[Ended, float]]) -> dict[str, Shown]:
    """Return what A/B tests have shown, by metric."""
    found = {}
    for metric in sorted({metric for e, _ in had for metric in e.shown}):
        said = [(*e.shown[metric], begun) for e, begun in had if metric in e.shown]
        better = [max(0.0, since - begun) for word, since, begun in said if word == "better"]
        worse = sum(word == "worse" for word, _, _ in said)
        n = len(had)
        found[metric] = Shown(Rate.of(len(better), n), Rate.of(worse, n), Times.of(better))
    return found
