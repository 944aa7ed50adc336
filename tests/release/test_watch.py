"""What a release has gathered: the fold, the split as it is seen, and that nothing is lost in the store."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce

import pytest

from controlplane.evidence.crowd import Crowd
from controlplane.evidence.learned import Learned, learn
from controlplane.evidence.observation import Cell, Measure, Observation, Tally
from controlplane.evidence.verdict import Outcome
from controlplane.policy.documents import Condition
from controlplane.release.agreement import Clock, split_seen
from controlplane.release.arrivals import step_split
from controlplane.release.conditions import limits
from controlplane.release.state import Phase, Stage
from controlplane.release.watch import Watch, fold, next_step, ready, setting, suspicion, verdicts

TEN = timedelta(seconds=10)


def interval(make, *cells):
    """Cells are (proxy, segment, version, requests, errors)."""
    tallies = tuple(sorted((Cell(p, s, v), Tally(n, k)) for p, s, v, n, k in cells))
    return Observation("shop", make.T0, make.T0 + TEN, tallies, fresh=("a", "b"))


def watched(make, state, *intervals, settled=True, watch=None):
    watch = watch or Watch()
    for cells in intervals:
        seen = ready(watch, LEARNED, interval(make, *cells), state, counting=True)
        watch = fold(watch, seen, state, settled=settled)
    return watch


LEARNED = reduce(
    lambda known, end: learn(
        known,
        Observation("shop", end - TEN, end, ((Cell("a", "everyone", "v1"), Tally(10_000, 10)),), ("a",)),
        "v1",
    ),
    [datetime(2026, 3, 1, tzinfo=UTC) + n * TEN for n in range(30)],
    Learned(),
)


GOOD = [("a", "everyone", "v1", 9000, 9), ("a", "everyone", "v2", 1000, 1), ("b", "staff", "v2", 300, 0)]


def test_a_watch_survives_json(make):
    watch = watched(make, make.state(running=TEN), *[GOOD, [("b", "everyone", "v1", 900, 100)]] * 3)

    again = Watch.from_json(json.loads(json.dumps(watch.to_json())))

    assert again == watch
    assert verdicts(again, LEARNED, make.state()) == verdicts(watch, LEARNED, make.state())


def test_a_fold_continued_from_json_is_the_fold(make):
    state, first, second = make.state(running=TEN), watched(make, make.state(running=TEN), GOOD), GOOD

    stored = Watch.from_json(json.loads(json.dumps(first.to_json())))

    assert watched(make, state, second, watch=stored) == watched(make, state, GOOD, GOOD)


def test_requests_count_for_the_step_only_once_it_is_settled(make):
    watch = watched(make, make.state(), GOOD, settled=False)

    assert watch.step == {}
    assert watch.whole == {"a": (1000, 1, 9000, 9), "b": (300, 0, 0, 0)}


def test_the_next_step_begins_without_the_requests_of_the_last(make):
    watch = next_step(watched(make, make.state(), GOOD))

    assert watch.step == {}
    assert watch.whole["a"] == (1000, 1, 9000, 9)


def test_what_was_proved_for_one_step_is_not_proof_for_the_next(make):
    state = make.state(running=timedelta(hours=1))
    watch = watched(make, state, *[[(p, s, v, n * 100, k) for p, s, v, n, k in GOOD]] * 20)

    before, after = (verdicts(w, LEARNED, state) for w in (watch, next_step(watch)))

    assert {v.outcome for v in before} == {Outcome.PASS}
    assert {v.outcome for v in after} == {Outcome.NOT_YET}


@pytest.mark.parametrize(
    "cell", [("a", "anonymous", "v2", 7, 7), ("a", "followed", "v2", 7, 7), ("a", "everyone", "v9", 5, 5)]
)
def test_requests_without_identity_decided_elsewhere_and_of_other_versions_enter_no_count(make, cell):
    watch = watched(make, make.state(), [cell])

    assert watch.whole == {}
    assert {v.outcome for v in verdicts(watch, LEARNED, make.state())} == {Outcome.NOT_YET}


def test_a_failing_canary_that_is_only_followed_neither_passes_nor_fails_and_it_is_said_why(make):
    state = make.state(step=1)
    cells = [("a", "followed", "v2", 9000, 9000), ("a", "followed", "v1", 100, 0)]
    watch = watched(make, state, *[cells] * 20)

    got = split_seen(watch, state, Crowd())

    assert (got.problem, got.agrees) == ("", False)
    assert "182000 more follow another release of the group, and count there" in got.missing
    assert suspicion(verdicts(watch, LEARNED, state)) == 1.0


@pytest.mark.parametrize(
    ("steps", "hold_back", "divided"),
    [
        (["staff 100%", "everyone 10%", "everyone 100%"], "2%", [False, True, True, True]),
        (["staff 100%", "everyone 10%", "everyone 100%"], "0%", [False, True, False, False]),
        (["staff 50%", "staff 100%", "everyone 100%"], "0%", [True, False, False, False]),
    ],
)
def test_users_are_divided_where_a_segment_has_both_versions(make, steps, hold_back, divided):
    def step(number, text):
        segment, share = text.split()
        match = make.STAFF if segment == "staff" else None
        return make.step(f"s{number}", share, segment=segment, match=match)

    guard = {"for": "1m", "hold_back": hold_back}
    policy = make.policy(steps=tuple(step(*placed) for placed in enumerate(steps)), guard=guard)

    got = [setting(make.state(step=step, policy=policy), counting=True).divided for step in range(4)]

    assert got == divided


# --- the split --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "problem", "agrees"),
    [
        ([], "", False),
        ([("a", "everyone", "v1", 300, 0), ("a", "everyone", "v2", 40, 0)], "", False),
        ([("a", "everyone", "v1", 900, 0), ("a", "everyone", "v2", 100, 0)], "", True),
        (
            [(p, "everyone", v, n, 0) for p in "ab" for v, n in (("v1", 270), ("v2", 30))],
            "",
            True,
        ),
        (
            [("a", "everyone", "v1", 5000, 0)],
            "a acknowledged but does not split as asked, segment everyone",
            False,
        ),
        (
            [
                ("a", "everyone", "v1", 9000, 0),
                ("a", "everyone", "v2", 1000, 0),
                ("b", "everyone", "v2", 600, 0),
            ],
            "b acknowledged but",
            False,
        ),
        ([("a", "staff", "v1", 4, 0)], "segment staff", False),
        ([("a", "gone", "v2", 9000, 0), ("a", "anonymous", "v2", 9000, 0)], "", False),
    ],
)
def test_the_split_of_a_tenth_of_everyone_and_all_of_staff(make, cells, problem, agrees):
    got = split_seen(watched(make, make.state(step=1), cells), make.state(step=1), Crowd())

    assert got.agrees is agrees
    assert problem in got.problem
    assert bool(got.problem) is bool(problem)
    assert bool(got.missing) is not (agrees or bool(got.problem))


def test_a_whole_segment_is_not_split_as_asked_before_the_canary_has_a_request_of_it(make):
    state = make.state(step=0, elapsed=2 * TEN)
    watch = watched(make, state, [("a", "staff", "v1", 3, 0), ("a", "everyone", "v1", 900, 0)])

    early = split_seen(watch, state, Crowd(), Clock(2 * TEN, TEN))
    later = split_seen(watched(make, state, [("a", "staff", "v2", 1, 0)], watch=watch), state, Crowd())

    assert early.missing == "segment staff: none of the canary counted yet, 3 of the baseline"
    assert later.agrees


def test_requests_without_identity_are_told_where_nobody_else_comes(make):
    state = make.state(step=1, elapsed=2 * TEN)
    watch = watched(make, state, [("a", "anonymous", "v1", 400, 0), ("b", "anonymous", "v2", 50, 0)])

    got = split_seen(watch, state, Crowd(), Clock(2 * TEN, TEN))

    assert got.missing == (
        "segment everyone: none counted yet, no requests came in the 10 s since counting began; "
        "450 more have no identity by the service's `user`, and are not compared"
    )


@pytest.mark.parametrize(("count", "time"), [(1, "40 s"), (2, "30 s"), (4, "10 s")])
def test_how_long_verification_still_takes_follows_from_the_time_in_which_requests_were_counted(
    make, count, time
):
    # It begins two intervals after the step; the state is that before the last of them.
    state = make.state(step=1, elapsed=(1 + count) * TEN)
    watch = watched(make, state, *[[("a", "everyone", "v1", 90, 0), ("a", "everyone", "v2", 10, 0)]] * count)

    got = split_seen(watch, state, Crowd(), Clock(2 * TEN, TEN))

    assert got.missing.endswith(f"; 50 canary requests must be due, {time} more at the traffic of this step")


@pytest.mark.parametrize(("canary", "few"), [(2800, True), (0, False)])
def test_a_share_that_a_few_large_users_may_make_is_told_with_what_can_be_done(make, canary, few):
    state = make.state(step=1, policy=make.policy(steps=(make.step("staff", "0%"), make.step("five", "5%"))))
    cells = [("a", "everyone", "v1", 10_000 - canary, 0), ("a", "everyone", "v2", canary, 0)]

    problem = split_seen(watched(make, state, cells), state, Crowd()).problem

    assert f"{canary} of 10000 requests went to the canary, 5 % should" in problem
    hint = f"; or a few users send that much: `turnout cohort {state.name} --users FILE` says who is in, "
    assert (hint in problem) is few
    assert problem.endswith(f"`turnout advance {state.name}` goes on all the same") is few


def test_a_proxy_that_splits_nearly_as_asked_is_named_once_heavy_users_are_known(make):
    state = make.state(step=1)
    cells = [(p, "everyone", v, n, 0) for p in "ab" for v, n in (("v1", 9000), ("v2", 1000))]
    cells += [("c", "everyone", "v1", 9700, 0), ("c", "everyone", "v2", 300, 0)]
    watch = watched(make, state, cells)

    assert split_seen(watch, state, Crowd()).agrees
    assert "c acknowledged but" in split_seen(watch, state, Crowd(known=True)).problem
    assert split_seen(watch, state, Crowd(alike=0.03, known=True)).agrees


def test_a_canary_request_of_everyone_while_only_staff_has_it_is_a_problem(make):
    state = make.state(step=0)

    got = split_seen(watched(make, state, [("a", "everyone", "v2", 4, 0)]), state, Crowd())

    assert "4 canary requests where none should be" in got.problem


def test_a_whole_segment_is_verified_by_its_own_requests(make):
    state = make.state(step=0)
    cells = [("a", "staff", "v2", 1, 0), ("a", "everyone", "v1", 500, 0)]

    assert split_seen(watched(make, state, cells), state, Crowd()).agrees


@pytest.mark.parametrize(
    ("phase", "step", "segment", "buckets"),
    [
        (Phase.WAITING, 0, "everyone", 0),
        (Phase.PROGRESSING, 0, "staff", 10_000),
        (Phase.PROGRESSING, 1, "everyone", 1000),
        (Phase.GUARDING, 3, "everyone", 9800),
        (Phase.ROLLING_BACK, 1, "everyone", 0),
        (Phase.PROMOTED, 3, "everyone", 10_000),
    ],
)
def test_the_split_by_which_a_step_shows(make, phase, step, segment, buckets):
    rules = make.policy(guard={"hold_back": "2%"})

    split = step_split(make.state(phase, step=step, policy=rules))

    assert (split.segment, split.buckets) == (segment, buckets)


def test_the_limits_are_those_of_the_policy(make):
    rules = make.policy(
        conditions=(
            {"latency": {"p99": "400ms"}},
            {"latency": {"margin": "20%"}, "grace": "1m"},
            {"success_rate": {"at_least": "99%"}},
            {"error_rate": {"at_most": "2%"}},
            {"requests": {"at_least": 500}},
        )
    )

    got = limits(rules)

    assert (got.errors_margin, got.client_errors_margin, got.latency_margin) == (None, None, 0.2)
    assert (got.success_rate, got.error_rate, got.requests) == (0.99, 0.02, 500)
    assert got.latency[0][0] == 0.99
    minute = timedelta(minutes=1)
    assert got.grace == (("latency", minute), ("latency tail", minute))


def test_the_conditions_of_a_step_hold_at_that_step_only_and_bear_its_name(make):
    rules = make.policy(
        steps=(
            make.step("ten", "10%").model_copy(
                update={"conditions": (Condition.model_validate({"requests": {"at_least": 500}}),)}
            ),
            make.step("all", "100%"),
        )
    )

    names = [[v.metric for v in verdicts(Watch(), LEARNED, make.state(policy=rules, step=n))] for n in (0, 1)]

    assert names == [["errors", "requests at ten"], ["errors"]]
    assert [v.metric for v in verdicts(Watch(), LEARNED, make.state(Phase.GUARDING, policy=rules))] == [
        "errors"
    ]


def test_a_condition_in_its_grace_is_neither_failed_nor_passed(make):
    rules = make.policy(conditions=({"errors": {}, "grace": "20s"},))
    bad = [("a", "everyone", "v1", 900, 1), ("a", "everyone", "v2", 100, 90)]

    early = watched(make, make.state(policy=rules, elapsed=TEN), *[bad] * 5)
    late = watched(make, make.state(policy=rules, elapsed=2 * TEN), *[bad] * 20)

    [verdict] = verdicts(early, LEARNED, make.state(policy=rules, elapsed=TEN))
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_YET, "errors: in grace for another 10 s")
    [verdict] = verdicts(late, LEARNED, make.state(policy=rules, elapsed=2 * TEN))
    assert verdict.outcome is Outcome.FAIL
    assert verdict.note == "errors leaves out the first 20s of each step, its grace"
    assert verdict.told.endswith(f"; {verdict.note}")
    assert not any(v.note for v in verdicts(early, LEARNED, make.state(policy=rules, elapsed=TEN)))
    [verdict] = verdicts(early, LEARNED, make.state(policy=rules, elapsed=2 * TEN))
    assert verdict.reason == "no canary requests in this step"  # but in its grace
    assert verdict.note == "errors leaves out the first 20s of each step, its grace"


def test_the_budget_counts_what_the_canary_fails_beyond_the_baseline(make):
    rules = make.policy(conditions=(), budget={"failed": 50})
    state = make.state(policy=rules)
    alike = [("a", "everyone", "v1", 9000, 900), ("a", "everyone", "v2", 1000, 100)]
    worse = [("a", "everyone", "v1", 9000, 9), ("a", "everyone", "v2", 1000, 31)]

    [outage] = verdicts(watched(make, state, *[alike] * 20), LEARNED, state)
    [within] = verdicts(watched(make, state, worse), LEARNED, state)
    [spent] = verdicts(watched(make, state, *[worse] * 4), LEARNED, state)

    assert [v.outcome for v in (outage, within, spent)] == [Outcome.PASS, Outcome.PASS, Outcome.FAIL]
    assert outage.reason == "0 of at most 50 requests spoiled"
    assert spent.metric == "budget"
    assert 50 < dict(spent.numbers)["spoiled"] < 120


def test_suspicion_is_the_worst_condition_by_its_own_threshold(make):
    fine = make.verdict(Outcome.PASS, e_value=3.0, threshold=300.0)
    worse = make.verdict(Outcome.NOT_YET, e_value=50.0, threshold=100.0)

    assert suspicion((fine, worse)) == 50.0
    assert suspicion(()) == 1.0


def test_many_errors_of_the_canary_alone_fail(make):
    state = make.state(running=timedelta(hours=1), stage=Stage.VERIFY)
    watch = watched(make, state, *[[("a", "everyone", "v1", 900, 1), ("a", "everyone", "v2", 100, 30)]] * 10)

    assert Outcome.FAIL in {v.outcome for v in verdicts(watch, LEARNED, state)}


def test_two_limits_of_a_metric_are_two_tests(make):
    metrics = ({"name": "orders", "better": "more"}, {"name": "cents", "better": "more", "sum": True})
    conditions = (
        {"metric": {"name": "orders", "at_least": "3%", "at_most": "9%"}, "grace": "5m"},
        {"metric": {"name": "cents", "against": "baseline", "at_least": 10, "at_most": 20}},
    )
    state = make.state(policy=make.policy(metrics=metrics, conditions=conditions))

    found = verdicts(watched(make, state, GOOD), LEARNED, state)

    assert [v.metric for v in found] == [
        "metric orders at least", "metric orders at most",
        "metric cents", "metric cents at least", "metric cents at most",
    ]  # fmt: skip
    assert sum("in grace" in v.reason for v in found) == 2


@pytest.mark.parametrize(("share", "failed"), [(0.005, "at least"), (0.06, ""), (0.2, "at most")])
def test_a_band_is_left_at_either_end(make, share, failed):
    band = {"metric": {"name": "orders", "at_least": "3%", "at_most": "9%"}}
    metrics = ({"name": "orders", "better": "more"},)
    state = make.state(policy=make.policy(metrics=metrics, conditions=(band,)), step=1)
    measures = tuple(
        Measure(Cell("a", "everyone", version), "orders", n * part)
        for version, n, part in (("v1", 900, 0.06), ("v2", 1000, share))
    )
    counts = interval(make, ("a", "everyone", "v1", 900, 0), ("a", "everyone", "v2", 1000, 0))
    watch = Watch()
    for _ in range(60):
        seen = ready(watch, LEARNED, replace(counts, measures=measures), state, counting=True)
        watch = fold(watch, seen, state, settled=True)

    found = [v.metric for v in verdicts(watch, LEARNED, state) if v.outcome is Outcome.FAIL]

    assert found == [f"metric orders {failed}"] * bool(failed)


def test_metrics_stats_and_queries_of_a_policy_become_metrics_and_what_is_observed_decides_nothing(make):
    rules = make.policy(
        metrics=(
            {"name": "orders", "better": "more"},
            {"name": "cents", "better": "more", "sum": True, "per": "orders"},
            {"name": "refunds", "better": "less"},
        ),
        observe=("refunds",),
        conditions=(
            {"metric": {"name": "orders"}},
            {"metric": {"name": "cents", "against": "baseline", "at_least": 100}, "grace": "5m"},
            {"metric": {"name": "refunds", "at_most": "2%"}},
            {"retries": {"at_most": "5%"}},
            {"ejections": {"at_most": 0}},
            {"stat": {"name": "upstream_rq_timeout", "at_most": 9}},
            {"prometheus": {"name": "queue", "query": "q", "at_most": 10}},
            {"prometheus": {"name": "lag", "query": "q{v='$version'}", "against": "baseline", "at_most": 3}},
        ),
    )
    state = make.state(policy=rules)

    found = verdicts(watched(make, state, GOOD), LEARNED, state)

    assert [v.metric for v in found if v.decisive] == [
        "metric orders", "metric cents", "metric cents limit", "metric refunds limit", "retries", "ejections",
        "stat upstream_rq_timeout", "prometheus queue", "prometheus lag", "prometheus lag limit",
    ]  # fmt: skip
    assert [v.metric for v in found if not v.decisive] == ["metric refunds (observed)"]
    assert Outcome.PASS not in {v.outcome for v in found}
    in_grace = [v.metric for v in found if "in grace" in v.reason]
    assert in_grace == ["metric cents", "metric cents limit"]
