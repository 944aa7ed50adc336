"""Where proxies push their statistics: OpenTelemetry's metrics service on the control plane's own port."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import grpc
import grpc.aio

from controlplane.server.accepting import Services
from controlplane.server.share import Share
from controlplane.server.transport import peer_of
from controlplane.server.troubles import Troubles
from controlplane.xds.view import Peer

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
MAX_BYTES = 4 << 20  # Envoy sends about 12 KB per 100 clusters

Receive = Callable[[Peer, bytes], None]
_Refusal = tuple[grpc.StatusCode, str]


class Intake:
    """Hands every export to a callback, with the peer that sent it.

    The callback is called in the event loop, for some milliseconds of each of its turns in all. It raises
    ValueError for what it cannot use.

    Attributes:
        accepted: Exports that the callback took.
        refused: Exports that were too large or that it could not use.
        troubles: Where refusals are shown.
    """

    def __init__(self, receive: Receive, troubles: Troubles | None = None) -> None:
        self._receive = receive
        self._share = Share()
        self.troubles = troubles or Troubles()
        self.accepted = 0
        self.refused = 0

    def services(self) -> Services:
        """Return the service of a gRPC server."""
        return {SERVICE: {"Export": grpc.unary_unary_rpc_method_handler(self._export)}}

    async def _export(self, data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        sender = peer_of(context)
        refusals: list[_Refusal] = []
        await self._share.take(sender, partial(self._hand_on, sender, data, refusals))
        # An abort keeps this frame, and those of an error that it is raised in, until the collector comes.
        del data
        for code, reason in refusals:
            self.refused += 1
            self.troubles.add("statistics of", sender.host, reason)
            await context.abort(code, reason)
        self.accepted += 1
        return b""  # ExportMetricsServiceResponse without a partial success: all was taken

    def _hand_on(self, sender: Peer, data: bytes, refusals: list[_Refusal]) -> None:
        """Hand an export on; if it is refused, say why in ``refusals``."""
        if len(data) > MAX_BYTES:
            reason = f"export of {len(data)} bytes, at most {MAX_BYTES} are allowed"
            refusals.append((grpc.StatusCode.RESOURCE_EXHAUSTED, reason))
            return
        try:
            self._receive(sender, data)
        except ValueError as error:
            refusals.append((grpc.StatusCode.INVALID_ARGUMENT, str(error)))
