"""What is decided in each stage, and each reason to hold."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.evidence.verdict import Outcome
from controlplane.release.confirming import SOON
from controlplane.release.decide import decide
from controlplane.release.moves import NEW_STEP, apply, restart_step, with_gate
from controlplane.release.seen import Propagation
from controlplane.release.state import Action, Phase, Stage

SECOND = timedelta(seconds=1)
PROPAGATE, VERIFY, JUDGE = Stage
IN_PROGRESS = (Phase.PROGRESSING, Phase.GUARDING)
NOBODY = Propagation()
LEFT = Propagation(("a", "b"), ("a",), at_least=500_000, alone=("b",))
NACKED = Propagation(("a", "b"), ("a",), (("b", "Cluster 'shop~v2': bad port"),))
UNSERVED = Propagation(("a",), ("a",), unserved=(("w", "belongs to two fleets"),))
HALF = Propagation(("a", "b"), ("a",))


def told(decision):
    return decision.action, decision.code


# --- waiting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "seen", "told_", "words"),
    [
        ({}, {}, (Action.START, "start"), "staff (100% of staff)"),
        ({"start": "manual"}, {}, (None, "manual"), "`turnout advance r` starts it"),
        ({"halt": "paused"}, {}, (None, "paused"), ""),
        ({}, {"busy": "other"}, (None, "busy"), "'other'"),
        ({}, {"stable": "v0"}, (None, "not-from"), "'v0'"),
        (
            {},
            {"stable": "v0", "propagation": LEFT},
            (None, "left-alone"),
            "gave them: b; see `turnout store init`",
        ),
        ({}, {"endpoints": {"v1": ("x",), "v2": ()}}, (None, "no-endpoints"), "v2"),
    ],
)
def test_a_waiting_release_starts_or_says_what_it_waits_for(make, state, seen, told_, words):
    decision = decide(make.state(Phase.WAITING, **state), make.seen(**seen))

    assert told(decision) == told_
    assert words in decision.reason


# --- propagate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", IN_PROGRESS)
@pytest.mark.parametrize(
    ("propagation", "told_", "words"),
    [
        (Propagation(("a", "b"), ("a", "b")), (Action.PROCEED, "propagated"), "2 of 2"),
        (Propagation(("a", "b"), ("a",), at_least=500_000), (Action.PROCEED, "propagated"), "1 of 2"),
        (HALF, (None, "propagate"), "b"),
        (NOBODY, (None, "no-proxy"), "no proxy"),
        (NACKED, (None, "nack"), "b refuses Cluster 'shop~v2': bad port"),
        (Propagation(("a", "b"), ("a",), NACKED.nacked, 500_000), (None, "nack"), "b refuses"),
        (UNSERVED, (None, "nack"), "w is not served: belongs to two fleets"),
        (LEFT, (None, "left-alone"), "gave them: b; see"),
    ],
)
def test_a_step_waits_for_the_proxies_and_names_the_stragglers(make, phase, propagation, told_, words):
    decision = decide(make.state(phase, stage=PROPAGATE), make.seen(propagation=propagation))

    assert told(decision) == told_
    assert words in decision.reason
    assert not decision.counts


# --- a baseline that is not well --------------------------------------------------------------------------


def broken(make, outcome=Outcome.PASS):
    return replace(make.verdict(outcome), baseline="the baseline itself has 60 % of late")


@pytest.mark.parametrize("judged", [0, 3600])
@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.NOT_YET])
@pytest.mark.parametrize("phase", IN_PROGRESS)
def test_what_both_versions_fail_is_no_proof(make, phase, outcome, judged):
    state = make.state(phase, stage=JUDGE, judged=judged * SECOND)

    decision = decide(state, make.seen(verdicts=(broken(make, outcome),)))

    assert told(decision) == (None, "baseline")
    assert decision.reason.endswith("not well itself: errors: the baseline itself has 60 % of late")
    assert decision.counts


def test_what_is_only_observed_of_the_baseline_holds_nothing(make):
    state = make.state(stage=JUDGE, judged=3600 * SECOND)

    decision = decide(state, make.seen(verdicts=(replace(broken(make), decisive=False),)))

    assert decision.action is Action.ADVANCE


@pytest.mark.parametrize(
    ("do", "action"), [("hold", None), ("advance", None), ("rollback", Action.ROLL_BACK)]
)
def test_while_both_are_bad_a_release_may_go_back_and_never_on(make, do, action):
    rule = make.policy(when_unsure={"after": "1m", "do": do})
    state = make.state(
        stage=JUDGE, judged=3600 * SECOND, unproved=120 * SECOND, sighted=120 * SECOND, policy=rule
    )

    decision = decide(state, make.seen(verdicts=(broken(make, Outcome.NOT_YET),)))

    assert decision.action is action


# --- verify and judge -------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", IN_PROGRESS)
@pytest.mark.parametrize("stage", [VERIFY, JUDGE])
@pytest.mark.parametrize(
    ("seen", "code", "words"),
    [
        ({"propagation": NACKED}, "nack", "b refuses"),
        ({"propagation": LEFT}, "left-alone", "gave them: b; see"),
        ({"propagation": NOBODY}, "no-proxy", "no proxy"),
        ({"stale": "no statistics from a"}, "stale", "from a"),
        ({"split_problem": "a does not split as asked"}, "split", "a does"),
    ],
)
def test_data_that_is_not_trusted_holds_and_does_not_count(make, phase, stage, seen, code, words):
    """Even with every condition passed and the time long over."""
    decision = decide(make.state(phase, stage=stage, judged=timedelta(days=1)), make.seen(**seen))

    assert told(decision) == (None, code)
    assert words in decision.reason
    assert not decision.counts


def test_a_split_with_too_few_requests_is_not_verified(make):
    decision = decide(
        make.state(stage=VERIFY), make.seen(split_agrees=False, split_missing="3 of 50 requests")
    )

    assert told(decision) == (None, "verify")
    assert "3 of 50" in decision.reason


def test_a_verified_split_goes_on_to_judging(make):
    before = make.state(stage=VERIFY, elapsed=180 * SECOND)

    after = apply(before, decide(before, make.seen()), make.seen())

    assert (after.stage, after.elapsed, after.judged, after.step) == (JUDGE, 190 * SECOND, 0 * SECOND, 1)


def test_judging_lasts_at_least_as_long_as_the_policy_says(make):
    state, seen = make.state(), make.seen(elapsed=4 * SECOND)
    judged = []
    for _ in range(2):
        decision = decide(state, seen)
        assert told(decision) == (None, "dwell")
        state = apply(state, decision, seen)
        judged.append(state.judged)

    assert judged == [4 * SECOND, 8 * SECOND]
    assert told(decide(state, seen)) == (Action.ADVANCE, "passed")


def test_the_last_step_leads_to_the_guard_and_the_guard_to_promotion(make):
    last, guard = make.state(step=2), make.state(Phase.GUARDING, judged=timedelta(minutes=1))

    assert told(decide(last, make.seen())) == (Action.GUARD, "passed")
    assert told(decide(guard, make.seen())) == (Action.PROMOTE, "guarded")


@pytest.mark.parametrize("outcome", [Outcome.NOT_YET])
def test_what_is_not_proved_is_named_and_waited_for(make, outcome):
    unsure = make.verdict(outcome, "latency p99")

    decision = decide(make.state(), make.seen(verdicts=(make.verdict(Outcome.PASS), unsure)))

    assert told(decision) == (None, "not-yet")
    assert decision.reason == unsure.reason
    assert decision.counts


@pytest.mark.parametrize(
    ("do", "unsure", "told_"),
    [
        ("hold", {}, (None, "not-yet")),
        ("rollback", {}, (Action.ROLL_BACK, "unsure/everyone")),
        ("advance", {}, (Action.ADVANCE, "without-proof")),
        ("hold", {"suspicion": 50.0}, (None, "suspicious")),
        ("rollback", {"suspicion": 50.0}, (Action.ROLL_BACK, "unsure/everyone")),
        ("advance", {"suspicion": 50.0}, (None, "suspicious")),
        ("advance", {"stale": "no statistics"}, (None, "stale")),
        ("rollback", {"stale": "no statistics"}, (Action.ROLL_BACK, "unsure/everyone")),
        ("advance", {"split_problem": "a does not"}, (None, "split")),
        ("rollback", {"split_problem": "a does not"}, (Action.ROLL_BACK, "unsure/everyone")),
        ("advance", {"propagation": NACKED}, (None, "nack")),
        ("rollback", {"propagation": NACKED}, (None, "nack")),
        ("rollback", {"propagation": NOBODY}, (None, "no-proxy")),
        ("advance", {"served": False}, (None, "not-yet")),
        ("rollback", {"served": False}, (Action.ROLL_BACK, "unsure/everyone")),
    ],
)
def test_a_policy_says_what_to_do_when_time_alone_has_passed(make, do, unsure, told_):
    rules = make.policy(when_unsure={"after": "20m", "do": do})
    seen = make.seen(verdicts=(make.verdict(Outcome.NOT_YET),), **unsure)

    early, late = (
        decide(make.state(policy=rules, judged=spent, unproved=spent, sighted=spent), seen)
        for spent in (timedelta(minutes=19), timedelta(minutes=20))
    )

    assert early.action is None
    assert told(late) == told_
    if late.action in NEW_STEP:
        assert "without proof" in late.reason


@pytest.mark.parametrize("phase", IN_PROGRESS)
def test_a_suspicious_canary_goes_nowhere_whatever_has_passed(make, phase):
    decision = decide(make.state(phase, judged=timedelta(days=1)), make.seen(suspicion=10.0))

    assert told(decision) == (None, "suspicious")


# --- failure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", IN_PROGRESS)
@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("halt", [None, "paused"])
@pytest.mark.parametrize("seen", [{}, {"stale": "silent"}, {"propagation": NACKED}, {"propagation": NOBODY}])
def test_a_failed_condition_rolls_back_at_any_time(make, phase, stage, halt, seen):
    failed = make.verdict(Outcome.FAIL, "latency p99", "staff")

    decision = decide(
        make.state(phase, stage=stage, halt=halt),
        make.seen(verdicts=(make.verdict(Outcome.PASS), failed), **seen),
    )

    assert told(decision) == (Action.ROLL_BACK, "latency p99/staff")
    assert decision.reason == failed.reason


@pytest.mark.parametrize(("do", "told_"), [("hold", (None, "failed")), ("freeze", (Action.FREEZE, "failed"))])
def test_a_policy_may_hold_or_freeze_instead(make, do, told_):
    state = make.state(policy=make.policy(on_failure={"do": do}), judged=timedelta(days=1))

    decision = decide(state, make.seen(verdicts=(make.verdict(Outcome.FAIL),)))

    assert told(decision) == told_


def test_a_frozen_release_stays_where_it_is_until_a_person_comes(make):
    freezes = make.policy(on_failure={"do": "freeze"})
    why = {"halted": "it failed", "frozen_by": ("condition",), "because": "ALARM: another matter"}
    state = make.state(policy=freezes, halt="frozen", judged=timedelta(days=1), **why)

    decision = decide(state, make.seen(verdicts=(make.verdict(Outcome.FAIL),)))

    assert told(decision) == (None, "frozen")
    assert decision.reason == "it failed"


def test_a_paused_release_does_not_count_time(make):
    state = make.state(halt="paused")

    after = apply(state, decide(state, make.seen()), make.seen())

    assert (after.judged, after.running) == (0 * SECOND, 10 * SECOND)


# --- nowhere to go ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdicts", ["failed", "unsure"])
def test_no_rollback_to_a_version_without_endpoints_but_an_alarm(make, verdicts):
    rules = make.policy(when_unsure={"after": "0s", "do": "rollback"})
    state = make.state(policy=rules, judged=timedelta(hours=1))
    outcome = Outcome.FAIL if verdicts == "failed" else Outcome.NOT_YET

    decision = decide(state, make.seen(verdicts=(make.verdict(outcome),), endpoints={"v1": (), "v2": ("x",)}))

    assert told(decision) == (None, "unsafe")
    assert "ALARM" in decision.reason
    assert "v1 has no endpoints" in decision.reason


@pytest.mark.parametrize("phase", IN_PROGRESS)
@pytest.mark.parametrize("endpoints", [{"v1": ("x",), "v2": ()}, {}])
def test_no_weight_grows_towards_a_version_without_endpoints(make, phase, endpoints):
    state = make.state(phase, judged=timedelta(hours=1))

    decision = decide(state, make.seen(endpoints=endpoints))

    assert told(decision) == (None, "no-endpoints")
    assert "v2" in decision.reason


# --- rolling back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("propagation", "elapsed", "told_", "words"),
    [
        (Propagation(("a", "b"), ("a", "b")), 0, (Action.FINISH, "rolled-back"), "2 of 2"),
        (HALF, 0, (None, "rolling-back"), "b"),
        (Propagation(("a", "b"), ("a",), at_least=1), 99, (None, "rolling-back"), "b"),
        (NACKED, 99, (None, "rolling-back"), "b (Cluster 'shop~v2': bad port)"),
        (UNSERVED, 99, (None, "rolling-back"), "w (belongs to two fleets)"),
        (Propagation(nacked=(("turnout", "to render it"),)), 99, (None, "rolling-back"), "to render it"),
        (NOBODY, 0, (None, "no-proxy"), "no proxy"),
        (NOBODY, 1, (Action.FINISH, "rolled-back"), "no proxy"),
    ],
)
def test_a_rollback_is_done_when_every_live_proxy_has_it(make, propagation, elapsed, told_, words):
    state = make.state(Phase.ROLLING_BACK, elapsed=elapsed * SOON)

    decision = decide(state, make.seen(propagation=propagation))

    assert told(decision) == told_
    assert words in decision.reason


# --- the gate set -----------------------------------------------------------------------------------------


def test_a_proxy_that_is_away_refuses_what_it_refused_until_its_grace_is_over(make):
    """Also where enough of the others have acknowledged: a refusal always holds."""
    state = make.state(stage=PROPAGATE, gate=(("a", 0.0), ("b", 0.0)))
    left = Propagation(
        ("a",), ("a",), refused=(("b", "Cluster 'c': bad"), ("x", "'y': bad")), at_least=300_000
    )

    state, seen = with_gate(state, left, 6 * SECOND)
    soon = decide(state, make.seen(propagation=seen))
    state, seen = with_gate(state, left, 6 * SECOND)
    later = decide(state, make.seen(propagation=seen))

    assert told(soon) == (None, "nack")
    assert soon.reason == "b refuses Cluster 'c': bad"
    assert told(later) == (Action.PROCEED, "propagated")


def test_a_restart_takes_nobody_for_gone(make):
    state = make.state(stage=PROPAGATE, gate=(("a", 0.0), ("b", 9.0)))

    _, seen = with_gate(state, Propagation(("a",), ("a",)), 0 * SECOND)
    decision = decide(state, make.seen(propagation=seen))

    assert told(decision) == (None, "propagate")
    assert decision.reason == "not yet acknowledged by b (not connected)"


def test_a_proxy_that_joins_or_returns_is_in_the_set_at_once(make):
    state = make.state(gate=(("a", 9.0),))

    after, seen = with_gate(state, Propagation(("a", "b"), ("a",)), 5 * SECOND)

    assert after.gate == (("a", 0.0), ("b", 0.0))
    assert seen.absent == ()


# --- properties -------------------------------------------------------------------------------------------


PROPAGATIONS = [Propagation(("a", "b"), ("a", "b")), HALF, NACKED, NOBODY]


@given(st.data())
def test_more_traffic_needs_fresh_proof_and_enough_time(make, data):
    """Whatever else is true, the loop lets the canary have more only for reasons that are all there."""
    pick = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    state = make.state(
        pick(*Phase),
        stage=pick(*Stage),
        halt=pick(None, "paused", "frozen"),
        judged=timedelta(seconds=data.draw(st.integers(0, 200))),
        unproved=timedelta(seconds=data.draw(st.integers(0, 200))),
        sighted=timedelta(seconds=data.draw(st.integers(0, 200))),
        policy=make.policy(when_unsure={"after": "2m", "do": pick("hold", "rollback", "advance")}),
    )
    seen = make.seen(
        propagation=pick(*PROPAGATIONS),
        stale=pick("", "silent"),
        split_problem=pick("", "wrong"),
        verdicts=tuple(replace(make.verdict(pick(*Outcome)), lacking=pick(False, True)) for _ in range(2)),
        served=pick(False, True),
        suspicion=pick(1.0, 99.0),
        endpoints=pick(make.ENDPOINTS, {"v1": (), "v2": ("x",)}, {"v1": ("x",), "v2": ()}),
    )

    decision = decide(state, seen)
    after = apply(state, decision, seen)  # never an action that the table does not have

    if decision.action in (Action.ADVANCE, Action.GUARD, Action.PROMOTE):
        least = 60 if state.phase is Phase.GUARDING else 10
        assert state.stage is JUDGE
        assert not any((seen.stale, seen.split_problem, seen.propagation.nacked, state.halt))
        assert seen.suspicion < 10
        assert seen.endpoints["v2"]
        assert (state.judged + seen.elapsed).total_seconds() >= least
        assert all(v.outcome is not Outcome.FAIL for v in seen.verdicts)
        assert (
            decision.action is Action.PROMOTE
            or (decision.code == "without-proof" and seen.sighted)
            or all(v.outcome is Outcome.PASS for v in seen.verdicts)
        )
    assert after.judged == 0 * SECOND or after.judged - state.judged in (0 * SECOND, seen.elapsed)


def test_a_restarted_step_keeps_its_place_and_loses_its_proof(make):
    state = make.state(step=2, judged=timedelta(minutes=5), halt="paused")

    after = restart_step(state, "all replaced", ("10.0.0.9:80",))

    assert (after.step, after.stage, after.judged, after.halt) == (2, PROPAGATE, 0 * SECOND, "paused")
    assert after.canary_endpoints == ("10.0.0.9:80",)
