"""What is shown of releases, services and proxies. Pure: states and views in, answers out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Literal

from controlplane.app.adoption import Question
from controlplane.app.behind import AHEAD
from controlplane.app.publish import Publisher
from controlplane.app.taking import drifted
from controlplane.app.tick import Reading
from controlplane.evidence.better import Result
from controlplane.evidence.verdict import Verdict
from controlplane.policy.documents import Service
from controlplane.policy.values import format_duration, format_share, listed
from controlplane.release import confirming, crossing, story
from controlplane.release import watch as watching
from controlplane.release.arrivals import step_split
from controlplane.release.ending import lasted
from controlplane.release.ports import World
from controlplane.release.seen import Propagation
from controlplane.release.state import NO_RETURN, RETURNED, RETURNING, Phase, ReleaseState
from controlplane.release.traffic import BUCKETS, Endpoints
from controlplane.release.watch import NO_COUNTS, Watch
from controlplane.release.way_back import alarm, describe
from controlplane.web.shown import (
    ProxyShare,
    ProxyShown,
    ReleaseShown,
    ResultShown,
    ServiceShown,
    StepShown,
    TypeShown,
    VerdictShown,
)
from controlplane.xds.messages import Node
from controlplane.xds.type_urls import Ref
from controlplane.xds.view import StreamView, TypeView


def show_service(service: Service, world: World, question: Question | None = None) -> ServiceShown:
    """Return a service as it is now."""
    release = world.of_service(service.name)
    return ServiceShown(
        name=service.name,
        fleets=service.fleets,
        hosts=tuple(dict.fromkeys(claim.host for claim in service.routes)),
        versions=tuple(sorted(service.versions)),
        stable=world.stable.get(service.name, service.initial),
        release=release.name if release else "",
        left_alone=question.proxies if question else (),
        had=question.had if question else "",
    )


def show_release(
    state: ReleaseState, reading: Reading, world: World, publisher: Publisher, where: Endpoints
) -> ReleaseShown:
    """Return a release as it is now, with what the last tick saw; ``where`` has healthy endpoints only."""
    watch, verdicts = reading.watch, reading.verdicts
    totals = [sum(row[i] for row in watch.whole.values()) for i in range(4)]
    return ReleaseShown(
        name=state.name,
        attempt=state.attempt,
        service=state.service,
        from_version=state.from_version,
        to_version=state.to_version,
        policy=state.policy.name,
        emergency=state.policy.emergency,
        purpose=state.purpose,
        phase=state.phase,
        halt=state.halt,
        stage=state.stage,
        step=story.stood(state) or ("" if state.ended else state.at),
        steps=tuple(_step(state, number) for number in range(state.steps)),
        hold=state.hold,
        because=story.why(state),
        onward=story.onward(state),
        undone=state.undone,
        judged_seconds=state.judged.total_seconds(),
        canary_requests=totals[0],
        canary_errors=totals[1],
        suspicion=watching.suspicion(verdicts),
        verdicts=tuple(map(_verdict, verdicts)),
        ends=show_ends(state),
        results=tuple(map(_result, state.result)),
        proxies=_shares(state, watch, publisher.propagation(world, state.service))
        if state.started_at and not state.ended
        else (),
        drift=drifted(state, world.catalog),
        unconfirmed=confirming.doubt(state) if not state.active else "",
        return_point=describe(state, where, world.stable.get(state.service, "")),
        return_unsafe=bool(alarm(state, where)[0]),
        point_of_no_return=point_of_no_return(state),
        retired=_retired(state, world, publisher),
        salt=state.salt,
        created_at=state.created_at,
        started_at=state.started_at,
        ended_at=state.ended_at,
    )


def _verdict(verdict: Verdict) -> VerdictShown:
    return VerdictShown(
        metric=verdict.metric,
        segment=verdict.segment,
        outcome=verdict.outcome,
        reason=verdict.reason,
        note=verdict.note,
        numbers=dict(verdict.numbers),
        requests_needed=verdict.requests_needed,
        seconds_needed=verdict.seconds_needed,
    )


def _result(result: Result) -> ResultShown:
    return ResultShown(
        metric=result.metric,
        said=result.said,
        change=result.change,
        canary=result.canary,
        baseline=result.baseline,
        canary_n=result.canary_n,
        baseline_n=result.baseline_n,
        better=result.better,
        worse=result.worse,
        threshold=result.threshold,
        low=result.low,
        high=result.high,
        decides=result.decides,
    )


def _retired(state: ReleaseState, world: World, publisher: Publisher) -> bool:
    """Return whether every proxy has the promotion, so that the old version may be taken down."""
    if state.phase is not Phase.PROMOTED or world.stable.get(state.service) != state.to_version:
        return False
    if state.unconfirmed:
        return False
    seen = publisher.propagation(world, state.service)
    return bool(seen.live) and len(seen.acked) == len(seen.live) and not seen.trouble


def point_of_no_return(state: ReleaseState) -> str:
    """Say how far away the point of no return is, or when and by whom it was passed."""
    if state.passed is not None:
        by = f" by {state.passed.actor}" if state.passed.actor else ""
        text = f"passed at {state.passed.because} ({state.passed.at:%Y-%m-%d %H:%M:%S} UTC{by})"
        text += f": {crossing.outcome(state.crossing)}" if state.crossing else ""
        back = state.phase in RETURNING | RETURNED
        return f"{text}; a person took it back all the same" if back else text
    if state.ended or state.phase in RETURNING:
        return "none was passed"
    begun = -1 if state.phase in (Phase.WAITING, Phase.RETRYING) else state.step
    for number, step in enumerate(state.policy.steps):
        if step.irreversible is not None and number > begun:
            away = f"{number - begun} step{'s' if number - begun > 1 else ''}"
            return f"{away} away: {step.name!r}, {step.irreversible.because}"
    if (point := state.policy.point_of_no_return) is not None:
        away = f"{state.steps + 1 - begun} step{'s' if state.steps > begun else ''}"
        given = state.approved(NO_RETURN)
        consent = f"approved by {given.actor}" if given else "not approved yet"
        return f"{away} away: after the guard, the call of {point.run.url} ({consent})"
    return "none: until the promotion a rollback is one route change"


def show_ends(state: ReleaseState) -> str:
    """Say how the A/B test ends, and how long it still takes; '' if there is none."""
    ends = state.policy.ends
    if ends is None:
        return ""
    what = f"{ends.do} after {format_duration(ends.after)}"
    if not state.testing:
        return what
    left = max(timedelta(0), ends.after - state.judged)
    return f"{what}, {lasted(left)} left" if left else f"{what}, which are over"


def _step(state: ReleaseState, number: int) -> StepShown:
    step = state.policy.steps[number]
    mark: Literal["done", "current", "todo", "skipped"] = "todo"
    if state.started_at is None:
        pass  # nobody has entered any, also if it was called off
    elif number < state.step or (number == state.step and state.phase is Phase.PROMOTED):
        mark = "done"
    elif state.phase is Phase.PROMOTED:
        mark = "skipped"
    elif number == state.step:
        mark = "current"
    given = state.approved(step.name)
    asked = "needed" if step.approve is not None and mark == "todo" else ""
    return StepShown(
        name=step.name,
        segment=step.segment,
        share=format_share(step.share),
        state=mark,
        approval=given.actor if given else asked,
    )


def _shares(state: ReleaseState, watch: Watch, propagation: Propagation) -> tuple[ProxyShare, ...]:
    refused = dict(propagation.nacked)
    split = step_split(state)
    shares = []
    for proxy in propagation.live:
        canary, canary_errors, baseline, baseline_errors = watch.whole.get(proxy, NO_COUNTS)
        # On the way back nothing is counted any more: what there is was seen under the split before.
        back = state.phase in RETURNING
        here = NO_COUNTS if back else watch.step.get((proxy, split.segment), NO_COUNTS)
        shares.append(
            ProxyShare(
                proxy=proxy,
                acked=proxy in propagation.acked,
                problem=refused.get(proxy, ""),
                asked=split.buckets / BUCKETS,
                observed=here[0] / (here[0] + here[2]) if here[0] + here[2] else None,
                canary_requests=canary,
                baseline_requests=baseline,
                canary_errors=canary_errors,
                baseline_errors=baseline_errors,
            )
        )
    return tuple(shares)


State = Literal["synced", "waiting", "nacked", "alone", "behind", "refused", "unknown"]


def proxy_state(view: StreamView, publisher: Publisher, revision: int) -> State:
    """Return how a stream's proxy is; until the world's ``revision`` is published, something is to come."""
    if view.group is None:
        return "refused" if publisher.member(view).fleets else "unknown"
    if view.behind:
        return "behind"
    if view.alone:
        return "alone"
    if any(each.nacks for each in view.types):
        return "nacked"
    to_come = not view.types or view.due or publisher.revision < revision
    if to_come or any(t.waiting_since is not None or t.gated for t in view.types):
        return "waiting"
    return "synced"


def show_proxy(
    view: StreamView, publisher: Publisher, revision: int, uncounted: Mapping[str, str], now: datetime
) -> ProxyShown:
    """Return one stream's proxy, where ``revision`` is the world's."""
    node = view.node or Node("?")
    if view.group:
        ahead = AHEAD if view.behind else ""
        problems = (*publisher.refused(view), *_waits(view), *publisher.lacks(view), view.alone, ahead)
    else:
        problems = (publisher.member(view).problem,)
    return ProxyShown(
        id=node.id,
        fleet=view.group or "-",
        address=view.peer.address,
        identity=view.peer.identities,
        certificate_expires_at=view.peer.valid.ends if view.peer.valid is not None else None,
        version=".".join(map(str, node.version)) if node.version else "-",
        protocol=view.variant,
        connected_at=view.since,
        state=proxy_state(view, publisher, revision),
        problems=tuple(filter(None, problems)),
        statistics=uncounted.get(node.id, "ok"),
        types=tuple(_type(each, now) for each in view.types),
    )


def _waits(view: StreamView) -> Iterator[str]:
    """Yield which resources a proxy does not get yet, and what it must have before."""
    for each in view.types:
        waiting: dict[Ref, list[str]] = {}
        for name, ref in sorted(each.gated.items()):
            waiting.setdefault(ref, []).append(name)
        for (type_url, needed), names in waiting.items():
            kinds = [url.rpartition(".")[2] for url in (each.type_url, type_url)]
            yield f"{kinds[0]} {listed(map(repr, names))} waits for {kinds[1]} {needed!r}"


def _type(view: TypeView, now: datetime) -> TypeShown:
    names = str(len(view.names)) if view.names else ""
    error, since = view.error, view.waiting_since
    return TypeShown(
        type=view.type_url.rpartition(".")[2],
        asked="+".join(filter(None, ("*" if view.wildcard else "", names))) or "0",
        resources=len(view.acked),
        sent=str(view.sent.newest or ""),
        sent_at=view.sent_at,
        acked=str(view.acked.newest or ""),
        acked_at=view.acked_at,
        nacked="" if error is None else str(error.version or "several"),
        nacked_at=error.at if error is not None else None,
        nacks=view.nacked,
        gated=len(view.gated),
        waiting_seconds=(now - since).total_seconds() if since is not None else None,
    )
