"""Turns of the event loop for many at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

# Seconds without a look at anything else: sockets, timers, whoever has just come. What is sent is answered at
# once, and answers take their share of the loop: with shorter turns the last of thousands waits for theirs.
_LONGEST = 0.02
_TOGETHER = 32  # members at most that are taken for one kind of work


class Turns(Generic[T]):
    """Gives each of its members one turn, in order, with pauses for the rest of the loop.

    A member that waits is not added again, so nothing grows. A task for each member would cost a wake-up for
    each turn.
    """

    def __init__(self, take: Callable[[Iterator[T]], None]) -> None:
        """``take`` is the turn of some members, each of them once; if it raises, theirs is over.

        It is given fewer if they take long.
        """
        self._take = take
        self._waiting: deque[T] = deque()
        self._known: set[T] = set()
        self._running = False

    def __contains__(self, member: object) -> bool:
        """Return whether a member waits for its turn."""
        return member in self._known

    def add(self, member: T) -> None:
        """Give a member a turn soon, from the event loop."""
        self.add_all((member,))

    def add_all(self, members: Iterable[T]) -> None:
        """Give each of them a turn soon."""
        loop = asyncio.get_running_loop()
        new = [member for member in members if member not in self._known]
        self._known.update(new)
        self._waiting.extend(new)
        if new and not self._running:
            self._running = True
            loop.call_soon(self._run)

    def _run(self) -> None:
        waiting, take = self._waiting, self._take
        until = monotonic() + _LONGEST
        while waiting:
            try:
                take(self._some(until))
            except BaseException:
                # The loop reports it; whoever waits has their turn all the same.
                asyncio.get_running_loop().call_soon(self._run)
                raise
            if monotonic() > until:
                asyncio.get_running_loop().call_soon(self._run)
                return
        self._running = False

    def _some(self, until: float) -> Iterator[T]:
        for _ in range(min(_TOGETHER, len(self._waiting))):
            member = self._waiting.popleft()
            self._known.discard(member)
            yield member
            if monotonic() > until:
                return
