"""What keeps a release whose step has passed from going on, and what lets it through."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.evidence.verdict import Outcome
from controlplane.policy.documents import Approve, Blackout, Window
from controlplane.release import gates
from controlplane.release.decide import decide
from controlplane.release.moves import act, apply
from controlplane.release.state import Action, Approval, Phase

HOUR = timedelta(hours=1)
FRIDAY = datetime(2026, 11, 27, 17, tzinfo=UTC)
WEEKEND = Blackout(cron="0 16 * * fri", for_="62h", because="weekend")
OFFICE = Window(days="mon-thu", from_="09:00", to="16:00")
PASSED = timedelta(minutes=5)


def told(decision):
    return decision.action, decision.code


@pytest.fixture
def gated(make):
    """A policy whose second step (ten) and last need an approval."""

    def build(**approve):
        steps = [
            make.step("staff", "100%", segment="staff", match=make.STAFF),
            make.step("ten", "10%").model_copy(update={"approve": Approve(**approve)}),
            make.step("all", "100%").model_copy(update={"approve": Approve(role="admin")}),
        ]
        return make.policy(steps=steps)

    return build


def passed(make, policy, step=0, **over):
    phase = over.pop("phase", Phase.PROGRESSING)
    return make.state(phase, policy=policy, step=step, judged=PASSED, **over)


def approval(make, step):
    return Approval(step=step, actor="ann", at=make.T0)


# --- approval ---------------------------------------------------------------------------------------------


def test_a_step_that_needs_an_approval_waits_for_it_and_says_how(make, gated):
    state = passed(make, gated(expires="8h"))

    decision = decide(state, make.seen())

    assert told(decision) == (None, "approval")
    assert decision.counts
    assert "a releaser to approve 'ten', 8h left" in decision.reason
    assert "`turnout approve r --step ten`" in decision.reason


def test_an_approval_opens_its_step_and_no_other(make, gated):
    ten = (approval(make, "ten"),)

    opened = decide(passed(make, gated(), approvals=ten), make.seen())
    other = decide(passed(make, gated(), step=1, approvals=ten), make.seen())

    assert told(opened) == (Action.ADVANCE, "passed")
    assert told(other) == (None, "approval")
    assert "admin" in other.reason


def test_conditions_go_on_guarding_while_a_gate_waits(make, gated):
    seen = make.seen(verdicts=(make.verdict(Outcome.FAIL),), blackouts=(WEEKEND,), now=FRIDAY)

    assert decide(passed(make, gated()), seen).action is Action.ROLL_BACK


def test_a_first_step_may_need_an_approval_too(make):
    first = make.step("all", "100%").model_copy(
        update={"approve": Approve(expires="1h", on_expiry="rollback")}
    )
    state = make.state(Phase.WAITING, policy=make.policy(steps=(first,)))

    assert told(decide(state, make.seen())) == (None, "approval")
    assert decide(state.model_copy(update={"approvals": (approval(make, "all"),)}), make.seen()).action is (
        Action.START
    )
    late = state.model_copy(update={"asking": HOUR})
    after = apply(late, decide(late, make.seen(endpoints={"v2": ("x",)})), make.seen())
    assert after.phase is Phase.ROLLED_BACK


@pytest.mark.parametrize(
    ("on_expiry", "outcome"),
    [
        ("hold", (None, "approval-expired")),
        ("freeze", (Action.FREEZE, "approval-expired")),
        ("rollback", (Action.ROLL_BACK, "approval-expired")),
    ],
)
def test_what_expiry_does_is_the_policys(make, gated, on_expiry, outcome):
    policy = gated(expires="1h", on_expiry=on_expiry)

    assert told(decide(passed(make, policy, asking=HOUR - PASSED), make.seen())) == (None, "approval")
    assert told(decide(passed(make, policy, asking=HOUR), make.seen())) == outcome


def test_an_approval_that_comes_late_still_opens_what_holds(make, gated):
    state = passed(make, gated(expires="1h"), asking=2 * HOUR, approvals=(approval(make, "ten"),))

    assert told(decide(state, make.seen())) == (Action.ADVANCE, "passed")


def test_the_time_of_asking_runs_only_while_an_approval_is_due(make, gated):
    policy, seen = gated(expires="1h"), make.seen(elapsed=timedelta(seconds=4))
    asking = passed(make, policy)
    judging = asking.model_copy(update={"judged": 0 * HOUR})

    assert apply(asking, decide(asking, seen), seen).asking == seen.elapsed
    assert apply(judging, decide(judging, seen), seen).asking == 0 * HOUR
    assert act(asking, Action.ADVANCE, "x").asking == 0 * HOUR


def test_what_lies_ahead_and_needs_an_approval(make, gated):
    policy = gated()

    assert tuple(gates.approvable(make.state(Phase.WAITING, policy=policy))) == ("ten", "all")
    assert tuple(gates.approvable(passed(make, policy, step=1))) == ("all",)
    assert tuple(gates.approvable(passed(make, policy, approvals=(approval(make, "ten"),)))) == ("all",)
    assert tuple(gates.approvable(passed(make, policy, phase=Phase.GUARDING, step=3))) == ()


# --- calendar ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "step"),
    [(Phase.WAITING, 0), (Phase.PROGRESSING, 1), (Phase.PROGRESSING, 2), (Phase.GUARDING, 3)],
)
@pytest.mark.parametrize(
    ("policy", "seen", "code", "words"),
    [
        ({}, {"blackouts": (WEEKEND,)}, "blackout", "(weekend) until Mon 2026-11-30 06:00 UTC"),
        ({"windows": (OFFICE,)}, {}, "window", "opens Mon 2026-11-30 09:00 UTC"),
    ],
)
def test_nothing_begins_in_a_blackout_or_outside_of_the_windows(make, phase, step, policy, seen, code, words):
    state = passed(make, make.policy(**policy), step, phase=phase)

    closed = decide(state, make.seen(now=FRIDAY, **seen))
    later = decide(state, make.seen(now=FRIDAY + timedelta(days=2, hours=17), **seen))

    assert told(closed) == (None, code)
    assert words in closed.reason
    assert later.action is not None


def test_an_approval_may_be_given_while_a_window_is_closed(make, gated):
    state = passed(make, gated().model_copy(update={"windows": (OFFICE,)}))

    assert decide(state, make.seen(now=FRIDAY)).code == "approval"
    given = state.model_copy(update={"approvals": (approval(make, "ten"),)})
    assert decide(given, make.seen(now=FRIDAY)).code == "window"


# --- time -------------------------------------------------------------------------------------------------


def timed(make, **over):
    steps = (make.step("ten", "10%").model_copy(update={"within": HOUR}), make.step("all", "100%"))
    return make.policy(steps=steps, **over)


@pytest.mark.parametrize(
    ("on_timeout", "outcome"), [("hold", (None, "late")), ("rollback", (Action.ROLL_BACK, "late"))]
)
def test_a_step_that_takes_too_long_stays_or_goes_back(make, on_timeout, outcome):
    policy = timed(make, on_timeout=on_timeout)

    early = decide(make.state(policy=policy, step=0, stepping=HOUR - PASSED), make.seen(elapsed=0 * HOUR))
    late = decide(make.state(policy=policy, step=0, stepping=HOUR), make.seen())

    assert early.code == "dwell"
    assert told(late) == outcome
    assert "'ten' did not pass within 1h" in late.reason


@pytest.mark.parametrize(("phase", "step"), [(Phase.PROGRESSING, 0), (Phase.GUARDING, 3)])
def test_a_deadline_is_of_the_whole_release(make, phase, step):
    state = make.state(
        phase, step=step, policy=make.policy(deadline="1h", on_timeout="rollback"), running=HOUR
    )

    assert told(decide(state, make.seen())) == (Action.ROLL_BACK, "late")


def test_the_time_of_a_step_stands_while_a_gate_is_shut_or_a_person_halted_it(make):
    policy, office = timed(make), timed(make, windows=(OFFICE,))
    seen = make.seen(now=FRIDAY, elapsed=timedelta(seconds=4))
    judging = make.state(policy=policy, step=0)
    shut = passed(make, office)
    paused = judging.model_copy(update={"halt": "paused"})

    assert apply(judging, decide(judging, seen), seen).stepping == seen.elapsed
    for state in (shut, paused):
        after = apply(state, decide(state, seen), seen)
        assert after.stepping == 0 * HOUR
        assert after.running == seen.elapsed


def test_a_failed_condition_comes_before_lateness(make):
    state = make.state(policy=timed(make, on_failure={"do": "freeze"}), step=0, stepping=HOUR)

    assert decide(state, make.seen(verdicts=(make.verdict(Outcome.FAIL),))).action is Action.FREEZE


# --- emergency --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("emergency", [False, True])
def test_an_emergency_passes_windows_blackouts_and_endpoints_that_are_gone(make, emergency):
    shut = [
        (make.policy(), {"blackouts": (WEEKEND,), "now": FRIDAY}, "blackout"),
        (make.policy(windows=(OFFICE,)), {"now": FRIDAY}, "window"),
        (
            make.policy(guard={"keep_endpoints": "80%"}),
            {"endpoints": {"v2": ("10.0.0.2:80",)}},
            "no-way-back",
        ),
    ]
    for policy, sight, code in shut:
        state = passed(make, policy.model_copy(update={"emergency": emergency}), way_back=10)

        decision = decide(state, make.seen(**sight))

        assert told(decision) == ((Action.ADVANCE, "passed") if emergency else (None, code))


def test_an_emergency_starts_in_a_blackout_but_waits_for_an_approval(make, gated):
    seen = make.seen(blackouts=(WEEKEND,), now=FRIDAY)
    urgent = make.policy(emergency=True)

    assert told(decide(make.state(Phase.WAITING, policy=urgent), seen)) == (Action.START, "start")
    kept = gated().model_copy(update={"emergency": True})
    assert told(decide(passed(make, kept), seen)) == (None, "approval")
