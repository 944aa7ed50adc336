"""One xDS stream without its socket: bytes in, bytes out, both variants.

A stream keeps what its client has, not a queue: each response is computed when it may be sent, from the
newest snapshot, so the latest target wins and a slow client costs nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from sys import intern
from typing import ClassVar

from controlplane.xds.conversation import WILDCARD, Conversation
from controlplane.xds.exchange import Flight
from controlplane.xds.gate import Gate
from controlplane.xds.messages import (
    MAX_HELD,
    Ack,
    Acks,
    Node,
    ProtocolError,
    Request,
    check_type_url,
    parse_node,
    parse_request,
)
from controlplane.xds.plan import Plan
from controlplane.xds.position import Position
from controlplane.xds.sharing import NOBODY, Table, shared
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.type_urls import BY_NAME, DRAINING, EAGER, FULL_STATE, LISTENED, LISTENER, RIVALS, Ref
from controlplane.xds.uses import Uses
from controlplane.xds.version import Version
from controlplane.xds.view import Peer, Received, StreamView, Variant, answered

MAX_TYPES = 32  # on one stream
WINDOW = 4  # unanswered responses of an eager type
MAX_ERROR = 4096  # characters of a refusal that are kept
_DAY = 86_400_000  # milliseconds: a store counts from the time at which it was made
_WEIGH_AFTER = 256 << 10  # bytes of requests that were no mere ACKs


class Stream(Position):
    """The protocol's state of one stream; ``SotwStream`` and ``DeltaStream`` are its variants.

    ``receive`` takes a request, ``publish`` a new target; after either, call ``next_response`` until it
    returns None, and send what it returns in that order. ``group`` and ``alone`` are the caller's, for the
    view alone. While it is ``hesitant`` call ``hear_out`` each time that a little while has passed.

    Nothing is answered before a snapshot was published, nor while the client is ahead of it (``behind``).
    """

    variant: ClassVar[Variant]
    _message: ClassVar[type[Request]]
    _acks: ClassVar[Acks]

    __slots__ = (
        "_brought",
        "_eager",
        "_heard",
        "_heard_out",
        "_horizon",
        "_implied",
        "_listening",
        "_unheard",
        "alone",
        "group",
        "node",
        "peer",
        "since",
    )

    def __init__(
        self,
        peer: Peer,
        now: datetime,
        *,
        type_url: str | None = None,
        identifier: str = "",
        full_state: frozenset[str] = FULL_STATE,
        eager: frozenset[str] = EAGER,
    ) -> None:
        """Start a stream; ``type_url`` is implied by a per-type service, None for an aggregated stream.

        ``identifier`` names this server in each response. ``full_state`` are the types whose
        state-of-the-world responses must list everything, because absence means deletion. ``eager`` are
        those of which up to ``WINDOW`` responses may be unanswered, instead of one.
        """
        super().__init__(identifier, full_state)
        self.peer = peer
        self.since = now
        self.group: str | None = None
        self.alone = ""
        self.node: Node | None = None
        self._implied = type_url
        self._eager = eager
        self._heard = 0  # bytes, since what is kept was weighed
        self._horizon = 0  # revision that no store can have reached when the client last told what it brought
        self._brought = False  # something of an earlier stream
        self._heard_out = type_url is not None  # all that the client asks for was read
        self._listening = False  # a listener was sent that the client had not
        self._unheard = False  # an answer waits for requests that may not have been read

    # -- what comes in

    def settle(self, data: bytes, now: datetime) -> Received | None:
        """Take a small request if it is the ACK of a client at rest, the most frequent one; else return None.

        It takes the same few microseconds however much the client has.
        """
        ack = self._acks.read(self._message, data)
        known = self._conversations.get(ack.type_url) if ack is not None else None
        if ack is None or known is None or not known.calm or self._uses is not None:
            return None
        return self._accept(known, ack, now) if self._repeats(known, ack) else None

    def receive(self, data: bytes, now: datetime) -> Received:
        """Take one request, and return what it was.

        Raises:
            ProtocolError: If the client broke the protocol; the stream must be ended with that status.
        """
        ack = self._acks.get(data)
        if ack is not None and self.node is not None:
            known = self._conversations.get(ack.type_url)
            if known is not None and self._repeats(known, ack):
                return self._accept(known, ack, now)
        request = parse_request(self._message, data)
        self._acks.learn(data, request)
        if self.node is None:
            self.node = parse_node(request.node)
        conversation = self._conversations.get(request.type_url)
        type_url = conversation.type_url if conversation is not None else self._type_of(request)
        conversation = conversation or self._conversations.get(type_url)
        first = conversation is None
        if conversation is None:
            conversation = self._open(type_url, now)
        self._view = conversation.seen = conversation.past.compared = None
        conversation.calm = False
        self._note(conversation)
        error = conversation.refusals.error
        acked = self._take(conversation, request, first=first, now=now)
        if self._uses is not None:
            self._wake(self._uses.release())
        if conversation.quiet:
            self._drop(conversation)
        self._heard += len(data)
        if self._heard > _WEIGH_AFTER:
            self._weigh()
        if first and conversation.past.claims is not None:
            self._horizon = int(now.timestamp() * 1000) + _DAY
            self._brought = self._unsure = True
        nack = conversation.refusals.error
        return Received(type_url, first, acked, nack if not acked and nack is not error else None)

    @property
    def hesitant(self) -> bool:
        """True while something waits for what the client may say of itself."""
        return self._unheard or (self._uses is not None and self._uses.hesitant)

    def hear_out(self) -> None:
        """Take it that the client has asked for all that it has, and dropped what it does not use."""
        self._heard_out = True
        if self._uses is not None:
            self._wake(self._uses.hear_out())

    def assign(self, group: str) -> None:
        """Name the group whose target this stream gets; for the view alone."""
        self.group = intern(group)
        self._view = None

    def leave(self, why: str) -> None:
        """Say why the client is left alone, '' if it is not; for the view alone."""
        if why != self.alone:
            self.alone = why
            self._view = None

    @property
    def fresh(self) -> bool:
        """True while the client has nothing, as far as it told."""
        return self._nonces == 0 and not self._brought

    @property
    def ahead(self) -> int:
        """The highest revision that the client brought and that was not our content."""
        return self._ahead

    @property
    def strange(self) -> tuple[Ref, ...]:
        """What the client has from another store, where it differs from the target; nothing once trusted."""
        snapshot = self.snapshot
        if not self._unsure or snapshot is None:
            return ()
        found: list[Ref] = []
        suspect = False
        for conversation in self._conversations.values():
            type_url, target = conversation.type_url, snapshot.of(conversation.type_url)
            if snapshot.serves(type_url):
                self._compare(conversation, snapshot)
                suspect |= conversation.past.claims is not None
            past = conversation.past
            if past.whole is not None and snapshot.strange(past.whole):
                found.append((type_url, WILDCARD))
            for name in past.foreign:
                version, ours = conversation.held[name].version, target.get(name)
                if snapshot.strange(version):
                    suspect = True
                    if ours is None or ours.version != version:
                        found.append((type_url, name))
        self._unsure = suspect or bool(found)
        return tuple(sorted(found))

    def trust(self) -> None:
        """Take what the client has brought for ours: it is not looked through again for each response."""
        self._unsure = False
        self._view = None

    def _compare(self, conversation: Conversation, snapshot: Snapshot) -> None:
        """Compare what the client brought with the target, once for each."""
        past = conversation.past
        if past.claims is not None and past.compared is not snapshot:
            self._view = conversation.seen = None
            if self._uses is not None:  # what is held comes to be another one as a whole
                self._wake(self._uses.stop())
            self._reconcile(conversation, past.claims, snapshot.of(conversation.type_url))
            past.compared = snapshot

    def _weigh(self) -> None:
        """End a client that has more kept than it may; looked at once in a while, as it takes a while."""
        self._heard = 0
        weight = sum(conversation.weight() for conversation in self._conversations.values())
        if weight > MAX_HELD:
            most = f"at most {MAX_HELD >> 20} are allowed"
            text = f"names and versions of {weight >> 20} MiB on one stream, {most}"
            raise ProtocolError("RESOURCE_EXHAUSTED", text)

    def _type_of(self, request: Request) -> str:
        type_url = request.type_url or self._implied
        check_type_url(type_url or "")
        if self._implied is not None and type_url != self._implied:
            raise ProtocolError("INVALID_ARGUMENT", f"type_url: {type_url!r} is not {self._implied!r}")
        return type_url or ""

    def _open(self, type_url: str, now: datetime) -> Conversation:
        if len(self._conversations) >= MAX_TYPES:
            raise ProtocolError("RESOURCE_EXHAUSTED", f"more than {MAX_TYPES} types on one stream")
        type_url = intern(type_url)
        window = WINDOW if type_url in self._eager else 1
        rivals = type_url in RIVALS
        conversation = Conversation(type_url, since=now, window=window, rivals=rivals)
        self._conversations[type_url] = conversation
        conversation.before = self._uses.before if self._uses is not None else None
        conversation.explicit = type_url in BY_NAME
        self._ordered = None
        return conversation

    def _accept(self, conversation: Conversation, ack: Ack, now: datetime) -> Received:
        """Take the most frequent request: an ACK of the newest response that asks for nothing."""
        self._view = conversation.seen = None
        if conversation.calm and self._uses is None:
            return answered(ack.type_url, conversation.settle(ack.nonce, now))
        flight = conversation.land(ack.nonce)
        if flight is not None:
            conversation.accept(flight, now)
        if conversation.dirty:
            self._note(conversation)
        if self._uses is not None:
            self._wake(self._uses.release())
        return answered(ack.type_url, flight is not None)

    @abstractmethod
    def _repeats(self, conversation: Conversation, ack: Ack) -> bool:
        """Return whether such an ACK is of the newest response, and leaves the subscription as it is."""

    @abstractmethod
    def _take(self, conversation: Conversation, request: Request, *, first: bool, now: datetime) -> bool:
        """Apply a request: the answer to our last response, and the subscription; return whether it ACKed."""

    def _answer(self, conversation: Conversation, request: Request, now: datetime) -> bool:
        """A NACK is the presence of ``error_detail`` and nothing else; an ACK is its absence."""
        flight = conversation.land(request.response_nonce)
        if flight is None:
            return False
        if request.HasField("error_detail"):
            words = request.error_detail.message[:MAX_ERROR].decode(errors="replace")
            conversation.refuse(flight, words, now)
            return False
        conversation.accept(flight, now)
        return True

    # -- what goes out

    def next_response(self, now: datetime) -> bytes | None:
        """Return the next response that may be sent now, or None; it counts as sent.

        At most one response per type is unanswered (``WINDOW`` of an eager one), and types go in push order.
        """
        snapshot = self.snapshot
        self._unheard = False
        if self._uses is not None:
            self._wake(self._uses.release())
        if not self._pending or snapshot is None or self.behind:
            return None
        gate, uses = None, self._uses or Uses(self._conversations)
        for conversation in self._waiting(snapshot):
            if not conversation.due:
                if conversation.quiet:
                    self._drop(conversation)
                continue
            self._view = conversation.seen = None
            conversation.calm = False
            if conversation.resync:
                gate = None  # what is held may come to be another one
                if not self._resync(conversation, snapshot):
                    return None
            gate = gate or Gate(self._conversations, snapshot, uses)
            plan = self._plan(conversation, gate)
            self._uses = uses or None
            if plan is not None:
                return self._send(conversation, plan.updates, tuple(plan.removed), snapshot, now)
            conversation.preferred = NOBODY  # what still waits has to wait for something else
            if conversation.quiet:
                self._drop(conversation)
        return None

    def _wake(self, refs: Iterable[Ref]) -> None:
        """Have removals looked at again that waited."""
        for type_url, name in refs:
            conversation = self._conversations[type_url]
            conversation.dirty[name] = None
            self._note(conversation)
        self._uses = self._uses or None

    def _waiting(self, snapshot: Snapshot) -> tuple[Conversation, ...]:
        """Return what may have something to say, in push order."""
        if self._ordered is None:
            self._ordered = self._sort(snapshot)
        return tuple(c for c in self._ordered if c in self._pending)

    def _sort(self, snapshot: Snapshot) -> tuple[Conversation, ...]:
        rank = {type_url: place for place, type_url in enumerate(snapshot.order)}
        served = [c for c in self._conversations.values() if snapshot.serves(c.type_url)]
        return tuple(sorted(served, key=lambda c: rank.get(c.type_url, len(rank))))

    def _resync(self, conversation: Conversation, snapshot: Snapshot) -> bool:
        """Look at every name again; return False if the client turns out to be ahead of us."""
        self._compare(conversation, snapshot)
        if self.behind:
            return False
        conversation.past.claims = conversation.past.compared = None
        if conversation.wildcard:
            conversation.dirty.update(dict.fromkeys(snapshot.of(conversation.type_url)))
        conversation.dirty.update(dict.fromkeys((*conversation.held, *sorted(conversation.names))))
        if self._listening and conversation.type_url in LISTENED:
            conversation.resend(tuple(conversation.held))
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

    def _parse(self, text: str) -> Version | None:
        """Return a version that a client brought, or None for one that no store of ours can have given it.

        Whoever is ahead of every clock must not be waited for, nor count for a new store. A server whose own
        revisions are beyond that counts in another way, and nothing can be said.
        """
        version = Version.parse(text)
        if version is None or self.snapshot is None or self.snapshot.revision > self._horizon:
            return version
        return version if version.revision <= self._horizon else None

    def _send(
        self,
        conversation: Conversation,
        updates: Table,
        removed: tuple[str, ...],
        snapshot: Snapshot,
        now: datetime,
    ) -> bytes:
        self._nonces += 1
        type_url = conversation.type_url
        nonce, updates = str(self._nonces), shared(updates)
        for resource in updates.values():
            conversation.high = max(conversation.high, resource.version.revision)
        data = self._encode(conversation, updates, removed, snapshot, nonce)
        if type_url == LISTENER:
            if any(name in conversation.held for name in (*updates, *removed)):
                self._drain()
            if any(conversation.latest(name) is None for name in updates):
                self._listen()
        conversation.depart(Flight(nonce, updates, removed, now))
        target = snapshot.of(type_url)
        # What was sent once more though the target lacks it has to go all the same.
        conversation.dirty.update((name, None) for name in updates if name not in target)
        self._view = None
        if not conversation.dirty:
            self._drop(conversation)
        if type_url in snapshot.leading:
            self._trail(type_url, updates, snapshot)
        return data

    def _drain(self) -> None:
        """Note what a listener may use that changes or goes: connections drain on it, and still use that."""
        for type_url in DRAINING & self._conversations.keys():
            used = self._conversations[type_url]
            used.draining |= {name for name in used.names if used.latest(name) is not None}

    def _listen(self) -> None:
        """Have sent what a new listener of the client waits for, though the client tells that it has that."""
        self._listening = True
        for type_url in LISTENED & self._conversations.keys():
            used = self._conversations[type_url]
            if self._brought and used.held and used.wildcard and not used.resync:
                used.resend(tuple(used.held))
                self._note(used)

    def _trail(self, type_url: str, updates: Iterable[str], snapshot: Snapshot) -> None:
        """Have what follows the changed resources sent again: Envoy warms a changed cluster until then."""
        for other, followers in snapshot.relations.trailing(type_url, updates).items():
            conversation = self._conversations.get(other)
            wanted = list(filter(conversation.wants, followers)) if conversation is not None else []
            if conversation is not None and wanted:
                conversation.calm = False
                conversation.resend(wanted)
                self._note(conversation)

    # -- what is seen

    def view(self) -> StreamView:
        """Return this stream as a value; the same one until something changes."""
        if self._view is None:
            snapshot, strange = self.snapshot, self.strange
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
                strange=strange,
                alone=self.alone,
            )
        return self._view
