"""Which requests arrived in a step, and when: of them it takes as many as are usual to judge it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import reduce
from math import ceil

from controlplane.evidence.flow import Flow
from controlplane.evidence.observation import Observation
from controlplane.evidence.reading import rough
from controlplane.evidence.shares import Lately, plus
from controlplane.evidence.shares import rows as rows_of
from controlplane.policy.documents import EVERYONE
from controlplane.policy.values import format_duration
from controlplane.release.state import Phase, ReleaseState
from controlplane.release.traffic import BUCKETS, Split, in_force

ALL = ""  # in the place of a proxy: all together

Place = tuple[str, str]  # proxy, segment

_NEW = Lately()


def step_split(state: ReleaseState) -> Split:
    """Return the split by which the present step shows: its segment's, else everyone's."""
    match state.phase:
        case Phase.PROGRESSING | Phase.GUARDING:
            return in_force(state.policy, state.step).own
        case Phase.PROMOTED:
            return Split(EVERYONE, None, ((0, BUCKETS),))
        case _:  # before the first step, and on the way back
            return Split(EVERYONE, None, ())


def of_late(
    before: Mapping[Place, Lately], observation: Observation, state: ReleaseState
) -> dict[Place, Lately]:
    """Return the requests by which the split is judged, after a settled interval."""
    shares, seconds = in_force(state.policy, state.step).shares, _seconds(observation)
    since = state.elapsed.total_seconds()
    found = dict(rows_of(observation, state.to_version, state.from_version, since))
    own = step_split(state).segment
    rows = [row for (_, segment), row in found.items() if segment == own]
    if rows:
        found[ALL, own] = reduce(plus, rows)
    after = dict(before)
    for place, row in found.items():
        if place[1] in shares:
            after[place] = after.get(place, _NEW).plus(row, seconds, shares[place[1]])
    return after


def flowed(before: Flow, observation: Observation, state: ReleaseState) -> Flow:
    """Return how requests of the canary come in the step's own segment, after a settled interval."""
    return before.after(_seconds(observation), _own(observation, state))


def since(before: datetime | None, flow: Flow, observation: Observation, state: ReleaseState) -> datetime:
    """Return since when none of them has come, after a settled interval, be its data late or not.

    Args:
        before: The same until then; None in a step's first one, and in a store of before this was kept.
        flow: Until then.
        observation: The interval.
        state: The release as it was during the interval.
    """
    if _own(observation, state):
        return observation.end
    return before or observation.start - timedelta(seconds=flow.idle)


def _own(observation: Observation, state: ReleaseState) -> int:
    own = step_split(state).segment, state.to_version
    return sum(tally.requests for cell, tally in observation.cells if (cell.segment, cell.version) == own)


def quiet(flow: Flow, state: ReleaseState, last: datetime | None) -> str:
    """Return since when no requests come by which the step could be judged, or ''.

    ``last`` is when the last one came.
    """
    if last is None or not flow.wanting or flow.idle < flow.wanting:
        return ""
    usual = f"; usually one comes within {rough(flow.usual)}" if flow.gaps else ""
    return f"no request {_whose(state)} has come since {last:%Y-%m-%d %H:%M:%S} UTC{usual}"


def returning(flow: Flow, state: ReleaseState) -> str:
    """Return for how long requests must still come, which do again after a time without, or ''."""
    if not flow.wanting or flow.idle >= flow.wanting:
        return ""
    back = format_duration(timedelta(seconds=ceil(flow.wanting)))
    return f"requests {_whose(state)} come again, and must for another {back}"


def _whose(state: ReleaseState) -> str:
    return f"of {state.to_version} in segment {step_split(state).segment}"


def unvisited(before: float, observation: Observation) -> float:
    """Return for how many seconds no request of the service has come, of any version, after an interval."""
    came = any(tally.requests for _, tally in observation.cells)
    return 0.0 if came else before + _seconds(observation)


def _seconds(observation: Observation) -> float:
    return (observation.end - observation.start).total_seconds()
