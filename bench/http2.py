"""A load client: thousands of HTTP/2 connections in one epoll loop, one gRPC stream on each.

It does what a proxy's client does on the wire (preface, SETTINGS, HEADERS, DATA, both flow-control windows,
PING answers) and nothing more, so that it costs little beside the server that it measures.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Final

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW = 65_535  # until SETTINGS say otherwise; always for the connection
STREAM_WINDOW, CONNECTION_WINDOW = 16 << 20, 24 << 20  # what Envoy announces
MAX_FRAME = 16_384  # every HTTP/2 peer takes frames of this size

Answer = Callable[[bytes], bytes | None]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame. Source: RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _headers(path: str) -> bytes:
    """Return a request's header block: literals without indexing, which need no table at either end."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "127.0.0.1"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    return b"\x7f" + bytes((len(data) - 127,)) + data  # up to 254 bytes: one more byte is enough


def preface(path: str) -> bytes:
    """Return everything that opens a connection and its one stream, before the first message."""
    settings = struct.pack(">HIHI", 0x2, 0, 0x4, STREAM_WINDOW)  # no push; window of each stream
    grown = struct.pack(">I", CONNECTION_WINDOW - INITIAL_WINDOW)
    return b"".join(
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            frame(SETTINGS, 0, 0, settings),
            frame(WINDOW_UPDATE, 0, 0, grown),
            frame(HEADERS, END_HEADERS, 1, _headers(path)),
        )
    )


class Connection:
    """One proxy's connection, with its only stream.

    Attributes:
        ended: The server ended the stream or the connection, or it could not be connected.
        messages: How many were received.
        size: Bytes of the last one.
    """

    __slots__ = (
        "_fleet",
        "_incoming",
        "_message",
        "_outgoing",
        "_queue",
        "_taken",
        "_window",
        "_windows",
        "ended",
        "messages",
        "size",
        "socket",
    )

    def __init__(self, fleet: Fleet, sock: socket.socket) -> None:
        self._fleet = fleet
        self.socket = sock
        self.ended = False
        self.messages = self.size = 0
        self._incoming = b""  # an unfinished frame
        self._message = b""  # an unfinished message
        self._queue: list[bytes] = []  # messages that wait for a window
        self._outgoing = b""  # frames that wait for the socket
        self._window = self._windows = INITIAL_WINDOW  # what may be sent: on the stream, on the connection
        self._taken = 0  # since the server's windows were grown

    def send(self, message: bytes) -> None:
        """Send one gRPC message, as far as the server's windows allow."""
        self._queue.append(b"\0" + struct.pack(">I", len(message)) + message)
        self._flush()

    def _flush(self) -> None:
        frames = []
        while self._queue:
            room = min(self._window, self._windows, MAX_FRAME)
            if room <= 0:
                break
            part = self._queue[0][:room]
            self._window -= len(part)
            self._windows -= len(part)
            frames.append(frame(DATA, 0, 1, part))
            if len(part) == len(self._queue[0]):
                self._queue.pop(0)
            else:
                self._queue[0] = self._queue[0][room:]
        if frames:
            self.write(b"".join(frames))

    def write(self, data: bytes) -> None:
        """Send frames; what the socket does not take waits for it."""
        if self._outgoing:
            self._outgoing += data
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.end()
            return
        if sent < len(data):
            self._outgoing = data[sent:]
            self._fleet.poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def writable(self) -> None:
        """The socket takes more."""
        rest, self._outgoing = self._outgoing, b""
        self.write(rest)
        if not self._outgoing and not self.ended:
            self._fleet.poll.modify(self.socket, select.EPOLLIN)

    def end(self) -> None:
        """The stream is over."""
        if not self.ended:
            self.ended = True
            self._fleet.ended += 1

    def readable(self) -> None:
        """Take what the socket has: frames, of them messages."""
        buffer = self._fleet.buffer
        try:
            size = self.socket.recv_into(buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size == 0:
            self.end()
            return
        data = self._incoming + buffer[:size]
        place, total = 0, len(data)
        while total - place >= 9:
            length = data[place] << 16 | data[place + 1] << 8 | data[place + 2]
            if total - place < 9 + length:
                break
            start = place + 9
            place = start + length
            self._frame(data[start - 6], data[start - 5], data[start - 4 : start], data[start:place])
        self._incoming = data[place:]

    def _frame(self, kind: int, flags: int, stream: bytes, payload: bytes) -> None:
        if kind == DATA:
            self._data(payload)
        elif kind == SETTINGS and not flags & ACK:
            for setting, value in struct.iter_unpack(">HI", payload):
                if setting == 0x4:
                    self._window += value - INITIAL_WINDOW
            self.write(frame(SETTINGS, ACK, 0))
            self._flush()
        elif kind == WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if stream == b"\0\0\0\0":
                self._windows += more
            else:
                self._window += more
            self._flush()
        elif kind == PING and not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))
        if kind in (RST_STREAM, GOAWAY) or (kind in (DATA, HEADERS) and flags & END_STREAM):
            self.end()

    def _data(self, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken > STREAM_WINDOW // 2:
            grown = struct.pack(">I", self._taken)
            self.write(frame(WINDOW_UPDATE, 0, 0, grown) + frame(WINDOW_UPDATE, 0, 1, grown))
            self._taken = 0
        message = self._message + payload
        while len(message) >= 5:
            end = 5 + int.from_bytes(message[1:5], "big")
            if len(message) < end:
                break
            self.messages += 1
            self.size = end - 5
            answer = self._fleet.answer(message[5:end])
            if answer is not None:
                self.send(answer)
            self._fleet.received += 1
            message = message[end:]
        self._message = message


class Fleet:
    """Many proxies of one server.

    Args:
        port: Of the server, on loopback.
        path: Of the gRPC method.
        answer: Returns the request that a response is answered with, or None.

    Attributes:
        received: Responses received and answered so far, by all of them.
        ended: Streams that are over.
    """

    def __init__(self, port: int, path: str, answer: Answer) -> None:
        self.answer = answer
        self.received = self.ended = 0
        self.buffer = memoryview(bytearray(1 << 18))  # shared: a fresh one for each recv() costs more than it
        self.poll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self._address = ("127.0.0.1", port)
        self._preface: Final = preface(path)

    def connect(self, requests: Iterable[list[bytes]], seconds: float = 60, *, answers: int = 1) -> float:
        """Connect one proxy for each list of first requests, all at once.

        Returns the seconds until each had its ``answers`` responses, or its stream was ended.

        Raises:
            TimeoutError: If that takes too long.
        """
        start = time.monotonic()
        count = len(self.connections)
        wanted = self.received
        for first in requests:
            self.open(first)
            wanted += answers
            count += 1
            if count % 64 == 0:
                self._turn(0)
        self.run(lambda: self.received + self.ended * answers >= wanted, seconds)
        return time.monotonic() - start

    def open(self, first: list[bytes]) -> None:
        """Begin to connect one proxy, and send its first requests."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self.connections[sock.fileno()] = Connection(self, sock)
        with contextlib.suppress(BlockingIOError):
            sock.connect(self._address)
        self.poll.register(sock, select.EPOLLIN)
        connection.write(self._preface)
        for request in first:
            connection.send(request)

    def run(self, done: Callable[[], bool], seconds: float = 60) -> None:
        """Serve the connections until something is true.

        Raises:
            TimeoutError: If it never is.
        """
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.received} answers, {self.ended} streams ended in {seconds} s")
            self._turn(0.05)

    def idle(self, seconds: float) -> None:
        """Serve the connections for a while: a server's pings want answers."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._turn(left)

    def _turn(self, seconds: float) -> None:
        for descriptor, events in self.poll.poll(seconds, 1024):
            connection = self.connections[descriptor]
            if events & select.EPOLLOUT:
                connection.writable()
            if events & ~select.EPOLLOUT:
                connection.readable()
            if connection.ended:
                self.poll.unregister(descriptor)
                connection.socket.close()
                del self.connections[descriptor]

    def close(self) -> None:
        """Reset all connections at once, as when a network fails."""
        for connection in self.connections.values():
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.socket.close()
        self.connections.clear()
