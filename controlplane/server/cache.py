"""Anyone's resources, per group of nodes: what an embedding program sets is what its proxies get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from controlplane.server.references import read
from controlplane.xds import sets
from controlplane.xds.memory import release
from controlplane.xds.messages import MAX_NAMES, Node, ProtocolError, check_type_url
from controlplane.xds.snapshot import Ref, Resource, Snapshot, content_hash
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, PUSH_ORDER
from controlplane.xds.version import Version


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


class Cache:
    """Resources by group of nodes, type URL and name.

    A group without resources of its own is unknown: its nodes are held without an answer. Every change is
    one new snapshot, and only what differs goes out. How resources refer to one another is read from them: a
    route waits for its clusters, which leave after it; endpoints are sent again after their cluster. A
    `Resource` is taken as it is, for whoever knows better. Versions are hashes of content.

    Use it from the event loop of its server only; other threads go by ``loop.call_soon_threadsafe``.
    """

    def __init__(self, group_of: Callable[[Node], str | None] = lambda node: node.id) -> None:
        """Make an empty cache; ``group_of`` names the group of a node, or None: it is held unanswered."""
        self.group_of = group_of
        self._given: dict[str, _Given] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._servers: list[tuple[Publish, Withdraw]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def replace(self, group: str, resources: Resources) -> None:
        """Set all resources of a group at once: type URL to name to message, its bytes, or a `Resource`.

        Raises:
            ValueError: If a resource is not what its type and name say; nothing was changed.
        """
        present: dict[str, dict[str, bytes | Resource]] = {url: {} for url in self._given.get(group, {})}
        given = {
            url: {name: _encode(url, name, body) for name, body in of.items()}
            for url, of in resources.items()
        }
        self._publish(group, present | given)

    def set(self, group: str, type_url: str, name: str, body: Body) -> None:
        """Set one resource; the others stay. Raises ValueError like `replace`."""
        given = self._given.get(group, {})
        self._publish(
            group, {**given, type_url: {**given.get(type_url, {}), name: _encode(type_url, name, body)}}
        )

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
        sets.forget(group)
        release()

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


def _encode(type_url: str, name: str, body: Body) -> bytes | Resource:
    """Return what is kept of a resource.

    Raises:
        ValueError: If it cannot be a resource of that type and name.
    """
    try:
        check_type_url(type_url)
    except ProtocolError as error:
        raise ValueError(error.text) from error
    if not name:
        raise ValueError("a resource has no name")
    if isinstance(body, Resource):
        if body.name != name:
            raise ValueError(f"{name!r} is a resource of the name {body.name!r}")
        return body
    if isinstance(body, bytes):
        return body
    if not hasattr(body, "SerializeToString"):
        raise ValueError(f"{name!r} is neither a message, nor bytes, nor a Resource: {type(body).__name__}")
    kind, descriptor = type_url.rpartition("/")[2], getattr(body, "DESCRIPTOR", None)
    if descriptor is not None and not f".{descriptor.full_name}".endswith(f".{kind}"):
        raise ValueError(f"{name!r} is not a {kind.rpartition('.')[2]}: {descriptor.name}")
    return bytes(body.SerializeToString())


def _relate(given: _Given) -> dict[str, dict[str, Resource]]:
    """Make resources of bytes, with what they need and follow.

    Raises:
        ValueError: If one is not a message of its type, or has another name, or there are too many clusters.
    """
    clusters = given.get(CLUSTER, {})
    if len(clusters) > MAX_NAMES:
        text = "nodes ask for the endpoints of all in one message"
        raise ValueError(f"{len(clusters)} clusters, at most {MAX_NAMES} are allowed: {text}")
    said = {
        url: {
            name: read(url, name, _body(body))
            for name, body in of.items()
            if url == CLUSTER or isinstance(body, bytes)
        }
        for url, of in given.items()
    }
    members = {name: each.assignment for name, each in said.get(CLUSTER, {}).items() if each.assignment}
    leaders = {assignment: cluster for cluster, assignment in members.items()}

    def needed(clusters: Iterable[str]) -> frozenset[Ref]:
        named = frozenset(clusters)
        # Of others nobody asks for endpoints: who waited for them would wait for ever.
        assignments = {(ENDPOINT, members[cluster]) for cluster in named if cluster in members}
        return frozenset({(CLUSTER, cluster) for cluster in named} | assignments)

    def made(url: str, name: str, body: bytes | Resource) -> Resource:
        if isinstance(body, Resource):
            return body
        version, each = Version(0, content_hash((body,))), said[url][name]
        leader = leaders.get(name) if url == ENDPOINT else None
        follows = (CLUSTER, leader) if leader is not None else None
        # One of an aggregate may have no endpoints: the next serves. All are acknowledged once they are warm.
        needs = needed(each.clusters) if url != CLUSTER else frozenset((CLUSTER, it) for it in each.clusters)
        return Resource(name, body, version, needs, follows, each.hollow)

    return {url: {name: made(url, name, body) for name, body in of.items()} for url, of in given.items()}


def _body(body: bytes | Resource) -> bytes:
    return body.body if isinstance(body, Resource) else body
