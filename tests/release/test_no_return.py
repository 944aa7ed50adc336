"""The point of no return after the guard: what crosses it, what its call may come to, and who may do what."""

from datetime import timedelta

import pytest

from controlplane.evidence.verdict import Outcome
from controlplane.policy.documents import Blackout, PointOfNoReturn, Window
from controlplane.release import crossing, gates, hooks
from controlplane.release.decide import decide
from controlplane.release.hooks import Answered
from controlplane.release.moves import act, apply, dated
from controlplane.release.seen import Links
from controlplane.release.state import NO_RETURN, Action, Approval, Phase

HOUR = timedelta(hours=1)
URL = "https://ops.example.com/drop"
BLACKOUT = Blackout(cron="0 0 * * sun", for_="24h", because="fair")
POINT = PointOfNoReturn.model_validate({"approve": {"role": "admin"}, "run": URL})


@pytest.fixture
def guarded(make):
    """Return a release whose guard has passed."""

    def given(approved=True, **over):
        consent = (Approval(step=NO_RETURN, actor="ann", at=make.T0),) if approved else ()
        policy = make.policy(point_of_no_return=POINT, **over.pop("policy", {}))
        return make.state(Phase.GUARDING, policy=policy, judged=HOUR, approvals=consent, **over)

    return given


def crossed(make, guarded, status=None, **over):
    """Return a release past the point; without a status its call has no answer yet, 0 is no connection."""
    state = apply(guarded(**over), decide(guarded(**over), make.seen()), make.seen())
    state = dated(state, Action.CROSS, make.T0)
    assert state.crossing is not None
    if status is None:
        return state
    return hooks.answered(state, state.crossing.key, Answered(status or None, ""), make.T0)


def test_it_is_crossed_when_the_guard_has_passed_and_a_person_consents(make, guarded):
    asked = decide(guarded(approved=False), make.seen())
    assert (asked.action, asked.code) == (None, "approval")
    assert "waits for a admin to approve 'point_of_no_return'" in asked.reason
    assert tuple(gates.approvable(guarded(approved=False))) == (NO_RETURN,)

    before, decision = guarded(), decide(guarded(), make.seen())
    after = dated(apply(before, decision, make.seen()), decision.action, make.T0)

    assert (decision.action, before.past) == (Action.CROSS, "")
    assert "crosses the point of no return" in decision.reason
    assert (after.phase, after.past) == (Phase.GUARDING, f"the call of {URL}")
    assert [call.key for call in hooks.due(after, make.T0)] == ["r#1/0/point_of_no_return"]
    assert decide(after, make.seen()).action is None


def test_before_it_a_hook_that_is_asked_before_the_promotion_must_say_yes(make, guarded):
    state = guarded(policy={"hooks": [{"at": "before_promote", "url": "https://ci.example.com"}]})

    decision = decide(state, make.seen())

    assert (decision.action, decision.code) == (None, "hook")
    assert [call.point for call in decision.calls] == ["before_promote"]


@pytest.mark.parametrize("status", [204, 409, 500, 0])
def test_only_a_yes_promotes_and_anything_else_freezes_with_no_further_call(make, guarded, status):
    state = crossed(make, guarded, status)
    assert hooks.due(state, make.T0 + HOUR) == ()

    after = apply(state, decide(state, make.seen()), make.seen())

    if status == 204:
        assert after.phase is Phase.PROMOTED
        assert after.past
        return
    assert (after.phase, after.halt) == (Phase.GUARDING, "frozen")
    again = act(after, Action.RESUME, "resume by ann")
    assert [call.key for call in hooks.due(again, make.T0)] == [state.crossing.key]
    yes = hooks.answered(again, state.crossing.key, Answered(200), make.T0)
    assert decide(yes, make.seen()).action is Action.PROMOTE
    assert yes.crossing.tries == 2


def test_neither_time_nor_the_calendar_keeps_a_yes_from_promoting(make, guarded):
    late = {"deadline": "1h", "on_timeout": "rollback"}
    state = crossed(make, guarded, 200, policy=late).model_copy(
        update={"running": HOUR, "stage": "propagate"}
    )

    assert decide(state, make.seen()).action is Action.PROMOTE
    gone = decide(state, make.seen(endpoints={"v1": ("10.0.0.1:80",)}))
    assert (gone.action, gone.code) == (None, "no-endpoints")


@pytest.mark.parametrize("status", [None, 200])
@pytest.mark.parametrize("links", [Links(), Links(fallen="another went back")])
def test_a_failure_past_it_freezes(make, guarded, status, links):
    state = crossed(make, guarded, status)
    outcome = Outcome.PASS if links.fallen else Outcome.FAIL

    after = apply(
        state, decide(state, seen := make.seen(verdicts=(make.verdict(outcome),), links=links)), seen
    )

    assert (after.phase, after.halt) == (Phase.GUARDING, "frozen")
    assert f"past the point of no return (the call of {URL})" in after.because
    assert hooks.due(after, make.T0) == ()


@pytest.mark.parametrize("halt", [None, "paused", "frozen"])
def test_an_answer_that_an_earlier_process_did_not_store_is_of_unknown_outcome(make, guarded, halt):
    state = crossing.abandoned(crossed(make, guarded).model_copy(update={"halt": halt, "because": "before"}))
    assert hooks.due(state, make.T0 + HOUR) == ()

    after = apply(state, decide(state, make.seen()), make.seen())

    assert (after.phase, after.halt) == (Phase.GUARDING, "frozen")
    if halt != "frozen":
        assert "unknown, Turnout ended before an answer was stored" in after.because
        assert "`turnout resume r` calls it again" in after.because
    assert crossing.abandoned(after) == after


@pytest.mark.parametrize("status", [200, 500])
def test_nothing_is_abandoned_where_there_is_an_answer_or_no_call(make, guarded, status):
    for state in (guarded(), crossed(make, guarded, status)):
        assert crossing.abandoned(state) == state


def test_who_resumes_a_paused_release_does_not_repeat_what_nobody_was_told_of(make, guarded):
    paused = act(crossed(make, guarded), Action.PAUSE, "ann")
    state = hooks.answered(paused, paused.crossing.key, Answered(None, "reset"), make.T0)

    resumed = act(state, Action.RESUME, "ann")

    assert hooks.due(resumed, make.T0 + HOUR) == ()
    assert decide(resumed, make.seen()).action is Action.FREEZE


def test_who_advances_a_paused_release_to_it_lets_it_go_on(make, guarded):
    after = act(act(guarded(), Action.PAUSE, "ann"), Action.CROSS, "advance by ann")

    assert (after.halt, len(hooks.due(after, make.T0))) == (None, 1)


def test_who_resumes_before_the_call_was_made_lets_it_be_made(make, guarded):
    paused = act(crossed(make, guarded), Action.PAUSE, "ann")
    assert (hooks.due(paused, make.T0), decide(paused, make.seen()).code) == ((), "paused")

    assert len(hooks.due(act(paused, Action.RESUME, "ann"), make.T0)) == 1


@pytest.mark.parametrize(
    ("shut", "code"),
    [
        ({"blackouts": (BLACKOUT,)}, "blackout"),
        ({"links": Links(apart="waits for others")}, "apart"),
        ({"links": Links(failed="gone")}, "dependency-failed"),
        ({"stale": "no statistics"}, "stale"),
        ({"endpoints": {"v1": ("10.0.0.1:80",)}}, "no-endpoints"),
    ],
)
def test_it_is_not_crossed_while_anything_is_shut(make, guarded, shut, code):
    decision = decide(guarded(), make.seen(**shut))

    assert (decision.action, decision.code) == (None, code)


def test_it_is_not_crossed_outside_of_the_windows(make, guarded):
    never = Window.model_validate({"days": "sun", "from": "00:00", "to": "00:01"})

    assert decide(guarded(policy={"windows": (never,)}), make.seen()).code == "window"


def test_another_attempt_has_its_point_ahead_and_calls_with_another_key(make, guarded):
    back = act(crossed(make, guarded, 500), Action.ROLL_BACK, "ann")
    again = act(act(back, Action.FINISH, "acknowledged"), Action.RETRY, "ann")

    assert (again.past, again.crossing) == ("", None)
    assert crossing.crossed(again).crossing.key == "r#2/0/point_of_no_return"


def test_what_is_kept_comes_back_as_it_was(make, guarded):
    state = crossed(make, guarded, 500)

    assert type(state).model_validate_json(state.model_dump_json()) == state
