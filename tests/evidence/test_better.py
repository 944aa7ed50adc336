"""A/B tests: how often a metric is called better or worse that is not, and which differences are found."""

from datetime import timedelta

import numpy as np
import pytest
from world import CANARY, STABLE, START

from controlplane.evidence.account import Limits, Stage
from controlplane.evidence.better import ERROR_RATE, metric_tests, result
from controlplane.evidence.evidence import Evidence, fold
from controlplane.evidence.learned import Learned
from controlplane.evidence.observation import Cell, Measure, Observation, Tally
from controlplane.policy.pinned import PinnedMetric

MINUTE = timedelta(minutes=1)
ORDERS, REVENUE = (
    PinnedMetric(name="orders", better="more"),
    PinnedMetric(name="revenue", better="more", sum=True),
)
REFUNDS = PinnedMetric(name="orders", better="less")


def minute(number, canary, baseline, segment="everyone"):
    """One minute; a row is requests, orders, revenue."""
    cells, measures = [], []
    for version, (n, orders, revenue) in ((CANARY, canary), (STABLE, baseline)):
        cell = Cell("p", segment, version)
        cells.append((cell, Tally(n)))
        measures += [Measure(cell, "orders", orders), Measure(cell, "revenue", revenue)]
    begin = START + number * MINUTE
    return Observation("shop", begin, begin + MINUTE, tuple(cells), ("p",), measures=tuple(measures))


def drawn(seed, lift=0.0, share=0.5, count=240):
    """Minutes of a shop whose rate swings for both alike; amounts are skewed."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        shared, rows = float(np.exp(rng.normal(0, 0.2))), []
        for part, factor in ((share, 1 + lift), (1 - share, 1.0)):
            n = int(rng.poisson(600 * part))
            orders = int(rng.binomial(n, 0.05 * shared * factor))
            rows.append((n, orders, int(rng.lognormal(6.5, 1.0, orders).sum())))
        yield minute(number, *rows)


def shown(minutes, *metrics, decisive=None, counting=True, judged=None, **stage):
    known = metrics or (ORDERS, REVENUE)
    tests = metric_tests(known, {m.name for m in known} if decisive is None else decisive, 1)
    limits = Limits(errors_margin=None, tests=tuple(h for t in tests for h in (t.better, t.worse)))
    evidence = Evidence()
    for number, seen in enumerate(minutes, 1):
        at = number * MINUTE if judged is None else judged[number - 1] * MINUTE
        stage_at = Stage(CANARY, STABLE, limits, number * MINUTE, 1.0, counting, judged=at, **stage)
        evidence = fold(evidence, Learned(), seen, stage_at)
    return tuple(result(test, evidence) for test in tests)


@pytest.mark.parametrize(("share", "metrics"), [(0.5, (ORDERS, REVENUE)), (0.1, (REFUNDS, REVENUE))])
def test_two_versions_that_are_alike_are_told_apart_no_more_often_than_promised(share, metrics):
    runs = [shown(drawn(seed, share=share, count=120), *metrics) for seed in range(40)]

    for said in ("better", "worse"):
        assert sum(any(r.said == said for r in run) for run in runs) <= len(runs) * ERROR_RATE


def test_a_true_difference_is_found_in_its_direction():
    up = [shown(drawn(seed, lift=0.2)) for seed in range(10)]
    down = [shown(drawn(seed, lift=-0.2), REFUNDS) for seed in range(10)]

    assert sum(run[0].said == "better" for run in up) >= 9
    assert all(run[0].worse < 1 for run in up)
    assert sum(run[0].said == "better" for run in down) >= 9  # of refunds fewer are better
    assert up[0][0].change == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("lift", [0.0, 0.2])
def test_the_true_difference_is_within_its_bounds_whenever_one_looks(lift):
    missed, tests = {"low": 0, "high": 0}, metric_tests((ORDERS, REVENUE), {"orders"}, 1)
    limits = Limits(errors_margin=None, tests=tuple(h for t in tests for h in t.parts))
    widths = []
    for seed in range(6):
        evidence, wrong = Evidence(), set()
        for number, seen in enumerate(drawn(1000 + seed, lift=lift, count=120), 1):
            at = Stage(CANARY, STABLE, limits, number * MINUTE, 1.0, judged=number * MINUTE)
            evidence = fold(evidence, Learned(), seen, at)
            if number % 20:
                continue
            for found in (result(test, evidence) for test in tests):
                wrong |= {"low"} if found.low is not None and found.low > lift else set()
                wrong |= {"high"} if found.high is not None and found.high < lift else set()
                assert (found.said == "better") == (found.low is not None and found.low >= 0)
                assert (found.said == "worse") == (found.high is not None and found.high <= 0)
        for side in wrong:
            missed[side] += 1
        orders = result(tests[0], evidence)
        widths.append((orders.high or 0.5) - (orders.low or -0.5))

    assert max(missed.values()) <= 1  # of 6 with two metrics, promised are 5 % of each
    assert np.median(widths) <= 0.6


def test_metrics_that_decide_share_one_error_rate_and_what_is_observed_another():
    four = metric_tests([PinnedMetric(name=f"m{i}", better="more") for i in range(4)], {"m0", "m1", "m2"}, 1)

    assert [(t.decides, t.threshold) for t in four] == [(True, 60.0)] * 3 + [(False, 20.0)]


def test_one_who_buys_often_counts_as_one():
    runs = {}
    for per_user in (1, 10):
        (test,) = metric_tests([ORDERS], {"orders"}, per_user)
        halves = Limits(errors_margin=None, tests=test.parts)
        evidence = Evidence()
        for number, seen in enumerate(drawn(1, lift=0.2), 1):
            at = Stage(CANARY, STABLE, halves, number * MINUTE, 1.0, judged=number * MINUTE)
            evidence = fold(evidence, Learned(), seen, at)
        runs[per_user] = result(test, evidence)

    assert runs[10].canary == runs[1].canary
    assert 1 < runs[10].better < runs[1].better ** 0.2


def test_what_was_seen_before_the_test_or_does_not_count_is_not_of_it():
    minutes = list(drawn(3, lift=0.5, count=60))

    (late,) = shown(minutes, ORDERS, judged=[0] * 50 + [*range(10)])
    (none,) = shown(minutes, ORDERS, counting=False)

    assert late.canary_n == sum(
        tally.requests for m in minutes[50:] for c, tally in m.cells if c.version == CANARY
    )
    assert (none.canary_n, none.better, none.said, none.change) == (0, 1.0, "no difference seen", None)


def test_users_whom_no_hash_divides_are_not_of_the_test():
    staff = Cell("p", "staff", CANARY)
    minutes = [
        Observation(
            "shop", m.start, m.end, (*m.cells, (staff, Tally(500))), ("p",),
            measures=(*m.measures, Measure(staff, "orders", 400)),
        )
        for m in drawn(4, count=60)
    ]  # fmt: skip

    (found,) = shown(minutes, ORDERS, full_segments=frozenset({"staff"}))

    assert found.said == "no difference seen"
    assert found.canary == pytest.approx(0.05, abs=0.01)


def test_the_difference_weighs_segments_as_they_are_on_the_canary():
    alike = []
    for number in range(20):
        few = minute(number, (100, 10, 0), (900, 90, 0))  # one in ten buys, a tenth have the canary
        many = minute(number, (500, 5, 0), (500, 5, 0), segment="beta")  # one in a hundred, half
        alike.append(
            Observation("shop", few.start, few.end, (*few.cells, *many.cells), ("p",),
                        measures=(*few.measures, *many.measures))
        )  # fmt: skip

    (found,) = shown(alike, ORDERS)

    assert found.change == pytest.approx(0.0)
    assert found.said == "no difference seen"


def test_a_test_without_orders_shows_nothing():
    (found,) = shown([minute(n, (300, 0, 0), (300, 0, 0)) for n in range(30)], ORDERS)

    assert (found.said, found.change) == ("no difference seen", None)
