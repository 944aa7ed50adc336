"""What a client has of one type: what it accepted, may have, brought and refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from controlplane.xds.exchange import Exchange
from controlplane.xds.parts import Part
from controlplane.xds.past import NO_PAST, Past
from controlplane.xds.refusals import NO_REFUSALS, Has, Refusals
from controlplane.xds.sharing import NO_NAMES, Table, changed, fewer, later, more
from controlplane.xds.snapshot import Resource
from controlplane.xds.type_urls import Ref
from controlplane.xds.version import Version

_NONE: Final[dict[str, tuple[Resource, ...]]] = {}  # of whoever has none of its own: nothing is added to it
_MOST = 8  # versions of one resource that are remembered as perhaps in use


@dataclass(slots=True, eq=False)
class Holdings(Exchange):
    """What a client has of one type, besides what each change touches.

    Attributes:
        maybe: Versions that were refused among others, or not answered: the client may have applied any.
        past: What it brought from an earlier stream.
        refusals: What it refused.
        told: Names whose absence it was told.
        again: Names to send even if unchanged.
    """

    maybe: dict[str, tuple[Resource, ...]] = field(default_factory=lambda: _NONE)
    past: Past = NO_PAST
    refusals: Refusals = NO_REFUSALS
    told: set[str] = field(default_factory=lambda: NO_NAMES)
    again: set[str] = field(default_factory=lambda: NO_NAMES)

    def in_use(self) -> Iterable[Resource]:
        """Yield everything that the client may have in use."""
        for table in self._tables():
            yield from table.values()
        for versions in self.maybe.values():
            yield from versions

    def needs_of(self, name: str) -> frozenset[Ref]:
        """Return what a resource needs, whichever of its versions the client has."""
        needs = [table[name].needs for table in self._tables() if name in table]
        needs += [version.needs for version in self.maybe.get(name, ())]
        return needs[0] if len(needs) == 1 else frozenset().union(*needs)

    def _tables(self) -> tuple[Table, ...]:
        return self.held, *(flight.updates for flight in self.flights)

    def note(self, names: Iterable[str]) -> None:
        """Note what these need before that changes, if somebody counts."""
        before, type_url = self.before, self.type_url
        if before is not None:
            for name in names:
                if (type_url, name) not in before:
                    before[type_url, name] = self.needs_of(name)

    def _known(self) -> Iterable[str]:
        """Return the names of all that the client has, may have or refused."""
        return dict.fromkeys((*self.held, *self.maybe, *self.past.brought, *self.refusals.names))

    def resend(self, names: Collection[str]) -> None:
        """Have these sent even if unchanged."""
        self.again = more(self.again, names)
        self.dirty.update(dict.fromkeys(names))

    def forget(self, names: Collection[str]) -> None:
        """Drop what is known of resources that the client no longer has."""
        self.note(names)
        if any(name in self.held for name in names):
            held = self.own()
            for name in names:
                held.pop(name, None)
        self._settle(names)
        self.refusals.forget(names)
        self._forgive()
        self.past.forget(names)
        self.again = fewer(self.again, names)
        self.told = fewer(self.told, names)

    def _suppose(self, updates: Table) -> None:
        """The client may have these or not; what else it may have, it may still have."""
        supposed = dict(self.maybe)
        for name, resource in updates.items():
            others = (each for each in supposed.get(name, ()) if each.version != resource.version)
            supposed[name] = (*others, resource)[-_MOST:]
        self.maybe = supposed or _NONE

    def supposed(self, name: str) -> Resource | None:
        """Return the newest version that the client may have or not."""
        return self.maybe[name][-1] if name in self.maybe else None

    def _settle(self, names: Iterable[str]) -> None:
        """It is known of these whether the client has them."""
        if self.maybe:
            for name in names:
                self.maybe.pop(name, None)
            self.maybe = self.maybe or _NONE

    def presume(self, name: str, version: Version, last: Resource | None = None) -> None:
        """Count what the client named as there, with unknown content; nothing is led to it: it may not be.

        ``last`` is what it accepted last under this name, should it still have it.
        """
        self.own()[name] = Resource(name, b"", version, hollow=True)
        self.past.foreign.add(name)
        if last is not None and last.parts is not None:
            self.past.recalled[name] = last.parts.of

    def discount(self, name: str) -> None:
        """Count what the client brought no longer, until the target has one again (``recall``)."""
        version = self.held[name].version
        self.forget((name,))
        self.past.brought[name] = version

    def recall(self, target: Resource) -> None:
        """Count what the client brought as there: it stays on that until it accepts the target."""
        if target.needs and (version := self.past.brought.pop(target.name, None)) is not None:
            self.presume(target.name, version)

    def _keep(self, updates: Table, removed: tuple[str, ...]) -> None:
        """Hold what was accepted: what others hold too, but where more is to come a table of its own."""
        gone = tuple(name for name in removed if name in self.held)
        if self.dirty or self.past.foreign:
            held = self.own()
            held.update(updates)
            for name in gone:
                del held[name]
        elif updates or gone or self._own is not None:
            self.hold(later(self.held, updates, gone))

    def after(self, held: Table, updates: Table, removed: tuple[str, ...]) -> Table:
        """Return what is held after a change."""
        make = changed if self.dirty or self.past.foreign else later
        return make(held, updates, removed)

    def _had(self, target: Resource) -> Mapping[str, Part] | None:
        """Return the parts of a resource that the client has, there or in others; None if that is unknown.

        Who shares hosts with whom changes, and with it the name of their routes.
        """
        name, foreign = target.name, self.past.foreign
        held = self.held.get(name)
        if held is not None and held.parts is not None:
            return held.parts.of
        if held is not None or target.parts is None:
            return self.past.recalled.get(name) if name in foreign else None
        elsewhere = self.owners() if not foreign else {}
        return {owner: elsewhere[owner] for owner in target.parts.of if owner in elsewhere} or None

    def bearable(self, target: Resource, finders: Set[str]) -> Resource:
        """Return the target without the parts that the client may have refused: those stay as it has them.

        ``finders`` are the names of what the client has that needs this resource.
        """
        if not self.refusals.doubted(target):
            return target
        name, parts = target.name, self._had(target)
        if parts is None:
            return target
        return self.refusals.bearable(target, Has(self.held.get(name), self.latest(name), parts), finders)

    def clear(self, name: str) -> None:
        """The target went back to what the client has: an earlier refusal no longer matters."""
        if self.refusals.refused.pop(name, None) is not None:
            self._forgive()

    def _forgive(self) -> None:
        if self.refusals.error is not None and not self.maybe and not self.refusals.refused:
            self.refusals.error = None
