"""What it takes to make a version stable at once, with or without a release in progress. Pure."""

from __future__ import annotations

from datetime import datetime

from controlplane.app.actions import Standing, check_there, check_way_back, sight
from controlplane.app.ordering import service_named
from controlplane.app.records import record_of
from controlplane.release import groups, point
from controlplane.release.moves import act, dated
from controlplane.release.ports import Change, Record, World
from controlplane.release.state import RETURNING, Action, Phase, ReleaseState
from controlplane.release.way_back import FLAG
from controlplane.web.asked import Switch
from controlplane.web.port import RefusedError


def switched(at: Standing, service: str, wanted: Switch, action: str) -> Change:
    """Return the change by which a version is stable; ``action`` is what the record calls it.

    The record belongs to the release that ends by it or is undone, if there is one.

    Raises:
        RefusedError: If it may not be, with the reason and what can be done.
    """
    versions, version = service_named(at.world, service).versions, wanted.version
    if version not in versions:
        known = ", ".join(sorted(versions))
        raise RefusedError(404, f"service {service!r} has no version {version!r}; known: {known}")
    check_there(at.endpoints, service, version)
    if not wanted.past_point_of_no_return:
        _check_point(at.world, service, version)
    state, said = at.world.of_service(service), wanted.reason
    why = f"{action} to {version} by {wanted.actor}" + (f": {said}" if said else "")
    beside = undone(at.world, service, version, why, at.now)
    ended: tuple[ReleaseState, ...] = ()
    if state is not None and state.phase in RETURNING:
        beside += _overtaken(state, wanted, at.now)
    elif state is not None:
        _check_group(at, state, version)
        ended = (end(state, version, why, at.now, wanted.actor),)
    told, moved = f"to {version}" + (f": {said}" if said else ""), (*beside, *ended)
    concerned = [each.name for each in moved if each.undone or each in ended]
    records = tuple(
        record_of(at.world.releases[name], action, wanted.actor, told, at.now) for name in concerned
    )
    alone = Record(at=at.now, kind="action", service=service, action=action, actor=wanted.actor, reason=told)
    return Change(releases=moved, stable={service: version}, records=records or (alone,))


def undone(world: World, service: str, version: str, why: str, now: datetime) -> tuple[ReleaseState, ...]:
    """Return what becomes of the promotion by which a service got what is stable, and of an earlier one.

    Nobody waits any more for the promotion of a release that was undone, until its version is stable again.
    """
    if version == (stable := world.stable.get(service, "")):
        return ()
    last, found = _promoted(world, service), list[ReleaseState]()
    if last is not None and last.to_version == stable and not last.undone:
        found.append(last.model_copy(update={"undone": f"undone at {now:%Y-%m-%d %H:%M:%S} UTC, {why}"}))
    if last is not None and last.to_version == version and last.undone:
        found.append(last.model_copy(update={"undone": ""}))
    return tuple(found)


def _promoted(world: World, service: str) -> ReleaseState | None:
    """Return the release of a service that was promoted last."""
    ended = [r for r in world.releases.values() if r.service == service and r.phase is Phase.PROMOTED]
    return max(ended, key=lambda r: (r.ended_at is not None, r.ended_at), default=None)


def end(state: ReleaseState, version: str, reason: str, now: datetime, actor: str) -> ReleaseState:
    """Return a release in progress as it is once a person makes a version stable: promoted, or going back."""
    meant = Action.PROMOTE if version == state.to_version else Action.ROLL_BACK
    return dated(act(state, meant, reason), meant, now, actor)


def last_promoted(world: World, name: str) -> ReleaseState:
    """Return the release by which a service got what is stable, by the name of either.

    Raises:
        RefusedError: If there is none, or it cannot be undone.
    """
    known = world.releases.get(name)
    if known is None and world.catalog.get("Service", name) is None:
        raise RefusedError(404, f"no service and no release is named {name!r}")
    service = known.service if known else name
    if (busy := world.of_service(service)) is not None:
        how = "let it end" if busy.phase in RETURNING else "roll that back"
        raise RefusedError(409, f"release {busy.name!r} of {service!r} is {busy.phase}: {how}")
    last, stable = _promoted(world, service), world.stable.get(service)
    if last is None or last.to_version != stable or (known is not None and known.name != last.name):
        raise RefusedError(409, f"{stable!r} of {service!r} is not stable by {name!r}: nothing to undo")
    return last


def _overtaken(state: ReleaseState, wanted: Switch, now: datetime) -> tuple[ReleaseState, ...]:
    """Return a release that goes back, if its own version is made stable over an irreversible step of it."""
    whole = state.model_copy(update={"phase": Phase.PROMOTED})
    if wanted.version != state.to_version or state.passed or not point.passing(whole):
        return ()
    noted = point.noted(whole, now, wanted.actor)
    return (state.model_copy(update={"passed": noted.passed}),)


def _check_point(world: World, service: str, version: str) -> None:
    """Refuse to pass a point of no return without consent, or to go back over one, by a slip."""
    stable, state = world.stable.get(service, ""), world.of_service(service)
    if (passed := point.behind(world.releases, service, stable, version)) is not None:
        what = f"{version} of {service!r} is from before the point of no return of release {passed.name!r}"
        raise RefusedError(409, f"{what} ({passed.past}); {FLAG} goes back all the same")
    if state is None:
        return
    if version != state.to_version:
        check_way_back(state)
    elif missing := point.unasked(state):
        how = f"`turnout approve {state.name}` is the consent, {FLAG} goes without it"
        what = f"{state.name!r} has a point of no return ahead ({missing}) that nobody approved"
        raise RefusedError(409, f"release {what}: {how}")


def _check_group(at: Standing, state: ReleaseState, version: str) -> None:
    """Refuse to take one release out of a group: it ends, and goes back, with the others in their order."""
    if version == state.to_version:
        others = groups.members(state, at.world.releases)
        if state.crossing is None and not all(other.ended for other in others):
            why = f"ends with its group {state.group!r}, not alone"
            raise RefusedError(409, f"release {state.name!r} {why}; nothing was changed")
    elif first := sight(at, state).links.first:
        how = f"`turnout rollback {state.name}` takes all back in their order"
        why = f"{first}, of its group, depends on it and goes back before it"
        raise RefusedError(409, f"release {state.name!r}: {why}: {how}; nothing was changed")
