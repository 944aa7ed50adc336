"""Connections to the HTTP port: only so many, and none that waits for its client without end.

Whoever reaches the port can open them, with a token or without, and each takes one of the open files that
proxies need as well.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds in which a client has to send what it owes; who reads events, or waits for an answer, owes nothing.
WITHIN: Final = {h11.IDLE: 10.0, h11.SEND_BODY: 60.0}


class Listener(socket.socket):
    """A socket that listens, and drops connections beyond a number that may be open.

    It counts files, so also connections whose TLS handshake has not ended.

    Attributes:
        most: Connections that may be open.
        open: Those that are.
        refused: Called with the host of each that was dropped.
    """

    def __init__(self, family: int, most: int) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.most = most
        self.open = 0
        self.refused: Callable[[str], None] = lambda _host: None

    def accept(self) -> tuple[socket.socket, Any]:
        """Take the next connection.

        Raises:
            ConnectionAbortedError: If it was dropped; asyncio goes on with the next one.
        """
        accepted, address = super().accept()
        if self.open >= self.most:
            accepted.close()
            self.refused(address[0])
            raise ConnectionAbortedError
        return _Accepted(accepted, self), address


class _Accepted(socket.socket):
    """A connection that says when it is closed."""

    def __init__(self, accepted: socket.socket, listener: Listener) -> None:
        family, kind, protocol = accepted.family, accepted.type, accepted.proto
        super().__init__(family, kind, protocol, fileno=accepted.detach())
        self._listener = listener
        listener.open += 1

    def close(self) -> None:
        """Close it, and make room for another one."""
        if self.fileno() != -1:
            self._listener.open -= 1
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
