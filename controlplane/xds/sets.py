"""Sets that were sent as a whole: a state-of-the-world client comes back with the hash of one."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.xds.snapshot import Resource

_KNOWN = 64  # a change of what a thousand proxies have is a few sets, which most of them are sent
_sets: dict[tuple[str, str], Mapping[str, Resource]] = {}


def remember(type_url: str, content: str, resources: Mapping[str, Resource]) -> None:
    """Keep a set that is sent, by its hash; what was sent longest ago is dropped first."""
    _sets.pop((type_url, content), None)
    if len(_sets) >= _KNOWN:
        del _sets[next(iter(_sets))]
    _sets[type_url, content] = resources


def recall(type_url: str, content: str) -> Mapping[str, Resource] | None:
    """Return the set of this hash that was sent not long ago, to whomever."""
    return _sets.get((type_url, content))
