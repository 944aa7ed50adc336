"""Pauses of a version: what comes meanwhile waits, at all proxies, until the version goes on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controlplane.policy.latency import EDGES_MS

WAITS_MS = 200  # longer than this
_EDGES = EDGES_MS.index(WAITS_MS) + 1


@dataclass(frozen=True, slots=True)
class Pauses:
    """Such as collections of garbage: each hits one version, and one interval.

    Attributes:
        share: Of a version's requests that wait, in the mean.
        size: Requests that wait in one pause, in the mean; as unequal as exponential times.
    """

    share: float = 0.0
    size: float = 1.0

    def held(
        self,
        requests: NDArray[np.int64],
        slow: NDArray[np.int64],
        canary: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Return how many of each cell's requests are past each edge, with those that waited.

        Args:
            requests: By cell.
            slow: By cell, past each edge without pauses.
            canary: Which cells are the canary's.
            rng: Drawn from only where there are pauses.
        """
        if not self.share:
            return slow
        waited = np.zeros_like(requests)
        for version in (canary, ~canary):
            among, count = requests * version, int((requests * version).sum())
            size = min(self.size, max(count, 1))
            pauses = int(rng.poisson(count * self.share / size))
            held = int(rng.geometric(1 / size, pauses).sum())
            if held:
                waited += rng.multinomial(held, among / count)
        found = slow.copy()
        found[:, :_EDGES] = np.minimum(found[:, :_EDGES] + waited[:, None], requests[:, None])
        return found


NO_PAUSES = Pauses()
