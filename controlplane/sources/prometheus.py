"""Queries to a Prometheus server, asked at their own intervals, their answers kept until they are stored."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from controlplane.evidence.observation import Reading
from controlplane.policy.queries import PLACE

TIMEOUT = 5.0  # seconds, of one query
AT_ONCE, HANGING_AT_ONCE = 32, 8  # queries: of those that are answered in time, and of those that were not
MAX_KEPT = 1000  # answers that wait to be stored, the newest
MAX_ANSWER = 1 << 20  # bytes of one answer: one number needs some hundred, a list of series more


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a release.

    ``baseline`` is '' where only the canary is asked about; unless ``compared``, the answer counts without
    the baseline's.
    """

    service: str
    name: str
    canary: str
    baseline: str
    every: float
    compared: bool = True


def filled(query: str, places: Mapping[str, str]) -> str:
    """Return a query with its ``$service``, ``$version``, ``$baseline`` and ``$segment`` filled in."""
    return PLACE.sub(lambda found: places[found[1]], query)


class UnansweredError(Exception):
    """A query without a usable answer; the message says why, for people."""


def value(body: Any) -> float:
    """Return the one number of an answer to an instant query.

    Raises:
        UnansweredError: If it has none, several, or one that is not finite.

    Source: Prometheus documentation, "HTTP API", instant queries.
    """
    try:
        if body["status"] != "success":
            raise UnansweredError(f"Prometheus says {str(body.get('error', 'error'))[:200]}")
        kind, result = body["data"]["resultType"], body["data"]["result"]
        if kind == "vector":
            if len(result) != 1:
                raise UnansweredError(f"the query gives {len(result) or 'no'} series; one is needed")
            result = result[0]["value"]
        elif kind != "scalar":
            raise UnansweredError(f"the query gives a {kind}; one number is needed")
        number = float(result[1])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise UnansweredError("the answer is not one of Prometheus") from error
    if not math.isfinite(number):
        raise UnansweredError(f"the query gives {result[1]}")
    return number


@dataclass(slots=True)
class Prometheus:
    """Asks what is wanted and keeps the answers.

    They leave by ``commit``, once an observation with them was stored; until then ``take`` gives the same
    again. One event loop calls it.

    Each query has a task and a rhythm of its own. What was not answered in time is asked beside the others,
    so that it never takes the place of one that is.
    """

    url: str | None
    clock: Callable[[], float] = time.monotonic
    timeout: float = TIMEOUT
    _wanted: Mapping[tuple[str, str], Query] = field(default_factory=dict)
    _kept: list[tuple[str, Reading, float]] = field(default_factory=list)
    _taken: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _hanging: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(HANGING_AT_ONCE))

    def want(self, queries: Iterable[Query]) -> None:
        """Say what is to be asked from now on."""
        wanted = {(query.service, query.name): query for query in queries}
        if wanted != self._wanted:
            self._wanted = wanted
            self._kept = [each for each in self._kept if (each[0], each[1].name) in wanted]
            self._taken = 0
            self._changed.set()

    def take(self) -> dict[str, tuple[Reading, ...]]:
        """Return what was answered since the last ``commit``, by service, oldest first."""
        self._taken, now = len(self._kept), self.clock()
        found: dict[str, list[Reading]] = {}
        for service, reading, at in self._kept:
            found.setdefault(service, []).append(replace(reading, age=round(max(0.0, now - at), 1)))
        return {service: tuple(readings) for service, readings in found.items()}

    def commit(self) -> None:
        """Say that what was taken is stored."""
        del self._kept[: self._taken]
        self._taken = 0

    async def run(self) -> None:
        """Ask until cancelled."""
        asking: dict[Query, asyncio.Task[None]] = {}
        limits = httpx.Limits(max_connections=None)
        secure = self.url is not None and self.url.startswith("https:")  # else no certificate is ever read
        async with (
            httpx.AsyncClient(verify=secure, timeout=self.timeout, trust_env=False, limits=limits) as client,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                self._changed.clear()
                wanted = {*self._wanted.values()}
                for query in asking.keys() - wanted:
                    asking.pop(query).cancel()
                for query in wanted - asking.keys():
                    asking[query] = tasks.create_task(self.keep_asking(client, query))
                await self._changed.wait()

    async def keep_asking(self, client: httpx.AsyncClient, query: Query) -> None:
        """Ask one query in its rhythm until cancelled; a question that takes longer skips those it delays."""
        hung, due = False, time.monotonic()
        while True:
            async with self._hanging if hung else self._places:
                begun = time.monotonic()
                await self.ask(client, query)
                hung = time.monotonic() - begun >= self.timeout
            due = max(due + query.every, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def ask(self, client: httpx.AsyncClient, query: Query) -> None:
        """Ask once, and keep the answer if it is still wanted."""
        reading = await self._read(client, query)
        if self._wanted.get((query.service, query.name)) == query:
            self._keep(query.service, reading)

    def _keep(self, service: str, reading: Reading) -> None:
        self._kept.append((service, reading, self.clock()))
        if len(self._kept) > MAX_KEPT:
            del self._kept[0]
            self._taken = max(0, self._taken - 1)

    async def _read(self, client: httpx.AsyncClient, query: Query) -> Reading:
        try:
            canary = await self._value(client, query.canary)
        except UnansweredError as error:
            return Reading(query.name, None, None, str(error))
        if not query.baseline:
            return Reading(query.name, canary)
        try:
            return Reading(query.name, canary, await self._value(client, query.baseline))
        except UnansweredError as error:
            if not query.compared:
                return Reading(query.name, canary)
            return Reading(query.name, None, None, f"for the baseline, {error}")

    async def _value(self, client: httpx.AsyncClient, text: str) -> float:
        if self.url is None:
            raise UnansweredError("no server is known; `turnout serve --prometheus URL`")
        try:
            asked = {"query": text, "timeout": f"{self.timeout:g}s"}
            async with (
                asyncio.timeout(self.timeout),  # the client's own begins anew with each byte
                client.stream("POST", f"{self.url.rstrip('/')}/api/v1/query", data=asked) as answer,
            ):
                body = json.loads(await _read_some(answer))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UnansweredError(f"Prometheus did not answer within {self.timeout:g} s") from error
        except httpx.HTTPError as error:
            raise UnansweredError(f"Prometheus cannot be reached: {error}") from error
        except httpx.InvalidURL as error:
            raise UnansweredError(f"the address of Prometheus is none: {error}") from error
        except (ValueError, RecursionError) as error:
            raise UnansweredError(f"Prometheus answered {answer.status_code} and no JSON") from error
        return value(body)


async def _read_some(answer: httpx.Response) -> bytes:
    """Return the body of an answer.

    Raises:
        UnansweredError: If it is longer than any that gives one number.
    """
    body = b""
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > MAX_ANSWER:
            raise UnansweredError("the answer is longer than 1 MiB; one number is needed")
    return body
