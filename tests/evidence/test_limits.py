"""What a limit says of a step above it and of a baseline that breaks it; where evidence begins anew."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import CANARY, STABLE, START

from controlplane.evidence import Cell, Evidence, Limits, Observation, Stage, Tally, fold, verdicts
from controlplane.evidence.account import EMPTY
from controlplane.evidence.ceiling import Ceiling
from controlplane.evidence.cluster_stats import Retries
from controlplane.evidence.conversions import LeastShare, MostShare
from controlplane.evidence.evidence import metrics
from controlplane.evidence.learned import Learned
from controlplane.evidence.measures import Measured
from controlplane.evidence.observation import Measure, Stat
from controlplane.evidence.reading import Reading
from controlplane.evidence.verdict import Outcome

SOLD = Measured("metric sold", "sold")
RATE = Limits(errors_margin=None, success_rate=0.99)


def seen(canary, baseline, seconds=5.0):
    """A row is requests, and how many of them fail, are sold and are tried again."""
    rows = ((CANARY, canary), (STABLE, baseline))
    cells = tuple((Cell("p", "everyone", version), Tally(n, k)) for version, (n, k) in rows)
    measures = tuple(Measure(Cell("p", "everyone", version), "sold", k) for version, (_, k) in rows)
    stats = tuple(Stat("p", version, "upstream_rq_retry", k) for version, (_, k) in rows)
    end = START + timedelta(seconds=seconds)
    return Observation("shop", START, end, cells, ("p",), measures=measures, stats=stats, reporting=("p",))


def read(limits, intervals, learned, begun=0.0):
    evidence, found = Evidence(), []
    for number, observation in enumerate(intervals):
        at = Stage(CANARY, STABLE, limits, timedelta(seconds=begun + 5 * number), 1.0)
        evidence = fold(evidence, learned, observation, at)
        found += verdicts(evidence, learned, at)
    return found


def test_a_step_that_breaks_its_limit_does_not_pass_by_one_good_half_minute(known):
    usual, good = seen((2000, 25), (2000, 19)), seen((2000, 15), (2000, 19))

    *_, last = read(RATE, [usual] * 100 + [good] * 40, known)

    assert last.outcome is Outcome.NOT_YET
    assert last.reason.startswith(
        "more failed than is allowed, not beyond doubt worse than the baseline: 1.11 %"
    )


def test_an_outage_of_both_holds_a_limit_no_longer_than_it_lasts(known):
    outage, good = seen((200, 40), (1800, 350)), seen((200, 1), (1800, 9))

    *_, last = read(RATE, [good] * 10 + [outage] * 18 + [good] * 60, known)

    assert last.outcome is Outcome.PASS
    assert last.reason.startswith("the limit is kept again, after both versions broke it: ")


def test_of_a_step_that_is_above_its_limit_by_chance_it_is_said_what_is_excluded(known):
    near, good = seen((500, 6), (500, 4)), seen((500, 4), (500, 4))

    passed = [v for v in read(RATE, [near] * 10 + [good] * 8, known) if v.outcome is Outcome.PASS]
    *_, kept = read(RATE, [good] * 40, known)

    assert passed[0].reason.startswith(
        "more failed than is allowed, within what chance explains, and 1.75 % is excluded: 1."
    )
    assert kept.reason.startswith("the limit is kept: 0.8 %")


@pytest.mark.parametrize("sold", [0, 1])
def test_a_baseline_of_few_requests_does_not_miss_a_limit_by_chance(known, sold):
    limits = Limits(errors_margin=None, added=(LeastShare("least", SOLD, 0.02),))

    *_, verdict = read(limits, [seen((1000, 30), (10, 0))] * 8 + [seen((1000, 30), (10, sold))] * 60, known)

    assert (verdict.outcome, verdict.lacking) == (Outcome.PASS, False)


def test_a_baseline_that_misses_a_limit_beyond_chance_holds(known):
    limits = Limits(errors_margin=None, added=(LeastShare("least", SOLD, 0.02),))

    *_, verdict = read(limits, [seen((1000, 30), (1000, 5))] * 60, known)

    assert (verdict.outcome, verdict.lacking) == (Outcome.NOT_YET, True)
    assert verdict.reason.startswith("the baseline misses the limit itself")
    assert verdict.baseline == "the baseline misses the limit itself: 0.5 % of late, at least 2 % wanted"


@pytest.mark.parametrize("metric", [MostShare("most", SOLD, 0.02), Retries("retries", 0.02)])
def test_a_baseline_that_breaks_a_limit_itself_holds_also_where_nothing_is_learned_of_it(known, metric):
    limits = Limits(errors_margin=None, added=(metric,))

    *_, broken = read(limits, [seen((1000, 10), (1000, 60))] * 60, known)
    *_, chance = read(limits, [seen((1000, 10), (20, 1))] * 60, known)

    assert (broken.outcome, broken.lacking) == (Outcome.NOT_YET, True)
    assert broken.reason.startswith("the baseline breaches the limit itself")
    assert broken.baseline.startswith("the baseline breaches the limit itself: 6 % ")
    assert broken.baseline.endswith(" of late, allowed 2 %")
    assert chance.outcome is Outcome.PASS


@pytest.mark.parametrize("begun", [0.0, 36_000.0])
def test_a_late_fault_is_found_as_soon_in_evidence_that_began_anew_as_in_that_of_a_new_release(known, begun):
    good, bad = seen((100, 0), (900, 4)), seen((100, 4), (900, 4))

    found = read(Limits(), [good] * 240 + [bad] * 60, known, begun)

    failed = [number for number, verdict in enumerate(found) if verdict.outcome is Outcome.FAIL]
    anew = read(Limits(), [good] * 240 + [bad] * 60, known, 0.0)
    assert failed
    assert failed[0] == next(n for n, verdict in enumerate(anew) if verdict.outcome is Outcome.FAIL)


def test_evidence_of_an_older_store_counts_its_minutes_from_the_release(known):
    stage = Stage(CANARY, STABLE, Limits(), timedelta(minutes=30), 1.0)
    kept = fold(Evidence(), known, seen((100, 0), (900, 4)), stage).to_json()

    older = Evidence.from_json({name: value for name, value in kept.items() if name != "begun"})

    assert Evidence.from_json(kept).begun == 30
    assert older.begun == 0
    assert fold(older, known, seen((100, 0), (900, 4)), stage).minute == 30


@pytest.mark.parametrize("full", [frozenset[str](), frozenset({"beta"})])
def test_limits_that_are_asked_together_add_what_each_adds_alone(known, full):
    limits = Limits(errors_margin=None, success_rate=0.99, error_rate=0.03, latency=((0.99, 11), (0.5, 4)))
    slower = tuple(range(90, 0, -5))
    cells = tuple(
        (Cell("p", segment, version), Tally(n, k, 0, 0, slower))
        for segment, rows in {"beta": ((40, 3), (0, 0)), "everyone": ((100, 2), (900, 5))}.items()
        for version, (n, k) in zip((CANARY, STABLE), rows, strict=True)
        if n
    )
    seen = Observation("shop", START, START + timedelta(seconds=5), cells, ("p",))
    stage = Stage(CANARY, STABLE, limits, timedelta(0), 1.0, full_segments=full)

    together = fold(Evidence(), known, seen, stage).accounts

    assert [len(metric.beside) for metric in metrics(limits)] == [4, 4, 4, 4]
    for metric in metrics(limits):
        assert any(any(process) for process in together[metric.name].processes.values())
        alone = Limits(errors_margin=None, added=(replace(metric, beside=()),))
        assert fold(Evidence(), known, seen, replace(stage, limits=alone)).accounts == {
            metric.name: together[metric.name]
        }


processes = st.lists(st.floats(-40, 40), min_size=8, max_size=8).map(tuple)


@given(st.dictionaries(st.sampled_from(["breach", "segment:a", "segment:b"]), processes))
def test_where_no_process_says_anything_of_a_fault_their_mean_does_not_either(found):
    account = EMPTY._replace(processes=found)
    limit = Ceiling("rate", 1, 0.01, 100.0, "failed")

    verdict = limit.verdict(account, Learned(), Stage(CANARY, STABLE, Limits(), timedelta(0), 1.0))

    assert verdict.e_value is not None
    assert verdict.e_value <= 1 or not verdict.quiet
    assert (verdict.outcome is Outcome.FAIL) == (verdict.e_value >= 100)


def test_evidence_is_not_worked_out_where_no_process_says_anything_of_a_fault():
    asked = []
    quiet = EMPTY._replace(processes={"a": (-1.0, 0.0), "b": (-3.0, -2.0)})
    loud = quiet._replace(processes={"a": (-1.0, 1.0)})
    evidence = lambda: asked.append("evidence") or 0.5  # noqa: E731

    found = [Reading(account, evidence, 100.0, {}) for account in (quiet, loud)]

    assert [(reading.quiet, reading.doubted, reading.failed) for reading in found] == [
        (True, False, False),
        (False, False, False),
    ]
    assert asked == ["evidence"]
