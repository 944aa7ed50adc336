"""Heavy users, learned from how unevenly requests fall on proxies."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from world import START

from controlplane.evidence import Agreement, Cell, Observation, Tally, check_split
from controlplane.evidence.crowd import Crowd


def seen(*cells, seconds=30, **more):
    tallies = tuple((Cell(p, s, v), Tally(n)) for p, s, v, n in cells)
    return Observation("shop", START, START + timedelta(seconds=seconds), tallies, **more)


def taught(users, windows=200, proxies=3, split=0.0, each=1000.0, stay=1):
    """Equal users; each has a version, and one proxy in a window, and for `stay` of them in the mean."""
    rng = np.random.default_rng(2)
    versions = np.where(rng.random(users) < split, "v2", "v1")
    crowd, at = Crowd(), rng.integers(0, proxies, users)
    for _ in range(windows):
        sent, new = rng.poisson(each / users, users), rng.integers(0, proxies, users)
        at = np.where(rng.random(users) < 1 / stay, new, at)
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


@pytest.mark.parametrize("users", [20, 200])
def test_users_who_move_now_and_then_are_learned_too(users):
    assert 0.75 / users < taught(users, stay=6).alike < 3 / users


def flowing(shares, minutes, rps=100):
    """Requests of users who send once, each 5 s, over the proxies that have a share at that second."""
    rng, crowd = np.random.default_rng(1), Crowd()
    for second in range(0, 60 * minutes, 5):
        at = {proxy: share for proxy, share in shares(second).items() if share}
        cells = ((p, "everyone", "v1", int(rng.poisson(5 * rps * share))) for p, share in at.items())
        crowd = crowd.plus(seen(*cells, seconds=5, fresh=tuple(at)))
    return crowd


EVENLY = {"p": 1 / 3, "q": 1 / 3, "r": 1 / 3}


def restarted(second):
    """Each proxy is away for 20 s, one after the other, from minute 20 on."""
    away = next(
        (p for p, begin in zip("pqr", (1200, 1240, 1280), strict=True) if 0 <= second - begin < 20), ""
    )
    return {p: 0.5 for p in "pqr" if p != away} if away else EVENLY


def moved(second):
    return EVENLY if second < 1200 else {"p": 0.6, "q": 0.3, "r": 0.1}


def returned(second):
    """After a minute away nearly nobody comes back to it, as with connections that last."""
    return EVENLY if second < 1200 else {"q": 0.5, "r": 0.5} | ({"p": 0.01} if second >= 1260 else {})


def scaled(second):
    return EVENLY if second < 1200 else dict.fromkeys("pqrstu", 1 / 6)


@pytest.mark.parametrize("minutes", [21, 23, 25, 30, 60])
@pytest.mark.parametrize("shares", [restarted, moved, returned, scaled])
def test_what_moves_the_traffic_of_proxies_is_not_taken_for_heavy_users(shares, minutes):
    crowd = flowing(shares, minutes)
    one, whole = crowd.within(1 / 3), crowd.within(1.0)

    assert crowd.known
    assert crowd.alike < 0.001
    for asked, true in ((0.1, 0.4), (0.1, 0.3), (0.5, 0.2), (0.25, 0.05)):
        for requests, crowding in ((2000, one), (6000, whole)):
            canary = int(true * requests)
            verdict = check_split(asked, canary, requests - canary, crowding=crowding)
            assert verdict.agreement is Agreement.DISAGREES


def test_heavy_users_who_come_are_learned_within_ten_minutes():
    rng, crowd = np.random.default_rng(3), flowing(lambda _: EVENLY, 20)
    for _ in range(20):
        heavy = np.bincount(rng.integers(0, 3, 5), minlength=3) * 400
        crowd = crowd.plus(
            seen(*((p, "everyone", "v1", int(333 + got)) for p, got in zip("pqr", heavy, strict=True)))
        )

    assert crowd.alike > 0.015


@pytest.mark.parametrize("proxies", [2, 3, 8, 16])
def test_what_is_left_out_is_made_up_for_whatever_the_number_of_proxies(proxies):
    assert taught(20, proxies=proxies).alike == pytest.approx(1.5 / 20, rel=0.35)


def test_intervals_without_requests_are_no_gaps():
    """Of a service that had none nobody looks who was there."""
    rng, crowd, quiet = (
        np.random.default_rng(4),
        Crowd(),
        Observation("", START, START + timedelta(seconds=5)),
    )
    names = ("p0", "p1", "p2")
    for number in range(1500):
        at = rng.integers(0, 3, 20)
        cells = ((name, "everyone", "v1", 15 * int((at == p).sum())) for p, name in enumerate(names))
        crowd = crowd.plus(quiet if number % 3 else seen(*cells, seconds=5, fresh=names))

    assert crowd.known
    assert crowd.alike > 0.02


def test_with_few_requests_a_window_waits_for_more():
    rows = [("p", "everyone", "v1", 6), ("q", "everyone", "v1", 4)]
    crowd = Crowd().plus(seen(*rows)).plus(seen(*rows))

    assert not crowd.past
    assert crowd.plus(seen(*rows)).past == ({"p": 18, "q": 12},)


def test_what_an_earlier_version_had_come_to_is_believed_until_as_much_is_known():
    older = Crowd.from_json([5.0, {"p": 3.0}, {"p": 9.0, "q": 9.0}, 0.02, 2.0, 20.0])

    assert older == Crowd(alike=0.015, known=True)
    assert not Crowd.from_json([5.0, {"p": 3.0}, {"p": 9.0, "q": 9.0}, 0.02, 2.0, 5.0]).known
    assert Crowd.from_json([0.0, {}, {}, 0.0, 0.0, 0.0]) == Crowd()


def test_users_who_send_once_leave_no_trace():
    assert taught(100_000).alike < 0.001


def test_with_one_proxy_nothing_is_known():
    crowd = taught(20, proxies=1)

    assert not crowd.known
    assert crowd.within(1.0).alike == 0


def test_a_part_of_the_requests_may_have_all_the_heavy_users():
    crowd = Crowd(alike=0.01, known=True)

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
    crowd = Crowd()
    for _ in range(31):
        crowd = crowd.plus(many)

    assert len(crowd.past[0]) <= 16
    assert Crowd.from_json(json.loads(json.dumps(crowd.to_json()))) == crowd
    assert replace(crowd).plus(many) == Crowd.from_json(crowd.to_json()).plus(many)
