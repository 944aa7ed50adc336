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
class Summary:
    """Simulated releases of one policy under one fault.

    Attributes:
        releases: How many.
        bad: True if they should have been rolled back.
        rolled_back: Share that was; of good releases these are the false ones.
        promoted: Share that was; of bad releases these are the misses.
        ended: Share whose A/B test ended with everyone back; of good releases that is no failure.
        undecided: Share that was none of these at the longest time.
        detected: From the fault's begin to the rollback.
        whole: From the start to the begin of the last step, of those that were promoted.
        done: From the start to the promotion.
        failed: Requests that failed by the fault, mean.
        slow: Requests that were slower than 250 ms by the fault, mean.
        lost: Events of business metrics that the fault cost, mean.
        failed_p95: 95 % of the releases stay within.
        where: How many ended in which step.
        why: How many ended, or were held, for which cause.
        held: By cause of those that are undecided: what one of them said last.
    """

    releases: int
    bad: bool
    rolled_back: Rate
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
    held: dict[str, str] = field(default_factory=dict)


def summarise(
    ended: Sequence[Ended], *, bad: bool, begins: float | Callable[[Ended], float | None] = 0.0
) -> Summary:
    """Return what ``ended`` says.

    Args:
        ended: At least one release.
        bad: Whether they should have been rolled back.
        begins: Second at which the fault began, or each release's own; detection counts from then on.
    """
    back = [e for e in ended if e.outcome == "rolled back"]
    done = [e for e in ended if e.outcome == "promoted"]
    over = sum(e.outcome == "ended" for e in ended)
    n = len(ended)
    since = ((e.seconds, begins(e) if callable(begins) else begins) for e in back)
    return Summary(
        releases=n,
        bad=bad,
        rolled_back=Rate.of(len(back), n),
        promoted=Rate.of(len(done), n),
        ended=Rate.of(over, n),
        undecided=Rate.of(n - len(back) - len(done) - over, n),
        detected=Times.of(end - begun for end, begun in since if begun is not None and end >= begun),
        whole=Times.of(e.whole for e in done if e.whole is not None),
        done=Times.of(e.seconds for e in done),
        failed=sum(e.harm.failed for e in ended) / n,
        slow=sum(e.harm.slow for e in ended) / n,
        lost=sum(e.harm.lost for e in ended) / n,
        failed_p95=percentile(sorted(e.harm.failed for e in ended), 0.95),
        where=dict(sorted(Counter(f"{e.outcome} in {e.where}" for e in ended).items())),
        why=dict(
            sorted(Counter(f"{e.outcome}: {e.metric}" for e in ended if e.outcome != "promoted").items())
        ),
        held={e.metric: e.reason for e in ended if e.outcome == "undecided"},
    )
