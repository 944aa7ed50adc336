"""How an A/B test ends: its time, what each kind does at its end, and what it has shown."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.evidence.better import Result
from controlplane.evidence.verdict import Outcome, Said
from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Notify
from controlplane.release import gates, holding
from controlplane.release.decide import decide
from controlplane.release.moves import act, apply, next_action, restart_step
from controlplane.release.notices import with_notices
from controlplane.release.ports import Change, Record, World
from controlplane.release.seen import Propagation
from controlplane.release.splits import splits
from controlplane.release.state import Action, Phase, ReleaseState, Stage
from controlplane.release.traffic import BUCKETS

HOUR, TICK = timedelta(hours=1), timedelta(seconds=10)
KINDS = ("report", "ask", "promote_if_better")


def result(better=1.0, worse=1.0, *, metric="orders", decides=True):
    return Result(metric, decides, 0.033, 0.03, 12000, 11800, better, worse, 20.0, low=0.02)


def policy(make, do="report", **over):
    steps = (make.step("ten", "10%"), make.step("half", "50%", for_="0s"))
    ends = {"after": "1h", "do": do}
    return make.policy(**({"steps": steps, "ends": ends, "guard": {"for": "1m", "hold_back": "10%"}} | over))


def reached(make, do="report", judged=HOUR - TICK, rules=None, **over):
    return make.state(policy=rules or policy(make, do), judged=judged, **over)


def seen(make, *results, **over):
    return make.seen(results=results or (result(),), **over)


# --- time -------------------------------------------------------------------------------------------------


def test_a_difference_that_nothing_bounds_yet_says_so(make):
    early = replace(result(), low=None, high=None)

    found = decide(reached(make, judged=TICK), seen(make, early))

    assert "orders: no difference seen (+10.00%, too early for bounds), canary 0.033" in found.reason


def test_a_test_that_has_counted_nothing_yet_shows_no_figures(make):
    empty = replace(result(), canary=0.0, baseline=0.0, canary_n=0, baseline_n=0, low=None)

    found = decide(
        reached(make, judged=TICK), seen(make, empty, replace(empty, metric="tips", decides=False))
    )

    assert found.reason.endswith("; orders: nothing counted yet; tips: nothing counted yet, only observed")


@pytest.mark.parametrize("do", KINDS)
def test_a_test_goes_on_for_its_time_whatever_it_shows_meanwhile(make, do):
    state, sight = reached(make, do, timedelta(minutes=30)), seen(make, result(better=1e9))

    found = decide(state, sight)
    after = apply(state, found, sight)

    assert (found.action, found.code) == (None, "testing")
    assert found.reason.startswith("tested for 30m10s of 1h; orders: better (+10.00%, surely above +2.0%), ")
    assert after.judged == state.judged + TICK
    assert after.result == sight.results


@pytest.mark.parametrize(
    ("sight", "over"),
    [
        ({"stale": "no statistics"}, {}),
        ({"split_problem": "edge-1 does not split as asked"}, {}),
        ({"propagation": Propagation()}, {}),
        ({}, {"halt": "paused"}),
    ],
)
def test_time_without_data_that_counts_does_not_belong_to_the_test(make, sight, over):
    state, sees = reached(make, **over), seen(make, **sight)

    found = decide(state, sees)

    assert found.action is None
    assert apply(state, found, sees).judged == state.judged


def silent(make, metric="metric orders", **over):
    said = Said(f"{metric}: no value of the canary was pushed for 20 min")
    verdict = make.verdict(Outcome.NOT_YET, metric)
    return replace(verdict, say=said, lacking=True, cause="no value", overdue=True, **over)


@pytest.mark.parametrize("do", KINDS)
def test_the_clock_of_a_test_stands_while_no_data_comes_for_what_it_tests(make, do):
    state, sight = reached(make, do, timedelta(minutes=30)), seen(make, verdicts=(silent(make),))

    found = decide(state, sight)
    after = apply(state, found, sight)

    assert (found.action, found.code, found.cause) == (None, "no-data", "metric orders (no value)")
    assert "no value of the canary was pushed for 20 min" in found.reason
    assert after.judged == state.judged
    assert holding.kind(found.code) == "wrong"  # people are told once it lasts


def test_what_is_only_observed_stops_a_test_of_nothing_else(make):
    state, watched = reached(make, judged=timedelta(minutes=30)), silent(make, decisive=False)
    alone = seen(make, result(decides=False), verdicts=(watched,))
    beside = seen(make, result(metric="carts"), result(decides=False), verdicts=(watched,))

    assert [decide(state, sight).code for sight in (alone, beside)] == ["no-data", "testing"]


def test_a_condition_in_its_grace_does_not_stop_the_clock(make):
    grace = replace(make.verdict(Outcome.NOT_YET), lacking=True)

    assert decide(reached(make, judged=TICK), seen(make, verdicts=(grace,))).code == "testing"


def test_a_restart_neither_shortens_nor_ends_a_test(make):
    state = reached(make)

    found = decide(state, seen(make, elapsed=timedelta(0)))

    assert (found.action, found.code) == (None, "testing")


def test_steps_before_the_test_pass_by_their_conditions(make):
    state = make.state(policy=policy(make), step=0, judged=HOUR)

    assert decide(state, make.seen()).action is Action.ADVANCE


def test_a_failure_before_the_end_acts_as_on_failure_says(make):
    failed = seen(make, verdicts=(make.verdict(Outcome.FAIL),))
    frozen = policy(make, on_failure={"do": "freeze"})

    assert decide(reached(make), failed).action is Action.ROLL_BACK
    assert decide(reached(make, rules=frozen), failed).action is Action.FREEZE


def test_a_test_over_which_the_deadline_passes_is_late(make):
    state = reached(make, rules=policy(make, deadline="2h"), running=2 * HOUR)

    assert decide(state, seen(make)).code == "late"


# --- the end ----------------------------------------------------------------------------------------------


def test_report_returns_everyone_whatever_was_shown(make):
    found = decide(reached(make), seen(make, result(better=1e6), verdicts=(make.verdict(Outcome.NOT_YET),)))

    assert (found.action, found.code) == (Action.END, "reported")
    assert found.reason == (
        "tested for 1h; orders: better (+10.00%, surely above +2.0%), canary 0.033 of 12000, "
        "baseline 0.03 of 11800, e-values 1e+06 for better, 1 for worse, 20 would show it"
    )


def test_ask_waits_for_a_person_and_is_judged_on(make):
    state = reached(make, "ask")

    found = decide(state, seen(make))
    failed = decide(state, seen(make, verdicts=(make.verdict(Outcome.FAIL),)))

    assert (found.action, found.code, found.counts) == (None, "test-over", True)
    assert found.code in gates.SHUT
    for command in ("advance", "promote", "end"):
        assert f"`turnout {command} r`" in found.reason
    assert failed.action is Action.ROLL_BACK


def test_what_is_shown_to_be_better_goes_through_the_guard(make):
    state, sight = reached(make, "promote_if_better"), seen(make, result(better=20.0))

    found = decide(state, sight)
    guarding = apply(state, found, sight)

    assert (found.action, found.code) == (Action.GUARD, "better")
    assert guarding.phase is Phase.GUARDING
    assert guarding.result == sight.results
    (everyone,) = splits(state.policy, guarding.step)
    assert everyone.buckets == BUCKETS * 9 // 10  # all but the hold-back, who are compared with
    assert decide(guarding.model_copy(update={"stage": Stage.JUDGE, "judged": HOUR}), make.seen()).action is (
        Action.PROMOTE
    )


@pytest.mark.parametrize(
    ("results", "sight", "lacks"),
    [
        ([result(better=19.9)], {}, "no metric is shown to be better"),
        ([result(worse=1e6)], {}, "no metric is shown to be better"),
        ([result(better=1e6, decides=False)], {}, "no metric is shown to be better"),
        ([result()], {"verdicts": "not yet"}, "no metric is shown to be better; errors say not yet"),
    ],
)
def test_what_is_not_shown_to_be_better_and_safe_returns_and_says_what_is_missing(
    make, results, sight, lacks
):
    if "verdicts" in sight:
        sight = {"verdicts": (make.verdict(Outcome.NOT_YET),)}

    found = decide(reached(make, "promote_if_better"), seen(make, *results, **sight))

    assert (found.action, found.code) == (Action.END, "not-better")
    assert found.reason.startswith(f"not promoted, {lacks}; tested for 1h; orders: ")


@pytest.mark.parametrize(
    ("sight", "lacks"), [({"suspicion": 11.0}, "suspicious: e-value of harm 11"), ({}, "errors say not yet")]
)
def test_what_is_better_waits_for_the_rest_as_long_as_the_policy_says(make, sight, lacks):
    sight = seen(make, result(better=1e6), **{"verdicts": (make.verdict(Outcome.NOT_YET),)} | sight)
    state = reached(make, "promote_if_better")
    late = reached(make, "promote_if_better", judged=HOUR + timedelta(minutes=20))

    found = decide(state, sight)
    again = apply(state, found, sight)

    assert (found.action, found.code) == (None, "better-unproved")
    assert found.reason.startswith(f"waits for up to 20m (when_unsure): {lacks}")
    assert again.judged == HOUR
    assert decide(again, seen(make, result(better=1e6))).action is Action.GUARD
    assert decide(late, sight).reason.startswith(f"not promoted, {lacks}")


@pytest.mark.parametrize(("do", "given_up"), [("hold", False), ("rollback", True)])
def test_what_is_better_is_not_thrown_away_because_a_source_is_silent(make, do, given_up):
    rules = policy(make, "promote_if_better", when_unsure={"after": "20m", "do": do})
    sight = seen(make, result(better=1e6), verdicts=(silent(make, "prometheus queue"),))
    state = reached(make, rules=rules)
    long = state.model_copy(update={"hold": "no-data", "held_for": timedelta(minutes=20)})

    assert decide(state, sight).code == "no-data"
    assert (decide(long, sight).action is Action.END) == given_up
    assert decide(state, seen(make, result(), verdicts=sight.verdicts)).code == "not-better"


def test_one_metric_that_is_better_suffices_even_beside_one_that_is_not(make):
    several = (result(), result(better=25.0, metric="revenue"))

    assert decide(reached(make, "promote_if_better"), seen(make, *several)).action is Action.GUARD


@pytest.mark.parametrize(("do", "action"), [("report", Action.END), ("promote_if_better", Action.GUARD)])
def test_nobody_is_sent_where_nothing_answers(make, do, action):
    target = "v1" if action is Action.END else "v2"
    there = {**make.ENDPOINTS, target: ()}

    found = decide(reached(make, do), seen(make, result(better=99.0), endpoints=there))

    assert found.action is None
    assert found.code in ("unsafe", "no-endpoints")
    assert found.reason.startswith("ALARM")


# --- everyone returns -------------------------------------------------------------------------------------


def test_the_end_is_propagated_like_a_rollback_and_is_none(make):
    state, sight = reached(make, halt=None), seen(make, result(better=3.0))
    ending = apply(state, decide(state, sight), sight)
    behind = make.seen(propagation=Propagation(("a", "b"), ("a",)))

    waits, ends = decide(ending, behind), decide(ending, make.seen())
    ended = apply(ending, ends, make.seen())

    assert (ending.phase, ending.active, ending.ended) == (Phase.ENDING, True, False)
    assert (waits.action, waits.code, waits.reason) == (None, "ending", "may still serve the canary: b")
    assert (ends.action, ends.code) == (Action.FINISH, "ended")
    assert (ended.phase, ended.active, ended.ended) == (Phase.ENDED, False, True)
    assert ended.result == sight.results
    assert "orders: no difference seen" in ended.because
    assert ReleaseState.model_validate_json(ended.model_dump_json(by_alias=True)) == ended


def test_an_ended_test_can_be_run_again_as_another_attempt(make):
    ended = act(act(reached(make, result=(result(),)), Action.END, "over"), Action.FINISH, "done")

    again = act(ended, Action.RETRY, "once more")

    assert (again.phase, again.attempt, again.result) == (Phase.WAITING, 2, ())


@pytest.mark.parametrize(("do", "action"), [("report", Action.END), ("ask", Action.GUARD)])
def test_after_the_test_comes_what_the_policy_says(make, do, action):
    assert next_action(reached(make, do)) is action


def test_a_step_back_from_the_guard_is_the_test_and_what_it_showed_is_forgotten(make):
    rules = policy(make, "ask", on_failure={"do": "step_back"})
    guarding = make.state(Phase.GUARDING, policy=rules, result=(result(),))
    failed = make.seen(verdicts=(make.verdict(Outcome.FAIL),))

    back = apply(guarding, decide(guarding, failed), failed)

    assert (back.phase, back.at, back.judged, back.result) == (Phase.PROGRESSING, "half", timedelta(0), ())


def test_a_test_whose_canary_was_replaced_begins_again(make):
    again = restart_step(reached(make, result=(result(),)), "replaced", ("10.0.0.9:80",))

    assert (again.judged, again.result) == (timedelta(0), ())


# --- who is told ------------------------------------------------------------------------------------------


def test_the_end_is_told_with_what_was_shown(make):
    hooks = [{"at": at, "url": f"https://example.com/{at}"} for at in ("end", "failure")]
    told = policy(make, notify=[Notify(webhook="https://example.com/all")], hooks=hooks)
    ended = make.state(Phase.ENDED, policy=told, result=(result(better=25.0),))
    record = Record(at=make.T0, kind="decision", release="r", action="finish", step="ending", reason="2 of 2")
    world = World(1, Catalog(), releases={"r": ended})

    hook, event = with_notices(Change(records=(record,)), world).messages

    assert hook.url == "https://example.com/end"
    assert event.body["type"] == "turnout.release.ended"
    (shown,) = event.body["data"]["result"]
    assert (shown["metric"], shown["said"], shown["canary_n"]) == ("orders", "better", 12000)
