"""One type on one stream: what is subscribed, what the client has, what is under way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from sys import intern
from typing import NamedTuple

from controlplane.xds.culprits import blamed
from controlplane.xds.messages import MAX_NAMES, ProtocolError
from controlplane.xds.parts import Doubt, Part, by_owner, doubts, mixture, robs
from controlplane.xds.snapshot import Ref, Resource, Snapshot
from controlplane.xds.version import Version
from controlplane.xds.view import Nack, TypeView, Versions

WILDCARD = "*"
_OBJECT = 100  # bytes that a short text takes besides its characters, with its place in a set


class Flight(NamedTuple):
    """A response that the client has not answered: what is new in it, and what it takes away."""

    nonce: str
    updates: Mapping[str, Resource]
    removed: tuple[str, ...]
    at: datetime


@dataclass(slots=True, eq=False)
class Exchange:
    """What a change and its ACK touch, of one type on one stream.

    It is apart because Python sorts the slots of a class by name: for each of thousands of streams, a third
    of the memory has to be fetched.

    Attributes:
        calm: The client accepted all that it was sent, and nothing but its targets has changed since.
        dirty: Names whose target may differ from what the client has, in order.
        held: What the client accepted. One that it brought and that is not ours has an empty body.
        flights: The un-ACKed responses, oldest first.
        nonce: Of the last response.
        high: Highest revision that the client has seen of this type.
        sent_at: When the last response was sent.
        acked_at: When the client last accepted one.
        seen: The view of this state, until it changes.
    """

    type_url: str
    calm: bool = False
    dirty: dict[str, None] = field(default_factory=dict)
    held: dict[str, Resource] = field(default_factory=dict)
    flights: tuple[Flight, ...] = ()
    nonce: str = ""
    high: int = 0
    sent_at: datetime | None = None
    acked_at: datetime | None = None
    seen: TypeView | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Conversation(Exchange):
    """The state of one type on one stream, the same for both variants.

    Attributes:
        since: When the client first asked.
        window: How many responses may be unanswered.
        wildcard: The client asks for everything, by ``*`` or by never having named anything.
        explicit: The client has named something, or its type is asked for by name: an empty list does not
            mean everything.
        names: What it asks for by name.
        listed: A list of names that was found to ask for this.
        lost: Names that a stale list left out: if they are asked for again, they must be sent again.
        claims: Versions that the client brought from an earlier stream, until they were compared with ours.
        compared: The snapshot that they were compared with last.
        foreign: Names in ``held`` that are not ours: their needs are unknown.
        brought: What it came back with besides, with its version: as long as the target has no such resource,
            or one that needs nothing, it does not count as there.
        recalled: The parts of what it brought with unknown content, if that is what it accepted last.
        whole: Version of a set that the client brought and that is not ours, until it accepted ours.
        maybe: Sent in a batch that was refused: the client may have applied it or not.
        refused: The refusal of a version, until the client accepted another one or the target went back.
        spoiled: Parts that a refusal may be about, by resource and owner, while the target has them.
        rivals: Resources of this type exclude one another.
        preferred: What went before others that were waiting, which still do.
        anew: What was refused and is tried once more, as another one has gone or changed since.
        undone: Names that the client refused to lose, and the target for which they are not tried again.
        told: Names whose absence the client was told.
        again: Names to send even if unchanged.
        resync: All names are dirty.
        returning: The client brought resources, and was sent nothing of this type yet.
        opened: A first response was sent, or was not needed.
        limit: How many changes the next response may have while a culprit is sought.
        error: The last refusal.
        gated: What waits for what, as of the last look.
        asked: The names of the view, until they change.
    """

    since: datetime
    window: int = 1
    rivals: bool = False
    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    listed: frozenset[str] | None = None
    explicit: bool = False
    lost: set[str] = field(default_factory=set)
    claims: dict[str, str] | None = None
    compared: Snapshot | None = None
    foreign: set[str] = field(default_factory=set)
    brought: dict[str, Version] = field(default_factory=dict)
    recalled: dict[str, Mapping[str, Part]] = field(default_factory=dict)
    whole: Version | None = None
    maybe: dict[str, Resource] = field(default_factory=dict)
    refused: dict[str, Nack] = field(default_factory=dict)
    spoiled: dict[str, dict[str, Doubt]] = field(default_factory=dict)
    preferred: frozenset[str] = frozenset()  # empty as a rule: thousands of streams share it
    anew: frozenset[str] = frozenset()
    undone: dict[str, Snapshot | None] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    resync: bool = True
    returning: bool = False
    opened: bool = False
    limit: int | None = None
    error: Nack | None = None
    gated: dict[str, Ref] = field(default_factory=dict)
    asked: frozenset[str] | None = None

    @property
    def due(self) -> bool:
        """True if a response may be sent, should there be something to say.

        While a culprit is sought, one response is enough: its answer tells.
        """
        if self.quiet:
            return False
        return not self.flights or (len(self.flights) < self.window and self.limit is None)

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
            self.preferred = frozenset()
        elif self.window > 1:
            ahead = [name for name in names if name not in self.preferred]
            self.preferred = self.preferred.union(ahead)
            self.dirty = dict.fromkeys(ahead)
            self.dirty.update(waiting)
        self.dirty.update(dict.fromkeys(names))
        return True

    def depart(self, flight: Flight) -> None:
        """Note that a response was sent."""
        self.flights += (flight,)
        self.nonce, self.sent_at = flight.nonce, flight.at
        self.opened, self.returning, self.seen = True, False, None
        for name in flight.updates:
            self.dirty.pop(name, None)
        for name in flight.removed:
            self.dirty.pop(name, None)
        if self.calm:
            return
        if self.gated or self.spoiled:  # what was sent is not all of it
            partial = self.gated.keys() | self.spoiled.keys()
            self.dirty.update((name, None) for name in flight.updates if name in partial)
        self.again.difference_update(flight.updates, flight.removed)
        self.told.difference_update(flight.updates)
        self.told.update(self.names.intersection(flight.removed))

    def weight(self) -> int:
        """Return about how many bytes what the client said takes: names and versions, with their objects."""
        claims = self.claims or {}
        texts = (*self.names, *self.lost, *claims, *claims.values(), *self.foreign, *self.brought)
        return sum(len(text) if text.isascii() else 4 * len(text) for text in texts) + _OBJECT * len(texts)

    def wants(self, name: str) -> bool:
        """Return whether the client is subscribed to this resource."""
        return self.wildcard or name in self.names

    def refuses(self, resource: Resource) -> bool:
        """Return whether the client refused this very content."""
        nack = self.refused.get(resource.name)
        return nack is not None and nack.version == resource.version

    def rejects(self, resource: Resource) -> bool:
        """Return whether this very content was refused, and is not to be tried once more."""
        return self.refuses(resource) and resource.name not in self.anew

    def firm(self, name: str) -> Resource | None:
        """Return what the client has ACKed, unless a response under way takes it away or empties it."""
        held = self.held.get(name)
        if held is None:
            return None
        for flight in self.flights:
            if name in flight.removed:
                return None
            coming = flight.updates.get(name)
            if coming is not None and coming.hollow:
                return coming
        return held

    def latest(self, name: str) -> Resource | None:
        """Return what the client will have once it has accepted all that is under way."""
        for flight in reversed(self.flights):
            if name in flight.updates:
                return flight.updates[name]
            if name in flight.removed:
                return None
        return self.held.get(name)

    def coming(self, name: str) -> bool:
        """Return whether a version of this resource is under way."""
        return any(name in flight.updates for flight in self.flights)

    def holdings(self) -> Iterable[Resource]:
        """Yield everything that the client may have in use."""
        yield from self.held.values()
        yield from self.maybe.values()
        for flight in self.flights:
            yield from flight.updates.values()

    def subscribe(self, names: Iterable[str], *, resend: bool) -> None:
        """Add names, as delta clients do; ``resend`` those that the client already has."""
        for text in names:
            self.explicit, self.asked = True, None
            if text == WILDCARD:
                self.resync |= not self.wildcard
                self.wildcard = True
                continue
            name = intern(text)
            if resend and (name in self.held or self.coming(name)):
                self.again.add(name)
            self.names.add(name)
            self.told.discard(name)
            self.dirty[name] = None
        self._check_size()

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Remove names; one that a wildcard still covers is answered once more, as the protocol asks."""
        for name in names:
            self.asked = None
            if name == WILDCARD:
                self.explicit = True
                self.wildcard = False
                for other in [*self.held, *self.maybe]:
                    if other not in self.names:
                        self.forget(other)
            elif name in self.names:
                self.names.discard(name)
                if self.wildcard:
                    self.again.add(name)
                    self.dirty[name] = None
                else:
                    self.forget(name)

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
            self.lost.update(self.names.difference(names))

    def replace(self, names: Iterable[str]) -> None:
        """Take the whole list of names, as state-of-the-world clients send it with each request.

        Source: xDS protocol, "How the client specifies what resources to return".
        """
        self.listed = None
        wanted = set(names)
        for name in self.lost & wanted & self.names:
            self.again.add(name)
            self.dirty[name] = None
        self.lost.clear()
        if not wanted and not self.explicit:
            self.wildcard = True
            return
        self.explicit = True
        wildcard = WILDCARD in wanted
        wanted.discard(WILDCARD)
        if wanted == self.names and wildcard == self.wildcard:
            return
        wanted = {intern(name) for name in wanted}
        for name in sorted(wanted - self.names):
            if name in self.held:
                self.again.add(name)
            self.dirty[name] = None
        self.resync |= wildcard != self.wildcard
        self.wildcard, self.names, self.asked = wildcard, wanted, None
        if not wildcard:
            for name in [name for name in (*self.held, *self.maybe, *self.brought) if name not in wanted]:
                self.forget(name)
        self._check_size()

    def _check_size(self) -> None:
        if len(self.names) > MAX_NAMES:
            text = f"{len(self.names)} names of {self.type_url} are more than {MAX_NAMES}"
            raise ProtocolError("RESOURCE_EXHAUSTED", text)

    def forget(self, name: str) -> None:
        """Drop what is known of a resource that the client no longer has."""
        self.held.pop(name, None)
        self.maybe.pop(name, None)
        self.refused.pop(name, None)
        self.anew -= {name}
        self.spoiled.pop(name, None)
        self.foreign.discard(name)
        self.recalled.pop(name, None)
        self.brought.pop(name, None)
        self.again.discard(name)
        self.told.discard(name)

    def presume(self, name: str, version: Version, last: Resource | None = None) -> None:
        """Count what the client named as there, with unknown content; nothing is led to it: it may not be.

        ``last`` is what it accepted last under this name, should it still have it.
        """
        self.held[name] = Resource(name, b"", version, hollow=True)
        self.foreign.add(name)
        if last is not None and last.parts is not None:
            self.recalled[name] = last.parts.of

    def discount(self, name: str) -> None:
        """Count what the client brought no longer, until the target has one again (``recall``)."""
        version = self.held[name].version
        self.forget(name)
        self.brought[name] = version

    def recall(self, target: Resource) -> None:
        """Count what the client brought as there: it stays on that until it accepts the target."""
        if target.needs and (version := self.brought.pop(target.name, None)) is not None:
            self.presume(target.name, version)

    def land(self, nonce: str) -> Flight | None:
        """Take the response with this nonce from those under way: it is answered.

        A client answers in order. If it left one out, what that one had may be there or not.
        """
        for place, flight in enumerate(self.flights):
            if flight.nonce == nonce:
                for older in self.flights[:place]:
                    self._doubt(older)
                self.flights = self.flights[place + 1 :]
                return flight
        return None

    def _doubt(self, flight: Flight) -> None:
        self.maybe.update((name, r) for name, r in flight.updates.items() if self.wants(name))
        self.dirty.update(dict.fromkeys((*flight.updates, *flight.removed)))

    def accept(self, flight: Flight, now: datetime) -> None:
        """The client ACKed a response."""
        self.acked_at = now
        if self.calm:  # then it still asks for what it was sent, and nothing was taken away
            self.held.update(flight.updates)
            return
        self.whole = None
        self.anew = self.anew.difference(flight.updates)
        moved = not self.held.keys().isdisjoint(flight.removed)
        for name, resource in flight.updates.items():
            doubted = self.maybe.pop(name, None)
            self.foreign.discard(name)
            self.brought.pop(name, None)
            before = self.held.get(name)
            self._absolve(resource)
            changed = before is None or before.version != resource.version  # else it was only sent again
            if changed and name not in self.spoiled:
                self.refused.pop(name, None)
            if self.wants(name):
                self.held[name] = resource
                moved |= changed or doubted is not None
        for name in flight.removed:
            self.held.pop(name, None)
            self.maybe.pop(name, None)
            self.refused.pop(name, None)
            self.foreign.discard(name)
        if moved and self.rivals:
            self._try_anew()
        if not self.maybe:
            self.limit = None
            self._forgive()
            odd = self.flights or self.resync or self.again or self.refused or self.foreign or self.gated
            self.calm = self.opened and not (odd or self.returning)

    def _try_anew(self) -> None:
        """Have what was refused tried once more: what it was refused for may have gone.

        It ends: the client comes to have each resource of a target once, and each time at most all others are
        tried once.
        """
        names = [name for name, nack in self.refused.items() if nack.version is not None]
        self.anew = self.anew.union(names)
        self.dirty.update(dict.fromkeys(names))

    def owners(self) -> dict[str, Part]:
        """Return each owner's part in what the client will have once it has accepted what is under way."""
        coming = (name for flight in self.flights for name in flight.updates)
        return by_owner(self.latest(name) for name in (*self.held, *coming))

    def _had(self, target: Resource) -> Mapping[str, Part]:
        """Return the parts of a resource that the client has, there or in others; nothing if that is unknown.

        Who shares hosts with whom changes, and with it the name of their routes.
        """
        held = self.held.get(target.name)
        if held is not None and held.parts is not None:
            return held.parts.of
        if held is not None or target.parts is None:
            return self.recalled.get(target.name, {}) if target.name in self.foreign else {}
        elsewhere = self.owners() if not self.foreign else {}
        return {owner: elsewhere[owner] for owner in target.parts.of if owner in elsewhere}

    def _doubt_parts(self, refused: Resource) -> None:
        """Note which parts a refusal may be about; what is proven already stays so."""
        had = self._had(refused)
        if refused.parts is None or not had or not (found := doubts(refused.parts, had)):
            return
        before = self.spoiled.get(refused.name, {})
        proven = {o: d for o, d in before.items() if o in found and d.proven and d.part == found[o].part}
        self.spoiled[refused.name] = before | found | proven
        self.dirty[refused.name] = None

    def _absolve(self, accepted: Resource) -> None:
        """Drop the doubts about the parts of what the client accepted."""
        doubted = self.spoiled.get(accepted.name)
        if doubted is None or accepted.parts is None:
            return
        kept = {o: doubt for o, doubt in doubted.items() if accepted.parts.of.get(o) != doubt.part}
        if kept:
            self.spoiled[accepted.name] = kept
            self.dirty[accepted.name] = None
        else:
            del self.spoiled[accepted.name]

    def bearable(self, target: Resource, finders: Set[str]) -> Resource:
        """Return the target without the parts that the client may have refused: those stay as it has them.

        ``finders`` are the names of what the client has that needs this resource.

        What is left of the target goes first. Then, if several parts may be the culprit, one after another.
        """
        name, held = target.name, self.held.get(target.name)
        wanted = target.parts.of if target.parts is not None else {}
        known = self.spoiled.pop(name, {})
        doubted = {owner: doubt for owner, doubt in known.items() if wanted.get(owner) == doubt.part}
        if not doubted:
            return target
        self.spoiled[name] = doubted
        had = self._had(target)
        if not had:
            return target
        coming = self.latest(name)
        there = coming.parts.of if coming is not None and coming.parts is not None else {}
        if coming is not None and any(there.get(owner) == doubt.part for owner, doubt in doubted.items()):
            return coming  # its answer is waited for: to go on without that part would take it back

        def without(some: Set[str]) -> Resource | None:
            parts = (self._stays(each, name, had) if each.owner in some else each for each in wanted.values())
            mixed = mixture(target, filter(None, parts))
            return mixed if mixed is not None and not robs(mixed, target, coming, finders) else None

        rest = without(doubted.keys())
        if rest is None or held is None or rest.version != held.version:
            return rest or target
        open_to_doubt = [owner for owner, doubt in doubted.items() if not doubt.proven]
        tries = (without(doubted.keys() - {owner}) for owner in open_to_doubt)
        return next((each for each in tries if each is not None and not self.refuses(each)), rest)

    def _stays(self, doubted: Part, name: str, had: Mapping[str, Part]) -> Part | None:
        """Return the newest other part of the same owner that the client has, or will have."""
        found = (parts.get(doubted.owner) for parts in (by_owner((self.latest(name),)), had))
        return next((part for part in found if part is not None and part != doubted), None)

    def retry(self, target: Snapshot) -> None:
        """Have removals that were refused tried again, once for each new target."""
        for name, refused in tuple(self.undone.items()):
            nack = self.refused.get(name)
            if nack is None or nack.version is not None:  # it is not to go any more, or it is gone
                del self.undone[name]
            elif refused is None:
                self.undone[name] = target
            elif refused is not target:
                del self.undone[name]
                self.dirty[name] = None

    def clear(self, name: str) -> None:
        """The target went back to what the client has: an earlier refusal no longer matters."""
        if self.refused.pop(name, None) is not None:
            self._forgive()

    def _forgive(self) -> None:
        if not self.maybe and not self.refused:
            self.error = None

    def refuse(self, flight: Flight, message: str, now: datetime) -> None:
        """The client NACKed a response: remember the culprit, or halve the batch to find it.

        The client may have applied the good part of a refused batch (gRFC A46; seen in Envoy 1.40), so all of
        it counts as perhaps applied until it was sent again.
        """
        self.error = Nack(None, message, now)
        self.dirty.update(dict.fromkeys(flight.removed))
        if not flight.updates:  # what was to go alone would come back for ever
            lost = [name for name in flight.removed if name in self.held]
            self.undone.update(dict.fromkeys(lost))
            self.refused.update(dict.fromkeys(lost, self.error))
            return
        if len(flight.updates) == 1:
            (resource,) = flight.updates.values()
            self.error = Nack(resource.version, message, now)
            self.anew -= {resource.name}
            doubted = self.maybe.get(resource.name)
            # An older one that was not answered, or refused among others, may be in use all the same.
            if doubted is not None and doubted.version == resource.version:
                del self.maybe[resource.name]
            elif doubted is not None and self.held.get(resource.name) not in (None, resource):
                self.dirty[resource.name] = None  # what it is known to have had, over what it may have
            if self.wants(resource.name):
                self.refused[resource.name] = self.error
                self._doubt_parts(resource)
        else:
            self.maybe.update((n, r) for n, r in flight.updates.items() if self.wants(n))
            self._divide(flight, message)

    def _divide(self, flight: Flight, message: str) -> None:
        """Choose what of a refused batch is tried next: all that its words do not name, else half of it.

        To a client that takes absence for deletion, what is not in the next response is away for a while.
        """
        suspects = blamed(flight.updates, message)
        rest = [name for name in flight.updates if name not in set(suspects)]
        if suspects and rest:
            self.limit = len(rest)
            for name in suspects:
                self.dirty.pop(name, None)
            self.dirty = dict.fromkeys((*rest, *self.dirty, *suspects))
        else:
            self.limit = max(1, len(flight.updates) // 2)
            self.dirty.update(dict.fromkeys(flight.updates))

    def view(self, *, served: bool) -> TypeView:
        """Return this state as a value."""
        if self.seen is not None:
            return self.seen
        acked = sent = Versions(self.held.copy())
        if self.flights:
            coming = self.held.copy()
            for flight in self.flights:
                coming.update(flight.updates)
                for name in flight.removed:
                    coming.pop(name, None)
            sent = Versions(coming)
        if self.asked is None:
            self.asked = frozenset(self.names)
        self.seen = TypeView(
            type_url=self.type_url,
            served=served,
            wildcard=self.wildcard,
            names=self.asked,
            since=self.since,
            sent=sent,
            acked=acked,
            nacks={
                name: replace(nack, owners=frozenset(self.spoiled.get(name, ())))
                for name, nack in self.refused.items()
            },
            error=self.error,
            gated=dict(self.gated),
            waiting_since=self.flights[0].at if self.flights else None,
            sent_at=self.sent_at,
            acked_at=self.acked_at,
            partial={n: self.held[n] for n in (*self.gated, *self.spoiled) if n in self.held},
        )
        return self.seen
