"""The control plane as operators see and move it: the port of the HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import BaseModel

from controlplane.app import permits
from controlplane.app.acceptance import accept, fitting, in_use, ordered, possible_orders, put_back
from controlplane.app.actions import Moved, Standing, move
from controlplane.app.adoption import Newness, adopt, problems
from controlplane.app.asking import explain_request, show_cohort
from controlplane.app.blackouts import declare, show_blackouts, withdraw
from controlplane.app.ordering import ordered_by, service_named
from controlplane.app.outbox import Outbox
from controlplane.app.propagation import closed
from controlplane.app.publish import Publisher
from controlplane.app.pushing import check_push
from controlplane.app.records import record_of
from controlplane.app.showing import proxy_state, show_proxy, show_release, show_service
from controlplane.app.switching import last_promoted, switched
from controlplane.app.taking import drifted
from controlplane.app.tick import Loop, Reading
from controlplane.policy.catalog import Catalog
from controlplane.policy.loading import Files, load
from controlplane.release import groups
from controlplane.release import watch as watching
from controlplane.release.notices import with_notices
from controlplane.release.ports import Change, Record, Store, StoreConflictError, StoreError, World
from controlplane.release.recording import Recording
from controlplane.release.seen import Propagation
from controlplane.release.state import Action, Phase, ReleaseState
from controlplane.release.traffic import Endpoints
from controlplane.release.watch import Watch
from controlplane.release.way_back import alarm
from controlplane.server.sessions import Counts
from controlplane.server.troubles import Troubles
from controlplane.sources.collector import Collector
from controlplane.sources.pushed import Pushed, Values, cell
from controlplane.web.asked import (
    Act,
    Adopt,
    Asked,
    CohortAsked,
    Declare,
    Documents,
    Order,
    Push,
    Switch,
    Who,
)
from controlplane.web.port import Need, RefusedError
from controlplane.web.shown import (
    Applied,
    BlackoutShown,
    CohortShown,
    Explained,
    ProxyShown,
    PushShown,
    ReleaseShown,
    ServiceShown,
)

_AT_ONCE = 100  # proxies: a few milliseconds


class Plane:
    """Answers from what is in memory; writes through the store, one transaction per request.

    Attributes:
        folder_problems: Of the documents of the folder.
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
        silent, now = dict(self._collector.quarantined), self._clock()
        shown: list[ProxyShown] = []
        for view in self._publisher.server.views():
            shown.append(show_proxy(view, self._publisher, silent, now))
            if len(shown) % _AT_ONCE == 0:  # thousands take a while, and streams must not wait for it
                await asyncio.sleep(0)
        return tuple(sorted(shown, key=lambda proxy: proxy.id))

    def proxy_states(self) -> Iterator[tuple[str, str, float]]:
        """Yield fleet, state and seconds since the oldest unanswered response, of each connected proxy."""
        now = self._clock()
        for view in self._publisher.server.views():
            since = [each.waiting_since for each in view.types if each.waiting_since is not None]
            age = (now - min(since)).total_seconds() if since else 0.0
            yield view.group or "-", proxy_state(view, self._publisher), age

    def suspicions(self) -> Iterator[tuple[str, Phase, float]]:
        """Yield name, phase and rollback e-value of each release."""
        for name, state in sorted(self.world.releases.items()):
            reading = self._loop.readings.get(name)
            mine = reading is not None and reading.state.key == state.key
            yield (
                name,
                state.phase,
                watching.suspicion(reading.verdicts) if reading is not None and mine else 0.0,
            )

    def alarms(self) -> Iterator[tuple[str, str]]:
        """Yield each release in progress and why its way back is unsafe now; '' if it is not."""
        world = self._loop.world or World(0, Catalog())
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

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong now: documents, fleets that cannot be rendered, the store, notifications."""
        fleets = (f"service {name}: {why}" for name, why in sorted(self._publisher.problems.items()))
        untaken = (f"notification {key} to {why}" for key, why in sorted(self._outbox.failures.items()))
        store = (self._loop.failure,) if self._loop.failure else ()
        names = self._publisher.whereabouts.problems()
        world = self._loop.world or World(0, Catalog())
        states = sorted(world.releases.items())
        drift = (f"release {name}: {why}" for name, r in states for why in drifted(r, world.catalog))
        alarms = (f"release {name}: {why}" for name, why in self.alarms() if why)
        alone = problems(self._publisher.in_question(world), world)
        refused = (*sorted(closed(self._publisher.server.views())), *self.troubles.current())
        return (*self.folder_problems, *alone, *fleets, *names, *alarms, *drift, *store, *untaken, *refused)

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

    def need(self, action: str, name: str, wanted: BaseModel) -> Need:
        """Return who may do that."""
        return permits.need(self.world, action, name, wanted)

    async def order(self, wanted: Order) -> ReleaseShown:
        """Create a release."""
        async with self._loop.lock:
            world = await self._store.world()
            state = ordered_by(world, wanted, self._clock())
            record = record_of(state, "order", wanted.actor, ordered(state), self._clock())
            await self._commit(Change(releases=(state,), records=(record,)))
            self._loop.forget(state.name)
        return self.release(state.name)

    async def act(self, release: str, action: str, wanted: Act) -> ReleaseShown:
        """Do what an operator asks: advance, approve, end, promote, pause, resume, rollback."""
        async with self._loop.lock:
            world = await self._store.world()
            state = self._state(world, release)
            affected = (state, *(groups.members(state, world.releases) if action == "retry" else ()))
            moved = [
                (each, move(self._standing(world, each.service, each.to_version), each, action, wanted))
                for each in affected
            ]
            await self._write(moved, wanted.actor)
        return self.release(release)

    def push(self, service: str, metric: str, push: Push) -> PushShown:
        """Take in values of a metric that is pushed; they count in the next interval."""
        known = check_push(self.world, service, metric, push)
        place = service, metric, cell(push.segment, push.version)
        values = Values(push.n, push.sum, push.users)
        return PushShown(counted=self._pushed.receive(place, values, push.key, summed=known.sum))

    async def switch(self, service: str, wanted: Switch) -> ServiceShown:
        """Make a version stable at once; a release in progress is promoted if it is its, else rolled back."""
        async with self._loop.lock:
            world = await self._store.world()
            return await self._switch(world, service, wanted)

    async def undo(self, name: str, wanted: Act) -> ServiceShown:
        """Make stable what was so before the last promotion; by service or release."""
        async with self._loop.lock:
            world = await self._store.world()
            last = last_promoted(world, name)
            back = Switch(
                version=last.from_version,
                actor=wanted.actor,
                reason=wanted.reason,
                past_point_of_no_return=wanted.past_point_of_no_return,
            )
            return await self._switch(world, last.service, back, "undo")

    async def _switch(
        self, world: World, service: str, wanted: Switch, action: str = "switch"
    ) -> ServiceShown:
        change = switched(self._standing(world, service), service, wanted, action)
        await self._commit(change)
        return show_service(service_named(self.world, service), self.world)

    async def adopt(self, wanted: Adopt) -> tuple[ServiceShown, ...]:
        """Say what is stable in place of a store that was lost; return all services."""
        async with self._loop.lock:
            world = await self._store.world()
            found = self._publisher.in_question(world)
            places = {name: self._publisher.endpoints(world, name) for name in wanted.adopt}
            ahead = self._publisher.server.ahead
            await self._commit(adopt(Newness(world, found, places, ahead, self._clock()), wanted))
        return self.services()

    @property
    def left_alone(self) -> int:
        """How many services are left alone, because proxies have them from another store."""
        return len(self._publisher.in_question(self.world))

    def blackouts(self) -> tuple[BlackoutShown, ...]:
        """Return the blackouts of all fleets, those of documents first."""
        return show_blackouts(self.world, self._clock())

    async def declare(self, wanted: Declare) -> tuple[BlackoutShown, ...]:
        """Add a blackout to a fleet."""
        async with self._loop.lock:
            world, now = await self._store.world(), self._clock()
            if world.catalog.get("Fleet", wanted.fleet) is None:
                known = ", ".join(f.name for f in world.catalog.fleets()) or "none"
                raise RefusedError(404, f"no fleet is named {wanted.fleet!r}; known: {known}")
            await self._commit(declare(world, wanted, now))
        return self.blackouts()

    async def withdraw(self, blackout: str, wanted: Who) -> tuple[BlackoutShown, ...]:
        """Remove a blackout that an operator added."""
        async with self._loop.lock:
            world = await self._store.world()
            if blackout not in world.blackouts:
                known = ", ".join(sorted(world.blackouts)) or "none"
                raise RefusedError(404, f"no declared blackout has the id {blackout!r}; known: {known}")
            await self._commit(withdraw(world, blackout, wanted, self._clock()))
        return self.blackouts()

    async def apply(self, documents: Documents) -> Applied:
        """Take in documents; what they do not mention stays."""
        files = {name: text.encode() for name, text in documents.files.items()}
        return await self.take(files, documents.actor, keep_absent=True)

    async def take(self, files: Files, actor: str, *, keep_absent: bool = False) -> Applied:
        """Take in files: the whole folder, or with ``keep_absent`` some documents.

        The first ones of a store start no release: they may be those of a store that was lost.
        """
        async with self._loop.lock:
            world = await self._store.world()
            # In a thread: megabytes take a second, in which no stream would be answered.
            known = {state.name: state.service for state in world.releases.values()}
            loaded = await asyncio.to_thread(
                load, files, world.catalog, keep_absent=keep_absent, ordered=known
            )
            catalog, kept = in_use(world, loaded.catalog)
            catalog, misfits = fitting(world, catalog)
            unfit = await asyncio.to_thread(self._publisher.unrenderable, replace(world, catalog=catalog))
            catalog, without = possible_orders(world.catalog, put_back(world.catalog, catalog, unfit.keys()))
            refused = (f"Service {name!r} cannot be rendered: {why}" for name, why in unfit.items())
            errors = (*(str(problem) for problem in loaded.errors), *kept, *misfits, *refused, *without)
            warnings = tuple(str(problem) for problem in loaded.problems if problem.level == "warning")
            before, after = world.catalog.digests(), catalog.digests()
            accepted = tuple(f"{k} {n}" for k, n in sorted(after) if before.get((k, n)) != after[k, n])
            if before != after:
                new = world.generation == 0
                change = accept(world, catalog, actor, self._clock(), hold_orders=new)
                drift = (record for record in change.records if record.action == "drift")
                warnings += tuple(f"Release {r.release!r} is as it was: {r.reason}" for r in drift)
                world = await self._commit(change)
                for state in change.releases:
                    if state.phase is Phase.WAITING:
                        self._loop.forget(state.name)
        removed = tuple(f"{k} {n}" for k, n in sorted(before.keys() - after.keys()))
        return Applied(
            generation=world.generation,
            accepted=accepted,
            removed=removed,
            problems=errors,
            warnings=warnings,
        )

    async def _write(self, moves: Sequence[tuple[ReleaseState, Moved]], actor: str) -> None:
        watches, begun = {}, {}
        for before, moved in moves:
            watch = self._loop.watches.get(before.key) if before.active else Watch()
            if watch is not None:
                watches[moved.after.key] = after = watching.acted(watch, before, moved.after)
                if after is not watch:
                    begun[moved.after.key] = after.to_json()
        await self._commit(
            Change(
                releases=tuple(moved.after for _, moved in moves),
                stable={b.service: b.to_version for b, moved in moves if moved.move is Action.PROMOTE},
                records=tuple(
                    record_of(b, moved.action, actor, moved.said, self._clock()) for b, moved in moves
                ),
                evidence=begun,
                origins={b.name: self._loop.origin(b) for b, m in moves if m.move is Action.START},
            )
        )
        self._loop.watches |= watches

    async def _commit(self, change: Change) -> World:
        try:
            self._loop.world = await self._store.commit(with_notices(change, self.world))
        except StoreConflictError as error:
            raise RefusedError(409, str(error)) from error
        except StoreError as error:
            raise RefusedError(503, f"nothing was changed: {error}") from error
        return self._loop.world

    def _standing(self, world: World, service: str, growing: str = "") -> Standing:
        where = self._where(world, service, growing)
        return Standing(world, where, self._clock(), self._publisher.propagation(world, service))

    def _where(self, world: World, service: str, growing: str = "") -> Endpoints:
        """Return where versions take requests, as far as documents and the last statistics say."""
        return self._loop.heard.alive(service, self._publisher.endpoints(world, service), growing)

    def _shown(self, state: ReleaseState, world: World) -> ReleaseShown:
        watch = self._loop.watches.get(state.key, Watch())
        reading = self._loop.readings.get(state.name)
        if reading is None or reading.state.key != state.key:
            reading = Reading(state, watch, Propagation(), ())
        where = self._where(world, state.service, state.to_version)
        return show_release(state, reading, world, self._publisher, where)

    @staticmethod
    def _state(world: World, name: str) -> ReleaseState:
        if name not in world.releases:
            known = ", ".join(sorted(world.releases)) or "none"
            raise RefusedError(404, f"no release is named {name!r}; known: {known}")
        return world.releases[name]
