"""The control plane as operators see it: what is in memory, and what was written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from controlplane.app.adoption import InQuestion, problems
from controlplane.app.asking import explain_request, show_cohort
from controlplane.app.attention import of_proxies, of_releases
from controlplane.app.blackouts import show_blackouts
from controlplane.app.expiring import counts, of_certificates
from controlplane.app.following import Followed
from controlplane.app.outbox import Outbox
from controlplane.app.publish import Publisher
from controlplane.app.showing import proxy_state, show_proxy, show_release, show_service
from controlplane.app.slowness import Slowness
from controlplane.app.taking import drifted
from controlplane.app.tick import Loop, Reading
from controlplane.app.turns import in_turns
from controlplane.policy.catalog import Catalog
from controlplane.release import confirming
from controlplane.release import watch as watching
from controlplane.release.ports import Record, Store, StoreError, World
from controlplane.release.recording import Recording
from controlplane.release.seen import Propagation
from controlplane.release.state import Phase, ReleaseState
from controlplane.release.traffic import Endpoints
from controlplane.release.watch import Watch
from controlplane.release.way_back import alarm
from controlplane.server.sessions import Counts
from controlplane.server.troubles import Troubles
from controlplane.sources.collector import Collector
from controlplane.sources.pushed import Pushed
from controlplane.web.asked import Asked, CohortAsked
from controlplane.web.port import RefusedError
from controlplane.web.shown import (
    BlackoutShown,
    CohortShown,
    DocumentShown,
    DocumentsShown,
    Explained,
    ProxyShown,
    ReleaseShown,
    ServiceShown,
)
from controlplane.xds.view import StreamView

_AT_ONCE = 100  # proxies: a few milliseconds
NOTHING_YET: Final = World(0, Catalog())


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at all streams comes to.

    Attributes:
        proxies: Fleet, state and seconds since the oldest unanswered response, of each connected proxy.
        expiring: How many proxies' own certificates end soon, of each fleet whose proxies have any.
        problems: What is wrong, the worst first.
        left_alone: How many services proxies have from another store.
    """

    proxies: tuple[tuple[str, str, float], ...]
    expiring: Mapping[str, int]
    problems: tuple[str, ...]
    left_alone: int


class Overview:
    """Answers from what is in memory, and from the log in the store.

    Attributes:
        folder_problems: Of the documents of the folder.
        followed: The folder as it was last read; None if none is followed.
        troubles: What the ports refuse.
    """

    def __init__(
        self,
        store: Store,
        loop: Loop,
        publisher: Publisher,
        collector: Collector,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        outbox: Outbox | None = None,
        pushed: Pushed | None = None,
    ) -> None:
        self._store = store
        self._loop = loop
        self._publisher = publisher
        self._collector = collector
        self._clock = clock
        self._leaving = asyncio.Event()
        self._pushed = pushed or Pushed()
        self._outbox = outbox or Outbox(store, clock)
        self.troubles = Troubles()
        self.folder_problems: tuple[str, ...] = ()
        self.followed: Followed | None = None
        self.answers_queries = True  # whether a Prometheus is known that policies can ask

    @property
    def world(self) -> World:
        """The world as last written or read.

        Raises:
            RefusedError: Before the first read.
        """
        if self._loop.world is None:
            raise RefusedError(503, "the state is not loaded yet")
        return self._loop.world

    @property
    def ready(self) -> bool:
        """True once the state is loaded and served."""
        return self._loop.world is not None and self._publisher.revision > 0

    def services(self) -> tuple[ServiceShown, ...]:
        """Return all services, by name."""
        alone = self._publisher.in_question(self.world)
        found = self.world.catalog.services()
        return tuple(show_service(service, self.world, alone.get(service.name)) for service in found)

    async def releases(self) -> tuple[ReleaseShown, ...]:
        """Return all releases, newest first."""
        await self.look()
        world = self.world
        states = sorted(world.releases.values(), key=lambda s: (s.created_at, s.name), reverse=True)
        shown: list[ReleaseShown] = []
        for state in states:
            shown.append(self._shown(state, world))
            await asyncio.sleep(0)  # who has acknowledged is asked of thousands, and streams must not wait
        return tuple(shown)

    def release(self, name: str) -> ReleaseShown:
        """Return one release."""
        return self._shown(self._state(self.world, name), self.world)

    async def proxies(self) -> tuple[ProxyShown, ...]:
        """Return all connected proxies, by id."""
        await self.look()
        uncounted, now = self._collector.uncounted, self._clock()
        shown: list[ProxyShown] = []
        for view in self._publisher.views():
            shown.append(show_proxy(view, self._publisher, self._revision, uncounted, now))
            if len(shown) % _AT_ONCE == 0:  # thousands take a while, and streams must not wait for it
                await asyncio.sleep(0)
        return tuple(sorted(shown, key=lambda proxy: proxy.id))

    async def look(self) -> None:
        """Look at all streams, in several turns of the loop; who then asks for all in one hardly holds it."""
        await in_turns(self._publisher.server.looking())

    def sight(self) -> Sight:
        """Return what the streams come to, all of it of one look at them."""
        views = self._publisher.views()
        alone = self._publisher.questioned(views, self.world)
        return Sight(
            tuple(self._states(views)), counts(views), self._problems(views, alone), left_alone=len(alone)
        )

    def _states(self, views: Iterable[StreamView]) -> Iterator[tuple[str, str, float]]:
        now = self._clock()
        for view in views:
            since = [each.waiting_since for each in view.types if each.waiting_since is not None]
            age = (now - min(since)).total_seconds() if since else 0.0
            yield view.group or "-", proxy_state(view, self._publisher, self._revision), age

    @property
    def _revision(self) -> int:
        return self._loop.world.revision if self._loop.world is not None else 0

    def suspicions(self) -> Iterator[tuple[str, Phase, float]]:
        """Yield name, phase and rollback e-value of each release."""
        for name, state in sorted(self.world.releases.items()):
            reading = self._reading(state)
            yield name, state.phase, watching.suspicion(reading.verdicts) if reading is not None else 0.0

    def alarms(self) -> Iterator[tuple[str, str]]:
        """Yield each release in progress and why its way back is unsafe now; '' if it is not."""
        world = self._loop.world or NOTHING_YET
        for state in sorted(world.active.values(), key=lambda state: state.name):
            yield state.name, alarm(state, self._where(world, state.service, state.to_version))[1]

    @property
    def counts(self) -> Counts:
        """What happened on the streams since the start."""
        return self._publisher.server.counts

    @property
    def failing(self) -> bool:
        """True while intervals come to no decision: the store fails, or the tick does."""
        return bool(self._loop.failure)

    @property
    def slowness(self) -> Slowness:
        """How long ticks and commits take."""
        return self._loop.slowness

    def holds(self) -> Iterator[ReleaseState]:
        """Yield the releases that have not ended and are held by something now."""
        yield from (r for _, r in sorted(self.world.releases.items()) if r.hold and not r.ended)

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong now, the worst first: a line each, with what to do."""
        views = self._publisher.views()
        return self._problems(views, self._publisher.questioned(views, self._loop.world or NOTHING_YET))

    def _problems(self, views: Sequence[StreamView], left_alone: InQuestion) -> tuple[str, ...]:
        fleets = (f"service {name}: {why}" for name, why in sorted(self._publisher.problems.items()))
        untaken = (f"notification {key} to {why}" for key, why in sorted(self._outbox.failures.items()))
        store = (self._loop.failure,) if self._loop.failure else ()
        names = self._publisher.whereabouts.problems()
        world = self._loop.world or NOTHING_YET
        states = sorted(world.releases.items())
        drift = (f"release {name}: {why}" for name, r in states for why in drifted(r, world.catalog))
        alarms = (f"release {name}: {why}" for name, why in self.alarms() if why)
        ends = (f"release {r.name}: {why}" for r in world.open_ends if (why := confirming.alarm(r)))
        alone = problems(left_alone, world)
        held = of_releases(world.releases.values())
        proxies = of_proxies(views, self._publisher.member)
        expiring = of_certificates(views, self._clock())
        urgent = (*store, *self.slowness.problems(), *alone, *alarms, *ends, *held, *proxies)
        later = (*fleets, *names, *self.folder_problems, *drift, *untaken)
        return (*urgent, *later, *expiring, *self.troubles.current())

    def documents(self) -> DocumentsShown:
        """Return which documents are in force, and where each was read."""
        entries = self.world.catalog.entries.values()
        shown = (
            DocumentShown(
                kind=e.document.kind, name=e.document.name, file=e.file, line=e.line, column=e.column
            )
            for e in entries
        )
        return DocumentsShown(generation=self.world.generation, documents=tuple(shown))

    @property
    def left_alone(self) -> int:
        """How many services are left alone, because proxies have them from another store."""
        return len(self._publisher.in_question(self.world))

    def blackouts(self) -> tuple[BlackoutShown, ...]:
        """Return the blackouts of all fleets, those of documents first."""
        return show_blackouts(self.world, self._clock())

    async def records(self, release: str | None, limit: int, after: int | None = None) -> tuple[Record, ...]:
        """Return the newest records, or the first ones after number ``after``; oldest first."""
        if release is not None:
            self._state(self.world, release)
        try:
            return await self._store.records(release, limit, after)
        except StoreError as error:
            raise RefusedError(503, str(error)) from error

    async def recording(self, release: str, after: int, limit: int) -> Recording:
        """Return a part of what a release was decided from, to decide it again."""
        self._state(self.world, release)
        try:
            return await self._store.recording(release, after, limit)
        except StoreError as error:
            raise RefusedError(503, str(error)) from error

    async def follow(self, release: str | None, after: int | None) -> AsyncIterator[Record]:
        """Yield each record after number ``after``, or each that is written from now on, until cancelled."""
        if after is None:
            newest = await self.records(None, 1)
            after = newest[-1].number if newest else 0
        while not self._leaving.is_set():
            waiting = await self.records(None, 500, after)
            for record in waiting:
                if release in (None, record.release):
                    yield record
                after = record.number
            if not waiting:
                ends = [
                    asyncio.ensure_future(self._store.appended(after)),
                    asyncio.ensure_future(self._leaving.wait()),
                ]
                try:
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for end in ends:
                        end.cancel()

    def leave(self) -> None:
        """Let everyone who follows go: the server stops."""
        self._leaving.set()

    def explain(self, asked: Asked) -> Explained:
        """Say what a proxy does with a request."""
        return explain_request(self.world, asked)

    def cohort(self, release: str, asked: CohortAsked) -> CohortShown:
        """Say who is in a release's canary."""
        return show_cohort(self._state(self.world, release), asked)

    def _where(self, world: World, service: str, growing: str = "") -> Endpoints:
        """Return where versions take requests, as far as documents and the last statistics say."""
        return self._loop.heard.alive(service, self._publisher.endpoints(world, service), growing)

    def _shown(self, state: ReleaseState, world: World) -> ReleaseShown:
        watch = self._loop.watches.get(state.key, Watch())
        reading = self._reading(state) or Reading(state, watch, Propagation(), ())
        where = self._where(world, state.service, state.to_version)
        return show_release(state, reading, world, self._publisher, where)

    def _reading(self, state: ReleaseState) -> Reading | None:
        """Return how this attempt read after the last tick, or None if that was another one."""
        reading = self._loop.readings.get(state.name)
        return reading if reading is not None and reading.state.key == state.key else None

    @staticmethod
    def _state(world: World, name: str) -> ReleaseState:
        if name not in world.releases:
            known = ", ".join(sorted(world.releases)) or "none"
            raise RefusedError(404, f"no release is named {name!r}; known: {known}")
        return world.releases[name]
