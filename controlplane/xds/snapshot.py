"""What a group of proxies should have: resources by type and name, as bytes.

Type URLs are opaque strings here: the protocol treats every type alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple
from weakref import ReferenceType, ref

from controlplane.xds.parts import Parts
from controlplane.xds.type_urls import Ref
from controlplane.xds.version import Version

Followers = Mapping[Ref, tuple[Ref, ...]]


@dataclass(frozen=True, slots=True)
class Resource:
    """One xDS resource, encoded once.

    Attributes:
        name: The resource's name, unique within its type.
        body: The serialized message, the ``value`` of its ``Any``.
        version: Revision of the newest input and hash of ``body``.
        needs: Resources that a wildcard client must have ACKed before this one may be sent to it, and
            that stay with the client for as long as it has this one (a route needs its clusters).
        follows: A resource after whose change this one is sent again, changed or not (endpoints follow
            their cluster: Envoy warms a changed cluster until its endpoints arrive once more).
        hollow: True if having it does not satisfy a need (an assignment without endpoints).
        parts: What it is made of, if parts of it may go to a client without the others; no part of the value.
        wire: Encoded forms, filled by ``xds.wire``; no part of the value.
    """

    name: str
    body: bytes
    version: Version
    needs: frozenset[Ref] = frozenset()
    follows: Ref | None = None
    hollow: bool = False
    parts: Parts | None = field(default=None, repr=False, compare=False)
    wire: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True)
class Snapshot:
    """The target of a group of nodes: complete, immutable, ordered by ``revision``.

    ``revision`` is the store revision that the snapshot was rendered from: at least that of each of its
    resources, and growing with the store even where no resource changes, so that every replica reaches it.
    ``order`` lists the type URLs in push order (make before break): clusters, endpoints, scopes, routes,
    listeners. A type that is in neither ``order`` nor ``resources`` is not served: requests for it get no
    answer. ``began`` is the first revision of the store: older ones were another store's. A ``revision`` of 0
    is none: what is served has no order, so no client is ahead of it.
    """

    revision: int
    resources: Mapping[str, Mapping[str, Resource]]
    order: tuple[str, ...] = ()
    began: int = 0

    def of(self, type_url: str) -> Mapping[str, Resource]:
        """Return the resources of one type by name; empty if there is none."""
        return self.resources.get(type_url, {})

    def serves(self, type_url: str) -> bool:
        """Return whether requests for this type are answered."""
        return type_url in self.resources or type_url in self.order

    def earlier(self, version: Version) -> bool:
        """Return whether a version is of a store before this one; a revision of 0 is of none that we know."""
        return 0 < version.revision < self.began

    def behind(self, revision: int) -> bool:
        """Return whether a revision is later than this one; without a revision there is no order."""
        return 0 < self.revision < revision

    def strange(self, version: Version) -> bool:
        """Return whether a version is of another store, or of this one before an older copy was restored."""
        return self.earlier(version) or self.behind(version.revision)

    @cached_property
    def relations(self) -> Relations:
        """How the resources hang together."""
        return _relate(self)

    @cached_property
    def relations_by_type(self) -> dict[str, Relations]:
        """What of that is known of single types; from one snapshot to the next most of it stays."""
        return {}

    @cached_property
    def differences(self) -> dict[int, tuple[ReferenceType[Snapshot], Difference]]:
        """What differs from earlier ones, by their identity."""
        return {}

    @property
    def leading(self) -> frozenset[str]:
        """The types of resources that others follow."""
        return self.relations.leading


class Change(NamedTuple):
    """A resource of some type, as it is now."""

    type_url: str
    resource: Resource


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two snapshots.

    Attributes:
        names: Of each type, what was added, removed or changed, in order.
        moved: True if other types are served, or in another order.
        single: The only change, if it is one resource that was there and is there.
    """

    names: Mapping[str, tuple[str, ...]]
    moved: bool
    single: Change | None = None


@dataclass(frozen=True, slots=True)
class Relations:
    """How the resources of a snapshot, or those of one type with others, hang together.

    Attributes:
        followers: What is sent again after a resource changed.
        following: Pairs of types: the first follows the second.
        needing: Pairs of types: the first needs the second.
        leading: The types of resources that others follow.
    """

    followers: Followers
    following: frozenset[tuple[str, str]]
    needing: frozenset[tuple[str, str]]
    leading: frozenset[str]

    def trailing(self, type_url: str, names: Iterable[str]) -> dict[str, list[str]]:
        """Return what is sent again after these changed, by type."""
        found: dict[str, list[str]] = {}
        for name in names:
            for other, follower in self.followers.get((type_url, name), ()):
                found.setdefault(other, []).append(follower)
        return found


_NONE: Final = None, None, Difference({}, moved=False)
_latest: tuple[Snapshot | None, Snapshot | None, Difference] = _NONE


def difference(old: Snapshot, new: Snapshot) -> Difference:
    """Return what differs between two snapshots; the later one remembers it, so that streams share it."""
    global _latest  # noqa: PLW0603 - thousands of streams ask for the same one in a row
    if _latest[0] is not old or _latest[1] is not new:
        known = new.differences.get(id(old))
        if known is None or known[0]() is not old:  # another one may have come to its place
            known = new.differences[id(old)] = ref(old), _diff(old, new)
        _latest = old, new, known[1]
    return _latest[2]


def forget() -> None:
    """Drop what was compared last."""
    global _latest  # noqa: PLW0603 - the same
    _latest = _NONE


def _diff(old: Snapshot, new: Snapshot) -> Difference:
    moved = old.order != new.order or old.resources.keys() != new.resources.keys()
    names = _changed(old, new)
    _inherit(old, new, names)
    return Difference(names, moved, None if moved else _single(names, old, new))


def _inherit(old: Snapshot, new: Snapshot, names: Mapping[str, tuple[str, ...]]) -> None:
    """Keep what is known of tables that refer to others as before: most changes are to what a resource is."""
    known = new.relations_by_type
    for type_url, relations in old.relations_by_type.items():
        before, after = old.of(type_url), new.of(type_url)
        if type_url not in known and all(
            (one := before.get(name)) is not None
            and (other := after.get(name)) is not None
            and one.follows == other.follows
            and {url for url, _ in one.needs} == {url for url, _ in other.needs}
            for name in names.get(type_url, ())
        ):
            known[type_url] = relations


def _single(names: Mapping[str, tuple[str, ...]], old: Snapshot, new: Snapshot) -> Change | None:
    refs = [(type_url, name) for type_url, changed in names.items() for name in changed]
    if len(refs) != 1:
        return None
    ((type_url, name),) = refs
    resource = new.of(type_url).get(name)
    return None if resource is None or name not in old.of(type_url) else Change(type_url, resource)


def _changed(old: Snapshot, new: Snapshot) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for type_url in dict.fromkeys((*old.resources, *new.resources)):
        before, after = old.of(type_url), new.of(type_url)
        if before is after:
            continue
        names = [n for n, r in after.items() if (was := before.get(n)) is not r and was != r]
        names += [name for name in before if name not in after]
        if names:
            # What needs others of its type goes after them: a client takes the new one at once.
            later = {name for name in names if _needs(after.get(name), type_url)}
            found[type_url] = tuple(sorted(names, key=lambda name: (name in later, name)))
    return found


def _needs(resource: Resource | None, type_url: str) -> bool:
    return resource is not None and any(url == type_url for url, _ in resource.needs)


def _relate(snapshot: Snapshot) -> Relations:
    known = snapshot.relations_by_type
    for type_url, table in snapshot.resources.items():
        if type_url not in known:
            known[type_url] = _relate_type(type_url, table)
    there = [known[type_url] for type_url in snapshot.resources]
    return Relations(
        _joined([relations.followers for relations in there if relations.followers]),
        frozenset[tuple[str, str]]().union(*(relations.following for relations in there)),
        frozenset[tuple[str, str]]().union(*(relations.needing for relations in there)),
        frozenset[str]().union(*(relations.leading for relations in there)),
    )


def _joined(tables: list[Followers]) -> Followers:
    if len(tables) == 1:
        return tables[0]
    found: dict[Ref, tuple[Ref, ...]] = {}
    for table in tables:
        for leader, refs in table.items():
            found[leader] = found.get(leader, ()) + refs
    return found


def _relate_type(type_url: str, table: Mapping[str, Resource]) -> Relations:
    found: dict[Ref, list[Ref]] = {}
    needed: set[str] = set()
    for resource in table.values():
        if resource.follows is not None:
            found.setdefault(resource.follows, []).append((type_url, resource.name))
        needed.update(url for url, _ in resource.needs)
    followers = {leader: tuple(refs) for leader, refs in found.items()}
    leading = frozenset(leader for leader, _ in found)
    following = frozenset((type_url, leader) for leader in leading)
    return Relations(followers, following, frozenset((type_url, url) for url in needed), leading)


def content_hash(parts: Iterable[bytes]) -> str:
    """Return 16 hex digits that depend on the parts and their order only."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
