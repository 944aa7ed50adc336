import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controlplane.evidence import Agreement, check_split
from controlplane.evidence.split import RARE, Crowding, surprise, usual


@pytest.mark.parametrize(
    ("share", "canary", "baseline", "agreement"),
    [
        (0.0, 0, 0, Agreement.TOO_FEW),
        (0.0, 0, 10, Agreement.AGREES),
        (0.0, 3, 10_000, Agreement.AGREES),
        (0.0, 4, 10_000, Agreement.DISAGREES),
        (0.0, 3, 0, Agreement.TOO_FEW),
        (1.0, 1, 0, Agreement.AGREES),
        (1.0, 0, 3, Agreement.TOO_FEW),
        (1.0, 0, 4, Agreement.DISAGREES),
        (1.0, 10, 0, Agreement.AGREES),
        (1.0, 10_000, 3, Agreement.AGREES),
        (1.0, 10_000, 4, Agreement.DISAGREES),
        (0.05, 0, 0, Agreement.TOO_FEW),
        (0.05, 45, 854, Agreement.TOO_FEW),
        (0.05, 50, 950, Agreement.AGREES),
        (0.05, 13, 987, Agreement.AGREES),
        (0.05, 12, 988, Agreement.DISAGREES),
        (0.05, 0, 1000, Agreement.DISAGREES),
        (0.05, 201, 799, Agreement.DISAGREES),
        (0.98, 980, 20, Agreement.AGREES),
        (0.98, 9990, 10, Agreement.DISAGREES),
        (0.98, 500, 500, Agreement.AGREES),
        (0.98, 2000, 2000, Agreement.DISAGREES),
    ],
)
def test_only_what_is_plainly_wrong_disagrees(share, canary, baseline, agreement):
    verdict = check_split(share, canary, baseline)

    assert verdict.agreement is agreement
    assert verdict.reason


FEW = Crowding(alike=0.02, heaviest=0.14, known=True)  # as 50 users, one with a seventh of the requests
MANY = Crowding(alike=0.0001, heaviest=0.01, known=True)


@pytest.mark.parametrize(
    ("share", "canary", "baseline", "crowding", "agreement"),
    [
        (0.01, 1100, 8900, Crowding(), Agreement.DISAGREES),
        (0.01, 1100, 8900, FEW, Agreement.AGREES),  # a user who sends a tenth
        (0.05, 0, 10_000, FEW, Agreement.DISAGREES),  # no split at all
        (0.5, 3, 10_000, FEW, Agreement.DISAGREES),
        (0.5, 1000, 9000, Crowding(0.2, 0.45, known=True), Agreement.TOO_FEW),
        (0.25, 1000, 9000, Crowding(), Agreement.AGREES),
        (0.25, 1000, 9000, MANY, Agreement.DISAGREES),  # the share of the step before
        (0.25, 1000, 9000, FEW, Agreement.AGREES),
        (0.5, 4500, 5500, MANY, Agreement.AGREES),  # users may be hidden behind a balancer
        (0.25, 10, 90, MANY, Agreement.TOO_FEW),
    ],
)
def test_what_heavy_users_explain_does_not_disagree(share, canary, baseline, crowding, agreement):
    assert check_split(share, canary, baseline, crowding=crowding).agreement is agreement


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.98])
@pytest.mark.parametrize("steep", [0.0, 1.0, 2.0])
def test_a_surprise_is_as_rare_as_it_says(share, steep):
    rng = np.random.default_rng(1)
    volumes = np.arange(1, 301) ** -steep
    volumes /= volumes.sum()
    crowding = Crowding(float((volumes**2).sum()), float(volumes.max()))
    surprised = 0

    for _ in range(1000):
        mine = float(volumes[rng.random(len(volumes)) < share].sum())
        canary = int(rng.binomial(20_000, min(1.0, mine)))
        surprised += surprise(share, canary, 20_000 - canary, crowding) >= RARE

    assert surprised <= 10


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.1, "10 %"), (0.0025, "0.25 %"), (0.98, "98 %"), (1 / 3, "33.33 %"), (0.0001, "0.01 %")],
)
def test_the_reason_has_the_share_as_operators_write_it(share, said):
    assert check_split(share, 900_000, 100_000).reason.endswith(f"went to the canary, {said} should")


@given(
    st.integers(0, 10_000).map(lambda buckets: buckets / 10_000),
    st.floats(-5, 5),
    st.integers(1, 10_000),
    st.builds(Crowding, st.floats(0, 1), st.floats(0, 1), st.booleans()),
)
def test_what_is_usual_never_disagrees(share, deviations, requests, crowding):
    canary = round(share * requests + deviations * (share * (1 - share) * requests) ** 0.5)
    baseline = requests - canary
    assume(canary >= 0 and baseline >= 0 and usual(share, canary, baseline))

    assert check_split(share, canary, baseline, crowding=crowding).agreement is not Agreement.DISAGREES


def test_a_share_that_is_off_by_more_than_chance_is_not_usual():
    assert usual(0.1, 130, 900)
    assert not usual(0.1, 160, 900)
    assert usual(1.0, 1000, 3)
    assert not usual(1.0, 1000, 4)
    assert not usual(0.0, 4, 1000)
    assert not usual(0.5, 0, 0)
