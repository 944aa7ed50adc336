"""What must be open before a release may go on; while a gate is shut the present step goes on being judged.

A gate is a pure function of the release and of what was seen; None lets the release through. A rollback
passes no gate.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from controlplane.policy.calendar import blacked_out, outside
from controlplane.policy.documents import Approve
from controlplane.policy.values import format_duration
from controlplane.release import hooks
from controlplane.release import way_back as ways
from controlplane.release.failure import Failed, follows
from controlplane.release.outcomes import Failure
from controlplane.release.seen import Decision, Seen
from controlplane.release.state import NO_RETURN, NOTHING, Phase, ReleaseState

_MINUTE = timedelta(minutes=1)
Gate = Callable[[ReleaseState, Seen], Decision | None]

ASKING = frozenset({"approval", "approval-expired"})
SHUT = ASKING | {
    "apart",
    "dependency",
    "dependency-failed",
    "blackout",
    "window",
    "no-way-back",
    "resting",
    "stepped-back",
    hooks.ASKED,
    hooks.REFUSED,
    "test-over",
}  # codes of a release whose step has passed and that waits for a gate


def shut(state: ReleaseState, seen: Seen) -> Decision | None:
    """Return why the next step may not begin now, or None; the first shut gate answers."""
    found = shut_for_people(state, seen) or (None if state.phase is Phase.WAITING else rest(state, seen))
    return found or hooks.gate(state)  # last: nobody is asked before all else is ready


def shut_for_people(state: ReleaseState, seen: Seen) -> Decision | None:
    """Return why not even a person may let the next step begin now, or None."""
    gates = (*TO_START, *TO_GO_ON, *AT_LAST) if state.phase is Phase.WAITING else TO_GO_ON
    return next((found for gate in gates if (found := gate(state, seen)) is not None), None)


def busy(state: ReleaseState, seen: Seen) -> Decision | None:
    """A service has one release at a time."""
    _ = state
    return _closed("busy", f"waits behind release {seen.busy!r} of the same service") if seen.busy else None


def origin(state: ReleaseState, seen: Seen) -> Decision | None:
    """An order starts from what is stable."""
    if seen.stable == state.from_version:
        return None
    off = f"`turnout rollback {state.name}` calls the order off"
    if seen.stable == state.to_version:
        return _closed("not-from", f"{seen.stable!r} is stable already; {off}", seen.stable)
    wait = f"wait for release {seen.busy!r}, or " if seen.busy else ""
    again = f"`turnout release {state.service} {state.to_version} --policy {state.policy.name}`"
    why = f"stable is {seen.stable!r}, but the order is from {state.from_version!r}; "
    how = f"{wait}correct its document, or {off} and {again} orders it from there"
    return _closed("not-from", f"{why}{how}", seen.stable)


def manual(state: ReleaseState, seen: Seen) -> Decision | None:
    """Some orders are started by hand."""
    _ = seen
    how = f"{state.holding or 'start: manual'}; `turnout advance {state.name}` starts it"
    return _closed("manual", how) if state.start == "manual" else None


def newness(state: ReleaseState, seen: Seen) -> Decision | None:
    """Nothing starts while proxies are left alone with what another store gave them."""
    _ = state
    why = seen.propagation.left_alone
    return _closed("left-alone", why, why) if why else None


def target(state: ReleaseState, seen: Seen) -> Decision | None:
    """Nothing starts towards a version that answers nowhere."""
    if seen.endpoints.get(state.to_version):
        return None
    lack = seen.lack(state.to_version)
    return _closed("no-endpoints", lack, lack)


def rest(state: ReleaseState, seen: Seen) -> Decision | None:
    """What went a step back goes up again after a while, or when a person lets it."""
    _ = seen
    if state.barred:
        return _closed("stepped-back", f"went a step back; `turnout advance {state.name}` goes on")
    if state.rest is None or state.rest <= NOTHING:
        return None
    return _closed("resting", f"went a step back; goes on in {_rough(state.rest)}")


def way_back(state: ReleaseState, seen: Seen) -> Decision | None:
    """No share grows while the old version could not take it back; an emergency may replace what is down."""
    few = ways.way_back(state, seen.where).few
    if state.phase is not Phase.PROGRESSING or state.past or state.policy.emergency or not few:
        return None
    return _closed("no-way-back", f"{ways.UNSAFE}, {state.from_version} {few}")


def dependency(state: ReleaseState, seen: Seen) -> Decision | None:
    """Releases that it depends on come first, and must not have gone back."""
    if seen.links.failed:
        return _closed("dependency-failed", seen.links.failed, seen.links.failed)
    unmet = seen.links.unmet if state.phase is Phase.WAITING else ""
    return _closed("dependency", unmet) if unmet else None


def group(state: ReleaseState, seen: Seen) -> Decision | None:
    """A group goes step by step together."""
    _ = state
    return _closed("apart", seen.links.apart) if seen.links.apart else None


def succession(state: ReleaseState, seen: Seen) -> Decision | None:
    """Who takes the place of a release in its guard waits until a person has ended it."""
    _ = state
    why = seen.links.succeeds
    return _closed("succession", why, why) if why else None


def approval(state: ReleaseState, seen: Seen) -> Decision | None:
    """Some steps need a person's consent."""
    name, wanted = next_step(state)
    if wanted is None or state.approved(name):
        return None
    how = f"`turnout approve {state.name} --step {name}`"
    if wanted.expires is None:
        return _closed("approval", f"waits for a {wanted.role} to approve {name!r}: {how}")
    left = wanted.expires - state.asking
    if left.total_seconds() > 0:
        text = f"waits for a {wanted.role} to approve {name!r}, {_rough(left)} left: {how}"
        return _closed("approval", text)
    late = f"nobody approved {name!r} within {format_duration(wanted.expires)}"
    if wanted.on_expiry != "rollback":
        late += f"; it still can be: {how}"
    failed = Failed(Failure.APPROVAL, "approval-expired", late, wanted.on_expiry, counts=True)
    # What it has led to already leads to nothing more, and the gate is still shut.
    return follows(state, seen, failed) or _closed("approval-expired", late)


def blackout(state: ReleaseState, seen: Seen) -> Decision | None:
    """A fleet may forbid that any step starts; an emergency passes."""
    why = "" if state.policy.emergency else blacked_out(seen.blackouts, seen.now)
    return _closed("blackout", why) if why else None


def window(state: ReleaseState, seen: Seen) -> Decision | None:
    """A policy may allow steps at certain times only; an emergency passes."""
    why = "" if state.policy.emergency else outside(state.policy.windows, seen.now)
    return _closed("window", why) if why else None


TO_START: tuple[Gate, ...] = (manual, newness, origin, target)
# In this order: consent may be given ahead, so that a window finds it there.
TO_GO_ON: tuple[Gate, ...] = (way_back, dependency, group, approval, blackout, window)
# Another release comes last: whoever takes its place is ready but for that.
AT_LAST: tuple[Gate, ...] = (succession, busy)


def next_step(state: ReleaseState) -> tuple[str, Approve | None]:
    """Return the name of what would begin next, and the approval that it needs."""
    step = 0 if state.phase is Phase.WAITING else state.step + 1
    if step < state.steps:
        return state.policy.steps[step].name, state.policy.steps[step].approve
    if state.phase is not Phase.GUARDING:
        return "guard", None
    point = None if state.crossing else state.policy.point_of_no_return
    return (NO_RETURN, point.approve) if point else ("promoted", None)


def awaited(state: ReleaseState) -> bool:
    """Return whether what would begin next waits for a person's consent."""
    name, wanted = next_step(state)
    return wanted is not None and not state.approved(name)


def approvable(state: ReleaseState) -> dict[str, Approve]:
    """Return what lies ahead, needs an approval, and has none yet, in order, with the approval it needs."""
    first = 0 if state.phase is Phase.WAITING else state.step + 1
    ahead = {step.name: step.approve for step in state.policy.steps[first:] if step.approve is not None}
    if state.policy.point_of_no_return is not None:
        ahead[NO_RETURN] = state.policy.point_of_no_return.approve
    return {name: wanted for name, wanted in ahead.items() if not state.approved(name)}


def _rough(left: timedelta) -> str:
    """Return a duration in minutes, so that what is shown is calm; the last one in full."""
    return format_duration(left - left % _MINUTE if left > _MINUTE else left)


def _closed(code: str, reason: str, cause: str = "") -> Decision:
    return Decision(None, code, reason, counts=True, cause=cause)
