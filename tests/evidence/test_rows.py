"""The formulas for many blocks are those for one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.evidence import likelihood, rows

BLOCK = st.tuples(
    st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 10**5), st.integers(1, 10**5),
    st.floats(1e-4, 1e4),
)  # fmt: skip


@given(st.lists(BLOCK, min_size=1, max_size=8), st.lists(st.floats(1.3, 300), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_many_blocks_at_once_are_one_after_the_other(blocks, alternatives):
    grid = [1.25, *alternatives]
    events, others, canary, baseline, clusters = (
        np.array(column, dtype=float) for column in zip(*blocks, strict=True)
    )

    plain, least = rows.cautious(events, (canary, baseline), events + others, clusters, np.array(grid))

    for line, (k, other, n_c, n_b, s) in enumerate(blocks):
        one, other_one = likelihood.cautious(k, (n_c, n_b), k + other, s, grid)
        assert plain[line] == pytest.approx(one, rel=1e-8, abs=1e-7)
        assert least[line] == pytest.approx(other_one, rel=1e-8, abs=1e-7)


@pytest.mark.parametrize("others", [0, 1, 6])
@pytest.mark.parametrize("canary", [20, 500])
@pytest.mark.parametrize("baseline", [20, 500, 10**5])
@pytest.mark.parametrize("clusters", [0.01, 5.0])
def test_a_canary_with_a_tolerated_rise_gains_nothing_on_average(others, canary, baseline, clusters):
    rise, grid = 0.001, 1.25 * np.array((1, 1.5, 3, 20, 300))
    requests = np.array([float(canary)]), np.array([float(baseline)])
    pi = 1.25 * canary / (1.25 * canary + baseline)
    due = rows.dues(requests, grid, rise)[0]

    plain_mean, least_mean = np.zeros(4), np.zeros(4)
    for ordinary in range(others + 1):  # errors of the canary among those that come as usual, of both
        usual = math.comb(others, ordinary) * pi**ordinary * (1 - pi) ** (others - ordinary)
        for more in range(300):  # and those of the rise
            log_chance = (
                math.log(usual) + more * math.log(rise * canary) - rise * canary - math.lgamma(more + 1)
            )
            k, total = np.array([float(ordinary + more)]), np.array([float(others + more)])
            plain, least = rows.cautious(k, requests, total, np.array([clusters]), grid)
            plain_mean += np.exp(log_chance + plain[0] - due)
            least_mean += np.exp(log_chance + least[0] - due)

    assert plain_mean == pytest.approx(np.ones(4), rel=1e-6)
    assert (least_mean <= 1 + 1e-9).all()


@given(st.floats(1e-6, 1e6))
def test_the_gamma_function_is_that_of_the_library(x):
    assert rows.lgamma(np.array([x]))[0] == pytest.approx(math.lgamma(x), rel=1e-11, abs=1e-11)


HARM = st.tuples(st.integers(0, 300), st.integers(1, 10**5), st.floats(1e-5, 0.5), st.floats(1e-3, 0.5))


@given(st.lists(HARM, min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_evidence_of_no_harm_is_the_same_for_many_blocks(blocks):
    k, n, rate, tolerated = (np.array(column, dtype=float) for column in zip(*blocks, strict=True))

    found, plain = rows.no_harm(k, n, rate, tolerated)

    assert found == pytest.approx([likelihood.no_harm(*block) for block in blocks], rel=1e-9, abs=1e-9)
    assert plain == pytest.approx([likelihood.no_harm_plain(*block) for block in blocks], rel=1e-9)


@given(st.lists(st.tuples(BLOCK, st.floats(1.1, 10)), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_as_often_is_the_binomial_evidence_of_a_rate_that_is_excluded(drawn):
    blocks, excluded = zip(*drawn, strict=True)
    k, others, n_c, n_b, _ = (np.array(column, dtype=float) for column in zip(*blocks, strict=True))

    found = rows.as_often(k, (n_c, n_b), k + others, np.array(excluded))

    for line, ((events, other, canary, baseline, _), most) in enumerate(drawn):
        good = 1 + likelihood.TILT * (most - 1)
        one = likelihood.binomial(events, events + other, canary / baseline, most, good)
        assert found[line] == pytest.approx(one, rel=1e-8, abs=1e-7)


def test_as_often_says_nothing_without_a_baseline():
    counts = np.array([3, 3]), (np.array([50, 50]), np.array([0, 400])), np.array([3, 9])

    found = rows.as_often(*counts, np.array([2.0, 2.0]))

    assert found[0] == 0.0
    assert found[1] != 0.0


@given(st.lists(st.tuples(HARM, HARM), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_lines_of_one_table_are_what_each_is_by_itself(drawn):
    columns = np.array(drawn, dtype=float).T  # of k, requests, rate, tolerated: for two metrics
    k, _, rate, tolerated = columns
    n = columns[1][0]

    found, plain = rows.no_harm(k, n, rate, tolerated)
    often = rows.as_often(k, (n, n - 1), k + 1, 1 + tolerated)

    for line in (0, 1):
        alone = rows.no_harm(k[line], n, rate[line], tolerated[line])
        assert np.array_equal((found[line], plain[line]), alone)
        assert np.array_equal(
            often[line], rows.as_often(k[line], (n, n - 1), k[line] + 1, 1 + tolerated[line])
        )
