"""How many lines of the log one peer can cause: what it does may repeat as fast as the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

import structlog

from controlplane.server.admission import known_as
from controlplane.xds.view import Peer

log = structlog.get_logger(__name__)
_BURST: Final = 100  # lines at once
_PER_SECOND: Final = 1.0  # after that
_MOST: Final = 10_000  # peers that are remembered; who was quiet for longest goes first


@dataclass(slots=True)
class _Said:
    """What is left to say of a peer, as of when, and how much was left out since the last line."""

    left: float
    at: float
    out: int = 0


class Sparing:
    """Lets through a hundred lines of each peer, and one per second after that."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._peers: dict[str, _Said] = {}

    def warn(self, event: str, peer: Peer, /, **fields: str) -> None:
        """Log a warning, unless this peer had its lines; the next one says how many were ``not_logged``."""
        before = self.line(peer)
        if before is not None:
            log.warning(event, **fields, **({"not_logged": before} if before else {}))

    def line(self, peer: Peer) -> int | None:
        """Return how many lines were left out before this one; None if this one is left out as well."""
        now, key = self._clock(), known_as(peer)
        said = self._peers.pop(key, None) or _Said(_BURST, now)
        if len(self._peers) >= _MOST:
            del self._peers[next(iter(self._peers))]
        self._peers[key] = said
        said.left = min(_BURST, said.left + (now - said.at) * _PER_SECOND)
        said.at = now
        if said.left < 1:
            said.out += 1
            return None
        said.left -= 1
        out, said.out = said.out, 0
        return out
