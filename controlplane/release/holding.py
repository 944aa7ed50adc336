"""Which holds of a release are written down: each other kind, and each other cause of one kind. Pure.

A cause may change to and fro with every interval, so of one kind each further cause is written down after
twice the time of the one before, up to an hour; what it is meanwhile the release shows.
"""

from __future__ import annotations

from datetime import timedelta

from controlplane.release.seen import Decision
from controlplane.release.state import ReleaseState

FIRST, LONGEST = timedelta(seconds=10), timedelta(hours=1)
NOTHING = timedelta(0)


def new_kind(state: ReleaseState, decision: Decision) -> bool:
    """Return whether a release is held by what did not hold it before."""
    return decision.code not in ("", state.hold)


def new_cause(state: ReleaseState, decision: Decision) -> bool:
    """Return whether another cause of the same hold is to be written down now."""
    if decision.action is not None or decision.code != state.hold:
        return False
    pause = min(LONGEST, FIRST * 2 ** min(state.causes, 16))
    return decision.cause not in ("", state.cause) and state.caused >= pause


def held(state: ReleaseState, decision: Decision, elapsed: timedelta) -> dict[str, object]:
    """Return what becomes of the hold: its kind, and the cause that was written down last."""
    if decision.action is not None:
        return {"hold": "", "cause": "", "caused": NOTHING, "causes": 0}
    found: dict[str, object] = {"hold": decision.code, "caused": state.caused + elapsed}
    if new_kind(state, decision):
        return found | {"cause": decision.cause, "caused": NOTHING, "causes": 0}
    if new_cause(state, decision):
        return found | {"cause": decision.cause, "caused": NOTHING, "causes": state.causes + 1}
    return found
