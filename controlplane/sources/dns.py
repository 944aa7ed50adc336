"""Addresses of names for clients that resolve none: looked up again and again, the last good ones kept.

The system's resolver gives no TTL, so each name is looked up every few seconds.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import structlog

from controlplane.release.traffic import Resolved

log = structlog.get_logger()

Lookup = Callable[[str, int], Awaitable[Iterable[str]]]  # host, port -> IP addresses; raises OSError

EVERY = timedelta(seconds=5)
JITTER = 0.2  # so that names do not come due together
PATIENCE = 10.0  # seconds for one look-up
SETTLE = 0.05  # seconds in which answers come together and are one change
NO_NAME = "there is no such name"

# Threads of its own: look-ups that hang must not take those in which documents and the store are read.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="dns")


async def system(host: str, port: int) -> list[str]:
    """Ask the system's resolver for all IPv4 and IPv6 addresses."""
    ask = asyncio.get_running_loop().run_in_executor
    found = await ask(_THREADS, socket.getaddrinfo, host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    return [str(where[0]) for *_, where in found]


class Resolver:
    """Keeps the addresses of the names that are wanted.

    Attributes:
        answers: What is known of each wanted name that was looked up; names are ``host:port``.
    """

    def __init__(self, lookup: Lookup = system, every: timedelta = EVERY) -> None:
        self.answers: dict[str, Resolved] = {}
        self._lookup = lookup
        self._every = every.total_seconds()
        self._wanted: frozenset[str] = frozenset()
        self._rewanted = asyncio.Event()
        self._moved = asyncio.Event()

    def want(self, names: Iterable[str]) -> None:
        """Set which names are followed; new ones are looked up at once."""
        self._wanted = frozenset(names)
        self._rewanted.set()

    async def run(self) -> None:
        """Follow the wanted names until cancelled."""
        followers: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                self._rewanted.clear()
                for name in sorted(followers.keys() - self._wanted):
                    followers.pop(name).cancel()
                    self.answers.pop(name, None)
                for name in sorted(self._wanted - followers.keys()):
                    followers[name] = asyncio.create_task(self._follow(name), name=f"dns {name}")
                await self._rewanted.wait()
        finally:
            for task in followers.values():
                task.cancel()
            await asyncio.gather(*followers.values(), return_exceptions=True)

    async def changes(self) -> AsyncIterator[None]:
        """Yield after addresses changed, for one reader; changes that come together are one."""
        while True:
            await self._moved.wait()
            await asyncio.sleep(SETTLE)
            self._moved.clear()
            yield

    async def _follow(self, name: str) -> None:
        while True:
            try:
                await self._look_up(name)
            except Exception:
                # A bug must not leave a name with the addresses of today for ever.
                log.exception("look-up failed", name=name)
            await asyncio.sleep(self._every * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311

    async def _look_up(self, name: str) -> None:
        before = self.answers.get(name, Resolved())
        after = await self._answer(name, before)
        self.answers[name] = after
        if after.problem and after.problem != before.problem:
            log.warning("name not resolved", name=name, problem=after.problem, kept=after.addresses)
        if after.addresses != before.addresses:
            log.info("name resolved", name=name, addresses=after.addresses)
            self._moved.set()

    async def _answer(self, name: str, before: Resolved) -> Resolved:
        host, _, port = name.rpartition(":")
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._lookup(host.strip("[]"), int(port))
        except TimeoutError:
            return Resolved(before.addresses, f"no answer within {PATIENCE:.0f} s")
        except (OSError, UnicodeError) as error:
            return Resolved(before.addresses, _why(error))
        # An address with a zone is one of this machine's links, and nobody else's.
        addresses = {f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in found if "%" not in ip}
        if not addresses:
            return Resolved(before.addresses, "the answer has no address")
        return Resolved(tuple(sorted(addresses)))


def _why(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror) and error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
        return NO_NAME
    strerror = error.strerror if isinstance(error, OSError) else None
    return (strerror or str(error)).lower()
