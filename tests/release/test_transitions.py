import itertools

import pytest

from controlplane.release.moves import act, next_action
from controlplane.release.state import RETURNING, Action, Phase, ReleaseState
from controlplane.release.traffic import Endpoints
from controlplane.release.transitions import (
    BY_ITSELF,
    HALTS,
    TRANSITIONS,
    NotAllowedError,
    possible,
    transition,
)

EVERY = list(itertools.product(Phase, (None, "paused", "frozen"), Action))


@pytest.mark.parametrize(("phase", "halt", "action"), [triple for triple in EVERY if possible(*triple)])
def test_an_action_in_the_tables_leads_where_they_say(make, phase, halt, action):
    policy = make.policy(point_of_no_return={"approve": {}, "run": {"url": "https://ops.example.com"}})
    before = make.state(phase, policy=policy, stage="verify", halt=halt, halted="lunch" if halt else "")
    after = act(before, action, "because", Endpoints(make.ENDPOINTS))

    assert after.phase is TRANSITIONS[phase, action]
    assert after.halt == HALTS[halt, action]
    assert after.halted == ("" if after.halt is None else "lunch" if after.halt == halt else "because") or (
        action in (Action.PAUSE, Action.FREEZE) and after.halted == "because"
    )
    assert after.hold == (after.halt or "")
    earlier = phase is Phase.RETRYING and action is Action.ROLL_BACK  # whose cause stays
    assert after.because == ("; not again: because" if earlier else "because")
    assert 0 <= after.step <= after.steps


@pytest.mark.parametrize(("phase", "halt", "action"), [triple for triple in EVERY if not possible(*triple)])
def test_an_action_that_is_not_in_the_tables_is_refused_and_says_what_is_possible(make, phase, halt, action):
    before = make.state(phase, halt=halt)
    copy = before.model_copy(deep=True)
    now = f"{phase} and {halt}" if halt else phase

    with pytest.raises(NotAllowedError, match=rf"release 'r' is {now}.*: cannot {action}; ") as refused:
        act(before, action, "because")

    assert before == copy
    # An A/B test alone can be ended, and nothing of this policy waits for an approval.
    unfit = {*BY_ITSELF, Action.END, Action.APPROVE}
    asked = {a for a in Action if possible(phase, halt, a) and a not in unfit}
    if possible(phase, halt, Action.START):
        asked.add(Action.ADVANCE)  # as a person calls it
    ending = "it ends by itself" if phase in RETURNING else "it has ended"
    assert all(word in str(refused.value) for word in asked or {ending})
    assert "approve" not in str(refused.value).partition("; ")[2]


def test_a_halt_is_never_lifted_by_the_loop_but_with_traffic_taken_away():
    loop = {Action.PROCEED, Action.FREEZE, Action.DOOM}

    assert all(
        HALTS.get((halt, action), halt) is not None for halt in ("paused", "frozen") for action in loop
    )
    assert ("frozen", Action.PAUSE) not in HALTS
    assert (None, Action.RESUME) not in HALTS


def test_the_ends_are_final_and_every_other_phase_has_a_way_to_one():
    ways = {
        phase: {after for (before, _), after in TRANSITIONS.items() if before is phase} for phase in Phase
    }
    reach = {phase: {phase} for phase in Phase}
    for _ in Phase:
        reach = {phase: known.union(*(ways[p] for p in known)) for phase, known in reach.items()}

    for end in (Phase.ROLLED_BACK, Phase.ENDED, Phase.PROMOTED):
        onward = {a: after for (p, a), after in TRANSITIONS.items() if p is end}
        assert onward == {Action.RETRY: Phase.WAITING, Action.CONFIRM: end}, "as another attempt"
    assert all(Phase.ROLLED_BACK in reach[phase] for phase in Phase)


def test_returning_cannot_be_stopped_or_turned_into_a_promotion():
    assert {a for p, a in TRANSITIONS if p is Phase.ROLLING_BACK} == {Action.FINISH, Action.REST}
    assert {a for p, a in TRANSITIONS if p is Phase.ENDING} == {Action.FINISH}


@pytest.mark.parametrize(
    ("phase", "step", "action"),
    [
        (Phase.WAITING, 0, Action.START),
        (Phase.PROGRESSING, 0, Action.ADVANCE),
        (Phase.PROGRESSING, 2, Action.GUARD),
        (Phase.GUARDING, 3, Action.PROMOTE),
    ],
)
def test_advance_means_the_next_step_whatever_it_is(make, phase, step, action):
    assert next_action(make.state(phase, step=step)) is action


@pytest.mark.parametrize(
    "phase", [Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ENDING, Phase.ENDED, Phase.PROMOTED]
)
@pytest.mark.parametrize("step", range(4))
def test_advance_is_refused_where_there_is_nothing_to_advance_to(make, phase, step):
    state = make.state(phase, step=step)

    with pytest.raises(NotAllowedError, match="cannot advance"):
        transition(state, next_action(state))


@pytest.mark.parametrize("action", [Action.START, Action.ADVANCE, Action.GUARD])
def test_a_new_step_begins_from_nothing_and_lifts_a_halt(make, action):
    phase = Phase.WAITING if action is Action.START else Phase.PROGRESSING
    before = make.state(phase, halt="paused", judged="PT1H", elapsed="PT1H", running="PT2H", hold="dwell")

    after = act(before, action, "on", Endpoints({"v2": ("10.0.0.9:80",)}))

    assert (after.stage, after.judged, after.elapsed) == ("propagate", before.judged * 0, before.judged * 0)
    assert (after.halt, after.hold, after.canary_endpoints) == (None, "", ("10.0.0.9:80",))
    assert after.running == before.running
    assert after.step == (0 if action is Action.START else before.step + 1)


@pytest.mark.parametrize("phase", Phase)
def test_a_state_survives_json(make, phase):
    before = make.state(phase, judged="PT1.234567S", halt="frozen", step_at=make.T0, revision=7)

    text = before.model_dump_json(by_alias=True)

    assert ReleaseState.model_validate_json(text) == before
