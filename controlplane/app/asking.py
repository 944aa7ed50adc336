"""Questions of operators about single requests and users, answered by the published model."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from controlplane.policy.documents import Fleet
from controlplane.policy.requests import parse_request
from controlplane.policy.values import STEP_PPM, format_share
from controlplane.release.following import followed
from controlplane.release.ports import World
from controlplane.release.splits import splits
from controlplane.release.state import Phase, ReleaseState
from controlplane.release.traffic import ServiceTraffic, identified, traffic
from controlplane.resources.explaining import explain
from controlplane.resources.membership import FORMULA, members
from controlplane.web.asked import Asked, CohortAsked
from controlplane.web.port import RefusedError
from controlplane.web.shown import CohortShown, Explained, GroupShown, MemberShown


def explain_request(world: World, asked: Asked) -> Explained:
    """Say what the proxies of a fleet do with a request: of the one asked for, or the first that knows it."""
    try:
        request = replace(parse_request(asked.request), claims=tuple(sorted(asked.claims.items())))
        if asked.source is not None:
            request = replace(request, source=str(ipaddress.ip_address(asked.source)))
    except ValueError as error:
        raise RefusedError(400, f"request: {error}") from error
    for fleet in _fleets(world, asked.fleet):
        try:
            found = explain(_traffics(world, fleet), request)
        except ValueError as error:
            raise RefusedError(400, f"request: {error}") from error
        if found is not None:
            treated = found.traffic
            return Explained(
                fleet=fleet.name,
                service=treated.service.name,
                claim=f"{found.claim.host}{found.claim.path}",
                release=treated.release or "",
                rule=found.rule,
                rules=len(treated.splits),
                segment=found.segment,
                share=format_share(found.share * STEP_PPM),
                spans=found.spans,
                user=found.user,
                source=found.source,
                salt=treated.salt,
                bucket=found.bucket,
                version=found.version or "",
                because=found.because,
            )
    raise RefusedError(404, f"no service claims {request.host}{request.path.partition('?')[0]}; it gets 404")


def _fleets(world: World, name: str | None) -> list[Fleet]:
    fleets = [fleet for fleet in world.catalog.fleets() if not fleet.grpc]
    if name is None:
        return fleets
    if (found := next((fleet for fleet in fleets if fleet.name == name), None)) is None:
        known = ", ".join(fleet.name for fleet in fleets) or "none"
        raise RefusedError(404, f"no fleet of proxies is named {name!r}; known: {known}")
    return [found]


def _traffics(world: World, fleet: Fleet) -> list[ServiceTraffic]:
    found = []
    for service in world.catalog.services():
        if fleet.name in service.fleets:
            state = world.of_service(service.name)
            served = identified(service, state)
            stable = world.stable.get(service.name, service.initial)
            anonymous = world.catalog.anonymous(served)
            found.append(traffic(served, stable, state, anonymous, followed(world, service, fleet)))
    return found


def show_cohort(state: ReleaseState, asked: CohortAsked) -> CohortShown:
    """Say who gets the canary at a step; by default now, and before the first nobody does."""
    names = [step.name for step in state.policy.steps]
    if asked.step is not None and asked.step not in names:
        raise RefusedError(
            404, f"release {state.name!r} has no step {asked.step!r}; known: {', '.join(names)}"
        )
    running = state.phase in (Phase.PROGRESSING, Phase.GUARDING)
    now = state.step if running else -1
    step = now if asked.step is None else names.index(asked.step)
    groups = splits(state.policy, step)
    try:
        found = tuple(
            MemberShown(user=m.user, bucket=m.bucket, segment=m.segment, canary=m.canary)
            for m in members(groups, state.salt, asked.users, asked.segment)
        )
    except KeyError as error:
        known = ", ".join(split.segment for split in groups)
        raise RefusedError(404, f"no segment is {asked.segment!r} at this step; known: {known}") from error
    return CohortShown(
        release=state.name,
        service=state.service,
        step=names[min(step, len(names) - 1)] if step >= 0 else "",
        stable=state.from_version,
        canary=state.to_version,
        salt=state.salt,
        formula=FORMULA,
        groups=tuple(
            GroupShown(segment=s.segment, share=format_share(s.buckets * STEP_PPM), spans=s.canary)
            for s in groups
        ),
        users=found,
    )
