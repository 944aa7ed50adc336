import json

import numpy as np
import pytest

from controlplane.evidence.flow import LEAST, Flow


def after(*requests, seconds=5.0, flow=None):
    flow = flow or Flow()
    for count in requests:
        flow = flow.after(seconds, count)
    return flow


@pytest.mark.parametrize(("seconds", "intervals"), [(1, 30), (5, 6), (10, 3), (60, 3)])
def test_where_requests_always_come_half_a_minute_or_three_intervals_without_are_too_long(seconds, intervals):
    usual = after(*[9] * 40, seconds=seconds)

    assert not after(*[0] * intervals, seconds=seconds, flow=usual).wanting
    assert after(*[0] * (intervals + 1), seconds=seconds, flow=usual).wanting


def test_after_a_time_without_requests_they_must_come_for_as_long():
    silent = after(*[9] * 40, *[0] * 100)

    assert silent.idle == 500
    assert after(*[9] * 5, flow=silent).wanting
    assert not after(*[9] * 6, flow=silent).wanting


def test_one_time_without_requests_does_not_make_the_next_one_usual():
    night = after(*[9] * 40, *[0] * 10_000, *[9] * 3)

    assert night.longest(5) <= 2 * LEAST


def test_fewer_requests_become_usual():
    assert not after(*[9] * 40, *[0] * 24, *([1] + [0] * 23) * 60).wanting


@pytest.mark.parametrize("seconds", [5, 60])
@pytest.mark.parametrize("gap", [5, 60, 1800])
def test_chance_alone_seldom_looks_like_no_requests(seconds, gap):
    rng = np.random.default_rng(1)
    flow, wanting, intervals = Flow(), 0, 400 * max(gap, seconds) // seconds

    for count in rng.poisson(seconds / gap, intervals):
        flow = flow.after(seconds, int(count))
        wanting += flow.wanting > 0

    assert wanting < intervals / 10


def test_it_is_stored_whole():
    flow = after(3, 0, 0, 1, *[0] * 20)

    assert Flow.from_json(json.loads(json.dumps(flow.to_json()))) == flow
