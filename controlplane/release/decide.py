"""The decision: what a release does now, and why. Pure: state, what was seen, and nothing else.

Order of the questions, each stage only after the one before it:

1. rollback evidence (in every stage, also while paused: it may always take traffic away)
2. halt: a person paused it or a policy froze it
3. propagate: has every live proxy acknowledged this step's resources?
4. verify: does the split seen in Envoy's counters agree with the one that was asked for?
5. judge: has every condition passed, for long enough, on fresh data?
6. gates (release/gates.py): may the next step begin? Until then the conditions of this one go on guarding.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from controlplane.evidence.verdict import Outcome
from controlplane.policy.values import format_duration, format_share
from controlplane.release import failure, gates
from controlplane.release.failure import roll_back
from controlplane.release.seen import Decision, Propagation, Seen
from controlplane.release.state import Action, Phase, ReleaseState, Stage, transition

NOTHING = timedelta(0)
GRACE = 10.0  # seconds that a proxy may be away and still count; by our bootstrap it is back within 5
NEW_STEP = frozenset({Action.START, Action.ADVANCE, Action.GUARD})
ALONE = timedelta(minutes=1)


SUSPICIOUS = 10.0  # e-value from which nothing advances, whatever else has passed


def with_gate(
    state: ReleaseState, propagation: Propagation, elapsed: timedelta
) -> tuple[ReleaseState, Propagation]:
    """Return the state with its gate set brought up to date, and the propagation with who is away.

    A proxy that joins is in the set at once; one that leaves drops out after a grace. It does not run while
    the control plane is away, whose first ``elapsed`` is zero: nobody is taken for gone because it was.
    """
    away = dict(state.gate) | dict.fromkeys(propagation.live, 0.0)
    for proxy in away.keys() - set(propagation.live):
        away[proxy] += elapsed.total_seconds()
    gate = tuple(sorted((proxy, seconds) for proxy, seconds in away.items() if seconds <= GRACE))
    absent = tuple(proxy for proxy, _ in gate if proxy not in propagation.live)
    return state.model_copy(update={"gate": gate}), replace(propagation, absent=absent)


def decide(state: ReleaseState, seen: Seen) -> Decision:
    """Return what happens to a release now.

    Source: DESIGN "How a release runs"; docs/decision-rule.md, "Thresholds".
    """
    match state.phase:
        case Phase.WAITING:
            return _waiting(state, seen)
        case Phase.ROLLING_BACK:
            return _rolling_back(state, seen.propagation)
        case Phase.PROMOTED | Phase.ROLLED_BACK:
            return Decision(None, "", state.reason)
        case Phase.PROGRESSING | Phase.GUARDING:
            return _in_progress(state, seen)


def _waiting(state: ReleaseState, seen: Seen) -> Decision:
    if state.halt:
        return Decision(None, state.halt, state.because)
    if (shut := gates.shut(state, seen)) is not None:
        return shut
    return Decision(Action.START, "start", f"first step: {describe_step(state, 0)}")


def _rolling_back(state: ReleaseState, propagation: Propagation) -> Decision:
    acked, live = len(propagation.acked), len(propagation.live)
    if live and acked == live and not propagation.absent:
        return Decision(Action.FINISH, "rolled-back", f"{acked} of {live} proxies acknowledged")
    if not live and not propagation.absent:
        # After a restart the proxies take a moment to return; none for a minute means that none is left.
        if state.elapsed >= ALONE:
            return Decision(Action.FINISH, "rolled-back", "no proxy is connected")
        return Decision(None, "no-proxy", "no proxy is connected")
    still = [*propagation.waiting, *(f"{proxy} ({why})" for proxy, why in propagation.nacked)]
    return Decision(None, "rolling-back", f"may still serve the canary: {', '.join(still)}")


def _in_progress(state: ReleaseState, seen: Seen) -> Decision:
    failed = next((v for v in seen.verdicts if v.outcome is Outcome.FAIL), None)
    if failed is not None and state.halt != "frozen":
        return failure.failed(state, seen, failed)
    if state.halt:
        return Decision(None, state.halt, state.because)
    if (late := _late(state, seen)) is not None:
        return late
    match state.stage:
        case Stage.PROPAGATE:
            return _propagate(state, seen.propagation)
        case Stage.VERIFY:
            return _verify(seen)
        case Stage.JUDGE:
            return _judge(state, seen)


def _late(state: ReleaseState, seen: Seen) -> Decision | None:
    """Return what happens when a step or the release has taken longer than the policy allows."""
    step, policy = state.current, state.policy
    if step is not None and step.within is not None and state.stepping >= step.within:
        what = f"step {step.name!r} did not pass within {format_duration(step.within)}"
    elif policy.deadline is not None and state.running >= policy.deadline:
        what = f"not promoted within {format_duration(policy.deadline)}, the deadline"
    else:
        return None
    if policy.on_timeout == "rollback":
        return roll_back(state, seen, "late", f"{what} (on_timeout: rollback)")
    return Decision(None, "late", f"{what}; `turnout advance {state.name}` goes on")


def _propagate(state: ReleaseState, propagation: Propagation) -> Decision:
    problem = _not_propagated(propagation)
    if problem is not None:
        if problem.code == "propagate" and state.elapsed > propagation.within:
            late = f"not acknowledged within {format_duration(propagation.within)} by"
            return Decision(None, "stragglers", f"{late} {', '.join(propagation.waiting)}")
        return problem
    acked, live = len(propagation.acked), len(propagation.live)
    return Decision(Action.PROCEED, "propagated", f"{acked} of {live} proxies acknowledged")


def _not_propagated(propagation: Propagation) -> Decision | None:
    if propagation.nacked:
        refused = "; ".join(f"{proxy} refuses {why}" for proxy, why in propagation.nacked)
        return Decision(None, "nack", refused)
    if not propagation.live:
        return Decision(None, "no-proxy", "no proxy is connected")
    if not propagation.complete:
        return Decision(None, "propagate", f"not yet acknowledged by {', '.join(propagation.waiting)}")
    return None


def _verify(seen: Seen) -> Decision:
    problem = _not_trusted(seen)
    if problem is not None:
        return problem
    if not seen.split_agrees:
        return Decision(None, "verify", f"too few requests to verify the split: {seen.split_missing}")
    return Decision(Action.PROCEED, "verified", "the observed split agrees with the one asked for")


def _not_trusted(seen: Seen) -> Decision | None:
    if seen.propagation.nacked:
        return _not_propagated(seen.propagation)
    if not seen.propagation.live:
        return Decision(None, "no-proxy", "no proxy is connected")
    if seen.stale:
        return Decision(None, "stale", seen.stale)
    if seen.split_problem:
        return Decision(None, "split", seen.split_problem)
    return None


def _judge(state: ReleaseState, seen: Seen) -> Decision:
    problem = _not_trusted(seen)
    if problem is not None:
        return problem
    judged = state.judged + seen.elapsed
    guarding = state.phase is Phase.GUARDING
    least = state.policy.guard.for_ if guarding else state.policy.steps[state.step].for_
    if seen.suspicion >= SUSPICIOUS:
        return _unsure(
            state, seen, judged, "suspicious", f"suspicious: e-value {seen.suspicion:.3g}, rollback at 100"
        )
    if judged < least:
        return Decision(
            None, "dwell", f"judged for {_seconds(judged)} of at least {format_duration(least)}", counts=True
        )
    # The guard ends with a proof like any step: its end gives the hold-back to the canary.
    unsure = [v for v in seen.verdicts if v.outcome is not Outcome.PASS]
    if unsure:
        return _unsure(state, seen, judged, "not-yet", "; ".join(v.reason for v in unsure))
    proof = "; ".join(v.reason for v in seen.verdicts) or "no conditions"
    if guarding:
        return _onwards(state, seen, "guarded", f"guarded for {_seconds(judged)}: {proof}")
    return _onwards(state, seen, "passed", proof)


def _onwards(state: ReleaseState, seen: Seen, code: str, reason: str) -> Decision:
    if not seen.endpoints.get(state.to_version):
        return Decision(None, "no-endpoints", f"ALARM: {seen.lack(state.to_version)}")
    if (shut := gates.shut(state, seen)) is not None:
        return shut
    return Decision(next_action(state), code, reason, counts=True)


def _unsure(state: ReleaseState, seen: Seen, judged: timedelta, code: str, reason: str) -> Decision:
    unsure = state.policy.when_unsure
    if judged < unsure.after or unsure.do == "hold":
        return Decision(None, code, reason, counts=True)
    after = f"unsure for {_seconds(judged)} (when_unsure: {unsure.do}): {reason}"
    if unsure.do == "rollback":
        return roll_back(state, seen, "unsure/everyone", after)
    if code == "suspicious" or state.phase is Phase.GUARDING:
        return Decision(None, code, reason, counts=True)
    return _onwards(state, seen, "without-proof", f"advanced without proof; {after}")


def apply(state: ReleaseState, decision: Decision, seen: Seen) -> ReleaseState:
    """Return the state after a decision; `dated` sets the dates."""
    counted = seen.elapsed if decision.counts and state.active else NOTHING
    asked = seen.elapsed if decision.code in gates.ASKING else NOTHING
    stepped = seen.elapsed if state.active and not state.halt and decision.code not in gates.SHUT else NOTHING
    stay = state.model_copy(
        update={
            "hold": "" if decision.action else decision.code,
            "because": decision.reason,
            "judged": state.judged + counted,
            "elapsed": state.elapsed + (seen.elapsed if state.active else NOTHING),
            "running": state.running + (seen.elapsed if state.active else NOTHING),
            "stepping": state.stepping + stepped,
            "asking": state.asking + asked,
        }
    )
    return stay if decision.action is None else act(stay, decision.action, decision.reason, seen.endpoints)


def act(
    state: ReleaseState, action: Action, reason: str, endpoints: dict[str, tuple[str, ...]] | None = None
) -> ReleaseState:
    """Return the state after an action of the loop or of an operator.

    Raises:
        NotAllowedError: If the table has no such action in this phase.
    """
    phase = transition(state, action)
    update: dict[str, object] = {"phase": phase, "because": reason, "hold": ""}
    match action:
        case Action.START | Action.ADVANCE | Action.GUARD:
            step = 0 if action is Action.START else state.step + 1
            update |= _fresh_step(step) | {"halt": None}
            if endpoints is not None:
                update["canary_endpoints"] = endpoints.get(state.to_version, ())
        case Action.PROCEED:
            after = {Stage.PROPAGATE: Stage.VERIFY, Stage.VERIFY: Stage.JUDGE, Stage.JUDGE: Stage.JUDGE}
            update |= {"stage": after[state.stage], "elapsed": NOTHING}
        case Action.PROMOTE | Action.ROLL_BACK:
            update |= {"halt": None, "reason": reason, "elapsed": NOTHING}
        case Action.PAUSE:
            update["halt"] = "paused"
        case Action.FREEZE:
            update["halt"] = "frozen"
        case Action.RESUME:
            update["halt"] = None
        case Action.ARM:
            update["start"] = "auto"
        case Action.FINISH | Action.APPROVE:
            pass
    return state.model_copy(update=update)


def dated(state: ReleaseState, action: Action | None, now: datetime) -> ReleaseState:
    """Return the state with the dates that an action sets."""
    update: dict[str, object] = {"ended_at": now} if state.ended else {}
    if action is Action.START:
        update["started_at"] = now
    if action in NEW_STEP:
        update["step_at"] = now
    return state.model_copy(update=update) if update else state


def restart_step(state: ReleaseState, reason: str, endpoints: tuple[str, ...]) -> ReleaseState:
    """Return the state at the begin of its current step: what was proved no longer holds."""
    return state.model_copy(
        update=_fresh_step(state.step)
        | {"because": reason, "hold": "restarted", "canary_endpoints": endpoints}
    )


def _fresh_step(step: int) -> dict[str, object]:
    clocks = dict.fromkeys(("judged", "elapsed", "stepping", "asking"), NOTHING)
    return {"step": step, "stage": Stage.PROPAGATE} | clocks


def next_action(state: ReleaseState) -> Action:
    """Return what an operator's ``advance`` (one step) means in this phase."""
    if state.phase is Phase.WAITING:
        return Action.START
    if state.phase is Phase.GUARDING:
        return Action.PROMOTE
    last = state.phase is Phase.PROGRESSING and state.step + 1 >= state.steps
    return Action.GUARD if last else Action.ADVANCE


def describe_step(state: ReleaseState, step: int) -> str:
    """Return a step in a few words: ``beta (50% of beta)``."""
    if step >= state.steps:
        return "guard"
    pinned = state.policy.steps[step]
    return f"{pinned.name} ({format_share(pinned.share)} of {pinned.segment})"


def _seconds(value: timedelta) -> str:
    return format_duration(timedelta(seconds=round(value.total_seconds())))
