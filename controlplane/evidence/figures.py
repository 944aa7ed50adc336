"""What the sums of pasts come to: rates, and how unevenly events arrive. Of several pasts at a time.

Source: docs/decision-rule.md, "What the past teaches".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.evidence.dispersion import shrunk
from controlplane.evidence.edges import Beyond
from controlplane.evidence.fading import (
    BRIEF,
    BURSTS,
    CLUSTERS,
    EXPOSED,
    LAGS,
    LASTING,
    RECENT,
    SHORT,
    SIZE,
    TOTAL,
    rates,
)
from controlplane.evidence.once import once
from controlplane.evidence.table import SLOWER, WIDTH
from controlplane.evidence.usual import Array, share_now

LONG = 30.0  # seconds: windows in which slower swings of one version show
SWAY = 15.0  # seconds: windows in which a whole version is compared with itself
PHI, WEIGHT = 3.0, 10.0  # dispersion that is assumed before any history, and how many windows that is worth
ICC_WEIGHT, ICC_SAFETY = 20.0, 1.5


@dataclass(frozen=True, eq=False)  # no slots: what several ask is worked out once
class Figures:
    """What pasts taught: a line for each, and a column for each counter of a row, without the requests.

    Attributes:
        sums: Of each past, as `fading` says.
        cells: How many cells each knows, in a column.
    """

    sums: Array
    cells: Array

    @classmethod
    def of(cls, sums: Sequence[Array], cells: Sequence[int]) -> Figures:
        """Return what these sums come to."""
        return cls(np.array(sums), np.array([cells], dtype=float).T)

    @once
    def rates(self) -> Array:
        """The long-run share of requests that are counted, in 0..1; 1 % without history."""
        return rates(self.sums[:, TOTAL])

    def now(self, also: Array | float = 0.0) -> Array:
        """Return the share of the last half minute and rows ``also``; of few requests, the long-run one."""
        rows = self.sums[:, RECENT] + also
        return share_now(rows[:, 1:], rows[:, :1], self.rates)

    def beyond(self) -> Beyond:
        """Return the shares past each edge of latency in the last half minute."""
        return Beyond.at(self.now()[:, SLOWER - 1 :])

    @once
    def swings(self) -> Array:
        """Variance / mean of counts over half a minute, without what all cells share; at least 1."""
        found: Array = np.maximum(1.0, shrunk(self.sums[:, LASTING], PHI, WEIGHT))
        return found

    @once
    def spreads(self) -> Array:
        """How much more the counts swing over half a minute than within an interval, in 1..5."""
        within = np.maximum(1.0, shrunk(self.sums[:, BRIEF], PHI, WEIGHT))
        found: Array = np.minimum(5.0, np.maximum(1.0, self.swings / within))
        return found

    @once
    def clusters(self) -> Array:
        """Clusters of events per request: how many independent causes there are."""
        prior = 1 / (1 + self.rates / (PHI - 1) * self._window)
        icc = ICC_SAFETY * shrunk(self.sums[:, CLUSTERS], prior, ICC_WEIGHT)
        found: Array = (1 / np.minimum(np.maximum(icc, 1e-6), 0.999) - 1) / self._window
        return found

    @once
    def bursts(self) -> Array:
        """Bursts per request, rather too many than too few; of each past a line for each of SIZES."""
        found: Array = (self.sums[:, BURSTS, 1:] + 1) / (self.sums[:, EXPOSED, None, 1:] + 1)
        return found

    @once
    def _window(self) -> Array:
        """Requests of all cells in a SHORT window."""
        found: Array = (self.sums[:, SIZE, :1] + 1000) / (self.sums[:, SIZE, 1:2] + 1)
        return found

    def _within(self, seconds: float) -> Array:
        """Return the requests of all cells in so many seconds, or in an interval if that is longer."""
        length = (self.sums[:, SIZE, 2:3] + 1) / (self.sums[:, SIZE, 1:2] + 1)
        found: Array = self._window / length * np.maximum(seconds, length * SHORT) / SHORT
        return found

    @once
    def unevennesses(self) -> Array:
        """The variance of a version's own rate in a cell over LONG, relative to its square."""
        requests = self._within(LONG) / np.maximum(1.0, self.cells)
        found: Array = (self.swings - 1) / (requests * self.rates)
        return found

    @once
    def sways(self) -> Array:
        """The variance of a whole version's own rate over SWAY, relative to its square.

        A pause of the runtime or an ill host moves all cells of a version, which no cell beside another
        shows. Drift that both versions share shows, too, but the more so the farther apart two windows are:
        a straight line through both distances leaves it out, and the shorter they are, the less of it there
        is to leave out. An only cell has it in :attr:`unevennesses`.
        """
        lags = shrunk(self.sums[:, LAGS].reshape(-1, 2, 2, WIDTH), 1.0, WEIGHT)
        near, far = lags[:, 0], lags[:, 1]
        own = np.maximum(0.0, np.minimum(2 * near - far, near) - 1)
        found: Array = np.where(self.cells < 2, 0.0, own / (self._within(SWAY) * self.rates))
        return found
