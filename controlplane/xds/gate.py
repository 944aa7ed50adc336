"""Make before break, per stream: when a resource may go to a client, and when one may be taken away.

Envoy does not warm routes, so a route may name a cluster only after this client has ACKed it; and a cluster
may go only after this client ACKed routes that no longer name it. Source: xDS protocol, "Eventual consistency
considerations"; seen: ordering by sending alone fails requests in more than half of the cluster swaps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from controlplane.xds.conversation import Conversation
from controlplane.xds.mixtures import mixture, robs
from controlplane.xds.parts import Part
from controlplane.xds.past import NO_PAST
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.type_urls import DRAINING, KEPT, LISTENER, Ref
from controlplane.xds.uses import Uses, count


@dataclass(frozen=True)
class Gate:
    """The rules for one look at a stream: its conversations and its target.

    What is costly to find is found at most once, so a gate serves only while nothing changes.
    """

    conversations: Mapping[str, Conversation]
    snapshot: Snapshot
    uses: Uses

    def goal(self, conversation: Conversation, target: Resource) -> tuple[Resource | None, Ref | None]:
        """Return what may be sent of a target, and what the client must answer before it may have all of it.

        - Only a stream with a wildcard subscription to some type that this resource needs waits. A client
          that asks for everything by name (gRPC) learns of a cluster from the route, and would wait for ever.
        - Only what the client's present version does not need already is waited for: it serves that one now,
          so a change away from an emptied cluster is never held up. If it may have one of several versions
          (under way, or left unanswered), only what all of them need counts.
        - A type that the stream never asked for, or a resource that the target does not have, cannot be
          waited for; nor what the client does not ask for though it has what that follows: the endpoints of a
          cluster that has none, or gets them from elsewhere. Until it has that, it may still ask.
        - Where the client has no version of this resource, there is nothing to stay on: it is enough that the
          need was answered, even by a NACK, even hollow. One that comes back stays on what it brought, whose
          needs are unknown.
        - What is needed of the same type is waited for only where there is a version to stay on: a first
          response has all of its type.
        - What is needed may be there without the part that this resource is about: a host stays on its former
          routes until the others have it too.
        - Of a resource that has parts, those that must wait stay as the client has them, and the others go.
          An owner's part may come from a resource of another name: who shares hosts with whom changes.
        """
        if not target.needs:
            return target, None
        name, held = target.name, conversation.held.get(target.name)
        coming = [flight.updates[name] for flight in conversation.flights if name in flight.updates]
        versions = [each for each in (held, *conversation.maybe.get(name, ()), *coming) if each is not None]
        known = frozenset.intersection(*(each.needs for each in versions)) if versions else frozenset()
        if target.needs <= known or not self._concerns(target):
            return target, None
        had = self._had(conversation, target, versions)
        known = known.union(*(part.needs for part in had.values()))
        met = partial(self._met, finder=held or target) if versions or had else self._answered
        new = target.needs - known
        if not versions:
            new = frozenset(ref for ref in new if ref[0] != conversation.type_url)
        missing = [ref for ref in new if not met(ref)] if target.parts else self._first(new, met)
        if not missing:
            return target, None
        stays = self._mixed(conversation, target, known, frozenset(missing), had) if versions or had else None
        return stays, min(missing)

    def _had(
        self, conversation: Conversation, target: Resource, versions: Sequence[Resource]
    ) -> dict[str, Part]:
        """Return the parts that the client has in other resources, of owners that are new in this one."""
        if target.parts is None or any(each.parts is None for each in versions):
            return {}
        there = {owner for each in versions if each.parts is not None for owner in each.parts.of}
        owners = self._owners(conversation)
        return {owner: owners[owner] for owner in target.parts.of if owner not in there and owner in owners}

    def _owners(self, conversation: Conversation) -> dict[str, Part]:
        """Return each owner's part in what the client has of a type."""
        found = self._known.get(conversation.type_url)
        if found is None:
            found = self._known[conversation.type_url] = conversation.owners()
        return found

    @cached_property
    def _known(self) -> dict[str, dict[str, Part]]:
        return {}

    def _concerns(self, target: Resource) -> bool:
        subscribed = [self.conversations.get(type_url) for type_url in {ref[0] for ref in target.needs}]
        return any(other is not None and other.wildcard for other in subscribed)

    @staticmethod
    def _first(refs: Iterable[Ref], met: Callable[[Ref], bool]) -> list[Ref]:
        """Return at most one: there may be thousands."""
        return next(([ref] for ref in refs if not met(ref)), [])

    def _met(self, ref: Ref, finder: Resource | None = None) -> bool:
        """Return whether what is needed is there and of use, for the finder if there is one."""
        type_url, name = ref
        other, target = self.conversations.get(type_url), self.snapshot.of(type_url).get(name)
        if target is None or self._unasked(other, target):
            return True
        if other is None:
            return target.follows is None and not target.hollow
        if target.hollow:
            return False
        firm = other.firm(name)
        # Endpoints that it brought may be none: they serve nobody until it has ours.
        brought = target.follows is not None and name in other.past.foreign
        there = firm is not None and not firm.hollow and not brought
        if finder is None or target.parts is None:
            return there
        wanted = target.parts.found(finder.name)
        if wanted:
            return there and self._finds(finder, other, target, wanted)
        # By a listener: routes that are refused must not keep the hosts of others from it.
        return there or (target.parts.offering and other.refusals.has(target))

    def _unasked(self, other: Conversation | None, target: Resource) -> bool:
        """Return whether the client has what this follows, as it is to be, and does not ask for this.

        It would have asked before it accepted that: Envoy withholds the ACK of a cluster until it has its
        endpoints.
        """
        if target.follows is None or (other is not None and (other.wants(target.name) or other.widening)):
            return False
        type_url, name = target.follows
        leader, goal = self.conversations.get(type_url), self.snapshot.of(type_url).get(name)
        if leader is None or goal is None:
            return True
        held = leader.held.get(name)
        if held is None or held is not leader.latest(name) or name in leader.maybe:
            return False
        return held.version == goal.version or leader.refusals.has(goal)

    def _finds(
        self, finder: Resource, other: Conversation, target: Resource, wanted: frozenset[tuple[str, str]]
    ) -> bool:
        """Return whether all is there that a finder finds in the target and found where it comes from.

        If it is unknown what was there, one thing of it is enough: the others may wait without an end.
        """
        left = (other.held.get(name) for url, name in finder.needs if url == other.type_url)
        former = (each.parts for each in left if each is not None and each.parts is not None)
        before = {what for each in former for _, what in each.found(finder.name)}
        before &= {what for _, what in wanted}
        coming = (flight.updates.get(target.name) for flight in other.flights)
        for version in (other.held[target.name], *coming):
            if version is not None and version.parts is not None:
                there = {what for _, what in wanted & version.parts.found(finder.name)}
                if not there or not before <= there:
                    return False
        return True

    def _answered(self, ref: Ref) -> bool:
        """Return whether the client has said something to what is needed, or never will."""
        type_url, name = ref
        other, target = self.conversations.get(type_url), self.snapshot.of(type_url).get(name)
        if target is None or other is None:
            return True
        return other.firm(name) is not None or other.refusals.has(target) or not other.wants(name)

    def _hopeless(self, ref: Ref) -> bool:
        """Return whether waiting for this has no end, unless its content changes: it is hollow or refused."""
        type_url, name = ref
        other, target = self.conversations.get(type_url), self.snapshot.of(type_url).get(name)
        if target is None or other is None:
            return False
        # A client that refused a cluster never asks for its endpoints.
        return (
            target.hollow
            or other.refusals.has(target)
            or (target.follows is not None and self._hopeless(target.follows))
        )

    def _mixed(
        self,
        conversation: Conversation,
        target: Resource,
        known: frozenset[Ref],
        missing: frozenset[Ref],
        had: Mapping[str, Part],
    ) -> Resource | None:
        """Return the target without the parts that must wait, or None if all of it must."""
        if target.parts is None:
            return None
        parts = target.parts.of.values()
        waiting = {part.owner for part in parts if not part.needs.isdisjoint(missing)}
        if len(waiting) == len(parts):
            return None
        base = conversation.latest(target.name) or conversation.supposed(target.name)
        unknown = base is not None and base.parts is None
        stay = dict(had) if base is None or base.parts is None else {**had, **base.parts.of}
        chosen: list[Part] = []
        for part in parts:
            if part.owner not in waiting:
                chosen.append(part)
            elif part.owner in stay:
                chosen.append(stay[part.owner])
            elif unknown:
                instead = self._instead(part)
                if instead is None:
                    return None
                chosen.append(instead)
        mixed = mixture(target, chosen)
        if mixed is None or not (unknown or all(map(self._met, mixed.needs - known))):
            return None
        finders = self.finders((conversation.type_url, target.name))
        return None if robs(mixed, target, base, finders) else mixed

    def _instead(self, part: Part) -> Part | None:
        """Return what takes the place of a part that must wait, if it is unknown what the client has of it.

        What the rest of the client's version does is unknown too: it may be what was just taken back. So it
        does not wait without an end: the part goes out in a form that needs less, or as a client that comes
        new would get it.
        """
        if part.least is not None and all(map(self._met, part.least.needs)):
            return part.least
        return part if all(self._met(ref) or self._hopeless(ref) for ref in part.needs) else None

    def early(self, conversation: Conversation, updates: Mapping[str, Resource]) -> list[str]:
        """Return which updates to wait with until a client that comes back has told all that it asks for.

        A host must not go to other routes yet: whether those are there is in a request that we have not read.
        """
        url = conversation.type_url
        return [
            name
            for name, resource in updates.items()
            if name in conversation.held
            and any(needed == url for needed, _ in resource.needs)
            and any(needed not in self.conversations for needed, _ in resource.needs)
        ]

    def finders(self, ref: Ref) -> frozenset[str]:
        """Return the names of what the client may have that needs this."""
        return frozenset(
            resource.name
            for conversation in self.conversations.values()
            for resource in conversation.in_use()
            if ref in resource.needs
        )

    def uses_of(self, ref: Ref) -> int:
        """Return how many of the resources that the client may have need this."""
        known = self.uses.of(ref)
        return self._counted[ref] if known is None else known

    @cached_property
    def _counted(self) -> Counter[Ref]:
        return count(self.conversations)

    @cached_property
    def _needing(self) -> frozenset[tuple[str, str]]:
        held = {
            (conversation.type_url, needed)
            for conversation in self.conversations.values()
            for resource in conversation.in_use()
            for needed, _ in resource.needs
        }
        return self.snapshot.relations.needing | held

    def needed(self, type_url: str) -> bool:
        """Return whether the client asks for a type that needs this one."""
        return any((url, type_url) in self._needing for url in self.conversations if url != type_url)

    def unknown(self, conversation: Conversation) -> bool:
        """Return whether the client has resources of another server that might need one of this type.

        What a client that asks by name has besides, and the target lacks, may be in use until it drops that.
        """
        return any(
            other.past.claims is not None
            or any(not self.left(other, name) for name in other.past.foreign)
            or (other.past.brought and not conversation.wildcard)
            for other in self._needy(conversation.type_url)
        )

    def left(self, conversation: Conversation, name: str) -> bool:
        """Return whether nothing leads any more to what the client brought, and the target lacks.

        It has accepted all that may have led there. What it still names is its own, and not to be waited for.
        """
        url = conversation.type_url
        return url in KEPT and name not in self.snapshot.of(url) and self._led(url)

    def _led(self, type_url: str) -> bool:
        """Return whether the client has accepted all that is to be had of what needs this type."""
        if type_url not in self._all_led:
            leading = (c for c in self.conversations.values() if self._may_need(c.type_url, type_url))
            self._all_led[type_url] = not any(
                c.resync or c.dirty or c.flights or c.past.claims is not None for c in leading
            )
        return self._all_led[type_url]

    @cached_property
    def _all_led(self) -> dict[str, bool]:
        return {}

    def _needy(self, type_url: str) -> Iterator[Conversation]:
        """Yield the types that may need this one, and of which the client brought something."""
        for other in self.conversations.values():
            url = other.type_url
            if other.past is not NO_PAST and self.snapshot.serves(url) and self._may_need(url, type_url):
                yield other

    def _may_need(self, url: str, type_url: str) -> bool:
        """Return whether something of the one type may need something of the other, as far as we know.

        Which types need which is read off the resources that we know; between types that we know nothing of,
        the later one in push order needs the earlier one. What follows another resource (endpoints their
        cluster) goes after what it follows is gone.
        """
        following, order = self.snapshot.relations.following, self.snapshot.order
        if url == type_url:
            return False
        if (url, type_url) in self._needing or (type_url, url) in following:
            return True
        rank = {name: place for place, name in enumerate(order)}
        later = rank.get(url, len(order)) > rank.get(type_url, len(order))
        return later and (type_url, url) not in self._needing and (url, type_url) not in following

    def lost(self, conversation: Conversation) -> frozenset[str]:
        """Return what a client came back with and asks for by name, and a full set would take from it."""
        listed = conversation.past.listed
        return (listed & conversation.names).difference(self.snapshot.of(conversation.type_url))

    def relied(self, conversation: Conversation) -> bool:
        """Return whether what a client came back with may be in use by the rest of what it came back with.

        It is until the client accepts ours of that. What it refuses stays as it is, and so does what that may
        use; until the client asks for more of this type: only an answer brings it.
        """
        url, listed = conversation.type_url, conversation.past.listed
        target = self.snapshot.of(url)
        more = any(name in target and name not in listed for name in conversation.names)
        for other in self._needy(url):
            past, theirs = other.past, self.snapshot.of(other.type_url)
            refused = all(other.refusals.has(theirs[name]) for name in past.foreign if name in theirs)
            if past.foreign and not (more and refused):
                return True
        return False

    def spoken(self, type_url: str) -> bool:
        """Return whether a client that comes back has said all that tells whether it uses this type.

        It has asked for each type that needs this one, or if nothing does now, for each that may have; and
        dropped what the target lacks.
        """
        types = {*self.snapshot.order, *self.snapshot.resources}
        needing = {url for url, needed in self._needing if needed == type_url != url}
        may = needing or {url for url in types if self._may_need(url, type_url)}
        return may <= self.conversations.keys() and not any(c.past.brought for c in self._needy(type_url))

    def changing(self, type_url: str) -> bool:
        """Return whether listeners wait that may leave a resource of this type to connections that drain."""
        listeners = self.conversations.get(LISTENER)
        return type_url in DRAINING and listeners is not None and bool(listeners.dirty)

    def last(self, type_url: str) -> bool:
        """Return whether nothing may need a resource of this type: no other one is sent after it."""
        return self.snapshot.order[-1:] == (type_url,)

    def leader(self, resource: Resource | None) -> Ref | None:
        """Return what this resource follows, if the client still has that."""
        if resource is None or resource.follows is None:
            return None
        other = self.conversations.get(resource.follows[0])
        return resource.follows if other is not None and resource.follows[1] in other.held else None
