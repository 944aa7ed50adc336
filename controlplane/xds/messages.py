"""What comes in: requests and the node, parsed with google.protobuf from our own minimal protos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from controlplane._pb.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from controlplane._pb.node_pb2 import Node as _Node

Request = DiscoveryRequest | DeltaDiscoveryRequest


class ProtocolError(Exception):
    """A client broke the protocol: its stream must be ended with this gRPC status.

    Attributes:
        status: Name of a gRPC status code, such as ``INVALID_ARGUMENT``.
        text: What is wrong, for the client's log.
    """

    def __init__(self, status: str, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Node:
    """Who a client says it is, from the first message of its stream; not proof of identity.

    ``version`` is the (major, minor, patch) of a client that states a build version, as Envoy does.
    """

    id: str
    cluster: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    region: str = ""
    zone: str = ""
    sub_zone: str = ""
    user_agent: str = ""
    version: tuple[int, int, int] | None = None
    features: tuple[str, ...] = ()


def parse_request(kind: type[Request], data: bytes) -> Request:
    """Parse one request of either variant.

    Raises:
        ProtocolError: If the bytes are not such a message.
    """
    try:
        request: Request = kind.FromString(data)
    except DecodeError as error:
        raise ProtocolError("INVALID_ARGUMENT", f"not a {kind.DESCRIPTOR.name}") from error
    return request


def parse_node(data: bytes) -> Node:
    """Parse the node of a stream's first request.

    Raises:
        ProtocolError: If there is no node, or it has no id: nodes without one would share a state.
    """
    if not data:
        raise ProtocolError("INVALID_ARGUMENT", "the first request of a stream must have a node")
    try:
        node = _Node.FromString(data)
        metadata = MessageToDict(node.metadata)
    except (DecodeError, ValueError) as error:
        raise ProtocolError("INVALID_ARGUMENT", f"node: not a Node: {error}") from error
    if not node.id:
        raise ProtocolError("INVALID_ARGUMENT", "node.id: is empty")
    build = node.user_agent_build_version.version
    return Node(
        id=node.id,
        cluster=node.cluster,
        metadata=metadata,
        region=node.locality.region,
        zone=node.locality.zone,
        sub_zone=node.locality.sub_zone,
        user_agent=node.user_agent_name,
        version=(build.major_number, build.minor_number, build.patch)
        if node.HasField("user_agent_build_version")
        else None,
        features=tuple(node.client_features),
    )


def check_type_url(type_url: str) -> None:
    """Raise a ProtocolError unless the type URL is well formed: a prefix, a slash, a dotted message name."""
    if not type_url:
        raise ProtocolError("INVALID_ARGUMENT", "type_url: is required on an aggregated stream")
    prefix, slash, name = type_url.rpartition("/")
    if not slash or not prefix or not name.replace(".", "").replace("_", "").isalnum() or len(type_url) > 256:
        raise ProtocolError("INVALID_ARGUMENT", f"type_url: {type_url[:256]!r} is not a type URL")
