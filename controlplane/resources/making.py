"""Making resources: what has the content of a former one is that one, with its version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
        digest = body_hash(body)
        former = self.former.of(type_url).get(name)
        if former is None or former.version.hash != digest:
            return Resource(name, body, Version(self.revision, digest), needs, follows, hollow, parts)
        if (former.needs, former.follows, former.hollow) == (needs, follows, hollow):
            return former
        return Resource(name, body, former.version, needs, follows, hollow, parts)

    def table(self, type_url: str, table: Table) -> Table:
        """Return the former table itself if nothing in it changed: who compares snapshots sees it at once."""
        former = self.former.of(type_url)
        return former if table == former else table


def body_hash(body: bytes) -> str:
    """Return the hash in the version of a resource."""
    return content_hash((body,))
