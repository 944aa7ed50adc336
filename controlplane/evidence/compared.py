"""What intervals say of all counters that are compared with the baseline's, in one table for all of them.

Source: docs/decision-rule.md, "Rollback evidence: errors" and "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from controlplane.evidence.account import FULL_MARGIN, Beside, Interval, Stage
from controlplane.evidence.by_segment import SEGMENT
from controlplane.evidence.fading import SIZES
from controlplane.evidence.likelihood import binomial
from controlplane.evidence.lines import Counts, Lines, Stack, taught
from controlplane.evidence.rows import Floats, cautious, dues, no_harm

ALTERNATIVES = (
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
    300.0,
)  # faults, as multiples of what is tolerated
LEAST_RISE = 0.001  # a rise by 0.1 percentage points is always tolerated, whatever the usual rate
QUASI_MOST = 1.0  # that one block may add to the process for small lasting faults: a burst is not lasting
DENSE_RATE, DENSE_EVENTS = 0.05, 10  # above five times the usual rate; what an interval must have to be dense
MOSTLY = 4.0  # canary requests per baseline request from which on the dense process counts
SURGING = 0.2  # chance that a block shows a burst of a size, while a fault makes them
RARE = 0.005  # chance of a burst in a block of a good canary from which on it says nothing
SURGE_RISE = ALTERNATIVES.index(10.0)  # the fault by which a burst must also be explained
MAIN, QUASI, DENSE, SURGE = "main", "quasi", "dense", "surge"
_SIZES = np.array(SIZES, dtype=float)
_TIMES = np.array((1.0, *ALTERNATIVES))
_NONE = (0.0,) * len(ALTERNATIVES)

Gains = dict[str, Sequence[float]]  # by process, for each alternative


class Asked(NamedTuple):
    """A counter that is compared: its position in a row, and the tolerated rise, as a ratio."""

    counter: int
    margin: float

    @property
    def lent(self) -> float:
        """The tolerated rise, of blocks that borrow their baseline."""
        return max(self.margin, FULL_MARGIN)

    def risen(self, stage: Stage, rate: float, now: float) -> float:
        """Return the rise that promotion must exclude, of a usual rate; in an emergency, of a broken one."""
        return stage.tolerated(max(rate, now) if stage.limits.emergency else rate, self.margin)


class Compared(NamedTuple):
    """What an interval says of a counter: what it adds to processes, and as in :meth:`Account.after`."""

    gains: Gains
    harmless: tuple[float, float] | None


class _Told(NamedTuple):
    """Counters in intervals: what is asked of each, and what the past taught.

    Attributes:
        asked: What is asked.
        interval: In which interval.
        rate: The counter's usual share of the requests.
        now: That of late, with the interval.
        spread: How much more its counts swing over half a minute than within an interval.
        swing: How much they swing over half a minute.
        clusters: Clusters of events per request.
        bursts: Bursts per request, of each size.
    """

    asked: Sequence[Asked]
    interval: Sequence[Interval]
    rate: Floats
    now: Floats
    spread: Floats
    swing: Floats
    clusters: Floats
    bursts: Floats

    @classmethod
    def of(cls, beside: Beside, asking: Sequence[tuple[int, Asked]]) -> _Told:
        """Return what is asked, each of the interval at its place."""
        intervals, known = beside.intervals, beside.shared(taught)
        now = known.now(np.array([interval.blocks.baseline_sum for interval in intervals]))
        at, counters = [at for at, _ in asking], [each.counter - 1 for _, each in asking]
        return cls(
            asked=[each for _, each in asking],
            interval=[intervals[place] for place in at],
            rate=known.rates[at, counters],
            now=now[at, counters],
            spread=known.spreads[at, counters],
            swing=known.swings[at, counters],
            clusters=known.clusters[at, counters],
            bursts=known.bursts[at, :, counters],
        )

    @property
    def margins(self) -> Floats:
        """Tolerated rises of blocks with a baseline of their own, and of others, in a line each."""
        return np.array([(each.margin, each.lent) for each in self.asked]).T


def compared(beside: Beside, asked: Sequence[tuple[Asked, ...]]) -> list[Mapping[int, Compared]]:
    """Return what each interval says, by counter."""
    asking = [(at, each) for at, those in enumerate(asked) for each in those]
    told = _Told.of(beside, asking)
    counts = beside.shared(Stack.of).counts((at, each.counter) for at, each in asking)
    gains = zip(_evidence(counts, told), _dense(counts, told), _surges(counts, told), strict=True)
    found: list[dict[int, Compared]] = [{} for _ in asked]
    said = zip(asking, told.interval, gains, _no_harm(counts, told), strict=True)
    for (at, each), interval, (evidence, dense, surge), harmless in said:
        whole = {**evidence, DENSE: dense, SURGE: surge}
        found[at][each.counter] = Compared(whole, harmless if interval.counting else None)
    return [*found]


def _evidence(counts: Counts, told: _Told) -> list[Gains]:
    """Return what blocks add to the processes of all requests and of each segment.

    That is the binomial and the cautious evidence, less what a tolerated rise gains.
    """
    (own, lent), at = told.margins, counts.lines.at
    margin = np.where(counts.borrowed, lent[at], own[at])
    rise = np.maximum(0.0, LEAST_RISE - margin * told.rate[at])
    some = counts.both & ((counts.k_c + counts.k_b > 0) | (rise > 0))
    counts, margin, rise = counts.where(some), margin[some], rise[some]
    plain, least = _of_blocks(counts, told, _grids(1 + margin, told.rate[counts.lines.at]), rise)
    spread, swing = told.spread[:, None], told.swing[:, None]
    # A borrowed baseline is in a block of its own already: one process must not count it twice.
    ours = ~counts.borrowed
    lines = counts.where(ours).lines
    main = lines.sums(least[ours]) / spread
    quasi = lines.sums(np.minimum(plain, QUASI_MOST * swing[counts.lines.at])[ours]) / swing
    segments = _by_segment(counts, told, least, main)
    return [
        {MAIN: whole, QUASI: lasting, **single}
        for whole, lasting, single in zip(main.tolist(), quasi.tolist(), segments, strict=True)
    ]


def _of_blocks(counts: Counts, told: _Told, grids: Floats, rise: Floats) -> tuple[Floats, Floats]:
    """Return the evidence of each block, binomial and cautious."""
    requests, events = (counts.n_c, counts.n_b), counts.k_c + counts.k_b
    plain = -dues(requests, grids, rise)
    failed = events > 0
    least = plain.copy()
    if any(failed.tolist()):
        n_c, n_b = counts.n_c[failed], counts.n_b[failed]
        clusters = told.clusters[counts.lines.at[failed]] * (n_c + n_b)
        both = cautious(counts.k_c[failed], (n_c, n_b), events[failed], clusters, grids[failed])
        plain[failed] += both[0]
        least[failed] += both[1]
    return plain, least


def _by_segment(counts: Counts, told: _Told, least: Floats, main: Floats) -> list[Gains]:
    """Return what blocks add to the processes of segments."""
    blocks = [interval.blocks for interval in told.interval]
    most = max(len(each.names) for each in blocks)
    if most == 1 and not any(counts.borrowed.tolist()):
        sums = main[:, None]
    else:
        key = counts.lines.at * most + counts.place
        order = np.argsort(key, kind="stable")
        sums = Lines(key[order], len(blocks) * most).sums(least[order])
        sums = sums.reshape(len(blocks), most, len(ALTERNATIVES)) / told.spread[:, None, None]
    return [
        {SEGMENT + name: line for name, line in zip(each.names, lines, strict=False) if name in each.met}
        for each, lines in zip(blocks, sums.tolist(), strict=True)
    ]


def _surges(counts: Counts, told: _Told) -> list[list[float]]:
    """Return what blocks add for each size of burst.

    A version gets bursts of a size in proportion to its requests; the past says how many. One that was
    never seen on all of the baseline says much on the few requests of a canary, even if it had a single
    cause. In an outage of both it says nothing: then the binomial evidence is the lesser.
    """
    counts = counts.own()
    n_c, at = counts.n_c[:, None], counts.lines.at
    # One line per block, one column per size.
    due = n_c * told.bursts[at]
    usual = np.minimum(due, RARE)
    said = np.log((1 - SURGING) / (1 - usual))
    burst = counts.k_c >= SIZES[0]
    if any(burst.tolist()):
        k_c, k_b, at = counts.k_c[burst][:, None], counts.k_b[burst][:, None], at[burst]
        spread = told.spread[at][:, None]
        null, rho = _wide(told)[at][:, [0, 1 + SURGE_RISE]].T[:, :, None]
        ratio = n_c[burst] / counts.n_b[burst][:, None]
        common = np.log1p(null * ratio) - np.log1p(rho * ratio)
        plain = k_c * np.log(rho / null) + (k_c + k_b) * common
        much = np.minimum(np.log(SURGING / usual[burst]) / spread, plain)
        said[burst] = np.where(k_c >= _SIZES, much, said[burst])
    said[(due >= RARE) | (n_c < _SIZES)] = 0.0
    found: list[list[float]] = counts.lines.sums(said).tolist()
    return found


def _dense(counts: Counts, told: _Told) -> list[Sequence[float]]:
    """Return what intervals add when much fails and only a hold-back is left on the baseline.

    Then a burst is on the canary anyway and says little. What tells a fault from a shared outage is that
    the few requests of the baseline do not fail; amid an outage they fail independently of one another.
    """
    found: list[Sequence[float]] = [_NONE] * len(told.asked)
    counts = counts.where(~counts.borrowed)
    table = np.array((counts.n_c, counts.k_c, counts.n_b, counts.k_b)).T
    n_c, k_c, n_b, k_b = counts.lines.sums(table).T
    enough = np.maximum(DENSE_EVENTS, (DENSE_RATE + 5 * told.rate) * (n_c + n_b))
    dense = (n_b > 0) & (n_c >= MOSTLY * n_b) & (k_c + k_b >= enough)
    if any(dense.tolist()):
        grids = _wide(told)
        for at in np.flatnonzero(dense).tolist():
            null, *rhos = grids[at].tolist()
            seen = float(k_c[at]), float(k_c[at] + k_b[at]), float(n_c[at] / n_b[at])
            found[at] = [binomial(*seen, null, rho) for rho in rhos]
    return found


def _no_harm(counts: Counts, told: _Told) -> list[tuple[float, float]]:
    """Return the evidence of no harm of each counter."""
    counting = np.array([interval.counting for interval in told.interval])
    counts = counts.where(counting[counts.lines.at] & (counts.n_c > 0))
    figures = [
        (now * (1 + each.lent), each.risen(interval.stage, rate, now))
        for each, interval, rate, now in zip(
            told.asked, told.interval, told.rate.tolist(), told.now.tolist(), strict=True
        )
    ]
    at = counts.lines.at
    wider, risen = np.array(figures)[at].T
    both = no_harm(counts.k_c, counts.n_c, np.where(counts.borrowed, wider, told.now[at]), risen)
    found: list[tuple[float, float]] = counts.lines.sums(np.array(both).T).tolist()
    return found


def _wide(told: _Told) -> Floats:
    """Return :func:`_grids` where all blocks are one, or bursts: the least rise is a ratio to the rate."""
    return _grids(1 + np.maximum(told.margins[0], LEAST_RISE / told.rate), told.rate)


def _grids(null: Floats, rate: Floats) -> Floats:
    """Return the tolerated ratio of rates, then the alternatives, none above what a rate can be; in lines."""
    null = null[:, None]
    found: Floats = np.maximum(null, np.minimum(null * _TIMES, 0.95 / rate[:, None]))
    return found
