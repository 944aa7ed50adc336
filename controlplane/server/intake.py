"""Where proxies push their statistics: OpenTelemetry's metrics service on the control plane's own port."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import grpc.aio

from controlplane.server.accepting import Services
from controlplane.server.transport import peer_of
from controlplane.server.troubles import Troubles
from controlplane.xds.view import Peer

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
MAX_BYTES = 4 << 20  # Envoy sends about 12 KB per 100 clusters

Receive = Callable[[Peer, bytes], None]


class Intake:
    """Hands every export to a callback, with the peer that sent it.

    The callback is called in the event loop and must be quick. It raises ValueError for what it cannot use.

    Attributes:
        accepted: Exports that the callback took.
        refused: Exports that were too large or that it could not use.
        troubles: Where refusals are shown.
    """

    def __init__(self, receive: Receive, troubles: Troubles | None = None) -> None:
        self._receive = receive
        self.troubles = troubles or Troubles()
        self.accepted = 0
        self.refused = 0

    def services(self) -> Services:
        """Return the service of a gRPC server."""
        return {SERVICE: {"Export": grpc.unary_unary_rpc_method_handler(self._export)}}

    async def _export(self, data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        sender = peer_of(context)
        refusal = self._refusal(sender, data)
        del (
            data
        )  # an abort keeps this frame, and those of an error it is raised in, until the collector comes
        if refusal is not None:
            code, reason = refusal
            self.refused += 1
            self.troubles.add("statistics of", sender.host, reason)
            await context.abort(code, reason)
        self.accepted += 1
        return b""  # ExportMetricsServiceResponse without a partial success: all was taken

    def _refusal(self, sender: Peer, data: bytes) -> tuple[grpc.StatusCode, str] | None:
        """Hand an export on; return why it is refused, if it is."""
        if len(data) > MAX_BYTES:
            reason = f"export of {len(data)} bytes, at most {MAX_BYTES} are allowed"
            return grpc.StatusCode.RESOURCE_EXHAUSTED, reason
        try:
            self._receive(sender, data)
        except ValueError as error:
            return grpc.StatusCode.INVALID_ARGUMENT, str(error)
        return None
