"""What an operator's action does to a release, or why it may not be. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.app.ordering import check_alone
from controlplane.app.taking import ORDERED, impossible, keeps_name, order, pinned
from controlplane.policy.documents import Release
from controlplane.release import drift, ending, gates, groups
from controlplane.release.moves import NEW_STEP, act, based, dated, next_action
from controlplane.release.ports import World
from controlplane.release.seen import Propagation, Seen
from controlplane.release.state import Action, Answer, Approval, ReleaseState
from controlplane.release.traffic import Endpoints
from controlplane.release.transitions import NotAllowedError, transition
from controlplane.release.way_back import FLAG, way_back
from controlplane.web.asked import Act
from controlplane.web.port import RefusedError

ACTIONS = {
    "approve": Action.APPROVE,
    "end": Action.END,
    "pause": Action.PAUSE,
    "promote": Action.PROMOTE,
    "resume": Action.RESUME,
    "retry": Action.RETRY,
    "rollback": Action.ROLL_BACK,
}
BEFORE = "; paused before: "


@dataclass(frozen=True, slots=True)
class Standing:
    """What an action meets: the world, where versions take requests as far as is known, the time, UTC."""

    world: World
    endpoints: Endpoints
    now: datetime
    propagation: Propagation


@dataclass(frozen=True, slots=True)
class Moved:
    """A release after an action.

    Attributes:
        after: The release.
        move: What was done by the table.
        action: What the record calls it.
        said: The reason as the record has it, which names action and actor by themselves.
    """

    after: ReleaseState
    move: Action
    action: str
    said: str


def move(at: Standing, state: ReleaseState, action: str, wanted: Act) -> Moved:
    """Return what becomes of a release.

    Raises:
        RefusedError: If it may not be, with the reason and what can be done.
    """
    if action != "advance" and action not in ACTIONS:
        known = ", ".join(sorted({*ACTIONS, "advance"}))
        raise RefusedError(404, f"no action is named {action!r}; known: {known}")
    state = based(state, at.world.stable.get(state.service, ""))
    meant = next_action(state) if action == "advance" else ACTIONS[action]
    _check_possible(state, meant)
    if meant is Action.END:
        return _ended(at, state, action, wanted)
    what, more = action, ""
    if meant is Action.START and state.start == "manual":
        state, meant, action, more = _armed(at, state)
    last = meant is Action.ROLL_BACK and state.active and not state.doomed
    if last and (first := sight(at, state).links.first):
        meant, action = Action.DOOM, "doom"
        more = f"goes back after {first}, of its group"
    if meant in (Action.ROLL_BACK, Action.DOOM):
        _check_back(at, state, meant, wanted)
    _check_target(at.endpoints, state, meant)
    _check_gates(at, state, meant)
    if meant is Action.APPROVE:
        state = _approved(state, wanted, at.now)
        what = f"{state.approvals[-1].step} approved"
    if meant is Action.RETRY:
        state = _renewed(at, state, wanted)
    if meant is Action.CROSS:
        action, more = "cross", "crosses the point of no return"
    after = act(state, meant, _again(state, meant, wanted) or _because(what, wanted, more), at.endpoints)
    said = _joined(wanted.reason, more)
    if meant is Action.APPROVE:
        said = f"{what}: {said}" if said else what
    return Moved(dated(after, meant, at.now, wanted.actor), meant, action, said)


def _because(what: str, wanted: Act, more: str = "") -> str:
    """Return what a release says of an act: who did it, the reason that was given, and what it comes to."""
    told = f"{what} by {wanted.actor}" + (f": {wanted.reason}" if wanted.reason else "")
    return _joined(told, more)


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _again(state: ReleaseState, meant: Action, wanted: Act) -> str:
    """Return why a release is paused that was so already: the first reason stays until another is given."""
    if meant is not Action.PAUSE or state.halt is None:
        return ""
    first = state.halted.rpartition(BEFORE)[2]
    return _because("pause", wanted) + BEFORE + first if wanted.reason else state.halted


def _armed(at: Standing, state: ReleaseState) -> tuple[ReleaseState, Action, str, str]:
    """Return how an order starts that waited for this: at once, or as soon as its gates open."""
    auto = state.model_copy(update={"start": "auto"})
    shut = gates.shut_for_people(auto, sight(at, auto))
    if shut is None:
        return auto, Action.START, "advance", ""
    return auto, Action.ARM, "arm", f"starts by itself: {shut.reason}"


def _renewed(at: Standing, state: ReleaseState, wanted: Act) -> ReleaseState:
    """Return an order that somebody wants to run again, as its document and its policy have it now.

    Without a document it is theirs, as if they had ordered it, and so from what is stable.
    """
    if kept := keeps_name(state, at.world):
        raise RefusedError(409, kept)
    catalog, document = at.world.catalog, at.world.catalog.get("Release", state.name)
    update: dict[str, object] = {"document": None, "from_stable": True}
    name, purpose = state.policy.name, wanted.reason or state.purpose
    if isinstance(document, Release):
        if document.service != state.service:
            raise RefusedError(409, f"its document is one of {document.service!r}; {drift.NEEDS_NAME}")
        name, purpose = document.policy, wanted.reason or document.reason or ""
    if catalog.get("Policy", name) is not None:
        if why := impossible(catalog, name, state.service, purpose):
            raise RefusedError(409, f"{why}; nothing was changed")
        update["policy"] = pinned(catalog, name, state.service)
    if isinstance(document, Release):
        fresh = order(catalog, document, at.now)
        update = {field: getattr(fresh, field) for field in ORDERED}
        # The new attempt is the next one, and at least the document's.
        update["attempt"] = max(state.attempt, document.attempt - 1)
    state = state.model_copy(update=update | {"purpose": purpose})
    if state.to_version == at.world.stable.get(state.service):
        why = f"{state.to_version!r} is what is stable already"
        raise RefusedError(409, f"release {state.name!r} is {state.phase}: {why}")
    check_alone(at.world, state.name, state.service, state.to_version)
    return state


def _approved(state: ReleaseState, wanted: Act, now: datetime) -> ReleaseState:
    open_ = gates.approvable(state)
    step = wanted.step or next(iter(open_), "")
    if step not in open_:
        what = f"step {step!r} waits for no approval" if step else "no step ahead waits for an approval"
        known = f"; those that do: {', '.join(open_)}" if open_ else "; none does" if step else ""
        raise RefusedError(409, f"release {state.name!r} is at {state.at}: {what}{known}")
    given = Approval(step=step, actor=wanted.actor, reason=wanted.reason, at=now)
    return state.model_copy(update={"approvals": (*state.approvals, given)})


def check_way_back(state: ReleaseState) -> None:
    """Refuse to go back past the point of no return; whoever means it says so."""
    if state.past:
        what = f"release {state.name!r} is past its point of no return ({state.past})"
        raise RefusedError(409, f"{what}; {FLAG} goes back all the same")


def _check_back(at: Standing, state: ReleaseState, meant: Action, wanted: Act) -> None:
    """Refuse to go back past the point of no return by a slip, or before others of the group.

    What waits for its turn is taken back by the loop, and that never goes back past the point.
    """
    if not wanted.past_point_of_no_return:
        check_way_back(state)
    if meant is Action.DOOM and state.past:
        first = sight(at, state).links.first
        raise RefusedError(
            409,
            f"release {state.name!r} is past its point of no return, and {first} of its group goes back"
            " before it: take that back first, by a word of its own; nothing was changed",
        )


def _check_possible(state: ReleaseState, meant: Action) -> None:
    try:
        transition(state, meant)
    except NotAllowedError as error:
        raise RefusedError(409, str(error)) from error


def _ended(at: Standing, state: ReleaseState, action: str, wanted: Act) -> Moved:
    """Return an A/B test at its end; what is none, or where more was asked for, is not taken back."""
    if state.policy.ends is None:
        raise RefusedError(
            409, f"policy {state.policy.name!r} has no `ends`; `turnout rollback {state.name}` takes it back"
        )
    if action == "advance":
        last, name = state.policy.steps[-1].name, state.name
        how = f"`turnout promote {name}` makes it stable, `turnout end {name}` returns everyone"
        raise RefusedError(409, f"step {last!r} is the test, and nothing follows but its end: {how}")
    _check_target(at.endpoints, state, Action.END)
    summary = ending.summary(state.result)
    after = act(state, Action.END, _because(action, wanted, summary))
    ended = dated(after, Action.END, at.now, wanted.actor)
    return Moved(ended, Action.END, action, _joined(wanted.reason, summary))


def _check_target(endpoints: Endpoints, state: ReleaseState, meant: Action) -> None:
    """Refuse to send traffic to a version that has nowhere to take it."""
    back = meant in (Action.ROLL_BACK, Action.END)
    if back and (lack := way_back(state, endpoints).nowhere):
        raise RefusedError(409, f"{state.from_version} of {state.service!r} {lack}; nothing was changed")
    if meant in (Action.PROMOTE, Action.CROSS, *NEW_STEP):
        check_there(endpoints, state.service, state.to_version)


def check_there(endpoints: Endpoints, service: str, version: str) -> None:
    """Refuse to send requests to a version that has nowhere to take them."""
    if not endpoints.there(version):
        lack = endpoints.lack(version)
        raise RefusedError(409, f"{version} of {service!r} {lack}; nothing was changed")


def _check_gates(at: Standing, state: ReleaseState, meant: Action) -> None:
    """Refuse to go on through a gate: an operator waits for no evidence, but for people and the calendar."""
    if meant not in (Action.PROMOTE, Action.CROSS, *NEW_STEP):
        return
    if meant is Action.PROMOTE:
        _check_crossed(state)
        if state.crossing is not None:
            return  # all its gates were open
    if meant in (Action.PROMOTE, Action.CROSS) and groups.members(state, at.world.releases):
        raise RefusedError(
            409, f"release {state.name!r} ends with its group {state.group!r}, not alone; nothing was changed"
        )
    if meant is Action.PROMOTE and (missing := gates.approvable(state)):
        raise RefusedError(
            409, f"{', '.join(missing)} of release {state.name!r} must be approved first: `turnout approve`"
        )
    shut = gates.shut_for_people(state, sight(at, state))
    if shut is not None:
        raise RefusedError(409, f"release {state.name!r} may not go on: {shut.reason}")


def _check_crossed(state: ReleaseState) -> None:
    """Refuse to promote around the point of no return; where its call brought no yes, a person may."""
    call = state.crossing
    answered = call is not None and call.answer is not Answer.NONE
    if state.policy.point_of_no_return is None or (state.halt == "frozen" and answered):
        return
    why = f"`turnout advance {state.name}` goes on to it"
    if call is not None:
        lets = f"; `turnout resume {state.name}` lets it be asked for" if state.halt else ""
        why = f"the answer of {call.url} decides{lets}"
    raise RefusedError(409, f"release {state.name!r} has a point of no return: {why}; nothing was changed")


def sight(at: Standing, state: ReleaseState) -> Seen:
    """Return what the gates are asked about a release, when a person acts."""
    world = at.world
    busy = world.of_service(state.service)
    return Seen(
        now=at.now,
        elapsed=timedelta(0),
        propagation=at.propagation,
        endpoints=at.endpoints.places,
        missing=at.endpoints.missing,
        hosts=at.endpoints.hosts,
        busy=busy.name if busy and busy.name != state.name else "",
        stable=world.stable.get(state.service, ""),
        links=groups.links(state, world.releases, world.stable),
        blackouts=world.blackouts_of(state.service),
    )
