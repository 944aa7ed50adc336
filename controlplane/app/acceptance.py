"""What newly accepted documents mean for the store: services to be born, orders to be taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from datetime import datetime

from controlplane.app.records import record_of
from controlplane.app.taking import called_off, drifts, impossible, orders, pinned
from controlplane.policy.capabilities import Kind
from controlplane.policy.catalog import Catalog, references
from controlplane.policy.documents import Key, Release, Service
from controlplane.policy.fitness import places, unfit
from controlplane.policy.loading import Loaded
from controlplane.policy.orders import Groups
from controlplane.policy.pinned import PinnedPolicy
from controlplane.release.ports import Change, Record, World
from controlplane.release.state import Phase, ReleaseState


def unanswered(catalog: Catalog, accepted: Iterable[str]) -> Iterator[str]:
    """Say which of the accepted policies ask Prometheus, on a server that knows none."""
    for policy in catalog.policies():
        every = (*policy.conditions, *(c for step in policy.steps for c in step.conditions))
        if f"Policy {policy.name}" in accepted and any(c.prometheus for c in every):
            what = f"Policy {policy.name!r} asks Prometheus, and this server knows none"
            yield f"{what}: releases by it will hold; `turnout serve --prometheus URL`"


def accept(world: World, catalog: Catalog, actor: str, now: datetime, *, hold_orders: bool = False) -> Change:
    """Return the change that takes in a catalog.

    A service that the store has no record of starts with its initial version, as does one that comes back
    without the version that was stable; what is stable afterwards is the store's. Which orders are taken,
    `orders` says. Nothing here moves a share.

    Args:
        world: As it is.
        catalog: What the documents say now.
        actor: Who brought them.
        now: UTC.
        hold_orders: True for the first documents of a new store, which starts no release by itself.
    """
    stable = {s.name: s.initial for s in catalog.services() if world.stable.get(s.name) not in s.versions}
    taken = orders(world, catalog, now, hold=hold_orders)
    withdrawn = [*_called_off(world, catalog, now)]
    after = {**world.releases, **{state.name: state for state in (*taken, *withdrawn)}}
    what = ", ".join(_difference(world.catalog, catalog)) or "nothing"
    record = Record(
        at=now,
        kind="documents",
        action="apply",
        actor=actor,
        reason=f"accepted: {what}",
        numbers={"generation": world.generation + 1},
    )
    return Change(
        catalog=catalog,
        stable=stable,
        releases=(*taken, *withdrawn),
        records=(
            record,
            *(_ordered(state, actor, now) for state in taken),
            *(record_of(state, "withdraw", actor, state.reason, now) for state in withdrawn),
            *(record_of(r, "drift", actor, why, now) for r, why in drifts(world, catalog, after.values())),
        ),
    )


def in_use(world: World, loaded: Loaded) -> tuple[Catalog, tuple[str, ...]]:
    """Return the catalog without changes that take away what has traffic, and what was put back.

    A version that is stable, canary or guarded cannot be removed; nor can its service while it is released.
    """
    kept: set[str] = set()
    problems = []
    catalog = loaded.catalog
    for service in world.catalog.services():
        state = world.of_service(service.name)
        uses = _uses(world, service)
        key: Key = ("Service", service.name)
        after = catalog.get(*key)
        there = set(after.versions) if isinstance(after, Service) else set[str]() if state else set(uses)
        if not (gone := sorted(uses.keys() - there)):
            continue
        kept.add(service.name)
        whose = ", ".join(f"{version} is {uses[version]}" for version in gone)
        what = f"{', '.join(gone)} of {service.name!r} cannot be removed: {whose}"
        if isinstance(after, Service):
            problems.append(f"{loaded.place(key, ('versions',))}: versions: {what}")
        else:
            before = world.catalog.entries[key].place
            problems.append(f"{before}: the document that was last read here is gone: {what}")
    taken = {claim: name for name in sorted(kept) for claim in _claims(world.catalog.service(name))}
    for service in catalog.services():
        clash = next((taken[claim] for claim in _claims(service) if claim in taken), service.name)
        if clash != service.name and service.name not in kept:
            kept.add(service.name)
            place = loaded.place(("Service", service.name), ("routes",))
            problems.append(f"{place}: routes: {clash!r} has one of them and is in use")
    return put_back(world.catalog, catalog, kept), tuple(problems)


def _uses(world: World, service: Service) -> dict[str, str]:
    """Return the versions of a service that have traffic or are stable, and what each is."""
    found: dict[str, list[str]] = {world.stable.get(service.name, service.initial): ["stable"]}
    if (state := world.of_service(service.name)) is not None:
        for version, role in ((state.from_version, "baseline"), (state.to_version, "canary")):
            found.setdefault(version, []).append(f"the {role} of release {state.name!r} ({state.phase})")
    return {version: " and ".join(roles) for version, roles in found.items()}


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
        policy = _policy(state, world, catalog)
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


def possible_orders(before: Catalog, after: Catalog) -> tuple[Catalog, tuple[str, ...]]:
    """Return the catalog without orders, new or edited, that a service that was put back cannot run.

    Others of their groups stay behind with them.
    """
    undone: dict[Key, str] = {}
    apart = Groups()
    for release in _changed(before, after):
        service = after.get("Service", release.service)
        versions = service.versions if isinstance(service, Service) else {}
        if not {release.from_, release.to} <= set(versions):
            text = f"Release {release.name!r} needs service {release.service!r}, whose change is refused"
            undone["Release", release.name] = text
            apart.refuse(release, release.name)
    for release in _changed(before, after):
        for finding in apart.findings(release):
            undone.setdefault(("Release", release.name), finding.text)
    problems = tuple(f"{after.entries[key].place}: {text}" for key, text in undone.items())
    return _restored(before, after, undone.keys()), problems


def _changed(before: Catalog, after: Catalog) -> Iterable[Release]:
    return (r for r in after.releases() if r != before.get("Release", r.name))


def _listening(service: Service, catalog: Catalog) -> set[tuple[str, Kind, tuple[str, ...]]]:
    """Return the fleets of a service, the kinds of listeners that they have, and the claims they verify."""
    return {
        (fleet.name, kind, tuple(sorted(fleet.claims))) for _, fleet, kind in places(service, catalog.get)
    }


def _policy(state: ReleaseState, world: World, catalog: Catalog) -> PinnedPolicy:
    """Return a release's policy; while it waits that of the documents, for it is pinned again."""
    if state.phase is not Phase.WAITING:
        return state.policy
    release, name, purpose = catalog.get("Release", state.name), state.policy.name, state.purpose
    if isinstance(release, Release) and release != world.catalog.get("Release", state.name):
        name, purpose = release.policy, release.reason or ""
    possible = not impossible(catalog, name, state.service, purpose)
    return pinned(catalog, name, state.service) if possible else state.policy


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


def _called_off(world: World, catalog: Catalog, now: datetime) -> Iterable[ReleaseState]:
    for name, reason in called_off(world, catalog):
        ended = {"phase": Phase.ROLLED_BACK, "reason": reason, "because": reason, "ended_at": now}
        yield world.releases[name].model_copy(update=ended)


def _ordered(state: ReleaseState, actor: str, now: datetime) -> Record:
    return record_of(state, "order", actor, ordered(state), now)


def ordered(state: ReleaseState) -> str:
    """Return what was ordered, in words."""
    what = f"{state.service} {state.from_version} -> {state.to_version}, policy {state.policy.name}"
    what = f"emergency: {what}" if state.policy.emergency else what
    return f"{what}: {state.purpose}" if state.purpose else what


def _difference(before: Catalog, after: Catalog) -> Iterable[str]:
    old, new = before.digests(), after.digests()
    for key in sorted(old.keys() | new.keys()):
        sign = "+" if key not in old else "-" if key not in new else "~" if old[key] != new[key] else ""
        if sign:
            yield f"{sign}{key[0]} {key[1]}"
