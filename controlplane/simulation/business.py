"""Business metrics of a simulated service: which requests are orders, and what they are worth.

Source: docs/trying-a-policy.md, "Business metrics".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.observation import Cell, Measure
from controlplane.simulation.noise import Counts, Floats

SWING, MEMORY = (
    0.2,
    1800.0,
)  # of all rates together, both versions': standard deviation of the logarithm, seconds
SPREAD = 1.0  # of amounts: standard deviation of the logarithm


@dataclass(frozen=True, slots=True)
class Business:
    """One metric.

    Attributes:
        name: As the service has it.
        share: Of the requests that did not fail: how many have it, in 0..1.
        amount: What each is worth in the mean; None if they are only counted.
        more: Whether more is better.
        per: The metric that it is divided by, which comes before it; '' for requests.
        pushed: Whether it comes by the HTTP API, with its number of users: here each request is one.
        every: Seconds between the pushes of a version.
    """

    name: str
    share: float
    amount: float | None = None
    more: bool = True
    per: str = ""
    pushed: bool = False
    every: float = 300.0

    def worse(self, loss: float) -> float:
        """Return the factor of its rate when it is worse by ``loss``, at most 1; below 0 it is better."""
        return 1 - loss if self.more else 1 / max(1 - loss, 0.01)


class Sold(NamedTuple):
    """What was drawn in an interval, a row for each metric: how many events, and what they come to."""

    events: NDArray[np.int64]
    totals: NDArray[np.int64]


class Sales:
    """Draws the events and amounts of each cell, by random numbers of its own: others stay as they are."""

    def __init__(self, metrics: Sequence[Business], interval: float, seed: int) -> None:
        # The swing has numbers of its own too: whatever faults do, it stays the same.
        self._metrics, self._rng, self._drift = metrics, *map(np.random.default_rng, ((seed, 1), (seed, 2)))
        self._keep = exp(-interval / MEMORY)
        self._swing = float(self._drift.normal(0, SWING))

    def draw(self, good: Counts, factors: Floats) -> Sold:
        """Return what is sold.

        Args:
            good: Requests that did not fail, of each cell.
            factors: What faults and habits do to the rates, by metric and cell.
        """
        found = np.zeros((len(self._metrics), len(good)), dtype=np.int64)
        self._swing = self._keep * self._swing + sqrt(1 - self._keep**2) * float(self._drift.normal(0, SWING))
        swing, at = exp(self._swing - SWING**2 / 2), {m.name: i for i, m in enumerate(self._metrics)}
        events = found.copy()
        for i, metric in enumerate(self._metrics):
            among, share = good, metric.share * swing
            if metric.per:
                # Of the carts so many are orders; that share does not swing.
                among, share = events[at[metric.per]], metric.share / self._metrics[at[metric.per]].share
            events[i] = self._rng.binomial(among, np.minimum(share * factors[i], 1.0))
            found[i] = events[i] if metric.amount is None else self._amounts(events[i], metric.amount)
        return Sold(events, found)

    def _amounts(self, events: NDArray[np.int64], mean: float) -> NDArray[np.int64]:
        worth = self._rng.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, int(events.sum()))
        cells = np.repeat(np.arange(len(events)), events)
        return np.rint(np.bincount(cells, worth, len(events))).astype(np.int64)


class Pushes:
    """Pushed values as they arrive: every so often, those of each version at a moment of its own."""

    def __init__(self, metrics: Sequence[Business], versions: Sequence[str], seed: int) -> None:
        rng = np.random.default_rng((seed, 3))
        self._phases = {(m.name, v): float(rng.uniform(0, m.every)) for m in metrics for v in versions}
        self._held: dict[tuple[str, Cell], tuple[int, float]] = {}

    def arrive(
        self, metric: Business, counted: Mapping[Cell, tuple[int, int]], begin: float, end: float
    ) -> Iterator[Measure]:
        """Yield what is known of a metric at the end of an interval in which so much was counted."""
        for cell, (n, total) in counted.items():
            before = self._held.get((metric.name, cell), (0, 0.0))
            self._held[metric.name, cell] = before[0] + n, before[1] + total
        for (name, cell), (held, value) in self._held.items():
            if name == metric.name:
                phase = self._phases[name, cell.version]
                came = (end - phase) // metric.every > (begin - phase) // metric.every
                age = (end - phase) % metric.every
                yield Measure(cell, name, value if came else 0.0, held if came else 0, age=age)
                if came:
                    self._held[name, cell] = 0, 0.0
