"""What enters a comparison, a limit or a budget, and what is left out of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from world import CANARY, STABLE, START

from controlplane.evidence import Cell, Evidence, Learned, Limits, Observation, Outcome, Stage, Tally, fold
from controlplane.evidence.blocks import Blocks
from controlplane.evidence.conversions import Conversions
from controlplane.evidence.evidence import next_step, verdicts
from controlplane.evidence.measures import Measured
from controlplane.evidence.observation import Measure
from controlplane.evidence.spoiled import Spoiled
from controlplane.evidence.sums import Sums
from controlplane.evidence.table import rows_of
from controlplane.evidence.volume import Volume
from controlplane.policy.documents import ANONYMOUS, FOLLOWED

TEN = timedelta(seconds=10)
SOLD = Measured("sold", "sold")
SHARE = Conversions("sold", SOLD, 0.05, 100)


def seen(*rows, partial=()):
    """Ten seconds; a row is proxy, segment, version, requests, sold."""
    cells = {Cell(proxy, segment, version): (n, k) for proxy, segment, version, n, k in rows}
    return Observation(
        "shop",
        START,
        START + TEN,
        tuple((cell, Tally(n)) for cell, (n, _) in cells.items()),
        fresh=tuple(sorted({cell.proxy for cell in cells} - {proxy for proxy, _ in partial})),
        partial=partial,
        measures=tuple(Measure(cell, "sold", k) for cell, (_, k) in cells.items()),
    )


def stage(metric, number=0, **more):
    return Stage(CANARY, STABLE, Limits(errors_margin=None, added=(metric,)), number * TEN, 0.5, **more)


BOTH = (("p", "everyone", CANARY, 100, 5), ("p", "everyone", STABLE, 100, 6))


@pytest.mark.parametrize(
    ("left_out", "partial"),
    [
        ((("p", ANONYMOUS, CANARY, 900, 0), ("p", ANONYMOUS, STABLE, 900, 90)), ()),
        ((("p", FOLLOWED, CANARY, 900, 0), ("p", FOLLOWED, STABLE, 900, 90)), ()),
        ((("q", "everyone", CANARY, 900, 0), ("q", "everyone", STABLE, 900, 90)), (("q", "was reset"),)),
    ],
    ids=["without identity", "decided by another release", "of a proxy that misses something"],
)
@pytest.mark.parametrize("metric", [SHARE, Sums("sold", SOLD, 0.05)], ids=["counts", "sums"])
def test_what_enters_no_comparison_enters_none_of_business_metrics(metric, left_out, partial):
    evidence = fold(Evidence(), Learned(), seen(*BOTH, *left_out, partial=partial), stage(metric))

    assert evidence.accounts["sold"].whole == {"everyone": (100, 5, 100, 6)}


def run(metric, observations, **more):
    """Return the outcome, and after how many intervals there was one."""
    evidence = Evidence()
    for number, observation in enumerate(observations):
        at = stage(metric, number, **more)
        evidence = fold(evidence, Learned(), observation, at)
        [verdict] = verdicts(evidence, Learned(), at)
        if verdict.outcome is Outcome.FAIL:
            return verdict.outcome, number
    return verdict.outcome, number


def test_a_whole_segment_is_held_to_a_wider_margin_than_one_with_a_baseline_of_its_own():
    """A tenth less than the rest of the service is who these users are; half as much is not."""

    def staff(sold):
        return seen(("p", "staff", CANARY, 1000, sold), ("p", "everyone", STABLE, 9000, 900))

    def split(sold):
        return seen(("p", "staff", CANARY, 1000, sold), ("p", "staff", STABLE, 9000, 900))

    tenth = [run(SHARE, [staff(90)] * 300, full_segments=frozenset({"staff"})), run(SHARE, [split(90)] * 300)]
    half = run(SHARE, [staff(45)] * 300, full_segments=frozenset({"staff"}))

    assert [outcome for outcome, _ in tenth] == [Outcome.PASS, Outcome.FAIL]
    assert half[0] is Outcome.FAIL


@pytest.mark.parametrize("metric", [SHARE, Sums("sold", SOLD, 0.05)], ids=["counts", "sums"])
def test_a_whole_segment_that_buys_nothing_says_nothing_where_users_are_divided(metric):
    """As staff do in the later steps; the others still do."""
    rng = np.random.default_rng(3)

    def later(part):
        everyone = [
            (version, int(rng.binomial(1000, rate))) for version, rate in ((CANARY, part), (STABLE, 0.1))
        ]
        split = (("p", "everyone", version, 1000, sold) for version, sold in everyone)
        return seen(("p", "staff", CANARY, 1000, 0), *split)

    def outcome(part, divided):
        rows = [later(part) for _ in range(400)]
        return run(metric, rows, full_segments=frozenset({"staff"}), divided=divided)[0]

    assert [outcome(0.1, True), outcome(0.1, False)] == [Outcome.PASS, Outcome.FAIL]
    assert outcome(0.05, True) is Outcome.FAIL


@pytest.mark.parametrize(("more", "bad"), [(True, 0.5), (False, 2.0)])
def test_a_limit_of_a_sum_is_broken_on_the_side_that_is_worse(more, bad):
    """``limit`` lies between: what is beyond it on the other side is better still."""
    rng = np.random.default_rng(7)
    metric = Sums("sold", replace(SOLD, more=more), None, limit=1.0)

    def day(mean):
        return [
            seen(
                ("p", "everyone", CANARY, 1000, int(1000 * mean * rng.lognormal(0, 0.05))),
                ("p", "everyone", STABLE, 1000, int(1000 * (1.2 if more else 0.8) * rng.lognormal(0, 0.05))),
            )
            for _ in range(240)
        ]

    assert run(metric, day(bad))[0] is Outcome.FAIL
    assert run(metric, day(1 / bad))[0] is Outcome.PASS


def test_what_one_user_does_several_times_is_evidence_of_one():
    rng = np.random.default_rng(3)
    days = [
        seen(
            ("p", "everyone", CANARY, 1000, int(850 * rng.lognormal(0, 0.1))),
            ("p", "everyone", STABLE, 1000, int(1000 * rng.lognormal(0, 0.1))),
        )
        for _ in range(600)
    ]

    once, often = (run(Sums("sold", SOLD, 0.0, per_user=users), days) for users in (1.0, 4.0))

    assert once[0] is often[0] is Outcome.FAIL
    assert often[1] > 2 * once[1]


def test_only_what_was_judged_in_this_step_counts_for_a_number_of_requests():
    volume = Volume("requests", 300)
    first = fold(Evidence(), Learned(), seen(("p", "everyone", CANARY, 400, 0)), stage(volume))
    later = fold(next_step(first), Learned(), seen(("p", "everyone", CANARY, 200, 0)), stage(volume, 1))

    [enough] = verdicts(first, Learned(), stage(volume))
    [too_few] = verdicts(later, Learned(), stage(volume, 1))

    assert (enough.outcome, too_few.outcome) == (Outcome.PASS, Outcome.NOT_YET)
    assert too_few.reason.startswith("200 of 300 canary requests judged in this step")


def test_good_time_of_a_whole_segment_makes_no_room_in_the_budget_for_later_harm():
    def block(errors):
        canary, baseline = (rows_of([Tally(n, k).row]) for n, k in ((1000, errors), (9000, 900)))
        return Blocks.of(("staff",), canary, baseline, np.array([True]), baseline[0])

    good, bad = Spoiled(), Spoiled()
    for _ in range(20):
        good = good.plus(Learned(), block(0))
    for _ in range(2):
        good, bad = good.plus(Learned(), block(500)), bad.plus(Learned(), block(500))

    assert good.lent["staff"].failures == bad.lent["staff"].failures == 600
