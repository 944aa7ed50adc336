"""An operator's order of a release, made into its state, or why it cannot be. Pure."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from controlplane.app.taking import keeps_name, order
from controlplane.policy.documents import Policy, Release, Service
from controlplane.policy.emergencies import NEEDS_REASON
from controlplane.policy.fitness import places, uncounted, unfit
from controlplane.release.ports import World
from controlplane.release.state import ReleaseState
from controlplane.web.asked import Order
from controlplane.web.port import RefusedError


def ordered_by(world: World, wanted: Order, now: datetime) -> ReleaseState:
    """Return the release that an operator orders, waiting.

    Raises:
        RefusedError: If it cannot be, with the reason and what can be done.
    """
    service = service_named(world, wanted.service)
    if wanted.to not in service.versions:
        known = ", ".join(sorted(service.versions))
        raise RefusedError(404, f"service {service.name!r} has no version {wanted.to!r}; known: {known}")
    _check_policy(world, wanted, service)
    stable = world.stable[service.name]
    if wanted.to == stable:
        raise RefusedError(409, f"{wanted.to!r} is what is stable already")
    name = wanted.name or f"{service.name}-{wanted.to}"
    before = _former(world, name, service)
    check_alone(world, name, service.name, wanted.to)
    fields = {
        "kind": "Release",
        "name": name,
        "service": service.name,
        "from": stable,
        "to": wanted.to,
        "policy": wanted.policy,
        "attempt": before.attempt + 1 if before else 1,
        "start": "auto",
    }
    try:
        document = Release.model_validate(fields)
    except ValidationError as error:
        wrong = f"name: {name!r} is not one; up to 63 of a-z, 0-9, '.', '_' and '-'"
        raise RefusedError(400, wrong) from error
    state = order(world.catalog, document, now, revision=before.revision if before else 0)
    for _, fleet, kind in places(service, world.catalog.get):
        if why := unfit(state.policy, kind, fleet):
            where = f"{kind} fleet {fleet.name!r}"
            raise RefusedError(409, f"policy {wanted.policy!r} does not fit {where}: {why}")
    return state.model_copy(update={"purpose": wanted.reason, "from_stable": True, "document": None})


def service_named(world: World, name: str) -> Service:
    """Return a service.

    Raises:
        RefusedError: If there is none of that name; the message has those that are.
    """
    document = world.catalog.get("Service", name)
    if not isinstance(document, Service):
        known = ", ".join(s.name for s in world.catalog.services()) or "none"
        raise RefusedError(404, f"no service is named {name!r}; known: {known}")
    return document


def _former(world: World, name: str, service: Service) -> ReleaseState | None:
    """Return the attempt of that name that has ended, or None."""
    found = world.releases.get(name)
    if found is not None and not found.ended:
        raise RefusedError(409, f"release {name!r} is {found.phase}; let it end, or roll it back")
    if found is not None and found.service != service.name:
        raise RefusedError(409, f"release {name!r} was one of {found.service!r}; choose another name")
    if found is not None and (kept := keeps_name(found, world)):
        raise RefusedError(409, kept)
    return found


def check_alone(world: World, name: str, service: str, to: str) -> None:
    """Refuse a second order of one version: it would start when the first has failed.

    Raises:
        RefusedError: If a release of another name goes there.
    """
    for other in world.releases.values():
        if (other.service, other.to_version) == (service, to) and other.name != name and not other.ended:
            how = f"release {other.name!r} ({other.phase}) goes there; let it end, or roll it back"
            raise RefusedError(409, f"{to!r} of {service!r} is ordered already: {how}")


def _check_policy(world: World, wanted: Order, service: Service) -> None:
    """Refuse a policy that is not there, or that asks for what the order or the service does not have."""
    policy = world.catalog.get("Policy", wanted.policy)
    if not isinstance(policy, Policy):
        known = ", ".join(p.name for p in world.catalog.policies()) or "none"
        raise RefusedError(404, f"no policy is named {wanted.policy!r}; known: {known}")
    if policy.emergency and not wanted.reason:
        raise RefusedError(400, f"policy {wanted.policy!r} {NEEDS_REASON}: --reason TEXT")
    if missing := uncounted(policy, service):
        raise RefusedError(409, f"policy {wanted.policy!r} does not fit: {missing}")
