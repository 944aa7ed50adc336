"""What comes in: requests and the node, parsed with google.protobuf from our own minimal protos."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import ListValue, Struct

from controlplane._pb.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from controlplane._pb.node_pb2 import Node as _Node

Request = DiscoveryRequest | DeltaDiscoveryRequest

# What one client may make us read and keep. An Envoy's node is 61 KB, nearly all of it the list of its
# extensions, which is not read.
# A delta client that reconnects lists every name and version: 10 000 names of 250 characters fit. More would
# let one hostile message (of a million empty entries) stop the loop for a tenth of a second.
MAX_REQUEST = 3 << 20  # bytes
MAX_NAMES = 10_000  # in one request, and of one type on one stream
MAX_NAME = 1024  # characters, of a name or a version
MAX_HELD = 32 << 20  # bytes of names and versions that are kept of one stream, as `weigh` counts
_OBJECT = 100  # bytes that a short text takes besides its characters, with its place in a set
MAX_NODE = 256 << 10  # bytes
MAX_METADATA = 64 << 10  # bytes
MAX_VALUES = 1000  # in the metadata: as objects they take 15 times their bytes, and as long to make
MAX_NODE_ID = 512  # characters, of each text of the node

_KNOWN_ACKS = 64  # remembered at once
_LONGEST_ACK = 64 << 10  # bytes


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


class Ack(NamedTuple):
    """A request that accepts a response, and says nothing else; ``names`` repeat what the client asks for."""

    type_url: str
    nonce: str
    names: frozenset[str]


class Acks:
    """ACKs that were parsed before, by their bytes: those of streams with one history are alike."""

    def __init__(self) -> None:
        self._known: dict[bytes, Ack] = {}
        self._names: frozenset[str] = frozenset()

    def get(self, data: bytes) -> Ack | None:
        """Return what these bytes were, if they are remembered."""
        return self._known.get(data)

    def read(self, kind: type[Request], data: bytes) -> Ack | None:
        """Return what these bytes are, if they are an ACK and nothing else."""
        if data not in self._known:
            try:
                self.learn(data, parse_request(kind, data))
            except ProtocolError:
                return None
        return self._known.get(data)

    def learn(self, data: bytes, request: Request) -> None:
        """Remember a request, if it is an ACK and nothing else."""
        if len(data) > _LONGEST_ACK or not request.response_nonce or request.node:
            return
        if request.HasField("error_detail"):
            return
        names: frozenset[str] = frozenset()
        if isinstance(request, DiscoveryRequest):
            names = frozenset(request.resource_names)
        elif (
            request.resource_names_subscribe
            or request.resource_names_unsubscribe
            or request.initial_resource_versions
        ):
            return
        # Lists repeat from ACK to ACK: one object for all of them is compared in no time.
        self._names = names = self._names if names == self._names else names
        if len(self._known) >= _KNOWN_ACKS:
            del self._known[next(iter(self._known))]
        self._known[data] = Ack(request.type_url, request.response_nonce, names)


def parse_request(kind: type[Request], data: bytes) -> Request:
    """Parse one request of either variant.

    Raises:
        ProtocolError: If it is too large, not such a message, or has more or longer names than are allowed.
    """
    if len(data) > MAX_REQUEST:
        text = f"request of {len(data)} bytes, at most {MAX_REQUEST} are allowed"
        raise ProtocolError("RESOURCE_EXHAUSTED", text)
    try:
        request: Request = kind.FromString(data)
    except DecodeError as error:
        raise ProtocolError("INVALID_ARGUMENT", f"not a {kind.DESCRIPTOR.name}") from error
    if isinstance(request, DiscoveryRequest):
        check_names("resource_names", request.resource_names)
        return request
    check_names("resource_names_subscribe", request.resource_names_subscribe)
    check_names("resource_names_unsubscribe", request.resource_names_unsubscribe)
    check_names("initial_resource_versions", request.initial_resource_versions)
    check_names("initial_resource_versions", request.initial_resource_versions.values())
    return request


def check_names(what: str, names: Collection[str]) -> None:
    """Raise a ProtocolError if there are too many names, or one of them is too long.

    They are counted before any of them is looked at: 8 MB of them would take seconds.
    """
    if not names:
        return
    if len(names) > MAX_NAMES:
        text = f"{what}: {len(names)} entries, at most {MAX_NAMES} are allowed"
        raise ProtocolError("RESOURCE_EXHAUSTED", text)
    if any(len(name) > MAX_NAME for name in names):
        raise ProtocolError("RESOURCE_EXHAUSTED", f"{what}: longer than {MAX_NAME} characters")


def parse_node(data: bytes) -> Node:
    """Parse the node of a stream's first request.

    Raises:
        ProtocolError: If there is no node, it is too large, or it has no id: nodes without one would share a
            state.
    """
    if not data:
        raise ProtocolError("INVALID_ARGUMENT", "the first request of a stream must have a node")
    if len(data) > MAX_NODE:
        text = f"node: {len(data)} bytes, at most {MAX_NODE} are allowed"
        raise ProtocolError("RESOURCE_EXHAUSTED", text)
    try:
        node = _Node.FromString(data)
        _check_node(node)
        metadata = MessageToDict(node.metadata)
    except (DecodeError, ValueError) as error:
        raise ProtocolError("INVALID_ARGUMENT", f"node: not a Node: {error}") from error
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
    )


def _check_node(node: _Node) -> None:
    if not node.id:
        raise ProtocolError("INVALID_ARGUMENT", "node.id: is empty")
    where = node.locality
    texts = (node.id, node.cluster, where.region, where.zone, where.sub_zone, node.user_agent_name)
    if max(map(len, texts)) > MAX_NODE_ID:
        text = f"node: id, cluster, locality or user agent is longer than {MAX_NODE_ID} characters"
        raise ProtocolError("RESOURCE_EXHAUSTED", text)
    if not node.id.isprintable() or not node.cluster.isprintable():
        # They are shown to operators, whose terminals obey control characters.
        raise ProtocolError("INVALID_ARGUMENT", "node: id or cluster has characters that cannot be printed")
    size = node.metadata.ByteSize()
    if size > MAX_METADATA:
        text = f"node.metadata: {size} bytes, at most {MAX_METADATA} are allowed"
        raise ProtocolError("RESOURCE_EXHAUSTED", text)
    if _values(node.metadata, MAX_VALUES) > MAX_VALUES:
        text = f"node.metadata: more than {MAX_VALUES} values; of a list or mapping each counts, and itself"
        raise ProtocolError("RESOURCE_EXHAUSTED", text)


def _values(whole: Struct | ListValue, most: int) -> int:
    """Return how many values there are, however deep; a few more than ``most`` stand for any number above."""
    values = whole.fields.values() if isinstance(whole, Struct) else whole.values
    found = len(values)
    for value in values:
        if found > most:
            break
        if (kind := value.WhichOneof("kind")) in {"struct_value", "list_value"}:
            found += _values(getattr(value, kind), most - found)
    return found


def weigh(texts: Collection[str]) -> int:
    """Return about how many bytes these take in memory, with their objects."""
    return sum(len(text) if text.isascii() else 4 * len(text) for text in texts) + _OBJECT * len(texts)


def check_type_url(type_url: str) -> None:
    """Raise a ProtocolError unless the type URL is well formed: a prefix, a slash, a dotted message name."""
    if not type_url:
        raise ProtocolError("INVALID_ARGUMENT", "type_url: is required on an aggregated stream")
    prefix, slash, name = type_url.rpartition("/")
    if not slash or not prefix or not name.replace(".", "").replace("_", "").isalnum() or len(type_url) > 256:
        raise ProtocolError("INVALID_ARGUMENT", f"type_url: {type_url[:256]!r} is not a type URL")
