import json
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.evidence.shares import Lately, rows
from controlplane.policy.latency import EDGES_MS

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def after(*intervals, share=0.1, seconds=10.0, lately=None):
    lately = lately or Lately()
    for canary, baseline in intervals:
        lately = lately.plus((canary, baseline, 0, 0), seconds, share)
    return lately


def test_until_a_second_window_is_full_all_requests_count():
    assert after(*[(10, 90)] * 19).row == (190, 1710, 0, 0)


@pytest.mark.parametrize("share", [0.1, 0.9, 1.0])
def test_what_was_before_two_windows_is_forgotten(share):
    before = after(*[(0, 1000)] * 50, share=share)
    right = (round(100 * share), round(100 - 100 * share))
    enough = 30 if share < 1 else 9  # each ten of 100 requests that were due, each three of 30 s

    canary, baseline, *_ = after(*[right] * enough, share=share, lately=before).row

    assert canary * right[1] == baseline * right[0]
    assert canary + baseline >= 300


def test_a_window_lasts_half_a_minute_however_many_requests_come():
    assert after(*[(1000, 9000)] * 29, seconds=1.0).older == (0, 0, 0, 0)
    assert after(*[(1000, 9000)] * 30, seconds=1.0).older == (30_000, 270_000, 0, 0)


@pytest.mark.parametrize(
    ("took", "since", "older"),
    [(10_001, 10.0, 4), (10_001, 29.0, 4), (10_001, 30.0, 0), (30_001, 9000.0, 4), (10, 0.001, 0)],
)
def test_what_took_longer_than_the_step_is_there_may_have_begun_before(took, since, older):
    tally = Tally(4, slower=tuple(4 * (took > edge) for edge in EDGES_MS))
    seen = Observation("shop", NOW, NOW + timedelta(seconds=5), ((Cell("a", "staff", "v1"), tally),))

    assert rows(seen, "v2", "v1", since) == {("a", "staff"): (0, 4, 0, older)}


def test_calls_that_ended_and_did_not_begin_began_before():
    cell = Cell("a", "staff", "v1")
    seen = Observation("shop", NOW, NOW, ((cell, Tally(4)),), issued=((cell, 1),))

    assert rows(seen, "v2", "v1", 60.0) == {("a", "staff"): (0, 4, 0, 3)}


def test_it_is_stored_whole():
    lately = after(*[(10, 90)] * 33)

    assert Lately.from_json(json.loads(json.dumps(lately.to_json()))) == lately
