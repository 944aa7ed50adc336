"""The sample service: two versions on two ports, one small HTTP/1.1 server, faults on request.

It runs as a process of its own (``python -m controlplane.demo.sample``). In one process with the control
plane, each pause of that loop would be counted by Envoy as latency of the service; tests/demo/bench.py
prints both, and what a request costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.demo.fault import SEGMENTS, Fault

BASE_ERRORS = 0.001  # share of the requests that fail in every version, at all times
LONGEST_MS = 60.0
INJECTED = "x-sample-injected"
ORDER = "x-order"
VERSION = "x-sample-version"

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_MAX_REQUEST = 1 << 20
_TABLE = 8192


def latencies(rng: random.Random, count: int = _TABLE) -> tuple[float, ...]:
    """Return latencies in milliseconds: four of five around 11, the others, who miss a cache, around 32.

    Median 12 to 13, p99 about 40, and about 1 in 10,000 above 50: a factor of 2 lifts one in five over that
    edge of Envoy's histograms, so a limit there tells the two apart.
    """

    def draw() -> float:
        middle, spread = (32.0, 0.12) if rng.random() < 0.2 else (11.0, 0.3)
        return min(LONGEST_MS, middle * math.exp(rng.gauss(0, spread)))

    return tuple(draw() for _ in range(count))


def respond(version: str, injected: str = "", *, order: bool = False) -> bytes:
    """Return a whole response: 200, maybe to an order, or the 500 that was injected for the named reason."""
    body = json.dumps({"service": "shop", "version": version, "error": injected or None}).encode()
    head = [
        "HTTP/1.1 500 Internal Server Error" if injected else "HTTP/1.1 200 OK",
        "content-type: application/json",
        f"content-length: {len(body)}",
        f"{VERSION}: {version}",
    ]
    if injected:
        head.append(f"{INJECTED}: {injected}")
    if order:
        head.append(f"{ORDER}: 1")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Sample:
    """One version of the service: where it listens and how it behaves now.

    Attributes:
        version: Its name.
        port: Where it listens on loopback; a port that was 0 is chosen.
        requests: How many it has answered.
        injected: How many of the answers were failures.
    """

    def __init__(self, version: str, port: int = 0, seed: int = 0) -> None:
        self.version = version
        self.port = port
        self.requests = 0
        self.injected = 0
        self.connections: set[_Connection] = set()
        self._rng = random.Random(f"{seed}/{version}")
        self._latencies = latencies(self._rng)
        self._ok = respond(version)
        self._order = respond(version, order=True)
        self._failures = {reason: respond(version, reason) for reason in ("base", "errors")}
        self._fault = Fault()
        self._server: asyncio.Server | None = None
        self._closed_port: socket.socket | None = None

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self, loop), "127.0.0.1", self.port, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server:
            self._server.close()
            self._server = None
        for connection in tuple(self.connections):
            connection.abort()
        if self._closed_port:
            self._closed_port.close()
            self._closed_port = None

    def inject(self, fault: Fault) -> None:
        """Behave as ``fault`` says from now on; a crash is for good."""
        self._fault = fault
        if fault.kind == "crash" and self._server:
            self.stop()
            # Bound but not listening: connections are refused, and nobody else can take the port.
            self._closed_port = socket.socket()
            self._closed_port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._closed_port.bind(("127.0.0.1", self.port))

    def answer(self, head: bytes) -> tuple[float, bytes]:
        """Return after how many seconds, and with which bytes, a request with this head is answered."""
        self.requests += 1
        rng, fault = self._rng.random, self._fault
        seconds = self._latencies[int(rng() * _TABLE)] / 1000
        if fault.kind != "none" and (fault.segment is None or SEGMENTS[fault.segment].search(head)):
            seconds *= fault.factor
            if fault.share and rng() < fault.share:
                self.injected += 1
                return seconds, self._failures["errors"]
        if rng() < BASE_ERRORS:
            self.injected += 1
            return seconds, self._failures["base"]
        return seconds, self._order if head.startswith(b"POST ") else self._ok


class _Connection(asyncio.Protocol):
    """A keep-alive connection that answers one request after the other."""

    __slots__ = ("_buffer", "_loop", "_sample", "_timer", "_transport")

    def __init__(self, sample: Sample, loop: asyncio.AbstractEventLoop) -> None:
        self._sample = sample
        self._loop = loop
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a server's transports are full ones
        self._sample.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._sample.connections.discard(self)
        if self._timer:
            self._timer.cancel()

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if self._timer is None:
            self._next()

    def _next(self) -> None:
        """Take the next whole request out of the buffer, if there is one."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(buffer) > _MAX_REQUEST:
                self.abort()
            return
        head = buffer[:end]
        if not head.startswith(b"GET "):
            if _CHUNKED.search(head):
                self._write(b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                if self._transport:
                    self._transport.close()
                return
            length = _LENGTH.search(head)
            end += int(length[1]) if length else 0
            if end > _MAX_REQUEST:
                self.abort()
            if len(buffer) < end or end > _MAX_REQUEST:
                return
        self._buffer = buffer[end:]
        seconds, response = self._sample.answer(head)
        self._timer = self._loop.call_later(seconds, self._finish, response)

    def _finish(self, response: bytes) -> None:
        self._timer = None
        self._write(response)
        if self._buffer:
            self._next()

    def _write(self, response: bytes) -> None:
        if self._transport:
            self._transport.write(response)


@dataclass(frozen=True, slots=True)
class Served:
    """The service's own counts: answers and injected failures by version; its CPU in seconds."""

    requests: tuple[tuple[str, int], ...]
    injected: tuple[tuple[str, int], ...]
    cpu: float


class SampleProcess:
    """Both versions in a process of their own, which ends with this one.

    Attributes:
        ports: Where v1 and v2 listen.
    """

    def __init__(
        self, ports: tuple[int, int], seed: int = 0, module: str = "controlplane.demo.sample"
    ) -> None:
        """Prepare a process; ``module`` is run for it, and takes the same arguments as this one."""
        self.ports = ports
        self._seed = seed
        self._module = module
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process and return when both versions listen.

        Raises:
            OSError: If it ends instead, with what it said.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            *map(str, self.ports),
            f"--seed={self._seed}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo, which ends the service in order
        )
        await self._reply()

    async def inject(self, fault: Fault) -> Served:
        """Let ``fault`` be there from now on; return what was served until then."""
        return await self._ask(str(fault))

    async def served(self) -> Served:
        """Return what was served until now."""
        return await self._ask("")

    async def stop(self) -> None:
        """End the process."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            await self._process.wait()

    async def _ask(self, line: str) -> Served:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        return await self._reply()

    async def _reply(self) -> Served:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise OSError(f"the sample service ended with status {await self._process.wait()}")
        reply = json.loads(line)
        return Served(tuple(reply["requests"].items()), tuple(reply["injected"].items()), reply["cpu"])


async def serve(ports: Sequence[int], seed: int = 0, kind: type[Sample] = Sample) -> None:
    """Serve v1 and v2 and obey faults, one a line, from standard input until it ends."""
    v1, v2 = kind("v1", ports[0], seed), kind("v2", ports[1], seed)
    await asyncio.gather(v1.start(), v2.start())

    def reply() -> None:
        both = (v1, v2)
        counts = {
            "requests": {s.version: s.requests for s in both},
            "injected": {s.version: s.injected for s in both},
        }
        print(json.dumps({**counts, "cpu": time.process_time()}), flush=True)

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    reply()
    while line := (await reader.readline()).decode():
        if line.strip():
            fault = Fault.parse(line)
            v2.inject(fault)
            if fault.kind == "both":
                v1.inject(fault)
        reply()
    v1.stop()
    v2.stop()


def main(kind: type[Sample] = Sample) -> None:
    """Run the two versions on the two given ports."""
    parser = argparse.ArgumentParser(description="two versions of a sample service")
    parser.add_argument("ports", type=int, nargs=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.ports, arguments.seed, kind))


if __name__ == "__main__":
    main()
