"""What responses had: a state-of-the-world client comes back with the hash of the last one of each type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from controlplane.xds.memory import weight
from controlplane.xds.snapshot import Resource

_KNOWN = 64  # of each type: a change of what a thousand proxies have is a few sets, the same for most of them
_MOST = 16 << 20  # bytes of each type, and one set more, for what is kept alive; the newest one always is
_ENTRY = 100  # bytes of a name and a resource in a table


class Kept(NamedTuple):
    """A set, whose it is, and what keeping it takes besides what the one before it does."""

    resources: Mapping[str, Resource]
    group: str | None
    bytes: int


_sets: dict[str, dict[str, Kept]] = {}  # by type and hash, oldest first


def remember(
    type_url: str, version: str, resources: Mapping[str, Resource], group: str | None = None
) -> None:
    """Keep what is sent, by the hash in its version; what was not sent for longest is dropped first."""
    known, content = _sets.setdefault(type_url, {}), version.rpartition(".")[2]
    old = known.pop(content, None)
    if old is not None:
        known[content] = old._replace(resources=resources, group=group)
        return
    before = known[next(reversed(known))].resources if known else {}
    new = [resource for name, resource in resources.items() if before.get(name) is not resource]
    known[content] = Kept(resources, group, weight(new) + _ENTRY * len(resources))
    total = sum(kept.bytes for kept in known.values())
    while len(known) > _KNOWN or (total > _MOST and len(known) > 1):
        total -= known.pop(next(iter(known))).bytes


def recall(type_url: str, content: str) -> Mapping[str, Resource] | None:
    """Return what was sent with this hash not long ago, to whomever."""
    kept = _sets.get(type_url, {}).get(content)
    return kept.resources if kept is not None else None


def forget(group: str) -> None:
    """Drop what the nodes of a group were sent."""
    for known in _sets.values():
        for content in [content for content, kept in known.items() if kept.group == group]:
            del known[content]
