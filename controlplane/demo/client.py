"""A small HTTP/1.1 client for loads: pooled keep-alive connections, answers as values, no retries.

It costs a small part of what a general client does, because it reads only what the load wants to know.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request.

    Attributes:
        status: HTTP status; 0 if no whole response came.
        head: The response's head as it came, or why there is none.
        body: Its body.
    """

    status: int
    head: bytes
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return a header's value, empty if it is absent; ``name`` in lower case, as proxies send it."""
        start = self.head.find(b"\r\n" + name.encode() + b":")
        if start < 0:
            return ""
        start += len(name) + 3
        return self.head[start : self.head.index(b"\r\n", start)].strip().decode("latin-1")


Done = Callable[[Answer], None]


class Pool:
    """Connections to one port of loopback; the one that has rested longest goes first, so all are used."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open: set[_Connection] = set()
        self._idle: deque[_Connection] = deque()
        self._opening: set[asyncio.Task[None]] = set()

    async def fill(self, count: int) -> None:
        """Open ``count`` connections before the first request."""
        opened = await asyncio.gather(*(self._open() for _ in range(count)), return_exceptions=True)
        self._idle.extend(found for found in opened if isinstance(found, _Connection))

    def send(self, request: bytes, done: Done) -> None:
        """Send a request; ``done`` is called once, with the answer or with status 0."""
        while self._idle:
            connection = self._idle.popleft()
            if connection.usable:
                connection.send(request, done)
                return
        task = asyncio.get_running_loop().create_task(self._open_and_send(request, done))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def expire(self, sent_before: float) -> None:
        """Give up requests that were sent before this time of the loop."""
        for connection in tuple(self.open):
            if connection.sent_at < sent_before:
                connection.fail(b"no answer in time")

    def close(self) -> None:
        """Close all connections; requests in flight fail."""
        for connection in tuple(self.open):
            connection.fail(b"closed by the load")

    def rest(self, connection: _Connection) -> None:
        """Take a connection back that has had its whole answer."""
        self._idle.append(connection)

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self, loop), "127.0.0.1", self.port)
        return connection

    async def _open_and_send(self, request: bytes, done: Done) -> None:
        try:
            connection = await self._open()
        except OSError as error:
            done(Answer(0, str(error).encode()))
        else:
            connection.send(request, done)


class _Connection(asyncio.Protocol):
    """One connection with at most one request in flight.

    Attributes:
        sent_at: When the request in flight was sent, in the loop's time; infinite while there is none.
    """

    __slots__ = ("_buffer", "_done", "_loop", "_pool", "_transport", "sent_at")

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._buffer = b""
        self._done: Done | None = None
        self._transport: asyncio.Transport | None = None
        self.sent_at = float("inf")

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, done: Done) -> None:
        self._done = done
        self.sent_at = self._loop.time()
        if self._transport is None:
            self.fail(b"connection was closed before the request")
        else:
            self._transport.write(request)

    def fail(self, why: bytes) -> None:
        if self._transport:
            self._transport.abort()
            self._transport = None
        self._pool.open.discard(self)
        self._finish(Answer(0, why))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a client's transports are full ones
        self._pool.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.fail(b"connection lost before the answer" if exc is None else str(exc).encode())

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = buffer[: end + 4]
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if length:
            body = buffer[end + 4 : end + 4 + int(length[1])]
            whole = len(body) == int(length[1])
        else:
            body = buffer[end + 4 :]
            whole = body.endswith(b"0\r\n\r\n")
        if status is None or not (length or _CHUNKED.search(head)):
            self.fail(b"not a framed HTTP/1.1 response: " + head[:80])
        elif whole:
            self._buffer = b""
            answer = Answer(int(status[1]), head, body)
            if _CLOSE.search(head):
                assert self._transport is not None
                self._transport.close()
                self._finish(answer)
            else:
                self._finish(answer)
                self._pool.rest(self)

    def _finish(self, answer: Answer) -> None:
        done, self._done = self._done, None
        self.sent_at = float("inf")
        if done:
            done(answer)
