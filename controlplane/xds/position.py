"""Where a stream is, and how it takes a new target: what is touched of thousands when one changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from controlplane.xds.conversation import Conversation
from controlplane.xds.exchange import Flight
from controlplane.xds.memory import on_release
from controlplane.xds.sharing import Table, later, shared
from controlplane.xds.snapshot import Snapshot, difference
from controlplane.xds.uses import Uses
from controlplane.xds.view import StreamView


@dataclass(frozen=True, slots=True)
class Push:
    """How a stream took a target of which one resource changed: any other one in its position does the same.

    Attributes:
        kind: Of the stream.
        identifier: Of the server.
        full_state: The types whose responses have everything.
        before: The target before.
        ahead: The highest revision that the client brought.
        nonces: How many responses it was sent.
        type_url: The type that it is sent.
        held: What the client has of that.
        high: The highest revision that it has seen of that.
        snapshot: The target.
        at: When it is sent.
        flights: What is under way then.
        count: How many responses it was sent then.
        highest: The highest revision that it has seen then.
        data: The response.
    """

    kind: type[Position]
    identifier: str
    full_state: frozenset[str]
    before: Snapshot
    ahead: int
    nonces: int
    type_url: str
    held: Table
    high: int
    snapshot: Snapshot
    at: datetime
    flights: tuple[Flight, ...]
    count: int
    highest: int
    data: bytes


_latest: Push | None = None


def _forget() -> None:
    global _latest  # noqa: PLW0603 - the same
    _latest = None


on_release(_forget)


class Position(ABC):
    """What tells, of a stream, how it takes a target.

    It is apart because Python sorts the slots of a class by name: for each of thousands of streams, half of
    the memory has to be fetched.

    Attributes:
        snapshot: The target; None before there is one.
    """

    __slots__ = (
        "_ahead",
        "_conversations",
        "_full_state",
        "_identifier",
        "_nonces",
        "_ordered",
        "_pending",
        "_unsure",
        "_uses",
        "_view",
        "snapshot",
    )

    def __init__(self, identifier: str, full_state: frozenset[str]) -> None:
        self.snapshot: Snapshot | None = None
        self._identifier = identifier
        self._full_state = full_state
        self._conversations: dict[str, Conversation] = {}
        self._ordered: tuple[Conversation, ...] | None = None
        self._pending: tuple[Conversation, ...] = ()  # that may have something to say
        self._nonces = 0
        self._ahead = 0
        self._unsure = False  # whether what the client brought is ours
        self._uses: Uses | None = None  # while removals wait
        self._view: StreamView | None = None

    @property
    def behind(self) -> bool:
        """True if the client has seen a newer revision than our snapshot's: answers are held."""
        return self.snapshot is not None and self.snapshot.behind(self._ahead)

    @property
    def due(self) -> bool:
        """True if ``next_response`` may have something to send: worth a call."""
        return bool(self._pending) and (self.behind or any(c.due for c in self._pending))

    def publish(self, snapshot: Snapshot) -> bool:
        """Set the target; the newest one wins. Return whether there may be something to send."""
        old, self.snapshot = self.snapshot, snapshot
        self._view = None
        new = None if old is None else difference(old, snapshot)
        if new is None or new.moved:
            self._ordered = None
            for conversation in self._conversations.values():
                conversation.seen = None
        for type_url, names in new.names.items() if new is not None else ():
            changed = self._conversations.get(type_url)
            if changed is not None and changed.mark(names):
                self._note(changed)
        return bool(self._pending)

    def push(self, snapshot: Snapshot, now: datetime) -> bytes | None:
        """Set the target, and return the next response if that can be told at once; it counts as sent.

        It is what ``publish`` and ``next_response`` come to for the most frequent change: one resource, that
        rests on nothing new, to a client that accepted all before. None means: look, by ``next_response``.
        """
        push = self._alike(snapshot, now) or self._single(snapshot, now)
        if push is None:
            self.publish(snapshot)
            return None
        conversation = self._conversations[push.type_url]
        self.snapshot = snapshot
        self._view = conversation.seen = None
        # Its numbers too: one object for thousands of streams, not one for each.
        self._nonces, conversation.high = push.count, push.highest
        conversation.flights = push.flights
        conversation.nonce, conversation.sent_at = push.flights[0].nonce, now
        return push.data

    def _alike(self, snapshot: Snapshot, now: datetime) -> Push | None:
        """Return how the stream before took this target, if it was in the same position, as most are."""
        push = _latest
        if push is None or push.snapshot is not snapshot or push.before is not self.snapshot:
            return None
        conversation = self._conversations.get(push.type_url)
        same = (
            conversation is not None
            and conversation.calm
            and not conversation.flights
            and not self._pending
            and not self._unsure
            and push.held is conversation.held
            and push.high == conversation.high
            and push.nonces == self._nonces
            and push.ahead == self._ahead
            and push.at is now
            and push.kind is type(self)
            and push.full_state is self._full_state
            and push.identifier == self._identifier
        )
        return push if same else None

    def _single(self, snapshot: Snapshot, now: datetime) -> Push | None:
        """Return how to take a target at once, or None if more has to be known."""
        global _latest  # noqa: PLW0603 - thousands of streams take the same one in a row
        if self.snapshot is None or self._pending or self._unsure or snapshot.behind(self._ahead):
            return None
        single = difference(self.snapshot, snapshot).single
        if single is None or single.type_url in self._full_state or single.type_url in snapshot.leading:
            return None
        url, resource = single
        conversation = self._conversations.get(url)
        if conversation is None or not conversation.calm or conversation.flights:
            return None
        table, high = conversation.held, conversation.high
        held = table.get(resource.name)
        if held is None or held.version.hash == resource.version.hash or not resource.needs <= held.needs:
            return None
        count, highest = self._nonces + 1, max(high, resource.version.revision)
        nonce, updates = str(count), shared({resource.name: resource})
        conversation.high = highest
        data = self._encode(conversation, updates, (), snapshot, nonce)
        flights = (Flight(nonce, updates, (), now, later(table, updates)),)
        _latest = Push(
            kind=type(self),
            identifier=self._identifier,
            full_state=self._full_state,
            before=self.snapshot,
            ahead=self._ahead,
            nonces=self._nonces,
            type_url=url,
            held=table,
            high=high,
            snapshot=snapshot,
            at=now,
            flights=flights,
            count=count,
            highest=highest,
            data=data,
        )
        return _latest

    @abstractmethod
    def _encode(
        self,
        conversation: Conversation,
        updates: Table,
        removed: tuple[str, ...],
        snapshot: Snapshot,
        nonce: str,
    ) -> bytes:
        """Encode a response."""

    def _note(self, conversation: Conversation) -> None:
        """Note that a type may have something to say."""
        if conversation not in self._pending:
            self._pending += (conversation,)

    def _drop(self, conversation: Conversation) -> None:
        """Note that a type has nothing to say."""
        self._pending = tuple(other for other in self._pending if other is not conversation)
        conversation.dirty = {}  # an emptied one keeps its memory
