"""A service's requests, interval by interval: what Envoys would count of them.

Source: docs/decision-rule.md, "The simulator".
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from math import erfc, log, pi, sin, sqrt
from operator import attrgetter
from typing import TypeVar

import numpy as np

from controlplane.evidence.observation import Cell, Measure, Observation
from controlplane.evidence.table import CLIENT_ERRORS, ERRORS, SLOWER, WIDTH
from controlplane.policy.documents import EVERYONE
from controlplane.policy.latency import EDGES_MS
from controlplane.simulation.business import Business, Pushes, Sales, Sold
from controlplane.simulation.counted import Counter
from controlplane.simulation.families import FAMILIES
from controlplane.simulation.faults import Fault
from controlplane.simulation.noise import Counts, Family, Floats, Layout
from controlplane.simulation.pauses import NO_PAUSES, Pauses
from controlplane.simulation.reads import Reads
from controlplane.simulation.rejections import Rejections
from controlplane.simulation.returning import Regulars, Shoppers
from controlplane.simulation.trouble import SOUND, Trouble, Wrong

START = datetime(2026, 1, 1, tzinfo=UTC)
Key = TypeVar("Key", bound=Hashable)
STABLE, CANARY = "v1", "v2"
SLOW_MS = 250  # requests slower than this count as harmed by a canary that is slow
_FINE = 400  # steps of the table of latencies, per factor of e
_SLOW = EDGES_MS.index(SLOW_MS)
USUAL_MS = 40.0
FAST = (0.97, USUAL_MS, 0.6)  # share of the requests, median in ms, standard deviation of the logarithm
TAIL = (0.03, 220.0, 0.6)
_PLACE = attrgetter("cell.proxy", "cell.segment", "cell.version", "metric")  # each measure has its own
_NONE = Sold(np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0), dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Model:
    """A service as the simulation has it.

    Attributes:
        rps: Requests per second of the whole service.
        errors: Their usual share of errors, in 0..1.
        noise: One of FAMILIES, by name, or one of your own.
        proxies: Their shares of the requests.
        segments: Share of the requests by segment; the rest is everyone else's.
        interval: Seconds between two flushes of the statistics.
        history: Seconds of the stable version's past.
        day: Amplitude of the day's cycle, in 0..1; it has one period in 24 hours.
        longest: Seconds after which a release that has not ended counts as undecided.
        metrics: What else is counted of requests.
        latency: Median in ms of most requests; those that take long change with it.
        pauses: How a version pauses now and then, as a whole.
        client_errors: Usual share of client errors (4xx), in 0..1.
        users: How many there are, who buy again and again; 0 if each request is another user's.
        habit: How much they differ in it: deviation of the logarithm of how often one buys.
    """

    rps: float = 100.0
    errors: float = 0.005
    noise: str | Family = "mod"
    proxies: tuple[float, ...] = (0.4, 0.35, 0.25)
    segments: Mapping[str, float] = field(default_factory=dict)
    interval: float = 5.0
    history: float = 1800.0
    day: float = 0.0
    longest: float = 3600.0
    metrics: tuple[Business, ...] = ()
    latency: float = USUAL_MS
    pauses: Pauses = NO_PAUSES
    client_errors: float = 0.0
    users: int = 0
    habit: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """The proxies' names."""
        return tuple(f"p{i}" for i in range(len(self.proxies)))


@dataclass(frozen=True, slots=True)
class Harm:
    """What the faults did to the canary's requests in an interval, as expected numbers."""

    failed: float = 0.0
    slow: float = 0.0
    lost: float = 0.0  # events of business metrics, or too many where fewer are better

    def __add__(self, other: Harm) -> Harm:
        return Harm(self.failed + other.failed, self.slow + other.slow, self.lost + other.lost)


@cache
def _table(tail: float, usual: float) -> tuple[Floats, float]:
    """Return shares of the buckets for each latency factor, and the least logarithm of a factor.

    ``usual`` is by how much all is slower than here for a factor of 1.
    """
    least, most = log(0.05), log(50.0 / min(1.0, usual))
    steps = int((most - least) * _FINE) + 1
    heavy = min(TAIL[0] * tail, 0.9)
    rows = np.empty((steps, len(EDGES_MS) + 1))
    for i in range(steps):
        factor = float(np.exp(least + i / _FINE)) * usual
        beyond = [
            (1 - heavy) * _beyond(edge / factor, FAST) + heavy * _beyond(edge / factor, TAIL)
            for edge in EDGES_MS
        ]
        rows[i] = -np.diff([1.0, *beyond, 0.0])
    return rows, least


def _beyond(ms: float, part: tuple[float, float, float]) -> float:
    return erfc((log(ms) - log(part[1])) / part[2] / sqrt(2)) / 2


def latencies(factors: Floats, tail: float = 1.0, usual: float = 1.0) -> Floats:
    """Return for each factor of slowness the share of requests in each bucket.

    Args:
        factors: Of slowness.
        tail: Factor of the share that takes long.
        usual: How slow the service is without any, beside one of USUAL_MS.
    """
    rows, least = _table(tail, usual)
    found = np.rint((np.log(factors) - least) * _FINE).astype(int)
    shares: Floats = rows.take(found, axis=0, mode="clip")
    return shares


def _buckets(slower: Floats, usual: float, pace: tuple[Floats, Floats] | None = None) -> Floats:
    """Return each cell's shares of the buckets.

    Args:
        slower: Factors of the noise.
        usual: Factor of the service.
        pace: Factors of faults, of all requests and of those that take long.
    """
    if pace is None:
        rows = latencies(slower, usual=usual)
    else:
        factors = slower * pace[0]
        rows = latencies(factors, usual=usual)
        for tail in set(pace[1].tolist()) - {1.0}:
            rows = np.where((pace[1] == tail)[:, None], latencies(factors, tail, usual), rows)
    return rows if slower.ndim == 1 else rows.mean(axis=0)


class Traffic:
    """Draws one interval after another; `second` is the end of the last one, 0 is the release's start."""

    def __init__(self, model: Model, faults: tuple[Fault, ...], seed: int) -> None:
        self.model = model
        self.second = -model.history
        self.names = model.names
        self._rng = np.random.default_rng(seed)
        names = (*model.segments, EVERYONE)
        rest = 1 - sum(model.segments.values())
        cells = [(p, s, v) for p in range(len(model.proxies)) for s in names for v in (False, True)]
        self._proxy = np.array([p for p, _, _ in cells])
        self._canary = np.array([v for _, _, v in cells])
        self._cells = tuple((p, s, CANARY if v else STABLE) for p, s, v in cells)
        parts = {**model.segments, EVERYONE: rest}
        whole = sum(model.proxies)
        self._part = np.array([model.proxies[p] / whole * parts[s] for p, s, _ in cells])
        self._trouble = Trouble(faults, self.names, self._cells, self._canary)
        self._shares: Mapping[str, tuple[str, float]] | None = None
        self._mine, self._counter, self._grew = np.zeros(len(cells)), Counter(()), 0.0
        segments = np.array([names.index(s) for _, s, _ in cells])
        layout = Layout(self._proxy, segments, self._canary, self._part, model.interval)
        family = FAMILIES[model.noise] if isinstance(model.noise, str) else model.noise
        self._noise = family.start(layout, self._rng)
        self._rejections = Rejections(model.client_errors, self._noise, seed)
        self._counted = [i for i, metric in enumerate(model.metrics) if not metric.pushed]
        counted = [model.metrics[i].name for i in self._counted]
        self._reads = Reads(self.names, counted, self._rng)
        self._sales = Sales(model.metrics, model.interval, seed)
        self._pushes = Pushes(model.metrics, (STABLE, CANARY), seed)
        self._shoppers: Shoppers | None = None
        self._leanings = np.ones((len(model.metrics), len(cells)))
        if model.users:
            regulars = Regulars.drawn(model.users, model.habit, np.random.default_rng((seed, 4)))
            self._shoppers = Shoppers(regulars, parts, model.metrics, seed)

    def beset(self, faults: tuple[Fault, ...]) -> Traffic:
        """Return the same traffic as it goes on from here with other faults; this one stays as it is."""
        other = deepcopy(self)
        other._trouble = Trouble(faults, self.names, self._cells, self._canary)
        return other

    def step(
        self, shares: Mapping[str, tuple[str, float]], guarding: float | None = None, era: str = ""
    ) -> tuple[Observation, Harm]:
        """Return the next interval as Envoys counted it, and what the faults did.

        Args:
            shares: By segment: its name in statistics now, and the share of its requests that the canary
                gets. A segment that is not there counts as everyone.
            guarding: The second at which the guard began; None before.
            era: Within which a user counts once.
        """
        model, second = self.model, self.second
        self._place(shares)
        arrivals, errors, slower = self._noise.advance()
        rate = model.rps * model.interval * arrivals * (1 + model.day * sin(2 * pi * second / 86_400))
        requests = self._noise.requests(rate * self._part * self._mine, self._rng)
        base = np.minimum(model.errors * errors, 1.0)
        wrong = self._trouble.wrong(second, guarding, self._grew)
        rows, harm = self._drawn(requests, base, slower, wrong)
        sold = _NONE
        if model.metrics:
            sold, lost = self._sold(rows, guarding)
            harm = replace(harm, lost=lost)
            rows = np.concatenate((rows, sold.totals[self._counted].T), axis=1)
        counted = self._counter.count(rows)
        arrived = self._reads.arrive(counted, self._trouble.chances(second, guarding))
        begin, end = second, second + model.interval
        measures = arrived.measures
        if any(metric.pushed for metric in model.metrics):
            measures = [*measures, *self._pushed(requests.tolist(), sold, era)]
        self.second = end
        seen = Observation(
            "shop",
            START + timedelta(seconds=begin),
            START + timedelta(seconds=end),
            tuple(arrived.cells),
            tuple(arrived.fresh),
            tuple(arrived.silent),
            tuple(arrived.partial),
            measures=tuple(sorted(measures, key=_PLACE)),
        )
        if arrived.counted is not None:
            arrived.counted.tell(seen)
        return seen, harm

    def _drawn(self, requests: Counts, base: Floats, slower: Floats, wrong: Wrong) -> tuple[Counts, Harm]:
        """Return a row of counts for each cell, and what faults did.

        Args:
            requests: Of each cell.
            base: Share of errors without faults.
            slower: Factors of latency.
            wrong: What faults do.
        """
        model, rng, usual = self.model, self._rng, self.model.latency / USUAL_MS
        rate = base if wrong.times is None else np.minimum(base * wrong.times, 1.0)
        failed = self._noise.errors(requests, rate * requests)
        if wrong.added is not None:
            failed = failed + rng.binomial(requests - failed, np.minimum(wrong.added, 1.0))
        served = requests - failed
        refused = self._rejections.draw(served, *(wrong.refusing or ()))
        buckets, late = _buckets(slower, usual), 0.0
        if wrong.pace is not None:
            usually, buckets = buckets, _buckets(slower, usual, wrong.pace)
            late = self._canarys(requests * (buckets - usually)[:, _SLOW + 1 :].sum(axis=1))
        slow = requests[:, None] - rng.multinomial(requests, buckets).cumsum(axis=1)[:, :-1]
        rows = np.empty((len(requests), WIDTH), dtype=np.int64)
        rows[:, 0], rows[:, ERRORS], rows[:, CLIENT_ERRORS] = requests, failed, refused
        rows[:, SLOWER:] = model.pauses.held(requests, slow, self._canary, rng)
        failing = 0.0 if wrong is SOUND else self._canarys(self._spoiled(requests, served, base, wrong))
        return rows, Harm(failing, late)

    def _sold(self, rows: Counts, guarding: float | None) -> tuple[Sold, float]:
        """Return what is sold of the requests in ``rows``, and by how much faults changed the canary's."""
        metrics = self.model.metrics
        factors = self._trouble.factors(metrics, self.second, guarding)
        served = rows[:, 0] - rows[:, ERRORS] - rows[:, CLIENT_ERRORS]
        if factors is None:
            return self._sales.draw(served, self._leanings), 0.0
        usually = np.array([metric.share for metric in metrics])
        changed = usually @ np.abs(1 - factors) * served
        return self._sales.draw(served, factors * self._leanings), self._canarys(changed)

    def _spoiled(self, requests: Counts, served: Counts, base: Floats, wrong: Wrong) -> Floats:
        """Return how many more fail or are refused than usually, as expected numbers."""
        share = np.zeros(len(requests)) if wrong.added is None else wrong.added
        if wrong.times is not None:
            share = share + base * (wrong.times - 1)
        found: Floats = requests * share
        if wrong.refusing is not None:
            found = found + self._rejections.spoiled(served, *wrong.refusing)
        return found

    def _canarys(self, values: Floats) -> float:
        """Return the sum of those of the canary's cells."""
        return float(values[self._canary].sum())

    def _place(self, shares: Mapping[str, tuple[str, float]]) -> None:
        """Say where requests are counted; shares stay the same for a whole step."""
        if shares == self._shares:
            return
        usual = shares.get(EVERYONE, (EVERYONE, 0.0))
        place = [shares.get(s, usual) for _, s, _ in self._cells]
        mine = np.array([share for _, share in place])
        part = np.where(self._canary, mine, 1 - mine)
        if np.any((part > self._mine)[self._canary]):
            self._grew = self.second
        cells = zip(self._cells, place, strict=True)
        self._counter = Counter([Cell(self.names[p], label, v) for (p, _, v), (label, _) in cells])
        self._shares, self._mine = shares, part
        if self._shoppers is not None:
            self._shoppers.settle({s: shares.get(s, usual) for _, s, _ in self._cells})
            self._leanings = self._leaning(self._shoppers)

    def _leaning(self, shoppers: Shoppers) -> Floats:
        """Return what habits do to the rate of each metric in each cell; of carts as many become orders."""
        own = np.array([not metric.per for metric in self.model.metrics])
        leanings = shoppers.leanings((s, v == CANARY) for _, s, v in self._cells)
        found: Floats = np.where(own[:, None], leanings, 1.0)
        return found

    def _pushed(self, requests: list[int], sold: Sold, era: str) -> Iterator[Measure]:
        """Yield what comes by the HTTP API, whatever the proxies do."""
        begin, end = self.second, self.second + self.model.interval
        if self._shoppers is not None:
            places = [(s, v == CANARY) for _, s, v in self._cells]
            for i, metric in enumerate(self.model.metrics):
                if metric.pushed:
                    counted = _added(zip(places, requests, sold.events[i].tolist(), strict=True))
                    self._shoppers.visit(i, metric.amount, counted)
            yield from self._shoppers.arrive((STABLE, CANARY), begin, end, era)
            return
        at = [replace(cell, proxy="pushed") for cell in self._counter.cells]
        for i, metric in enumerate(self.model.metrics):
            if metric.pushed:
                came = _added(zip(at, requests, sold.totals[i].tolist(), strict=True))
                yield from self._pushes.arrive(metric, came, begin, end)


def _added(rows: Iterable[tuple[Key, int, int]]) -> dict[Key, tuple[int, int]]:
    """Return the sums by key, without those of which nothing came."""
    found: dict[Key, tuple[int, int]] = {}
    for key, n, total in rows:
        before = found.get(key, (0, 0))
        found[key] = (before[0] + n, before[1] + total)
    return {key: counts for key, counts in found.items() if counts[0]}
