"""The table of failures, row by row: what each leads to in every place and halt, and what `resume` does."""

from datetime import timedelta
from itertools import product

import pytest

from controlplane.evidence.verdict import Outcome as Said
from controlplane.policy.documents import Approve, Irreversible, PointOfNoReturn
from controlplane.release import crossing, hooks, point
from controlplane.release.decide import decide
from controlplane.release.failure import place
from controlplane.release.hooks import Answered
from controlplane.release.moves import act, apply
from controlplane.release.outcomes import FAILURES, Failure, Outcome, Place, Remedy
from controlplane.release.seen import Links
from controlplane.release.state import Action, Phase

HOUR = timedelta(hours=1)
URL = "https://ops.example.com/drop"
HALTS = (None, "paused", "frozen")
SAYS = {  # what a policy can say of each, where that is a failure and no gate
    Failure.CONDITION: ("rollback", "step_back", "hold", "freeze"),
    Failure.UNSURE: ("rollback",),
    Failure.LATE: ("rollback", "hold"),
    Failure.APPROVAL: ("rollback", "hold", "freeze"),
    Failure.DEPENDENCY: ("rollback",),
}
PHASES = {
    Place.WAITING: Phase.WAITING,
    Place.GOING: Phase.PROGRESSING,
    Place.PAST: Phase.PROGRESSING,
    Place.RETURNING: Phase.ROLLING_BACK,
    Place.RETRYING: Phase.RETRYING,
}
EVERY = [
    (failure, where, halt, do)
    for failure, where, halt in product(Failure, Place, HALTS)
    for do in SAYS.get(failure, ("",))
    if (failure, where) != (Failure.CALL, Place.GOING)  # by the call it is past its point
]


def rules(make, failure, do):
    """Return what a policy says of a failure."""
    match failure:
        case Failure.CONDITION:
            return {"on_failure": {"do": do}}
        case Failure.UNSURE:
            return {"when_unsure": {"after": "0s", "do": do}}
        case Failure.LATE:
            return {"deadline": "1h", "on_timeout": do}
        case Failure.DEPENDENCY:
            return {"on_failed_dependency": do}
    return {}


def release(make, failure, where, halt, do):
    """Return a release at a place, to which a failure has just happened."""
    steps = [make.step("staff", "10%"), make.step("ten", "20%"), make.step("all", "100%")]
    if failure is Failure.APPROVAL:
        asked = Approve(expires="1h", on_expiry=do)
        steps = [step.model_copy(update={"approve": asked}) for step in steps]
    if where is Place.PAST and failure is not Failure.CALL:
        steps[1] = steps[1].model_copy(update={"irreversible": Irreversible(because="drops a column")})
    over = rules(make, failure, do)
    if failure is Failure.CALL:
        over["point_of_no_return"] = PointOfNoReturn.model_validate({"approve": {}, "run": URL})
    phase = Phase.GUARDING if (failure, where) == (Failure.CALL, Place.PAST) else PHASES[where]
    halted = {"halt": halt, "halted": f"{halt} before", "because": f"{halt} before"} if halt else {}
    clocks = {"judged": HOUR, "running": HOUR, "asking": HOUR}
    clocks |= {"rest": HOUR} if where is Place.RETRYING else {}
    state = make.state(phase, policy=make.policy(steps=tuple(steps), **over), **clocks, **halted)
    if failure is Failure.CALL:
        state = point.noted(crossing.crossed(state), make.T0, "ann")
        state = hooks.answered(state, state.crossing.key, Answered(500), make.T0)
    return state


def sight(make, failure):
    said = {Failure.CONDITION: Said.FAIL, Failure.UNSURE: Said.NOT_YET}.get(failure, Said.PASS)
    links = {
        Failure.DEPENDENCY: Links(failed="another went back"),
        Failure.GROUP: Links(fallen="another went back"),
        Failure.SUPERSEDED: Links(superseded="another takes its place"),
    }
    return make.seen(verdicts=(make.verdict(said),), links=links.get(failure, Links()))


def expected(failure, where, halt, do):
    """Return the action that the table says, 'hold' for staying because of the failure, None for nothing."""
    rule = FAILURES[failure]
    outcome = rule.at(where)
    if outcome is Outcome.NOTHING or (halt and not rule.halted):
        return None
    what = {Outcome.BACK: "rollback", Outcome.FREEZES: "freeze"}.get(outcome, do)
    if outcome is Outcome.POLICY_FROZEN and what in ("rollback", "step_back"):
        what = "freeze"
    if halt == "frozen" and what == "hold":
        what = "freeze"
    return {"rollback": Action.ROLL_BACK, "step_back": Action.STEP_BACK, "freeze": Action.FREEZE}.get(
        what, what
    )


def test_the_table_has_every_failure():
    assert set(FAILURES) == set(Failure)
    assert {where for rule in FAILURES.values() for where in rule.places} == set(Place) - {Place.RETURNING}


@pytest.mark.parametrize(("failure", "where", "halt", "do"), EVERY)
def test_a_failure_leads_to_what_the_table_says(make, failure, where, halt, do):
    state, seen = release(make, failure, where, halt, do), sight(make, failure)
    assert place(state) is where
    wanted = expected(failure, where, halt, do)

    decision = decide(state, seen)

    if wanted is None:
        assert decision.failure is None
        assert decision.action not in (Action.ROLL_BACK, Action.STEP_BACK, Action.FREEZE)
        return
    assert decision.failure is failure
    assert decision.action is (None if wanted == "hold" else wanted)
    after = apply(state, decision, seen)
    if wanted is Action.FREEZE:
        assert (after.phase, after.halt, after.frozen_by) == (state.phase, "frozen", (failure,))
        assert "`turnout resume r`" in after.because
        assert "`turnout rollback r" in after.because
        assert ("--past-point-of-no-return" in after.because) is (where is Place.PAST)
        assert (f"{halt} before; and " in after.because) is (halt == "frozen")
        again = decide(after, seen)
        assert (again.action, again.code, again.reason) == (None, "frozen", after.because), "told once"
    if wanted is Action.ROLL_BACK:
        assert after.halt is None
        assert after.ended is (where in (Place.WAITING, Place.RETRYING))


@pytest.mark.parametrize("do", ["rollback", "step_back"])
@pytest.mark.parametrize("halt", HALTS)
def test_what_a_person_has_halted_does_not_start_again_by_itself(make, halt, do):
    policy = make.policy(on_failure={"do": do, "retry": {"after": "1h"}})
    state = make.state(policy=policy, halt=halt, step=2)

    after = apply(state, decide(state, sight(make, Failure.CONDITION)), make.seen())

    assert after.rest == (None if halt else HOUR)
    assert after.barred is (halt is not None and do == "step_back")


@pytest.mark.parametrize(
    ("failure", "where", "do"),
    [(f, p, do) for f, p, h, do in EVERY if h is None and expected(f, p, h, do) is Action.FREEZE],
)
def test_what_a_person_resumes_is_not_frozen_by_the_same_again(make, failure, where, do):
    state, seen = release(make, failure, where, None, do), sight(make, failure)
    frozen = apply(state, decide(state, seen), seen)

    after = act(frozen, Action.RESUME, "resume by ann")

    assert (after.halt, after.halted, after.frozen_by, after.hold) == (None, "", (), "")
    if FAILURES[failure].resumed is Remedy.ANEW:
        # Its evidence is new as well: tests/app/test_halts.py
        assert (after.step, after.stage, after.judged, after.begun) == (state.step, "propagate", 0 * HOUR, 1)
        return
    decision = decide(after, seen)
    assert decision.action is not Action.FREEZE
    assert decision.failure is None


@pytest.mark.parametrize("where", [Place.WAITING, Place.GOING, Place.PAST])
def test_the_approval_for_want_of_which_it_is_frozen_lets_it_go_on(make, where):
    state, seen = release(make, Failure.APPROVAL, where, None, "freeze"), sight(make, Failure.APPROVAL)
    frozen = apply(state, decide(state, seen), seen)
    step = "staff" if where is Place.WAITING else "all"
    assert f"`turnout approve r --step {step}`" in frozen.because

    other = act(make.approved(frozen, "other"), Action.APPROVE, "ann")
    given = act(make.approved(frozen, step), Action.APPROVE, "ann")

    assert (other.halt, other.halted) == ("frozen", frozen.halted)
    assert (given.halt, given.frozen_by) == (None, ())
    assert decide(given, seen).action is (Action.START if where is Place.WAITING else Action.ADVANCE)
    late = act(frozen, Action.RESUME, "ann")
    assert "1h left" in decide(late, seen).reason, "it is asked for again, for as long"


def test_an_approval_does_not_end_what_another_failure_froze(make):
    state, seen = release(make, Failure.APPROVAL, Place.GOING, None, "freeze"), sight(make, Failure.APPROVAL)
    paused = act(state, Action.PAUSE, "lunch")
    bad = make.policy(steps=state.policy.steps, on_failure={"do": "freeze"})
    failing = state.model_copy(update={"policy": bad})
    frozen = apply(failing, decide(failing, broken := sight(make, Failure.CONDITION)), broken)

    for halted, why in ((paused, "lunch"), (frozen, frozen.halted)):
        given = act(make.approved(halted, "all"), Action.APPROVE, "ann")
        assert (given.halt, given.halted, given.hold) == (halted.halt, why, halted.halt)
        assert decide(given, seen).reason == why


def test_all_that_froze_it_is_told_and_one_resume_answers_all(make):
    state = release(make, Failure.CALL, Place.PAST, None, "")
    both = make.seen(verdicts=(make.verdict(Said.FAIL),))
    first = apply(state, decide(state, both), both)

    second = apply(first, decide(first, both), both)

    assert second.frozen_by == (Failure.CONDITION, Failure.CALL)
    assert "errors say fail" in second.because
    assert "whether it was done is unknown" in second.because
    after = act(second, Action.RESUME, "ann")
    assert (after.begun, after.stage) == (1, "propagate")
    assert [call.key for call in hooks.due(after, make.T0)] == [state.crossing.key]
