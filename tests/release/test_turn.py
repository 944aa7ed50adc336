"""A release's turn: what of an interval reaches the decision."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.evidence.learned import Learned
from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.release.decide import Propagation
from controlplane.release.state import Phase, Stage
from controlplane.release.turn import Moment, Progress, together, turn, turning

TEN = timedelta(seconds=10)


def intervals(make, *cells, state, count=1, **propagation):
    """Return a release's state after intervals that are all alike; cells are (client, version, calls)."""
    return gathered(make, *cells, state=state, count=count, **propagation).state


def gathered(make, *cells, state, count=1, **propagation):
    """Return the same with its evidence."""
    tallies = tuple(sorted((Cell(p, "everyone", v), Tally(n)) for p, v, n in cells))
    who = Propagation(**({"live": ("a", "b"), "acked": ("a", "b")} | propagation))
    progress = Progress(state)
    for n in range(count):
        start = make.T0 + n * TEN
        issued = tuple((cell, tally.requests) for cell, tally in tallies)
        seen = Observation("shop", start, start + TEN, tallies, ("a", "b"), issued=issued)
        moment = Moment(start + TEN, TEN, seen, settle=TEN, propagation=who, endpoints=make.ENDPOINTS)
        progress = turn(progress, Learned(), moment).after
    return progress


@pytest.mark.parametrize("stage", [Stage.VERIFY, Stage.JUDGE])
@pytest.mark.parametrize("halt", [None, "paused"])
def test_a_canary_that_no_client_reaches_is_rolled_back(make, stage, halt):
    state = make.state(stage=stage, elapsed=TEN, halt=halt)

    after = intervals(make, ("a", "v1", 400), ("b", "v1", 100), state=state)

    assert after.phase is Phase.ROLLING_BACK
    assert after.reason.startswith("no client reaches v2: none of 50 calls")


@pytest.mark.parametrize(
    ("changed", "propagation"),
    [
        ({"stage": Stage.PROPAGATE}, {"acked": ("a",)}),  # not everybody has the step
        ({"elapsed": timedelta(0)}, {}),  # calls from before the acknowledgements may be among these
        ({}, {"at_least": 900_000}),  # some need not have it
        ({}, {"acked": ("b",)}),
    ],
)
def test_calls_that_need_not_have_been_split_prove_nothing(make, changed, propagation):
    state = make.state(**({"stage": Stage.VERIFY, "elapsed": TEN} | changed))

    assert intervals(make, ("a", "v1", 900), state=state, **propagation).phase is Phase.PROGRESSING


def test_one_client_alone_without_the_canary_holds_and_is_named(make):
    state = make.state(stage=Stage.VERIFY, elapsed=TEN)

    after = intervals(make, ("a", "v1", 900), ("b", "v1", 90), ("b", "v2", 10), state=state, count=3)

    assert after.phase is Phase.PROGRESSING
    assert after.because.startswith("a acknowledged but does not split as asked")


def test_one_that_came_back_and_acknowledged_nothing_is_not_said_to_have(make):
    state = make.state(stage=Stage.JUDGE, elapsed=TEN)
    cells = ("a", "v1", 900), ("b", "v1", 90), ("b", "v2", 10)

    after = intervals(make, *cells, state=state, count=3, acked=("b",))

    assert after.because.startswith("a has not acknowledged and does not split as asked, segment everyone: ")


def proved(make, *cells, count=3, **changed):
    """Return the canary requests that speak for promotion after intervals that are all alike."""
    state = make.state(**({"elapsed": TEN} | changed))
    watch = gathered(make, *cells, state=state, count=count).watch
    return sum(counts[0] for counts in watch.evidence.accounts["errors"].step.values())


def test_requests_by_which_a_split_is_verified_are_proof_as_well(make):
    cells = ("a", "v1", 60), ("a", "v2", 2), ("b", "v1", 60), ("b", "v2", 4)

    assert proved(make, *cells, stage=Stage.VERIFY) == 18
    assert proved(make, *cells, stage=Stage.PROPAGATE, count=1) == 0
    assert proved(make, *cells, stage=Stage.VERIFY, halt="paused") == 0


@pytest.mark.parametrize("stage", [Stage.VERIFY, Stage.JUDGE])
def test_split_that_disagrees_drops_what_was_proved(make, stage):
    cells = ("a", "v1", 900), ("a", "v2", 45), ("b", "v1", 90), ("b", "v2", 800)

    assert proved(make, *cells, stage=stage) == 0


def test_clients_that_do_not_call_prove_nothing(make):
    state = make.state(stage=Stage.VERIFY, elapsed=TEN)

    assert intervals(make, ("a", "v1", 10), state=state, count=4).phase is Phase.PROGRESSING


@pytest.mark.parametrize(
    ("unhealthy", "hold", "because"),
    [
        ((), "verify", "too few requests"),
        ((("b", "v2"),), "verify", "too few requests"),  # nothing grows in this stage
    ],
)
def test_health_matters_where_something_is_to_grow(make, unhealthy, hold, because):
    after = healthy(make, make.state(stage=Stage.VERIFY), unhealthy)

    assert after.hold == hold
    assert because in after.because


@pytest.mark.parametrize(
    ("unhealthy", "phase"),
    [
        ((), Phase.PROGRESSING),
        ((("b", "v2"),), Phase.WAITING),  # one proxy would have nobody to send its requests to
        ((("a", "v1"), ("b", "v1")), Phase.PROGRESSING),
    ],
)
def test_nothing_starts_towards_a_version_without_a_healthy_endpoint(make, unhealthy, phase):
    after = healthy(make, make.state(phase=Phase.WAITING), unhealthy)

    assert after.phase is phase
    assert (after.hold == "no-endpoints") is (phase is Phase.WAITING)
    if phase is Phase.WAITING:
        assert after.because == "v2 has no endpoints that are healthy, says b"


@pytest.mark.parametrize(
    ("unhealthy", "phase"),
    [
        ((("a", "v1"),), Phase.ROLLING_BACK),  # better than a broken canary everywhere
        ((("a", "v1"), ("b", "v1")), Phase.PROGRESSING),
    ],
)
def test_a_rollback_needs_a_healthy_endpoint_somewhere(make, unhealthy, phase):
    state = make.state(stage=Stage.VERIFY, elapsed=TEN)
    calls = (("a", "v1", 400), ("b", "v1", 100))

    after = healthy(make, state, unhealthy, *calls)

    assert after.phase is phase
    if phase is Phase.PROGRESSING:
        assert after.hold == "unsafe"
        assert "v1 has no endpoints that are healthy, says a, b" in after.because


def healthy(make, state, unhealthy, *cells):
    """Return a release after an interval in which proxies had no healthy endpoint of some versions."""
    tallies = tuple(sorted((Cell(p, "everyone", v), Tally(n)) for p, v, n in cells))
    who = Propagation(live=("a", "b"), acked=("a", "b"))
    issued = tuple((cell, tally.requests) for cell, tally in tallies)
    span = (make.T0, make.T0 + TEN)
    counts = tuple((p, v, int((p, v) not in unhealthy)) for p in ("a", "b") for v in ("v1", "v2"))
    seen = Observation("shop", *span, tallies, ("a", "b"), issued=issued, healthy=counts)
    moment = Moment(
        make.T0 + TEN, TEN, seen, settle=TEN, propagation=who, endpoints=make.ENDPOINTS, stable="v1"
    )
    return turn(Progress(state), Learned(), moment).after.state


def test_turns_beside_each_other_are_what_each_is_alone(make):
    """One that has not started folds no interval; the others' are worked out at once."""
    end = make.T0 + TEN
    tallies = tuple((Cell("a", "everyone", v), Tally(n, k)) for v, n, k in (("v1", 900, 3), ("v2", 100, 40)))
    seen = Observation("shop", make.T0, end, tallies, ("a",))
    who = Propagation(live=("a",), acked=("a",))
    moment = Moment(end, TEN, seen, settle=TEN, propagation=who, endpoints=make.ENDPOINTS)
    states = [make.state(stage=stage, elapsed=TEN) for stage in (Stage.VERIFY, Stage.JUDGE, Stage.PROPAGATE)]
    states.insert(1, make.state(phase=Phase.WAITING))

    took = together([turning(Progress(state), Learned(), moment) for state in states])

    assert took == [turn(Progress(state), Learned(), moment) for state in states]
    assert [bool(each.after.watch.evidence.accounts) for each in took] == [True, False, True, True]
