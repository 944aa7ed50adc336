"""Services that answer nearly everything within the first edge: slowness is found, good releases pass."""

from dataclasses import replace
from datetime import timedelta
from math import exp

import numpy as np
import pytest
from world import CANARY, STABLE, START, folded

from controlplane.evidence import Cell, Learned, Limits, Observation, Stage, Tally, fold, verdicts
from controlplane.evidence.account import Interval
from controlplane.evidence.blocks import cut
from controlplane.evidence.learned import learn
from controlplane.evidence.scarce import RAREST, gains
from controlplane.evidence.verdict import Outcome
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.loading import load
from controlplane.policy.pinning import pin
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import release
from controlplane.simulation.pauses import Pauses
from controlplane.simulation.traffic import Model

LIMITS = Limits(errors_margin=None, latency_margin=0.1)
LADDER = b"""
kind: Policy
name: ladder
steps:
  - {name: ten, everyone: 10%, for: 30s}
  - {name: half, everyone: 50%, for: 30s}
  - {name: all, everyone: 100%}
conditions: []
guard: {for: 30s, hold_back: 2%}
"""
FAST = Model(rps=200, noise="iid", history=300, longest=1800, latency=0.1)


def past(edge):
    """Return how many requests are past each edge when all are past ``edge`` and none past the next."""
    return lambda n: tuple(n * (at <= edge) for at in range(len(EDGES_MS)))


def none(_):
    return (0,) * len(EDGES_MS)


def seen(canary, baseline, slow=none, usual=none, seconds=5.0):
    cells = (
        (Cell("p", "everyone", STABLE), Tally(baseline, 0, slower=usual(baseline))),
        (Cell("p", "everyone", CANARY), Tally(canary, 0, slower=slow(canary))),
    )
    end = START + timedelta(seconds=seconds)
    return Observation("shop", START, end, tuple(sorted(cells, key=lambda c: c[0])), fresh=("p",))


@pytest.fixture(scope="module")
def known() -> Learned:
    learned = Learned()
    for _ in range(100):
        learned = learn(learned, seen(0, 1000), STABLE)
    return learned


def stage(elapsed=90.0, next_share=1.0):
    return Stage(CANARY, STABLE, LIMITS, timedelta(seconds=elapsed), next_share)


def read(known, observation, times, at, metric="latency tail"):
    evidence = folded(known, observation, times, at)
    verdict = next(v for v in verdicts(evidence, known, at) if v.metric == metric)
    return verdict, dict(verdict.numbers)["e_value"]


@pytest.mark.parametrize("share", [50, 5])
def test_a_canary_that_takes_long_for_everything_fails_within_a_minute(known, share):
    slow = seen(share, 1000 - share, past(EDGES_MS.index(150)))

    verdict, _ = read(known, slow, 12, stage())

    assert verdict.outcome is Outcome.FAIL
    assert "slower than 5 ms were 100 %" in verdict.reason


def test_one_pause_is_no_fault_however_many_requests_wait(known):
    evidence = folded(known, seen(500, 500, past(10)), 3, stage())
    for _ in range(10):
        evidence = fold(evidence, known, seen(500, 500), stage())

    tail = next(v for v in verdicts(evidence, known, stage()) if v.metric == "latency tail")

    assert dict(tail.numbers)["e_value"] < 1
    assert read(known, seen(500, 500, past(10)), 1, stage())[1] < 10


def test_a_pause_is_no_fault_while_more_of_the_baseline_than_usual_are_slow_too():
    learned = Learned()
    for _ in range(100):
        learned = learn(learned, seen(0, 1000, usual=lambda n: past(10)(n // 1000)), STABLE)
    slow = {774: 78, 8814: 171}
    rough = lambda n: past(10)(slow[n])  # noqa: E731

    tail, e_value = read(learned, seen(774, 8814, rough, rough), 1, stage())

    assert tail.outcome is Outcome.NOT_YET
    assert e_value < 10


def test_while_it_warms_up_a_canary_may_be_three_times_as_slow(known):
    some, far = seen(50, 950, past(EDGES_MS.index(10))), seen(50, 950, past(EDGES_MS.index(25)))

    assert read(known, some, 12, stage(elapsed=30))[1] <= 1
    assert read(known, far, 12, stage(elapsed=30))[0].outcome is Outcome.FAIL
    assert read(known, some, 12, stage(elapsed=90))[0].outcome is Outcome.FAIL


def test_where_the_edges_show_a_body_and_no_tail_the_tail_is_looked_at_past_the_body():
    half = lambda n: (n // 2, *none(n)[1:])  # noqa: E731
    few = lambda n: (n // 2, *past(12)(n // 10)[1:])  # noqa: E731
    learned = Learned()
    for _ in range(100):
        learned = learn(learned, seen(0, 1000, usual=half), STABLE)

    good, bad = (seen(100, 900, slow, half) for slow in (half, few))

    assert read(learned, good, 40, stage())[0].outcome is Outcome.PASS
    verdict, _ = read(learned, bad, 12, stage())
    assert verdict.outcome is Outcome.FAIL
    assert "slower than 10 ms were 10 % of" in verdict.reason


def test_a_few_that_take_long_are_found_where_the_edges_lie_far_apart_and_much_is_tolerated():
    """A tenth slower is past 50 ms many times as often, here, and past 750 ms never."""
    usual = lambda n: (n, n // 2, n // 5, *none(n)[3:])  # noqa: E731
    few = lambda n: (n, n // 2, n // 5, *past(EDGES_MS.index(750))(n // 30)[3:])  # noqa: E731
    learned = Learned()
    for _ in range(100):
        learned = learn(learned, seen(0, 1000, usual=usual), STABLE)
    at = replace(stage(), limits=replace(LIMITS, latency_margin=0.25))

    good, bad = (seen(65, 65, slow, usual) for slow in (usual, few))

    assert read(learned, good, 40, at)[0].outcome is Outcome.PASS
    verdict, _ = read(learned, bad, 40, at)
    assert verdict.outcome is Outcome.FAIL
    assert "slower than 50 ms were 3.08 % of" in verdict.reason


def ready(known, n, k):
    slow = lambda _: past(10)(k)  # noqa: E731
    observation = seen(n, n, slow, seconds=15.0)
    at = stage()
    blocks = cut(observation, CANARY, STABLE, frozenset())
    return Interval(blocks, known, at, 15.0, 0, True, observation)


@pytest.mark.parametrize("requests", [20, 400, 3000, 20_000])
def test_a_canary_that_is_as_slow_as_is_taken_for_the_baseline_gains_nothing_whatever_its_pauses(
    known, requests
):
    """For any law of the number of slow requests with that mean: the best of those on two numbers."""
    mean = RAREST * requests
    sizes = sorted({*range(60), *np.geomspace(60, requests, 200).astype(int).tolist()} & {*range(requests)})
    found = []
    for k in sizes:
        interval = ready(known, requests, k)
        found.append([exp(gain) for gain in gains(interval, 1.1, 1.1)["5"]])
    values, at = np.array(found), np.array(sizes, dtype=float)

    below, above = np.flatnonzero(at <= mean), np.flatnonzero(at > mean)
    for low in below:
        chance = (mean - at[low]) / (at[above] - at[low])
        expected = values[low] * (1 - chance[:, None]) + values[above] * chance[:, None]
        assert (expected <= 1 + 1e-3).all(), (at[low], expected.max())


@pytest.fixture(scope="module")
def ladder():
    loaded = load({"ladder.yaml": LADDER})
    assert not loaded.errors
    return pin(loaded.catalog.policies()[0], loaded.catalog)


@pytest.mark.parametrize("fault", ["latency=x501", "latency=x501@3m", "tail=x3.3+latency=x450"])
def test_a_release_that_makes_a_fast_service_slow_is_rolled_back(ladder, fault):
    wrong = tuple(Fault.parse(part) for part in fault.split("+"))

    ended = release(ladder, FAST, wrong, seed=11)

    assert (ended.outcome, ended.metric) == ("rolled back", "latency tail/everyone")
    assert ended.seconds - wrong[0].begins <= 90


@pytest.mark.parametrize("pauses", [Pauses(), Pauses(0.001, 50)])
def test_a_good_release_of_a_fast_service_is_promoted_in_the_time_of_others(ladder, pauses):
    usual = release(ladder, replace(FAST, latency=40.0), (), seed=12)
    ended = release(ladder, replace(FAST, pauses=pauses), (), seed=12)

    assert (usual.outcome, ended.outcome) == ("promoted", "promoted")
    assert ended.seconds <= usual.seconds + 300


def test_requests_that_are_said_to_lack_are_those_that_a_pass_takes(known):
    at, some = stage(), seen(500, 500)
    said = read(known, some, 2, at)[0].requests_needed

    took = next(n for n in range(3, 100) if read(known, some, n, at)[0].outcome is Outcome.PASS)

    assert 0.7 * said <= (took - 2) * 500 <= 1.3 * said + 500
