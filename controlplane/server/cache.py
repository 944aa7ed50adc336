"""Anyone's resources, per group of nodes: what an embedding program sets is what its proxies get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from controlplane.server.callbacks import at_once
from controlplane.server.related import Group
from controlplane.xds import sets
from controlplane.xds.memory import release
from controlplane.xds.messages import Node, ProtocolError, check_type_url
from controlplane.xds.snapshot import Resource, Snapshot


class Message(Protocol):
    """Any protobuf library's message."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the encoded message."""
        ...


Body = bytes | Message | Resource
Resources = Mapping[str, Mapping[str, Body]]
Publish = Callable[[str, Snapshot], None]
Withdraw = Callable[[str], None]


class Cache:
    """Resources by group of nodes, type URL and name.

    A group without resources of its own is unknown: its nodes are held without an answer. What changes in one
    turn of the event loop is one new snapshot, and only what differs goes out. How resources refer to one
    another is read from them: a route waits for its clusters, which leave after it; endpoints are sent again
    after their cluster. A `Resource` is taken as it is, for whoever knows better. Versions are hashes.

    Use it from the event loop of its server only; other threads go by ``loop.call_soon_threadsafe``.
    """

    def __init__(self, group_of: Callable[[Node], str | None] = lambda node: node.id) -> None:
        """Make an empty cache; ``group_of`` names the group of a node, or None: it is held unanswered.

        Raises:
            TypeError: If ``group_of`` is a coroutine function.
        """
        at_once(group_of, "group_of")
        self.group_of = group_of
        self._groups: dict[str, Group] = {}
        self._changed: dict[str, None] = {}  # groups to be published in the next turn of the loop
        self._servers: list[tuple[Publish, Withdraw]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def replace(self, group: str, resources: Resources) -> None:
        """Set all resources of a group at once: type URL to name to message, its bytes, or a `Resource`.

        Raises:
            ValueError: If a resource is not what its type and name say; nothing was changed.
            TypeError: If the group is not a str.
        """
        self._check_thread()
        given = {
            url: {name: _encode(url, name, body) for name, body in of.items()}
            for url, of in resources.items()
        }
        self._change(group, lambda of: of.replace(given))

    def set(self, group: str, type_url: str, name: str, body: Body) -> None:
        """Set one resource; the others stay. Raises ValueError like `replace`."""
        self._check_thread()
        given = _encode(type_url, name, body)
        self._change(group, lambda of: of.set(type_url, name, given))

    def remove(self, group: str, type_url: str, name: str) -> None:
        """Take one resource away, if it is there; a group that is not known stays so."""
        self._check_thread()
        if group not in self._groups:
            return  # known, it would be empty, and its nodes lose all that they have
        self._change(group, lambda of: of.remove(type_url, name))

    def clear(self, group: str) -> None:
        """Take everything away from the nodes of a group; they stay known."""
        self.replace(group, {})

    def forget(self, group: str) -> None:
        """Make a group unknown again, once its nodes are gone: nothing of it is kept.

        Nodes that are still there keep what they have.
        """
        self._check_thread()
        self._changed.pop(group, None)
        if self._groups.pop(group, None) is not None:
            for _, withdraw in tuple(self._servers):
                withdraw(group)
        sets.forget(group)
        release()

    def snapshot(self, group: str) -> Snapshot | None:
        """Return what a group has, or None if nothing was ever set."""
        known = self._groups.get(group)
        return known.snapshot() if known is not None else None

    def attach(self, publish: Publish, withdraw: Withdraw) -> Callable[[], None]:
        """Hand all snapshots to a server, now and at each change; return what ends that.

        From here on the cache belongs to the event loop that runs, if one does.
        """
        self._loop = _running_loop()
        server = publish, withdraw
        self._servers.append(server)
        for group, known in self._groups.items():
            publish(group, known.snapshot())
        if self._loop is not None and self._changed:  # before it came: by another loop, which may be over
            self._loop.call_soon(self._publish)
        return lambda: self._servers.remove(server)

    def _change(self, group: str, change: Callable[[Group], None]) -> None:
        """Change a group, and have it published after this turn of the loop, with what else changes."""
        if not isinstance(group, str):
            raise TypeError(f"the group is {group!r}; it must be a str")
        known = self._groups.get(group) or Group()
        change(known)
        self._groups[group] = known
        if not self._servers:
            return
        waiting, self._changed[group] = bool(self._changed), None
        if self._loop is None:
            self._publish()
        elif not waiting:
            self._loop.call_soon(self._publish)

    def _publish(self) -> None:
        """Hand what changed to the servers; one that raises keeps no other group from it."""
        while self._changed:
            group = next(iter(self._changed))
            del self._changed[group]
            snapshot = self._groups[group].snapshot()
            try:
                for publish, _ in tuple(self._servers):
                    publish(group, snapshot)
            except BaseException:
                if self._loop is not None and self._changed:
                    self._loop.call_soon(self._publish)
                raise

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
