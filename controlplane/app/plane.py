"""The control plane as operators move it: the port of the HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic import BaseModel

from controlplane.app import permits
from controlplane.app.acceptance import accept, ordered, unanswered
from controlplane.app.actions import Moved, Standing, move
from controlplane.app.adoption import Newness, adopt
from controlplane.app.blackouts import declare, withdraw
from controlplane.app.following import Part
from controlplane.app.ordering import ordered_by, service_named
from controlplane.app.overview import Overview
from controlplane.app.pushing import check_push
from controlplane.app.records import record_of
from controlplane.app.showing import show_service
from controlplane.app.strays import leaving
from controlplane.app.switching import last_promoted, switched
from controlplane.app.trial import Outcome, Trial
from controlplane.policy.loading import Files
from controlplane.policy.values import listed
from controlplane.release import groups
from controlplane.release import watch as watching
from controlplane.release.notices import with_notices
from controlplane.release.ports import Change, Record, StoreConflictError, StoreError, World
from controlplane.release.state import Action, Phase, ReleaseState
from controlplane.release.watch import Watch
from controlplane.sources.pushed import Values, cell
from controlplane.web.asked import Act, Adopt, Declare, Documents, Order, Push, Resend, Switch, Who
from controlplane.web.port import Need, RefusedError
from controlplane.web.shown import Applied, BlackoutShown, PushShown, ReleaseShown, ServiceShown

TRIALS = 3  # of documents before the loop has to wait for one


class Plane(Overview):
    """What operators do, by the store, one transaction per request; and what they see."""

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

    async def resend(self, wanted: Resend) -> None:
        """End a proxy's streams, so that it comes back and is sent again what it refused."""
        await self.look()
        async with self._loop.lock:
            views, node = self._publisher.server.views(), wanted.node
            known = sorted({view.node.id for view in views if view.node is not None})
            if node not in known:
                raise RefusedError(404, f"no proxy {node!r} is connected; known: {listed(known) or 'none'}")
            reason = f"{node}: {wanted.reason}" if wanted.reason else node
            now, of = self._clock(), {"node": node}
            said = Record(
                at=now, kind="action", action="resend", reason=reason, actor=wanted.actor, numbers=of
            )
            await self._commit(Change(records=(said,)))
            self._publisher.server.resend(node)

    async def apply(self, documents: Documents) -> Applied:
        """Take in documents; what they do not mention stays."""
        part = Part({name: text.encode() for name, text in documents.files.items()})
        async with self._loop.documents:
            world = await self._store.world()
            if documents.generation not in (None, world.generation):
                raise RefusedError(409, await self._changes(world, documents.generation or 0))
            applied = await self._take(part, documents.actor, keep_absent=not documents.prune)
        if self.followed is None:
            return applied
        catalog, keys = self.world.catalog, (tuple(what.split(" ", 1)) for what in applied.accepted)
        told = self.followed.warnings(catalog, ((kind, name) for kind, name in keys))
        return applied.model_copy(update={"warnings": (*applied.warnings, *told)})

    async def take(self, files: Files, actor: str, generation: int | None = None) -> Applied:
        """Take in a whole folder; a document that is gone is removed.

        Raises:
            RefusedError: If a ``generation`` is given and another one is in force by now.
        """
        async with self._loop.documents:
            world = await self._store.world()
            if generation not in (None, world.generation):
                raise RefusedError(409, "other documents were taken at the same moment; looking again")
            return await self._take(Part(files), actor)

    async def take_part(self, part: Part, actor: str) -> Applied:
        """Take in a part of a folder; the rest stays as it is in force."""
        async with self._loop.documents:
            return await self._take(part, actor, keep_absent=True)

    async def _changes(self, world: World, since: int) -> str:
        """Say by whom the documents were changed since a generation."""
        records = [
            r
            for r in await self.records(None, 1000)
            if r.kind == "documents" and int(str(r.numbers.get("generation", 0))) > since
        ]
        told = (f"by {r.actor} at {r.at:%Y-%m-%d %H:%M:%S} UTC ({r.reason})" for r in reversed(records))
        text = f"the documents are of generation {world.generation}, not {since}; nothing was changed"
        return f"{text}. Changed since: {listed(told)}" if records else text

    async def _take(self, part: Part, actor: str, *, keep_absent: bool = False) -> Applied:
        """Take in documents; `Loop.documents` is held, so that nobody else does meanwhile.

        Decisions and what people do wait for the last part alone. Where they come faster than what documents
        come to is found out again, they wait for the last time of that, which is of what they changed.
        """
        rehearsal = self._publisher.rehearsal()
        trial = Trial(part, rehearsal, keep_absent=keep_absent)
        for _ in range(TRIALS):
            # In a thread: megabytes take a second, in which no stream would be answered.
            outcome = await asyncio.to_thread(trial.run, await self._store.world())
            await self.look()  # before anybody has to wait: who leaves a fleet is asked of all streams
            async with self._loop.lock:
                world = await self._store.world()
                if outcome.holds(world):
                    self._publisher.expect(rehearsal)
                    return await self._accept(world, outcome, actor)
        async with self._loop.lock:
            world = await self._store.world()
            outcome = await asyncio.to_thread(trial.run, world)
            self._publisher.expect(rehearsal)
            return await self._accept(world, outcome, actor)

    async def _accept(self, world: World, outcome: Outcome, actor: str) -> Applied:
        """Put in force what documents come to, under the loop's lock.

        The first ones of a store start no release: they may be those of a store that was lost.
        """
        warnings = outcome.warnings
        if not self.answers_queries:
            warnings += tuple(unanswered(outcome.catalog, outcome.accepted))
        if outcome.accepted or outcome.removed:
            change = accept(world, outcome.catalog, actor, self._clock(), hold_orders=world.generation == 0)
            drift = (record for record in change.records if record.action == "drift")
            warnings += tuple(f"Release {r.release!r} is as it was: {r.reason}" for r in drift)
            warnings += tuple(leaving(self._publisher.server.views(), world, outcome.catalog))
            world = await self._commit(change)
            for state in change.releases:
                if state.phase is Phase.WAITING:
                    self._loop.forget(state.name)
        return Applied(
            generation=world.generation,
            accepted=outcome.accepted,
            removed=outcome.removed,
            problems=outcome.problems,
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
            return await self._loop.commit(with_notices(change, self.world))
        except StoreConflictError as error:
            raise RefusedError(409, str(error)) from error
        except StoreError as error:
            raise RefusedError(503, f"nothing was changed: {error}") from error

    def _standing(self, world: World, service: str, growing: str = "") -> Standing:
        where = self._where(world, service, growing)
        return Standing(world, where, self._clock(), self._publisher.propagation(world, service))
