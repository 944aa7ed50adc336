"""What a client brought from an earlier stream, of one type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from controlplane.xds.parts import Part
from controlplane.xds.sharing import NOBODY
from controlplane.xds.snapshot import Snapshot
from controlplane.xds.version import Version


@dataclass(slots=True, eq=False)
class Past:
    """What it brought and was not replaced yet.

    Attributes:
        claims: The versions that it told, until they were compared with ours.
        compared: The snapshot that they were compared with last.
        foreign: Names in what it holds that are not ours: their needs are unknown.
        brought: What it came back with besides, with its version: as long as the target has no such resource,
            or one that needs nothing, it does not count as there.
        recalled: The parts of what it brought with unknown content, if that is what it accepted last.
        whole: Version of a set that it brought and that is not ours, until it accepted ours.
        returning: It brought resources, and was sent nothing of this type yet.
        listed: The names that it came back with, of a type of which each answer has to list all.
    """

    claims: Mapping[str, str] | None = None
    compared: Snapshot | None = None
    foreign: set[str] = field(default_factory=set)
    brought: dict[str, Version] = field(default_factory=dict)
    recalled: dict[str, Mapping[str, Part]] = field(default_factory=dict)
    whole: Version | None = None
    returning: bool = False
    listed: frozenset[str] = NOBODY

    def forget(self, names: Iterable[str]) -> None:
        """Drop what is known of resources that the client no longer has."""
        for name in names:
            self.foreign.discard(name)
            self.recalled.pop(name, None)
            self.brought.pop(name, None)

    def replace(self, updates: Iterable[str], removed: Iterable[str]) -> None:
        """The client accepted ours, or that these went."""
        self.whole = None
        for name in updates:
            self.foreign.discard(name)
            self.brought.pop(name, None)
        self.foreign.difference_update(removed)

    @property
    def over(self) -> bool:
        """True if all of it was replaced."""
        return not (self.claims or self.foreign or self.brought or self.whole or self.returning)

    def texts(self) -> tuple[str, ...]:
        """Return all that the client said."""
        claims = self.claims or {}
        return *claims, *claims.values(), *self.foreign, *self.brought, *self.listed


NO_PAST: Final = Past()
"""Of whoever came with nothing, as most are: nothing is added to it."""
