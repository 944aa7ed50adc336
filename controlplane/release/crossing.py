"""The point of no return after the guard: one call to another system that does what cannot be undone. Pure.

It is crossed when the call is written down, before it is made. Only a person has a call without a yes made
again, also where nobody knows whether it was made. Source: docs/adr/0020.
"""

from __future__ import annotations

from controlplane.release.failure import Failed, follows
from controlplane.release.outcomes import Failure
from controlplane.release.seen import Decision, Seen
from controlplane.release.state import NO_RETURN, Action, Answer, Call, ReleaseState

WAITING = "crossing"  # code of a release past its point that has no yes
LOST = "Turnout ended before an answer was stored"


def ahead(state: ReleaseState) -> bool:
    """Return whether a release has a point after the guard and has not crossed it."""
    return state.policy.point_of_no_return is not None and state.crossing is None


def crossed(state: ReleaseState) -> ReleaseState:
    """Return a release with the call written down; its policy has a point."""
    point = state.policy.point_of_no_return
    assert point is not None
    key = f"{state.key}/{state.tries}/{NO_RETURN}"
    call = Call(key=key, point=NO_RETURN, step=NO_RETURN, url=point.run.url, timeout=point.run.timeout)
    return state.model_copy(update={"calls": (*state.calls, call)})


def decide(state: ReleaseState, seen: Seen) -> Decision | None:
    """Return what follows from the call, or None before it was crossed and where a person is to decide."""
    call = state.crossing
    if call is None:
        return None
    match call.answer:
        case Answer.NO | Answer.UNKNOWN:  # also of one that is halted: who lets it go on must know of this
            why = f"the call of {call.url}: {outcome(call)}"
            return follows(state, seen, Failed(Failure.CALL, WAITING, why))
        case _ if state.halt:
            return None
        case Answer.NONE:
            why = f"past the point of no return; waits for the answer of {call.url}"
            return Decision(None, WAITING, why)
        case Answer.YES:
            if not seen.endpoints.get(state.to_version):
                return no_endpoints(state, seen)
            return Decision(Action.PROMOTE, "crossed", f"{call.url} said yes")


def no_endpoints(state: ReleaseState, seen: Seen) -> Decision:
    """Return the hold of a release whose canary answers nowhere."""
    lack = seen.lack(state.to_version)
    return Decision(None, "no-endpoints", f"ALARM: {lack}", cause=lack)


def outcome(call: Call) -> str:
    """Return what has come of the call, for people."""
    match call.answer:
        case Answer.NONE:
            return "no answer yet"
        case Answer.YES:
            return "it was done"
        case Answer.NO:
            return f"it was not done, {call.error}"
        case Answer.UNKNOWN:
            return f"whether it was done is unknown, {call.error}"


def resumed(state: ReleaseState) -> ReleaseState:
    """Return a release that a person lets go on, who was told what came of the call: it is made again."""
    call = state.crossing
    if call is None or call.answer is Answer.YES:
        return state
    return _with(state, call.model_copy(update={"answer": Answer.NONE, "error": "", "due": None}))


def abandoned(state: ReleaseState) -> ReleaseState:
    """Return a release as a new process finds it: whether an unanswered call was made is unknown."""
    call = state.crossing
    if call is None or call.answer is not Answer.NONE or not state.may_go_on:
        return state
    update = {"answer": Answer.UNKNOWN, "tries": call.tries + 1, "error": LOST}
    return _with(state, call.model_copy(update=update))


def _with(state: ReleaseState, call: Call) -> ReleaseState:
    calls = tuple(call if other.key == call.key else other for other in state.calls)
    return state.model_copy(update={"calls": calls})
