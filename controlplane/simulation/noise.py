"""How traffic and errors swing when nothing is wrong: two families of noise, several strengths.

*Drifting*: logarithms of rates follow autoregressive processes, shared by both versions and one for each
version and cell; errors come in clusters of geometric size, part of which spills over into the next interval.

*Switching*: another family, to find out what rests on the first one's shape. Rates jump between a calm and a
rough regime, arrivals are over-dispersed, clusters have a heavy (Pareto) tail and last several intervals, and
single clients come, fail at every request, and go; all of a client's requests are of one version.

Source: docs/decision-rule.md, "The simulator".
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


FEW = 16  # cells; numpy looks at a table of means for longer than it draws from so many one by one


def poisson(means: Floats, rng: np.random.Generator) -> Counts:
    """Draw a number for each mean, the same as ``rng`` itself, which draws nothing for a mean of 0."""
    if len(means) > FEW:
        return rng.poisson(means)
    return np.array([rng.poisson(mean) if mean else 0 for mean in means.tolist()])


def binomial(counts: Counts, share: float, rng: np.random.Generator) -> Counts:
    """Draw how many of each count it is, the same as ``rng`` itself, which draws nothing of a count of 0."""
    if len(counts) > FEW:
        return rng.binomial(counts, share)
    return np.array([rng.binomial(count, share) if count else 0 for count in counts.tolist()])


class Noise(Protocol):
    """What a traffic model asks of the noise; one object per simulated release."""

    def advance(self) -> tuple[float, Floats, Floats]:
        """Go to the next interval.

        Returns:
            Factors: of the arrivals, of each cell's error rate, of each cell's latency; or of the latency of
            each of its hosts, with a row for each host, which all have the same share of the requests.
        """
        ...

    def requests(self, means: Floats, rng: np.random.Generator) -> Counts:
        """Draw the requests of each cell, given how many are expected: Poisson unless a family says more."""
        return poisson(means, rng)

    def errors(self, requests: Counts, means: Floats) -> Counts:
        """Draw the errors of each cell, given its requests and how many errors are expected."""
        ...

    def another(self, rng: np.random.Generator) -> Noise:
        """Return the noise of errors of another kind, of the same requests."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """The cells whose requests are counted.

    Attributes:
        proxies: The proxy of each, from 0 on.
        segments: The segment of each, from 0 on.
        canary: Whether a cell is the canary's; it follows the stable version's of its proxy and segment.
        parts: Share of the requests that its proxy and segment have together.
        seconds: Length of an interval.
    """

    proxies: Counts
    segments: Counts
    canary: NDArray[np.bool_]
    parts: Floats
    seconds: float


class Family(Protocol):
    """A kind of noise in one strength."""

    def start(self, layout: Layout, rng: np.random.Generator) -> Noise:
        """Return the noise of one release."""
        ...


@dataclass(frozen=True, slots=True)
class Drifting:
    """Autoregressive drift and geometric clusters; all figures are standard deviations of logarithms.

    Attributes:
        arrivals: Of the number of requests, shared by all; a minute's memory.
        errors_shared: Of the error rate of both versions; a minute's memory.
        latency_shared: The same of latency.
        errors_own: Of each version's error rate in each cell; half a minute's memory.
        latency_own: The same of latency.
        cluster: Mean errors per cluster.
        spill: Share of a cluster that comes an interval later.
        unequal: Of the proxies' error rates, for good.
    """

    arrivals: float = 0.0
    errors_shared: float = 0.0
    latency_shared: float = 0.0
    errors_own: float = 0.0
    latency_own: float = 0.0
    cluster: float = 1.0
    spill: float = 0.0
    unequal: float = 0.0

    def start(self, layout: Layout, rng: np.random.Generator) -> Noise:
        """Return the noise of one release."""
        return _Drift(self, layout, rng)


class _Drift(Noise):
    def __init__(self, kind: Drifting, layout: Layout, rng: np.random.Generator) -> None:
        self._kind, self._rng = kind, rng
        cells = len(layout.proxies)
        self._memory = np.array([exp(-layout.seconds / 60)] * 3 + [exp(-layout.seconds / 30)] * (2 * cells))
        self._fresh = np.sqrt(1 - self._memory**2)
        self._state = rng.normal(0, 1, 3 + 2 * cells)
        self._scale = np.array(
            [kind.arrivals, kind.errors_shared, kind.latency_shared]
            + [kind.errors_own] * cells
            + [kind.latency_own] * cells
        )
        self._middle = self._scale**2 / 2
        self._unequal = np.exp(rng.normal(0, kind.unequal, layout.proxies.max() + 1))[layout.proxies]
        self._late = np.zeros(cells, dtype=np.int64)
        self._cells, self._layout = cells, layout

    def advance(self) -> tuple[float, Floats, Floats]:
        self._state = self._memory * self._state + self._fresh * self._rng.standard_normal(len(self._state))
        factors = np.exp(self._scale * self._state - self._middle)
        arrivals, errors, latency = factors[:3].tolist()
        own = factors[3 : 3 + self._cells], factors[3 + self._cells :]
        return arrivals, errors * own[0] * self._unequal, latency * own[1]

    def errors(self, requests: Counts, means: Floats) -> Counts:
        cluster, spill = self._kind.cluster, self._kind.spill
        drawn = poisson(means / cluster, self._rng)
        if cluster > 1:
            # One by one: as with `poisson`.
            more, part = self._rng.negative_binomial, 1 / cluster
            drawn = np.array([(n + more(n or 1, part)) * (n > 0) for n in drawn.tolist()])
        if spill:
            late = binomial(drawn, spill, self._rng)
            drawn, self._late = drawn - late + self._late, late
        now: Counts = np.minimum(drawn, requests)
        return now

    def another(self, rng: np.random.Generator) -> Noise:
        return _Drift(self._kind, self._layout, rng)


@dataclass(frozen=True, slots=True)
class Switching:
    """Regimes that jump, heavy-tailed clusters, clients that always fail.

    Attributes:
        rough: Factor of the error rate of both versions in the rough regime.
        sick: The same for one version in one cell.
        spread: Variance of a cell's arrivals over their mean, as a share of the mean.
        tail: Exponent of the clusters' sizes; smaller is heavier.
        largest: Size at which clusters are cut off.
        clients: Share of the usual errors that single clients make.
        streak: Mean requests of such a client, all of which fail.
    """

    rough: float = 3.0
    sick: float = 2.0
    spread: float = 0.02
    tail: float = 1.8
    largest: float = 40.0
    clients: float = 0.1
    streak: float = 5.0

    def start(self, layout: Layout, rng: np.random.Generator) -> Noise:
        """Return the noise of one release."""
        return _Switch(self, layout, rng)


class _Switch(Noise):
    ROUGH, SICK = (240.0, 30.0), (300.0, 15.0)  # mean seconds out of a regime and in it
    LASTS, STAYS = 4.0, 15.0  # mean seconds of a cluster, and of a client

    def __init__(self, kind: Switching, layout: Layout, rng: np.random.Generator) -> None:
        self._kind, self._rng, self._layout = kind, rng, layout
        cells = len(layout.proxies)
        self._regimes = rng.random(1 + cells) < [
            self.ROUGH[1] / sum(self.ROUGH),
            *[self.SICK[1] / sum(self.SICK)] * cells,
        ]
        out = np.array([self.ROUGH[0]] + [self.SICK[0]] * cells)
        inside = np.array([self.ROUGH[1]] + [self.SICK[1]] * cells)
        self._enter = 1 - np.exp(-layout.seconds / out)
        self._leave = 1 - np.exp(-layout.seconds / inside)
        usual = 1 + (kind.rough - 1) * self.ROUGH[1] / sum(self.ROUGH)
        own = 1 + (kind.sick - 1) * self.SICK[1] / sum(self.SICK)
        self._usual = usual * own
        sizes = np.arange(1, int(kind.largest) + 1)
        weights = sizes ** -(kind.tail + 1)
        self._sizes, self._weights = sizes, np.cumsum(weights / weights.sum())
        self._mean = float((sizes * weights).sum() / weights.sum())
        self._waiting = np.zeros(cells, dtype=np.int64)
        self._clients: list[tuple[int, int]] = []  # errors still to come, cell

    def advance(self) -> tuple[float, Floats, Floats]:
        chance = self._rng.random(len(self._regimes))
        self._regimes = np.where(self._regimes, chance >= self._leave, chance < self._enter)
        rough = self._kind.rough if self._regimes[0] else 1.0
        own = np.where(self._regimes[1:], self._kind.sick, 1.0)
        slow = np.where(self._regimes[1:], 1.05, 1.0) * (1.2 if self._regimes[0] else 1.0)
        shape = 1 / self._kind.spread
        return float(self._rng.gamma(shape) / shape), rough * own / self._usual, slow

    def errors(self, requests: Counts, means: Floats) -> Counts:
        rng, kind, seconds = self._rng, self._kind, self._layout.seconds
        clusters = rng.poisson(means * (1 - kind.clients) / self._mean)
        for cell in np.flatnonzero(clusters).tolist():
            drawn = np.searchsorted(self._weights, rng.random(clusters[cell]))
            self._waiting[cell] += self._sizes[drawn].sum()
        now = rng.binomial(self._waiting, 1 - exp(-seconds / self.LASTS))
        self._waiting -= now
        self._come(means)
        staying, done = [], 1 - exp(-seconds / self.STAYS)
        for left, cell in self._clients:
            fails = int(rng.binomial(left, done))
            now[cell] += fails
            if left > fails:
                staying.append((left - fails, cell))
        self._clients = staying
        return np.minimum(now, requests)

    def another(self, rng: np.random.Generator) -> Noise:
        return _Switch(self._kind, self._layout, rng)

    def _come(self, means: Floats) -> None:
        total, kind = float(means.sum()), self._kind
        if total > 0:
            for _ in range(int(self._rng.poisson(total * kind.clients / kind.streak))):
                cell = int(self._rng.choice(len(means), p=means / total))
                self._clients.append((int(self._rng.geometric(1 / kind.streak)), cell))
