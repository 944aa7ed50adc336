import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import CANARY, GOOD, LADDER, STABLE, START, Fault, Traffic, World, buckets, folded, past, release

from controlplane.evidence import (
    Cell,
    Evidence,
    Learned,
    Limits,
    Observation,
    Outcome,
    Stage,
    Tally,
    fold,
    learn,
    metrics,
    next_step,
    verdicts,
)
from controlplane.policy.latency import EDGES_MS

EVERYTHING = Limits(
    client_errors_margin=0.5,
    latency_margin=0.1,
    latency=((0.99, EDGES_MS.index(400)),),
    success_rate=0.99,
)
NO_EDGES = (0,) * len(EDGES_MS)


def stage(**more):
    return Stage(
        **{
            "canary": CANARY, "stable": STABLE, "limits": EVERYTHING, "elapsed": timedelta(seconds=90),
            "next_share": 0.25,
        } | more
    )  # fmt: skip


def seen(*cells, **more):
    tallies = tuple(
        (Cell(p, s, v), Tally(n, k, slower=slower or NO_EDGES)) for p, s, v, n, k, slower in cells
    )
    return Observation("shop", START, START + timedelta(seconds=1), tallies, **more)


def outcomes(evidence, known, at):
    return {v.metric: v.outcome for v in verdicts(evidence, known, at)}


def test_metrics_are_what_the_limits_name():
    names = [m.name for m in metrics(EVERYTHING)]

    assert names == ["errors", "client errors", "latency", "latency tail", "latency p99", "success rate"]
    assert metrics(Limits(errors_margin=None)) == ()


@pytest.mark.parametrize("version", [STABLE, None])
def test_silence_never_passes(known, version):
    cells = [("p", "everyone", version, 500, 1, None)] if version else []

    found = verdicts(folded(known, seen(*cells), 300, stage()), known, stage())

    assert {v.outcome for v in found} == {Outcome.NOT_YET}
    assert {v.reason for v in found} == {"no canary requests in this step"}


def test_a_canary_that_nothing_is_known_to_compare_with_does_not_pass():
    observation = seen(("p", "everyone", CANARY, 1000, 0, None))
    limits = Limits()

    (found,) = verdicts(
        folded(Learned(), observation, 50, stage(limits=limits)), Learned(), stage(limits=limits)
    )

    assert found.outcome is Outcome.NOT_YET
    assert "too little is known" in found.reason


@pytest.mark.parametrize("flaw", [{"silent": ("q",)}, {"partial": (("q", "gap"),)}])
def test_incomplete_data_does_not_count_for_promotion(known, flaw):
    cells = (("p", "everyone", CANARY, 100, 0, None), ("p", "everyone", STABLE, 900, 2, None))

    evidence = folded(known, seen(*cells, **flaw), 100, stage())

    assert Outcome.PASS not in outcomes(evidence, known, stage()).values()


def test_an_interval_before_verification_counts_against_but_not_for(known):
    good = seen(("p", "everyone", CANARY, 100, 0, None), ("p", "everyone", STABLE, 900, 2, None))
    bad = seen(("p", "everyone", CANARY, 100, 30, None), ("p", "everyone", STABLE, 900, 2, None))
    at = stage(counting=False)

    assert Outcome.PASS not in outcomes(folded(known, good, 100, at), known, at).values()
    assert outcomes(folded(known, bad, 20, at), known, at)["errors"] is Outcome.FAIL


def test_next_step_forgets_promotion_and_keeps_what_speaks_for_a_rollback(known):
    good = seen(("p", "everyone", CANARY, 100, 0, None), ("p", "everyone", STABLE, 900, 2, None))
    before = folded(known, good, 60, stage())

    after = next_step(before)

    assert outcomes(before, known, stage())["errors"] is Outcome.PASS
    assert outcomes(after, known, stage())["errors"] is Outcome.NOT_YET
    assert after.accounts["errors"].processes == before.accounts["errors"].processes


def test_requests_needed_is_about_what_is_then_needed(known):
    observation = seen(("p", "everyone", CANARY, 1000, 2, None), ("p", "everyone", STABLE, 9000, 18, None))
    at = stage(limits=Limits(), next_share=1.0)
    needed = verdicts(Evidence(), known, at)[0].requests_needed

    steps, evidence = 0, Evidence()
    while outcomes(evidence, known, at)["errors"] is not Outcome.PASS:
        evidence, steps = fold(evidence, known, observation, at), steps + 1

    assert needed == pytest.approx(1000 * steps, rel=0.4)
    assert verdicts(evidence, known, at)[0].requests_needed == 0


def test_a_fault_in_one_segment_is_named():
    end = release(World(ladder=LADDER[2:]), Fault(errors=0.5, segment="beta"), seed=4)

    assert (end.outcome, end.verdict.segment) == ("rolled back", "beta")
    assert dict(end.verdict.numbers)["canary_rate"] > 0.3


def test_a_general_fault_is_everyones():
    end = release(World(ladder=LADDER[2:]), Fault(errors=0.3), seed=4)

    assert (end.outcome, end.verdict.segment) == ("rolled back", "everyone")


@pytest.mark.parametrize("noise", ["iid", "mod"])
def test_a_good_release_is_promoted(noise):
    assert release(World(noise=noise), GOOD, seed=5).outcome == "promoted"


def test_a_fault_in_guard_is_found():
    world = World(guard=200)

    end = release(world, Fault(errors=0.5, begins=300), seed=6)

    assert (end.outcome, len(end.steps)) == ("rolled back", 5)


@pytest.mark.parametrize(("both", "outcome"), [(False, Outcome.FAIL), (True, Outcome.NOT_YET)])
def test_a_small_hold_back_tells_a_fault_from_an_outage(known, both, outcome):
    traffic = Traffic(World(), Fault(errors=0.5, both=both, begins=-100), seed=12)
    evidence = Evidence()
    for _ in range(12):
        evidence = fold(evidence, known, traffic.step(LADDER[-1])[0], stage())

    assert outcomes(evidence, known, stage())["errors"] is outcome


def test_both_versions_failing_alike_neither_fails_nor_passes():
    end = release(World(longest=120), Fault(errors=0.1, both=True), seed=7)

    assert (end.outcome, end.steps) == ("undecided", ())
    reasons = {v.metric: v.reason for v in end.last}
    assert "the baseline breaches the limit itself" in reasons["success rate"]
    assert "the baseline itself has unusually many errors" in reasons["errors"]


def test_a_short_outage_of_both_only_delays():
    fault = Fault(errors=0.2, slower=2.0, both=True, begins=30, ends=60)

    assert release(World(), fault, seed=8).outcome == "promoted"


def test_a_slow_canary_breaks_the_limit_and_a_shared_slowness_does_not():
    limits = Limits(latency=((0.99, EDGES_MS.index(400)),))
    world = World(limits=limits, longest=120)

    slow = release(world, Fault(slower=4.0), seed=9)
    both = release(world, Fault(slower=4.0, both=True), seed=9)

    assert (slow.outcome, slow.verdict.metric) == ("rolled back", "latency p99")
    assert "took longer than 400 ms" in slow.verdict.reason
    assert both.outcome == "undecided"
    assert "the baseline breaches the limit itself" in both.last[-1].reason


def test_a_canary_slower_than_the_baseline_fails_after_the_warm_up():
    world = World(limits=Limits(latency_margin=0.1), longest=200)

    end = release(world, Fault(slower=2.0), seed=10)

    assert (end.outcome, end.verdict.metric.split()[0]) == ("rolled back", "latency")
    assert end.seconds >= 60


@pytest.mark.parametrize(("errors", "outcome"), [(0, Outcome.PASS), (30, Outcome.FAIL)])
def test_a_full_segment_is_judged_by_the_rest_of_the_service(known, errors, outcome):
    at = stage(limits=Limits(), full_segments=frozenset({"staff"}))
    observation = seen(("p", "staff", CANARY, 100, errors, None), ("p", "everyone", STABLE, 900, 2, None))

    (found,) = verdicts(folded(known, observation, 30, at), known, at)

    assert found.outcome is outcome
    assert (found.segment == "staff") == (outcome is Outcome.FAIL)


def test_a_full_segment_has_a_wider_margin(known):
    # Twice the baseline's rate: beyond 25 %, within the 100 % of a borrowed baseline.
    observation = seen(("p", "staff", CANARY, 1000, 4, None), ("p", "everyone", STABLE, 9000, 18, None))
    at = stage(limits=Limits(), full_segments=frozenset({"staff"}))

    assert outcomes(folded(known, observation, 300, at), known, at)["errors"] is Outcome.PASS


def test_without_any_baseline_the_limit_alone_decides(known):
    limits = Limits(errors_margin=None, success_rate=0.99)
    observation = seen(("p", "everyone", CANARY, 100, 10, None))
    held, full = stage(limits=limits), stage(limits=limits, full_segments=frozenset({"everyone"}))

    assert outcomes(folded(known, observation, 30, held), known, held)["success rate"] is Outcome.NOT_YET
    assert outcomes(folded(known, observation, 30, full), known, full)["success rate"] is Outcome.FAIL


@pytest.mark.parametrize(
    ("baseline", "outcome"),
    [((50, 15), Outcome.NOT_YET), ((50, 0), Outcome.FAIL), ((1, 0), Outcome.FAIL)],
    ids=["an outage of both", "the canary's fault", "a late request"],
)
def test_as_long_as_some_are_on_the_baseline_that_a_step_leaves_a_limit_is_judged_beside_them(
    known, baseline, outcome
):
    """A proxy that has not acknowledged the step divides as before, with `hold_back: 0%` too."""
    at = stage(limits=SUCCESS, full_segments=frozenset({"everyone"}), counting=False)
    both = seen(("p", "everyone", CANARY, 200, 60, None), ("p", "everyone", STABLE, *baseline, None))

    assert outcomes(folded(known, both, 30, at), known, at)["success rate"] is outcome


SUCCESS = Limits(errors_margin=None, success_rate=0.99)


def beside(canary, baseline):
    """A second in which beta, 2 % of the requests, has errors; everyone has 1 in 500."""
    return seen(
        ("p", "beta", CANARY, 10, canary, None), ("p", "beta", STABLE, 10, baseline, None),
        ("p", "everyone", CANARY, 500, 1, None), ("p", "everyone", STABLE, 500, 1, None),
    )  # fmt: skip


def test_a_limit_that_only_one_segment_breaks_fails_and_names_it(known):
    at = stage(limits=SUCCESS)

    (found,) = verdicts(folded(known, beside(3, 0), 60, at), known, at)

    assert (found.outcome, found.segment) == (Outcome.FAIL, "beta")
    assert found.reason.startswith("the limit is broken in segment beta: 30 % of 600 canary requests failed")


def test_a_limit_that_a_segment_breaks_on_both_versions_does_not_fail(known):
    at = stage(limits=SUCCESS)

    assert outcomes(folded(known, beside(3, 3), 300, at), known, at)["success rate"] is Outcome.PASS


@pytest.mark.parametrize(("usual", "outcome"), [(0, Outcome.FAIL), (3, Outcome.PASS)])
def test_with_nobody_left_a_segment_is_held_to_what_it_used_to_have(known, usual, outcome):
    before = stage(limits=SUCCESS)
    at = stage(limits=SUCCESS, full_segments=frozenset({"beta", "everyone"}))
    alone = seen(("p", "beta", CANARY, 20, 6, None), ("p", "everyone", CANARY, 1000, 2, None))

    evidence = folded(known, beside(usual, usual), 60, before)
    for _ in range(60):
        evidence = fold(evidence, known, alone, at)

    assert outcomes(evidence, known, at)["success rate"] is outcome


def test_a_limit_in_a_full_segment_is_beside_the_rest_of_the_service_with_a_wider_margin(known):
    at = stage(limits=SUCCESS, full_segments=frozenset({"staff"}))

    def judged(baseline):
        observation = seen(
            ("p", "staff", CANARY, 50, 2, None),
            ("p", "everyone", CANARY, 500, 0, None),
            ("p", "everyone", STABLE, 500, baseline, None),
        )
        (found,) = verdicts(folded(known, observation, 200, at), known, at)
        return found.outcome is Outcome.FAIL, found.segment

    assert judged(4) == (True, "staff")
    assert judged(11) == (False, "everyone")  # 4 % against 2.2 %: other users, other habits


def test_a_perfect_success_rate_may_be_asked_for(known):
    at = stage(limits=Limits(errors_margin=None, success_rate=1.0))
    observation = seen(("p", "everyone", CANARY, 100, 0, None), ("p", "everyone", STABLE, 900, 0, None))
    calm = Learned()
    for _ in range(30):
        calm = learn(calm, observation, STABLE)

    assert outcomes(folded(calm, observation, 30, at), calm, at)["success rate"] is Outcome.PASS


def test_a_stored_copy_folds_on_as_the_original_does():
    traffic = Traffic(World(noise="harsh"), GOOD, seed=11)
    learned = stored = past(traffic)
    evidence = copy = Evidence()
    for i in range(80):
        observation = traffic.step(LADDER[3])[0]
        at = stage(elapsed=timedelta(seconds=i))
        evidence = fold(evidence, learned, observation, at)
        copy = Evidence.from_json(json.loads(json.dumps(fold(copy, stored, observation, at).to_json())))
        learned = learn(learned, observation, STABLE)
        stored = Learned.from_json(json.loads(json.dumps(learn(stored, observation, STABLE).to_json())))

    assert copy == evidence
    assert stored == learned
    assert len(json.dumps(evidence.to_json())) < 10_000


counts = st.integers(0, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
cells = st.dictionaries(
    st.tuples(*map(st.sampled_from, ("pqr", ("beta", "everyone", "anonymous"), (STABLE, CANARY)))),
    counts,
    max_size=12,
)  # fmt: skip


def observed(drawn):
    return seen(*((*where, n, k, (min(n, k),) * len(EDGES_MS)) for where, (n, k) in drawn.items()))


@settings(max_examples=60, deadline=None)
@given(st.lists(cells, max_size=4))
def test_no_canary_requests_never_pass_and_nothing_crashes(known, drawn):
    evidence, silent = Evidence(), Evidence()
    for one in drawn:
        evidence = fold(evidence, known, observed(one), stage())
        baseline = {where: count for where, count in one.items() if where[2] == STABLE}
        silent = fold(silent, known, observed(baseline), stage())

    assert len(verdicts(evidence, known, stage())) == 6
    assert {v.outcome for v in verdicts(silent, known, stage())} == {Outcome.NOT_YET}


@settings(max_examples=60, deadline=None)
@given(cells, st.randoms())
def test_order_of_proxies_does_not_matter(known, drawn, random):
    observation = observed(drawn)
    shuffled = random.sample(observation.cells, len(observation.cells))

    turned = fold(Evidence(), known, replace(observation, cells=tuple(shuffled)), stage())

    assert turned == fold(Evidence(), known, observation, stage())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.integers(1, 100))
def test_more_failures_never_help(known, k, more):
    def after(errors):
        slower = (min(100, errors),) * len(EDGES_MS)
        observation = seen(
            ("p", "everyone", CANARY, 100, min(100, errors), slower), ("p", "everyone", STABLE, 900, 2, None)
        )
        return folded(known, observation, 3, stage()).accounts

    fewer, many = after(k), after(k + more)

    assert all(many[name].promotion <= fewer[name].promotion for name in many)


def test_a_burst_that_was_never_seen_before_tells_at_once_that_everything_fails():
    blank = [("p", "everyone", STABLE, 240, 1, None), ("q", "everyone", STABLE, 160, 1, None)]
    calm = Learned()
    for _ in range(300):
        calm = learn(calm, replace(seen(*blank), end=START + timedelta(seconds=5)), STABLE)
    broken = [("p", "everyone", CANARY, 12, 12, None), ("q", "everyone", CANARY, 9, 9, None)]
    at = stage(limits=Limits())

    alone = folded(calm, seen(*blank, *broken), 1, at)
    outage = [(p, s, v, n, n, None) for p, s, v, n, _, _ in blank]
    both = folded(calm, seen(*outage, *broken), 3, at)

    assert outcomes(alone, calm, at)["errors"] is Outcome.FAIL
    assert outcomes(both, calm, at)["errors"] is Outcome.NOT_YET


def test_bursts_that_do_the_harm_to_exclude_do_not_pass_for_long(known):
    good = seen(("p", "everyone", CANARY, 100, 0, None), ("p", "everyone", STABLE, 900, 2, None))
    burst = seen(("p", "everyone", CANARY, 100, 20, None), ("p", "everyone", STABLE, 900, 2, None))
    at = stage(limits=Limits(errors_margin=1.0), next_share=1.0)

    evidence = folded(known, burst, 1, at)
    for _ in range(12):
        evidence = fold(evidence, known, good, at)

    (account,) = evidence.accounts.values()
    assert account.promotion >= 3
    assert account.plain < 0
    assert outcomes(evidence, known, at)["errors"] is Outcome.NOT_YET


@pytest.mark.parametrize("begins", [-300, 0])
@pytest.mark.parametrize("broken", [{"errors": 0.1}, {"errors": 0.6}, {"slower": 4.0}])
def test_in_an_emergency_a_breach_by_both_versions_neither_fails_nor_holds(broken, begins):
    limits = Limits(success_rate=0.99, latency=((0.99, EDGES_MS.index(400)),))
    fault = Fault(**broken, both=True, begins=begins)

    usual = release(World(limits=limits, longest=120), fault, seed=7)
    end = release(World(limits=replace(limits, emergency=True)), fault, seed=7)

    assert usual.outcome == "undecided"
    assert end.outcome == "promoted", [v.reason for v in end.last]


def test_with_nobody_left_to_compare_an_emergency_is_held_to_what_the_baseline_showed():
    limits = Limits(errors_margin=None, success_rate=0.99, emergency=True)
    traffic = Traffic(World(limits=limits), Fault(errors=0.05, both=True, begins=-300), seed=3)
    known, at = past(traffic), replace(stage(), limits=limits, full_segments=frozenset({"everyone"}))
    alike, worse = Evidence(), Evidence()

    for _ in range(30):
        alike = fold(alike, known, traffic.step({"everyone": 1.0})[0], at)
    traffic.fault = Fault(errors=1.0, begins=-300)
    for _ in range(30):
        worse = fold(worse, known, traffic.step({"everyone": 1.0})[0], at)

    assert outcomes(alike, known, at)["success rate"] is Outcome.PASS
    assert outcomes(worse, known, at)["success rate"] is Outcome.FAIL


def test_in_an_emergency_a_canary_that_is_worse_still_fails():
    limits = Limits(success_rate=0.99, errors_margin=None, emergency=True)

    end = release(World(limits=limits), Fault(errors=0.1), seed=7)

    assert (end.outcome, end.verdict.metric) == ("rolled back", "success rate")


def beyond(requests, scale):
    """Return how many of the requests are past each edge when all is ``scale`` times as slow as usual."""
    chances = buckets(scale)
    return tuple(round(requests * sum(chances[edge + 1 :])) for edge in range(len(EDGES_MS)))


@pytest.mark.parametrize(("slower", "wanted"), [(1.0, Outcome.PASS), (1.2, Outcome.NOT_YET)])
def test_a_slow_canary_does_not_pass_as_fast_because_the_service_has_just_become_faster(
    known, slower, wanted
):
    now = 0.75
    observation = seen(
        ("p", "everyone", CANARY, 400, 0, beyond(400, now * slower)),
        ("p", "everyone", STABLE, 400, 0, beyond(400, now)),
    )
    at = stage(limits=Limits(latency_margin=0.1), next_share=1.0)

    evidence = folded(known, observation, 12, at)

    assert evidence.accounts["latency"].promotion >= 3  # as fast as the baseline was
    assert outcomes(evidence, known, at)["latency"] is wanted
