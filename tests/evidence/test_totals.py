"""Values that are pushed by user, of users who come again: a user is the unit, whatever they add up to."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from bench.returning import CANARY, EVERY, STABLE, START, Shop
from controlplane.evidence import Evidence, Learned, Limits, Outcome, Stage, fold, totals, verdicts
from controlplane.evidence.account import EMPTY
from controlplane.evidence.measures import Measured
from controlplane.evidence.observation import Observation
from controlplane.evidence.sums import Sums

ALIKE = Shop("alike")
SPEND = Measured("metric spend", "spend", pushed=True, every=600.0)


@pytest.mark.parametrize(
    "shop",
    [replace(ALIKE, habit=2.0, amount=1.0), replace(ALIKE, summed=False, orders=1.0, share=0.2)],
)
def test_equal_versions_are_told_apart_no_more_often_than_promised_though_users_come_again(shop):
    shown = [shop.run(100, seed).said for seed in range(12)]

    assert sum(said != "no difference seen" for said in shown) <= 1  # 10 % in the mean, at most


@pytest.mark.parametrize(("lift", "said"), [(0.5, "better"), (-0.4, "worse")])
@pytest.mark.parametrize("summed", [True, False])
def test_a_true_difference_is_found_in_its_direction_and_lies_within_its_bounds(lift, said, summed):
    # Of users who order or not, less of it is left: more of them would have ordered anyway.
    shop = replace(ALIKE, lift=lift, orders=7.0 if summed else 0.3)
    shop = replace(shop, summed=summed, users=3000 if summed else 6000)
    found = [shop.run(60, seed) for seed in range(5)]

    assert sum(result.said == said for result in found) >= 4
    if summed:
        assert all(r.low is None or r.low <= lift for r in found)
        assert all(r.high is None or r.high >= lift for r in found)


def test_what_is_shown_is_of_users_and_what_each_came_to():
    found = replace(ALIKE, users=400, orders=50.0).run(20, 1)

    assert found.canary_n + found.baseline_n == 400
    assert found.canary == pytest.approx(50 * np.exp(0.5**2 / 2), rel=0.4)


def test_a_restart_of_the_server_forgets_users_and_makes_nothing_bolder():
    once = [ALIKE.run(40, seed) for seed in range(6)]
    often = [replace(ALIKE, restarts=3).run(40, seed) for seed in range(6)]

    assert all(result.said == "no difference seen" for result in often)
    assert max(max(r.better, r.worse) for r in often) <= 2 * max(max(r.better, r.worse) for r in once)
    assert often[0].canary_n > 2 * once[0].canary_n  # a user counts once in each part


def judged(shop, seed, count=100):
    """Return what a condition says of a canary: at once when it fails."""
    limits = Limits(errors_margin=None, added=(Sums("metric spend", SPEND, 0.05, by_user=True),))
    evidence = Evidence()
    for number, measures in enumerate(shop.pushes(np.random.default_rng(seed), count), 1):
        begin = START + number * EVERY
        seen = Observation("shop", begin, begin + EVERY, fresh=("p",), measures=measures)
        at = Stage(CANARY, STABLE, limits, number * EVERY, 1.0, since=number * EVERY)
        evidence = fold(Evidence.from_json(evidence.to_json()), Learned(), seen, at)
        (verdict,) = verdicts(evidence, Learned(), at)
        if verdict.outcome is Outcome.FAIL:
            return number
    return None


def test_a_condition_on_sums_is_not_failed_by_who_is_in_which_version():
    good = [judged(replace(ALIKE, habit=1.5), seed) for seed in range(8)]
    bad = [judged(replace(ALIKE, lift=-0.6), seed) for seed in range(4)]

    assert good == [None] * 8
    assert all(bad)


def test_too_few_users_tell_nothing():
    rows = {"users:a.1:everyone": (19.0, 0.0, 0.0, 5000.0, 5000.0, 10_000.0)}
    few = EMPTY._replace(state=rows)
    enough = EMPTY._replace(state={"users:a.1:everyone": (2000.0, 0.0, 0.0, 5000.0, 5000.0, 10_000.0)})

    assert totals.log_e(few, 1.0, more=False) == 0.0
    assert totals.log_e(enough, 1.0, more=False) > 20


def test_what_speaks_for_one_direction_speaks_against_the_other_however_strongly():
    said = []
    for canary in (1.0, 0.9, 0.5, 0.2, 0.01):
        row = (1e6, canary * 1e6, canary * 2e6, 1e6, 1e6, 2e6)
        account = EMPTY._replace(state={"users:a.1:everyone": row})
        said.append(totals.log_e(account, 1.0, more=True))

    assert all(log_e < 0 for log_e in said[1:])
    assert said[1:] == sorted(said[1:], reverse=True)


def test_users_of_several_segments_are_several_and_of_several_epochs_maybe_the_same():
    row = (1000.0, 1500.0, 5000.0, 1000.0, 1000.0, 5000.0)
    one = EMPTY._replace(state={"users:a.1:x": row})
    segments = EMPTY._replace(state={"users:a.1:x": row, "users:a.1:y": row})
    epochs = EMPTY._replace(state={"users:a.1:x": row, "users:b.1:x": row})

    alone = totals.log_e(one, 1.0, more=True)
    assert totals.log_e(segments, 1.0, more=True) > alone + 0.5
    assert totals.log_e(epochs, 1.0, more=True) == pytest.approx(alone)


def test_what_is_divided_by_another_metric_is_not_told_by_user():
    (measures,) = Shop("one", users=50).pushes(np.random.default_rng(0), 1)
    seen = Observation("shop", START, START + timedelta(minutes=1), measures=measures)
    limits = Limits(
        errors_margin=None, tests=(totals.Totals("own", SPEND), totals.Totals("per", replace(SPEND, per="n")))
    )
    evidence = fold(Evidence(), Learned(), seen, Stage(CANARY, STABLE, limits, timedelta(0), 1.0))

    assert totals.known(evidence.accounts["own"])
    assert not totals.known(evidence.accounts["per"])
