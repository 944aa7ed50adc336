"""Sends notifications until somebody takes them: at least once, never for what was not committed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from controlplane.app.posting import Poster, poster_client
from controlplane.failpoints import failpoint
from controlplane.release.ports import Store, StoreError, Waiting
from controlplane.release.state import Answer

log = structlog.get_logger()

TIMEOUT = 10.0  # seconds for one attempt
SOONEST, LATEST = timedelta(seconds=1), timedelta(minutes=10)  # between attempts: doubled each time
TRIES = 440  # with these pauses three days; not by the clock, which may jump
LOOK = 1.0  # seconds between looks at the store; a message is no part of a decision and may be that late
TOGETHER = 8


class Outbox:
    """Looks for messages that are due, and posts them.

    Attributes:
        failures: By message id, why it is still here; for those who show problems.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.failures: dict[str, str] = {}
        self._store = store
        self._clock = clock
        self._environment = environment

    async def run(self) -> None:
        """Send until cancelled."""
        async with poster_client() as client:
            poster = Poster(client, self._environment)
            while True:
                try:
                    await self.send(poster)
                except StoreError as error:
                    log.warning("outbox not read", error=str(error))
                await asyncio.sleep(LOOK)

    async def send(self, poster: Poster) -> None:
        """Try each message that is due, once.

        Raises:
            StoreError: If the store cannot be read or written; what was sent may be sent again.
        """
        now = self._clock()
        waiting = await self._store.waiting()
        self.failures = {m.id: f"{m.url}: {m.error}" for m in waiting if m.error}
        # No pause is longer than LATEST: then the clock went back.
        due = [message for message in waiting if message.due <= now or message.due - now > LATEST]
        for start in range(0, len(due), TOGETHER):
            await asyncio.gather(
                *(self._try(poster, message, now) for message in due[start : start + TOGETHER])
            )

    async def _try(self, poster: Poster, message: Waiting, now: datetime) -> None:
        body = {**message.body, "id": message.id} if "specversion" in message.body else message.body
        answered = await poster.post(message.url, body, message.id, TIMEOUT)
        failpoint("notification")
        error = "" if answered.answer is Answer.YES else answered.error or f"answered {answered.status}"
        if not error:
            self.failures.pop(message.id, None)
            await self._store.taken(message.id)
            log.info("notification taken", id=message.id, to=message.url)
            return
        self.failures[message.id] = f"{message.url}: {error}"
        if message.tries >= TRIES:
            log.error("notification given up", id=message.id, to=message.url, error=error)
            self.failures.pop(message.id, None)
            await self._store.taken(message.id)
            return
        if not message.tries:
            log.warning("notification not taken", id=message.id, to=message.url, error=error)
        due = now + pause(message.tries)
        await self._store.postponed(replace(message, due=due, tries=message.tries + 1, error=error))


def pause(tries: int) -> timedelta:
    """Return how long a message waits after so many attempts before."""
    return min(LATEST, SOONEST * (1 << min(tries, 20)))
