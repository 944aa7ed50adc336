"""What is done when a release must not go on: back to the old version, or stay and wait for a person."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from controlplane.evidence.spoiled import BUDGET
from controlplane.evidence.verdict import Verdict
from controlplane.policy.values import format_duration
from controlplane.release.outcomes import FAILURES, Failure, Outcome, Place
from controlplane.release.seen import Decision, Seen
from controlplane.release.state import Action, Phase, ReleaseState
from controlplane.release.way_back import way_back

Do = Literal["rollback", "step_back", "hold", "freeze"]


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure, as it met a release.

    Attributes:
        failure: Of which kind.
        code: Its own, short; see `Decision`.
        reason: With the numbers.
        do: What the policy says, where it has a say.
        rest: After which it goes on by itself, if it goes back.
        counts: Whether the interval counts as time of judging, if it stays.
    """

    failure: Failure
    code: str
    reason: str
    do: Do = "rollback"
    rest: timedelta | None = None
    counts: bool = False


def condition(state: ReleaseState, verdict: Verdict) -> Failed:
    """Return the failure of a condition; what a person has halted does not start again by itself."""
    rule = (state.current.on_failure if state.current else None) or state.policy.on_failure
    code = f"{verdict.metric}/{verdict.segment}"
    if verdict.metric == BUDGET:
        # What is spent stays spent at every step, and is not given out again without a person.
        do: Do = "rollback" if rule.do == "step_back" else rule.do
        return Failed(Failure.CONDITION, code, verdict.told, do)
    again = rule.retry is not None and state.tries < rule.retry.times and not state.halt
    rest = rule.retry.after if rule.retry and again else None
    return Failed(Failure.CONDITION, code, verdict.told, rule.do, rest)


def follows(state: ReleaseState, seen: Seen, failed: Failed) -> Decision | None:
    """Return what a failure leads to, by the table; None where it changes nothing."""
    match _outcome(state, failed):
        case "rollback":
            decision = _roll_back(state, seen, failed)
        case "step_back":
            decision = _step_back(state, seen, failed)
        case "hold":
            decision = _hold(failed)
        case "freeze":
            decision = Decision(Action.FREEZE, _staying(failed), _frozen(state, failed))
        case None:
            return None
    return replace(decision, failure=failed.failure)


def _outcome(state: ReleaseState, failed: Failed) -> Do | None:
    if failed.failure in state.overruled:
        return None
    match FAILURES[failed.failure].at(place(state)):
        case Outcome.NOTHING:
            return None
        case Outcome.BACK:
            return "rollback"
        case Outcome.FREEZES:
            do: Do = "freeze"
        case Outcome.POLICY:
            do = failed.do
        case Outcome.POLICY_FROZEN:
            do = "freeze" if failed.do in ("rollback", "step_back") else failed.do
    if state.halt == "frozen" and do in ("hold", "freeze"):
        return None if failed.failure in state.frozen_by else "freeze"
    return do


def place(state: ReleaseState) -> Place:
    """Return where a failure meets a release; one that has ended is met by none."""
    match state.phase:
        case Phase.WAITING:
            return Place.WAITING
        case Phase.RETRYING:
            return Place.RETRYING
        case Phase.PROGRESSING | Phase.GUARDING:
            return Place.PAST if state.past else Place.GOING
        case Phase.ROLLING_BACK | Phase.ENDING | Phase.PROMOTED | Phase.ROLLED_BACK | Phase.ENDED:
            return Place.RETURNING


def step_below(state: ReleaseState) -> int:
    """Return the step that a step back leads to; below 0 there is none.

    The guard has the shares of the last step, so from there it is the one before; after an A/B test it has
    more, and back is the test.
    """
    if state.policy.ends is not None:
        return state.step - 1
    return min(state.step, state.steps - 1) - 1


def _step_back(state: ReleaseState, seen: Seen, failed: Failed) -> Decision:
    below = step_below(state)
    if below < 0:
        why = f"{failed.reason}; there is no step to go back to"
        return _roll_back(state, seen, replace(failed, reason=why))
    if way_back(state, seen.where).nowhere:
        return unsafe(state, seen, failed.reason)
    again = "a person lets it go on"
    if failed.rest is not None:
        again = f"goes on after {format_duration(failed.rest)}"
    text = f"{failed.reason}; back to step {state.policy.steps[below].name!r}, {again}"
    return Decision(Action.STEP_BACK, failed.code, text, rest=failed.rest)


def _roll_back(state: ReleaseState, seen: Seen, failed: Failed) -> Decision:
    """Return the rollback, or an alarm if the old version has nowhere to take the requests."""
    if way_back(state, seen.where).nowhere:
        return unsafe(state, seen, failed.reason)
    if seen.links.first and state.active and not state.doomed:
        after = f"goes back after {seen.links.first}, of its group"
        return Decision(Action.DOOM, failed.code, f"{failed.reason}; {after}")
    rest = "" if failed.rest is None else f"; starts again after {format_duration(failed.rest)}"
    return Decision(Action.ROLL_BACK, failed.code, f"{failed.reason}{rest}", rest=failed.rest)


def _hold(failed: Failed) -> Decision:
    why = (
        f"failed, on_failure: hold: {failed.reason}" if failed.failure is Failure.CONDITION else failed.reason
    )
    return Decision(None, _staying(failed), why, counts=failed.counts, cause=failed.code)


def _staying(failed: Failed) -> str:
    return "failed" if failed.failure is Failure.CONDITION else failed.code


def _frozen(state: ReleaseState, failed: Failed) -> str:
    """Return why a release is frozen, and what a person can do; another failure adds its reason."""
    past = f"; past the point of no return ({state.past})" if state.past else ""
    resume = f"`turnout resume {state.name}` {FAILURES[failed.failure].resumed}"
    flag = " --past-point-of-no-return" if state.past else ""
    text = f"{failed.reason}{past}; {resume}, `turnout rollback {state.name}{flag}` takes it back"
    return f"{state.halted or state.because}; and {text}" if state.halt == "frozen" else text


def unsafe(state: ReleaseState, seen: Seen, reason: str) -> Decision:
    """Return the alarm that the old version has nowhere to take the requests."""
    lack = seen.lack(state.from_version)
    return Decision(None, "unsafe", f"ALARM: cannot go back, {lack}; {reason}", cause=lack)
