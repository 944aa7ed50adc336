"""Calls that do not get to the canary: counted by what was due, and proof only if none arrives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.evidence.reach import missed, reach
from controlplane.evidence.verdict import Outcome

START = datetime(2026, 3, 1, tzinfo=UTC)
VERSIONS = ("v2", "v1")
BOTH = frozenset({"a", "b"})


def interval(*cells):
    """Cells are (client, segment, version, calls that began); as many ended, on the baseline."""
    issued = tuple(sorted((Cell(p, s, v), n) for p, s, v, n in cells))
    ended = tuple((Cell(cell.proxy, cell.segment, "v1"), Tally(n)) for cell, n in issued)
    return Observation("shop", START, START + timedelta(seconds=5), ended, ("a", "b"), issued=issued)


def test_calls_of_the_baseline_add_up_by_segment_while_none_reaches_the_canary():
    one = missed({}, interval(("a", "everyone", "v1", 40), ("b", "beta", "v1", 3)), VERSIONS, BOTH)

    both = missed(one, interval(("b", "everyone", "v1", 20)), VERSIONS, BOTH)

    assert both == {"everyone": 60, "beta": 3}


def test_one_call_of_one_client_to_the_canary_begins_the_count_anew():
    before = {"everyone": 500, "beta": 7}
    seen = interval(("a", "everyone", "v1", 90), ("b", "everyone", "v2", 1))

    assert missed(before, seen, VERSIONS, BOTH) == {"beta": 7}


def test_clients_that_may_not_split_yet_do_not_count():
    seen = interval(("a", "everyone", "v1", 90), ("b", "everyone", "v1", 9))

    assert missed({}, seen, VERSIONS, frozenset({"b"})) == {"everyone": 9}


def test_what_proxies_count_and_streams_that_end_say_nothing():
    ended = ((Cell("a", "everyone", "v1"), Tally(500)), (Cell("edge-1", "everyone", "v2"), Tally(10)))
    seen = Observation("shop", START, START + timedelta(seconds=5), ended, ("a", "edge-1"))

    assert missed({"everyone": 9}, seen, VERSIONS, frozenset({"a", "edge-1"})) == {"everyone": 9}


@pytest.mark.parametrize(
    ("share", "calls", "fails"),
    [(0.5, 99, False), (0.5, 100, True), (0.01, 4999, False), (0.01, 5000, True), (0.0, 10**6, False)],
)
def test_fifty_calls_must_have_been_due(share, calls, fails):
    verdict = reach("v2", "everyone", share, calls)

    assert (verdict is not None) is fails
    if verdict is not None:
        assert verdict.outcome is Outcome.FAIL
        assert verdict.reason.startswith("no client reaches v2: none of 50 calls that were due arrived")
