"""Sends notifications until somebody takes them: at least once, never for what was not committed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import structlog

from controlplane.release.ports import Json, Store, StoreError, Waiting

log = structlog.get_logger()

TIMEOUT = 10.0  # seconds for one attempt
SOONEST, LATEST = timedelta(seconds=1), timedelta(minutes=10)  # between attempts: doubled each time
GIVE_UP = timedelta(days=3)
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
        async with httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client:
            while True:
                try:
                    await self.send(client)
                except StoreError as error:
                    log.warning("outbox not read", error=str(error))
                await asyncio.sleep(LOOK)

    async def send(self, client: httpx.AsyncClient) -> None:
        """Try each message that is due, once.

        Raises:
            StoreError: If the store cannot be read or written; what was sent may be sent again.
        """
        now = self._clock()
        waiting = await self._store.waiting()
        self.failures = {m.id: f"{m.url}: {m.error}" for m in waiting if m.error}
        due = [message for message in waiting if message.due <= now]
        for start in range(0, len(due), TOGETHER):
            await asyncio.gather(
                *(self._try(client, message, now) for message in due[start : start + TOGETHER])
            )

    async def _try(self, client: httpx.AsyncClient, message: Waiting, now: datetime) -> None:
        error = await self._post(client, message)
        if not error:
            self.failures.pop(message.id, None)
            await self._store.taken(message.id)
            log.info("notification taken", id=message.id, to=message.url)
            return
        self.failures[message.id] = f"{message.url}: {error}"
        if now - message.since > GIVE_UP:
            log.error("notification given up", id=message.id, to=message.url, error=error)
            self.failures.pop(message.id, None)
            await self._store.taken(message.id)
            return
        if not message.tries:
            log.warning("notification not taken", id=message.id, to=message.url, error=error)
        pause = min(LATEST, SOONEST * 2 ** min(message.tries, 20))
        await self._store.postponed(replace(message, due=now + pause, tries=message.tries + 1, error=error))

    async def _post(self, client: httpx.AsyncClient, message: Waiting) -> str:
        """Return why nobody took it, or ''."""
        url = message.url
        if url.startswith("$"):
            url = self._environment.get(url[1:], "")
            if not url:
                return f"the server's environment has no {message.url[1:]}"
        body, headers = _dressed(message)
        try:
            answer = await client.post(url, json=body, headers=headers)
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        except (httpx.InvalidURL, ValueError):
            return "is not an address"
        # What the other side says is not shown: an answer may be long, and its words are a stranger's.
        return "" if answer.is_success else f"answered {answer.status_code}"


def _dressed(message: Waiting) -> tuple[Json, dict[str, str]]:
    """Return the body and headers of a message, its id in both where the form has a place for it."""
    headers = {"idempotency-key": message.id}
    if "specversion" not in message.body:
        return message.body, headers
    headers["content-type"] = "application/cloudevents+json"
    return {**message.body, "id": message.id}, headers
