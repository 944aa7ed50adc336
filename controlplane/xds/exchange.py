"""What a client has of one type, and what is under way to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from controlplane.xds.mixtures import by_owner
from controlplane.xds.parts import Part
from controlplane.xds.sharing import NOTHING, Table
from controlplane.xds.snapshot import Resource
from controlplane.xds.type_urls import Ref
from controlplane.xds.view import TypeView


class Flight(NamedTuple):
    """A response that the client has not answered: what is new in it, and what it takes away.

    ``after`` is what a client at rest has once it accepted it.
    """

    nonce: str
    updates: Table
    removed: tuple[str, ...]
    at: datetime
    after: Table = NOTHING


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
        before: Where to note what each needed before that changes, while somebody counts.
    """

    type_url: str
    calm: bool = False
    dirty: dict[str, None] = field(default_factory=dict)
    held: Table = field(default_factory=lambda: NOTHING)
    flights: tuple[Flight, ...] = ()
    nonce: str = ""
    high: int = 0
    sent_at: datetime | None = None
    acked_at: datetime | None = None
    seen: TypeView | None = None
    before: dict[Ref, frozenset[Ref]] | None = None
    _own: dict[str, Resource] | None = None  # what is held, if nobody else has it

    def settle(self, nonce: str, now: datetime) -> bool:
        """Take the ACK of the only response to a client at rest; return whether it is of that."""
        if not self.flights or self.flights[0].nonce != nonce:
            return False
        # It still asks for what it was sent, and has what it had then.
        self.held, self.flights, self.acked_at = self.flights[0].after, (), now
        return True

    def own(self) -> dict[str, Resource]:
        """Return what is held, to be changed; whoever shares it keeps what it has."""
        if self._own is None:
            self.held = self._own = dict(self.held)
        return self._own

    def hold(self, table: Table) -> None:
        """Hold what others may hold too."""
        self.held, self._own = table, None

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

    def owners(self) -> dict[str, Part]:
        """Return each owner's part in what the client will have once it has accepted what is under way."""
        coming = (name for flight in self.flights for name in flight.updates)
        return by_owner(self.latest(name) for name in (*self.held, *coming))
