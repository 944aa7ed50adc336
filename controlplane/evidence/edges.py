"""The baseline's distribution of latency, as far as the edges of Envoy's histograms show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controlplane.policy.latency import EDGES_MS

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

LOG_EDGES: Floats = np.log(np.array(EDGES_MS))
LEAST, MOST = 1e-9, 1 - 1e-9  # odds are those of shares from here to there
_WIDTHS = np.diff(LOG_EDGES)


@dataclass(frozen=True, slots=True, eq=False)
class Beyond:
    """The baseline's recent share of requests past each edge, in 0..1, and its log odds.

    Attributes:
        shares: A line per baseline, a column per edge.
        odds: The same.
    """

    shares: Floats
    odds: Floats

    @classmethod
    def at(cls, shares: Floats) -> Beyond:
        """Return shares with their log odds."""
        within = np.minimum(np.maximum(shares, LEAST), MOST)
        return cls(shares, np.log(within / (1 - within)))

    def part(self, lines: slice) -> Beyond:
        """Return those of some baselines."""
        return Beyond(self.shares[lines], self.odds[lines])

    def nearest(self, share: Floats) -> Places:
        """Return the edges past which the share is nearest to each ``share``, in log odds.

        One line per share, of which there is a column; one column per baseline.
        """
        found: Places = np.argmin(np.abs(self.odds - np.log(share / (1 - share))[:, None]), axis=2)
        return found

    def ratio(self, line: Places, edge: Places, slower: Floats | float) -> Floats:
        """Return how many times as many requests of a baseline pass an edge when all are slower.

        Args:
            line: Of the baseline.
            edge: Of EDGES_MS.
            slower: Times as long as they all take.
        """
        shares = self.shares[line, edge]
        # A time that is one slower-th of an edge lies between two others, or below the first one, where the
        # first two tell.
        time = LOG_EDGES[edge] - np.log(slower)
        lower = np.maximum(np.minimum(np.searchsorted(LOG_EDGES, time, side="right"), edge) - 1, 0)
        odds = self.odds[line, lower]
        slope = (self.odds[line, lower + 1] - odds) / _WIDTHS[lower]
        logit = odds + slope * (time - LOG_EDGES[lower])
        # Nothing is known below the first edge.
        known = np.where(edge > 0, 1 / (1 + np.exp(-logit)) / shares, np.minimum(slower, 1 / shares))
        found: Floats = np.maximum(1.0, known)
        return found
