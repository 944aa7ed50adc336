"""One xDS stream without its socket: bytes in, bytes out, both variants.

A stream keeps what its client has, not a queue: each response is computed when it may be sent, from the
newest snapshot, so the latest target wins and a slow client costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, NamedTuple

from controlplane.xds.conversation import Conversation, Flight
from controlplane.xds.gate import Gate
from controlplane.xds.messages import Node, ProtocolError, Request, check_type_url, parse_node, parse_request
from controlplane.xds.snapshot import Resource, Snapshot, changes, relations
from controlplane.xds.type_urls import FULL_STATE
from controlplane.xds.view import Nack, Peer, StreamView, Variant

MAX_TYPES = 32  # on one stream
MAX_ERROR = 4096  # characters of a refusal that are kept


@dataclass(slots=True)
class Plan:
    """What the next response of a type has: changed resources, names taken away."""

    updates: dict[str, Resource]
    removed: list[str]
    waiting: bool = False


class Received(NamedTuple):
    """What a request was: the first one of its type, the ACK of our last response, or its refusal."""

    type_url: str
    nonce: str
    first: bool
    acked: bool
    nack: Nack | None


class Stream(ABC):
    """The protocol's state of one stream; ``SotwStream`` and ``DeltaStream`` are its variants.

    ``receive`` takes a request, ``publish`` a new target; after either, call ``next_response`` until it
    returns None, and send what it returns in that order. ``group`` is the caller's, for the view alone.

    Nothing is answered before a snapshot was published, nor while the client is ahead of it (``behind``).
    """

    variant: ClassVar[Variant]
    _message: ClassVar[type[Request]]

    def __init__(
        self,
        peer: Peer,
        now: datetime,
        *,
        type_url: str | None = None,
        identifier: str = "",
        full_state: frozenset[str] = FULL_STATE,
    ) -> None:
        """Start a stream; ``type_url`` is implied by a per-type service, None for an aggregated stream.

        ``identifier`` names this server in each response. ``full_state`` are the types whose
        state-of-the-world responses must list everything, because absence means deletion.
        """
        self.peer = peer
        self.since = now
        self.group: str | None = None
        self.node: Node | None = None
        self.snapshot: Snapshot | None = None
        self._implied = type_url
        self._identifier = identifier
        self._full_state = full_state
        self._conversations: dict[str, Conversation] = {}
        self._ordered: tuple[Conversation, ...] | None = None
        self._nonces = 0
        self._ahead = 0
        self._view: StreamView | None = None

    # -- what comes in

    def receive(self, data: bytes, now: datetime) -> Received:
        """Take one request, and return what it was.

        Raises:
            ProtocolError: If the client broke the protocol; the stream must be ended with that status.
        """
        request = parse_request(self._message, data)
        self._view = None
        if self.node is None:
            self.node = parse_node(request.node)
        conversation = self._conversations.get(request.type_url)
        type_url = conversation.type_url if conversation is not None else self._type_of(request)
        conversation = conversation or self._conversations.get(type_url)
        first = conversation is None
        if conversation is None:
            conversation = self._open(type_url, now)
        error = conversation.error
        acked = self._take(conversation, request, first=first, now=now)
        nack = conversation.error if not acked and conversation.error is not error else None
        return Received(type_url, request.response_nonce, first, acked, nack)

    def assign(self, group: str) -> None:
        """Name the group whose target this stream gets; for the view alone."""
        self.group = group
        self._view = None

    def publish(self, snapshot: Snapshot) -> None:
        """Set the target; the newest one wins."""
        old, self.snapshot = self.snapshot, snapshot
        self._view = None
        if old is None or old.order != snapshot.order or old.resources.keys() != snapshot.resources.keys():
            self._ordered = None
        if old is None:
            return
        for type_url, names in changes(old, snapshot).items():
            conversation = self._conversations.get(type_url)
            if conversation is not None:
                conversation.dirty.update(dict.fromkeys(names))

    @property
    def behind(self) -> bool:
        """True if the client has seen a newer revision than our snapshot's: answers are held."""
        return self.snapshot is not None and self._ahead > self.snapshot.revision

    def _type_of(self, request: Request) -> str:
        type_url = request.type_url or self._implied
        check_type_url(type_url or "")
        if self._implied is not None and type_url != self._implied:
            raise ProtocolError("INVALID_ARGUMENT", f"type_url: {type_url!r} is not {self._implied!r}")
        return type_url or ""

    def _open(self, type_url: str, now: datetime) -> Conversation:
        if len(self._conversations) >= MAX_TYPES:
            raise ProtocolError("RESOURCE_EXHAUSTED", f"more than {MAX_TYPES} types on one stream")
        conversation = self._conversations[type_url] = Conversation(type_url, now)
        self._ordered = None
        return conversation

    @abstractmethod
    def _take(self, conversation: Conversation, request: Request, *, first: bool, now: datetime) -> bool:
        """Apply a request: the answer to our last response, and the subscription; return whether it ACKed."""

    def _answer(self, conversation: Conversation, request: Request, now: datetime) -> bool:
        """A NACK is the presence of ``error_detail`` and nothing else; an ACK is its absence."""
        if request.HasField("error_detail"):
            conversation.refuse(request.error_detail.message[:MAX_ERROR].decode(errors="replace"), now)
            return False
        return conversation.accept(now)

    # -- what goes out

    def next_response(self, now: datetime) -> bytes | None:
        """Return the next response that may be sent now, or None; it counts as sent.

        At most one response per type is unanswered, and types go in push order.
        """
        snapshot = self.snapshot
        if snapshot is None or self.behind:
            return None
        if self._ordered is None:
            self._ordered = self._sort(snapshot)
        gate = None
        for conversation in self._ordered:
            if not conversation.due:
                continue
            gate = gate or Gate(self._conversations, snapshot)
            self._view = None
            if conversation.resync and not self._resync(conversation, snapshot):
                return None
            plan = self._plan(conversation, gate)
            if plan is not None:
                return self._send(conversation, plan, snapshot, now)
        return None

    @property
    def due(self) -> bool:
        """True if ``next_response`` may have something to send: worth a call."""
        return self.behind or any(c.due for c in self._conversations.values())

    def _sort(self, snapshot: Snapshot) -> tuple[Conversation, ...]:
        rank = {type_url: place for place, type_url in enumerate(snapshot.order)}
        served = [c for c in self._conversations.values() if snapshot.serves(c.type_url)]
        return tuple(sorted(served, key=lambda c: rank.get(c.type_url, len(rank))))

    def _resync(self, conversation: Conversation, snapshot: Snapshot) -> bool:
        """Look at every name again; return False if the client turns out to be ahead of us."""
        target = snapshot.of(conversation.type_url)
        if conversation.claims is not None:
            self._reconcile(conversation, conversation.claims, target)
            if self.behind:
                return False
            conversation.claims = None
        if conversation.wildcard:
            conversation.dirty.update(dict.fromkeys(target))
        conversation.dirty.update(dict.fromkeys((*conversation.held, *sorted(conversation.names))))
        conversation.resync = False
        return True

    @abstractmethod
    def _reconcile(
        self, conversation: Conversation, claims: Mapping[str, str], target: Mapping[str, Resource]
    ) -> None:
        """Compare the versions that a client brought with ours."""

    @abstractmethod
    def _plan(self, conversation: Conversation, gate: Gate) -> Plan | None:
        """Return what the next response of this type has, or None if there is none to send now."""

    @abstractmethod
    def _encode(self, conversation: Conversation, plan: Plan, snapshot: Snapshot, nonce: str) -> bytes:
        """Encode a response."""

    def _collect(self, conversation: Conversation, gate: Gate, limit: int | None, *, opening: bool) -> Plan:
        """Gather changes from the dirty names, up to ``limit`` of them; settled names are dropped."""
        plan = Plan({}, [])
        settled: list[str] = []
        conversation.gated.clear()
        for name in conversation.dirty:
            match self._settle(conversation, name, gate):
                case Resource() as resource:
                    plan.updates[name] = resource
                    if limit is not None and len(plan.updates) >= limit:
                        break
                case "remove":
                    plan.removed.append(name)
                case "wait":
                    plan.waiting = True
                    if opening:
                        break
                case _:
                    settled.append(name)
        for name in settled:
            del conversation.dirty[name]
            conversation.again.discard(name)
        return plan

    def _settle(self, conversation: Conversation, name: str, gate: Gate) -> Resource | str:
        """Return the resource to send, or ``remove``, ``wait`` or ``keep``."""
        if not conversation.wants(name):
            return "keep"
        target = gate.snapshot.of(conversation.type_url).get(name)
        if target is None:
            return self._leave(conversation, name, gate)
        held = conversation.held.get(name)
        forced = name in conversation.again or name in conversation.maybe
        if conversation.refuses(target):
            return held if held is not None and forced and name not in conversation.foreign else "keep"
        if held is not None and held.version == target.version:
            conversation.clear(name)
            if not forced:
                return "keep"
        unmet = gate.unmet(conversation, target)
        if unmet is not None:
            conversation.gated[name] = unmet
            return "wait"
        return target

    def _leave(self, conversation: Conversation, name: str, gate: Gate) -> Resource | str:
        """Decide on a name that the target does not have."""
        held = conversation.held.get(name)
        if held is None and name not in conversation.maybe:
            return self._absent(conversation, name)
        if not self._removable(conversation):
            return "keep"
        if (
            (conversation.type_url, name) in gate.in_use
            or gate.unknown(conversation.type_url)
            or (held is not None and gate.followed(held))
        ):
            resend = held is not None and name in conversation.again and name not in conversation.foreign
            return held if resend and held is not None else "wait"
        return "remove"

    @abstractmethod
    def _absent(self, conversation: Conversation, name: str) -> str:
        """Decide on a name that neither the target nor the client has."""

    @abstractmethod
    def _removable(self, conversation: Conversation) -> bool:
        """Return whether a resource of this type can be taken from the client at all."""

    def _send(self, conversation: Conversation, plan: Plan, snapshot: Snapshot, now: datetime) -> bytes:
        self._nonces += 1
        nonce = str(self._nonces)
        conversation.high = max(conversation.high, *(r.version.revision for r in plan.updates.values()), 0)
        data = self._encode(conversation, plan, snapshot, nonce)
        conversation.flight = Flight(nonce, plan.updates, tuple(plan.removed), now)
        conversation.nonce = nonce
        conversation.sent_at = now
        conversation.opened = True
        conversation.returning = False
        for name in (*plan.updates, *plan.removed):
            conversation.dirty.pop(name, None)
            conversation.again.discard(name)
        conversation.told.difference_update(plan.updates)
        conversation.told.update(conversation.names.intersection(plan.removed))
        self._trail(conversation.type_url, plan, snapshot)
        return data

    def _trail(self, type_url: str, plan: Plan, snapshot: Snapshot) -> None:
        """Have what follows the changed resources sent again: Envoy warms a changed cluster until then."""
        index = relations(snapshot).followers
        for name in plan.updates:
            for other, follower in index.get((type_url, name), ()):
                conversation = self._conversations.get(other)
                if conversation is not None and conversation.wants(follower):
                    conversation.again.add(follower)
                    conversation.dirty[follower] = None

    # -- what is seen

    def view(self) -> StreamView:
        """Return this stream as a value; the same one until something changes."""
        if self._view is None:
            snapshot = self.snapshot
            self._view = StreamView(
                peer=self.peer,
                variant=self.variant,
                since=self.since,
                node=self.node,
                group=self.group,
                revision=snapshot.revision if snapshot is not None else None,
                behind=self.behind,
                types=tuple(
                    c.view(served=snapshot is None or snapshot.serves(c.type_url))
                    for c in self._conversations.values()
                ),
            )
        return self._view
