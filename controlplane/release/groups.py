"""Releases that know one another: dependencies, groups in lockstep, and one that takes another's place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from controlplane.release import point
from controlplane.release.gates import SHUT
from controlplane.release.seen import Links
from controlplane.release.state import RETURNED, RETURNING, Phase, ReleaseState

Releases = Mapping[str, ReleaseState]

BACK = frozenset({Phase.ROLLING_BACK, Phase.RETRYING, Phase.ROLLED_BACK})
HAS_TRAFFIC = frozenset({Phase.PROGRESSING, Phase.GUARDING}) | RETURNING
REACHED = {
    "guarding": frozenset({Phase.GUARDING, Phase.PROMOTED}),
    "promoted": frozenset({Phase.PROMOTED}),
}


def links(state: ReleaseState, releases: Releases, stable: Mapping[str, str]) -> Links:
    """Return what the other releases mean for one, as they were at the begin of the tick.

    ``stable`` has the stable version of each service: what was promoted may not be it any more.
    """
    others = members(state, releases)
    return Links(
        unmet=_unmet(state, releases, stable),
        failed=_failed(state, releases, stable),
        apart=_earlier(state, releases) or _apart(state, others),
        fallen=_fallen(others),
        first=_first(state, others),
        superseded=_superseded(state, releases),
        succeeds=_succeeds(state, releases),
    )


def members(state: ReleaseState, releases: Releases) -> tuple[ReleaseState, ...]:
    """Return the others of the group in the same attempt."""
    return tuple(other for other in _known(state, releases) if other.attempt == state.attempt)


def _known(state: ReleaseState, releases: Releases) -> Iterator[ReleaseState]:
    """Yield the others of the group; those that ended before this order was given were of an earlier one."""
    for other in releases.values() if state.group else ():
        ended = other.ended_at is not None and other.ended_at <= state.created_at
        if other.group == state.group and other.name != state.name and not ended:
            yield other


# --- dependencies -----------------------------------------------------------------------------------------


def _outside(state: ReleaseState, releases: Releases) -> Iterator[tuple[str, str, ReleaseState | None]]:
    for after in state.after:
        other = releases.get(after.release)
        if other is None or not state.group or other.group != state.group:
            yield after.release, after.reached, other


def _unmet(state: ReleaseState, releases: Releases, stable: Mapping[str, str]) -> str:
    for name, reached, other in _outside(state, releases):
        if other is None:
            return f"waits for release {name!r}, which was not ordered yet"
        if other.phase not in REACHED[reached]:
            return f"waits until release {name!r} is {reached}; it is {other.phase}"
        now = stable.get(other.service, "")
        if other.phase is Phase.PROMOTED and now not in point.onward(other, releases):
            return f"waits for what release {name!r} promoted: {now} of {other.service!r} is stable instead"
    return ""


def _failed(state: ReleaseState, releases: Releases, stable: Mapping[str, str]) -> str:
    for name, _, other in _outside(state, releases):
        if other is None:
            continue
        if other.phase in RETURNING | RETURNED:
            return f"release {name!r}, on which it depends, went back: {other.reason}"
        now = stable.get(other.service, "")
        if other.phase is Phase.PROMOTED and now in point.before(other, releases):
            return f"release {name!r}, on which it depends, was undone: {now} of {other.service!r} is stable"
    return ""


# --- groups -----------------------------------------------------------------------------------------------


def passed(state: ReleaseState) -> int:
    """Return how many steps a release has passed; the guard counts as one after the last."""
    match state.phase:
        case Phase.PROGRESSING | Phase.GUARDING:
            return state.step + (state.hold in SHUT)
        case Phase.PROMOTED:
            return state.steps + 1
        case _:
            return 0


def at_end(state: ReleaseState) -> bool:
    """Return whether nothing of its group can take a release back any more: promoted, or past its point."""
    return state.phase is Phase.PROMOTED or state.crossing is not None


def _earlier(state: ReleaseState, releases: Releases) -> str:
    """Return who of the group is still in an earlier attempt and must come along before this one starts."""
    if state.phase is not Phase.WAITING:
        return ""
    behind = sorted(other.name for other in _known(state, releases) if other.attempt < state.attempt)
    if not behind:
        return ""
    what = f"waits for attempt {state.attempt} of {', '.join(behind)}"
    return f"group {state.group!r} goes together: {what}; `turnout retry {behind[0]}` runs that again"


def _apart(state: ReleaseState, others: Iterable[ReleaseState]) -> str:
    """Return why a member may not begin its next step, or ''.

    All have passed the step before, and those on which it depends the same step. The end is joint: each has
    said that its guard has passed before any is promoted.
    """
    following = 0 if state.phase is Phase.WAITING else state.step + 1
    behind = [other.name for other in others if passed(other) < following]
    if behind:
        return f"group {state.group!r} goes together: waits for {', '.join(sorted(behind))}"
    names = {after.release for after in state.after}
    before = [o.name for o in others if o.name in names and passed(o) <= following < state.steps]
    if before:
        return f"depends on {', '.join(sorted(before))} of group {state.group!r}, whose same step comes first"
    if state.group and state.phase is Phase.GUARDING and state.hold not in SHUT:
        return f"group {state.group!r} ends together: this one is ready"
    return ""


def _fallen(others: Iterable[ReleaseState]) -> str:
    for other in others:
        if other.phase in BACK or other.doomed:
            why = other.doomed or other.reason or other.because
            return f"release {other.name!r} of group {other.group!r} goes back: {why}"
    return ""


def _first(state: ReleaseState, others: Iterable[ReleaseState]) -> str:
    dependent = (
        other.name
        for other in others
        if other.phase in HAS_TRAFFIC and any(after.release == state.name for after in other.after)
    )
    return ", ".join(sorted(dependent))


# --- one for another --------------------------------------------------------------------------------------


def _superseded(state: ReleaseState, releases: Releases) -> str:
    """Return who takes the place of a release that is not at its end, and is ready for it."""
    for other in releases.values():
        if other.supersedes != state.name or other.service != state.service or other.ended:
            continue
        waiting = other.phase is Phase.WAITING
        ready = state.phase is Phase.PROGRESSING and waiting and other.hold == "busy"
        willing = not waiting or (other.start == "auto" and not other.halt)
        if ready or (state.phase in (Phase.WAITING, Phase.RETRYING) and willing):
            return f"release {other.name!r} takes its place"
    return ""


def _succeeds(state: ReleaseState, releases: Releases) -> str:
    """Return which release a person must end before this one may take its place."""
    other = releases.get(state.supersedes)
    if other is None or other.service != state.service or other.phase is not Phase.GUARDING:
        return ""
    name, back = other.name, f"turnout rollback {other.name}"
    if other.crossing is not None:
        end = f"past its point of no return, and the answer of {other.crossing.url} decides"
        return f"release {name!r} is {end}; `{back} --past-point-of-no-return` takes it back"
    ahead = other.policy.point_of_no_return is not None
    on = f"advance {name}` goes on to its point of no return" if ahead else f"promote {name}` finishes it"
    return f"release {name!r} is guarding: `turnout {on}, `{back}` takes it back"
