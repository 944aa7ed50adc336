"""What a rollback of a release would do now, by all that is known of it and of where versions answer. Pure.

The loop, those who show it and operators' commands ask here, so they say the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.policy.values import PPM
from controlplane.release import confirming
from controlplane.release.state import RETURNING, Phase, ReleaseState
from controlplane.release.traffic import Endpoints

MOVED = frozenset({Phase.PROGRESSING, Phase.GUARDING, Phase.PROMOTED}) | RETURNING
UNSAFE = "ALARM: a rollback would be unsafe"
FLAG = "--past-point-of-no-return"


@dataclass(frozen=True, slots=True)
class WayBack:
    """What is in the way of a rollback, each as words for people, '' where there is nothing.

    Attributes:
        past: It is past its point of no return, and why.
        nowhere: No endpoint of the old version can take requests; the end of a sentence about the version.
        few: The old version has fewer endpoints than the policy keeps; likewise.
    """

    past: str = ""
    nowhere: str = ""
    few: str = ""


def way_back(state: ReleaseState, where: Endpoints) -> WayBack:
    """Return what is in the way of a rollback; one that has moved nothing needs no endpoint."""
    old = state.from_version
    if state.phase not in MOVED:
        return WayBack(state.past)
    return WayBack(state.past, "" if where.there(old) else where.lack(old), _few(state, where))


def _few(state: ReleaseState, where: Endpoints) -> str:
    keep, there = state.policy.guard.keep_endpoints, where.count(state.from_version)
    if keep is None or there is None or not state.active or there * PPM >= state.way_back * keep:
        return ""
    return f"has {there} of {state.way_back} endpoints (keep_endpoints)"


def alarm(state: ReleaseState, where: Endpoints) -> tuple[str, str]:
    """Return what somebody should know while users could go back: a short code, and the words; or ''.

    Past its point of no return nothing goes back by itself, and an emergency replaces what may be down.
    """
    back = way_back(state, where)
    if state.phase not in (Phase.PROGRESSING, Phase.GUARDING) or back.past or state.policy.emergency:
        return "", ""
    code = "nowhere" if back.nowhere else "few" if back.few else ""
    return code, f"{UNSAFE}, {state.from_version} {back.nowhere or back.few}" if code else ""


def describe(state: ReleaseState, where: Endpoints, stable: str) -> str:
    """Say what a rollback would do now; after the end, what an undo would."""
    old, back = state.from_version, way_back(state, where)
    if state.ended and stable not in ("", state.to_version if state.phase is Phase.PROMOTED else old):
        return "; ".join(filter(None, (f"over: {stable} is stable", confirming.doubt(state))))
    if state.phase not in MOVED:
        return _at_rest(state)
    if back.nowhere:
        return f"UNSAFE: {old} {back.nowhere}"
    if state.phase in RETURNING:
        return f"under way: every request goes to {stable or old}"
    if back.past or back.few:
        return f"NO WAY BACK, {back.past}: {_past(state)}" if back.past else f"UNSAFE: {old} {back.few}"
    undo = f"{state.to_version} is stable; `turnout undo {state.name}` goes back, "
    return f"{undo if state.phase is Phase.PROMOTED else ''}one route change, to {_places(where, old)}"


def _at_rest(state: ReleaseState) -> str:
    old = state.from_version
    if state.unconfirmed:
        return f"NOT CONFIRMED: {confirming.doubt(state)}; all others have {old}"
    return f"{'done' if state.ended else 'nothing has moved'}: {old} has every request"


def _past(state: ReleaseState) -> str:
    if state.phase is not Phase.PROMOTED:
        return "a failure freezes, and a person decides"
    return f"{state.to_version} is stable; `turnout undo {state.name} {FLAG}` goes back all the same"


def _places(where: Endpoints, version: str) -> str:
    count = where.count(version)
    if count is None:
        return f"{version} at {', '.join(where.places[version])}"
    return f"{count} endpoint{'s' if count > 1 else ''} of {version}"
