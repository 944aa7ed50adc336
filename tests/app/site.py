"""A control plane without proxies and ports: real store, loop and plane over a made-up world."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

from controlplane.app.plane import Plane
from controlplane.app.publish import Publisher
from controlplane.app.tick import Loop
from controlplane.evidence.observation import Cell, Measure, Observation, Stat, Tally
from controlplane.evidence.observed import Observed
from controlplane.release.seen import Propagation
from controlplane.release.state import Phase
from controlplane.release.traffic import BUCKETS, endpoints, splits
from controlplane.sources.collector import Collector
from controlplane.stores.sqlite import SqliteStore
from tests.documents import FLEET, POLICY, SERVICE

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
INTERVAL = timedelta(seconds=5)

TEXTS = {"fleet.yaml": FLEET, "shop.yaml": SERVICE, "quick.yaml": POLICY}


def files(**texts):
    """Return the folder; a name without suffix replaces or adds a file, None removes one."""
    every = TEXTS | {f"{name}.yaml": text for name, text in texts.items()}
    return {name: text.encode() for name, text in every.items() if text is not None}


class Traffic:
    """Statistics as the collector gives them: cumulative counts, and a cursor that moves on commit.

    ``arrive`` lets requests happen under the split of a world; ``mode`` says what becomes of the numbers,
    ``orders`` how many of a hundred requests are orders, by version; ``healthy`` how many endpoints of a
    version answer the proxy's checks; ``grown`` by how much a counter of a version's cluster grows in an
    interval, and ``read`` what Prometheus answers in it; ``pushed`` what a user came to, by version, of a
    metric ``basket`` of which a hundred values are pushed in each interval; ``large`` the part of requests
    that come from a few users of the first buckets, of whom a segment ``large`` has all.
    """

    def __init__(self, cursors=None, service="shop"):
        self.mode = "good"
        self.orders = {}
        self.healthy = {}
        self.grown = {}
        self.read = ()
        self.pushed = {}
        self.large = 0.0
        self.totals = Counter()
        self.service = service
        self._key = "edge-1" if service == "shop" else f"edge-1/{service}"
        self._cursor = {} if cursors is None else dict(cursors.get(self._key, {}))
        self._pending = self._cursor

    def arrive(self, world, requests=40_000):
        if self.mode == "none":
            return
        state = world.of_service(self.service)
        going = state if state and state.phase in (Phase.PROGRESSING, Phase.GUARDING) else None
        groups = splits(going.policy, going.step) if going else ()
        for split in groups or ():
            size = requests if split.match is None else requests // 10
            to_canary = size * split.buckets // BUCKETS
            if split.match is None and split.buckets and "large" not in {s.segment for s in groups}:
                to_canary += int((size - to_canary) * self.large)
            self._count(split.segment, going.from_version, size - to_canary, self._usual)
            self._count(split.segment, going.to_version, to_canary, 3 if self.mode == "bad" else self._usual)
        if not groups:
            self._count("everyone", world.stable.get(self.service, "v1"), requests, self._usual)

    @property
    def _usual(self):
        return 10 if self.mode == "both" else 1000

    def _count(self, segment, version, requests, one_in):
        self.totals[f"{segment}/{version}/n"] += requests
        self.totals[f"{segment}/{version}/e"] += requests // one_in

    async def observe(self, world, start, end):
        delta = self.totals - Counter(self._cursor)
        self._pending = dict(self.totals)
        names = sorted({key.rpartition("/")[0] for key in delta})
        cells = tuple(
            (Cell("edge-1", *name.split("/")), Tally(delta[f"{name}/n"], delta[f"{name}/e"]))
            for name in names
        )
        if self.mode == "silent":
            seen = Observation(self.service, start, end, silent=("edge-1",))
            self._pending = self._cursor
        else:
            partial = (("edge-1", "counters do not add up"),) if self.mode == "partial" else ()
            measures = tuple(
                Measure(cell, "orders", tally.requests * self.orders[cell.version] // 100)
                for cell, tally in cells
                if cell.version in self.orders
            ) + tuple(
                Measure(Cell("", "everyone", version), "basket", 100 * mean, 100, age=0.0)
                for version, mean in self.pushed.items()
            )
            stats = tuple(Stat("edge-1", version, name, n) for (version, name), n in self.grown.items())
            seen = Observation(
                self.service,
                start,
                end,
                cells,
                fresh=("edge-1",),
                partial=partial,
                measures=measures,
                stats=stats,
                reporting=("edge-1",) if self.grown else (),
                readings=self.read,
                healthy=tuple(("edge-1", version, count) for version, count in self.healthy.items()),
            )
        return {self.service: seen}, {self._key: self._pending}

    def commit(self):
        self._cursor = self._pending

    def reset(self):
        """Start the proxy anew: what it counts begins at zero, and what nobody read is lost."""
        self.totals, self._cursor, self._pending = Counter(), {}, {}


class Many:
    """The traffic of several services."""

    def __init__(self, services, cursors=None):
        self.of = {name: Traffic(cursors, name) for name in services}

    def arrive(self, world):
        for traffic in self.of.values():
            traffic.arrive(world)

    async def observe(self, world, start, end):
        seen, cursors = {}, {}
        for traffic in self.of.values():
            more = await traffic.observe(world, start, end)
            seen |= more[0]
            cursors |= more[1]
        return seen, cursors

    def commit(self):
        for traffic in self.of.values():
            traffic.commit()


class Fleet:
    """What the proxies say: ``mode`` is all, some, nack or none; ``of`` has that of single services."""

    def __init__(self):
        self.mode = "all"
        self.of = {}

    def propagation(self, world, service):
        return {
            "all": Propagation(("a", "b"), ("a", "b")),
            "some": Propagation(("a", "b"), ("a",)),
            "nack": Propagation(("a", "b"), ("a",), (("b", "Cluster 'shop~v2': bad"),)),
            "none": Propagation(),
        }[self.of.get(service, self.mode)]

    def endpoints(self, world, service):
        return endpoints(world.catalog.service(service))


class Site:
    """One life of the process: everything in memory over a store.

    The loop asks it for statistics and proxies: ``statistics`` and ``fleet`` may be others at any time.
    """

    def __init__(self, store, clock):
        self.store, self.clock = store, clock
        self.fleet = Fleet()
        self.publisher = Publisher(store)
        self.collector = Collector(INTERVAL)
        self.traffic = self.statistics = Traffic()
        self.loop = Loop(store, self, self, INTERVAL)
        self.plane = Plane(store, self.loop, self.publisher, self.collector, clock)

    async def restore(self, totals=None):
        self.traffic = self.statistics = Traffic(await self.loop.restore())
        self.traffic.totals = Counter(totals or {})
        return self

    async def observe(self, world, start, end):
        seen, cursors = await self.statistics.observe(world, start, end)
        return Observed.of(seen), cursors

    def commit(self):
        self.statistics.commit()

    def propagation(self, world, service):
        return self.fleet.propagation(world, service)

    def endpoints(self, world, service):
        return self.fleet.endpoints(world, service)


class Clock:
    """A wall clock and a monotonic one, moved by hand."""

    def __init__(self):
        self.now = T0
        self.monotonic = 100.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds


async def start(folder, clock=None, **texts):
    """Return a site with the documents taken in."""
    clock = clock or Clock()
    site = await Site(await SqliteStore(folder).open(), clock).restore()
    every = files(**texts)
    # The first documents of a store start no release.
    first = {name: text for name, text in every.items() if b"kind: Release" not in text}
    for each in (first, every):
        applied = await site.plane.take(each, "test")
        assert not applied.problems
    return site


async def tick(site, count=1, *, seconds=5.0):
    """Let intervals pass, each with traffic."""
    for _ in range(count):
        site.clock.pass_(seconds)
        site.traffic.arrive(await site.store.world())
        await site.loop.tick(site.clock.now, site.clock.monotonic)
    return await site.store.world()


async def until(site, condition, most=200):
    """Tick until a condition of the world holds."""
    world = await site.store.world()
    for _ in range(most):
        if condition(world):
            return world
        world = await tick(site)
    raise AssertionError({r.name: (r.at, r.stage, r.hold, r.because) for r in world.releases.values()})


def plain(value):
    """Return a value as the store gives it back."""
    return json.loads(json.dumps(value))
