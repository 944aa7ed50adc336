"""What an interval says of all counters that are compared with the baseline's, in tables for all of them.

A table of few lines costs as much as it has operations, so lines of another counter cost little.
Source: docs/decision-rule.md, "Rollback evidence: errors" and "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.account import FULL_MARGIN, Interval, Stage
from controlplane.evidence.blocks import Blocks, Pairs
from controlplane.evidence.by_segment import SEGMENT
from controlplane.evidence.learned import SIZES, Learned
from controlplane.evidence.likelihood import binomial
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

    def tolerated(self, lent: bool) -> float:
        """Return the tolerated rise, of blocks that borrow their baseline or not."""
        return max(self.margin, FULL_MARGIN) if lent else self.margin

    def grid(self, learned: Learned, lent: bool) -> Floats:
        """Return the tolerated ratio of rates, then the alternatives, none above what a rate can be."""
        return _grid(1 + self.tolerated(lent), learned.rate(self.counter))

    def wide(self, learned: Learned) -> Floats:
        """Return the same where all blocks are one, or bursts: the least rise is a ratio to the rate."""
        rate = learned.rate(self.counter)
        return _grid(1 + max(self.margin, LEAST_RISE / rate), rate)


class Compared(NamedTuple):
    """What an interval says of a counter: what it adds to processes, and as in :meth:`Account.after`."""

    gains: Gains
    harmless: tuple[float, float] | None


def compared(interval: Interval, asked: tuple[Asked, ...]) -> Mapping[int, Compared]:
    """Return what an interval says, by counter."""
    blocks, learned = interval.blocks, interval.learned
    labels = (MAIN, QUASI, *(SEGMENT + s for s in blocks.met))
    gains: dict[int, Gains] = {each.counter: dict.fromkeys(labels, _NONE) for each in asked}
    for each, surge in zip(asked, _surges(blocks, learned, asked), strict=True):
        gains[each.counter] |= {DENSE: _dense(blocks, learned, each), SURGE: surge}
    for lent in (False, True) if blocks.lent else (False,):
        for told, both in _evidence(blocks, learned, asked, lent):
            gains[told.asked.counter] |= _by_process(blocks, learned, told, both, lent)
    harmless: list[tuple[float, float] | None] = [None for _ in asked]
    if interval.counting:
        harmless = [*_no_harm(interval, asked)]
    found = zip(asked, harmless, strict=True)
    return {each.counter: Compared(gains[each.counter], good) for each, good in found}


class _Told(NamedTuple):
    """Blocks that tell something of a counter, and the rise of its rate that is tolerated of them anyway."""

    asked: Asked
    some: NDArray[np.bool_]
    pairs: Pairs
    rise: float
    grid: Floats

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which of these blocks have events."""
        found: NDArray[np.bool_] = self.pairs[1] + self.pairs[3] > 0
        return found

    @property
    def failing(self) -> Pairs:
        """Those that have events: without a rise all of them."""
        if not self.rise:
            return self.pairs
        n_c, k_c, n_b, k_b = self.pairs
        some = self.failed
        return n_c[some], k_c[some], n_b[some], k_b[some]


def _evidence(
    blocks: Blocks, learned: Learned, asked: tuple[Asked, ...], lent: bool
) -> Iterator[tuple[_Told, tuple[Floats, Floats]]]:
    """Yield the evidence of blocks, binomial and cautious, less what a tolerated rise gains."""
    told = []
    for each in asked:
        rise = max(0.0, LEAST_RISE - each.tolerated(lent) * learned.rate(each.counter))
        some = blocks.both if rise else blocks.both & blocks.counted(each.counter)
        if blocks.lent:
            some = some & (blocks.borrowed == lent)
        if any(some.tolist()):
            told.append(_Told(each, some, blocks.pair(each.counter, some), rise, each.grid(learned, lent)))
    if told:
        for one, both in zip(told, _failed(learned, told), strict=True):
            yield one, _risen(one, both) if one.rise else both


def _failed(learned: Learned, told: Sequence[_Told]) -> Iterator[tuple[Floats, Floats]]:
    """Yield the evidence of blocks that have events, of all counters in one table."""
    pairs = [one.failing for one in told]
    lengths = [len(one[0]) for one in pairs]
    n_c, k_c, n_b, k_b = map(np.concatenate, zip(*pairs, strict=True))
    clusters = np.repeat([learned.cluster_rate(one.asked.counter) for one in told], lengths) * (n_c + n_b)
    grids = np.repeat([one.grid for one in told], lengths, axis=0)
    plain, least = cautious(k_c, (n_c, n_b), k_c + k_b, clusters, grids) if len(n_c) else (grids, grids)
    for length, end in zip(lengths, accumulate(lengths), strict=True):
        yield plain[end - length : end], least[end - length : end]


def _risen(told: _Told, both: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return the evidence of all blocks, given that of those with events."""
    n_c, _, n_b, _ = told.pairs
    plain = -dues((n_c, n_b), told.grid, told.rise)
    if not len(both[0]):
        return plain, plain
    least, failed = plain.copy(), told.failed
    plain[failed] += both[0]
    least[failed] += both[1]
    return plain, least


def _by_process(
    blocks: Blocks, learned: Learned, told: _Told, both: tuple[Floats, Floats], lent: bool
) -> Gains:
    """Return what blocks add to the processes of all requests and of each segment."""
    plain, least = both
    spread, swing = learned.spread(told.asked.counter), learned.swing(told.asked.counter)
    together = (np.add.reduce(least) / spread).tolist()
    gains: Gains = {}
    for segment, lines in blocks.lines.items():
        mine = lines[told.some].tolist()
        if any(mine):
            own = together if all(mine) else (np.add.reduce(least[mine]) / spread).tolist()
            gains[SEGMENT + segment] = own
    # A borrowed baseline is in a block of its own already: one process must not count it twice.
    if not lent:
        gains[MAIN] = together
        gains[QUASI] = (np.add.reduce(np.minimum(plain, QUASI_MOST * swing)) / swing).tolist()
    return gains


def _surges(blocks: Blocks, learned: Learned, asked: tuple[Asked, ...]) -> list[list[float]]:
    """Return what blocks add for each size of burst, in a line for each counter.

    A version gets bursts of a size in proportion to its requests; the past says how many. One that was
    never seen on all of the baseline says much on the few requests of a canary, even if it had a single
    cause. In an outage of both it says nothing: then the binomial evidence is the lesser.
    """
    canary, baseline = blocks.own
    if not len(canary):
        return [[0.0] * len(SIZES) for _ in asked]
    # One layer per counter, one line per block, one column per size.
    n_c, events = canary[:, :1], [canary[:, each.counter : each.counter + 1] for each in asked]
    due = n_c * np.array([learned.burst_rates(each.counter) for each in asked])[:, None]
    usual = np.minimum(due, RARE)
    said = np.log((1 - SURGING) / (1 - usual))
    for layer, (each, k_c) in enumerate(zip(asked, events, strict=True)):
        if max(k_c[:, 0].tolist()) >= SIZES[0]:
            n_b, k_b, grid = baseline[:, :1], baseline[:, each.counter : each.counter + 1], each.wide(learned)
            null, rho, ratio = grid[0], grid[1 + SURGE_RISE], n_c / n_b
            common = np.log1p(null * ratio) - np.log1p(rho * ratio)
            plain = k_c * log(rho / null) + (k_c + k_b) * common
            burst = np.minimum(np.log(SURGING / usual[layer]) / learned.spread(each.counter), plain)
            said[layer] = np.where(k_c >= _SIZES, burst, said[layer])
    said[(due >= RARE) | (n_c < _SIZES)] = 0.0
    found: list[list[float]] = np.add.reduce(said, axis=1).tolist()
    return found


def _dense(blocks: Blocks, learned: Learned, asked: Asked) -> Sequence[float]:
    """Return what the interval adds when much fails and only a hold-back is left on the baseline.

    Then a burst is on the canary anyway and says little. What tells a fault from a shared outage is that
    the few requests of the baseline do not fail; amid an outage they fail independently of one another.
    """
    canary, baseline = blocks.concurrent
    n_c, k_c, n_b, k_b = canary[0], canary[asked.counter], baseline[0], baseline[asked.counter]
    dense = (DENSE_RATE + 5 * learned.rate(asked.counter)) * (n_c + n_b)
    if not n_b or n_c < MOSTLY * n_b or k_c + k_b < max(DENSE_EVENTS, dense):
        return _NONE
    null, *rhos = asked.wide(learned).tolist()
    return [binomial(k_c, k_c + k_b, n_c / n_b, null, rho) for rho in rhos]


def _no_harm(interval: Interval, asked: tuple[Asked, ...]) -> Iterator[tuple[float, float]]:
    """Yield the evidence of no harm of each counter."""
    blocks, learned, stage = interval.blocks, interval.learned, interval.stage
    canary, borrowed = blocks.served
    if not len(canary):
        yield from ((0.0, 0.0) for _ in asked)
        return
    # One line per counter, one column per block.
    n, k = canary[:, 0], canary.T.take([each.counter for each in asked], axis=0)
    rates = [learned.rate_now(each.counter, blocks.baseline_sum) for each in asked]
    both = list(zip(asked, rates, strict=True))
    risen = [[stage.tolerated(usual(learned, stage, each.counter, rate), each.margin)] for each, rate in both]
    base = np.array(rates)[:, None]
    if blocks.lent:
        wider = np.array([[rate * (1 + each.tolerated(lent=True))] for each, rate in both])
        base = np.where(borrowed, wider, base)
    least, plain = no_harm(k, n, base, np.array(risen))
    yield from zip(np.add.reduce(least, axis=1).tolist(), np.add.reduce(plain, axis=1).tolist(), strict=True)


def usual(learned: Learned, stage: Stage, counter: int, now: float) -> float:
    """Return the rate of which a rise is tolerated; in an emergency that of a broken baseline."""
    rate = learned.rate(counter)
    return max(rate, now) if stage.limits.emergency else rate


@lru_cache(maxsize=16)
def _grid(null: float, rate: float) -> Floats:
    found: Floats = np.maximum(null, np.minimum(null * _TIMES, 0.95 / rate))
    return found
