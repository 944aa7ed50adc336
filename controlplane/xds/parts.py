"""Resources that several owners share: what has to wait for one of them does not hold back the others.

A route configuration is one resource to Envoy, and has the routes of every service on its hosts. Such a
resource tells its parts, so that a client may have the newest part of each owner but those that must wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from controlplane.xds.type_urls import Ref


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
