"""Heavy users, learned from how unevenly requests fall on proxies."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from world import START

from controlplane.evidence import Cell, Observation, Tally
from controlplane.evidence.crowd import Crowd


def seen(*cells, seconds=30, **more):
    tallies = tuple((Cell(p, s, v), Tally(n)) for p, s, v, n in cells)
    return Observation("shop", START, START + timedelta(seconds=seconds), tallies, **more)


def taught(users, windows=200, proxies=3, split=0.0, each=1000.0):
    """Equal users; each sends all of a window through one proxy, and has a version."""
    rng = np.random.default_rng(2)
    versions = np.where(rng.random(users) < split, "v2", "v1")
    crowd = Crowd()
    for _ in range(windows):
        sent, at = rng.poisson(each / users, users), rng.integers(0, proxies, users)
        crowd = crowd.plus(
            seen(
                *((f"p{p}", "everyone", v, int(sent[(at == p) & (versions == v)].sum()))
                  for p in range(proxies) for v in ("v1", "v2"))
            )
        )  # fmt: skip
    return crowd


@pytest.mark.parametrize("users", [20, 200])
@pytest.mark.parametrize("split", [0.0, 0.5])
def test_how_few_users_there_are_is_learned_whatever_their_versions(users, split):
    crowd = taught(users, split=split)

    assert crowd.known
    assert crowd.alike == pytest.approx(1.5 / users, rel=0.4)


def test_users_who_send_once_leave_no_trace():
    assert taught(100_000).alike < 0.001


def test_with_one_proxy_nothing_is_known():
    crowd = taught(20, proxies=1)

    assert not crowd.known
    assert crowd.within(1.0).alike == 0


def test_a_part_of_the_requests_may_have_all_the_heavy_users():
    crowd = Crowd(seen=0.01 / 1.5, possible=1.0, windows=50.0)

    assert crowd.within(1.0).alike == pytest.approx(0.01)
    assert crowd.within(0.25).alike == pytest.approx(0.04)
    assert crowd.within(0.25).heaviest == pytest.approx(0.4)
    assert crowd.within(0.0001).alike == 1.0
    assert crowd.within(0.0).known is False


def test_windows_are_as_long_whatever_the_interval():
    rows = [("p", "everyone", "v1", 60), ("q", "everyone", "v1", 40)]
    half = [(p, s, v, n // 2) for p, s, v, n in rows]

    whole = split = Crowd()
    for _ in range(20):
        whole = whole.plus(seen(*rows))
        split = split.plus(seen(*half, seconds=15)).plus(seen(*half, seconds=15))

    assert split == whole


def test_requests_without_identity_and_doubtful_proxies_teach_nothing():
    rows = [("p", "everyone", "v1", 60), ("q", "everyone", "v1", 40)]
    odd = seen(*rows, ("p", "anonymous", "v1", 900), ("r", "everyone", "v1", 900), partial=(("r", "gap"),))

    assert Crowd().plus(odd) == Crowd().plus(seen(*rows))


def test_many_proxies_are_few_groups_and_a_stored_copy_goes_on_as_the_original():
    many = seen(*((f"p{i}", "everyone", "v1", 10) for i in range(300)), seconds=20)
    crowd = Crowd().plus(many).plus(many).plus(many)

    assert len(crowd.usual) <= 16
    assert Crowd.from_json(json.loads(json.dumps(crowd.to_json()))) == crowd
    assert replace(crowd).plus(many) == Crowd.from_json(crowd.to_json()).plus(many)
