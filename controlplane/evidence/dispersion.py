"""How unevenly the events of windows fell on their cells; any number of windows is worked out at a time.

Source: docs/decision-rule.md, "What the past teaches".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.usual import MORE, Array, most

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Dispersion:
    """How uneven windows are; conditional on the sum of each, so shared drift cancels.

    Attributes:
        squares: By window and counter, of what the cells had beyond their shares.
        expected: What the squares of independent events would be.
        events: In all cells.
    """

    squares: Array
    expected: Array
    events: Array

    @classmethod
    def of(cls, rows: Array, past: Array, usual: Array, calm: Flags) -> Dispersion:
        """Compare each cell with its long-run share.

        Args:
            rows: By window and cell. Lines of zeros may follow the cells of a window, and change nothing.
            past: The same of the long run.
            usual: By window and counter, the long-run share of requests that are counted.
            calm: Which counters are. The events of others count as none.
        """
        requests, counts, whole = rows[..., :1], rows[..., 1:], np.add.reduce(rows, axis=-2)
        events = whole[..., 1:]
        sane = calm & (events <= most(whole[..., :1], usual, MORE))
        if np.count_nonzero(sane) < sane.size:
            counts, events = np.where(sane[..., None, :], counts, 0.0), np.where(sane, events, 0.0)
        share = requests * (past[..., 1:] + 5) / (past[..., :1] + (5 / usual)[..., None, :])
        share /= np.add.reduce(share, axis=-2, keepdims=True)
        mean = events[..., None, :] * share
        squares = np.add.reduce((counts - mean) ** 2, axis=-2)
        return cls(squares, np.add.reduce(mean * (1 - share), axis=-2), events)

    def added(self, sums: Array, freedom: Array, fade: Array) -> Array:
        """Return faded sums by window, over and under a ratio, with each window.

        A window weighs at most its ``freedom``, its cells less one, in a column as ``fade``.
        """
        weight = np.minimum(self.expected, freedom)
        found: Array = sums * fade[..., None]
        found[..., 0, 1:] += weight * (self.squares / (self.expected + (self.expected == 0)))
        found[..., 1, 1:] += weight
        return found


def shrunk(sums: Array, prior: Array | float, weight: float) -> Array:
    """Return the ratio of two lines, drawn towards ``prior`` as if ``weight`` had been seen of it."""
    found: Array = (sums[..., 0, 1:] + prior * weight) / (sums[..., 1, 1:] + weight)
    return found
