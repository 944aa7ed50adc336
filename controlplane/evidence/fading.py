"""The sums that a past is kept as: they fade, and windows are added to them, of many pasts at once.

Those of one past are a table of WIDTH columns. A ratio has two lines: what was seen, and what that is
measured by. The half-life is 30 min where nothing else is said.

========  ================================================================================================
TOTAL     Requests and counters; capped, so that an outage does not become normal.
EXPOSED   By counter, the requests of SHORT windows, without the times of an outage.
SIZE      In its first columns: requests of SHORT windows, how many windows, and their lengths, which are
          an interval's where statistics come less often; 1 is SHORT.
CLUSTERS  Correlation of errors within SHORT: as seen / possible.
BURSTS    For each of SIZES, how many SHORT windows of a cell had that many events or more.
RECENT    As TOTAL with a half-life of 30 s, and nothing capped.
BRIEF     Dispersion of one interval: squares seen / squares expected of independent errors.
LASTING   The same over LONG.
LAGS      The same of all cells together, beside the SWAY window before; then, beside the one before that.
SWAYING   What all cells together have in the SWAY window that is being filled; this does not fade.
BEFORE    What they had in the window before, and in the one before that; nor does this.
========  ================================================================================================

Source: docs/decision-rule.md, "What the past teaches".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controlplane.evidence.dispersion import Dispersion, Flags
from controlplane.evidence.table import WIDTH, Table, stacked
from controlplane.evidence.usual import MORE, MORE_LATELY, Array, most, share

TOTAL, EXPOSED, SIZE, CLUSTERS, BURSTS = 0, 1, 2, slice(3, 5), slice(5, 11)
BY_SHORT = slice(0, 11)  # what fades with every full SHORT window
RECENT, BRIEF, LASTING, LAGS = 11, slice(12, 14), slice(14, 16), slice(16, 20)
SWAYING, BEFORE = 20, slice(21, 23)
LINES = 23

HALF_LIFE, RECENT_HALF_LIFE = 1800.0, 30.0  # seconds
SHORT = 5.0  # seconds: windows in which clusters show
OUTAGE_WEIGHT = 0.01  # of a window amid an outage: only what lasts for hours becomes normal
SIZES = (5, 8, 12, 20, 40, 80)  # of bursts: events of one cell within SHORT, that many or more

_SIZES = np.array(SIZES)[:, None, None]


@dataclass(frozen=True, slots=True, eq=False)
class FadingSums:
    """The sums of several pasts, each with an interval that is taken in.

    Attributes:
        sums: By past; they are brought up to date in place.
        usual: By past and counter, the long-run share of requests that are counted.
        calm: Which counters are not far above it, in the last half minute with the interval.
    """

    sums: Array
    usual: Array
    calm: Flags

    @classmethod
    def of(cls, sums: Sequence[Array], rows: Array, seconds: Sequence[float]) -> FadingSums:
        """Take in intervals of so many seconds, of rows by past and cell; windows are not full yet."""
        found, row = np.array(sums), np.add.reduce(rows, axis=1)
        recent = found[:, RECENT] = found[:, RECENT] * fade(seconds, RECENT_HALF_LIFE) + row
        found[:, SWAYING] += row
        usual = rates(found[:, TOTAL])
        return cls(found, usual, recent[:, 1:] <= most(recent[:, :1], usual, MORE_LATELY))

    def dispersion(self, windows: Sequence[Table], cells: Sequence[Table]) -> Dispersion:
        """Return how uneven windows are, one of each past, beside the long-run shares of its cells."""
        past = [known.aligned(window.keys) for known, window in zip(cells, windows, strict=True)]
        return Dispersion.of(
            stacked([window.rows for window in windows]), stacked(past), self.usual, self.calm
        )

    def compare(
        self, lines: slice, windows: Sequence[Table], cells: Sequence[Table], seconds: Sequence[float]
    ) -> Dispersion:
        """Add the windows' dispersion, of so many seconds each, to ``lines``; and return it."""
        found = self.dispersion(windows, cells)
        freedom = np.array([len(window.keys) - 1.0 for window in windows])[:, None]
        self.sums[:, lines] = found.added(self.sums[:, lines], freedom, fade(seconds))
        return found

    def close_short(self, rows: Array, seconds: Sequence[float], uneven: Dispersion | None) -> None:
        """Take in full SHORT windows: rates, correlation within them, and their size.

        ``uneven`` is None where nothing can be compared.
        """
        row, sums = np.add.reduce(rows, axis=1), self.sums[:, BY_SHORT]
        requests = row[:, :1]
        np.minimum(row[:, 1:], most(requests, self.usual, MORE), out=row[:, 1:])
        sums *= fade(seconds)[:, None]
        sums[:, TOTAL] += np.where(self.calm[:, :1], 1.0, OUTAGE_WEIGHT) * row
        sums[:, EXPOSED, 1:] += self.calm * requests
        sums[:, SIZE, :3] += [
            (n, n > 0, (n > 0) * each / SHORT) for n, each in zip(row[:, 0].tolist(), seconds, strict=True)
        ]
        sums[:, BURSTS, 1:] += np.add.reduce(rows[:, None, :, 1:] >= _SIZES, axis=2, dtype=np.int64)
        if uneven is not None:
            pairs, many = np.maximum(uneven.events - 1, 1), uneven.events >= 2
            sums[:, CLUSTERS.start, 1:] += many * ((uneven.squares - uneven.expected) / pairs**2)
            sums[:, CLUSTERS.start + 1, 1:] += many * (uneven.expected / pairs)

    def close_sway(self, seconds: Sequence[float]) -> None:
        """Take in full SWAY windows: how far all cells are from what they were one and two windows before."""
        before, now = self.sums[:, BEFORE], self.sums[:, SWAYING]
        both = np.zeros((len(now), 2, 2, WIDTH))
        both[:, :, 0], both[:, :, 1] = now[:, None], before
        requests = both[..., 0]
        freedom = (requests.min(axis=-1, keepdims=True) > 0) * 1.0
        np.maximum(requests, 1.0, out=requests)  # for a share of nothing is no number
        # Of two windows neither has a usual share.
        uneven = Dispersion.of(both, np.zeros((2, WIDTH)), self.usual[:, None], self.calm[:, None])
        lags = self.sums[:, LAGS].reshape(both.shape)
        # How far a version swings must not be forgotten while it has no requests.
        lags[:] = uneven.added(lags, freedom, np.where(freedom, fade(seconds)[:, None], 1.0))
        before[:, 1], before[:, 0], now[:] = before[:, 0].copy(), now, 0.0

    def later(self) -> FadingSums:
        """Return the same with the long-run shares of now."""
        return replace(self, usual=rates(self.sums[:, TOTAL]))


def rates(total: Array) -> Array:
    """Return by counter the long-run share of requests that are counted, of TOTAL."""
    return share(total[..., 1:], total[..., :1])


def fade(seconds: Sequence[float], half_life: float = HALF_LIFE) -> Array:
    """Return what is left of sums after so many seconds each, as one column."""
    return np.array([0.5 ** (each / half_life) for each in seconds])[:, None]
