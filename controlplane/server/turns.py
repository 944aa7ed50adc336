"""Turns of the event loop for many at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_LONGEST = 0.005  # seconds without a look at anything else: sockets, timers, whoever has just come


class Turns(Generic[T]):
    """Gives each of its members one turn, in order, with pauses for the rest of the loop.

    A member that waits is not added again, so nothing grows. A task for each member would cost a wake-up for
    each turn.
    """

    def __init__(self, take: Callable[[T], None]) -> None:
        """``take`` is a member's turn; it must not raise."""
        self._take = take
        self._waiting: deque[T] = deque()
        self._known: set[T] = set()
        self._running = False

    def add(self, member: T) -> None:
        """Give a member a turn soon, from the event loop."""
        if member in self._known:
            return
        self._known.add(member)
        self._waiting.append(member)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _LONGEST
        while self._waiting:
            member = self._waiting.popleft()
            self._known.discard(member)
            self._take(member)
            if loop.time() > until:
                loop.call_soon(self._run)
                return
        self._running = False
