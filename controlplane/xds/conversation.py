"""One type on one stream: what is asked for, what is sent, and what the client answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from sys import intern

from controlplane.xds.exchange import Flight
from controlplane.xds.holdings import Holdings
from controlplane.xds.messages import MAX_NAMES, ProtocolError, weigh
from controlplane.xds.past import NO_PAST
from controlplane.xds.refusals import NO_REFUSALS, Refusals
from controlplane.xds.sharing import NOBODY, NOTHING, Table, fewer, more, named
from controlplane.xds.snapshot import Resource
from controlplane.xds.type_urls import Ref
from controlplane.xds.view import Nack, TypeView, Versions

WILDCARD = "*"


@dataclass(slots=True, eq=False, kw_only=True)
class Conversation(Holdings):
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
        rivals: Resources of this type exclude one another.
        preferred: What went before others that were waiting, which still do.
        resync: All names are dirty.
        opened: A first response was sent, or was not needed.
        gated: What waits for what, as of the last look.
        draining: Names of what connections may use that drain: it stays while the client asks for it.
        nacked: How many responses the client has refused.
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
    preferred: frozenset[str] = NOBODY
    resync: bool = True
    opened: bool = False
    gated: Mapping[str, Ref] = field(default_factory=lambda: NOTHING)
    draining: frozenset[str] = NOBODY
    nacked: int = 0

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
        self.note(flight.updates)
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

    def firm(self, name: str) -> Resource | None:
        """Return what the client has for sure: not what it dropped, though it may ask for it again."""
        return None if name in self.lost else Holdings.firm(self, name)

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

    def replace(self, names: Iterable[str], *, full: bool = False) -> None:
        """Take the whole list of names, as state-of-the-world clients send it with each request.

        ``full``: each response lists everything.

        Source: xDS protocol, "How the client specifies what resources to return".
        """
        self.listed, self.widening = None, False
        wanted = set(names)
        if self.lost:
            anew = sorted(self.lost & wanted & self.names)
            if full:  # what is not listed goes, and the client may have it by the newest response
                self.refusals.forget(anew)
            else:
                self.forget(anew)
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

    def land(self, nonce: str) -> Flight | None:
        """Take the response with this nonce from those under way: it is answered.

        A client answers in order. If it left one out, what that one had may be there or not.
        """
        for place, flight in enumerate(self.flights):
            if flight.nonce == nonce:
                if self.before is not None:
                    for each in self.flights[: place + 1]:
                        self.note((*each.updates, *each.removed))
                for older in self.flights[:place]:
                    self._doubt(older)
                self.flights = self.flights[place + 1 :]
                return flight
        return None

    def _doubt(self, flight: Flight) -> None:
        self._suppose(self._wanted(flight))
        self.dirty.update(dict.fromkeys((*flight.updates, *flight.removed)))

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

    def refuse(self, flight: Flight, message: str, now: datetime) -> None:
        """The client NACKed a response: remember the culprit, or halve the batch to find it.

        The client may have applied the good part of a refused batch (gRFC A46; seen in Envoy 1.40), so all of
        it counts as perhaps applied until it was sent again.
        """
        self.nacked += 1
        if self.refusals is NO_REFUSALS:
            self.refusals = Refusals()
        refusals, updates = self.refusals, flight.updates
        refusals.error = Nack(None, message, now)
        self.dirty.update(dict.fromkeys(flight.removed))
        if not updates:
            had = [name for name in flight.removed if name in self.held or name in self.maybe]
            refusals.lose(had, refusals.error)
        elif len(updates) == 1:
            (resource,) = updates.values()
            refusals.error = Nack(resource.version, message, now)
            self._reject(resource, refusals.error)
        else:
            self._suppose(self._wanted(flight))
            first, last = refusals.divide(updates.keys(), message)
            if first:
                waiting = [name for name in self.dirty if name not in set(last)]
                self.dirty = dict.fromkeys((*first, *waiting))
            self.dirty.update(dict.fromkeys(last))

    def _reject(self, resource: Resource, nack: Nack) -> None:
        """Note that this very content was refused."""
        name, refusals = resource.name, self.refusals
        refusals.anew.discard(name)
        if name in self.maybe:
            # An older one that was not answered, or refused among others, may be in use all the same.
            others = tuple(each for each in self.maybe[name] if each.version != resource.version)
            if not others:
                self._settle((name,))
            else:
                self.maybe[name] = others
                held = self.held.get(name)
                if held is not None and held.version != resource.version:
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
            nacked=self.nacked,
            gated=self.gated,
            waiting_since=self.flights[0].at if self.flights else None,
            sent_at=self.sent_at,
            acked_at=self.acked_at,
            partial={n: self.held[n] for n in (*self.gated, *refusals.spoiled) if n in self.held},
        )
        return self.seen
