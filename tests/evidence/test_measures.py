"""Business metrics, counters of clusters, and readings of other systems."""

from dataclasses import replace
from datetime import timedelta
from functools import reduce
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import CANARY, STABLE, START

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
    next_step,
    verdicts,
)
from controlplane.evidence.cluster_stats import AtMost, Retries
from controlplane.evidence.conversions import Conversions, LeastShare, MostShare
from controlplane.evidence.measures import Measured
from controlplane.evidence.observation import Measure, Reading, Stat
from controlplane.evidence.scalars import ScalarLimit, Scalars
from controlplane.evidence.sums import Sums

SOLD = Measured("metric sold", "sold")
MONEY = Measured("metric money", "money")
TEN = timedelta(seconds=10)
TRIED = Retries("retries", 0.02)


def limits(*metrics):
    return Limits(errors_margin=None, added=metrics)


def interval(canary=(0, 0, 0), baseline=(0, 0, 0), segment="everyone", **more):
    """Ten seconds; a row is requests, sold, money."""
    cells, measures = [], []
    for version, (n, sold, money) in ((CANARY, canary), (STABLE, baseline)):
        cell = Cell("p", segment, version)
        cells.append((cell, Tally(n)))
        measures += [Measure(cell, "sold", sold), Measure(cell, "money", money)]
    return Observation(
        "shop", START, START + TEN, tuple(cells), fresh=("p",), measures=tuple(measures), **more
    )


def judged(metric, intervals, **more):
    evidence = Evidence()
    for number, observation in enumerate(intervals):
        at = Stage(CANARY, STABLE, limits(metric), number * TEN, 0.25, **more)
        evidence = fold(evidence, Learned(), observation, at)
        [verdict] = verdicts(evidence, Learned(), at)
        if verdict.outcome is not Outcome.NOT_YET:
            break
    return number * 10, verdict


def shop(rng, canary=0.05, baseline=0.05, price=1000.0, canary_price=1000.0, n=400):
    """A release with half of the users; prices are skewed."""
    while True:
        drift = float(np.exp(rng.normal(0, 0.2)))
        rows = []
        for rate, mean in ((canary, canary_price), (baseline, price)):
            sold = int(rng.binomial(n, min(0.9, rate * drift)))
            rows.append((n, sold, int(rng.lognormal(np.log(mean) - 0.5, 1.0, sold).sum())))
        yield interval(rows[0], rows[1])


def drawn(seed, longest=360, **faults):
    source = shop(np.random.default_rng(seed), **faults)
    return [next(source) for _ in range(longest)]


def run(metric, seed, longest=360, **faults):
    return judged(metric, drawn(seed, longest, **faults))


def test_conversions_that_are_lost_fail_and_those_that_are_not_pass():
    metric = Conversions("metric sold", SOLD, 0.05, 100)

    good = [run(metric, seed)[1].outcome for seed in range(12)]
    bad = [run(metric, 100 + seed, canary=0.03) for seed in range(12)]

    assert good.count(Outcome.FAIL) == 0
    assert good.count(Outcome.PASS) >= 10
    assert {verdict.outcome for _, verdict in bad} == {Outcome.FAIL}
    assert max(seconds for seconds, _ in bad) <= 1200


@pytest.mark.parametrize("canary", [40, 1000, 1800])
def test_the_requests_still_needed_are_as_many_as_it_takes_beside_so_few_of_the_baseline(canary):
    """The fewer the baseline has, the less sure is what is usual: beside 10 % it takes nine times as many."""
    seen = interval((canary, canary // 20, 0), (2000 - canary, (2000 - canary) // 20, 0))
    metric = Conversions("metric sold", SOLD, 0.05, 100)

    took, passed = judged(metric, [seen] * 900)
    begun, early = judged(metric, [seen] * 6)

    assert (passed.outcome, early.outcome) == (Outcome.PASS, Outcome.NOT_YET)
    # Evenness that is seen meanwhile makes it less, down to a third.
    assert 0.3 <= (took - begun) / 10 * canary / early.requests_needed <= 1.2


@pytest.mark.parametrize("canary", [30, 130])
def test_the_time_still_needed_goes_by_the_windows_that_have_to_be_filled(canary):
    """Beside many of the baseline in a segment without the canary, and with more than a window may say."""
    metric = Conversions("metric sold", SOLD, 0.2, 100)
    whole = Observation("shop", START, START + TEN, (), fresh=("p",))
    parts = [
        interval((canary, canary // 3, 0), (canary, canary // 3, 0), "beta"),
        interval((0, 0, 0), (1700, 560, 0)),
    ]
    cells = tuple(cell for part in parts for cell in part.cells if cell[1].requests)
    measures = tuple(m for part in parts for m in part.measures if m.total)
    seen = replace(whole, cells=cells, measures=measures)

    took, passed = judged(metric, [seen] * 900)
    early = [judged(metric, [seen] * number) for number in (1, 2, 4)]

    assert passed.outcome is Outcome.PASS
    for begun, verdict in early:
        assert verdict.seconds_needed == pytest.approx(took - begun, abs=5), verdict.reason


def test_what_points_to_a_loss_is_told_as_that():
    metric = Conversions("metric sold", SOLD, 0.2, 100)
    _, lost = judged(metric, [interval((400, 20, 0), (400, 40, 0))] * 2)
    _, alike = judged(metric, [interval((400, 38, 0), (400, 40, 0))] * 2)

    assert lost.reason.startswith("fewer metric sold so far, too few to be sure: canary 40 of 800")
    assert "more like the baseline's are needed, " in lost.reason
    assert alike.reason.startswith("metric sold: too few to be sure: ")


def test_fewer_is_better_where_the_service_says_so():
    refunds = Conversions("metric refunds", Measured("metric refunds", "sold", more=False), 0.05, 100)

    assert run(refunds, 1, canary=0.1)[1].outcome is Outcome.FAIL
    assert run(refunds, 1, canary=0.03)[1].outcome is Outcome.PASS


def test_sums_are_judged_by_their_mean():
    metric = Sums("metric money", MONEY, 0.05)

    good = [run(metric, seed)[1].outcome for seed in range(12)]
    bad = [run(metric, 200 + seed, canary=0.015, longest=720)[1].outcome for seed in range(6)]

    assert good.count(Outcome.FAIL) == 0
    assert bad == [Outcome.FAIL] * 6


def takings(rng, minutes, lift=0.0, share=0.01, sigma=1.0):
    """Minutes of a shop where one request in a hundred is an order and a few of them make the day."""
    for _ in range(minutes):
        rows = []
        for part, factor in ((share, 1 + lift), (1 - share, 1.0)):
            n = int(rng.poisson(3000 * part))
            rows.append((n, 0, int(rng.lognormal(7.0, sigma, int(rng.binomial(n, 0.01 * factor))).sum())))
        yield replace(interval(*rows), end=START + timedelta(minutes=1))


def test_a_few_large_orders_of_the_others_are_no_loss():
    metric = Sums("metric money", MONEY, 0.05)

    good = [judged(metric, takings(np.random.default_rng(seed), 360))[1] for seed in range(24)]
    bad = [
        judged(metric, takings(np.random.default_rng(seed), 360, lift=-0.8, share=0.25))[1]
        for seed in range(4)
    ]

    assert [verdict.outcome for verdict in good].count(Outcome.FAIL) <= 1
    assert {verdict.outcome for verdict in bad} == {Outcome.FAIL}


def test_an_order_now_and_then_on_the_canary_is_no_loss():
    metric = Sums("metric money", MONEY, 0.05)

    good = [
        judged(metric, takings(np.random.default_rng(seed), 720, share=0.003, sigma=1.5))[1].outcome
        for seed in range(8)
    ]

    assert Outcome.FAIL not in good


def test_the_account_of_an_earlier_version_is_gone_on_with():
    metric = Sums("metric money", MONEY, 0.05)
    rng, evidence = np.random.default_rng(3), Evidence()
    for number, seen in enumerate(takings(rng, 240, lift=-0.8, share=0.25)):
        at = Stage(CANARY, STABLE, limits(metric), number * timedelta(minutes=1), 0.25)
        evidence = fold(evidence, Learned(), seen, at)
        account = evidence.accounts[metric.name]
        if number == 10:  # what was stored of it before
            state = dict(account.state) | {"scale": account.state["scale"][:5]}
            evidence = Evidence(evidence.minute, {metric.name: account._replace(state=state)})

    assert verdicts(evidence, Learned(), at)[0].outcome is Outcome.FAIL


def test_a_sum_that_is_not_sure_says_how_long_that_takes():
    early = judged(Sums("metric money", MONEY, 0.05), takings(np.random.default_rng(0), 9, share=0.25))[1]

    assert early.outcome is Outcome.NOT_YET
    assert early.seconds_needed is not None
    assert f"about {ceil(early.seconds_needed / 60)} more minutes" in early.reason


def steady(canary, minutes, n=100):
    """Five-second intervals with a tenth of the requests; ``canary`` of 100 buy, of the baseline 5 in 100."""
    seen = interval((n, canary, 40 * canary), (9 * n, 45 * n // 100, 40 * 45 * n // 100))
    return [replace(seen, end=START + timedelta(seconds=5))] * (12 * minutes)


def test_a_fault_that_begins_after_hours_is_found_nearly_as_soon_as_an_early_one():
    metric, rng = Conversions("m", SOLD, 0.05, 100), np.random.default_rng(5)
    noise = [replace(each, measures=tuple(replace(m, total=m.total * rng.lognormal(0, 0.3))
                                          for m in each.measures)) for each in steady(5, 120)]  # fmt: skip
    found = {}
    for good in (0, 120):
        evidence = Evidence()
        for number, seen in enumerate([*noise[: 12 * good], *steady(1, 60)]):
            # The clock of a release stands where the interval begins, so no minute ends with a window.
            at = Stage(CANARY, STABLE, limits(metric), number * timedelta(seconds=5), 0.25)
            evidence = fold(evidence, Learned(), seen, at)
            if number >= 12 * good and verdicts(evidence, Learned(), at)[0].outcome is Outcome.FAIL:
                found[good] = (number - 12 * good) * 5
                break

    assert found[0] <= 120
    assert found[120] <= 300  # 985 where minutes begin between windows only


@pytest.mark.parametrize("metric", [Conversions("m", SOLD, 0.05, 100), Sums("m", MONEY, 0.05)])
def test_only_intervals_of_the_step_that_count_are_a_proof(metric):
    rng = np.random.default_rng(2)
    seen = [interval((5000, 500, int(m)), (5000, 500, 20_000)) for m in rng.normal(20_000, 300, 90)]
    none = [interval((0, 0, 0), (5000, 500, 20_000))]
    at = [Stage(CANARY, STABLE, limits(metric), number * TEN, 0.25) for number in range(100)]

    def promotion(intervals, counting):
        evidence = Evidence()
        for number, (observation, counts) in enumerate(zip(intervals, counting, strict=True)):
            evidence = fold(evidence, Learned(), observation, replace(at[number], counting=counts))
        return evidence, evidence.accounts["m"].promotion

    _, uncounted = promotion([*seen[:71], *none], [False] * 71 + [True])
    before, proof = promotion(seen[:65], [True] * 65)
    passed = next_step(before)
    for number in range(65, 72):
        passed = fold(passed, Learned(), none[0], at[number])

    assert proof > 0
    assert uncounted <= 0
    assert passed.accounts["m"].promotion <= 0


def test_limits_of_metrics_hold_while_both_break_them_and_fail_when_the_canary_does():
    share = LeastShare("metric sold limit", SOLD, 0.04)
    mean = Sums("metric money limit", MONEY, None, 40.0)

    for metric in (share, mean):
        assert run(metric, 3, canary=0.01, longest=500)[1].outcome is Outcome.FAIL
        assert run(metric, 3, canary=0.01, baseline=0.01, longest=200)[1].outcome is Outcome.NOT_YET
    assert run(share, 3)[1].outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("limit", "more", "price", "outcome"),
    [
        (10.0, True, 600.0, Outcome.PASS),  # 30 per request; the baseline has 50
        (1000.0, False, 1400.0, Outcome.PASS),  # 70
        (33.0, True, 600.0, Outcome.NOT_YET),
        (45.0, False, 1000.0, Outcome.NOT_YET),  # as the baseline, so nothing fails
    ],
)
def test_a_limit_on_a_sum_is_kept_by_itself_whatever_the_baseline_has(limit, more, price, outcome):
    metric = Sums("money", replace(MONEY, more=more), None, limit)

    _, verdict = run(metric, 8, canary_price=price, longest=240)

    assert verdict.outcome is outcome
    if outcome is Outcome.NOT_YET:
        assert verdict.doubtful
        assert (verdict.reason.split(":")[0], verdict.seconds_needed) == (
            "money does not keep its limit, not beyond doubt",
            None,
        )


def test_a_sum_that_lies_below_what_is_to_be_excluded_promises_no_time():
    metric = Sums("money", MONEY, 0.1)

    _, verdict = run(metric, 8, canary_price=500.0, longest=90)

    assert (verdict.outcome, verdict.seconds_needed) == (Outcome.NOT_YET, None)
    assert "too little time to be sure:" in verdict.reason


def test_the_most_of_what_is_not_wanted_is_a_limit_too():
    refunds = MostShare("metric refunds limit", SOLD, 0.08)

    assert run(refunds, 5, canary=0.2)[1].outcome is Outcome.FAIL
    assert run(refunds, 5, canary=0.04)[1].outcome is Outcome.PASS


def per_order(canary, baseline, orders=10):
    """Ten seconds with so many calls for support, and orders, of each version."""
    rows = [(CANARY, canary), (STABLE, baseline)]
    cells = tuple((Cell("p", "everyone", version), Tally(1000)) for version, _ in rows)
    values = [Measure(cell, "sold", orders) for cell, _ in cells]
    values += [Measure(cell, "calls", n) for (cell, _), (_, n) in zip(cells, rows, strict=True)]
    return Observation("shop", START, START + TEN, cells, fresh=("p",), measures=tuple(sorted(values)))


@pytest.mark.parametrize(
    ("limit", "calls", "usual", "outcome", "words"),
    [
        (2.0, 30, 6, Outcome.FAIL, "canary 3 on average of"),
        (2.0, 15, 6, Outcome.PASS, "canary 1.5 on average of"),
        (0.8, 20, 6, Outcome.FAIL, "canary 2 on average of"),
        (2.0, 30, 30, Outcome.NOT_YET, "the baseline breaches the limit itself: canary 3 on"),
    ],
)
def test_of_another_metric_there_may_be_several_of_each(limit, calls, usual, outcome, words):
    metric = MostShare("metric calls limit", Measured("metric calls", "calls", "sold", more=False), limit)

    _, verdict = judged(metric, [per_order(calls, usual)] * 300)

    assert verdict.outcome is outcome
    assert words in verdict.reason
    assert f"allowed {limit:g}" in verdict.reason


def test_calls_without_an_order_in_the_same_interval_are_no_proof_of_few_calls():
    metric = MostShare("metric calls limit", Measured("metric calls", "calls", "sold", more=False), 2.0)

    evidence = fold(
        Evidence(), Learned(), per_order(20, 20, orders=0), Stage(CANARY, STABLE, limits(metric), TEN, 0.25)
    )

    assert evidence.accounts[metric.name].promotion < 0


def test_a_limit_that_is_nearly_all_requests_can_be_broken():
    metric = MostShare("metric sold limit", SOLD, 0.96)

    _, verdict = judged(metric, [interval((1000, 1000, 0), (1000, 200, 0))] * 100)

    assert verdict.outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("metric", "bad"),
    [
        (LeastShare("metric sold limit", SOLD, 0.04), (40, 0, 0)),
        (MostShare("metric sold limit", SOLD, 0.08), (40, 20, 0)),
    ],
)
def test_a_limit_that_only_one_segment_breaks_fails_and_names_it(metric, bad):
    usual, alike = (2000, 120, 0), (40, 2, 0)

    def mixed(canary, baseline):
        one, other = interval(usual, usual), interval(canary, baseline, "beta")
        return replace(one, cells=one.cells + other.cells, measures=one.measures + other.measures)

    def last(observation):
        at, evidence = Stage(CANARY, STABLE, limits(metric), TEN, 0.25), Evidence()
        for _ in range(200):
            evidence = fold(evidence, Learned(), observation, at)
        return verdicts(evidence, Learned(), at)[0]

    fault, both = last(mixed(bad, alike)), last(mixed(bad, bad))

    assert (fault.outcome, fault.segment) == (Outcome.FAIL, "beta")
    assert both.outcome is Outcome.PASS


@pytest.mark.parametrize("metric", [Conversions("m", SOLD, 0.05, 100), Sums("m", MONEY, 0.05)])
def test_a_metric_without_data_never_passes(metric):
    silent = [interval(baseline=(400, 20, 20_000))] * 60

    _, verdict = judged(metric, silent)

    assert verdict.outcome is Outcome.NOT_YET


def test_a_metric_is_divided_by_another_or_by_what_was_pushed():
    per = Measured("basket", "money", per="sold")
    pushed = Measured("survey", "stars", pushed=True)
    seen = interval((400, 20, 30_000), (400, 25, 25_000))
    survey = Observation(
        "shop", START, START + TEN, seen.cells,
        measures=(Measure(Cell("pushed", "everyone", CANARY), "stars", 40, 10),),
    )  # fmt: skip

    found = []
    for measured, observation in ((per, seen), (pushed, survey)):
        evidence = fold(Evidence(), Learned(), observation,
                        Stage(CANARY, STABLE, limits(Sums("m", measured, 0.05)), TEN, 0.5))  # fmt: skip
        found.append(evidence.accounts["m"].whole)

    assert found == [{"everyone": (20, 30_000, 25, 25_000)}, {"everyone": (10, 40, 0, 0)}]


@pytest.mark.parametrize(
    "kind",
    [
        lambda m: Conversions("m", m, 0.05, 100),
        lambda m: Sums("m", m, 0.05),
        lambda m: LeastShare("m", m, 0.04),
        lambda m: MostShare("m", m, 0.2),
    ],
)
def test_what_was_pushed_long_ago_passes_nothing(kind):
    measured = Measured("m", "sold", pushed=True, every=60.0)
    metric, rng = kind(measured), np.random.default_rng(1)

    def pushed(age=None):
        seen = interval()
        if age is not None and age > 180:
            return replace(
                seen, measures=(Measure(Cell("pushed", "everyone", CANARY), "sold", 0, 0, age=age),)
            )
        rows = tuple(
            Measure(Cell("pushed", "everyone", version), "sold", 50 + rng.integers(0, 5), 1000, age=age)
            for version in (CANARY, STABLE)
        )
        return replace(seen, measures=rows)

    evidence, said = Evidence(), []
    for observation in [*(pushed(0.0) for _ in range(400)), pushed(190.0), pushed(0.0), *[interval()] * 20]:
        at = Stage(CANARY, STABLE, limits(metric), TEN, 0.25)
        evidence = fold(evidence, Learned(), observation, at)
        said.append(verdicts(evidence, Learned(), at)[0])

    assert said[399].outcome is Outcome.PASS
    assert (said[400].outcome, said[400].lacking) == (Outcome.NOT_YET, True)
    assert said[401].outcome is Outcome.PASS
    assert said[401 + 18].outcome is Outcome.PASS
    assert "no value of the canary was pushed for" in said[401 + 19].reason


def test_a_whole_segment_borrows_the_baseline_of_the_rest():
    staff = Measure(Cell("p", "staff", CANARY), "sold", 3)
    seen = interval((0, 0, 0), (400, 20, 0))
    observation = Observation(
        "shop", START, START + TEN, (*seen.cells, (Cell("p", "staff", CANARY), Tally(50))),
        measures=(*seen.measures, staff),
    )  # fmt: skip
    at = Stage(
        CANARY, STABLE, limits(Conversions("m", SOLD, 0.05, 100)), TEN, 0.5,
        full_segments=frozenset({"staff"}),
    )  # fmt: skip

    evidence = fold(Evidence(), Learned(), observation, at)
    [verdict] = verdicts(evidence, Learned(), at)

    assert evidence.accounts["m"].whole["staff"] == (50, 3, 400, 20)
    assert verdict.note.startswith("segment staff has no baseline of its own")


# --- counters of clusters ---------------------------------------------------------------------------------


def counted(*stats, reporting=("p",), n=100):
    seen = interval((n, 0, 0), (900, 0, 0))
    return Observation(
        "shop", START, START + TEN, seen.cells, fresh=("p",), stats=tuple(stats), reporting=reporting
    )


def overflow(version, count):
    return Stat("p", version, "upstream_rq_pending_overflow", count)


def test_a_counter_fails_beyond_its_number_of_the_canary_alone():
    metric = AtMost("stat x", "upstream_rq_pending_overflow", 2)

    _, passed = judged(metric, [counted(overflow(CANARY, 2), overflow(STABLE, 5))])
    _, failed = judged(metric, [counted(), counted(overflow(CANARY, 3))][1:])

    assert (passed.outcome, failed.outcome) == (Outcome.PASS, Outcome.FAIL)
    assert failed.reason == "stat x: 3 on the canary since the release began, at most 2 allowed"


def test_a_counter_that_grows_as_much_on_the_baseline_holds():
    metric = AtMost("stat x", "upstream_rq_pending_overflow", 0)

    _, outage = judged(metric, [counted(overflow(CANARY, 12), overflow(STABLE, 95))] * 30)
    _, alone = judged(metric, [counted(overflow(CANARY, 60), overflow(STABLE, 95))])

    assert (outage.outcome, outage.lacking, alone.outcome) == (Outcome.NOT_YET, True, Outcome.FAIL)
    assert "the baseline's grew by" in outage.reason
    assert (
        judged(metric, [counted(overflow(CANARY, 1), overflow(STABLE, 1000))])[1].outcome is Outcome.NOT_YET
    )


def test_a_proxy_that_does_not_report_is_missing_data_and_named():
    for metric in (
        AtMost("ejections", "outlier_detection.ejections_enforced_total", 0),
        Retries("retries", 0.1),
    ):
        _, verdict = judged(metric, [counted(reporting=())] * 50)

        assert verdict.outcome is Outcome.NOT_YET
        assert "not reported by p, whose bootstrap is older" in verdict.reason


def test_retries_are_a_share_of_the_canarys_requests():
    _, good = judged(TRIED, [counted(Stat("p", CANARY, "upstream_rq_retry", 1))] * 60)
    _, bad = judged(TRIED, [counted(Stat("p", CANARY, "upstream_rq_retry", 12))] * 60)

    assert (good.outcome, bad.outcome) == (Outcome.PASS, Outcome.FAIL)


@pytest.mark.parametrize("segment", ["anonymous", "followed"])
def test_a_counter_of_a_cluster_is_beside_all_of_its_requests(segment):
    """One of a hundred is tried again, on both: most have no identity, or another release decided them."""
    compared = interval((10, 0, 0), (90, 0, 0)).cells
    others = ((Cell("p", segment, CANARY), Tally(450)), (Cell("p", segment, STABLE), Tally(450)))
    tried = (Stat("p", CANARY, "upstream_rq_retry", 5), Stat("p", STABLE, "upstream_rq_retry", 5))
    seen = Observation(
        "shop", START, START + TEN, (*others, *compared), fresh=("p",), stats=tried, reporting=("p",)
    )

    _, share = judged(Retries("retries", 0.05), [seen] * 60)
    _, number = judged(AtMost("stat x", "upstream_rq_retry", 0), [seen] * 30)

    assert (share.outcome, number.outcome) == (Outcome.PASS, Outcome.NOT_YET)
    assert "1.09 % of" in share.reason
    assert "the baseline's grew by" in number.reason


def test_retries_of_a_proxy_whose_requests_are_not_all_known_are_not_counted():
    known = counted(Stat("p", CANARY, "upstream_rq_retry", 1))
    half = (Cell("q", "everyone", CANARY), Tally(5))
    seen = replace(
        known,
        cells=tuple(sorted((*known.cells, half), key=lambda item: item[0])),
        stats=(*known.stats, Stat("q", CANARY, "upstream_rq_retry", 900)),
        reporting=("p", "q"),
        partial=(("q", "a gap"),),
    )

    evidence = fold(Evidence(), Learned(), seen, at := Stage(CANARY, STABLE, limits(TRIED), TEN, 0.25))
    [verdict] = verdicts(evidence, Learned(), at)

    assert evidence.accounts["retries"].whole == {"everyone": (100, 1, 900, 0)}
    assert verdict.outcome is Outcome.NOT_YET


# --- readings ---------------------------------------------------------------------------------------------


def read(canary, baseline=None, problem=""):
    return interval((10, 0, 0), (90, 0, 0), readings=(Reading("queue", canary, baseline, problem),))


QUIET = interval((10, 0, 0), (90, 0, 0))
TIMEOUT = read(None, None, "did not answer")
LIMIT = ScalarLimit("prometheus queue", "queue", 1000.0, most=True, every=10.0)


@pytest.mark.parametrize(
    ("intervals", "outcome", "words"),
    [
        ([read(10)] * 2, Outcome.PASS, "canary 10, at most 1000"),
        ([read(10)], Outcome.NOT_YET, "1 more reading within it is needed"),
        ([read(2000)] * 3, Outcome.FAIL, "3 readings in a row beyond at most 1000: canary 2000"),
        ([read(2000)] * 2, Outcome.NOT_YET, "canary 2000"),
        ([read(2000, 2100)] * 9, Outcome.NOT_YET, "canary 2000, baseline 2100"),
        ([read(2000, 900)] * 3, Outcome.FAIL, "canary 2000, baseline 900"),
        ([read(10), read(None, None, "503 from the server")], Outcome.NOT_YET, "503 from the server"),
        ([QUIET] * 9, Outcome.NOT_YET, "no reading yet"),
        ([read(10), *[QUIET] * 9], Outcome.NOT_YET, "the last reading is 90 s old"),
        ([read(2000)] * 2 + [TIMEOUT] * 2 + [read(2000)], Outcome.FAIL, "3 readings in a row"),
        ([read(2000)] * 2 + [TIMEOUT] * 360 + [read(2000)], Outcome.NOT_YET, "canary 2000"),
        ([read(10)] + [TIMEOUT] * 360 + [read(10)], Outcome.NOT_YET, "1 more reading within it is needed"),
        ([read(10)] + [QUIET] * 3 + [read(10)], Outcome.NOT_YET, "1 more reading within it is needed"),
    ],
)  # fmt: skip
def test_a_limit_on_readings(intervals, outcome, words):
    _, verdict = judged(LIMIT, intervals)

    assert (verdict.outcome, words in verdict.reason) == (outcome, True), verdict.reason


def test_readings_before_a_grace_are_in_no_row_with_those_after_it(known):
    """Two beyond the limit, a step begins, and after a grace in which all were good there is one more."""
    at = Stage("v2", "v1", limits(LIMIT), timedelta(0), 0.1)
    at = replace(at, limits=replace(at.limits, grace=((LIMIT.name, timedelta(minutes=1)),)))
    evidence = Evidence()

    def told(value, since):
        nonlocal evidence
        evidence = fold(evidence, known, read(value), replace(at, since=timedelta(seconds=since)))
        return verdicts(evidence, known, replace(at, since=timedelta(seconds=since + 10)))[0]

    before = [told(value, 100 + n) for n, value in enumerate((10, 5000, 5000))]
    within = [told(10, since) for since in range(0, 60, 10)]
    after = [told(5000, since) for since in (60, 70, 80)]

    assert dict(before[-1].numbers)["beyond"] == 2
    assert all("in grace" in one.reason for one in within[:-1])
    assert "the last reading is 60 s old" in within[-1].reason
    assert [dict(one.numbers)["beyond"] for one in after] == [1, 2, 3]
    assert [one.outcome for one in after] == [Outcome.NOT_YET, Outcome.NOT_YET, Outcome.FAIL]


@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize("value", [10.0, 0.0, -10.0])
def test_equal_readings_are_never_worse(value, more):
    metric = Scalars("prometheus queue", "queue", 0.1, more=more, every=10.0, apart=10.0)

    _, compared = judged(metric, [read(value, value)] * 40)
    _, limited = judged(replace(LIMIT, limit=-20.0), [read(value, value)] * 40)

    assert compared.outcome is Outcome.PASS
    assert (limited.outcome, limited.lacking) == (Outcome.NOT_YET, True)
    assert "the baseline is beyond it too" in limited.reason


def test_readings_that_overlap_are_one_bet():
    sliding = Scalars("prometheus queue", "queue", 0.1, more=False, every=10.0, apart=300.0)

    lost, verdict = judged(sliding, [read(200, 100)] * 500)
    _, young = judged(sliding, [read(100, 100)] * 200)
    late = [QUIET] * 30 + [interval((10, 0, 0), (90, 0, 0), readings=tuple(
        Reading("queue", 200, 100, age=300.0 - 10 * i) for i in range(31)))]  # fmt: skip
    at = Stage(CANARY, STABLE, limits(sliding), TEN, 0.25)
    evidence = Evidence()
    for observation in late:
        evidence = fold(evidence, Learned(), observation, at)

    assert (verdict.outcome, lost >= 11 * 290) == (Outcome.FAIL, True)
    assert "more readings that are 300 s apart" in young.reason
    assert evidence.accounts["prometheus queue"].processes["main"][0] == pytest.approx(
        2 * np.log(1.5), abs=0.4
    )


def test_a_reading_that_waited_to_be_stored_is_as_old_as_it_is():
    waited = interval((10, 0, 0), (90, 0, 0), readings=(Reading("queue", 10, age=90.0),))

    _, verdict = judged(LIMIT, [waited])

    assert "the last reading is 90 s old" in verdict.reason


def test_readings_of_both_versions_need_a_dozen_losses_in_a_row():
    metric = Scalars("prometheus queue", "queue", 0.1, more=False, every=10.0, apart=10.0)

    lost, bad = judged(metric, [read(200, 100)] * 40)
    _, good = judged(metric, [read(100, 100)] * 40)

    assert (bad.outcome, good.outcome) == (Outcome.FAIL, Outcome.PASS)
    assert lost >= 110


def test_of_few_events_most_readings_are_below_their_mean_and_that_is_no_fault():
    metric = Scalars("prometheus orders", "queue", 0.1, more=True, every=10.0, apart=10.0)

    def readings(seed, rate, canary=1.0):
        rng = np.random.default_rng(seed)
        return [
            read(float(rng.poisson(rate * canary)), float(rng.poisson(20 * rate)) / 20) for _ in range(240)
        ]

    good = [judged(metric, readings(seed, 0.6))[1].outcome for seed in range(30)]
    bad = [judged(metric, readings(seed, 15, canary=0.5)) for seed in range(10)]

    assert Outcome.FAIL not in good
    assert {verdict.outcome for _, verdict in bad} == {Outcome.FAIL}
    assert max(lost for lost, _ in bad) <= 250


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=2, max_size=12), st.integers(1, 11)
)
@settings(max_examples=30, deadline=None)
def test_folding_in_two_halves_is_folding_once(rows, cut):
    every = limits(
        Conversions("a", SOLD, 0.05, 100), Sums("b", MONEY, 0.05), LeastShare("c", SOLD, 0.04),
        AtMost("d", "upstream_rq_pending_overflow", 2), Retries("e", 0.1), LIMIT,
    )  # fmt: skip
    at = Stage(CANARY, STABLE, every, TEN, 0.25)
    whole = half = Evidence()
    for number, (sold, money) in enumerate(rows):
        observation = interval((200, sold, money), (200, money, sold), readings=(Reading("queue", sold),))
        whole = fold(whole, Learned(), observation, at)
        half = fold(Evidence.from_json(half.to_json()) if number == cut else half, Learned(), observation, at)

    assert half == whole
    assert next_step(half) == next_step(Evidence.from_json(whole.to_json()))


@pytest.mark.parametrize(
    "metric",
    [
        Conversions("m", SOLD, 0.05, 100),
        Sums("m", MONEY, 0.05),
        Conversions("m", replace(SOLD, pushed=True), 0.05, 100),
        Scalars("m", "queue", 0.1, more=False, every=10.0, apart=10.0),
    ],
)
def test_where_nobody_is_left_on_the_baseline_nothing_is_compared_with_it(metric):
    everyone = frozenset({"everyone"})
    both = [interval((400, 20, 900), (400, 20, 900), readings=(Reading("queue", 1, 1),))] * 9
    alone = [interval((800, 40, 1800), readings=(Reading("queue", 1),))] * 9

    _, before = judged(metric, both[:2])
    _, after = judged(metric, alone, full_segments=everyone)

    assert before.outcome is Outcome.NOT_YET
    assert (after.outcome, after.lacking) == (Outcome.PASS, False)
    assert after.reason == "m: nobody is left on the baseline, so it is not compared any more"


def test_what_spoke_against_the_canary_before_stands_where_nobody_is_left_on_the_baseline():
    metric = Conversions("m", SOLD, 0.05, 100)
    evidence, at = Evidence(), Stage(CANARY, STABLE, limits(metric), TEN, 0.25)
    while True:
        evidence = fold(evidence, Learned(), interval((400, 5, 0), (400, 20, 0)), at)
        [verdict] = verdicts(evidence, Learned(), at)
        if dict(verdict.numbers)["e_value"] >= 10:
            break
    alone = replace(at, full_segments=frozenset({"everyone"}))

    assert verdicts(evidence, Learned(), alone)[0].outcome in (Outcome.FAIL, Outcome.NOT_YET)


def test_the_narrower_the_margin_of_a_sum_the_more_proof_is_asked_for():
    seen = drawn(5, 80)

    def proof(margin):
        at = Stage(CANARY, STABLE, limits(Sums("m", MONEY, margin)), TEN, 0.25)
        evidence = reduce(lambda so_far, one: fold(so_far, Learned(), one, at), seen, Evidence())
        return evidence.accounts["m"].promotion

    proved = [proof(margin) for margin in (0.0, 0.01, 0.05, 0.1)]
    assert proved == sorted(proved)


@pytest.mark.parametrize(("money", "outcome"), [(60, Outcome.PASS), (8, Outcome.FAIL)])
def test_a_limit_on_a_sum_is_judged_alone_where_nobody_is_left_on_the_baseline(money, outcome):
    rng, metric = np.random.default_rng(8), Sums("m", MONEY, None, 40.0)
    seen = [interval((400, 0, int(400 * money * rng.lognormal(0, 0.2)))) for _ in range(700)]

    _, verdict = judged(metric, seen, full_segments=frozenset({"everyone"}))

    assert verdict.outcome is outcome
