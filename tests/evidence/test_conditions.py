"""Conditions beside the default rule: volume, error rate, time still needed, segments without a baseline."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import CANARY, STABLE, START, folded

from controlplane.evidence import (
    Cell,
    Evidence,
    Limits,
    Observation,
    Outcome,
    Stage,
    Tally,
    fold,
    metrics,
    slowed,
    verdicts,
)
from controlplane.evidence.blocks import cut
from controlplane.evidence.edges import Beyond
from controlplane.evidence.slowed import Part
from controlplane.evidence.spoiled import Spoiled
from controlplane.policy.latency import EDGES_MS

ALL = Limits(
    client_errors_margin=0.5,
    latency_margin=0.1,
    latency=((0.99, EDGES_MS.index(400)), (0.5, EDGES_MS.index(100))),
    success_rate=0.99,
    error_rate=0.02,
    requests=500,
)


def stage(limits=ALL, **more):
    return Stage(CANARY, STABLE, limits, timedelta(seconds=90), 0.25, **more)


def seen(canary, baseline, segment="everyone", proxies=("p",), **more):
    """One second; a row is requests, errors, client errors, requests slower than any edge."""
    cells = []
    for proxy in proxies:
        for version, (n, k, c4, slow) in ((CANARY, canary), (STABLE, baseline)):
            cells.append((Cell(proxy, segment, version), Tally(n, k, c4, slower=(slow,) * len(EDGES_MS))))
    return Observation("shop", START, START + timedelta(seconds=1), tuple(cells), fresh=proxies, **more)


def by_metric(evidence, known, at):
    return {v.metric: v for v in verdicts(evidence, known, at)}


def test_a_volume_passes_at_its_number_and_says_how_long_that_takes(known):
    at, observation = stage(Limits(errors_margin=None, requests=500)), seen((10, 0, 0, 0), (100, 0, 0, 0))

    early = by_metric(folded(known, observation, 30, at), known, at)["requests"]
    enough = by_metric(folded(known, observation, 50, at), known, at)["requests"]

    assert (early.outcome, early.requests_needed) == (Outcome.NOT_YET, 200)
    assert 15 < early.seconds_needed < 60
    assert early.reason.startswith("300 of 500 canary requests judged in this step; about 200 more")
    assert enough.outcome is Outcome.PASS


def test_an_error_rate_is_the_success_rate_turned_round(known):
    at = stage(Limits(errors_margin=None, success_rate=0.98, error_rate=0.02))

    found = by_metric(folded(known, seen((100, 10, 0, 0), (900, 1, 0, 0)), 20, at), known, at)

    assert found["error rate"].outcome is Outcome.FAIL
    assert dict(found["error rate"].numbers) == pytest.approx(dict(found["success rate"].numbers))


def test_client_errors_of_the_canary_alone_fail_by_their_own_margin(known):
    at = stage(Limits(client_errors_margin=0.5))

    found = by_metric(folded(known, seen((100, 0, 30, 0), (900, 0, 0, 0)), 60, at), known, at)

    assert found["client errors"].outcome is Outcome.FAIL
    assert found["errors"].outcome is Outcome.PASS


@pytest.mark.parametrize("rows", [((100, 3, 12, 0), (900, 4, 20, 0)), ((100, 9, 0, 0), (900, 0, 0, 0))])
@pytest.mark.parametrize("whole", [frozenset(), frozenset({"everyone"})])
@pytest.mark.parametrize("margins", [(0.25, 0.5), (0.01, 0.02)])
def test_errors_of_two_kinds_are_judged_side_by_side_as_each_is_alone(known, rows, whole, margins):
    errors, client_errors = margins
    both, one, other = (
        stage(Limits(errors_margin=mine, client_errors_margin=clients), full_segments=whole)
        for mine, clients in ((errors, client_errors), (errors, None), (None, client_errors))
    )
    observation = seen(*rows, proxies=("p", "q"))

    found = folded(known, observation, 20, both).accounts

    assert found["errors"] == folded(known, observation, 20, one).accounts["errors"]
    assert found["client errors"] == folded(known, observation, 20, other).accounts["client errors"]


def test_every_metric_says_that_a_whole_segment_has_no_baseline_of_its_own(known):
    at = stage(full_segments=frozenset({"staff"}))
    observation = seen((50, 0, 0, 1), (0, 0, 0, 0), segment="staff")
    others = seen((0, 0, 0, 0), (500, 1, 1, 10))
    both = replace(observation, cells=tuple(sorted((*observation.cells, *others.cells), key=lambda c: c[0])))

    found = by_metric(folded(known, both, 20, at), known, at)

    silent = {name for name, v in found.items() if "staff has no baseline of its own" not in v.note}
    assert silent == {"requests"}
    assert "margin 100%" in found["latency"].note


@st.composite
def rows_of_counts(draw):
    n = draw(st.integers(0, 60))
    k = draw(st.integers(0, n))
    return n, k, draw(st.integers(0, n - k)), draw(st.integers(0, n))


ROW = rows_of_counts()


@given(canary=ROW, baseline=ROW, more=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_more_failures_never_raise_the_evidence_of_no_harm(known, canary, baseline, more):
    at = stage()
    n, k, c4, slow = canary
    worse = (n, min(n, k + more), min(n - min(n, k + more), c4), min(n, slow + more))

    good = folded(known, seen(canary, baseline), 3, at).accounts
    bad = folded(known, seen(worse, baseline), 3, at).accounts

    for name in ("errors", "success rate", "error rate", "latency p99", "latency p50", "latency tail"):
        assert bad[name].promotion <= good[name].promotion + 1e-9


@given(canary=ROW, baseline=ROW)
@settings(max_examples=40, deadline=None)
def test_without_canary_requests_nothing_passes_whatever_the_baseline_does(known, canary, baseline):
    del canary
    at = stage()

    found = verdicts(folded(known, seen((0, 0, 0, 0), baseline), 50, at), known, at)

    assert {v.outcome for v in found} == {Outcome.NOT_YET}


@given(rows=st.lists(st.tuples(ROW, ROW), min_size=2, max_size=6), cut=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_a_fold_in_two_halves_over_json_is_the_fold(known, rows, cut):
    at, observations = stage(), [seen(canary, baseline) for canary, baseline in rows]
    whole = Evidence()
    for observation in observations:
        whole = fold(whole, known, observation, at)

    half = Evidence()
    for number, observation in enumerate(observations):
        if number == cut:
            half = Evidence.from_json(half.to_json())
        half = fold(half, known, observation, at)

    assert half == whole


@given(rows=st.lists(st.tuples(ROW, ROW), min_size=2, max_size=4), seed=st.randoms())
@settings(max_examples=30, deadline=None)
def test_the_order_of_proxies_does_not_matter(known, rows, seed):
    at = stage()
    cells = [
        cell
        for number, (canary, baseline) in enumerate(rows)
        for cell in seen(canary, baseline, proxies=(f"p{number}",)).cells
    ]
    shuffled = list(cells)
    seed.shuffle(shuffled)
    first, second = (
        replace(seen((0, 0, 0, 0), (0, 0, 0, 0)), cells=tuple(order)) for order in (cells, shuffled)
    )

    assert fold(Evidence(), known, first, at) == fold(Evidence(), known, second, at)


def test_each_metric_has_a_name_of_its_own_also_at_a_step():
    limits = replace(ALL, step=("beta", ALL))

    names = [metric.name for metric in metrics(limits)]

    assert len(names) == len(set(names))
    assert "latency p50 at beta" in names


def test_a_step_above_its_limit_is_doubtful_also_while_the_last_half_minute_keeps_it(known):
    at = stage(Limits(errors_margin=None, error_rate=0.02))
    evidence, found = Evidence(), []
    for bad in (*(1, 0, 0, 0) * 10, *(0,) * 100):
        evidence = fold(evidence, known, seen((5, bad, 0, 0), (5, bad, 0, 0)), at)
        found.append(by_metric(evidence, known, at)["error rate"])

    above = [v for v in found if v.outcome is Outcome.NOT_YET and dict(v.numbers)["canary_rate"] > 0.02]
    assert {v.reason.split(":")[0] for v in above} == {
        "more failed than is allowed, not beyond doubt",
        "more failed than is allowed, too few requests to be sure",
    }
    assert all(v.doubtful for v in above)


def test_evidence_that_is_not_beyond_doubt_is_doubtful(known):
    at, doubts = stage(Limits(errors_margin=None, latency_margin=0.1), judged=timedelta(seconds=90)), set()
    evidence = Evidence()
    for _ in range(200):
        evidence = fold(evidence, known, seen((50, 0, 0, 12), (450, 0, 0, 45)), at)
        for verdict in by_metric(evidence, known, at).values():
            doubts.add((verdict.outcome, verdict.doubtful, 10 <= dict(verdict.numbers)["e_value"] < 1200))

    assert (Outcome.NOT_YET, True, True) in doubts
    assert not {(Outcome.NOT_YET, False, True), (Outcome.NOT_YET, True, False)} & doubts


def blocks(observation):
    at = stage()
    return cut(observation, at.canary, at.stable, at.full_segments)


def test_a_budget_of_which_nothing_was_seen_says_nothing(known):
    none = Spoiled().plus(known, blocks(seen((0, 0, 0, 0), (900, 18, 0, 0)))).verdict(9, known)
    some = Spoiled().plus(known, blocks(seen((1, 0, 0, 0), (900, 18, 0, 0)))).verdict(9, known)

    assert (none.outcome, none.lacking) == (Outcome.NOT_YET, True)
    assert (some.outcome, some.lacking) == (Outcome.PASS, False)


def test_what_is_spoiled_is_not_below_zero_and_grows_with_the_canarys_failures(known):
    good, bad = Spoiled(), Spoiled()
    for _ in range(50):
        good = good.plus(known, blocks(seen((100, 0, 0, 0), (900, 18, 0, 0))))
        bad = bad.plus(known, blocks(seen((100, 12, 0, 0), (900, 18, 0, 0))))

    assert good.requests(known) == 0
    assert 300 < bad.requests(known) < 510


def test_a_wider_margin_of_latency_asks_for_less_proof():
    def excluded(margin, *, tail, share=1.0):
        stage = Stage(canary="v2", stable="v1", limits=Limits(), elapsed=timedelta(0), next_share=share)
        beyond = Beyond.at(0.5 ** np.arange(1.0, len(EDGES_MS) + 1)[None])
        parts = (Part("latency", 0.0, 1.0, 0.01, tail),)
        return slowed.excluded(parts, (margin,), (stage,), beyond, np.array([[5]]))[0, 0, 0]

    assert excluded(0.1, tail=True) == 2.0  # as the table says for the last step
    assert excluded(0.5, tail=True) == 6.0
    assert excluded(0.5, tail=False) > excluded(0.1, tail=False) > 1.0
    assert excluded(0.5, tail=True, share=0.05) == 10.0  # a small step asks for little anyway
