"""The xDS services on a grpc.aio server: aggregated, and one per type."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import grpc
import grpc.aio

from controlplane.server.accepting import Services
from controlplane.server.streams import XdsServer
from controlplane.server.transport import GrpcTransport
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE
from controlplane.xds.view import Variant

# Service, the noun in its two methods' names, the type that it implies.
SERVICES: Final = (
    ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", CLUSTER),
    ("envoy.service.discovery.v3.AggregatedDiscoveryService", "AggregatedResources", None),
    ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", ENDPOINT),
    ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", LISTENER),
    ("envoy.service.route.v3.RouteDiscoveryService", "Routes", ROUTE),
    ("envoy.service.route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes", SCOPED_ROUTE),
)


async def stop(server: grpc.aio.Server, xds: XdsServer, seconds: float) -> None:
    """Stop gracefully: take in nothing new (GOAWAY), end the streams over some seconds, then connections."""
    stopping = asyncio.ensure_future(server.stop(grace=3 * seconds))
    await xds.drain(seconds)
    await stopping


_Behaviour = Callable[[Any, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[None]]


def services(server: XdsServer) -> Services:
    """Return the services of a gRPC server; messages pass as bytes, unparsed."""
    return {service: dict(_methods(server, noun, type_url)) for service, noun, type_url in SERVICES}


def _methods(
    server: XdsServer, noun: str, type_url: str | None
) -> Iterator[tuple[str, grpc.RpcMethodHandler]]:
    yield f"Stream{noun}", grpc.stream_stream_rpc_method_handler(_behaviour(server, "sotw", type_url))
    yield f"Delta{noun}", grpc.stream_stream_rpc_method_handler(_behaviour(server, "delta", type_url))


def _behaviour(server: XdsServer, variant: Variant, type_url: str | None) -> _Behaviour:
    async def behaviour(_requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await server.serve(GrpcTransport(context), variant, type_url)

    return behaviour
