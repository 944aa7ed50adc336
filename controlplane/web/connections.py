"""Connections to the HTTP port: only so many, and none that waits for its client without end.

Whoever reaches the port can open them, with a token or without, and each takes one of the open files that
proxies need as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

AT_ONCE: Final = 20  # connections that are taken in one turn of the loop, which proxies need as well
# Seconds in which a client has to send what it owes; who reads events, or waits for an answer, owes nothing.
WITHIN: Final = {h11.IDLE: 10.0, h11.SEND_BODY: 60.0}


class Listener(socket.socket):
    """A socket that listens, and ends connections where more than a number are open.

    To drop the one that has just come would let whoever opens them all keep everybody else out. So the host
    that has most of them loses its oldest. It counts files, so also connections whose TLS handshake has not
    ended.

    Attributes:
        most: Connections that may be open.
        refused: Called with the host of each that was ended.
    """

    def __init__(self, family: int, most: int) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.most = most
        self.refused: Callable[[str], None] = lambda _host: None
        self._of: dict[str, dict[_Accepted, None]] = {}  # by host, the oldest first
        self._open = 0
        self._ending: set[_Accepted] = set()
        self._taken = 0  # in this turn of the loop

    @property
    def open(self) -> int:
        """How many are open, and stay so."""
        return self._open

    def accept(self) -> tuple[socket.socket, Any]:
        """Take the next connection.

        Raises:
            BlockingIOError: If there is none, or enough were taken in this turn of the loop.
            ConnectionAbortedError: If it was dropped, as the loop has not got to those that were ended.
        """
        if self._taken >= AT_ONCE:
            raise BlockingIOError
        if not self._taken:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._taken += 1
        accepted, address = super().accept()
        host = address[0]
        if len(self._ending) >= self.most:
            accepted.close()
            self.refused(host)
            raise ConnectionAbortedError
        connection = _Accepted(accepted, self, host)
        self._of.setdefault(host, {})[connection] = None
        self._open += 1
        if self._open > self.most:
            self._end_one()
        return connection, address

    def _next_turn(self) -> None:
        self._taken = 0

    def _end_one(self) -> None:
        host = max(self._of, key=lambda host: len(self._of[host]))
        oldest = next(iter(self._of[host]))
        self.leave(oldest)
        self._ending.add(oldest)
        with contextlib.suppress(OSError):
            oldest.shutdown(socket.SHUT_RDWR)  # whoever has it sees that it is over, and closes it
        self.refused(host)

    def leave(self, connection: _Accepted) -> None:
        """Count one less."""
        self._ending.discard(connection)
        connections = self._of.get(connection.host, {})
        if connection in connections:
            del connections[connection]
            self._open -= 1
            if not connections:
                del self._of[connection.host]


class _Accepted(socket.socket):
    """A connection that says when it is closed."""

    def __init__(self, accepted: socket.socket, listener: Listener, host: str) -> None:
        family, kind, protocol = accepted.family, accepted.type, accepted.proto
        super().__init__(family, kind, protocol, fileno=accepted.detach())
        self._listener = listener
        self.host = host

    def close(self) -> None:
        """Close it, and make room for another one."""
        self._listener.leave(self)
        super().close()


class Punctual(H11Protocol):
    """Ends a connection whose client is late with what it owes: a header, or the rest of a request."""

    _owed: float | None = None
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first header."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came, and wait for what is missing."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """Wait for the next header, or for the rest of a request that was answered before its end."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        if self._clock is not None:
            self._clock.cancel()

    def _wait(self) -> None:
        owed = WITHIN.get(self.conn.their_state)
        if owed == self._owed:
            return  # it has sent a part: that gives it no more time
        if self._clock is not None:
            self._clock.cancel()
        self._owed = owed
        self._clock = None if owed is None else self.loop.call_later(owed, self.transport.abort)
