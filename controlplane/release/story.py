"""What a release tells of itself: why it is where it is, also when that was decided earlier. Pure.

The loop's last reason of a release that goes back is about proxies; what people ask for is what led to it.
"""

from __future__ import annotations

from controlplane.release.state import Phase, ReleaseState

WAYS = {
    Phase.ROLLING_BACK: "rolling back from",
    Phase.RETRYING: "rolled back at",
    Phase.ROLLED_BACK: "rolled back at",
    Phase.ENDING: "ending at",
    Phase.ENDED: "ended at",
}


def stood(state: ReleaseState) -> str:
    """Return where a release is in its policy, or was when it left it: a step, ``guard``, or ''."""
    if state.started_at is None or state.phase in (Phase.WAITING, Phase.PROMOTED):
        return ""
    return state.policy.steps[state.step].name if state.step < state.steps else "guard"


def why(state: ReleaseState) -> str:
    """Return why a release is where it is; of one that goes back what led to it, and where that was."""
    if state.undone:
        return state.undone
    if state.phase not in WAYS or not state.reason:
        return state.because
    where = stood(state)
    way = f"{WAYS[state.phase]} {where}" if where else "called off before it started"
    now = "" if state.because == state.reason else state.because.removesuffix(f"; {state.reason}")
    return "; ".join(filter(None, (f"{way}: {state.reason}", now)))


def onward(state: ReleaseState) -> str:
    """Return what a person can do with a release that has ended; '' where nothing is left to do."""
    if state.phase in (Phase.ROLLED_BACK, Phase.ENDED) or state.undone:
        return f"`turnout retry {state.name}` runs it again, with other users and new evidence"
    return ""
