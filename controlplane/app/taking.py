"""Which orders newly accepted documents give, and which they do not. Pure.

A Release document orders in the moment in which it changes, when it appears or is edited, and never later:

- a name that is new, or a higher attempt of a release that has ended, is a new order
- a release that waits follows its document
- anything else is not taken; `release/drift.py` says so until `turnout retry` takes it, or it is gone
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Policy, Release, Service
from controlplane.policy.emergencies import NEEDS_REASON
from controlplane.policy.fitness import places, uncounted, unfit
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.pinning import pin
from controlplane.release import drift, groups, point
from controlplane.release.ports import World
from controlplane.release.state import Phase, ReleaseState, salt

AT_FIRST = "it came with the first documents of a store"
# Of what an order says, that of which people and other systems were asked.
ESSENCE = ("attempt", "service", "from_version", "to_version", "policy")
ORDERED = (*ESSENCE, "salt", "purpose", "after", "group", "supersedes", "from_stable", "document")


def order(
    catalog: Catalog, release: Release, now: datetime, *, attempt: int = 1, revision: int = 0
) -> ReleaseState:
    """Return the state of a new release: waiting, with its policy and segments pinned.

    Args:
        catalog: Where what it names is.
        release: What is ordered.
        now: UTC.
        attempt: The least that it is; retries count attempts up, and a document does not take them back.
        revision: Of the state that it replaces.
    """
    attempt = max(attempt, release.attempt)
    return ReleaseState(
        name=release.name,
        attempt=attempt,
        service=release.service,
        from_version=release.from_,
        to_version=release.to,
        policy=pinned(catalog, release.policy, release.service),
        salt=salt(release.group or release.name, attempt),
        after=release.after,
        group=release.group or "",
        supersedes=release.supersedes or "",
        purpose=release.reason or "",
        start=release.start,
        document=release,
        created_at=now,
        revision=revision,
    )


def orders(world: World, catalog: Catalog, now: datetime, *, hold: bool = False) -> tuple[ReleaseState, ...]:
    """Return the releases that a catalog orders, and those that wait and are different by it.

    Args:
        world: As it is.
        catalog: What the documents say now.
        now: UTC.
        hold: True for the first documents of a new store, which starts no release by itself.
    """
    off = dict(called_off(world, catalog))
    going = {name: r for name, r in world.releases.items() if not r.ended and name not in off}
    for release in catalog.releases():
        before, known = world.catalog.get("Release", release.name), world.releases.get(release.name)
        if release == before or release.name in off:
            continue
        if known is None or (
            known.ended and release.attempt > known.attempt and not keeps_name(known, world)
        ):
            fresh = order(catalog, release, now, revision=known.revision if known else 0)
            going[release.name] = _held(fresh, AT_FIRST if hold else _twin(fresh, going.values()))
        elif known.phase is Phase.WAITING:
            edited = _edited(known, before, catalog, release)
            moved = (edited.from_version, edited.to_version) != (known.from_version, known.to_version)
            going[release.name] = _held(edited, _twin(edited, going.values()) if moved else "")
    for name, state in going.items():
        if state.phase is Phase.WAITING and state == world.releases.get(name):
            going[name] = _reordered(state, {"policy": renewed(state, catalog) or state.policy})
    going = {name: _together(state, world) for name, state in going.items()}
    return tuple(state for name, state in going.items() if state != world.releases.get(name))


def _together(state: ReleaseState, world: World) -> ReleaseState:
    """Return a release that waits with the users it had, while others of its group move the same ones."""
    known = world.releases.get(state.name)
    if state.phase is not Phase.WAITING or known is None or known.key != state.key:
        return state
    if known.policy.user in (None, state.policy.user):
        return state
    if not any(other.active for other in groups.members(known, world.releases)):
        return state
    kept = state.policy.model_copy(update={"user": known.policy.user})
    return state.model_copy(update={"policy": kept})


def called_off(world: World, catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Yield the releases without traffic that end because something is removed, and why."""
    for name, state in world.releases.items():
        if state.ended or state.active:
            continue
        had = world.catalog.get("Release", name) is not None
        if state.phase is Phase.WAITING and had and catalog.get("Release", name) is None:
            yield name, "its order was removed before it started"
        elif catalog.get("Service", state.service) is None:
            yield name, "its service was removed before it started"


def keeps_name(state: ReleaseState, world: World) -> str:
    """Return why no other order may have the name of a release, or ''.

    What has passed a point of no return is known by it to whoever would go back.
    """
    if state.passed is None or world.stable.get(state.service) not in point.onward(state, world.releases):
        return ""
    return f"release {state.name!r} is past {state.past}; {drift.PASSED}"


def _held(state: ReleaseState, why: str) -> ReleaseState:
    """Return an order that waits for a person, if there is a reason."""
    return state.model_copy(update={"start": "manual", "holding": why}) if why else state


def _twin(state: ReleaseState, going: Iterable[ReleaseState]) -> str:
    """Return which other release takes the service the same way, so that this one may be that one renamed.

    It would start when that one has failed, towards the version that did.
    """
    way = (state.service, state.from_version, state.to_version)
    for other in going:
        theirs = (other.service, other.from_version, other.to_version)
        if theirs == way and other.name not in (state.name, state.supersedes):
            return f"release {other.name!r} goes from {other.from_version} to {other.to_version} already"
    return ""


def _edited(known: ReleaseState, before: object, catalog: Catalog, release: Release) -> ReleaseState:
    """Return a release that waits as its document has it now."""
    fresh = order(catalog, release, known.created_at, attempt=known.attempt)
    update = {field: getattr(fresh, field) for field in ORDERED}
    was = known.document or before
    if not isinstance(was, Release) or was.start != release.start:
        update |= {"start": release.start, "holding": ""}
    return _reordered(known, update)


def _reordered(state: ReleaseState, update: dict[str, object]) -> ReleaseState:
    """Return a release that waits with another order; what was granted to the one before does not count."""
    after = state.model_copy(update=update)
    if any(getattr(after, field) != getattr(state, field) for field in ESSENCE):
        nothing = {"approvals": (), "asking": timedelta(0), "calls": (), "begun": after.begun + 1}
        after = after.model_copy(update=nothing)
    return after if after.attempt == state.attempt else after.model_copy(update={"tries": 0})


# --- policies ---------------------------------------------------------------------------------------------


def pinned(catalog: Catalog, policy: str, service: str) -> PinnedPolicy:
    """Return a policy as a release of the service keeps it."""
    document = catalog.service(service)
    kinds = {kind for *_, kind in places(document, catalog.get)}
    return pin(catalog.policy(policy), catalog, kinds, document)


def impossible(catalog: Catalog, policy: str, service: str, purpose: str) -> str:
    """Return why a policy cannot be pinned for an order, or ''; listeners are not looked at."""
    rules, document = catalog.get("Policy", policy), catalog.get("Service", service)
    if not isinstance(rules, Policy) or not isinstance(document, Service):
        return f"policy {policy!r} is not there any more"
    if missing := uncounted(rules, document):
        return f"policy {policy!r} does not fit {service!r} any more: {missing}"
    return f"policy {policy!r} {NEEDS_REASON}: --reason TEXT" if rules.emergency and not purpose else ""


def renewed(state: ReleaseState, catalog: Catalog) -> PinnedPolicy | None:
    """Return the policy of a release as it is now, or None if the release could not run under it."""
    if impossible(catalog, state.policy.name, state.service, state.purpose):
        return None
    policy = pinned(catalog, state.policy.name, state.service)
    found = places(catalog.service(state.service), catalog.get)
    return None if any(unfit(policy, kind, fleet) for _, fleet, kind in found) else policy


# --- what is not taken ------------------------------------------------------------------------------------


def drifted(state: ReleaseState, catalog: Catalog) -> tuple[str, ...]:
    """Return what documents say that a release does not do, and that never acts by itself."""
    document = catalog.get("Release", state.name)
    found = drift.of_order(state, document if isinstance(document, Release) else None)
    if state.ended:
        return found
    if not state.active and (gone := undeclared(state, catalog)):
        found = (*found, gone)
    why = impossible(catalog, state.policy.name, state.service, state.purpose)
    if why:
        return (*found, f"{why}; {drift.PINNED}")
    return (*found, *drift.of_policy(state.policy, pinned(catalog, state.policy.name, state.service)))


def undeclared(state: ReleaseState, catalog: Catalog) -> str:
    """Say which versions of a release that waits the service does not have any more; '' if it has them."""
    service = catalog.get("Service", state.service)
    if not isinstance(service, Service):
        return ""
    wanted = (state.to_version,) if state.from_stable else (state.from_version, state.to_version)
    gone = [version for version in wanted if version not in service.versions]
    are = "are" if len(gone) > 1 else "is"
    what = f"{' and '.join(gone)} of {state.service!r} {are} not declared any more"
    return (
        f"{what}, and the release cannot start; `turnout rollback {state.name}` calls it off" if gone else ""
    )


def drifts(
    world: World, catalog: Catalog, after: Iterable[ReleaseState]
) -> Iterator[tuple[ReleaseState, str]]:
    """Yield the releases of which a catalog says something that is not taken, and was not said before.

    Args:
        world: Before it is accepted.
        catalog: What the documents say now.
        after: The releases afterwards.
    """
    for state in after:
        document, before = catalog.get("Release", state.name), world.catalog.get("Release", state.name)
        known = world.releases.get(state.name)
        found = drifted(state, catalog)
        if found:
            if known is None or found != drifted(known, world.catalog):
                yield state, "; ".join(found)
        elif state.ended and state == known and document not in (None, before):
            yield state, drift.done(state)
