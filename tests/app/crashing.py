"""A process that ends at any await, over a store that lives on; and the strangers whom it speaks to."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import httpx

from controlplane.app.posting import Poster
from controlplane.release.ports import StoreError
from controlplane.stores.sqlite import SqliteStore


class Crash(BaseException):
    """The process ends here."""


class Here(Executor):
    """Works at once, in this thread: a machine that takes ten thousand turns has no time to hand over."""

    def submit(self, fn, /, *args, **kwargs):
        done = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
            done.set_exception(error)
        return done


async def opened(folder):
    """Return the store in a folder, without a thread of its own."""
    store = SqliteStore(folder)
    store._thread = Here()
    return await store.open()


class Countdown:
    """Lets some awaits pass, and ends the process at the next and at all later ones."""

    def __init__(self):
        self.left: int | None = None

    def pass_(self):
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.left = -1
            raise Crash


class Crashing:
    """A store whose every call may be the last one, before it or after it, and that has each change checked.

    ``refuse`` makes it a full disk. What was begun in it ends there, as in a file: see `settle`.
    """

    def __init__(self, inner, check, countdown=None):
        self.countdown = countdown or Countdown()
        self.refuse = False
        self._inner = inner
        self._check = check
        self._begun = set()

    async def settle(self):
        """Wait for changes that were on their way when the process ended."""
        await asyncio.gather(*self._begun, return_exceptions=True)

    async def _call(self, work, *arguments):
        self.countdown.pass_()
        result = await work(*arguments)
        self.countdown.pass_()
        return result

    async def world(self):
        return await self._call(self._inner.world)

    async def memory(self):
        return await self._call(self._inner.memory)

    async def records(self, release=None, limit=100):
        return await self._call(self._inner.records, release, limit)

    async def waiting(self):
        return await self._call(self._inner.waiting)

    async def taken(self, id):  # noqa: A002 - as in the port
        await self._call(self._inner.taken, id)

    async def postponed(self, message):
        await self._call(self._inner.postponed, message)

    async def commit(self, change):
        self.countdown.pass_()
        if self.refuse:
            raise StoreError("disk full")
        begun = asyncio.ensure_future(self._commit(change))
        self._begun.add(begun)
        begun.add_done_callback(self._begun.discard)
        after = await asyncio.shield(begun)
        self.countdown.pass_()
        return after

    async def _commit(self, change):
        before = await self._inner.world()
        after = await self._inner.commit(change)
        await self._check(before, change, after)
        return after


@dataclass(frozen=True)
class Heard:
    """One request as a stranger got it, and what was answered."""

    key: str
    url: str
    body: dict
    status: int


class Ears:
    """Everyone who is asked and told: remembers all, and answers with ``status``; 0 is silence."""

    def __init__(self, countdown):
        self.heard: list[Heard] = []
        self.status = 200
        self._countdown = countdown
        self.poster = Poster(httpx.AsyncClient(transport=httpx.MockTransport(self._hear)), {})

    async def _hear(self, request):
        self._countdown.pass_()
        key, body = request.headers["idempotency-key"], json.loads(request.content)
        self.heard.append(Heard(key, str(request.url), body, self.status))
        self._countdown.pass_()
        if not self.status:
            raise httpx.ReadTimeout("no answer")
        return httpx.Response(self.status)
