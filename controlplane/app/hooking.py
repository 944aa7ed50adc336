"""Makes the calls that releases wait for, and writes down what came of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog

from controlplane.app.posting import Poster, poster_client
from controlplane.app.tick import Loop
from controlplane.failpoints import failpoint
from controlplane.release import hooks
from controlplane.release.hooks import Answered
from controlplane.release.notices import with_notices
from controlplane.release.ports import Change, Record, Store, StoreError
from controlplane.release.state import NO_RETURN, Answer, Call, ReleaseState

log = structlog.get_logger()
LOOK = 0.2  # seconds between looks at what is due


class Hooking:
    """Looks for calls that are due, makes each in a task of its own, one at a time for each key."""

    def __init__(
        self,
        store: Store,
        loop: Loop,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._store = store
        self._loop = loop
        self._clock = clock
        self._environment = environment
        self._going: dict[str, asyncio.Task[None]] = {}
        self._made: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Call until cancelled; what is cancelled in the middle is called again by the next process."""
        async with poster_client() as client:
            poster = Poster(client, self._environment)
            try:
                while True:
                    self.begin(poster)
                    await asyncio.sleep(LOOK)
            finally:
                for task in self._going.values():
                    task.cancel()

    def begin(self, poster: Poster) -> tuple[asyncio.Task[None], ...]:
        """Begin all calls that are due; returns those that are on their way."""
        self._going = {key: task for key, task in self._going.items() if not task.done()}
        world = self._loop.world
        for state in world.releases.values() if world else ():
            for call in hooks.due(state, self._clock()):
                if call.key not in self._going and not self._was_made(call):
                    task = asyncio.create_task(self._make(poster, state, call), name=f"hook {call.key}")
                    self._going[call.key] = task
        return tuple(self._going.values())

    def _was_made(self, call: Call) -> bool:
        """Return whether a call that must not be repeated was begun here, whatever has become of it."""
        if call.point != NO_RETURN:
            return False
        made = (call.key, call.tries) in self._made
        self._made.add((call.key, call.tries))
        return made

    async def _make(self, poster: Poster, state: ReleaseState, call: Call) -> None:
        body = hooks.body(state, call, self._clock())
        answered = await poster.post(call.url, body, call.key, call.timeout.total_seconds())
        failpoint("hook")
        while True:
            try:
                await self._write(state, call, answered)
                return
            except StoreError as error:
                log.warning("hook's answer not stored", hook=call.key, error=str(error))
            if call.point != NO_RETURN:
                return  # not written, so it did not happen: it is made again, with the same key
            await asyncio.sleep(LOOK)

    async def _write(self, asked: ReleaseState, call: Call, answered: Answered) -> None:
        async with self._loop.lock:
            world = await self._store.world()
            before = world.releases.get(asked.name)
            if before is None or before.key != asked.key:
                return
            now = self._clock()
            after = hooks.answered(before, call.key, answered, now)
            if after == before:
                return
            change = Change(releases=(after,), records=_records(before, after, call, now))
            await self._loop.commit(with_notices(change, world))


def _records(before: ReleaseState, after: ReleaseState, call: Call, now: datetime) -> tuple[Record, ...]:
    """Return one record for each new answer, none for another attempt with the same."""
    was, made = before.call(call.key), after.call(call.key)
    assert was is not None
    assert made is not None
    if was.answer is made.answer:
        return ()
    said = {Answer.YES: "said yes", Answer.NO: "said no", Answer.UNKNOWN: "cannot be asked"}[made.answer]
    why = f": {made.error}" if made.error else ""
    return (
        Record(
            at=now,
            kind="hook",
            release=after.name,
            service=after.service,
            action=f"hook {call.point}",
            step=call.step,
            reason=f"{call.url} {said}{why}",
            numbers={"key": call.key, "tries": made.tries},
        ),
    )
