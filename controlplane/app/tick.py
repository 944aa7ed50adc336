"""The tick: observe, decide, save. One transaction per tick; what is not committed did not happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeAlias

import structlog

from controlplane.app.heard import Heard
from controlplane.app.pasts import Pasts
from controlplane.app.slowness import Slowness
from controlplane.app.turns import in_turns
from controlplane.evidence.account import Interval
from controlplane.evidence.evidence import work_out
from controlplane.evidence.observed import Observed
from controlplane.evidence.verdict import Verdict
from controlplane.failpoints import failpoint
from controlplane.release import crossing, groups, point
from controlplane.release.notices import with_notices
from controlplane.release.ports import Change, Json, Record, Store, StoreConflictError, StoreError, World
from controlplane.release.recording import Origin, Recorded
from controlplane.release.seen import Moment, Propagation
from controlplane.release.state import ReleaseState
from controlplane.release.traffic import Endpoints
from controlplane.release.turn import Progress, begun, ended, turning
from controlplane.release.watch import Watch, whole

log = structlog.get_logger()

BESIDE: Final = 8  # releases whose evidence is worked out at once: more would make a turn of the loop long


class Proxies(Protocol):
    """What the tick asks about proxies; the publisher answers."""

    def propagation(self, world: World, service: str) -> Propagation:
        """Return who has what the service should look like in a world."""
        ...

    def endpoints(self, world: World, service: str) -> Endpoints:
        """Return where each version of a service answers."""
        ...


class Statistics(Protocol):
    """Where observations come from."""

    async def observe(
        self, world: World, start: datetime, end: datetime
    ) -> tuple[Observed, Mapping[str, Json | None]]:
        """Return what was seen of each service since the last `commit`, and the cursors to store with it."""
        ...

    def commit(self) -> None:
        """Say that the last observation was stored."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How a release in progress reads after a tick; for those who show it."""

    state: ReleaseState
    watch: Watch
    propagation: Propagation
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a tick starts from; ``busy`` has each service's release in progress, and grows as some start."""

    now: datetime
    elapsed: timedelta
    world: World
    busy: dict[str, str]

    def started(self, step: Interval | _Step) -> None:
        """Note that a service has a release in progress, if that is what a step comes to."""
        if not isinstance(step, Interval) and step.state.active:
            self.busy[step.state.service] = step.state.name


@dataclass(slots=True)
class _Step:
    """What one tick works out for one release."""

    state: ReleaseState
    watch: Watch
    records: tuple[Record, ...]
    stable: Mapping[str, str]
    reading: Reading
    origin: Origin | None
    recorded: Recorded | None


_Deciding: TypeAlias = Generator[Interval, None, _Step]


class Loop:
    """Ticks at the interval of the proxies' statistics.

    ``lock`` is held from reading the world to committing; whoever else writes releases takes it too.
    ``documents`` is held, before that, by who writes documents: what these come to takes too long to find out
    for the loop to wait for. ``heard`` is what the last tick saw, ``slowness`` how long ticks and commits
    take.
    """

    def __init__(self, store: Store, statistics: Statistics, proxies: Proxies, interval: timedelta) -> None:
        self.lock = asyncio.Lock()
        self.documents = asyncio.Lock()
        self.readings: dict[str, Reading] = {}
        self.watches: dict[str, Watch] = {}
        self.heard = Heard(2 * interval)
        self.slowness = Slowness(interval)
        self.failure = ""
        self.world: World | None = None
        self._store = store
        self._statistics = statistics
        self._proxies = proxies
        self._interval = interval
        self._pasts = Pasts()
        self._ticked_at: float | None = None
        self._observed_at: datetime | None = None

    async def restore(self) -> Mapping[str, Json]:
        """Take up evidence where the store has it; returns the cursors for the statistics.

        For the process that decides from now on: calls that cannot be repeated and that an earlier one left
        without an answer are written down as of unknown outcome; so are points of no return, in a store of
        an earlier version.

        Raises:
            StoreError: If the store cannot be read, or that not be written.
        """
        world = await self._store.world()
        known = ((r, point.recalled(crossing.abandoned(r))) for r in world.releases.values())
        left = tuple(after for before, after in known if after != before)
        self.world = await self.commit(Change(releases=left)) if left else world
        memory = await self._store.memory()
        self.watches = {name: Watch.from_json(body) for name, body in memory.evidence.items()}
        self._pasts = Pasts(memory.learned)
        return memory.cursors

    def origin(self, state: ReleaseState) -> Origin:
        """Return a release as it is right before its first step, to decide it again later."""
        return Origin(state, self._pasts.of(state.service).to_json())

    def forget(self, release: str) -> None:
        """Drop what was shown under a name: it is another attempt now."""
        self.readings.pop(release, None)

    async def run(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Tick until cancelled. A failure stops decisions, never the process: proxies keep being served."""
        while True:
            began = time.monotonic()
            try:
                with self.slowness.tick():
                    await self.tick(now(), began)
                self.failure = ""
            except StoreError as error:
                # Nothing was written, so nothing happened: the next tick reads the same counters again.
                if not self.failure:
                    log.error("store failed, no decisions", error=str(error))
                self.failure = str(error)
            except Exception as error:
                # A bug, or an input that nobody foresaw. Nothing was committed; the next tick starts afresh.
                log.exception("tick failed, no decisions")
                self.failure = f"the tick fails: {error!r}"
            await asyncio.sleep(max(0.05, self._interval.total_seconds() - (time.monotonic() - began)))

    async def commit(self, change: Change) -> World:
        """Write a change, and return the world after it; ``lock`` is held.

        Raises:
            StoreError: If it could not be stored; then nothing of it counts.
        """
        with self.slowness.commit():
            self.world = after = await self._store.commit(change)
        return after

    async def tick(self, now: datetime, monotonic: float) -> None:
        """Observe, decide and save once.

        Raises:
            StoreError: If the change could not be stored; then nothing of it counts.
        """
        async with self.lock:
            failpoint("before-read")
            world = await self._store.world()
            # By the monotonic clock: a wall clock that jumps must not make an interval long or negative.
            since = None if self._ticked_at is None else timedelta(seconds=monotonic - self._ticked_at)
            # A process that was stopped for an hour has not judged for an hour.
            elapsed = timedelta(0) if since is None else min(since, 2 * self._interval)
            start = now - (self._interval if since is None else since)
            observed, cursors = await self._statistics.observe(world, start, now)
            self.heard.take(
                observed, world.catalog, lambda name: self._proxies.endpoints(world, name).places, monotonic
            )
            busy = {state.service: state.name for state in world.releases.values() if state.active}
            releasing = {state.service: whole(state) for state in world.releases.values() if state.active}
            steps = await in_turns(self._deciding(_Moment(now, elapsed, world, busy)))
            lesson = await in_turns(self._pasts.learning(observed, (start, now), world.stable, releasing))
            change = Change(
                releases=tuple(s.state for s in steps if s.state != world.releases[s.state.name]),
                stable={k: v for s in steps for k, v in s.stable.items()},
                records=tuple(record for s in steps for record in s.records),
                evidence={s.state.key: s.watch.to_json() for s in steps if s.state.active},
                learned=lesson.stored,
                cursors=cursors,
                origins={s.state.name: s.origin for s in steps if s.origin},
                turns=tuple((s.state.name, s.recorded) for s in steps if s.recorded),
            )  # fmt: skip
            if change.records:
                failpoint("after-evaluate")
            after = await self._commit(with_notices(change, world))
            self._ticked_at, self._observed_at = monotonic, now
            self._statistics.commit()
            self._pasts.commit(lesson)
            for s in steps:
                self.watches[s.state.key] = s.watch
                self.readings[s.state.name] = replace(s.reading, state=after.releases[s.state.name])
                for record in s.records:
                    log.info(
                        f"release {record.action}",
                        release=record.release,
                        step=record.step,
                        reason=record.reason,
                    )

    async def _commit(self, change: Change) -> World:
        try:
            return await self.commit(change)
        except StoreConflictError:
            log.warning("another writer was first; reading again")
            raise

    def _deciding(self, at: _Moment) -> Generator[None, None, list[_Step]]:
        """Decide all releases in two steps each; between them the evidence of a few is worked out at once."""
        steps, undecided = [], _undecided(at.world)
        for first in range(0, len(undecided), BESIDE):
            deciding = [(state, self._step(state, at)) for state in undecided[first : first + BESIDE]]
            found: list[tuple[ReleaseState, _Deciding, Interval | _Step]] = []
            for state, step in deciding:
                with _unharmed("release could not be decided", state):
                    found.append((state, step, begun(step)))
                    at.started(found[-1][2])
                yield
            with _unharmed("evidence could not be worked out at once", *(state for state, *_ in found)):
                work_out([each for *_, each in found if isinstance(each, Interval)])
            for state, step, each in found:
                with _unharmed("release could not be decided", state):
                    steps.append(ended(step, each))
                    at.started(steps[-1])
                yield
        return self._joint(steps, at)

    def _joint(self, steps: list[_Step], at: _Moment) -> list[_Step]:
        """Let a group end together or not at all: who would come to its end alone decides again.

        So a point of no return is crossed only in the transaction that ends the others, or takes them past
        theirs.
        """
        before, after = at.world.releases, {s.state.name: s.state for s in steps}
        split = {
            state.group
            for state in before.values()
            if state.group and state.active and not groups.at_end(after.get(state.name, state))
        }
        again = [
            s
            for s in steps
            if s.state.group in split and groups.at_end(s.state) and not groups.at_end(before[s.state.name])
        ]
        alone = {s.state.name: self._alone(at.world.releases[s.state.name], at) for s in again}
        return [alone.get(s.state.name, s) for s in steps]

    def _alone(self, state: ReleaseState, at: _Moment) -> _Step:
        """Decide a release that must not come to its end."""
        step = self._step(state, at, joint=False)
        return ended(step, begun(step))

    def _step(self, state: ReleaseState, at: _Moment, *, joint: bool = True) -> _Deciding:
        """Work out what a tick does for a release; it stops before an interval is folded, as `turning`."""
        links = groups.links(state, at.world.releases, at.world.stable)
        if not joint:
            links = replace(
                links, apart=f"group {state.group!r} ends together, and one is not ready any more"
            )
        endpoints = self._proxies.endpoints(at.world, state.service)
        busy = at.busy.get(state.service, "")
        moment = Moment(
            at=at.now,
            elapsed=at.elapsed,
            observation=self.heard.of(state.service, endpoints, state.to_version),
            first=self._observed_at is None,
            settle=self._settle,
            propagation=self._proxies.propagation(at.world, state.service),
            endpoints=endpoints.places,
            missing=endpoints.missing,
            hosts=endpoints.hosts,
            busy=busy if busy != state.name else "",
            stable=at.world.stable.get(state.service, ""),
            blackouts=at.world.blackouts_of(state.service),
            links=links,
        )
        shown, watch = self.readings.get(state.name), self.watches.get(state.key, Watch())
        verdicts = shown.verdicts if shown and shown.state.key == state.key else ()
        learned = self._pasts.of(state.service)
        took = yield from turning(Progress(state, watch, verdicts), learned, moment)
        after = took.after
        begins = after.state.active and not state.active
        known = shown is not None and shown.state == state
        stable = {state.service: state.to_version} if took.promoted else {}
        reading = Reading(after.state, after.watch, took.propagation, after.verdicts)
        return _Step(
            after.state,
            after.watch,
            took.records,
            stable,
            reading,
            origin=self.origin(state) if begins else None,
            recorded=Recorded(moment, None if known or begins else state) if begins or state.active else None,
        )

    @property
    def _settle(self) -> timedelta:
        # Counters lag by up to a flush, and requests that began before the ACK end after it.
        return 2 * self._interval


@contextmanager
def _unharmed(what: str, *releases: ReleaseState) -> Iterator[None]:
    """Log what goes wrong with releases, and go on.

    One that cannot be decided (a bug, a poisoned record) must not stop the others.
    """
    try:
        yield
    except Exception:
        log.exception(what, release=", ".join(state.name for state in releases))


def _undecided(world: World) -> list[ReleaseState]:
    """Releases that are not at an end, those with traffic first: they free their service for the next.

    Those whose end is not confirmed are among them, while their service is there.
    """
    states = [state for state in world.releases.values() if not state.ended]
    states += [r for r in world.open_ends if r.ended and world.catalog.get("Service", r.service) is not None]
    return sorted(states, key=lambda s: (not s.active, s.created_at, s.name))
