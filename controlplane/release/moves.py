"""What becomes of a release's state by an action or a decision. Pure, and all of it by the table."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from controlplane.release import confirming, crossing, failure, gates, holding, point
from controlplane.release.ending import SUSPICIOUS
from controlplane.release.outcomes import FAILURES, Failure, Remedy
from controlplane.release.seen import Decision, Propagation, Seen
from controlplane.release.state import (
    NO_RETURN,
    NOTHING,
    RETURNED,
    RETURNING,
    Action,
    Phase,
    ReleaseState,
    Stage,
    salt,
)
from controlplane.release.traffic import Endpoints
from controlplane.release.transitions import HALTS, STAGES, transition

GRACE = 10.0  # seconds that a proxy may be away and still count; by our bootstrap it is back within 5
NEW_STEP = frozenset({Action.START, Action.ADVANCE, Action.GUARD, Action.STEP_BACK})


def with_gate(
    state: ReleaseState, propagation: Propagation, elapsed: timedelta
) -> tuple[ReleaseState, Propagation]:
    """Return the state with its gate set brought up to date, and the propagation with who is away.

    A proxy that joins is in the set at once; one that leaves drops out after a grace, and refuses until then
    what it refused. The grace does not run while
    the control plane is away, whose first ``elapsed`` is zero: nobody is taken for gone because it was.
    Who is connected and not served, or has left the service, is not away.
    """
    if not propagation.absent and tuple(state.gate) == tuple((proxy, 0.0) for proxy in propagation.live):
        return state, propagation
    away = dict(state.gate) | dict.fromkeys(propagation.live, 0.0)
    for proxy in (*propagation.left, *(proxy for proxy, _ in propagation.unserved)):
        if proxy not in propagation.live:
            away.pop(proxy, None)
    for proxy in away.keys() - set(propagation.live):
        away[proxy] += elapsed.total_seconds()
    gate = tuple(sorted((proxy, seconds) for proxy, seconds in away.items() if seconds <= GRACE))
    absent = tuple(proxy for proxy, _ in gate if proxy not in propagation.live)
    nacked = (*propagation.nacked, *(refusal for refusal in propagation.refused if refusal[0] in absent))
    return state.model_copy(update={"gate": gate}), replace(propagation, absent=absent, nacked=nacked)


def apply(state: ReleaseState, decision: Decision, seen: Seen) -> ReleaseState:
    """Return the state after a decision; `dated` sets the dates."""
    counted = seen.elapsed if decision.counts and state.active else NOTHING
    asked = seen.elapsed if decision.code in gates.ASKING else NOTHING
    stepped = seen.elapsed if state.active and not state.halt and decision.code not in gates.SHUT else NOTHING
    unproved, sighted = _unproved(state, decision, seen)
    stay = state.model_copy(
        update=holding.held(state, decision, seen.elapsed)
        | {
            "because": decision.reason,
            "judged": state.judged + counted,
            "unproved": unproved,
            "sighted": sighted,
            "elapsed": state.elapsed + (seen.elapsed if state.active else NOTHING),
            "running": state.running + (seen.elapsed if state.active else NOTHING),
            "stepping": state.stepping + stepped,
            "asking": state.asking + asked,
            "calls": (*state.calls, *decision.calls),
            "dooming": state.dooming + (seen.elapsed if state.doomed else NOTHING),
            "rest": _rested(state, seen.elapsed),
            "result": seen.results or state.result,
            "turned_at": seen.now if state.active else state.turned_at,
        }
    )
    if decision.action is None:
        return stay
    after = act(stay, decision.action, decision.reason, seen.where)
    if decision.action in (Action.FINISH, Action.REST):
        open_ = confirming.doubted(after.unconfirmed, seen.propagation)
        after = after.model_copy(update={"unconfirmed": open_})
    if decision.action is Action.FREEZE and decision.failure is not None:
        after = after.model_copy(update={"frozen_by": (*state.frozen_by, decision.failure)})
    if decision.rest is None:
        return after
    return after.model_copy(update={"rest": decision.rest, "tries": state.tries + 1, "barred": False})


def _unproved(state: ReleaseState, decision: Decision, seen: Seen) -> tuple[timedelta, timedelta]:
    """Return how long the step has gone without proof, and how much of it everything else was there."""
    waits = state.stage is Stage.PROPAGATE or state.halt or state.phase in RETURNING
    if waits or not state.active:
        return state.unproved, state.sighted
    if decision.counts and not seen.unproved and seen.suspicion < SUSPICIOUS:
        return NOTHING, NOTHING
    sighted = seen.elapsed if decision.counts and seen.sighted else NOTHING
    return state.unproved + seen.elapsed, state.sighted + sighted


def _rested(state: ReleaseState, elapsed: timedelta) -> timedelta | None:
    if state.rest is None or state.halt or state.phase in RETURNING:
        return state.rest
    return max(NOTHING, state.rest - elapsed)


def based(state: ReleaseState, stable: str) -> ReleaseState:
    """Return a release from what is stable now, if it waits and its order leaves `from` to that."""
    if not state.from_stable or state.phase is not Phase.WAITING or stable in ("", state.to_version):
        return state
    return state if stable == state.from_version else state.model_copy(update={"from_version": stable})


def act(state: ReleaseState, action: Action, reason: str, where: Endpoints | None = None) -> ReleaseState:
    """Return the state after an action of the loop or of an operator.

    Raises:
        NotAllowedError: If the table has no such action in this phase.
    """
    phase = transition(state, action)
    if action is Action.RETRY:
        return _again(state, reason)
    update: dict[str, object] = {"phase": phase, "because": reason}
    match action:
        case Action.START | Action.ADVANCE | Action.GUARD | Action.STEP_BACK:
            update |= _moved_step(state, action, where)
        case Action.PROCEED:
            pushed = state.stage is Stage.PROPAGATE
            update |= {"stage": STAGES[state.stage], "elapsed": NOTHING if pushed else state.elapsed}
        case Action.PROMOTE | Action.ROLL_BACK | Action.END:
            whole = f"{state.reason}; not again: {reason}" if state.phase is Phase.RETRYING else reason
            update |= {"because": whole, "reason": whole, "elapsed": NOTHING, "rest": None} | holding.OVER
            if action is Action.PROMOTE:
                update["unconfirmed"] = confirming.everyone(state)
        case Action.CROSS:
            state = crossing.crossed(state)
        case Action.RESUME:
            state = _resumed(state)
        case Action.DOOM:
            update["doomed"] = reason
        case Action.ARM:
            update |= {"start": "auto", "holding": ""}
    return state.model_copy(update=update | _halted(state, action, reason))


def confirmed(state: ReleaseState, reason: str) -> ReleaseState:
    """Return a release of which no proxy is unconfirmed any more; why it is promoted stays what is told."""
    phase = transition(state, Action.CONFIRM)
    told = {"because": reason} if state.phase in RETURNED else {}
    return state.model_copy(update={"phase": phase, "unconfirmed": ()} | told)


def _halted(state: ReleaseState, action: Action, reason: str) -> dict[str, object]:
    """Return what becomes of the halt, by its table; a halt that stays is what the release waits for."""
    halt = HALTS[state.halt, action]
    if action is Action.APPROVE and Failure.APPROVAL in state.frozen_by and not gates.awaited(state):
        halt = None
    if halt is None:
        return {"halt": None, "halted": "", "frozen_by": (), "hold": "", **holding.AFRESH}
    new = action in (Action.FREEZE, Action.PAUSE)
    lasts = state.held_for if halt == state.halt else NOTHING
    kept = {"halt": halt, "halted": reason if new else state.halted, "hold": halt, "held_for": lasts}
    return kept | holding.AFRESH


def _resumed(state: ReleaseState) -> ReleaseState:
    """Return a release that a person lets go on: what froze it does not do so again at once."""
    overruled = list(state.overruled)
    for cause in state.frozen_by:
        match FAILURES[cause].resumed:
            case Remedy.ANEW:
                state = state.model_copy(update=_anew(state, state.step))
            case Remedy.ASK:
                state = state.model_copy(update={"asking": NOTHING})
            case Remedy.CALL:
                state = crossing.resumed(state)
            case Remedy.OVERRULE:
                overruled.append(cause)
    return state.model_copy(update={"overruled": tuple(overruled)})


def _moved_step(state: ReleaseState, action: Action, where: Endpoints | None) -> dict[str, object]:
    update: dict[str, object] = {}
    if where is not None:
        update["canary_endpoints"] = where.there(state.to_version)
        if action is Action.START:
            update["way_back"] = where.count(state.from_version) or 0
    if action is not Action.STEP_BACK:
        return update | _fresh_step(state, 0 if action is Action.START else state.step + 1)
    step = failure.step_below(state)
    kept = {pinned.name for pinned in state.policy.steps[: step + 1]}
    approvals = tuple(given for given in state.approvals if given.step in kept)
    return update | _anew(state, step) | {"barred": True, "approvals": approvals, "result": ()}


def dated(state: ReleaseState, action: Action | None, now: datetime, actor: str = "turnout") -> ReleaseState:
    """Return the state with the dates that an action sets, that of its point of no return among them."""
    update: dict[str, object] = {"ended_at": now} if state.ended else {}
    if action is Action.START:
        update["started_at"] = now
    if action in NEW_STEP:
        update["step_at"] = now
    if action is Action.RETRY:
        update["created_at"] = now
    return point.noted(state.model_copy(update=update) if update else state, now, actor)


def _again(state: ReleaseState, reason: str) -> ReleaseState:
    """Return the same order as a new attempt: other users, and nothing gathered or granted yet."""
    attempt = state.attempt + 1
    return ReleaseState(
        name=state.name,
        attempt=attempt,
        service=state.service,
        from_version=state.from_version,
        to_version=state.to_version,
        policy=state.policy,
        salt=salt(state.group or state.name, attempt),
        after=state.after,
        group=state.group,
        supersedes=state.supersedes,
        from_stable=state.from_stable,
        document=state.document,
        purpose=state.purpose,
        tries=state.tries,
        unconfirmed=state.unconfirmed,
        because=reason,
        created_at=state.created_at,
        revision=state.revision,
    )


def restart_step(state: ReleaseState, reason: str, endpoints: tuple[str, ...]) -> ReleaseState:
    """Return the state at the begin of its current step: what was proved no longer holds."""
    return state.model_copy(
        update=_anew(state, state.step)
        | {"because": reason, "hold": "restarted", "held_for": NOTHING, "canary_endpoints": endpoints}
        | {"rest": state.rest, "barred": state.barred}
        | holding.AFRESH
    )


def _anew(state: ReleaseState, step: int) -> dict[str, object]:
    """Return a step at its begin, which had begun before: what others said of it was about what was then."""
    earlier = {pinned.name for pinned in state.policy.steps[:step]}
    at = state.policy.steps[step].name if step < state.steps else ""
    calls = tuple(
        call
        for call in state.calls
        if call.point == NO_RETURN or call.step in earlier or (call.step == at and call.point != "judging")
    )
    return _fresh_step(state, step) | {"calls": calls} | ({"result": ()} if state.testing else {})


def _fresh_step(state: ReleaseState, step: int) -> dict[str, object]:
    clocks = dict.fromkeys(("judged", "unproved", "sighted", "elapsed", "stepping", "asking"), NOTHING)
    fresh: dict[str, object] = {"step": step, "stage": Stage.PROPAGATE, "rest": None, "barred": False}
    return fresh | clocks | {"begun": state.begun + 1}


def next_action(state: ReleaseState) -> Action:
    """Return what an operator's ``advance`` (one step) means in this phase."""
    if state.phase is Phase.WAITING:
        return Action.START
    if state.phase is Phase.GUARDING:
        return Action.CROSS if crossing.ahead(state) else Action.PROMOTE
    last = state.phase is Phase.PROGRESSING and state.step + 1 >= state.steps
    if state.testing and state.policy.ends is not None and state.policy.ends.do == "report":
        return Action.END
    return Action.GUARD if last else Action.ADVANCE
