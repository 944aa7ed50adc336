"""Where gRPC clients report their load: one stream per client on the control plane's own port."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from controlplane._pb.lrs_pb2 import LoadStatsResponse
from controlplane.server.transport import peer_of
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
        refused: Streams that were ended because of what they sent.
    """

    def __init__(self, interval: timedelta, opened: Callable[[Peer], Reports]) -> None:
        every = Duration()
        every.FromTimedelta(interval)
        answer = LoadStatsResponse(load_reporting_interval=every, send_all_clusters=True)
        self._answer = answer.SerializeToString()
        self._opened = opened
        self.streams = 0
        self.refused = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service for ``grpc.aio.Server.add_generic_rpc_handlers``."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {"StreamLoadStats": grpc.stream_stream_rpc_method_handler(self._stream)}
        )

    async def _stream(self, _requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        reports = self._opened(peer_of(context))
        self.streams += 1
        first = True
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                reports.receive(bytes(message))
                if first:  # it says who the client is, and waits to be told what to report
                    await context.write(self._answer)
                    first = False
        except ValueError as error:
            self.refused += 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self.streams -= 1
            reports.close()
