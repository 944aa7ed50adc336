"""What responses had: a state-of-the-world client comes back with the hash of the last one of each type."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.xds.snapshot import Resource

_KNOWN = 64  # of each type: a change of what a thousand proxies have is a few sets, the same for most of them
_sets: dict[str, dict[str, Mapping[str, Resource]]] = {}


def remember(type_url: str, version: str, resources: Mapping[str, Resource]) -> None:
    """Keep what is sent, by the hash in its version; what was not sent for longest is dropped first."""
    known, content = _sets.setdefault(type_url, {}), version.rpartition(".")[2]
    if known.pop(content, None) is None and len(known) >= _KNOWN:
        del known[next(iter(known))]
    known[content] = resources


def recall(type_url: str, content: str) -> Mapping[str, Resource] | None:
    """Return what was sent with this hash not long ago, to whomever."""
    return _sets.get(type_url, {}).get(content)
