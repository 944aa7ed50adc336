"""One type on one stream: what is subscribed, what the client has, what is under way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from sys import intern
from typing import Final

from controlplane.xds.exchange import Exchange, Flight
from controlplane.xds.messages import MAX_NAMES, ProtocolError, weigh
from controlplane.xds.parts import Part
from controlplane.xds.past import NO_PAST, Past
from controlplane.xds.refusals import NO_REFUSALS, Has, Refusals
from controlplane.xds.sharing import NO_NAMES, NOBODY, NOTHING, Table, changed, fewer, later, more, named
from controlplane.xds.snapshot import Ref, Resource
from controlplane.xds.uses import note
from controlplane.xds.version import Version
from controlplane.xds.view import Nack, TypeView, Versions

WILDCARD = "*"
_NONE: Final[dict[str, Resource]] = {}  # of whoever has none of its own: nothing is added to it


@dataclass(slots=True, eq=False, kw_only=True)
class Conversation(Exchange):
    """The state of one type on one stream, the same for both variants.

    Of most streams most of it is empty: that is one object for all of them, which nothing is added to. What
    is held and the names are values, the same ones for all that are alike; other sets and tables are its own,
    once there is anything in them.

    Attributes:
        since: When the client first asked.
        window: How many responses may be unanswered.
        wildcard: The client asks for everything, by ``*`` or by never having named anything.
        explicit: The client has named something, or its type is asked for by name: an empty list does not
            mean everything.
        names: What it asks for by name.
        listed: A list of names that was found to ask for this.
        lost: Names that a stale list left out: if they are asked for again, they must be sent again.
        widening: A stale list asked for more, which the client will repeat.
        past: What it brought from an earlier stream.
        maybe: Sent in a batch that was refused: the client may have applied it or not.
        refusals: What it refused.
        rivals: Resources of this type exclude one another.
        preferred: What went before others that were waiting, which still do.
        told: Names whose absence the client was told.
        again: Names to send even if unchanged.
        resync: All names are dirty.
        opened: A first response was sent, or was not needed.
        gated: What waits for what, as of the last look.
        draining: Names of what connections may use that drain: it stays while the client asks for it.
    """

    since: datetime
    window: int = 1
    rivals: bool = False
    wildcard: bool = False
    names: frozenset[str] = NOBODY
    listed: frozenset[str] | None = None
    explicit: bool = False
    lost: frozenset[str] = NOBODY
    widening: bool = False
    past: Past = NO_PAST
    maybe: dict[str, Resource] = field(default_factory=lambda: _NONE)
    refusals: Refusals = NO_REFUSALS
    preferred: frozenset[str] = NOBODY
    told: set[str] = field(default_factory=lambda: NO_NAMES)
    again: set[str] = field(default_factory=lambda: NO_NAMES)
    resync: bool = True
    opened: bool = False
    gated: Mapping[str, Ref] = field(default_factory=lambda: NOTHING)
    draining: frozenset[str] = NOBODY

    @property
    def due(self) -> bool:
        """True if a response may be sent, should there be something to say.

        While a culprit is sought, one response is enough: its answer tells.
        """
        if self.quiet:
            return False
        return not self.flights or (len(self.flights) < self.window and self.refusals.limit is None)

    @property
    def quiet(self) -> bool:
        """True if there is nothing to say, whatever was answered."""
        return self.opened and not (self.dirty or self.resync)

    def mark(self, names: tuple[str, ...]) -> bool:
        """Note that some targets changed; return whether any of them concerns the client.

        What waits already keeps its place, or what changes often would starve the rest. Of an eager type the
        newest go first, so that what an operator takes back does not queue behind what came before; each of
        them once, until nothing is left that it went before.
        """
        if not self.wildcard:
            wanted = self.names
            names = tuple([name for name in names if name in wanted])  # a generator costs twice as much
        if not names:
            return False
        waiting = self.dirty
        if not waiting:
            self.preferred = NOBODY
        elif self.window > 1:
            ahead = [name for name in names if name not in self.preferred]
            self.preferred = self.preferred.union(ahead)
            self.dirty = dict.fromkeys(ahead)
            self.dirty.update(waiting)
        self.dirty.update(dict.fromkeys(names))
        return True

    def depart(self, flight: Flight) -> None:
        """Note that a response was sent."""
        note(self, flight.updates)
        self.flights += (flight,)
        self.nonce, self.sent_at = flight.nonce, flight.at
        self.opened, self.seen = True, None
        if self.past.returning:
            self.past.returning = False
        for name in (*flight.updates, *flight.removed):
            self.dirty.pop(name, None)
        spoiled = self.refusals.spoiled
        if self.gated or spoiled:  # what was sent is not all of it
            partial = self.gated.keys() | spoiled.keys()
            self.dirty.update((name, None) for name in flight.updates if name in partial)
        self.again = fewer(self.again, (*flight.updates, *flight.removed))
        self.told = fewer(self.told, flight.updates)
        if flight.removed:
            self.told = more(self.told, self.names.intersection(flight.removed))

    def weight(self) -> int:
        """Return about how many bytes what the client said takes: names and versions, with their objects."""
        return weigh((*self.names, *self.lost, *self.past.texts()))

    def wants(self, name: str) -> bool:
        """Return whether the client is subscribed to this resource."""
        return self.wildcard or name in self.names

    def subscribe(self, names: Iterable[str], *, resend: bool) -> None:
        """Add names, as delta clients do; ``resend`` those that the client already has."""
        wanted = dict.fromkeys(map(intern, names))
        if not wanted:
            return
        self.explicit = True
        if WILDCARD in wanted:
            del wanted[WILDCARD]
            self.resync |= not self.wildcard
            self.wildcard = True
        if resend:
            there = [name for name in wanted if name in self.held or self.coming(name)]
            self.again = more(self.again, there)
            self.refusals.forget(wanted.keys() - there)  # what else would answer the client?
        self.names = named(self.names.union(wanted))
        self.told = fewer(self.told, wanted)
        self.dirty.update(wanted)
        self._check_size()

    def unsubscribe(self, names: Collection[str]) -> None:
        """Remove names; one that a wildcard still covers is answered once more, as the protocol asks."""
        left: set[str] = set()
        covered: list[str] = []
        gone: list[str] = []
        for name in names:
            if name == WILDCARD:
                self.explicit = True
                if self.wildcard:  # else all of it is in the names
                    self.wildcard = False
                    gone += [other for other in self._known() if other not in self.names or other in left]
            elif name in self.names and name not in left:
                left.add(name)
                (covered if self.wildcard else gone).append(name)
        if left:
            self.names, self.draining = named(self.names - left), self.draining - left
        if covered:
            self.resend(covered)
        if gone:
            self.forget(gone)

    def resend(self, names: Collection[str]) -> None:
        """Have these sent even if unchanged."""
        self.again = more(self.again, names)
        self.dirty.update(dict.fromkeys(names))

    def lists(self, names: frozenset[str]) -> bool:
        """Return whether this whole list of a state-of-the-world client is what it asks for already."""
        if self.lost:
            return False
        if self.listed is names:
            return True
        if not self.explicit:
            same = self.wildcard and not names
        else:
            same = (WILDCARD in names) == self.wildcard and names - {WILDCARD} == self.names
        if same:
            self.listed = names
        return same

    def omit(self, names: Iterable[str]) -> None:
        """Note what a stale list of names leaves out; the client dropped that, whatever it asks for next."""
        if self.explicit:
            self.lost |= self.names.difference(names)
            self.widening |= not self.names.issuperset(names)

    def replace(self, names: Iterable[str]) -> None:
        """Take the whole list of names, as state-of-the-world clients send it with each request.

        Source: xDS protocol, "How the client specifies what resources to return".
        """
        self.listed, self.widening = None, False
        wanted = set(names)
        if self.lost:
            anew = sorted(self.lost & wanted & self.names)
            self.refusals.forget(anew)
            self.resend(anew)
            self.lost = NOBODY
        if not wanted and not self.explicit:
            self.wildcard = True
            return
        self.explicit = True
        wildcard = WILDCARD in wanted
        wanted.discard(WILDCARD)
        if wanted == self.names and wildcard == self.wildcard:
            return
        wanted = set(map(intern, wanted))
        new = sorted(wanted - self.names)
        self.again = more(self.again, [name for name in new if name in self.held])
        self.names = named(frozenset(wanted))
        self.dirty.update(dict.fromkeys(new))
        self.resync |= wildcard != self.wildcard
        self.wildcard = wildcard
        if not wildcard:
            self.forget([name for name in self._known() if name not in wanted])
        self._check_size()

    def _check_size(self) -> None:
        if len(self.names) > MAX_NAMES:
            text = f"{len(self.names)} names of {self.type_url} are more than {MAX_NAMES}"
            raise ProtocolError("RESOURCE_EXHAUSTED", text)

    def _known(self) -> Iterable[str]:
        """Return the names of all that the client has, may have or refused."""
        return dict.fromkeys((*self.held, *self.maybe, *self.past.brought, *self.refusals.names))

    def forget(self, names: Collection[str]) -> None:
        """Drop what is known of resources that the client no longer has."""
        note(self, names)
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

    def land(self, nonce: str) -> Flight | None:
        """Take the response with this nonce from those under way: it is answered.

        A client answers in order. If it left one out, what that one had may be there or not.
        """
        for place, flight in enumerate(self.flights):
            if flight.nonce == nonce:
                if self.before is not None:
                    for each in self.flights[: place + 1]:
                        note(self, (*each.updates, *each.removed))
                for older in self.flights[:place]:
                    self._doubt(older)
                self.flights = self.flights[place + 1 :]
                return flight
        return None

    def _doubt(self, flight: Flight) -> None:
        self._suppose(flight)
        self.dirty.update(dict.fromkeys((*flight.updates, *flight.removed)))

    def _suppose(self, flight: Flight) -> None:
        self.maybe = {**self.maybe, **self._wanted(flight)} or _NONE

    def _settle(self, names: Iterable[str]) -> None:
        """It is known of these whether the client has them."""
        if self.maybe:
            for name in names:
                self.maybe.pop(name, None)
            self.maybe = self.maybe or _NONE

    def _wanted(self, flight: Flight) -> Table:
        """Return what is new in a response and is asked for still."""
        if self.wildcard or flight.updates.keys() <= self.names:
            return flight.updates
        return {name: resource for name, resource in flight.updates.items() if self.wants(name)}

    def accept(self, flight: Flight, now: datetime) -> None:
        """The client ACKed a response."""
        self.acked_at = now
        updates, removed, held = flight.updates, flight.removed, self.held
        new = {n for n, r in updates.items() if n not in held or held[n].version != r.version}
        wanted = self._wanted(flight)
        moved = any(name in new or name in self.maybe for name in wanted)
        moved |= any(name in held for name in removed)
        self.past.replace(updates, removed)
        self.dirty.update(dict.fromkeys(self.refusals.accept(updates, removed, new)))
        self._settle((*updates, *removed))
        self._keep(wanted, removed)
        if moved and self.rivals:
            self.dirty.update(dict.fromkeys(self.refusals.try_anew()))
        if not self.maybe:
            self._calm_down()

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

    def _calm_down(self) -> None:
        """Nothing is in doubt any more: no culprit is sought, and what is over is dropped."""
        self.refusals.limit = None
        self._forgive()
        odd = self.flights or self.dirty or self.resync or self.again or self.refusals.refused or self.gated
        self.calm = self.opened and not (odd or self.past.foreign or self.past.returning)
        if self.refusals.over:
            self.refusals = NO_REFUSALS
        if self.past.over:
            self.past = NO_PAST

    def _had(self, target: Resource) -> Mapping[str, Part]:
        """Return the parts of a resource that the client has, there or in others; nothing if that is unknown.

        Who shares hosts with whom changes, and with it the name of their routes.
        """
        name, foreign = target.name, self.past.foreign
        held = self.held.get(name)
        if held is not None and held.parts is not None:
            return held.parts.of
        if held is not None or target.parts is None:
            return self.past.recalled.get(name, {}) if name in foreign else {}
        elsewhere = self.owners() if not foreign else {}
        return {owner: elsewhere[owner] for owner in target.parts.of if owner in elsewhere}

    def bearable(self, target: Resource, finders: Set[str]) -> Resource:
        """Return the target without the parts that the client may have refused: those stay as it has them.

        ``finders`` are the names of what the client has that needs this resource.
        """
        if not self.refusals.doubted(target):
            return target
        name, parts = target.name, self._had(target)
        if not parts:
            return target
        return self.refusals.bearable(target, Has(self.held.get(name), self.latest(name), parts), finders)

    def clear(self, name: str) -> None:
        """The target went back to what the client has: an earlier refusal no longer matters."""
        if self.refusals.refused.pop(name, None) is not None:
            self._forgive()

    def _forgive(self) -> None:
        if self.refusals.error is not None and not self.maybe and not self.refusals.refused:
            self.refusals.error = None

    def refuse(self, flight: Flight, message: str, now: datetime) -> None:
        """The client NACKed a response: remember the culprit, or halve the batch to find it.

        The client may have applied the good part of a refused batch (gRFC A46; seen in Envoy 1.40), so all of
        it counts as perhaps applied until it was sent again.
        """
        if self.refusals is NO_REFUSALS:
            self.refusals = Refusals()
        refusals, updates = self.refusals, flight.updates
        refusals.error = Nack(None, message, now)
        self.dirty.update(dict.fromkeys(flight.removed))
        if not updates:
            refusals.lose([name for name in flight.removed if name in self.held], refusals.error)
        elif len(updates) == 1:
            (resource,) = updates.values()
            refusals.error = Nack(resource.version, message, now)
            self._reject(resource, refusals.error)
        else:
            self._suppose(flight)
            first, last = refusals.divide(updates.keys(), message)
            if first:
                waiting = [name for name in self.dirty if name not in set(last)]
                self.dirty = dict.fromkeys((*first, *waiting))
            self.dirty.update(dict.fromkeys(last))

    def _reject(self, resource: Resource, nack: Nack) -> None:
        """Note that this very content was refused."""
        name, refusals = resource.name, self.refusals
        refusals.anew.discard(name)
        doubted = self.maybe.get(name)
        # An older one that was not answered, or refused among others, may be in use all the same.
        if doubted is not None and doubted.version == resource.version:
            self._settle((name,))
        elif doubted is not None and self.held.get(name) not in (None, resource):
            self.dirty[name] = None  # what it is known to have had, over what it may have
        if self.wants(name):
            refusals.refused[name] = nack
            if refusals.suspect(resource, self._had(resource)):
                self.dirty[name] = None

    def view(self, *, served: bool) -> TypeView:
        """Return this state as a value."""
        if self.seen is not None:
            return self.seen
        self.hold(self.held)
        acked, coming = Versions(self.held), self.held
        for flight in self.flights:
            coming = self.after(coming, flight.updates, flight.removed)
        refusals = self.refusals
        self.seen = TypeView(
            type_url=self.type_url,
            served=served,
            wildcard=self.wildcard,
            names=self.names,
            since=self.since,
            sent=Versions(coming) if self.flights else acked,
            acked=acked,
            nacks={
                name: replace(nack, owners=frozenset(refusals.spoiled.get(name, ())))
                for name, nack in refusals.refused.items()
            },
            error=refusals.error,
            gated=self.gated,
            waiting_since=self.flights[0].at if self.flights else None,
            sent_at=self.sent_at,
            acked_at=self.acked_at,
            partial={n: self.held[n] for n in (*self.gated, *refusals.spoiled) if n in self.held},
        )
        return self.seen
