"""What an operator needs to be for what they want to do. Pure."""

from __future__ import annotations

from pydantic import BaseModel

from controlplane.policy.documents import Policy, Release
from controlplane.release import drift, gates
from controlplane.release.ports import World
from controlplane.release.state import ReleaseState
from controlplane.web.asked import Act, Adopt, Documents, Order, Push, Resend, Switch
from controlplane.web.port import Need

# Whoever is on call may stop what does harm, go on with it or try it again, but take no new traffic into it.
CARE: frozenset[str] = frozenset({"pause", "resume", "rollback", "retry", "end"})
SAFE: frozenset[str] = frozenset({"pause", "rollback", "end"})  # of an emergency, too


def need(world: World, action: str, name: str, wanted: BaseModel) -> Need:
    """Return who may do what ``action`` means to the release or service ``name``, or to everything.

    An unknown name needs what a known one does: it is refused later, by what looks for it.
    """
    match wanted:
        case Documents() | Adopt():
            return Need("admin")  # they say who must approve what, or move all users of services at once
        case Order():
            return _to_order(world, wanted.policy, wanted.service)
        case Push():
            return Need("operator", name)
        case Switch():
            return Need("admin" if wanted.past_point_of_no_return else "releaser", name)
        case Act():
            return _to_act(world, action, name, wanted)
        case _:
            return Need("operator" if isinstance(wanted, Resend) else "releaser")


def _new_order(world: World, state: ReleaseState) -> Need | None:
    """Return who may run an order again whose document orders something else by now; None if it does not."""
    document = world.catalog.get("Release", state.name)
    if not isinstance(document, Release) or not drift.edits(state, document):
        return None
    return _to_order(world, document.policy, state.service)


def _to_order(world: World, policy: str, service: str) -> Need:
    rules = world.catalog.get("Policy", policy)
    return Need("admin" if isinstance(rules, Policy) and rules.emergency else "releaser", service)


def _to_act(world: World, action: str, name: str, wanted: Act) -> Need:
    state = world.releases.get(name)
    service = state.service if state else name
    if wanted.past_point_of_no_return:
        return Need("admin", service)
    if state and action == "approve":
        ahead = gates.approvable(state)
        step = wanted.step or next(iter(ahead), "")
        return Need(ahead[step].role if step in ahead else "releaser", service, step)
    if state and action == "retry" and (new := _new_order(world, state)) is not None:
        return new
    if state and state.policy.emergency and action not in SAFE:
        return Need("admin", service)
    return Need("operator" if action in CARE else "releaser", service)
