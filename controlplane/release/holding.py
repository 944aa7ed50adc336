"""What becomes of a hold of a release: what of it is written down, and when people are told. Pure.

What is wrong is known by its code and its cause, which conditions, proxies or versions are behind it: with
another cause it is another trouble, and its time begins anew. What else holds is known by its code alone.

Written down is each other kind, and each other cause of one kind. Kinds and causes may change to and fro with
every interval, so what was written before is written again only after twice the time of the time before, up
to an hour; what it is meanwhile the release shows.

People are told of what is wrong once it has lasted, and that it is over once it has been away for as long.
What releases wait for all the time they are not told, and of a person's turn they hear at once.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import xxhash

from controlplane.policy.values import format_seconds
from controlplane.release.seen import Decision
from controlplane.release.state import NOTHING, Held, ReleaseState

FIRST, LONGEST = timedelta(seconds=10), timedelta(hours=1)
LASTS = timedelta(seconds=30)
KEPT = 8  # holds of a moment ago

Kind = Literal["ordinary", "person", "wrong"]
# Of these a release is rid by itself, and it waits for some of them all the time.
ORDINARY = frozenset(
    {
        "",
        "apart",
        "better-unproved",
        "blackout",
        "busy",
        "crossing",
        "dependency",
        "doomed",
        "dwell",
        "hook",
        "not-yet",
        "propagate",
        "resting",
        "retrying",
        "returning",
        "testing",
        "verify",
        "window",
    }
)
ASKING = frozenset({"approval", "approval-expired", "manual", "test-over"})
PERSON = ASKING | {"frozen", "paused", "stepped-back"}  # the others were told by what led to them
OVER: dict[str, object] = {"wrong": NOTHING, "well": NOTHING, "told": "", "told_what": "", "told_why": ""}
AFRESH: dict[str, object] = {"kinds": (), "unwritten": False, "holds": ()}


def kind(code: str) -> Kind:
    """Return what is to be thought of a hold."""
    return "ordinary" if code in ORDINARY else "person" if code in PERSON else "wrong"


def identity(decision: Decision) -> str:
    """Return by what a hold is known: it stays the same while that does.

    The cause, which may name thousands of proxies, is hashed.
    """
    if not decision.cause or kind(decision.code) != "wrong":
        return decision.code
    return f"{decision.code} {xxhash.xxh3_64_hexdigest(decision.cause.encode())}"


# --- records ----------------------------------------------------------------------------------------------


def new_kind(state: ReleaseState, decision: Decision) -> bool:
    """Return whether a release is held by what did not hold it before, and that is to be written down now."""
    code = decision.code
    if not code or (code == state.hold and not state.unwritten):
        return False
    return code not in state.kinds or (code != state.kinds[-1] and state.caused >= _pause(state))


def new_cause(state: ReleaseState, decision: Decision) -> bool:
    """Return whether another cause of the same hold is to be written down now."""
    if decision.action is not None or decision.code != state.hold or state.unwritten:
        return False
    return decision.cause not in ("", state.cause) and state.caused >= _pause(state)


def held(state: ReleaseState, decision: Decision, elapsed: timedelta) -> dict[str, object]:
    """Return what becomes of the hold: its kind, and the cause that was written down last."""
    if decision.action is not None:
        gone: dict[str, object] = {"hold": "", "held_for": NOTHING, "cause": "", "caused": NOTHING}
        return gone | AFRESH | {"causes": 0}
    code, kinds = decision.code, state.kinds
    lasts = state.held_for + elapsed if code == state.hold else NOTHING
    found: dict[str, object] = {"hold": code, "held_for": lasts, "caused": state.caused + elapsed}
    known = state.holds or ((Held(what=code, lasted=state.held_for),) if code == state.hold else ())
    found["holds"] = _lasting(known, identity(decision), elapsed)
    if new_kind(state, decision):
        found |= {"kinds": (*(k for k in kinds if k != code), code), "unwritten": False}
        return found | {"cause": decision.cause, "caused": NOTHING, "causes": _causes(state, code in kinds)}
    if code != state.hold:
        found["unwritten"] = code in kinds[:-1]
    if new_cause(state, decision):
        found |= {"cause": decision.cause, "caused": NOTHING, "causes": _causes(state, True)}
    return found


def _lasting(known: tuple[Held, ...], what: str, elapsed: timedelta) -> tuple[Held, ...]:
    """Return what holds a release and what did a moment ago, after an interval in which ``what`` holds it."""
    pause = max(LASTS, 4 * elapsed)
    before = next((each for each in known if each.what == what), None)
    lasted = before.lasted + before.away + elapsed if before else NOTHING
    others = (Held(what=o.what, lasted=o.lasted, away=o.away + elapsed) for o in known if o.what != what)
    return (Held(what=what, lasted=lasted), *(o for o in others if o.away < pause))[:KEPT]


def _pause(state: ReleaseState) -> timedelta:
    return min(LONGEST, FIRST * (1 << min(state.causes, 16)))


def _causes(state: ReleaseState, known: bool) -> int:
    """Return how often something was written again; what is new, or comes after a long quiet, counts anew."""
    return state.causes + 1 if known and state.caused < 4 * _pause(state) else 0


# --- people -----------------------------------------------------------------------------------------------


def telling(
    state: ReleaseState, decision: Decision, elapsed: timedelta, lasts: timedelta
) -> tuple[ReleaseState, str, str]:
    """Return a release with the clocks of what is wrong, and what to tell: ``held`` or ``cleared``, or ''.

    While somebody has halted it, nothing is known to be over.

    Args:
        state: After the decision.
        decision: What was decided.
        elapsed: Since the decision before.
        lasts: How long something must be wrong.

    Returns:
        The release, what is told, and in which words.
    """
    if state.ended or state.halt:
        return state, "", ""
    if decision.action is None and kind(decision.code) == "wrong":
        wrong = state.wrong + elapsed
        state = state.model_copy(update={"wrong": wrong, "well": NOTHING})
        what = identity(decision)
        if (state.told and not _changed(state, decision, lasts)) or wrong < lasts:
            return state, "", ""
        since = format_seconds(state.held if state.told else wrong)
        told = {"told": decision.code, "told_what": what, "told_why": decision.reason}
        return state.model_copy(update=told), "held", f"for {since}: {decision.reason}"
    if not state.wrong:
        return state, "", ""
    well = state.well + elapsed
    if well < lasts:
        return state.model_copy(update={"well": well}), "", ""
    words = f"over: {state.told_why}; now: {decision.reason}" if state.told else ""
    return state.model_copy(update=OVER), "cleared" if state.told else "", words


def _changed(state: ReleaseState, decision: Decision, lasts: timedelta) -> bool:
    """Return whether it is another trouble than the one that people were told of, and not for a moment only.

    Of other causes of one kind they are told as they are written down: causes may change to and fro.
    """
    if decision.code != state.told:
        return state.held_for >= lasts
    written = decision.cause == state.cause and state.caused >= lasts
    return identity(decision) != (state.told_what or decision.code) and written and state.held_for >= lasts
