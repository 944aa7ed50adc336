"""The point of no return: when a release passes it, and which versions are from before it. Pure.

That it was passed is a fact of the release (`ReleaseState.passed`), written down with the change that takes
it there, by the loop, an operator's promotion or a switch. Whoever asks whether there is a way back reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from controlplane.policy.pinned import PinnedStep
from controlplane.release.state import RETURNED, Passed, Phase, ReleaseState

_NEVER = datetime.max


def passing(state: ReleaseState) -> str:
    """Return what of a release cannot be undone: an irreversible step, the call after the guard; or ''.

    Who is promoted has begun all steps: whatever the last one does to users is done to all of them.
    """
    if state.crossing is not None:
        return f"the call of {state.crossing.url}"
    if state.phase is Phase.WAITING or (state.phase in RETURNED and state.started_at is None):
        return ""
    begun = state.policy.steps if state.phase is Phase.PROMOTED else state.policy.steps[: state.step + 1]
    return next((_said(step) for step in begun if step.irreversible), "")


def noted(state: ReleaseState, now: datetime, actor: str) -> ReleaseState:
    """Return the release with its point of no return written down, if it is past it and it is not yet."""
    because = "" if state.passed else passing(state)
    if not because:
        return state
    return state.model_copy(update={"passed": Passed(at=now, because=because, actor=actor)})


def recalled(state: ReleaseState) -> ReleaseState:
    """Return a release of a store of before the point was written down: past it as its step says."""
    return noted(state, state.step_at or state.created_at, "")


def unasked(state: ReleaseState) -> str:
    """Return the irreversible steps ahead of a release to which nobody consented, '' if there are none."""
    first = 0 if state.phase is Phase.WAITING else state.step + 1
    ahead = (step for step in state.policy.steps[first:] if step.irreversible)
    return ", ".join(_said(step) for step in ahead if not state.approved(step.name))


def onward(state: ReleaseState, releases: Mapping[str, ReleaseState]) -> frozenset[str]:
    """Return the versions that a release and those that were promoted after it have led to."""
    since = state.ended_at or state.created_at
    promoted = (
        other
        for other in releases.values()
        if other.service == state.service
        and other.phase is Phase.PROMOTED
        and other.ended_at is not None
        and other.ended_at >= since
    )
    found = {state.to_version}
    for other in sorted(promoted, key=lambda other: other.ended_at or _NEVER):
        if other.from_version in found:
            found.add(other.to_version)
    return frozenset(found)


def before(state: ReleaseState, releases: Mapping[str, ReleaseState]) -> frozenset[str]:
    """Return the versions that are known to be from before a release: it or an earlier one left them."""
    former = [
        other
        for other in releases.values()
        if other.service == state.service and other.created_at < state.created_at
    ]
    known = {each.from_version for each in (state, *former)} | {each.to_version for each in former}
    return frozenset(known - onward(state, releases))


def behind(
    releases: Mapping[str, ReleaseState], service: str, stable: str, version: str
) -> ReleaseState | None:
    """Return the release whose point of no return lies between an earlier version and the stable one."""
    for state in releases.values():
        passed = state.service == service and state.passed is not None
        if passed and stable in onward(state, releases) and version in before(state, releases):
            return state
    return None


def _said(step: PinnedStep) -> str:
    return f"step {step.name!r}: {step.irreversible.because if step.irreversible else ''}"
