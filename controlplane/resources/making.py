"""Making resources: what has the content of a former one is that one, with its version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from controlplane.xds.parts import Parts
from controlplane.xds.snapshot import Resource, Snapshot, content_hash
from controlplane.xds.type_urls import Ref
from controlplane.xds.version import Version

Table = Mapping[str, Resource]


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes resources of one revision, beside those of a former snapshot."""

    revision: int
    former: Snapshot

    def __call__(
        self,
        type_url: str,
        name: str,
        message: Message,
        needs: frozenset[Ref] = frozenset(),
        follows: Ref | None = None,
        hollow: bool = False,
        parts: Parts | None = None,
    ) -> Resource:
        """Return a resource with this message, and with what it needs and follows."""
        body = message.SerializeToString(deterministic=True)
        version = Version(self.revision, body_hash(body))
        return self.kept(type_url, Resource(name, body, version, needs, follows, hollow, parts))

    def kept(self, type_url: str, made: Resource) -> Resource:
        """Return the former resource if this one is the same, else this one with its version."""
        former = self.former.of(type_url).get(made.name)
        if former is None or former.version.hash != made.version.hash:
            if made.version.revision == self.revision:
                return made
            return replace(made, version=Version(self.revision, made.version.hash))
        if (former.needs, former.follows, former.hollow) == (made.needs, made.follows, made.hollow):
            return former
        return replace(made, version=former.version)

    def table(self, type_url: str, table: Table) -> Table:
        """Return the former table itself if nothing in it changed: who compares snapshots sees it at once."""
        former = self.former.of(type_url)
        return former if table == former else table


def body_hash(body: bytes) -> str:
    """Return the hash in the version of a resource."""
    return content_hash((body,))
