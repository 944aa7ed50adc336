"""Anyone's resources, per group of nodes: what an embedding program sets is what its proxies get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage
from google.protobuf.unknown_fields import UnknownFieldSet

from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.endpoint_pb2 import ClusterLoadAssignment
from controlplane._pb.hcm_pb2 import HttpConnectionManager
from controlplane._pb.listener_pb2 import Listener
from controlplane._pb.route_pb2 import RouteConfiguration
from controlplane._pb.tcpproxy_pb2 import TcpProxy
from controlplane.xds.messages import MAX_NAMES, Node
from controlplane.xds.snapshot import Ref, Resource, Snapshot, content_hash
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE
from controlplane.xds.version import Version

_SERVICE_NAME = 2  # field number in EdsClusterConfig
_ROUTE_CONFIG = 4  # field number in HttpConnectionManager
_MANAGER = HttpConnectionManager.DESCRIPTOR.full_name.removeprefix("turnout.")
_TCP_PROXY = TcpProxy.DESCRIPTOR.full_name.removeprefix("turnout.")


class Message(Protocol):
    """Any protobuf library's message."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the encoded message."""
        ...


Body = bytes | Message | Resource
Resources = Mapping[str, Mapping[str, Body]]
Publish = Callable[[str, Snapshot], None]
Withdraw = Callable[[str], None]
_Given = Mapping[str, Mapping[str, bytes | Resource]]
_M = TypeVar(
    "_M", Cluster, ClusterLoadAssignment, HttpConnectionManager, Listener, RouteConfiguration, TcpProxy
)


class Cache:
    """Resources by group of nodes, type URL and name.

    A group without resources of its own is unknown: its nodes are held without an answer. Every change is
    one new snapshot, and only what differs goes out. How resources refer to one another is read from them: a
    route waits for its clusters, which leave after it; endpoints are sent again after their cluster. A
    `Resource` is taken as it is, for whoever knows better. Versions are hashes of content.

    Use it from the event loop of its server only; other threads go by ``loop.call_soon_threadsafe``.
    """

    def __init__(self, group_of: Callable[[Node], str] = lambda node: node.id) -> None:
        """Make an empty cache; ``group_of`` names the group of a node, by default its id."""
        self.group_of = group_of
        self._given: dict[str, _Given] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._servers: list[tuple[Publish, Withdraw]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def replace(self, group: str, resources: Resources) -> None:
        """Set all resources of a group at once: type URL to name to message, its bytes, or a `Resource`.

        Raises:
            ValueError: If a cluster, an assignment, a route or a listener is not such a message.
        """
        present: dict[str, dict[str, bytes | Resource]] = {url: {} for url in self._given.get(group, {})}
        given = {url: {name: _encode(body) for name, body in of.items()} for url, of in resources.items()}
        self._publish(group, present | given)

    def set(self, group: str, type_url: str, name: str, body: Body) -> None:
        """Set one resource; the others stay. Raises ValueError like `replace`."""
        given = self._given.get(group, {})
        self._publish(group, {**given, type_url: {**given.get(type_url, {}), name: _encode(body)}})

    def remove(self, group: str, type_url: str, name: str) -> None:
        """Take one resource away, if it is there."""
        given = self._given.get(group, {})
        left = {other: body for other, body in given.get(type_url, {}).items() if other != name}
        self._publish(group, {**given, type_url: left})

    def clear(self, group: str) -> None:
        """Take everything away from the nodes of a group; they stay known."""
        self.replace(group, {})

    def forget(self, group: str) -> None:
        """Make a group unknown again, once its nodes are gone: nothing of it is kept.

        Nodes that are still there keep what they have.
        """
        self._check_thread()
        self._given.pop(group, None)
        if self._snapshots.pop(group, None) is not None:
            for _, withdraw in tuple(self._servers):
                withdraw(group)

    def snapshot(self, group: str) -> Snapshot | None:
        """Return what a group has, or None if nothing was ever set."""
        return self._snapshots.get(group)

    def attach(self, publish: Publish, withdraw: Withdraw) -> Callable[[], None]:
        """Hand all snapshots to a server, now and at each change; return what ends that.

        From here on the cache belongs to the event loop that runs, if one does.
        """
        self._loop = _running_loop()
        server = publish, withdraw
        self._servers.append(server)
        for group, snapshot in self._snapshots.items():
            publish(group, snapshot)
        return lambda: self._servers.remove(server)

    def _publish(self, group: str, given: _Given) -> None:
        self._check_thread()
        present = self._snapshots.get(group)
        related = _relate(given)
        found = {}
        for url, of in related.items():
            old = present.of(url) if present is not None else {}
            # The same object for the same content, so that nothing looks changed.
            found[url] = {name: old[name] if old.get(name) == new else new for name, new in of.items()}
        self._given[group] = given
        snapshot = self._snapshots[group] = Snapshot(0, found, PUSH_ORDER)
        for publish, _ in tuple(self._servers):
            publish(group, snapshot)

    def _check_thread(self) -> None:
        if self._servers and self._loop is not None and _running_loop() is not self._loop:
            raise RuntimeError(
                "the cache is used from outside its server's event loop, and nothing was changed; "
                "call it by loop.call_soon_threadsafe"
            )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _encode(body: Body) -> bytes | Resource:
    return body if isinstance(body, bytes | Resource) else body.SerializeToString()


def _relate(given: _Given) -> dict[str, dict[str, Resource]]:
    """Make resources of bytes, with what they need and follow.

    Raises:
        ValueError: If a cluster, an assignment, a route or a listener is not such a message, or if there are
            too many clusters.
    """
    members = {name: _members(name, body) for name, body in given.get(CLUSTER, {}).items()}
    if len(members) > MAX_NAMES:
        text = "nodes ask for the endpoints of all in one message"
        raise ValueError(f"{len(members)} clusters, at most {MAX_NAMES} are allowed: {text}")
    leaders = {assignment: cluster for cluster, assignment in members.items()}

    def needed(clusters: Iterable[str]) -> frozenset[Ref]:
        named = frozenset(clusters)
        assignments = {(ENDPOINT, members.get(cluster, cluster)) for cluster in named}
        return frozenset({(CLUSTER, cluster) for cluster in named} | assignments)

    def made(url: str, name: str, body: bytes | Resource) -> Resource:
        if isinstance(body, Resource):
            return body
        version = Version(0, content_hash((body,)))
        if url == ENDPOINT:
            empty = not any(
                group.lb_endpoints for group in _parse(ClusterLoadAssignment, name, body).endpoints
            )
            leader = leaders.get(name)
            return Resource(name, body, version, follows=(CLUSTER, leader) if leader else None, hollow=empty)
        if url == ROUTE:
            return Resource(name, body, version, needs=needed(_named(_parse(RouteConfiguration, name, body))))
        if url == LISTENER:
            return Resource(name, body, version, needs=needed(_led(name, body)))
        return Resource(name, body, version)

    return {url: {name: made(url, name, body) for name, body in of.items()} for url, of in given.items()}


def _parse(kind: type[_M], name: str, body: bytes) -> _M:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise ValueError(f"{name!r} is not a {kind.DESCRIPTOR.name}") from error


def _members(name: str, body: bytes | Resource) -> str:
    """Return the name of a cluster's assignment."""
    cluster = _parse(Cluster, name, body.body if isinstance(body, Resource) else body)
    return next(_unknown(cluster.eds_cluster_config, _SERVICE_NAME), name.encode()).decode()


def _named(configuration: RouteConfiguration) -> Iterator[str]:
    """Yield the clusters that routes name and that may get requests."""
    for host in configuration.virtual_hosts:
        for route in host.routes:
            if route.route.cluster:
                yield route.route.cluster
            for weighted in route.route.weighted_clusters.clusters:
                if weighted.weight.value or not weighted.HasField("weight"):
                    yield weighted.name


def _led(name: str, body: bytes) -> Iterator[str]:
    """Yield the clusters that a listener leads to by itself: by routes of its own, or at once."""
    listener = _parse(Listener, name, body)
    configs = [listener.api_listener.api_listener]
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        configs += [each.typed_config for each in chain.filters]
    for config in configs:
        kind = config.type_url.rpartition("/")[2]
        if kind == _TCP_PROXY:
            yield from filter(None, [_parse(TcpProxy, name, config.value).cluster])
        elif kind == _MANAGER:
            manager = _parse(HttpConnectionManager, name, config.value)
            for each in _unknown(manager, _ROUTE_CONFIG):
                yield from _named(_parse(RouteConfiguration, name, each))


def _unknown(message: ProtobufMessage, number: int) -> Iterator[bytes]:
    """Yield what a message has in a field that our own protobufs leave out."""
    for field in UnknownFieldSet(message):  # type: ignore[attr-defined]  # stubs lack __iter__
        if field.field_number == number and field.data:
            yield bytes(field.data)
