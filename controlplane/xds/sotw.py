"""The state-of-the-world variant of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from controlplane._pb.discovery_pb2 import DiscoveryRequest
from controlplane.xds.conversation import Conversation
from controlplane.xds.gate import Gate
from controlplane.xds.messages import Ack, Acks, Request
from controlplane.xds.past import Past
from controlplane.xds.plan import Plan, Planner
from controlplane.xds.sets import recall, remember
from controlplane.xds.sharing import NOBODY, Table, more, shared
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.stream import Stream
from controlplane.xds.version import Version
from controlplane.xds.wire import set_hash, sotw_response


class SotwStream(Stream):
    """State of the world: each response of a full-state type has everything, of another what changed."""

    __slots__ = ()

    variant = "sotw"
    _message = DiscoveryRequest
    _acks = Acks()

    def _repeats(self, conversation: Conversation, ack: Ack) -> bool:
        return ack.nonce == conversation.nonce and conversation.lists(ack.names)

    def _take(self, conversation: Conversation, request: Request, *, first: bool, now: datetime) -> bool:
        assert isinstance(request, DiscoveryRequest)
        acked = False
        if first:
            if request.version_info:
                conversation.past = Past({"": request.version_info})
        else:
            acked = self._answer(conversation, request, now)
            if request.response_nonce != conversation.nonce:
                # Stale: the client repeats its names in the answer to our newest response.
                conversation.omit(request.resource_names)
                return acked
        conversation.replace(request.resource_names, full=conversation.type_url in self._full_state)
        return acked

    def _reconcile(
        self, conversation: Conversation, claims: Mapping[str, str], target: Mapping[str, Resource]
    ) -> None:
        # A client without names asks for nothing new, so the version of the set tells all that it has. One
        # with names may ask for more than before, and is answered.
        assert self.snapshot is not None
        version, past = self._parse(claims[""]), conversation.past
        past.whole = None
        if not conversation.wildcard:
            self._presume(conversation, version or Version(0, claims[""]), target)
        if version is None:
            return
        if conversation.wildcard and set_hash(target) == version.hash:
            conversation.hold(shared(target))
            conversation.opened = past.returning = not self.snapshot.earlier(version)
            if not conversation.opened:
                # The same content, once more under our version: by it we know it when it comes back.
                conversation.again = more(conversation.again, target.keys())
        else:
            if conversation.wildcard and not self.snapshot.strange(version):
                known = recall(conversation.type_url, version.hash)
                if known is not None:
                    conversation.hold(shared(known))
                    conversation.opened = past.returning = True
            if conversation.wildcard and not conversation.held:
                past.whole = version
            self._ahead = max(self._ahead, version.revision)
        conversation.high = version.revision

    def _presume(self, conversation: Conversation, version: Version, target: Mapping[str, Resource]) -> None:
        """Count what a returning client asks for by name as there: the last of it is known, the rest not.

        Until it has ours, anything may be in use by it, if it is of a kind that uses others. Of what is gone
        it may never get another one, so that does not count until there is another one.
        """
        assert self.snapshot is not None
        partial = conversation.type_url not in self._full_state  # absence takes nothing away
        past = conversation.past
        past.brought = {}
        known = {name: target[name] for name in conversation.names & target.keys()}
        last = (not self.snapshot.strange(version) and recall(conversation.type_url, version.hash)) or {}
        other = not partial and set_hash(known) != version.hash  # the version tells of all of them
        past.listed = conversation.names if other else NOBODY
        if not any(resource.needs for resource in target.values()):
            if other:  # nothing is in use by these
                past.whole = version
                if last:  # what goes, and what it refuses ours of, is listed as it has that
                    conversation.hold(shared({n: r for n, r in last.items() if n in conversation.names}))
            if partial and not any(resource.follows for resource in target.values()):
                past.brought = dict.fromkeys(conversation.names, version)
            return
        # If its last response had all that it asks for, the version of that set tells.
        whole = self.snapshot.earlier(version) and len(known) == len(conversation.names)
        if whole and set_hash(known) == version.hash:
            conversation.hold(shared(known))
            conversation.again = more(conversation.again, known.keys())
            return
        for name in known:
            conversation.presume(name, version, last.get(name))
        if partial:
            past.brought = dict.fromkeys(conversation.names - known.keys(), version)

    def _plan(self, conversation: Conversation, gate: Gate) -> Plan | None:
        whole = conversation.type_url in self._full_state
        # What a client brought it has already: it need not wait until all of the rest may be sent.
        opening = not conversation.opened and (whole or not conversation.past.foreign)
        if opening and (lost := gate.lost(conversation)):
            if self._withholds(conversation, gate, lost):
                return None
            # What we know of these is listed, for as long as they have to stay.
            opening = not lost <= conversation.held.keys()
        # Absence from other types' responses means nothing: their resources go when what refers to them goes.
        planner = Planner(conversation, gate, removable=whole, telling=False)
        plan = planner.collect(conversation.refusals.limit, opening=opening)
        if (
            plan.removed
            and self._brought
            and not (conversation.wildcard or self._has_spoken(conversation, gate))
        ):
            plan.removed = []  # they have gone since it came back, and before it has said what uses them
        if opening and plan.waiting:
            return None
        returning = conversation.past.returning
        early = gate.early(conversation, plan.updates) if returning else []
        for name in early:
            del plan.updates[name]
        if returning and (plan.removed or early):
            # What needs it may be in a request that we have not read: the answer to the unchanged set tells.
            if not gate.last(conversation.type_url):
                plan.removed = []
            return plan
        if opening and (conversation.wildcard or (whole and conversation.names)):
            return plan  # even an empty one: a client waits for its first response
        return plan if plan.updates or plan.removed else None

    def _withholds(self, conversation: Conversation, gate: Gate, lost: frozenset[str]) -> bool:
        """Return whether to wait with a full set that would take from a client what its routes still name.

        A client that asks for clusters by name (gRPC) is given the routes first, and drops the old ones
        itself. It may not ask for routes at all, or by another stream, or never drop those that have gone:
        whether it does tells its silence.
        """
        for other in self._conversations.values():
            if gate.snapshot.serves(other.type_url):
                self._compare(other, gate.snapshot)
        if not self._has_spoken(conversation, gate):
            return True
        return not lost <= conversation.held.keys() and gate.relied(conversation)

    def _has_spoken(self, conversation: Conversation, gate: Gate) -> bool:
        """Return whether a client has said what tells whether it uses this type, or is silent for long."""
        heard = self._heard_out or gate.spoken(conversation.type_url)
        self._unheard |= not heard
        return heard

    def _encode(
        self,
        conversation: Conversation,
        updates: Table,
        removed: tuple[str, ...],
        snapshot: Snapshot,
        nonce: str,
    ) -> bytes:
        url, resources = conversation.type_url, updates
        if url in self._full_state:
            resources = conversation.after(conversation.held, updates, removed)
        version, data = sotw_response(url, resources, conversation.high, nonce, self._identifier)
        remember(url, version, resources, self.group)
        return data
