"""What is done when a release must not go on: back to the old version, or stay and wait for a person."""

from __future__ import annotations

from datetime import timedelta

from controlplane.evidence.verdict import Verdict
from controlplane.policy.values import format_duration
from controlplane.release.seen import Decision, Seen
from controlplane.release.state import Action, ReleaseState
from controlplane.release.way_back import way_back


def failed(state: ReleaseState, seen: Seen, verdict: Verdict) -> Decision:
    """Return what follows from a condition that fails."""
    rule = (state.current.on_failure if state.current else None) or state.policy.on_failure
    rest = rule.retry.after if rule.retry and state.tries < rule.retry.times else None
    code = f"{verdict.metric}/{verdict.segment}"
    if state.past:
        return no_way_back(state, code, verdict.reason)
    match rule.do:
        case "hold":
            return Decision(None, "failed", f"failed, on_failure: hold: {verdict.reason}")
        case "freeze":
            return Decision(Action.FREEZE, "failed", verdict.reason)
        case "rollback":
            return roll_back(state, seen, code, verdict.reason, rest)
        case "step_back":
            return _step_back(state, seen, code, verdict.reason, rest)


def step_below(state: ReleaseState) -> int:
    """Return the step that a step back leads to; below 0 there is none.

    The guard has the shares of the last step, so from there it is the one before; after an A/B test it has
    more, and back is the test.
    """
    if state.policy.ends is not None:
        return state.step - 1
    return min(state.step, state.steps - 1) - 1


def _step_back(state: ReleaseState, seen: Seen, code: str, reason: str, rest: timedelta | None) -> Decision:
    below = step_below(state)
    if below < 0:
        return roll_back(state, seen, code, f"{reason}; there is no step to go back to")
    if way_back(state, seen.where).nowhere:
        return unsafe(state, seen, reason)
    again = "a person lets it go on" if rest is None else f"goes on after {format_duration(rest)}"
    text = f"{reason}; back to step {state.policy.steps[below].name!r}, {again}"
    return Decision(Action.STEP_BACK, code, text, rest=rest)


def roll_back(
    state: ReleaseState, seen: Seen, code: str, reason: str, rest: timedelta | None = None
) -> Decision:
    """Return the rollback, or an alarm if the old version has nowhere to take the requests."""
    if state.past:
        return no_way_back(state, code, reason)
    if way_back(state, seen.where).nowhere:
        return unsafe(state, seen, reason)
    if seen.links.first and not state.doomed:
        return Decision(Action.DOOM, code, f"{reason}; goes back after {seen.links.first}, of its group")
    text = reason if rest is None else f"{reason}; starts again after {format_duration(rest)}"
    return Decision(Action.ROLL_BACK, code, text, rest=rest)


def no_way_back(state: ReleaseState, code: str, reason: str) -> Decision:
    """Return what a failure past the point of no return leads to: a person decides."""
    if state.halt == "frozen":
        return Decision(None, "frozen", state.because)
    return Decision(Action.FREEZE, code, f"{reason}; past the point of no return ({state.past})")


def unsafe(state: ReleaseState, seen: Seen, reason: str) -> Decision:
    """Return the alarm that the old version has nowhere to take the requests."""
    why = f"ALARM: cannot go back, {seen.lack(state.from_version)}; {reason}"
    return Decision(None, "unsafe", why)
