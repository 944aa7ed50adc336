"""Where gRPC clients report their load: one stream per client on the control plane's own port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from controlplane._pb.lrs_pb2 import LoadStatsResponse
from controlplane.server.accepting import Services
from controlplane.server.admission import Quota
from controlplane.server.transport import delivered, peer_of
from controlplane.server.troubles import Troubles
from controlplane.xds.view import Peer

SERVICE = "envoy.service.load_stats.v3.LoadReportingService"


class Reports(Protocol):
    """Takes the messages of one stream, in the event loop, at once."""

    def receive(self, data: bytes) -> None:
        """Take one message; raises ValueError for what cannot be used, which ends the stream."""

    def close(self) -> None:
        """Say that the stream has ended."""


class LoadReporting:
    """Asks every client for the counts of all its clusters, and hands on what it says.

    Attributes:
        streams: Streams that are open.
        refused: Streams that were ended because of what they sent, or because their peer has too many.
    """

    def __init__(
        self,
        interval: timedelta,
        opened: Callable[[Peer], Reports],
        streams_per_peer: int = 10_000,
        troubles: Troubles | None = None,
        write_timeout: float = 10.0,
    ) -> None:
        """Have clients report every ``interval``; ``opened`` returns what takes the messages of a stream.

        ``write_timeout`` is how many seconds the answer may take before the stream counts as stuck.
        """
        self._write_timeout = write_timeout
        self._troubles = troubles or Troubles()
        every = Duration()
        every.FromTimedelta(interval)
        answer = LoadStatsResponse(load_reporting_interval=every, send_all_clusters=True)
        self._answer = answer.SerializeToString()
        self._opened = opened
        self._quota = Quota(streams_per_peer)
        self._stopping = asyncio.Event()
        self.streams = 0
        self.refused = 0

    def stop(self) -> None:
        """End all streams: a client reports again to whom it finds next."""
        self._stopping.set()

    def services(self) -> Services:
        """Return the service of a gRPC server."""
        return {SERVICE: {"StreamLoadStats": grpc.stream_stream_rpc_method_handler(self._stream)}}

    async def _stream(self, _requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        peer = peer_of(context)
        if not self._quota.enter(peer):
            self.refused += 1
            text = f"you have {self._quota.most} streams already"
            self._troubles.add("load reports of", peer.host, text)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        try:
            match await self._take(peer, context):
                case None:
                    return
                case str(refused):
                    self.refused += 1
                    self._troubles.add("load reports of", peer.host, refused)
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refused)
                case answer:  # gRPC takes no status while a message is on its way
                    await delivered(answer)
                    late = f"a write took more than {self._write_timeout:g} s"
                    await context.abort(grpc.StatusCode.UNAVAILABLE, late)
        finally:
            self._quota.leave(peer)

    async def _take(
        self, peer: Peer, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> asyncio.Future[None] | str | None:
        """Take the messages of a stream, until the client ends it.

        Otherwise return why a message cannot be used, or our answer, which the client does not take. Nothing
        keeps the message then: an error that is on its way would, until the collector finds it.
        """
        reports = self._opened(peer)
        self.streams += 1
        stopping = asyncio.create_task(self._stopping.wait())
        first = True
        try:
            while (message := await _read(context, stopping)) is not grpc.aio.EOF:
                reports.receive(message)
                if first:  # it says who the client is, and waits to be told what to report
                    first = False
                    writing: asyncio.Future[None] = asyncio.ensure_future(context.write(self._answer))
                    await asyncio.wait((writing,), timeout=self._write_timeout)
                    if not writing.done():
                        return writing
                    await delivered(writing)
        except ValueError as error:
            return str(error)
        finally:
            stopping.cancel()
            self.streams -= 1
            reports.close()
        return None


async def _read(context: grpc.aio.ServicerContext[bytes, bytes], stopping: asyncio.Task[object]) -> Any:
    """Return the next message, or EOF; ends the stream if the server stops before."""
    reading = asyncio.ensure_future(context.read())
    await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not reading.done():
        reading.cancel()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
    return reading.result()
