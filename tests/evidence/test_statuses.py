"""Conditions on gRPC codes, which are counted apart from outcomes."""

from datetime import timedelta

import numpy as np
import pytest
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
    verdicts,
)
from controlplane.evidence.observation import Measure
from controlplane.evidence.statuses import Statuses

DENIED = frozenset({"grpc:7", "grpc:16"})
COMPARED = Statuses("grpc status PERMISSION_DENIED", DENIED, 0.5)
LIMITED = Statuses("grpc status PERMISSION_DENIED", DENIED, limit=0.01)
FIVE = timedelta(seconds=5)


def interval(canary, baseline, segment="everyone", **more):
    """Five seconds; a row is calls, and how many of them ended with code 7, with 16 and with 5."""
    cells, measures = [], []
    for version, (n, *ended) in ((CANARY, canary), (STABLE, baseline)):
        cell = Cell("p", segment, version)
        cells.append((cell, Tally(n)))
        measures += [Measure(cell, f"grpc:{c}", k) for c, k in zip((7, 16, 5), ended, strict=True)]
        measures.append(Measure(cell, "grpc:0", n - sum(ended)))
    return Observation(
        "shop", START, START + FIVE, tuple(cells), fresh=("p",), measures=tuple(measures), **more
    )


def judged(metric, intervals, *, emergency=False):
    evidence = Evidence()
    for number, observation in enumerate(intervals):
        limits = Limits(errors_margin=None, added=(metric,), emergency=emergency)
        at = Stage(CANARY, STABLE, limits, number * FIVE, 0.25)
        evidence = fold(evidence, Learned(), observation, at)
        [verdict] = verdicts(evidence, Learned(), at)
        if verdict.outcome is not Outcome.NOT_YET:
            break
    return (number + 1) * 5, verdict


def drawn(seed, canary, baseline, other=(0.1, 0.1), longest=720):
    rng = np.random.default_rng(seed)
    for _ in range(longest):
        rows = [
            (n, *rng.binomial(n, (rate / 2, rate / 2, more)).tolist())
            for n, rate, more in ((50, canary, other[0]), (450, baseline, other[1]))
        ]
        yield interval(*rows)


@pytest.mark.parametrize("metric", [COMPARED, LIMITED])
def test_the_codes_that_are_named_fail_and_others_do_not(metric):
    bad = [judged(metric, drawn(seed, 0.1, 0.002)) for seed in range(8)]
    others = [judged(metric, drawn(seed, 0.002, 0.002, other=(0.6, 0.1))) for seed in range(8)]

    assert {verdict.outcome for _, verdict in bad} == {Outcome.FAIL}
    assert max(seconds for seconds, _ in bad) <= 120
    assert {verdict.outcome for _, verdict in others} == {Outcome.PASS}


def test_codes_that_never_come_are_a_proof_like_any_other():
    seconds, verdict = judged(COMPARED, drawn(1, 0.0, 0.0))

    assert verdict.outcome is Outcome.PASS
    assert "canary 0 of" in verdict.reason
    assert seconds <= 120


def test_a_limit_that_both_versions_break_holds_but_in_an_emergency():
    _, verdict = judged(LIMITED, drawn(1, 0.1, 0.1))
    _, urgent = judged(LIMITED, drawn(1, 0.1, 0.1), emergency=True)
    _, worse = judged(LIMITED, drawn(1, 0.4, 0.1), emergency=True)

    assert verdict.outcome is Outcome.NOT_YET
    assert "the baseline breaches the limit itself" in verdict.reason
    assert (urgent.outcome, worse.outcome) == (Outcome.PASS, Outcome.FAIL)


def test_without_a_status_nothing_passes_and_calls_that_are_not_counted_are_none():
    plain = Observation(
        "shop",
        START,
        START + FIVE,
        ((Cell("p", "everyone", CANARY), Tally(500)), (Cell("p", "everyone", STABLE), Tally(500))),
        fresh=("p",),
    )

    _, verdict = judged(COMPARED, [plain] * 100)
    assert (verdict.outcome, verdict.lacking) == (Outcome.NOT_YET, True)
    assert "no call of the canary was answered with a gRPC status yet" in verdict.reason


def test_a_segment_alone_fails_and_is_named():
    def both(seed):
        for one, other in zip(drawn(seed, 0.0, 0.0), drawn(seed + 1, 0.0, 0.0), strict=True):
            beta = interval((20, 15, 0, 0), (180, 0, 0, 0), "beta")
            cells = (*one.cells, *beta.cells)
            yield Observation(
                "shop", other.start, other.end, cells, fresh=("p",), measures=(*one.measures, *beta.measures)
            )

    _, verdict = judged(COMPARED, both(3))
    assert (verdict.outcome, verdict.segment) == (Outcome.FAIL, "beta")


def test_the_account_is_read_back_as_it_was_stored():
    evidence = with_copies = Evidence()
    for number, seen in enumerate(drawn(5, 0.01, 0.01, longest=20)):
        at = Stage(CANARY, STABLE, Limits(errors_margin=None, added=(COMPARED,)), number * FIVE, 0.25)
        evidence = fold(evidence, Learned(), seen, at)
        with_copies = Evidence.from_json(fold(with_copies, Learned(), seen, at).to_json())

    assert with_copies == evidence
