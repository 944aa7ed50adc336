"""Resources that several owners share: what has to wait for one of them does not hold back the others.

A route configuration is one resource to Envoy, and has the routes of every service on its hosts. Such a
resource tells its parts, so that a client may have the newest part of each owner but those that must wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

from controlplane.xds.memory import IdentityCache
from controlplane.xds.snapshot import Ref, Resource, content_hash
from controlplane.xds.version import Version

_KNOWN = 1024  # mixtures that are recalled by their content


@dataclass(frozen=True, slots=True)
class Part:
    """One owner's part of a resource.

    Attributes:
        owner: Whose it is.
        needs: What this part needs, of the needs of the whole.
        source: What it is made from, for whoever joins parts; equal ones make equal parts.
        least: The same owner's part in a form that needs less, or None.
        offers: What is found in this part by resources that need the whole: their names, and what it is.
    """

    owner: str
    needs: frozenset[Ref]
    source: Any
    least: Part | None = None
    offers: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, eq=False)
class Parts:
    """What a resource is made of.

    ``join`` returns the body of a resource of these parts, which are in order of their owners; it raises
    ValueError if they do not go together.
    """

    of: Mapping[str, Part]
    join: Callable[[tuple[Part, ...]], bytes]

    def found(self, finder: str) -> frozenset[tuple[str, str]]:
        """Return what a resource of this name finds here: whose part it is in, and what it is."""
        return self._found.get(finder, frozenset())

    @property
    def offering(self) -> bool:
        """True if anything is found here by anyone."""
        return bool(self._found)

    @cached_property
    def _found(self) -> Mapping[str, frozenset[tuple[str, str]]]:
        found: dict[str, set[tuple[str, str]]] = {}
        for part in self.of.values():
            for finder, what in part.offers:
                found.setdefault(finder, set()).add((part.owner, what))
        return {finder: frozenset(each) for finder, each in found.items()}


class Doubt(NamedTuple):
    """A part of a version that was refused, and whether that must be because of this part."""

    part: Part
    proven: bool


def doubts(refused: Parts, had: Mapping[str, Part]) -> dict[str, Doubt]:
    """Return what a refusal may be about: parts that differ from what the client has."""
    found = [part for part in refused.of.values() if part != had.get(part.owner)]
    return {part.owner: Doubt(part, proven=len(found) == 1) for part in found}


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
