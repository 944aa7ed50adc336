"""Who gets in: first requests at a rate, so that a storm stalls no stream in service; each peer a share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controlplane.xds.view import Peer

T = TypeVar("T")
_BURST = 0.1  # seconds' worth of turns that are kept while nobody needs one


@dataclass(slots=True)
class Admission:
    """Lets through ``rate`` per second, after a burst; the rest wait, and peers are let in by turns.

    A turn is taken when it is used: whoever leaves while it waits costs the others nothing. ``clock`` returns
    seconds, never going back.
    """

    rate: float
    clock: Callable[[], float]
    _next: float = field(default=0.0, init=False)  # when a turn is free
    _waiting: dict[str, deque[asyncio.Future[None]]] = field(default_factory=dict, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)

    def turn(self) -> bool:
        """Take a turn, if one is free now."""
        now = self.clock()
        self._next = max(self._next, now - _BURST)
        if self._next > now:
            return False
        self._next += 1 / self.rate
        return True

    async def admit(self, peer: Peer) -> None:
        """Wait for a turn."""
        if not self._waiting and self.turn():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(known_as(peer), deque()).append(turn)
        self._arm()
        await turn

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            delay = max(0.0, self._next - self.clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._release)

    def _release(self) -> None:
        self._timer = None
        while self._waiting:
            who, queue = next(iter(self._waiting.items()))
            while queue and queue[0].done():  # it has left
                queue.popleft()
            if queue and not self.turn():
                break
            del self._waiting[who]
            if queue:
                queue.popleft().set_result(None)
            if queue:
                self._waiting[who] = queue  # at the end of the line
        self._arm()


@dataclass(slots=True)
class Quota:
    """Counts the streams of each peer, known by what its certificate proves, else by its host."""

    most: int
    _open: dict[str, int] = field(default_factory=dict, init=False)

    def enter(self, peer: Peer) -> bool:
        """Count one more stream; False, and not counted, if the peer has as many as it may."""
        key = known_as(peer)
        streams = self._open.get(key, 0)
        if streams >= self.most:
            return False
        self._open[key] = streams + 1
        return True

    def leave(self, peer: Peer) -> None:
        """Count one less."""
        key = known_as(peer)
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]


@dataclass(slots=True)
class Silent(Generic[T]):
    """Streams that have said nothing yet: of each peer the newest so many.

    An Envoy whose bootstrap names ADS, and asks it for nothing, has such a stream for as long as it lives.
    Who speaks is none of them any more, so it never has to go for their sake.
    """

    most: int
    _open: dict[str, dict[T, None]] = field(default_factory=dict, init=False)

    def enter(self, peer: Peer, stream: T) -> T | None:
        """Count one more; return the one that has to go, which has said nothing for longest, if any."""
        streams = self._open.setdefault(known_as(peer), {})
        oldest = next(iter(streams)) if len(streams) >= self.most else None
        if oldest is not None:
            del streams[oldest]
        streams[stream] = None
        return oldest

    def leave(self, peer: Peer, stream: T) -> None:
        """Count one less, if it is one: it has spoken, or is over."""
        key = known_as(peer)
        streams = self._open.get(key, {})
        streams.pop(stream, None)
        if not streams:
            self._open.pop(key, None)


def known_as(peer: Peer) -> str:
    """Return what a peer is known by: what its certificate proves, else its host."""
    return peer.identities[0] if peer.identities else peer.address.rpartition(":")[0] or peer.address
