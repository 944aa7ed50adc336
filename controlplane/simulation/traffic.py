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
from typing import TypeVar

import numpy as np

from controlplane.evidence.observation import Cell, Measure, Observation
from controlplane.evidence.table import CLIENT_ERRORS, ERRORS, SLOWER, WIDTH
from controlplane.policy.documents import EVERYONE
from controlplane.policy.latency import EDGES_MS
from controlplane.simulation.business import Business, Pushes, Sales, Sold
from controlplane.simulation.counted import Counter
from controlplane.simulation.families import FAMILIES
from controlplane.simulation.faults import NOTHING, Effect, Fault
from controlplane.simulation.noise import Counts, Family, Floats, Layout
from controlplane.simulation.pauses import NO_PAUSES, Pauses
from controlplane.simulation.reads import Chance, Reads
from controlplane.simulation.rejections import Rejections
from controlplane.simulation.returning import Regulars, Shoppers

START = datetime(2026, 1, 1, tzinfo=UTC)
Key = TypeVar("Key", bound=Hashable)
STABLE, CANARY = "v1", "v2"
SLOW_MS = 250  # requests slower than this count as harmed by a canary that is slow
_FINE = 400  # steps of the table of latencies, per factor of e
_SLOW = EDGES_MS.index(SLOW_MS)
USUAL_MS = 40.0
FAST = (0.97, USUAL_MS, 0.6)  # share of the requests, median in ms, standard deviation of the logarithm
TAIL = (0.03, 220.0, 0.6)
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


_NO_HARM = Harm()


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


@dataclass(frozen=True, slots=True)
class _Wrong:
    """What faults do to each cell; the first fields are those of an `Effect`.

    ``fails``, ``slows`` and ``refuses`` say which of these they do anywhere.
    """

    added: Floats
    times: Floats
    slower: Floats
    tail: Floats
    refused: Floats
    refusals: Floats
    fails: bool
    slows: bool
    refuses: bool


def _buckets(slower: Floats, usual: float, wrong: _Wrong | None = None) -> Floats:
    """Return each cell's shares of the buckets; ``slower`` are the factors of the noise."""
    if wrong is None:
        rows = latencies(slower, usual=usual)
    else:
        factors = slower * wrong.slower
        rows = latencies(factors, usual=usual)
        for tail in set(wrong.tail.tolist()) - {1.0}:
            rows = np.where((wrong.tail == tail)[:, None], latencies(factors, tail, usual), rows)
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
        self._suffer(faults)
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
        other._suffer(faults)
        return other

    def _suffer(self, faults: tuple[Fault, ...]) -> None:
        self.faults, self._troubled = faults, any(f.delays for f in faults)
        self._hit = [
            np.array([f.segment in (None, s) and f.proxy in (None, self.names[p]) for p, s, _ in self._cells])
            for f in faults
        ]
        self._effects: tuple[Effect, ...] = ()
        self._wrong: _Wrong | None = None

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
        rows, harm = self._drawn(requests, base, slower, self._spoiling(guarding))
        sold = _NONE
        if model.metrics:
            factors = self._factors(second, guarding)
            served = requests - rows[:, ERRORS] - rows[:, CLIENT_ERRORS]
            sold = self._sales.draw(served, factors * self._leanings)
            usually = np.array([metric.share for metric in model.metrics])
            changed = usually @ np.abs(1 - factors) * served
            harm = replace(harm, lost=float(changed[self._canary].sum()))
            rows = np.concatenate((rows, sold.totals[self._counted].T), axis=1)
        counted = self._counter.count(rows)
        arrived = self._reads.arrive(counted, self._chances(guarding) if self._troubled else None)
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
            measures=tuple(sorted(measures)),
        )
        if arrived.counted is not None:
            arrived.counted.tell(seen)
        return seen, harm

    def _drawn(
        self, requests: Counts, base: Floats, slower: Floats, wrong: _Wrong | None
    ) -> tuple[Counts, Harm]:
        """Return a row of counts for each cell, and what faults did.

        Args:
            requests: Of each cell.
            base: Share of errors without faults.
            slower: Factors of latency.
            wrong: What faults do.
        """
        model, rng, usual = self.model, self._rng, self.model.latency / USUAL_MS
        buckets, harm = _buckets(slower, usual), _NO_HARM
        if wrong is None:
            failed = self._noise.errors(requests, base * requests)
            refused = self._rejections.draw(requests - failed)
        else:
            failed = self._noise.errors(requests, np.minimum(base * wrong.times, 1.0) * requests)
            if wrong.fails:
                failed = failed + rng.binomial(requests - failed, np.minimum(wrong.added, 1.0))
            refused = self._rejections.draw(requests - failed, wrong.refusals, wrong.refused)
            spoiled = requests * (wrong.added + base * (wrong.times - 1))
            if wrong.refuses:
                spoiled += self._rejections.spoiled(requests - failed, wrong.refusals, wrong.refused)
            late = 0.0
            if wrong.slows:
                sound, buckets = buckets, _buckets(slower, usual, wrong)
                more = requests * (buckets - sound)[:, _SLOW + 1 :].sum(axis=1)
                late = float(more[self._canary].sum())
            harm = Harm(float(spoiled[self._canary].sum()), late)
        slow = requests[:, None] - rng.multinomial(requests, buckets).cumsum(axis=1)[:, :-1]
        rows = np.empty((len(requests), WIDTH), dtype=np.int64)
        rows[:, 0], rows[:, ERRORS], rows[:, CLIENT_ERRORS] = requests, failed, refused
        rows[:, SLOWER:] = model.pauses.held(requests, slow, self._canary, rng)
        return rows, harm

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

    def _factors(self, second: float, guarding: float | None) -> Floats:
        """Return what faults do to the rate of each metric in each cell."""
        found = np.ones((len(self.model.metrics), len(self._cells)))
        for fault, hit in zip(self.faults, self._hit, strict=True):
            if loss := fault.effect(second, guarding).loss:
                for row, metric in zip(found, self.model.metrics, strict=True):
                    if fault.metric in (None, metric.name):
                        row[hit & self._canary] *= metric.worse(loss)
        return found

    def _spoiling(self, guarding: float | None) -> _Wrong | None:
        """Return what faults do to each cell now, None if that is nothing."""
        effects = tuple(fault.effect(self.second, guarding, self._grew) for fault in self.faults)
        if effects != self._effects:
            self._effects = effects
            self._wrong = None if all(effect == NOTHING for effect in effects) else self._worked(effects)
        return self._wrong

    def _worked(self, effects: Iterable[Effect]) -> _Wrong:
        cells = len(self._cells)
        added, times, scale, heavy = np.zeros(cells), np.ones(cells), np.ones(cells), np.ones(cells)
        refused, refusals = np.zeros(cells), np.ones(cells)
        for fault, does, hit in zip(self.faults, effects, self._hit, strict=True):
            where = hit if fault.shared else hit & self._canary
            added = np.where(where, added + does.added, added)
            times = np.where(where, times * does.times, times)
            scale = np.where(where, scale * does.slower, scale)
            heavy = np.where(where, heavy * does.tail, heavy)
            refused = np.where(where, refused + does.refused, refused)
            refusals = np.where(where, refusals * does.refusals, refusals)
        fails, slows = bool(added.any()), bool((scale != 1).any() or (heavy != 1).any())
        refuses = bool(refused.any() or (refusals != 1).any())
        return _Wrong(added, times, scale, heavy, refused, refusals, fails, slows, refuses)

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

    def _chances(self, guarding: float | None) -> list[Chance]:
        """Return what may become of each proxy's statistics."""
        found = []
        for proxy in self.names:
            here = [f.reads(self.second, guarding) for f in self.faults if f.proxy in (None, proxy)]
            late = max((chance.late for chance in here), default=0.0)
            restarts = max((chance.restarts for chance in here), default=0.0)
            found.append(Chance(late, restarts, any(chance.silent for chance in here)))
        return found


def _added(rows: Iterable[tuple[Key, int, int]]) -> dict[Key, tuple[int, int]]:
    """Return the sums by key, without those of which nothing came."""
    found: dict[Key, tuple[int, int]] = {}
    for key, n, total in rows:
        before = found.get(key, (0, 0))
        found[key] = (before[0] + n, before[1] + total)
    return {key: counts for key, counts in found.items() if counts[0]}
