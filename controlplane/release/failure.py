"""What is done when a release must not go on: back to the old version, or stay and wait for a person."""

from __future__ import annotations

from controlplane.evidence.verdict import Verdict
from controlplane.release.seen import Decision, Seen
from controlplane.release.state import Action, Phase, ReleaseState


def failed(state: ReleaseState, seen: Seen, verdict: Verdict) -> Decision:
    """Return what follows from a condition that fails."""
    match state.policy.on_failure.do:
        case "hold":
            return Decision(None, "failed", f"failed, on_failure: hold: {verdict.reason}")
        case "freeze":
            return Decision(Action.FREEZE, "failed", verdict.reason)
        case "rollback":
            return roll_back(state, seen, f"{verdict.metric}/{verdict.segment}", verdict.reason)


def roll_back(state: ReleaseState, seen: Seen, code: str, reason: str) -> Decision:
    """Return the rollback, or an alarm if the old version has nowhere to take the requests."""
    if state.phase is not Phase.WAITING and not seen.endpoints.get(state.from_version):
        why = f"ALARM: cannot roll back, {seen.lack(state.from_version)}; {reason}"
        return Decision(None, "unsafe", why)
    return Decision(Action.ROLL_BACK, code, reason)
