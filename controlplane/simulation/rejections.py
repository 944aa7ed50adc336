"""Client errors (4xx) of simulated requests: what clients get wrong, and what a canary refuses by mistake.

Source: docs/trying-a-policy.md, "Traffic".
"""

from __future__ import annotations

import numpy as np

from controlplane.simulation.noise import Counts, Floats, Noise


class Rejections:
    """Draws those of each cell, by random numbers of its own: others stay as they are."""

    def __init__(self, share: float, noise: Noise, seed: int) -> None:
        """Draw the usual ``share``, as clustered as the errors of ``noise`` and independent of them."""
        # What a fault adds has numbers of its own too: the usual ones stay the same.
        usual, self._rng = map(np.random.default_rng, ((seed, 4), (seed, 5)))
        self._share, self._noise = share, noise.another(usual) if share else None

    def draw(self, requests: Counts, times: Floats | float = 1.0, added: Floats | None = None) -> Counts:
        """Return how many requests of each cell are refused.

        Args:
            requests: By cell, without those that fail.
            times: Factor of the usual ones.
            added: Share that is refused besides, each independently.
        """
        if self._noise is None:
            found = np.zeros(len(requests), dtype=np.int64)
        else:
            _, rates, _ = self._noise.advance()
            usual = np.minimum(self._share * rates * times, 1.0)
            found = np.minimum(self._noise.errors(requests, usual * requests), requests)
        if added is not None and added.any():
            found = found + self._rng.binomial(requests - found, np.minimum(added, 1.0))
        return found

    def spoiled(self, requests: Counts, times: Floats, added: Floats) -> Floats:
        """Return how many more are refused than usually, as expected numbers."""
        return requests * (added + self._share * (times - 1))
