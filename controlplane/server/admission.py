"""Who gets in: first requests at a rate, so that a storm stalls no stream in service; each peer a share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from controlplane.xds.view import Peer


@dataclass(slots=True)
class Admission:
    """Lets through ``rate`` per second, after a burst of a tenth of a second; the rest wait, in order.

    ``clock`` returns seconds, never going back.
    """

    rate: float
    clock: Callable[[], float]
    _next: float = field(default=0.0, init=False)

    def delay(self) -> float:
        """Take the next turn; return the seconds to wait for it."""
        now = self.clock()
        self._next = max(self._next, now - 0.1) + 1 / self.rate
        return max(0.0, self._next - now)

    async def admit(self) -> None:
        """Wait for a turn."""
        delay = self.delay()
        if delay > 0:
            await asyncio.sleep(delay)


@dataclass(slots=True)
class Quota:
    """Counts the streams of each peer, known by what its certificate proves, else by its host."""

    most: int
    _open: dict[str, int] = field(default_factory=dict, init=False)

    def enter(self, peer: Peer) -> bool:
        """Count one more stream; False, and not counted, if the peer has as many as it may."""
        key = _who(peer)
        streams = self._open.get(key, 0)
        if streams >= self.most:
            return False
        self._open[key] = streams + 1
        return True

    def leave(self, peer: Peer) -> None:
        """Count one less."""
        key = _who(peer)
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]


def _who(peer: Peer) -> str:
    return peer.identities[0] if peer.identities else peer.address.rpartition(":")[0] or peer.address
