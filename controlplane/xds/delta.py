"""The incremental variant of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice

from controlplane._pb.discovery_pb2 import DeltaDiscoveryRequest
from controlplane.xds.conversation import Conversation
from controlplane.xds.gate import Gate
from controlplane.xds.messages import Ack, Acks, Request
from controlplane.xds.mixtures import recall
from controlplane.xds.past import Past
from controlplane.xds.plan import Plan, Planner
from controlplane.xds.sharing import Table, more, shared
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.stream import Stream
from controlplane.xds.type_urls import TOGETHER
from controlplane.xds.version import Version
from controlplane.xds.wire import delta_response

_FEW = 4  # changes of a type that go one by one; more take turns of a slow link, and go together


class DeltaStream(Stream):
    """Incremental: the first response of a type has all that the client lacks, each later one one change.

    If more than a few wait, all go together, but of eager types: of those several are under way as it is.
    """

    __slots__ = ()

    variant = "delta"
    _message = DeltaDiscoveryRequest
    _acks = Acks()

    def _repeats(self, conversation: Conversation, ack: Ack) -> bool:
        return True

    def _take(self, conversation: Conversation, request: Request, *, first: bool, now: datetime) -> bool:
        assert isinstance(request, DeltaDiscoveryRequest)
        acked = False
        if first:
            claims = bool(request.initial_resource_versions)
            # Who brings what it does not name asked for everything, whatever the type.
            conversation.wildcard = not request.resource_names_subscribe and (
                claims or not conversation.explicit
            )
            if claims:
                conversation.past = Past(dict(request.initial_resource_versions), returning=True)
        elif request.response_nonce:
            acked = self._answer(conversation, request, now)
        # Subscriptions count whatever the nonce: no later message repeats them.
        conversation.subscribe(request.resource_names_subscribe, resend=not first)
        conversation.unsubscribe(request.resource_names_unsubscribe)
        return acked

    def _reconcile(
        self, conversation: Conversation, claims: Mapping[str, str], target: Mapping[str, Resource]
    ) -> None:
        assert self.snapshot is not None
        held: dict[str, Resource] = {}
        again: list[str] = []
        foreign: set[str] = set()
        for name, text in claims.items():
            if not conversation.wants(name):
                continue
            version, ours = self._parse(text), target.get(name)
            if ours is not None and version is not None and version == ours.version:
                held[name] = ours
                if self.snapshot.earlier(version):
                    # The same content, once more under our version: by it we know it when it comes back.
                    again.append(name)
                continue
            if (
                version is not None
                and not self.snapshot.strange(version)
                and (mixed := recall(name, version))
            ):
                held[name] = mixed
                continue
            held[name] = Resource(name, b"", version or Version(0, text))
            foreign.add(name)
            if version is not None:
                self._ahead = max(self._ahead, version.revision)
        conversation.past.foreign = foreign
        conversation.hold(held if foreign else shared(held))
        conversation.again = more(conversation.again, again)

    def _plan(self, conversation: Conversation, gate: Gate) -> Plan | None:
        returning = conversation.past.returning
        opening = not conversation.opened and not returning
        # What a returning client lacks it gets at once: one resource each would take a round trip each.
        many = opening or returning or conversation.type_url in TOGETHER
        sought = conversation.refusals.limit  # while a culprit is
        limit = sought or (None if many else 1)
        rivals, eager = conversation.rivals, conversation.window > 1
        planner = Planner(conversation, gate, removable=True, telling=True)
        plan = planner.collect(limit if eager else None, opening=opening)
        if rivals:
            self._order(conversation, plan, limit)
        elif sought is not None or len(plan.updates) <= _FEW:
            plan.updates = dict(islice(plan.updates.items(), limit))
        if opening:
            return (
                None if plan.waiting or not (conversation.wildcard or plan.updates or plan.removed) else plan
            )
        if returning:
            return self._welcome(conversation, plan, gate)
        if plan.updates and not rivals:
            plan.removed = []  # on their own, so that a NACK names its culprit
        return plan if plan.updates or plan.removed else None

    @staticmethod
    def _order(conversation: Conversation, plan: Plan, limit: int | None) -> None:
        """Let each find its place free: what leaves goes with what comes, and what moves before that.

        With a removal, all goes in one response: nothing is without its successor for a round trip.
        """
        latest = conversation.latest
        ordered = sorted(plan.updates.items(), key=lambda item: latest(item[0]) is None)
        most = None if plan.removed and conversation.refusals.limit is None else limit
        plan.updates = dict(ordered[:most])

    def _welcome(self, conversation: Conversation, plan: Plan, gate: Gate) -> Plan | None:
        """Plan the first answer to a client that brought resources of an earlier stream.

        Nothing that it has is taken away yet, but of the last type: what needs it may be in a request that we
        have not read. A client answers only after it has sent all its first requests, so an empty response
        serves to find out.
        """
        target = gate.snapshot.of(conversation.type_url)
        early = gate.early(conversation, plan.updates)
        for name in early:
            del plan.updates[name]
        leaving = any(name in conversation.held and name not in target for name in conversation.dirty)
        if not gate.last(conversation.type_url):
            plan.removed = [name for name in plan.removed if name not in conversation.held]
        return plan if plan.updates or plan.removed or leaving or early else None

    def _encode(
        self,
        conversation: Conversation,
        updates: Table,
        removed: tuple[str, ...],
        snapshot: Snapshot,
        nonce: str,
    ) -> bytes:
        return delta_response(
            conversation.type_url, updates.values(), removed, snapshot.revision, nonce, self._identifier
        )
