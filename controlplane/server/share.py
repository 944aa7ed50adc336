"""What requests may take of the event loop: by the time that they take, whatever their size."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from controlplane.server.admission import known_as
from controlplane.xds.view import Peer

LONGEST = 0.005  # seconds of one turn of the loop; the work that exceeds it is the last in that turn

_Waiting = tuple[asyncio.Future[float], Callable[[], None]]


class Share:
    """Some milliseconds of each turn of the event loop; what exceeds them waits for the next, peers by turns.

    The size of a message says little of what it takes, and many that are quick are slow together. While
    there is time left, nothing waits.
    """

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest
        self._open = False  # since something was done in this turn of the loop
        self._until = 0.0
        self._waiting: dict[str, deque[_Waiting]] = {}

    def room(self) -> bool:
        """Return whether work may be done at once: there is time left in this turn, and nobody waits."""
        if not self._open:
            self._begin(asyncio.get_running_loop())
        return not self._waiting and monotonic() < self._until

    async def take(self, peer: Peer, work: Callable[[], None]) -> float:
        """Do some work for a peer; return how many seconds it took. What it raises is raised.

        Whoever is cancelled while it waits has its work left undone.
        """
        if self.room():
            return _timed(work)
        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(known_as(peer), deque()).append((done, work))
        return await done

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with a turn of the loop; in the next one, go on with who waits."""
        self._open = True
        self._until = monotonic() + self._longest
        loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._open = bool(self._waiting)
        if self._open:
            self._begin(asyncio.get_running_loop())
        while self._waiting and monotonic() < self._until:
            done, work = self._next()
            if done.done():
                continue
            try:
                done.set_result(_timed(work))
            except Exception as error:  # noqa: BLE001 - it is for who asked for the work
                done.set_exception(error)

    def _next(self) -> _Waiting:
        peer, queue = next(iter(self._waiting.items()))
        first = queue.popleft()
        del self._waiting[peer]
        if queue:
            self._waiting[peer] = queue  # at the end of the line
        return first


def _timed(work: Callable[[], None]) -> float:
    began = monotonic()
    work()
    return monotonic() - began
