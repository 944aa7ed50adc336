"""What newly accepted documents mean for the store: services to be born, orders to be taken."""

from __future__ import annotations

from collections.abc import Iterable, Set
from datetime import datetime

from controlplane.policy.capabilities import Kind
from controlplane.policy.catalog import Catalog, references
from controlplane.policy.documents import Key, Policy, Release, Service
from controlplane.policy.fitness import places, unfit
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.pinning import pin
from controlplane.release.drift import drift
from controlplane.release.ports import Change, Record, World
from controlplane.release.state import Phase, ReleaseState, salt


def accept(world: World, catalog: Catalog, actor: str, now: datetime, *, hold_orders: bool = False) -> Change:
    """Return the change that takes in a catalog.

    A service that the store has no record of starts with its initial version, as does one that comes back
    without the version that was stable; what is stable afterwards is the store's. Orders are one-shot: a
    known name and attempt is left alone, a higher attempt of an ended release starts it again. Nothing here
    moves a share.

    Args:
        world: As it is.
        catalog: What the documents say now.
        actor: Who brought them.
        now: UTC.
        hold_orders: True for the first documents of a new store, which starts no release by itself.
    """
    stable = {s.name: s.initial for s in catalog.services() if world.stable.get(s.name) not in s.versions}
    orders = [*_orders(world, catalog, now, hold_orders)]
    withdrawn = [*_withdrawn(world, catalog, now)]
    what = ", ".join(_difference(world.catalog, catalog)) or "nothing"
    record = Record(at=now, kind="documents", action="apply", actor=actor, reason=f"accepted: {what}")
    return Change(
        catalog=catalog,
        stable=stable,
        releases=(*orders, *withdrawn),
        records=(
            record,
            *(_ordered(state, actor, now) for state in orders),
            *(_acted(state, "withdraw", state.reason, actor, now) for state in withdrawn),
            *_drifts(world, catalog, actor, now),
        ),
    )


def in_use(world: World, catalog: Catalog) -> tuple[Catalog, tuple[str, ...]]:
    """Return the catalog without changes that take away what has traffic, and what was put back.

    A version that is stable, canary or guarded cannot be removed; nor can its service while it is released.
    """
    kept: set[str] = set()
    problems = []
    for service in world.catalog.services():
        state = world.of_service(service.name)
        used = {world.stable.get(service.name, service.initial)}
        used |= {state.from_version, state.to_version} if state else set()
        after = catalog.get("Service", service.name)
        gone = used - set(after.versions) if isinstance(after, Service) else (used if state else set())
        if gone:
            entry = world.catalog.entries["Service", service.name]
            kept.add(service.name)
            what = ", ".join(sorted(gone))
            problems.append(
                f"{entry.place}: versions: {what} of {service.name!r} is in use and cannot be removed"
            )
    taken = {claim: name for name in sorted(kept) for claim in _claims(world.catalog.service(name))}
    for service in catalog.services():
        clash = next((taken[claim] for claim in _claims(service) if claim in taken), service.name)
        if clash != service.name and service.name not in kept:
            kept.add(service.name)
            entry = catalog.entries["Service", service.name]
            problems.append(f"{entry.place}: routes: {clash!r} has one of them and is in use")
    return put_back(world.catalog, catalog, kept), tuple(problems)


def fitting(world: World, catalog: Catalog) -> tuple[Catalog, tuple[str, ...]]:
    """Return the catalog without changes that bring a release to listeners whom its policy does not fit.

    A release that has ended does not matter. What was so before is not undone: it holds, and says so.
    """
    undone: dict[Key, str] = {}
    for state in sorted(world.releases.values(), key=lambda state: state.name):
        service = catalog.get("Service", state.service)
        if state.ended or not isinstance(service, Service):
            continue
        before = world.catalog.get("Service", state.service)
        had = _listening(before, world.catalog) if isinstance(before, Service) else set()
        policy = _policy(state, catalog)
        for fleet, kind, _ in sorted(_listening(service, catalog) - had):
            if (why := unfit(policy, kind, catalog.fleet(fleet))) is None:
                continue
            joins = not isinstance(before, Service) or fleet not in before.fleets
            key: Key = ("Service", service.name) if joins else ("Fleet", fleet)
            what = f"fleets: {service.name!r} cannot join" if joins else "listeners: this cannot become"
            text = f"{catalog.entries[key].place}: {what} {kind} fleet {fleet!r} under release {state.name!r}"
            text += f" ({state.phase}): policy {policy.name!r} does not fit: {why}"
            undone.setdefault(key, text)
    return _restored(world.catalog, catalog, undone.keys()), tuple(undone.values())


def _listening(service: Service, catalog: Catalog) -> set[tuple[str, Kind, tuple[str, ...]]]:
    """Return the fleets of a service, the kinds of listeners that they have, and the claims they verify."""
    return {
        (fleet.name, kind, tuple(sorted(fleet.claims))) for _, fleet, kind in places(service, catalog.get)
    }


def _policy(state: ReleaseState, catalog: Catalog) -> PinnedPolicy:
    """Return a release's policy; while it waits that of the documents, for it is pinned again."""
    release = catalog.get("Release", state.name)
    if state.phase is Phase.WAITING and isinstance(release, Release) and release.attempt == state.attempt:
        return pinned(catalog, release.policy, state.service)
    return state.policy


def pinned(catalog: Catalog, policy: str, service: str) -> PinnedPolicy:
    """Return a policy as a release of the service keeps it."""
    kinds = {kind for _, kind, _ in _listening(catalog.service(service), catalog)}
    return pin(catalog.policy(policy), catalog, kinds, catalog.service(service))


def drifted(state: ReleaseState, catalog: Catalog) -> tuple[str, ...]:
    """Return how documents differ from a release that has started, and that goes on as it was ordered."""
    if state.ended:
        return ()
    document = catalog.get("Release", state.name)
    known = isinstance(catalog.get("Policy", state.policy.name), Policy)
    policy = pinned(catalog, state.policy.name, state.service) if known else None
    return drift(state, document if isinstance(document, Release) else None, policy)


def _drifts(world: World, catalog: Catalog, actor: str, now: datetime) -> Iterable[Record]:
    for _, state in sorted(world.releases.items()):
        found = drifted(state, catalog)
        if found and found != drifted(state, world.catalog):
            yield _acted(state, "drift", "; ".join(found), actor, now)


def _claims(service: Service) -> Iterable[tuple[str, str, str]]:
    return ((fleet, claim.host, claim.path) for fleet in service.fleets for claim in service.routes)


def put_back(before: Catalog, after: Catalog, services: Set[str]) -> Catalog:
    """Return ``after`` with some services as they were in ``before``, or without those that it had not.

    What such a service refers to comes back with it.
    """
    return _restored(before, after, {("Service", name) for name in services})


def _restored(before: Catalog, after: Catalog, keys: Set[Key]) -> Catalog:
    entries = {key: entry for key, entry in after.entries.items() if key not in keys}
    for key in sorted(keys & before.entries.keys()):
        entries[key] = before.entries[key]
        missing = {r.key for r in references(entries[key].document)} - entries.keys()
        entries |= {needed: before.entries[needed] for needed in missing}
    return Catalog.of(*entries.values())


def order(
    catalog: Catalog, release: Release, now: datetime, *, manual: bool = False, revision: int = 0
) -> ReleaseState:
    """Return the state of a new release: waiting, with its policy and segments pinned."""
    return ReleaseState(
        name=release.name,
        attempt=release.attempt,
        service=release.service,
        from_version=release.from_,
        to_version=release.to,
        policy=pinned(catalog, release.policy, release.service),
        salt=salt(release.group or release.name, release.attempt),
        after=release.after,
        group=release.group or "",
        supersedes=release.supersedes or "",
        purpose=release.reason or "",
        start="manual" if manual else release.start,
        created_at=now,
        revision=revision,
    )


def _orders(world: World, catalog: Catalog, now: datetime, hold: bool) -> Iterable[ReleaseState]:
    for release in catalog.releases():
        known = world.releases.get(release.name)
        if known is None or (known.ended and release.attempt > known.attempt):
            yield order(catalog, release, now, manual=hold, revision=known.revision if known else 0)
        elif known.phase is Phase.WAITING and known.attempt == release.attempt:
            # Not started yet: the order and its policy may still be edited.
            fresh = order(catalog, release, known.created_at, revision=known.revision)
            before = world.catalog.get("Release", release.name)
            same = isinstance(before, Release) and before.start == release.start
            kept: dict[str, object] = {"start": known.start if same else fresh.start, "halt": known.halt}
            if fresh.policy == known.policy:
                kept |= {"approvals": known.approvals, "asking": known.asking}
            edited = fresh.model_copy(update={**kept, "because": known.because, "hold": known.hold})
            if edited != known:
                yield edited


def _withdrawn(world: World, catalog: Catalog, now: datetime) -> Iterable[ReleaseState]:
    for name, state in world.releases.items():
        had = world.catalog.get("Release", name) is not None
        if state.phase is Phase.WAITING and had and catalog.get("Release", name) is None:
            reason = "its order was removed before it started"
            ended = {"phase": Phase.ROLLED_BACK, "reason": reason, "because": reason, "ended_at": now}
            yield state.model_copy(update=ended)


def _ordered(state: ReleaseState, actor: str, now: datetime) -> Record:
    return _acted(state, "order", ordered(state), actor, now)


def ordered(state: ReleaseState) -> str:
    """Return what was ordered, in words."""
    what = f"{state.service} {state.from_version} -> {state.to_version}, policy {state.policy.name}"
    what = f"emergency: {what}" if state.policy.emergency else what
    return f"{what}: {state.purpose}" if state.purpose else what


def _acted(state: ReleaseState, action: str, reason: str, actor: str, now: datetime) -> Record:
    return Record(
        at=now,
        kind="action",
        release=state.name,
        attempt=state.attempt,
        service=state.service,
        action=action,
        actor=actor,
        reason=reason,
    )


def _difference(before: Catalog, after: Catalog) -> Iterable[str]:
    old, new = before.digests(), after.digests()
    for key in sorted(old.keys() | new.keys()):
        sign = "+" if key not in old else "-" if key not in new else "~" if old[key] != new[key] else ""
        if sign:
            yield f"{sign}{key[0]} {key[1]}"
