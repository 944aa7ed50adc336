"""What goes over the wire in the measurements: nodes, first requests, ACKs, snapshots."""

from __future__ import annotations

import random
import struct
from functools import lru_cache
from typing import Final

from controlplane._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from controlplane._pb.node_pb2 import Node
from controlplane.xds.snapshot import Resource, Snapshot, content_hash
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE, SCOPED_ROUTE
from controlplane.xds.version import Version
from controlplane.xds.view import Variant

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
PATHS: Final = {
    "delta": f"/{SERVICE}/DeltaAggregatedResources",
    "sotw": f"/{SERVICE}/StreamAggregatedResources",
}
NODE_BYTES: Final = 61_191  # Envoy 1.40's own, in full
_EXTENSIONS: Final = 516

Asks = tuple[
    tuple[str, tuple[str, ...]], ...
]  # what an Envoy subscribes to, in its order: type, names (none: all)
EVERYTHING: Final[Asks] = (
    (CLUSTER, ()),
    (ENDPOINT, ("checkout~v1", "checkout~v2")),
    (SCOPED_ROUTE, ()),
    (ROUTE, ("checkout",)),
    (LISTENER, ()),
)
ROUTES: Final = ((ROUTE, ("checkout",)),)
_SIZES: Final = {CLUSTER: 300, ENDPOINT: 150, SCOPED_ROUTE: 120, LISTENER: 4000}


@lru_cache(maxsize=2)
def _extensions(size: int) -> bytes:
    """Return as many bytes as Envoy's list of extensions has: fields that the server does not read."""
    each, extra = divmod(size, _EXTENSIONS)
    found = []
    for number in range(_EXTENSIONS):
        content = each - 2 + (1 if number < extra else 0)
        name = f"envoy.filters.http.extension_{number:03}".encode()
        rest = content - 4 - len(name)
        found.append(bytes((9 << 3 | 2, content, 0x0A, len(name))) + name + bytes((0x12, rest)) + b"x" * rest)
    return b"".join(found)


def node(number: int, size: int = 0) -> bytes:
    """Return a proxy's node; filled up to ``size`` bytes with extensions, as Envoy does, if that is not 0."""
    message = Node(id=f"proxy-{number:05}", cluster="edge", user_agent_name="envoy")
    message.metadata.update({"team": "checkout", "zone": "a"})
    message.locality.region, message.locality.zone = "eu-west-1", "eu-west-1a"
    build = message.user_agent_build_version.version
    build.major_number, build.minor_number = 1, 40
    message.client_features.extend(
        ("envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw")
    )
    data = message.SerializeToString()
    return data + _extensions(size - len(data)) if size else data


def first_requests(variant: Variant, who: bytes, subscriptions: Asks) -> list[bytes]:
    """Return what a proxy sends first: one request for each type, the node in the first one only."""
    requests: list[bytes] = []
    for type_url, names in subscriptions:
        sender = b"" if requests else who
        message: DeltaDiscoveryRequest | DiscoveryRequest
        if variant == "delta":
            message = DeltaDiscoveryRequest(node=sender, type_url=type_url, resource_names_subscribe=names)
        else:
            message = DiscoveryRequest(node=sender, type_url=type_url, resource_names=names)
        requests.append(message.SerializeToString())
    return requests


def ack_delta(data: bytes) -> bytes:
    """Return the ACK of an incremental response."""
    response = DeltaDiscoveryResponse.FromString(data)
    return _ack_delta(response.type_url, response.nonce)


@lru_cache(maxsize=64)
def _ack_delta(type_url: str, nonce: str) -> bytes:
    return DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce).SerializeToString()


def ack_sotw(data: bytes, names: tuple[str, ...] | None = None) -> bytes:
    """Return the ACK of a state-of-the-world response; it repeats the names that the client asks for."""
    response = DiscoveryResponse.FromString(data)
    asked = dict(EVERYTHING)[response.type_url] if names is None else names
    return _ack_sotw(response.type_url, response.version_info, response.nonce, asked)


@lru_cache(maxsize=64)
def _ack_sotw(type_url: str, version: str, nonce: str, names: tuple[str, ...]) -> bytes:
    return DiscoveryRequest(
        type_url=type_url, version_info=version, response_nonce=nonce, resource_names=names
    ).SerializeToString()


ANSWERS: Final = {"delta": ack_delta, "sotw": ack_sotw}


def route(size: int, revision: int) -> Resource:
    """Return a route configuration that needs two clusters, with a body of ``size`` bytes."""
    body = struct.pack(">I", revision) + _filling(size - 4)
    needs = frozenset((kind, f"checkout~{v}") for kind in (CLUSTER, ENDPOINT) for v in ("v1", "v2"))
    return Resource("checkout", body, Version(revision, content_hash((body,))), needs)


@lru_cache(maxsize=8)
def _filling(size: int) -> bytes:
    return random.Random(7).randbytes(size)  # noqa: S311 (any bytes will do)


def snapshots() -> _Snapshots:
    """Return the sequence of one service's snapshots."""
    return _Snapshots()


class _Snapshots:
    """Snapshots of one service of which the route changes, as in a release."""

    def __init__(self) -> None:
        self.revision = 1000
        self._fixed = {
            type_url: {name: _plain(type_url, name) for name in names or _names(type_url)}
            for type_url, names in EVERYTHING
            if type_url != ROUTE
        }

    def next(self, size: int) -> Snapshot:
        """Return the next one: a route of ``size`` bytes, everything else as before."""
        self.revision += 1
        resources = {**self._fixed, ROUTE: {"checkout": route(size, self.revision)}}
        return Snapshot(self.revision, resources, PUSH_ORDER)


def _names(type_url: str) -> tuple[str, ...]:
    return ("checkout~v1", "checkout~v2") if type_url == CLUSTER else ("checkout",)


def _plain(type_url: str, name: str) -> Resource:
    body = name.encode() + _filling(_SIZES[type_url])
    follows = (CLUSTER, name) if type_url == ENDPOINT else None
    return Resource(name, body, Version(1, content_hash((body,))), follows=follows)
