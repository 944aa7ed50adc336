"""The two servers that are compared, each in a process of its own: `python -m bench.servers turnout|echo`.

Both print their port, then obey lines on standard input: ``publish SIZE`` sets a route of that many bytes for
all streams and prints the time (nanoseconds of the monotonic clock) at which it was handed over.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Protocol

import grpc
import grpc.aio

from bench.wire import SERVICE, snapshots
from controlplane.app import logs
from controlplane.server.accepting import Services, make
from controlplane.server.ads import services
from controlplane.server.garbage import collect_seldom
from controlplane.server.options import bind
from controlplane.server.streams import XdsServer
from controlplane.xds.type_urls import ROUTE
from controlplane.xds.wire import delta_response, sotw_response


class _Server(Protocol):
    def publish(self, size: int) -> None: ...

    def services(self) -> Services: ...


class Turnout:
    """Our server, as `turnout serve` has it; without the parts that make snapshots."""

    def __init__(self) -> None:
        self._xds = XdsServer(lambda node: node.cluster, identifier="turnout")
        self._snapshots = snapshots()

    def publish(self, size: int) -> None:
        """Publish a changed route."""
        self._xds.publish("edge", self._snapshots.next(size))

    def services(self) -> Services:
        """Return the services."""
        return services(self._xds)


class Echo:
    """The least that grpc.aio can do: write the same bytes to each stream, read what comes back.

    One coroutine for each stream, that waits for the next payload, writes it and reads the answer.
    """

    def __init__(self) -> None:
        self._snapshots = snapshots()
        self._payloads: dict[str, bytes] = {}
        self._turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def publish(self, size: int) -> None:
        """Have every stream write a new payload."""
        snapshot = self._snapshots.next(size)
        routes, revision, nonce = snapshot.of(ROUTE), snapshot.revision, "6"
        self._payloads = {
            "delta": delta_response(ROUTE, routes.values(), (), revision, nonce, "turnout"),
            "sotw": sotw_response(ROUTE, routes, revision, nonce, "turnout")[1],
        }
        turn, self._turn = self._turn, asyncio.get_running_loop().create_future()
        turn.set_result(None)

    def services(self) -> Services:
        """Return the services."""
        methods = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._behaviour("delta")),
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self._behaviour("sotw")),
        }
        return {SERVICE: methods}

    def _behaviour(self, variant: str) -> Any:
        async def behaviour(_requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            answer: Any = await context.read()
            while answer is not grpc.aio.EOF:
                turn = self._turn
                await context.write(self._payloads[variant])
                answer = await context.read()
                await asyncio.shield(turn)

        return behaviour


async def main(kind: str) -> None:
    """Serve until standard input ends."""
    logs.configure("info")  # as `turnout serve` does
    ours: _Server = Turnout() if kind == "turnout" else Echo()
    server = make(ours.services())
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    collect_seldom()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print(port, flush=True)  # noqa: T201
    while line := await reader.readline():
        at = time.monotonic_ns()
        ours.publish(int(line.split()[1]))
        print(at, flush=True)  # noqa: T201
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
