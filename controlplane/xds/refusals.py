"""What a client refused of one type, and what is tried instead."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from controlplane.xds.culprits import blamed
from controlplane.xds.mixtures import by_owner, mixture, robs
from controlplane.xds.parts import Doubt, Part, doubts
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.view import Nack


class Has(NamedTuple):
    """What a client has of a resource: it accepted that, will have that, and has these parts of it."""

    held: Resource | None
    latest: Resource | None
    parts: Mapping[str, Part]


@dataclass(slots=True, eq=False)
class Refusals:
    """What was refused and still counts.

    Attributes:
        error: The last refusal.
        refused: The refusal of a version, until the client accepted another one or the target went back.
        spoiled: Parts that a refusal may be about, by resource and owner, while the target has them.
        anew: What was refused and is tried once more, as another one has gone or changed since.
        undone: Names that the client refused to lose, and the target for which they are not tried again.
        limit: How many changes the next response may have while a culprit is sought.
    """

    error: Nack | None = None
    refused: dict[str, Nack] = field(default_factory=dict)
    spoiled: dict[str, dict[str, Doubt]] = field(default_factory=dict)
    anew: set[str] = field(default_factory=set)
    undone: dict[str, Snapshot | None] = field(default_factory=dict)
    limit: int | None = None

    @property
    def over(self) -> bool:
        """True if none counts any more."""
        left = self.error or self.refused or self.spoiled or self.anew or self.undone
        return not left and self.limit is None

    @property
    def names(self) -> Iterable[str]:
        """Return what it is about."""
        return self.refused.keys() | self.spoiled.keys()

    def has(self, resource: Resource) -> bool:
        """Return whether this very content was refused."""
        nack = self.refused.get(resource.name)
        return nack is not None and nack.version == resource.version

    def forbids(self, resource: Resource) -> bool:
        """Return whether this very content was refused, and is not to be tried once more."""
        return self.has(resource) and resource.name not in self.anew

    def forget(self, names: Iterable[str]) -> None:
        """Drop what is known of resources that the client no longer has."""
        for name in names:
            self.refused.pop(name, None)
            self.anew.discard(name)
            self.spoiled.pop(name, None)

    def lose(self, names: Collection[str], nack: Nack) -> None:
        """The client refused to lose these: alone they would come back for ever."""
        self.undone.update(dict.fromkeys(names))
        self.refused.update(dict.fromkeys(names, nack))

    def accept(
        self, updates: Mapping[str, Resource], removed: Iterable[str], changed: Collection[str]
    ) -> list[str]:
        """The client accepted these, of which some changed; return those with parts that are left to try."""
        self.anew.difference_update(updates)
        left = []
        for name, resource in updates.items():
            if self._absolve(resource):
                left.append(name)
            if name in changed and name not in self.spoiled:
                self.refused.pop(name, None)
        for name in removed:
            self.refused.pop(name, None)
        return left

    def _absolve(self, accepted: Resource) -> bool:
        """Drop the doubts about the parts of what the client accepted; return whether there are others."""
        doubted = self.spoiled.get(accepted.name)
        if doubted is None or accepted.parts is None:
            return False
        kept = {o: doubt for o, doubt in doubted.items() if accepted.parts.of.get(o) != doubt.part}
        if kept:
            self.spoiled[accepted.name] = kept
        else:
            del self.spoiled[accepted.name]
        return bool(kept)

    def try_anew(self) -> list[str]:
        """Have what was refused tried once more, and return it: what it was refused for may have gone.

        It ends: the client comes to have each resource of a target once, and each time at most all others are
        tried once.
        """
        names = [name for name, nack in self.refused.items() if nack.version is not None]
        self.anew.update(names)
        return names

    def retry(self, target: Snapshot) -> list[str]:
        """Return the removals to be tried again, once for each new target."""
        found = []
        for name, refused in tuple(self.undone.items()):
            nack = self.refused.get(name)
            if nack is None or nack.version is not None:  # it is not to go any more, or it is gone
                del self.undone[name]
            elif refused is None:
                self.undone[name] = target
            elif refused is not target:
                del self.undone[name]
                found.append(name)
        return found

    def suspect(self, refused: Resource, had: Mapping[str, Part] | None) -> bool:
        """Note which parts a refusal may be about; return whether any. What is proven already stays so."""
        if refused.parts is None or had is None or not (found := doubts(refused.parts, had)):
            return False
        before = self.spoiled.get(refused.name, {})
        proven = {o: d for o, d in before.items() if o in found and d.proven and d.part == found[o].part}
        self.spoiled[refused.name] = before | found | proven
        return True

    def doubted(self, target: Resource) -> dict[str, Doubt]:
        """Return the doubts about parts that a target still has; the others are dropped."""
        wanted = target.parts.of if target.parts is not None else {}
        known = self.spoiled.pop(target.name, {})
        found = {owner: doubt for owner, doubt in known.items() if wanted.get(owner) == doubt.part}
        if found:
            self.spoiled[target.name] = found
        return found

    def bearable(self, target: Resource, has: Has, finders: Set[str]) -> Resource:
        """Return the target without the doubted parts: those stay as the client has them.

        ``finders`` are the names of what the client has that needs this resource.

        What is left of the target goes first. Then, if several parts may be the culprit, one after another.
        """
        wanted = target.parts.of if target.parts is not None else {}
        doubted, coming = self.spoiled[target.name], has.latest
        there = coming.parts.of if coming is not None and coming.parts is not None else {}
        if coming is not None and any(there.get(owner) == doubt.part for owner, doubt in doubted.items()):
            return coming  # its answer is waited for: to go on without that part would take it back

        def without(some: Set[str]) -> Resource | None:
            parts = (_stays(each, has) if each.owner in some else each for each in wanted.values())
            mixed = mixture(target, filter(None, parts))
            return mixed if mixed is not None and not robs(mixed, target, coming, finders) else None

        rest = without(doubted.keys())
        if rest is None or has.held is None or rest.version != has.held.version:
            return rest or target
        open_to_doubt = [owner for owner, doubt in doubted.items() if not doubt.proven]
        tries = (without(doubted.keys() - {owner}) for owner in open_to_doubt)
        return next((each for each in tries if each is not None and not self.has(each)), rest)

    def divide(self, batch: Collection[str], words: str) -> tuple[list[str], list[str]]:
        """Choose what of a refused batch is tried next: all that its words do not name, else half of it.

        Return what goes before all that waits, and what after it. To a client that takes absence for
        deletion, what is not in the next response is away for a while.
        """
        suspects = blamed(batch, words)
        rest = [name for name in batch if name not in set(suspects)]
        if suspects and rest:
            self.limit = len(rest)
            return rest, suspects
        self.limit = max(1, len(batch) // 2)
        return [], list(batch)


def _stays(doubted: Part, has: Has) -> Part | None:
    """Return the newest other part of the same owner that the client has, or will have."""
    found = (parts.get(doubted.owner) for parts in (by_owner((has.latest,)), has.parts))
    return next((part for part in found if part is not None and part != doubted), None)


NO_REFUSALS: Final = Refusals()
"""Of whoever refused nothing, as most do: nothing is added to it."""
