import pytest

from controlplane.evidence import Agreement, check_split


@pytest.mark.parametrize(
    ("share", "canary", "baseline", "agreement"),
    [
        (0.0, 0, 0, Agreement.TOO_FEW),
        (0.0, 0, 10, Agreement.AGREES),
        (0.0, 3, 10_000, Agreement.AGREES),
        (0.0, 4, 10_000, Agreement.DISAGREES),
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
