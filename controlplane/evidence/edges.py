"""The baseline's distribution of latency, as far as the edges of Envoy's histograms show it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import exp, log

from controlplane.policy.latency import EDGES_MS

LOG_EDGES = tuple(map(log, EDGES_MS))
LEAST, MOST = 1e-9, 1 - 1e-9  # odds are those of shares from here to there


@dataclass(frozen=True, slots=True)
class Beyond:
    """The baseline's recent share of requests past each edge, in 0..1, and its log odds."""

    shares: tuple[float, ...]
    odds: tuple[float, ...]

    @classmethod
    def at(cls, shares: Sequence[float]) -> Beyond:
        """Return shares with their log odds."""
        within = [share if LEAST <= share <= MOST else min(max(share, LEAST), MOST) for share in shares]
        return cls(tuple(shares), tuple([log(share / (1 - share)) for share in within]))

    def nearest(self, share: float) -> int:
        """Return the edge past which the share is nearest to ``share``, in log odds."""
        wanted = _logit(share)
        away = [abs(odds - wanted) for odds in self.odds]
        return away.index(min(away))

    def ratio(self, edge: int, slower: float) -> float:
        """Return how many times as many requests pass an edge when all take ``slower`` times as long."""
        if edge == 0:
            return min(slower, 1 / self.shares[0])  # nothing is known below the first edge
        lower, width, beyond = _between(edge, slower)
        slope = (self.odds[lower + 1] - self.odds[lower]) / width
        logit = self.odds[lower] + slope * beyond
        return max(1.0, 1 / (1 + exp(-logit)) / self.shares[edge])


@lru_cache(maxsize=1024)
def _between(edge: int, slower: float) -> tuple[int, float, float]:
    """Return between which edges a time lies that is one ``slower``-th of an edge: in logarithms.

    The position of the lower one, how far the next is from that, and how far the time is.
    """
    at = log(EDGES_MS[edge] / slower)
    lower = max(bisect_right(LOG_EDGES, at, hi=edge) - 1, 0)
    return lower, LOG_EDGES[lower + 1] - LOG_EDGES[lower], at - LOG_EDGES[lower]


@cache
def _logit(share: float) -> float:
    return log(share / (1 - share))
