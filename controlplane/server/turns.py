"""Turns of the event loop for many at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
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
        self.add_all((member,))

    def add_all(self, members: Iterable[T]) -> None:
        """Give each of them a turn soon."""
        new = [member for member in members if member not in self._known]
        self._known.update(new)
        self._waiting.extend(new)
        if new and not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        waiting, forget, take = self._waiting, self._known.discard, self._take
        until = monotonic() + _LONGEST
        while waiting:
            member = waiting.popleft()
            forget(member)
            take(member)
            if monotonic() > until:
                asyncio.get_running_loop().call_soon(self._run)
                return
        self._running = False
