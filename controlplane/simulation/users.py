"""Noise of another family: heavy users who stay with their version, hosts that fail, rates with long memory.

It was written from what operators of HTTP services see, by someone who had seen neither the decision rule
nor the other families, so that it can contradict them. Both versions are drawn from one law: in the long
run there is nothing to find. What is in it, and on what it rests:

- Rates wander over seconds and hours alike (1/f): W. Leland and others, "On the self-similar nature of
  Ethernet traffic". Here a sum of mean-reverting processes whose time constants grow by factors of 4.
- A few users send much, in sessions whose lengths have a Pareto tail (M. Crovella, A. Bestavros, "Self-
  similarity in World Wide Web traffic"). A user has one bucket, so all of a heavy user is in one version.
  Users have error rates of their own, and some are broken: many of their requests fail, wherever they are.
- Each version has hosts of its own, unequal by a little. A host's incident has a Pareto length and a
  severity over orders of magnitude, and all its requests share it (P. Huang and others, "Gray failure: the
  Achilles' heel of cloud-scale systems"). Collections of garbage slow single hosts (J. Dean, L. Barroso,
  "The tail at scale").
- A failed request is tried again and likely fails again: errors excite errors.
- Latency rises with load as in a queue, campaigns come suddenly, dependencies change their state and fail
  for both versions, not quite to the same degree. Proxies differ and drift.

The figures of the two strengths are an operator's guess, not a fit. Left out: versions that are too small
for their share, cold caches (``--fault coldstart=x2``), statistics that come late (``--fault lost=5%``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log

import numpy as np

from controlplane.simulation.noise import Counts, Floats, Layout, Noise

SCALES = (10.0, 40.0, 160.0, 640.0, 2560.0, 10_240.0)  # seconds
SLOW_SCALES = SCALES[3:]
HOST_SCALES = (20.0, 120.0)
RISES = 0.3  # of a queue: how much of the latency is waiting at half load
FULL = 0.95  # load above which a service sheds instead of queueing longer
TAIL = 1.3  # the Pareto exponent of how long things last
LONGEST = 1800.0  # seconds; nothing lasts longer
OUTAGES = (5.0, 50.0)  # severities
FADES = 420.0  # seconds in which a campaign loses all but 1/e


@dataclass(frozen=True, slots=True)
class Users:
    """Users, hosts and dependencies of one service.

    Spreads are standard deviations of logarithms; times are in seconds; severities multiply the usual errors.

    Attributes:
        heavy: How many heavy users there are.
        volume: Share of the requests that is theirs together.
        steep: Exponent of their Pareto volumes; less is more unequal.
        limit: Share of the requests that no user exceeds in the mean; services limit rates.
        own: Spread of their error rates.
        broken: Chance that one is broken.
        breakage: Least and greatest severity of a broken user.
        session: Least length of a session; it is followed by a pause as long in the mean.
        retry: Chance that a failed request is tried again.
        again: Chance that it then fails again.
        hosts: Of each version.
        apart: Spread of the hosts' error rates; a third of it is that of their latencies.
        incident: Mean time of a host between two incidents.
        severity: Least and greatest severity of a host's incident.
        lasts: Least length of a host's incident.
        collects: Mean time between two collections of a host, each slows one interval two to five times.
        wander: Spreads of arrivals, errors and hosts' latencies.
        regime: Mean time between two changes of a dependency's state.
        regimes: Spreads of errors and latencies between its states.
        outage: Mean time between two outages of a dependency.
        uneven: Spread of an outage's severity between the two versions.
        campaign: Mean time between two campaigns.
        load: Usual load of the hosts, in 0..1.
        unequal: Spread of the proxies' errors; a third of it is that of their latencies.
    """

    heavy: int = 40
    volume: float = 0.1
    steep: float = 1.5
    limit: float = 0.02
    own: float = 0.8
    broken: float = 0.01
    breakage: tuple[float, float] = (10.0, 100.0)
    session: float = 60.0
    retry: float = 0.7
    again: float = 0.5
    hosts: int = 12
    apart: float = 0.1
    incident: float = 43_200.0
    severity: tuple[float, float] = (3.0, 60.0)
    lasts: float = 20.0
    collects: float = 60.0
    wander: tuple[float, float, float] = (0.15, 0.3, 0.1)
    regime: float = 3600.0
    regimes: tuple[float, float] = (0.4, 0.1)
    outage: float = 21_600.0
    uneven: float = 0.1
    campaign: float = 14_400.0
    load: float = 0.45
    unequal: float = 0.3

    def start(self, layout: Layout, rng: np.random.Generator) -> Noise:
        """Return the noise of one release."""
        return _Service(self, layout, rng)


HARSH = Users(
    volume=0.3,
    steep=1.2,
    limit=0.1,
    own=1.2,
    broken=0.05,
    breakage=(10.0, 200.0),
    retry=0.9,
    again=0.7,
    hosts=4,
    apart=0.3,
    incident=7200.0,
    severity=(3.0, 200.0),
    collects=20.0,
    wander=(0.35, 0.6, 0.25),
    regime=900.0,
    regimes=(0.8, 0.25),
    outage=5400.0,
    uneven=0.3,
    campaign=3600.0,
    load=0.6,
    unequal=0.6,
)


def even(rng: np.random.Generator, spread: float, size: int) -> Floats:
    """Return lognormal factors with a mean of 1."""
    return np.exp(rng.normal(-spread * spread / 2, spread, size))


def between(rng: np.random.Generator, ends: tuple[float, float], size: int) -> Floats:
    """Return severities, as likely in each order of magnitude."""
    return np.exp(rng.uniform(log(ends[0]), log(ends[1]), size))


def expected(ends: tuple[float, float]) -> float:
    """Return the mean of ``between``."""
    return (ends[1] - ends[0]) / log(ends[1] / ends[0])


class Wander:
    """Factors with long memory and a mean of 1: their autocorrelation falls with the logarithm of time."""

    def __init__(
        self, spread: float, size: int, scales: tuple[float, ...], seconds: float, rng: np.random.Generator
    ) -> None:
        self._rng = rng
        self._keep = np.exp(-seconds / np.array(scales))[:, None]
        self._spread = spread / len(scales) ** 0.5
        self._push = self._spread * np.sqrt(1 - self._keep**2)
        self._at = rng.normal(0, self._spread, (len(scales), size))
        self._middle = spread * spread / 2

    def step(self) -> Floats:
        """Return the factors of the next interval."""
        self._at = self._keep * self._at + self._push * self._rng.normal(size=self._at.shape)
        factors: Floats = np.exp(self._at.sum(axis=0) - self._middle)
        return factors


def length(least: float) -> float:
    """Return the mean of a spell that lasts at least so many seconds."""
    return least * (TAIL - float((least / LONGEST) ** (TAIL - 1))) / (TAIL - 1)


class Spells:
    """Times that begin at random, each with a Pareto length: incidents, outages, sessions.

    Attributes:
        share: Of the time, in the long run, that each is in a spell.
        new: Those that began one in the last interval.
    """

    def __init__(
        self, size: int, every: float, least: float, seconds: float, rng: np.random.Generator
    ) -> None:
        self._least, self._seconds, self._rng = least, seconds, rng
        self.share = length(least) / (length(least) + every)
        self._starts = 1 - exp(-seconds / every)
        self._left = np.where(rng.random(size) < self.share, self._draw(size), 0.0)
        self.new = self._left > 0

    def step(self) -> Floats:
        """Return the share of the next interval that each is in a spell."""
        self.new = (self._left <= 0) & (self._rng.random(len(self._left)) < self._starts)
        self._left = np.where(self.new, self._draw(len(self._left)), self._left)
        within: Floats = np.minimum(self._left, self._seconds) / self._seconds
        self._left = np.maximum(self._left - self._seconds, 0.0)
        return within

    def _draw(self, size: int) -> Floats:
        lengths: Floats = np.minimum(self._least * self._rng.random(size) ** (-1 / TAIL), LONGEST)
        return lengths


class _Hosts:
    """The hosts of both versions: how much more they fail and how slow they are, interval by interval."""

    def __init__(self, kind: Users, seconds: float, rng: np.random.Generator) -> None:
        size = 2 * kind.hosts
        self._kind, self._rng = kind, rng
        self._own, self._pace = even(rng, kind.apart, size), even(rng, kind.apart / 3, size)
        self._bad = Spells(size, kind.incident, kind.lasts, seconds, rng)
        self._severity, self._slow = self._severities()
        self._wander = Wander(kind.wander[2], size, HOST_SCALES, seconds, rng)
        self._collect = 1 - exp(-seconds / kind.collects)
        self._whole = 1 + self._bad.share * (expected(kind.severity) - 1)

    def _severities(self) -> tuple[Floats, Floats]:
        """Return what incidents do to errors and latencies; half of them fail fast."""
        severity = between(self._rng, self._kind.severity, 2 * self._kind.hosts)
        return severity, np.where(self._rng.random(len(severity)) < 0.5, severity**0.4, 1.0)

    def step(self) -> tuple[Floats, Floats]:
        """Return factors of each version's errors, and of the latency of each version's hosts."""
        within = self._bad.step()
        severity, slow = self._severities()
        self._severity = np.where(self._bad.new, severity, self._severity)
        self._slow = np.where(self._bad.new, slow, self._slow)
        errors = self._own * (1 + within * (self._severity - 1)) / self._whole
        pause = self._rng.random(len(within)) < self._collect
        pace = self._pace * self._wander.step() * (1 + within * (self._slow - 1))
        pace = pace * np.where(pause, self._rng.uniform(2, 5, len(within)), 1.0)
        return errors.reshape(2, -1).mean(axis=1), pace.reshape(2, -1)


class _Heavy:
    """The heavy users: where each is, how much each sends, how often each fails."""

    def __init__(self, kind: Users, layout: Layout, rng: np.random.Generator) -> None:
        self._rng = rng
        self._stable, self._canary = np.flatnonzero(~layout.canary), np.flatnonzero(layout.canary)
        self._parts = layout.parts[self._stable] / layout.parts[self._stable].sum()
        self._segments = layout.segments[self._stable]
        size = kind.heavy
        volumes = rng.random(size) ** (-1 / kind.steep)
        self._sessions = Spells(size, length(kind.session), kind.session, layout.seconds, rng)
        volumes = np.minimum(kind.volume * volumes / volumes.sum(), kind.limit)
        self.volume = float(volumes.sum())
        self._volumes = volumes / self._sessions.share
        self._bucket = rng.random(size)
        self._pair = rng.choice(len(self._stable), size, p=self._parts)
        broken = rng.random(size) < kind.broken
        self._errors = np.where(broken, between(rng, kind.breakage, size), even(rng, kind.own, size))
        self.mean = 1 + kind.broken * (expected(kind.breakage) - 1)
        self.cells, self.requests = self._stable[self._pair], np.zeros(size, np.int64)

    def send(self, means: Floats) -> Counts:
        """Draw each one's requests, and return those of each cell."""
        active = self._sessions.step()
        for user in np.flatnonzero(self._sessions.new):
            # Who comes back may meet another proxy, but stays in the same segment.
            here = self._parts * (self._segments == self._segments[self._pair[user]])
            self._pair[user] = self._rng.choice(len(here), p=here / here.sum())
        both = means[self._stable] + means[self._canary]
        share = means[self._canary] / np.maximum(both, 1e-300)
        moved = self._bucket < share[self._pair]
        self.cells = np.where(moved, self._canary[self._pair], self._stable[self._pair])
        self.requests = self._rng.poisson(both.sum() * self._volumes * active)
        return np.bincount(self.cells, self.requests, len(means)).astype(np.int64)

    def sent(self, other: _Heavy) -> None:
        """Take what another one's users have sent for what these have."""
        self.cells, self.requests = other.cells, other.requests

    def fail(self, rates: Floats) -> Counts:
        """Draw each one's errors given the cells' rates, and return those of each cell."""
        failed = self._rng.binomial(self.requests, np.minimum(rates[self.cells] * self._errors, 1.0))
        return np.bincount(self.cells, failed, len(rates)).astype(np.int64)


class _Shared:
    """What both versions meet: arrivals with campaigns, and the dependencies behind them."""

    def __init__(self, kind: Users, seconds: float, rng: np.random.Generator) -> None:
        self._kind, self._seconds, self._rng = kind, seconds, rng
        self._arrivals = Wander(kind.wander[0], 1, SCALES, seconds, rng)
        self._errors = Wander(kind.wander[1], 1, SCALES, seconds, rng)
        self._campaign = 0.0
        self._usual = 1 + FADES / kind.campaign  # a campaign doubles the arrivals in the mean
        self._state = self._draw()
        self._outage = Spells(1, kind.outage, kind.lasts, seconds, rng)
        self._severity = between(rng, OUTAGES, 1) * even(rng, kind.uneven, 2)
        self._whole = 1 + self._outage.share * (expected(OUTAGES) - 1)

    def _draw(self) -> tuple[float, float]:
        errors, latency = self._kind.regimes
        return float(even(self._rng, errors, 1)[0]), float(even(self._rng, latency, 1)[0])

    def step(self) -> tuple[float, Floats, float]:
        """Return factors of the arrivals, of each version's errors, and of the latency."""
        kind, rng, seconds = self._kind, self._rng, self._seconds
        self._campaign *= exp(-seconds / FADES)
        if rng.random() < 1 - exp(-seconds / kind.campaign):
            self._campaign += rng.uniform(0.5, 1.5)
        arrivals = float(self._arrivals.step()[0]) * (1 + self._campaign) / self._usual
        if rng.random() < 1 - exp(-seconds / kind.regime):
            self._state = self._draw()
        out = self._outage.step()[0]
        if self._outage.new[0]:
            self._severity = between(rng, OUTAGES, 1) * even(rng, kind.uneven, 2)
        errors = self._errors.step() * self._state[0] * (1 + out * (self._severity - 1)) / self._whole
        return arrivals, errors, self._state[1] * self._waits(arrivals) / self._waits(1.0)

    def _waits(self, arrivals: float) -> float:
        load = min(self._kind.load * arrivals, FULL)
        return 1 + 2 * RISES * load**2 / (1 - load)


class _Service(Noise):
    """The noise of one release."""

    def __init__(self, kind: Users, layout: Layout, rng: np.random.Generator) -> None:
        seconds, self._rng, self._kind, self._layout = layout.seconds, rng, kind, layout
        proxies = int(layout.proxies.max()) + 1
        self._version, self._proxy = layout.canary.astype(np.int64), layout.proxies
        self._hosts = _Hosts(kind, seconds, rng)
        self._heavy = _Heavy(kind, layout, rng)
        self._shared = _Shared(kind, seconds, rng)
        self._drift = Wander(kind.unequal, proxies, SLOW_SCALES, seconds, rng)
        self._pace = even(rng, kind.unequal / 3, proxies)
        users = 1 + self._heavy.volume * (self._heavy.mean - 1)
        self._first = (
            1 - kind.retry * kind.again
        ) / users  # errors that are not of a retry, of the usual user
        self._failed = np.zeros(len(layout.proxies), np.int64)
        self._light = self._retries = self._failed

    def advance(self) -> tuple[float, Floats, Floats]:
        """Go to the next interval; the latency has a row for each host."""
        arrivals, errors, slower = self._shared.step()
        mine, pace = self._hosts.step()
        errors = (errors * mine)[self._version] * self._drift.step()[self._proxy]
        return arrivals, errors, slower * pace.T[:, self._version] * self._pace[self._proxy]

    def requests(self, means: Floats, rng: np.random.Generator) -> Counts:
        """Draw each cell's requests: usual users', heavy ones', and what failed before, once more."""
        self._light = rng.poisson(means * (1 - self._heavy.volume))
        # Who was moved to the other version does not come back to this one.
        self._retries = rng.binomial(np.where(means > 0, self._failed, 0), self._kind.retry)
        return self._light + self._heavy.send(means) + self._retries

    def errors(self, requests: Counts, means: Floats) -> Counts:
        """Draw each cell's errors."""
        rates = np.minimum(means / np.maximum(requests, 1), 1.0)
        failed = self._rng.binomial(self._light, np.minimum(rates * self._first, 1.0))
        failed = failed + self._heavy.fail(rates * self._first)
        self._failed = failed + self._rng.binomial(self._retries, np.maximum(rates, self._kind.again))
        return self._failed

    def another(self, rng: np.random.Generator) -> Noise:
        """Return the noise of errors of another kind, which nobody tries again."""
        return _Refusals(self, rng)


class _Refusals(_Service):
    """Errors of the requests that another noise has drawn: each user has a rate of these, too."""

    def __init__(self, drawn: _Service, rng: np.random.Generator) -> None:
        super().__init__(replace(drawn._kind, retry=0.0), drawn._layout, rng)
        self._drawn = drawn

    def errors(self, requests: Counts, means: Floats) -> Counts:
        """Draw each cell's errors, of its users as they have come."""
        self._heavy.sent(self._drawn._heavy)
        self._light = self._drawn._light + self._drawn._retries
        return super().errors(requests, means)
