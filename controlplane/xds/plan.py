"""What the next response of a type has: of each name that may have changed, whether it goes or waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.xds.conversation import Conversation
from controlplane.xds.gate import Gate
from controlplane.xds.sharing import NOTHING, fewer
from controlplane.xds.snapshot import Resource
from controlplane.xds.type_urls import DROPPED, KEPT, Ref


@dataclass(slots=True)
class Plan:
    """Changed resources, names taken away.

    ``waiting``: something has to wait; ``awaited``: something that the client has no version of.
    """

    updates: dict[str, Resource]
    removed: list[str]
    waiting: bool = False
    awaited: bool = False


@dataclass(slots=True)
class Planner:
    """One look at what is dirty.

    Attributes:
        removable: Whether a resource of this type can be taken from the client at all.
        telling: Whether the client is told what it asks for and neither it nor the target has.
    """

    conversation: Conversation
    gate: Gate
    removable: bool
    telling: bool
    _gated: dict[str, Ref] = field(default_factory=dict)

    def collect(self, limit: int | None, *, opening: bool) -> Plan:
        """Gather changes from the dirty names, up to ``limit`` of them; settled names are dropped."""
        conversation, plan = self.conversation, Plan({}, [])
        settled: list[str] = []
        conversation.dirty.update(dict.fromkeys(conversation.refusals.retry(self.gate.snapshot)))
        for name in conversation.dirty:
            match self._settle(name):
                case Resource() as resource:
                    plan.updates[name] = resource
                    if limit is not None and len(plan.updates) >= limit:
                        break
                case "remove":
                    plan.removed.append(name)
                case "wait":
                    plan.waiting = True
                    plan.awaited |= conversation.latest(name) is None
                    if opening:
                        break
                case _:
                    settled.append(name)
        for name in settled:
            del conversation.dirty[name]
        conversation.again = fewer(conversation.again, settled)
        conversation.gated = self._gated or NOTHING
        if plan.awaited and conversation.rivals:
            plan.removed.clear()  # what waits may be what comes in their place
        return plan

    def _settle(self, name: str) -> Resource | str:
        """Return the resource to send, or ``remove``, ``wait`` or ``keep``, for now."""
        conversation = self.conversation
        if not conversation.wants(name):
            return "keep"
        target = self.gate.snapshot.of(conversation.type_url).get(name)
        if target is None:
            return self._leave(name)
        if self.gate.uses:
            self.gate.uses.drop(((conversation.type_url, name),))
        conversation.recall(target)
        whole, refusals = target, conversation.refusals
        if name in refusals.spoiled:
            target = conversation.bearable(whole, self.gate.finders((conversation.type_url, name)))
        held, latest = conversation.held.get(name), conversation.latest(name)
        forced = name in conversation.again or name in conversation.maybe
        if refusals.forbids(target):
            again = self._known(name) if forced else None
            # Once a version that is under way is accepted, the refusal is forgotten.
            return "wait" if conversation.coming(name) else again or "keep"
        if latest is not None and latest.version == target.version:
            if latest is held and target is whole:
                conversation.clear(name)
            if not forced:
                return "keep"
        return self._approach(target, latest, forced=forced)

    def _known(self, name: str) -> Resource | None:
        """Return what the client accepted, to have it on that for sure; None if unknown, or refused since."""
        held = self.conversation.held.get(name)
        if held is None or name in self.conversation.past.foreign or self.conversation.refusals.has(held):
            return None
        return held

    def _approach(self, target: Resource, latest: Resource | None, *, forced: bool) -> Resource | str:
        """Return as much of a target as may be sent, or ``wait`` if the client has that."""
        goal, unmet = self.gate.goal(self.conversation, target)
        if unmet is None:
            return target
        self._gated[target.name] = unmet
        if goal is None or self.conversation.refusals.has(goal):
            return "wait"
        there = latest is not None and latest.version == goal.version
        return "wait" if there and not forced else goal

    def _leave(self, name: str) -> Resource | str:
        """Decide on a name that the target does not have."""
        conversation, gate = self.conversation, self.gate
        held, url = conversation.latest(name), conversation.type_url
        if held is None and name not in conversation.maybe:
            conversation.clear(name)
            return self._absent(name)
        if name in conversation.refusals.undone or name in conversation.draining:
            return "keep"
        if not self.removable or (url in KEPT and name in conversation.names):
            return self._outlive(name)
        uses, leader = gate.uses_of((url, name)), gate.leader(held)
        if not (uses or leader or gate.unknown(conversation) or gate.changing(url)):
            return "keep" if self._lingers(name) else "remove"
        if held is None or name in conversation.again:
            return "wait" if held is None or name in conversation.past.foreign else held
        return self._wait(name, uses, leader)

    def _outlive(self, name: str) -> str:
        """Decide on what the client keeps, whatever it is told, until it drops the name."""
        conversation = self.conversation
        if name in conversation.past.foreign:
            if self.removable and not self.gate.left(conversation, name):
                return "wait"
            conversation.discount(name)
        return "keep"

    def _wait(self, name: str, uses: int, leader: Ref | None) -> str:
        """Let a removal wait: where we know for what, it is not looked at before that has happened."""
        conversation = self.conversation
        if not (uses or leader) or not conversation.opened or conversation.past.returning:
            return "wait"
        self.gate.uses.wait((conversation.type_url, name), uses, leader)
        return "keep"

    def _lingers(self, name: str) -> bool:
        """Let what nothing needs any more stay until a client that asks for it by name drops it."""
        conversation, gate = self.conversation, self.gate
        url = conversation.type_url
        if url not in DROPPED or conversation.wildcard or not gate.needed(url):
            return False
        return name in conversation.held and gate.uses.linger((url, name))

    def _absent(self, name: str) -> str:
        """Decide on a name that neither the target nor the client has."""
        conversation = self.conversation
        asked = name in conversation.names and name not in conversation.told
        return "remove" if self.telling and (asked or name in conversation.again) else "keep"
