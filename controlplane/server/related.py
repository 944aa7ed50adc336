"""The resources of a group, with what they need and follow: a change touches what it changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from controlplane.server.references import NOTHING, References, read
from controlplane.xds.messages import MAX_NAMES
from controlplane.xds.snapshot import Resource, Snapshot, content_hash
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, PUSH_ORDER, Ref
from controlplane.xds.version import Version

Encoded = bytes | Resource
T = TypeVar("T")


class Given(NamedTuple):
    """What was set, and what it refers to; a `Resource` says itself what it needs."""

    encoded: Encoded
    references: References


class Group:
    """Resources by type and name. Each is read once, and made again only if what it needs may differ."""

    __slots__ = ("_given", "_leaders", "_naming", "_snapshot", "_stale")

    def __init__(self) -> None:
        self._given: dict[str, dict[str, Given]] = {}
        self._naming: dict[str, set[Ref]] = {}  # by cluster: what leads to it
        self._leaders: dict[str, set[str]] = {}  # by assignment: the clusters that have it
        self._stale: dict[str, set[str]] = {}  # by type: names to be made for the next snapshot
        self._snapshot = Snapshot(0, {}, PUSH_ORDER)

    def replace(self, resources: Mapping[str, Mapping[str, Encoded]]) -> None:
        """Set everything at once; types that are left out stay, without resources.

        Raises:
            ValueError: If a resource is not what its type and name say, or there are too many clusters.
        """
        given = {
            url: {name: self._read(url, name, encoded) for name, encoded in of.items()}
            for url, of in resources.items()
        }
        _check_size(len(given.get(CLUSTER, ())))
        for url in (*self._given, *given):
            self.serve(url)
            new = given.get(url, {})
            for name in [name for name in self._given[url] if name not in new]:
                self._put(url, name, None)
            for name, each in new.items():
                self._put(url, name, each)

    def set(self, type_url: str, name: str, encoded: Encoded) -> None:
        """Set one resource. Raises ValueError like `replace`."""
        given = self._read(type_url, name, encoded)
        clusters = self._given.get(CLUSTER, {})
        if type_url == CLUSTER and name not in clusters:
            _check_size(len(clusters) + 1)
        self.serve(type_url)
        self._put(type_url, name, given)

    def remove(self, type_url: str, name: str) -> None:
        """Take one resource away, if it is there."""
        self.serve(type_url)
        self._put(type_url, name, None)

    def serve(self, type_url: str) -> None:
        """Have requests for this type answered, also while there is no resource of it."""
        if type_url not in self._given:
            self._given[type_url] = {}
            self._stale[type_url] = set()

    def snapshot(self) -> Snapshot:
        """Return what there is now; tables in which nothing changed are those of the one before."""
        if self._stale:
            stale, self._stale = self._stale, {}
            tables = dict(self._snapshot.resources)
            for url, names in stale.items():
                tables[url] = self._table(url, names)
            self._snapshot = Snapshot(0, tables, PUSH_ORDER)
        return self._snapshot

    def _read(self, type_url: str, name: str, encoded: Encoded) -> Given:
        known = self._given.get(type_url, {}).get(name)
        if known is not None and known.encoded == encoded:
            return known
        if isinstance(encoded, bytes):
            return Given(encoded, read(type_url, name, encoded))
        if type_url != CLUSTER:
            return Given(encoded, NOTHING)
        # Who leads to it has to know whether it has an assignment.
        return Given(encoded, References(assignment=read(type_url, name, encoded.body).assignment))

    def _put(self, url: str, name: str, new: Given | None) -> None:
        """Set or take away one resource, and note what has to be made again."""
        table, own = self._given[url], (url, name)
        old = table.pop(name, None)
        if new is not None:
            table[name] = new
        if new is old:
            return
        was, now = (each.references if each is not None else NOTHING for each in (old, new))
        self._note(url, name)
        _move(self._naming, own, was.clusters, now.clusters)
        if url == CLUSTER and was.assignment != now.assignment:
            _move(self._leaders, name, _of(was.assignment), _of(now.assignment))
            for assignment in {was.assignment, now.assignment} - {None}:
                self._note(ENDPOINT, str(assignment))
            for other, named in self._naming.get(name, ()):
                self._note(other, named)

    def _note(self, url: str, name: str) -> None:
        if url in self._given:
            self._stale.setdefault(url, set()).add(name)

    def _table(self, url: str, names: Iterable[str]) -> Mapping[str, Resource]:
        """Return the resources of a type: the very table of before, if these names are as they were."""
        before = self._snapshot.of(url)
        changes = {}
        for name in names:
            old, given = before.get(name), self._given[url].get(name)
            new = self._made(url, name, given, old) if given is not None else None
            if new != old:
                changes[name] = new
        if not changes and url in self._snapshot.resources:
            return before
        return {name: each for name, each in {**before, **changes}.items() if each is not None}

    def _made(self, url: str, name: str, given: Given, old: Resource | None) -> Resource:
        body, references = given
        if isinstance(body, Resource):
            return body
        version = old.version if old is not None and old.body is body else Version(0, content_hash((body,)))
        leader = min(self._leaders.get(name, ()), default=None) if url == ENDPOINT else None
        follows = (CLUSTER, leader) if leader is not None else None
        needs = frozenset(self._needs(url, references.clusters))
        return Resource(name, body, version, needs, follows, references.hollow)

    def _needs(self, url: str, clusters: Iterable[str]) -> Iterator[Ref]:
        known = self._given.get(CLUSTER, {})
        for cluster in clusters:
            yield CLUSTER, cluster
            # One of an aggregate may have no endpoints: the next serves. Once warm it is acknowledged.
            given = known.get(cluster) if url != CLUSTER else None
            # Of others nobody asks for endpoints: who waited for them would wait for ever.
            if given is not None and given.references.assignment is not None:
                yield ENDPOINT, given.references.assignment


def _check_size(clusters: int) -> None:
    if clusters > MAX_NAMES:
        text = "nodes ask for the endpoints of all in one message"
        raise ValueError(f"{clusters} clusters, at most {MAX_NAMES} are allowed: {text}")


def _of(name: str | None) -> frozenset[str]:
    return frozenset({name}) if name is not None else frozenset()


def _move(index: dict[str, set[T]], member: T, old: frozenset[str], new: frozenset[str]) -> None:
    """Take a member out of some sets of an index and put it into others; empty ones are dropped."""
    for key in old - new:
        index[key].discard(member)
        if not index[key]:
            del index[key]
    for key in new - old:
        index.setdefault(key, set()).add(member)
