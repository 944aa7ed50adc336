"""Calls to other systems: which are due, what an answer means, and what the release waits for. Pure.

A call is written into the release's state before it is made, and its key stays the same in every attempt: a
process that is killed meanwhile makes it again, and the other side can tell. Answers:

- 2xx: yes
- 409 or 412: no
- anything else, also no answer: unknown; it is asked again, at longer and longer intervals

The call of the point of no return is no question but a deed, made once: see `release.crossing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.evidence.verdict import Outcome, Said, Verdict
from controlplane.policy.documents import Point
from controlplane.release.ports import Json
from controlplane.release.seen import Decision
from controlplane.release.state import NO_RETURN, Answer, Call, Phase, ReleaseState, Stage

ASKED = "hook"  # code of a release that waits for an answer
REFUSED = "hook-refused"
NO = frozenset({409, 412})
SOONEST, LATEST = timedelta(seconds=1), timedelta(minutes=1)  # between attempts
AGAIN = timedelta(seconds=30)  # after a no, which may become a yes


def gate(state: ReleaseState) -> Decision | None:
    """Return why another system keeps the next step from beginning, with the calls that ask it, or None."""
    for point, step in _ahead(state):
        missing = tuple(call for call in calls(state, point, step) if state.call(call.key) is None)
        if missing:
            what = f"asks {_places(missing)} whether {step!r} may begin"
            return Decision(None, ASKED, what, counts=True, calls=missing)
        for call in calls(state, point, step):
            made = state.call(call.key)
            assert made is not None
            if made.answer is not Answer.YES:
                waits = f"{step!r} waits for {_said(made)}"
                return Decision(None, _code(made), waits, counts=True, cause=made.url)
    return None


def judging(state: ReleaseState) -> tuple[Call, ...]:
    """Return the calls that judge the present step and were not made yet."""
    if not state.policy.hooks or state.phase is not Phase.PROGRESSING:
        return ()
    if state.stage is not Stage.JUDGE or state.halt:
        return ()
    return tuple(c for c in calls(state, "judging", state.at) if state.call(c.key) is None)


def verdicts(state: ReleaseState) -> tuple[Verdict, ...]:
    """Return what other systems say of the present step; it passes when all have said yes."""
    if not state.policy.hooks or state.phase is not Phase.PROGRESSING:
        return ()
    found = []
    for call in calls(state, "judging", state.at):
        made = state.call(call.key) or call
        outcome = {Answer.YES: Outcome.PASS, Answer.NO: Outcome.FAIL}.get(made.answer, Outcome.NOT_YET)
        lacking = outcome is Outcome.NOT_YET
        found.append(Verdict("hook", state.at, outcome, Said(_said(made)), lacking=lacking))
    return tuple(found)


def calls(state: ReleaseState, point: Point, step: str) -> tuple[Call, ...]:
    """Return the calls that a policy asks for at a point, as they are before they are made."""
    return tuple(
        Call(
            # When a step begins again, it is asked for again, and that is another question.
            key=f"{state.key}/{point}/{step}/{state.begun}/{number}",
            point=point,
            step=step,
            url=hook.url,
            timeout=hook.timeout,
        )
        for number, hook in enumerate(state.policy.hooks)
        if hook.at == point
    )


def body(state: ReleaseState, call: Call, now: datetime) -> Json:
    """Return what is sent."""
    event = cloud_event(state, f"hook.{call.point}", now, point=call.point, step=call.step)
    return {**event, "id": call.key}


def cloud_event(state: ReleaseState, kind: str, at: datetime, **more: object) -> Json:
    """Return an event about a release in the JSON format of CloudEvents 1.0, without its ``id``."""
    return {
        "specversion": "1.0",
        "type": f"turnout.{kind}",
        "source": f"/turnout/releases/{state.name}",
        "subject": state.service,
        "time": at.isoformat(),
        "datacontenttype": "application/json",
        "data": {
            "release": state.name,
            "attempt": state.attempt,
            "service": state.service,
            "from": state.from_version,
            "to": state.to_version,
            "policy": state.policy.name,
            "emergency": state.policy.emergency,
            "phase": str(state.phase),
            **more,
        },
    }


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one attempt: an HTTP status, or an error where there was none."""

    status: int | None
    error: str = ""

    @property
    def answer(self) -> Answer:
        """What it means."""
        if self.status is None:
            return Answer.UNKNOWN
        return Answer.YES if 200 <= self.status < 300 else Answer.NO if self.status in NO else Answer.UNKNOWN


def answered(state: ReleaseState, key: str, seen: Answered, now: datetime) -> ReleaseState:
    """Return the state with what came of an attempt; a call that the release has dropped stays dropped."""
    made = state.call(key)
    if made is None or not _open(made):
        return state
    pause = AGAIN if seen.answer is Answer.NO else min(LATEST, SOONEST * 2 ** min(made.tries, 10))
    after = made.model_copy(
        update={
            "answer": seen.answer,
            "tries": made.tries + 1,
            "error": seen.error or (f"answered {seen.status}" if seen.answer is not Answer.YES else ""),
            "due": now + pause,
        }
    )
    return state.model_copy(update={"calls": tuple(after if c.key == key else c for c in state.calls)})


def due(state: ReleaseState, now: datetime) -> tuple[Call, ...]:
    """Return the calls that are to be made now: nobody is asked for a release that stands still."""
    if not state.may_go_on or state.halt:
        return ()
    return tuple(call for call in state.calls if _open(call) and _reached(call.due, now))


def _reached(due: datetime | None, now: datetime) -> bool:
    # No pause is that long: the clock went back.
    return due is None or due <= now or due - now > LATEST


def _open(call: Call) -> bool:
    if call.point == NO_RETURN:
        return call.answer is Answer.NONE
    # A no to a gate may become a yes; a no of a judge is a verdict.
    return call.answer is not Answer.YES and not (call.point == "judging" and call.answer is Answer.NO)


def _ahead(state: ReleaseState) -> tuple[tuple[Point, str], ...]:
    """Return the points that lie before what would begin next."""
    if state.phase is Phase.WAITING:
        first = state.policy.steps[0].name
        return (("start", first), ("before_step", first))
    if state.phase is Phase.GUARDING:
        return (("before_promote", "promoted"),)
    if state.step + 1 < state.steps:
        return (("before_step", state.policy.steps[state.step + 1].name),)
    return ()


def _code(call: Call) -> str:
    return REFUSED if call.answer is Answer.NO else ASKED


def _said(call: Call) -> str:
    match call.answer:
        case Answer.YES:
            return f"{call.url} said yes"
        case Answer.NO:
            return f"{call.url}, which said no ({call.error}, {call.tries} times)"
        case Answer.UNKNOWN:
            return f"{call.url}, which cannot be asked: {call.error} ({call.tries} times)"
        case Answer.NONE:
            return f"the answer of {call.url}"


def _places(missing: tuple[Call, ...]) -> str:
    return ", ".join(call.url for call in missing)
