"""What a failed condition leads to: back, a step back, stay; and going on again afterwards."""

from datetime import timedelta

import pytest

from controlplane.evidence.verdict import Outcome
from controlplane.policy.documents import OnFailure
from controlplane.release.decide import decide
from controlplane.release.moves import act, apply
from controlplane.release.seen import Propagation
from controlplane.release.state import Action, Approval, Phase, Stage

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def told(decision):
    return decision.action, decision.code


def failing(make, **over):
    return make.seen(verdicts=(make.verdict(Outcome.FAIL),), **over)


def policy(make, do, retry=None, **over):
    return make.policy(on_failure={"do": do} | ({"retry": retry} if retry else {}), **over)


def run(state, seen):
    return apply(state, decide(state, seen), seen)


# --- a step back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "step", "to"), [(Phase.PROGRESSING, 2, 1), (Phase.PROGRESSING, 1, 0), (Phase.GUARDING, 3, 1)]
)
def test_a_step_back_leads_to_the_step_before_and_begins_it_anew(make, phase, step, to):
    state = make.state(phase, step=step, policy=policy(make, "step_back"), judged=HOUR, stepping=HOUR)

    after = run(state, failing(make))

    assert (after.phase, after.step, after.stage) == (Phase.PROGRESSING, to, Stage.PROPAGATE)
    assert (after.judged, after.stepping, after.halt) == (0 * HOUR, 0 * HOUR, None)
    assert f"back to step {state.policy.steps[to].name!r}" in after.because


def test_from_the_first_step_there_is_only_the_way_out(make):
    decision = decide(make.state(step=0, policy=policy(make, "step_back")), failing(make))

    assert decision.action is Action.ROLL_BACK
    assert "no step to go back to" in decision.reason


def test_no_step_back_to_a_version_without_endpoints(make):
    seen = failing(make, endpoints={"v1": (), "v2": ("x",)})

    assert told(decide(make.state(policy=policy(make, "step_back")), seen)) == (None, "unsafe")


def test_after_a_step_back_without_a_retry_only_a_person_lets_it_go_up_again(make):
    state = run(make.state(step=2, policy=policy(make, "step_back")), failing(make))
    passed = state.model_copy(update={"stage": Stage.JUDGE, "judged": HOUR})

    assert told(decide(passed, make.seen())) == (None, "stepped-back")
    assert not act(passed, Action.ADVANCE, "ann").barred


def test_after_a_step_back_with_a_retry_it_goes_up_again_after_a_while_a_limited_number_of_times(make):
    rules = policy(make, "step_back", {"after": "1h", "times": 1})
    state = run(make.state(step=2, policy=rules), failing(make))
    assert (state.rest, state.tries, state.barred) == (HOUR, 1, False)
    resting = state.model_copy(update={"stage": Stage.JUDGE, "judged": HOUR})

    assert told(decide(resting, make.seen())) == (None, "resting")
    for _ in range(360):
        resting = run(resting, make.seen())
    assert resting.step == 1
    gone_up = run(resting, make.seen())
    assert gone_up.step == 2
    again = run(gone_up, failing(make))

    assert (again.step, again.barred, again.tries) == (1, True, 1)


def test_a_step_back_takes_back_the_approvals_of_what_lies_ahead(make):
    given = tuple(Approval(step=name, actor="ann", at=make.T0) for name in ("ten", "all"))

    after = run(make.state(step=2, policy=policy(make, "step_back"), approvals=given), failing(make))

    assert [approval.step for approval in after.approvals] == ["ten"]


# --- per step ---------------------------------------------------------------------------------------------


def test_a_step_may_have_a_procedure_of_its_own_and_the_guard_has_the_policys(make):
    steps = list(make.policy().steps)
    steps[1] = steps[1].model_copy(update={"on_failure": OnFailure(do="freeze")})
    rules = policy(make, "hold", steps=tuple(steps))

    assert told(decide(make.state(step=1, policy=rules), failing(make))) == (Action.FREEZE, "failed")
    assert told(decide(make.state(step=2, policy=rules), failing(make))) == (None, "failed")
    assert told(decide(make.state(Phase.GUARDING, policy=rules), failing(make))) == (None, "failed")


# --- starting again ---------------------------------------------------------------------------------------


def test_a_rollback_by_a_failure_may_start_again_as_a_new_attempt_with_other_users(make):
    rules = policy(make, "rollback", {"after": "1h"})
    rolling = run(make.state(policy=rules), failing(make))
    assert (rolling.phase, rolling.rest, rolling.tries) == (Phase.ROLLING_BACK, HOUR, 1)

    done = Propagation(("a",), ("a",))
    resting = run(rolling, make.seen(propagation=done, elapsed=60 * SECOND))
    assert (resting.phase, resting.rest) == (Phase.RETRYING, HOUR)
    for _ in range(60):
        assert resting.phase is Phase.RETRYING
        resting = run(resting, make.seen(elapsed=60 * SECOND))
    again = run(resting, make.seen())

    assert (again.phase, again.attempt, again.salt, again.step) == (Phase.WAITING, 2, "r.2", 0)
    assert (again.rest, again.tries, again.approvals, again.start) == (None, 1, (), "auto")
    second = run(again.model_copy(update={"phase": Phase.PROGRESSING, "stage": Stage.JUDGE}), failing(make))
    assert second.rest is None
    assert run(second, make.seen(propagation=done)).phase is Phase.ROLLED_BACK


def test_a_rollback_by_a_person_or_for_want_of_proof_does_not_start_again(make):
    rules = policy(make, "rollback", {"after": "1h"}, when_unsure={"after": "0s", "do": "rollback"})
    state = make.state(policy=rules, judged=HOUR)

    unsure = run(state, make.seen(verdicts=(make.verdict(Outcome.NOT_YET),)))

    assert (unsure.phase, unsure.rest) == (Phase.ROLLING_BACK, None)
    assert act(state, Action.ROLL_BACK, "ann").rest is None


def test_a_retry_can_be_paused_and_called_off(make):
    state = make.state(Phase.RETRYING, rest=HOUR)
    paused = act(state, Action.PAUSE, "ann")

    assert run(paused, make.seen()).rest == HOUR
    assert act(paused, Action.ROLL_BACK, "ann").phase is Phase.ROLLED_BACK
    assert act(state, Action.RETRY, "now").phase is Phase.WAITING
