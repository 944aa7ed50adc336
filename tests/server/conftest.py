"""A server over real grpc.aio on loopback, and clients that speak bytes."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import grpc.aio
import pytest

from controlplane._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from controlplane._pb.node_pb2 import Node
from controlplane.server.ads import handlers
from controlplane.server.options import SERVER_OPTIONS, bind
from controlplane.server.streams import XdsServer
from controlplane.xds.snapshot import Resource, Snapshot, content_hash
from controlplane.xds.type_urls import PUSH_ORDER
from controlplane.xds.version import Version

ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"


def resource(name, body=b"1", revision=1):
    return Resource(name, body, Version(revision, content_hash((body,))))


def snapshot(revision, type_url, *resources):
    return Snapshot(revision, {type_url: {r.name: r for r in resources}}, PUSH_ORDER)


class Call:
    """One stream of a client."""

    def __init__(self, channel, path, node="proxy-1"):
        self.delta = "/Delta" in path
        self.call = channel.stream_stream(path)()
        self.node = Node(id=node, cluster="edge").SerializeToString()

    async def ask(self, type_url="", **fields):
        kind = DeltaDiscoveryRequest if self.delta else DiscoveryRequest
        message = kind(type_url=type_url, node=self.node, **fields)
        self.node = b""
        await self.call.write(message.SerializeToString())

    async def hear(self, seconds=5):
        data = await asyncio.wait_for(self.call.read(), seconds)
        assert data is not grpc.aio.EOF, (await self.call.code(), await self.call.details())
        return (DeltaDiscoveryResponse if self.delta else DiscoveryResponse).FromString(data)

    async def end(self, seconds=5):
        async def drained():
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            return await self.call.code(), await self.call.details()

        return await asyncio.wait_for(drained(), seconds)


async def until(condition, seconds=5):
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


@pytest.fixture
async def serve():
    """Start servers and clients; end them after the test."""
    started, channels = [], []

    async def start(group_of=lambda node: node.cluster, **options):
        xds = XdsServer(group_of, **options)
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers(handlers(xds))
        port = bind(server, "127.0.0.1", 0)
        await server.start()
        started.append(server)

        def connect(method=f"/{ADS}/StreamAggregatedResources", node="proxy-1", **client_options):
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=tuple(client_options.items()))
            channels.append(channel)
            return Call(channel, method, node)

        return SimpleNamespace(xds=xds, server=server, port=port, connect=connect)

    yield start
    for channel in channels:
        await channel.close()
    for server in started:
        await server.stop(0)


@pytest.fixture
def kit():
    return SimpleNamespace(resource=resource, snapshot=snapshot, until=until, ADS=ADS)
