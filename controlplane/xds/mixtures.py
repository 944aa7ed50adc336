"""Resources made of the newest part of some owners and an older one of others, for whoever must have that."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from controlplane.xds.memory import IdentityCache
from controlplane.xds.parts import Part, Parts
from controlplane.xds.snapshot import Resource, content_hash
from controlplane.xds.version import Version

_KNOWN = 1024  # mixtures that are recalled by their content


def by_owner(resources: Iterable[Resource | None]) -> dict[str, Part]:
    """Return each owner's part in some resources."""
    known = (each.parts.of for each in resources if each is not None and each.parts is not None)
    return {owner: part for parts in known for owner, part in parts.items()}


def robs(mixed: Resource, target: Resource, base: Resource | None, finders: Iterable[str]) -> bool:
    """Return whether a mixture lacks what these find in the version before, and would find in the target."""
    parts = [each.parts for each in (base, target, mixed) if each is not None and each.parts is not None]
    if len(parts) < 3:
        return False
    whats = ([{what for _, what in each.found(finder)} for each in parts] for finder in finders)
    return any(had & wanted - has for had, wanted, has in whats)


_mixtures: IdentityCache[Resource | None] = IdentityCache(256)
_made: dict[tuple[str, str], Resource] = {}


def mixture(target: Resource, parts: Iterable[Part]) -> Resource | None:
    """Return the target made of other parts, or None if these do not go together; remembered.

    Streams that lack the same parts share one mixture, and so its bytes.
    """
    ordered = tuple(sorted(parts, key=lambda part: part.owner))
    return _mixtures.get((target, *ordered), partial(_mixed, target, ordered))


def _mixed(target: Resource, parts: tuple[Part, ...]) -> Resource | None:
    assert target.parts is not None
    try:
        body = target.parts.join(parts)
    except ValueError:
        return None
    of_parts = {ref for part in target.parts.of.values() for ref in part.needs}
    needs = (target.needs - of_parts).union(*(part.needs for part in parts))
    version = Version(target.version.revision, content_hash((body,)))
    known = Parts({part.owner: part for part in parts}, target.parts.join)
    made = Resource(target.name, body, version, needs, target.follows, target.hollow, known)
    if len(_made) >= _KNOWN:
        del _made[next(iter(_made))]
    _made[target.name, version.hash] = made
    return made


def recall(name: str, version: Version) -> Resource | None:
    """Return a mixture that was made here not long ago, by its version: a client brings it back."""
    return _made.get((name, version.hash))


def alike(one: Resource, other: Resource, owner: str) -> bool:
    """Return whether an owner's part is the same in both."""
    if one.parts is None or other.parts is None:
        return one.version == other.version
    mine, theirs = one.parts.of.get(owner), other.parts.of.get(owner)
    if mine is None or theirs is None or mine == theirs:
        return mine == theirs
    # Made of something else, it may be the same all the same: a service's endpoints are not in its routes.
    found = [mixture(other, (part,)) for part in (mine, theirs)]
    return None not in found and found[0] == found[1]
