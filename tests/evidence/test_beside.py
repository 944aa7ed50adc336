"""Intervals of several releases are worked out in tables for all; of each comes what it comes to alone."""

import gc
import weakref
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from world import CANARY, STABLE, START

from controlplane.evidence import (
    Cell,
    Evidence,
    Learned,
    Limits,
    Observation,
    Stage,
    Tally,
    comparison,
    learn,
)
from controlplane.evidence.compared import compared
from controlplane.evidence.evidence import folded, ready, work_out
from controlplane.policy.latency import EDGES_MS

FULL = (frozenset(), frozenset({"beta"}), frozenset({"beta", "everyone"}))
LIMITS = (
    Limits(client_errors_margin=0.5, latency_margin=0.1, latency=((0.99, 10),), success_rate=0.99),
    Limits(client_errors_margin=0.5, latency_margin=0.1, latency=((0.99, 10),), success_rate=0.99, harm=0.01),
    Limits(
        errors_margin=0.001,
        latency_margin=0.5,
        success_rate=0.98,
        step=("s", Limits(errors_margin=0.4, latency_margin=0.2, success_rate=0.9)),
    ),
    Limits(emergency=True, latency_margin=0.1, error_rate=0.02),
    Limits(),
)


@st.composite
def tallies(draw):
    n = draw(st.integers(1, 4000))
    falling = sorted(draw(st.lists(st.integers(0, n), min_size=len(EDGES_MS), max_size=len(EDGES_MS))))
    failed = draw(st.integers(0, min(n, draw(st.sampled_from((0, 3, 100, 4000))))))
    return Tally(n, failed, draw(st.integers(0, n - failed)), slower=tuple(reversed(falling)))


@st.composite
def observations(draw):
    places = [
        Cell(proxy, segment, version)
        for proxy in draw(st.sampled_from(((), ("p",), ("p", "q"), tuple("abcdefghijkl"))))
        for segment in draw(st.sampled_from((("everyone",), ("beta", "everyone"))))
        for version in (STABLE, CANARY)
    ]
    cells = [(cell, draw(tallies())) for cell in places if draw(st.booleans()) or len(places) < 3]
    seconds = draw(st.sampled_from((1, 5, 30)))
    silent = draw(st.sampled_from(((), ("z",))))
    return Observation("shop", START, START + timedelta(seconds=seconds), tuple(sorted(cells)), silent=silent)


@st.composite
def intervals(draw):
    learned = Learned()
    for observation in draw(st.lists(observations(), max_size=2)):
        for _ in range(draw(st.sampled_from((1, 20)))):
            learned = learn(learned, observation, STABLE)
    at = Stage(
        CANARY, STABLE, draw(st.sampled_from(LIMITS)), timedelta(seconds=draw(st.sampled_from((5, 600)))),
        draw(st.sampled_from((0.02, 0.3, 1.0))), draw(st.booleans()), draw(st.sampled_from(FULL)),
    )  # fmt: skip
    return Evidence(), learned, draw(observations()), at


def come_to(interval):
    return folded(Evidence(), interval).to_json()


@settings(max_examples=80, deadline=None)
@given(st.lists(intervals(), min_size=2, max_size=5))
@example([(Evidence(), Learned(), Observation("shop", START, START + timedelta(seconds=5)), Stage(
    CANARY, STABLE, LIMITS[0], timedelta(seconds=90), 0.25
))] * 2)  # fmt: skip
def test_what_comes_of_an_interval_is_the_same_to_the_last_bit_beside_others(drawn):
    alone = [come_to(ready(*each)) for each in drawn]

    beside = [ready(*each) for each in drawn]
    work_out(beside)

    assert [come_to(interval) for interval in beside] == alone


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("ahead", [True, False])
def test_an_interval_is_let_go_of_as_soon_as_it_is_folded(ahead, count):
    """Not when Python looks for cyclic garbage, which the server lets it do seldom."""
    cells = tuple((Cell("p", "everyone", version), Tally(500, 3)) for version in (STABLE, CANARY))
    seen = Observation("shop", START, START + timedelta(seconds=5), cells)
    at = Stage(CANARY, STABLE, LIMITS[0], timedelta(seconds=90), 0.25)
    gc.collect()
    gc.disable()
    try:
        all_of = [ready(Evidence(), Learned(), seen, at) for _ in range(count)]
        if ahead:
            work_out(all_of)
        for interval in all_of:
            come_to(interval)
        left = [weakref.ref(interval) for interval in all_of]
        del interval, all_of

        assert [each() for each in left] == [None] * count
    finally:
        gc.enable()


@pytest.mark.parametrize("limits", LIMITS)
def test_what_metrics_ask_is_worked_out_before_they_fold(limits):
    """Else it would be worked out for one interval after the other, which takes several times as long."""
    cells = tuple(
        (Cell(proxy, "everyone", version), Tally(n, 3, 5, slower=(9,) * len(EDGES_MS)))
        for proxy in "pq"
        for version, n in ((STABLE, 900), (CANARY, 100))
    )
    seen = Observation("shop", START, START + timedelta(seconds=5), cells)
    at = Stage(CANARY, STABLE, limits, timedelta(seconds=90), 0.25)
    both = [ready(Evidence(), Learned(), seen, at) for _ in range(2)]
    work_out(both)
    kept = [len(interval._kept) for interval in both]

    for interval in both:
        come_to(interval)

    assert [len(interval._kept) for interval in both] == kept
    assert kept[0] > 0


def test_intervals_with_other_limits_are_in_one_table(monkeypatch):
    """Of a fleet with several policies, each would be as slow as a release by itself."""
    tables = []

    def counted(beside, asked):
        tables.append(len(asked))
        return compared(beside, asked)

    monkeypatch.setattr(comparison, "compared", counted)
    seen = Observation("shop", START, START + timedelta(seconds=5))
    limits = [Limits(errors_margin=0.311), Limits(errors_margin=0.312, client_errors_margin=0.5)]
    limits.append(Limits(errors_margin=0.313, step=("ten", Limits(errors_margin=0.314))))
    stages = [Stage(CANARY, STABLE, each, timedelta(seconds=90), 0.25) for each in limits]

    work_out([ready(Evidence(), Learned(), seen, at) for at in stages])

    assert tables == [3, 1]  # the second for what the third asks besides, of one step
