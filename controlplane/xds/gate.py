"""Make before break, per stream: when a resource may go to a client, and when one may be taken away.

Envoy does not warm routes, so a route may name a cluster only after this client has ACKed it; and a cluster
may go only after this client ACKed routes that no longer name it. Source: xDS protocol, "Eventual consistency
considerations"; seen: ordering by sending alone fails requests in more than half of the cluster swaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from controlplane.xds.conversation import Conversation
from controlplane.xds.snapshot import Ref, Resource, Snapshot


@dataclass(frozen=True)
class Gate:
    """The rules for one look at a stream: its conversations and its target.

    What is costly to find is found at most once, so a gate serves only while nothing changes.
    """

    conversations: Mapping[str, Conversation]
    snapshot: Snapshot

    def unmet(self, conversation: Conversation, resource: Resource) -> Ref | None:
        """Return a resource that the client must answer before this one may be sent, or None.

        - Only for a stream with a wildcard subscription to some type that this resource needs. A client that
          asks for everything by name (gRPC) learns of a cluster from the route, and would wait for ever.
        - Only what the client's present version does not need already: it serves that one now, so a change
          away from an emptied cluster is never held up. If it may have one of several versions (under way, or
          left unanswered), only what all of them need counts.
        - A type that the stream never asked for, or a resource that the target does not have, cannot be
          waited for.
        - Where the client has no version of this resource, there is nothing to stay on: it is enough that the
          need was answered, even by a NACK, even hollow. One that comes back stays on what it brought, whose
          needs are unknown.
        """
        if not resource.needs:
            return None
        name, held = resource.name, conversation.held.get(resource.name)
        coming = [flight.updates[name] for flight in conversation.flights if name in flight.updates]
        versions = [each for each in (held, conversation.maybe.get(name), *coming) if each is not None]
        known = frozenset.intersection(*(each.needs for each in versions)) if versions else frozenset()
        new = resource.needs - known
        if not new:
            return None
        subscribed = [self.conversations.get(type_url) for type_url in {ref[0] for ref in resource.needs}]
        if not any(other is not None and other.wildcard for other in subscribed):
            return None
        lenient = not coming and held is None
        for ref in new:
            if not self._met(ref, lenient=lenient):
                return ref
        return None

    def _met(self, ref: Ref, *, lenient: bool) -> bool:
        type_url, name = ref
        other = self.conversations.get(type_url)
        target = self.snapshot.of(type_url).get(name)
        if target is None:
            return True
        if not lenient and target.hollow:
            return False
        if other is None:
            return True
        firm = other.firm(name)
        if lenient:
            return firm is not None or other.refuses(target) or not other.wants(name)
        return firm is not None and not firm.hollow

    @cached_property
    def in_use(self) -> frozenset[Ref]:
        """Everything that something the client may have needs."""
        found: set[Ref] = set()
        for conversation in self.conversations.values():
            for resource in conversation.holdings():
                found |= resource.needs
        return frozenset(found)

    @cached_property
    def _needing(self) -> frozenset[tuple[str, str]]:
        held = {
            (conversation.type_url, needed)
            for conversation in self.conversations.values()
            for resource in conversation.holdings()
            for needed, _ in resource.needs
        }
        return self.snapshot.relations.needing | held

    def unknown(self, type_url: str) -> bool:
        """Return whether the client has resources of another server that might need one of this type.

        Which types need which is read off the resources that we know; between types that we know nothing of,
        the later one in push order needs the earlier one. What follows another resource (endpoints their
        cluster) goes after what it follows is gone.
        """
        following, order = self.snapshot.relations.following, self.snapshot.order
        rank = {name: place for place, name in enumerate(order)}
        mine = rank.get(type_url, len(order))
        for other in self.conversations.values():
            url = other.type_url
            if not other.foreign or url == type_url:
                continue
            if (url, type_url) in self._needing or (type_url, url) in following:
                return True
            unrelated = (type_url, url) not in self._needing and (url, type_url) not in following
            if unrelated and rank.get(url, len(order)) > mine:
                return True
        return False

    def followed(self, resource: Resource) -> bool:
        """Return whether the client still has what this resource follows."""
        if resource.follows is None:
            return False
        leader = self.conversations.get(resource.follows[0])
        return leader is not None and resource.follows[1] in leader.held
