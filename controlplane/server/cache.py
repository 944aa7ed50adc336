"""Anyone's resources, per group of nodes: what an embedding program sets is what its proxies get."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.endpoint_pb2 import ClusterLoadAssignment
from controlplane._pb.route_pb2 import RouteConfiguration
from controlplane.xds.messages import Node
from controlplane.xds.snapshot import Ref, Resource, Snapshot, content_hash
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, PUSH_ORDER, ROUTE
from controlplane.xds.version import Version

_SERVICE_NAME = 2  # field number in EdsClusterConfig


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
_M = TypeVar("_M", Cluster, ClusterLoadAssignment, RouteConfiguration)


class Cache:
    """Resources by group of nodes, type URL and name.

    A group without resources of its own is unknown: its nodes are held without an answer. Every change is
    one new snapshot, and only what differs goes out. How resources refer to one another is read from them: a
    route waits for its clusters, which leave after it; endpoints are sent again after their cluster. A
    `Resource` is taken as it is, for whoever knows better. Versions are hashes of content.

    Use it from the event loop of its server only.
    """

    def __init__(self, group_of: Callable[[Node], str] = lambda node: node.id) -> None:
        """Make an empty cache; ``group_of`` names the group of a node, by default its id."""
        self.group_of = group_of
        self._given: dict[str, _Given] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._servers: list[tuple[Publish, Withdraw]] = []

    def replace(self, group: str, resources: Resources) -> None:
        """Set all resources of a group at once: type URL to name to message, its bytes, or a `Resource`.

        Raises:
            ValueError: If a cluster, an assignment or a route is not such a message.
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
        self._given.pop(group, None)
        if self._snapshots.pop(group, None) is not None:
            for _, withdraw in tuple(self._servers):
                withdraw(group)

    def snapshot(self, group: str) -> Snapshot | None:
        """Return what a group has, or None if nothing was ever set."""
        return self._snapshots.get(group)

    def attach(self, publish: Publish, withdraw: Withdraw) -> Callable[[], None]:
        """Hand all snapshots to a server, now and at each change; return what ends that."""
        server = publish, withdraw
        self._servers.append(server)
        for group, snapshot in self._snapshots.items():
            publish(group, snapshot)
        return lambda: self._servers.remove(server)

    def _publish(self, group: str, given: _Given) -> None:
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


def _encode(body: Body) -> bytes | Resource:
    return body if isinstance(body, bytes | Resource) else body.SerializeToString()


def _relate(given: _Given) -> dict[str, dict[str, Resource]]:
    """Make resources of bytes, with what they need and follow.

    Raises:
        ValueError: If a cluster, an assignment or a route is not such a message.
    """
    members = {name: _members(name, body) for name, body in given.get(CLUSTER, {}).items()}
    leaders = {assignment: cluster for cluster, assignment in members.items()}

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
            named = set(_named(_parse(RouteConfiguration, name, body)))
            needs: set[Ref] = {(CLUSTER, cluster) for cluster in named}
            needs |= {(ENDPOINT, members.get(cluster, cluster)) for cluster in named}
            return Resource(name, body, version, needs=frozenset(needs))
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
    for field in UnknownFieldSet(cluster.eds_cluster_config):  # type: ignore[attr-defined]  # stubs lack __iter__
        if field.field_number == _SERVICE_NAME and field.data:
            return bytes(field.data).decode()
    return name


def _named(configuration: RouteConfiguration) -> Iterator[str]:
    """Yield the clusters that routes name."""
    for host in configuration.virtual_hosts:
        for route in host.routes:
            if route.route.cluster:
                yield route.route.cluster
            for weighted in route.route.weighted_clusters.clusters:
                yield weighted.name
