from math import comb, exp, lgamma, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.evidence.likelihood import (
    FIRST_MASS,
    advance,
    binomial,
    cautious,
    log_mean_exp,
    log_mixture,
    no_harm,
    poisson_tail,
    restart_mass,
)


def chances(total: int, pi: float, clusters: float | None) -> list[float]:
    """Return the probabilities of 0..total events of the canary, clustered or independent."""
    if clusters is None:
        return [comb(total, k) * pi**k * (1 - pi) ** (total - k) for k in range(total + 1)]
    a, b = clusters * pi, clusters * (1 - pi)
    beta = lgamma(a + b) - lgamma(a) - lgamma(b) - lgamma(total + a + b)
    return [exp(log(comb(total, k)) + lgamma(k + a) + lgamma(total - k + b) + beta) for k in range(total + 1)]


@pytest.mark.parametrize("total", [1, 2, 7, 40])
@pytest.mark.parametrize("ratio", [0.01, 0.1, 1.0, 49.0])
@pytest.mark.parametrize("clusters", [0.01, 0.5, 5.0, 300.0])
def test_no_good_canary_gains_on_average(total, ratio, clusters):
    null = 1.25
    grid = (null, *(null * a for a in (1.5, 3, 20, 300)))
    gains = [cautious(k, (1000, round(1000 / ratio)), total, clusters, grid)[1] for k in range(total + 1)]

    for worse in (1.0, 0.5):  # the margin used up, and a canary that is better
        odds = null * 1000 / round(1000 / ratio) * worse
        for truth in (clusters, 3 * clusters, None):  # as clustered as believed, less, not at all
            chance = chances(total, odds / (1 + odds), truth)
            for i in range(len(grid) - 1):
                expected = sum(p * exp(gain[i]) for p, gain in zip(chance, gains, strict=True))
                assert expected <= 1 + 1e-9


def test_binomial_is_the_ratio_of_the_two_likelihoods():
    null, rho, ratio, k, total = 1.25, 5.0, 0.1, 3, 10
    pi = [r * ratio / (1 + r * ratio) for r in (null, rho)]

    expected = k * log(pi[1] / pi[0]) + (total - k) * log((1 - pi[1]) / (1 - pi[0]))

    assert binomial(k, total, ratio, null, rho) == pytest.approx(expected)


def test_a_burst_counts_about_once_when_errors_arrive_in_clusters():
    grid = (1.25, 12.5)

    plain, least = cautious(20, (100, 900), 20, 0.01, grid)
    _, single = cautious(1, (100, 900), 1, 0.01, grid)

    assert plain[0] > 20
    assert least[0] < 1.5 * single[0]


@given(
    st.integers(0, 50),
    st.integers(1, 5000),
    st.floats(1e-5, 0.3),
    st.floats(0.002, 0.3),
)
def test_no_harm_falls_with_every_failure_and_is_bounded_below(k, requests, rate, tolerated):
    more, less = no_harm(k, requests, rate, tolerated), no_harm(k + 1, requests, rate, tolerated)

    assert less <= more
    assert less >= -2.2


@pytest.mark.parametrize("requests", [1, 20, 300, 4000])
@pytest.mark.parametrize("rate", [0.0005, 0.002, 0.05])
@pytest.mark.parametrize("tolerated", [0.002, 0.025])
def test_a_canary_with_the_excluded_harm_gains_nothing_on_average(requests, rate, tolerated):
    mean = (rate + tolerated) * requests

    expected = sum(
        exp(k * log(mean) - mean - lgamma(k + 1) + no_harm(k, requests, rate, tolerated)) for k in range(400)
    )

    assert expected <= 1 + 1e-9


def test_poisson_tail_matches_its_sum():
    assert poisson_tail(2.0, 1) == pytest.approx(1 - 3 * exp(-2))
    assert poisson_tail(2.0, -0.5) == 1
    assert poisson_tail(2.0, 300) == 0


def test_all_masses_of_a_process_sum_to_at_most_one():
    assert FIRST_MASS + restart_mass(0, 10**9) == pytest.approx(1)
    assert restart_mass(0, 7) == pytest.approx(restart_mass(0, 3) + restart_mass(3, 7))


def test_a_restart_revives_a_process_that_had_sunk():
    assert advance((-500.0,), 0.15, [0.0]) == pytest.approx((log(0.15),))
    assert advance((-500.0,), 0.0, [1.0]) == (-499.0,)


def test_mixtures_do_not_overflow():
    assert log_mean_exp([1e4, 0.0]) == pytest.approx(1e4 - log(2))
    assert log_mixture(((0.5, 2e3), (0.5, -2e3))) == pytest.approx(2e3 - log(2))
