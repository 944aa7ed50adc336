"""The blocks of several intervals in one table, and of several counters in it.

A table of few lines costs as much as it has operations, so the lines of another interval cost little. What
comes of an interval is the same to the last bit, whatever others are beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.account import Interval
from controlplane.evidence.figures import Figures
from controlplane.evidence.learned import Learned, figures
from controlplane.evidence.once import once
from controlplane.evidence.rows import Floats
from controlplane.evidence.table import Rows

Places = NDArray[np.intp]
Chosen = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)  # no slots: where the groups begin is worked out once
class Lines:
    """Which group each line of a table belongs to.

    Attributes:
        at: Of each line, in ascending order.
        count: Of the groups; some may have no line.
    """

    at: Places
    count: int

    @once
    def _begins(self) -> tuple[Chosen | None, Places]:
        """Which groups have lines, None if all, and where these begin."""
        lengths = np.bincount(self.at, minlength=self.count)
        begins = np.add.accumulate(lengths) - lengths
        some = lengths > 0
        return (None, begins) if all(some.tolist()) else (some, begins[some])

    def sums(self, values: Floats) -> Floats:
        """Return the sum of each group's lines; 0 where there are none."""
        some, begins = self._begins
        if some is None:
            whole: Floats = np.add.reduceat(values, begins)
            return whole
        found = np.zeros((self.count, *values.shape[1:]))
        if len(begins):
            found[some] = np.add.reduceat(values, begins)
        return found


@dataclass(frozen=True, eq=False)
class Counts:
    """Requests and events of both versions: for each group, a line per block of its interval.

    Attributes:
        n_c: Requests of the canary.
        k_c: Its events.
        n_b: Requests of the baseline.
        k_b: Its events.
        borrowed: Where the baseline is not the block's own.
        place: Of the block's segment among those of its interval.
        lines: Their groups.
    """

    n_c: Floats
    k_c: Floats
    n_b: Floats
    k_b: Floats
    borrowed: Chosen
    place: Places
    lines: Lines

    def where(self, chosen: Chosen) -> Counts:
        """Return the chosen lines."""
        if all(chosen.tolist()):
            return self
        return Counts(
            self.n_c[chosen],
            self.k_c[chosen],
            self.n_b[chosen],
            self.k_b[chosen],
            self.borrowed[chosen],
            self.place[chosen],
            Lines(self.lines.at[chosen], self.lines.count),
        )

    @property
    def both(self) -> Chosen:
        """Where both versions have requests."""
        found: Chosen = (self.n_c > 0) & (self.n_b > 0)
        return found

    def own(self) -> Counts:
        """Return the lines where both have requests and the baseline is the block's own."""
        return self.where(self.both & ~self.borrowed)


@dataclass(frozen=True, eq=False)
class Stack:
    """The blocks of intervals, one per line, those of one interval after those of the other.

    Attributes:
        lines: Where the blocks of each interval are; some may have none.
        canary: Rows of the canary.
        baseline: Rows of the baseline.
        borrowed: Where that is not the block's own.
        place: Of the block's segment among those of its interval.
    """

    lines: Sequence[Places]
    canary: Rows
    baseline: Rows
    borrowed: Chosen
    place: Places

    @classmethod
    def of(cls, intervals: Sequence[Interval]) -> Stack:
        """Return the blocks of these intervals."""
        every = [interval.blocks for interval in intervals]
        ends = [*accumulate(len(blocks.segments) for blocks in every)]
        lines = np.arange(ends[-1])
        columns = zip(*((b.canary, b.baseline, b.borrowed, b.place) for b in every), strict=True)
        return cls(
            [lines[begin:end] for begin, end in pairwise((0, *ends))],
            *map(np.concatenate, columns),
        )

    def counts(self, groups: Iterable[tuple[int, int]]) -> Counts:
        """Return what is counted of each group, which is an interval and a counter."""
        intervals, counters = zip(*groups, strict=True)
        every = [self.lines[interval] for interval in intervals]
        lengths = [len(lines) for lines in every]
        line, counter = np.concatenate(every), np.repeat(counters, lengths)
        return Counts(
            self.canary[line, 0],
            self.canary[line, counter],
            self.baseline[line, 0],
            self.baseline[line, counter],
            self.borrowed[line],
            self.place[line],
            Lines(np.repeat(np.arange(len(every)), lengths), len(every)),
        )


def taught(intervals: Sequence[Interval]) -> Figures:
    """Return what the past of each interval taught; what is asked of one alone as well stays with it."""
    pasts = [interval.learned for interval in intervals]
    found = figures(pasts)
    for past, swings in zip(pasts, found.swings.tolist(), strict=True):
        Learned.swings.keep(past, swings)
    return found
