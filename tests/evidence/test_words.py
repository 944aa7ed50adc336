"""What a metric says while nothing is proved: where its counts point, and no more than they show."""

from dataclasses import replace

import pytest
from test_conditions import seen, stage
from world import folded

from controlplane.evidence import Limits, fold, next_step, verdicts
from controlplane.evidence.account import Account
from controlplane.evidence.reading import more_often
from controlplane.evidence.slowdown import RISE, WHOLE, Slowdown
from controlplane.evidence.slowed import Part
from controlplane.policy.latency import EDGES_MS

LIMITED = Limits(errors_margin=0.25, latency_margin=0.1, success_rate=0.97)


def told(known, canary, baseline, times, limits=LIMITED, **more):
    at = stage(limits, **more)
    return {v.metric: v for v in verdicts(folded(known, seen(canary, baseline), times, at), known, at)}


@pytest.mark.parametrize(
    ("canary", "words"),
    [
        ((20, 2, 0, 0), "errors are above the baseline's so far, too little to be sure: canary 2 of 20"),
        ((20, 0, 0, 0), "errors look alike, too few requests to be sure: canary 0 of 20"),
    ],
)
def test_errors_look_alike_only_where_they_do(known, canary, words):
    found = told(known, canary, (900, 1, 0, 0), 1)["errors"]

    assert found.reason.startswith(words)


@pytest.mark.parametrize(
    ("slow", "words"),
    [
        (7, "the canary is slower so far, too little to be sure: slower than"),
        (3, "too few requests to exclude a slower canary: slower than"),
    ],
)
def test_a_canary_that_is_slower_so_far_is_called_that(known, slow, words):
    found = told(known, (10, 0, 0, slow), (900, 0, 0, 300), 1)["latency"]

    assert found.reason.startswith(words)


@pytest.mark.parametrize(
    ("n", "bad", "words"),
    [
        (100, 10, "more failed than is allowed, not beyond doubt worse than the baseline: 10 % of 500"),
        (10, 0, "within the limit, too few requests to be sure: 0 % of 50"),
    ],
)
def test_a_limit_that_is_broken_for_sure_says_what_is_not_sure(known, n, bad, words):
    found = told(known, (n, bad, 0, 0), (1, 0, 0, 0), 5)["success rate"]

    assert found.reason.startswith(words)


def test_more_often_is_by_more_than_a_deviation():
    assert not more_often((100, 1, 1000, 0), 1.25)
    assert more_often((100, 4, 1000, 0), 1.25)
    assert not more_often((100, 4, 0, 0), 1.25)
    assert not more_often((1000, 105, 1000, 100), 1.0)
    assert more_often((1000, 120, 1000, 100), 1.0)


def test_two_errors_are_not_above_those_of_a_few_requests_that_have_none():
    assert not more_often((1441, 2, 57, 0), 1.25)


def test_what_is_needed_is_like_the_baselines_where_the_counts_speak_against_the_canary(known):
    above = told(known, (20, 2, 0, 0), (900, 1, 0, 0), 1)["errors"].reason
    alike = told(known, (20, 0, 0, 0), (900, 1, 0, 0), 1)["errors"].reason
    slower = told(known, (10, 0, 0, 7), (900, 0, 0, 300), 1)["latency"].reason

    assert "more like the baseline's are needed, " in above
    assert "more are needed, " in alike
    assert "more like the baseline's are needed, " in slower


def test_what_a_limit_needs_after_a_bad_moment_goes_by_the_requests_of_late(known):
    limits = replace(LIMITED, success_rate=0.96)
    at = stage(limits)
    before = next_step(folded(known, seen((400, 0, 0, 0), (900, 1, 0, 0)), 1, at))
    evidence = fold(before, known, seen((40, 2, 0, 0), (900, 1, 0, 0)), at)

    found = next(v for v in verdicts(evidence, known, at) if v.metric == "success rate")

    assert found.reason.startswith("more failed than is allowed, too few requests to be sure: ")
    assert 50 < found.requests_needed < 500


@pytest.mark.parametrize(
    ("slow", "words", "time"),
    [
        (
            9,
            "the canary is slower than is usual, and nothing is left to compare with: this alone takes",
            False,
        ),
        (3, "too few requests to exclude a slower canary: slower than", True),
    ],
)
def test_where_nobody_is_left_latency_is_told_beside_what_is_usual(known, slow, words, time):
    canary, nobody = (10, 0, 0, slow), (0, 0, 0, 0)
    found = told(known, canary, nobody, 1, full_segments=frozenset({"everyone"}))["latency"]

    assert found.reason.startswith(words)
    assert ", usually 37.1 %" in found.reason
    assert "of the baseline" not in found.reason
    assert (found.seconds_needed is not None, "at this traffic" in found.reason) == (time, time)


@pytest.mark.parametrize(("edges", "both"), [((4, 4), True), ((5, 2), False)])
def test_a_fault_is_told_beside_the_whole_release_only_at_the_same_edge(known, edges, both):
    metric = Slowdown("latency", 0.1, 100.0, Part("latency", 0.05, 0.95, 0.5, tail=False))
    rise, whole = {"everyone": (852.0, 563.0, 800.0, 333.0)}, {"everyone": (4862.0, 2096.0, 4000.0, 2412.0)}
    account = Account(
        {"25": (9.0,) * 6}, 0.0, rise, whole, rise, rise=rise, rising=56.0,
        state={RISE: (float(edges[0]),), WHOLE: (float(edges[1]),)},
    )  # fmt: skip

    reason = metric.verdict(account, known, stage()).reason

    shown = f"in the last 56 s slower than {EDGES_MS[edges[0]]} ms were 66.1 % of 852 canary requests"
    assert reason.startswith(f"the canary is slower in segment everyone: {shown}")
    assert ("in the whole release" in reason) is both


@pytest.mark.parametrize(
    ("canary", "baseline", "more", "wrong"),
    [
        ((20, 12, 0, 0), (200, 120, 0, 0), {}, "the baseline itself has 60 % of late, the canary 60 %"),
        ((20, 2, 0, 0), (200, 120, 0, 0), {}, ""),
        ((20, 12, 0, 0), (200, 60, 0, 0), {}, ""),
        ((20, 12, 0, 0), (10, 6, 0, 0), {}, ""),
        ((20, 12, 0, 0), (200, 120, 0, 0), {"emergency": True}, ""),
    ],
    ids=["both", "repaired", "some", "few", "emergency"],
)
def test_that_both_versions_fail_most_of_their_requests_is_said_whatever_is_usual(
    known, canary, baseline, more, wrong
):
    found = told(known, canary, baseline, 1, Limits(errors_margin=0.25, **more))["errors"]

    assert found.baseline == wrong


def test_a_note_is_beside_the_reason_and_what_a_pass_takes_in_both(known):
    found = told(known, (20, 0, 0, 0), (900, 1, 0, 0), 5, full_segments=frozenset({"everyone"}))

    errors = found["errors"]
    assert "nobody is left" not in errors.reason
    assert errors.note == "nobody is left on the baseline"
    assert errors.told == f"{errors.reason}; {errors.note}"
    more = errors.reason.partition("; about ")[2]
    assert errors.brief == f"errors look as usual, too few requests to be sure; about {more}"
    assert errors.cause == "short"


def beside_whole_segments(known, staff, times):
    """What errors say of a step at which staff and beta have nobody on the baseline, and others have."""
    at = stage(Limits(errors_margin=0.25), full_segments=frozenset({"beta", "staff"}))
    rest = seen((9, 0, 0, 0), (800, 2, 0, 0))
    whole = (seen(row, (0, 0, 0, 0), name) for name, row in (("beta", (30, 0, 0, 0)), ("staff", staff)))
    cells = tuple(sorted(cell for part in (rest, *whole) for cell in part.cells))
    return next(iter(verdicts(folded(known, replace(rest, cells=cells), times, at), known, at)))


def test_requests_of_the_baseline_are_counted_once_however_many_segments_borrow_them(known):
    errors = beside_whole_segments(known, (30, 0, 0, 0), 2)

    assert "canary 0 of 138 (0 %), baseline 4 of 1600 (0.25 %)" in errors.reason
    assert dict(errors.numbers)["baseline_requests"] == 1600
    assert errors.note.startswith("segments beta, staff have no baseline of their own: ")


def test_a_segment_that_is_blamed_is_told_beside_the_baseline_that_it_borrows(known):
    errors = beside_whole_segments(known, (30, 20, 0, 0), 5)

    assert errors.segment == "staff"
    assert "canary 100 of 150 (66.7 %), baseline 10 of 4000 (0.25 %)" in errors.reason
