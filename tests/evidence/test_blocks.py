from dataclasses import replace
from datetime import timedelta

import pytest
from world import START

from controlplane.evidence import Cell, Observation, Tally
from controlplane.evidence.blocks import cut
from controlplane.evidence.observation import GROUPS
from controlplane.evidence.table import ERRORS


def seen(*cells):
    tallies = tuple((Cell(p, s, v), Tally(n, k)) for p, s, v, n, k in cells)
    return Observation("shop", START, START + timedelta(seconds=1), tallies)


def pairs(blocks):
    sides = zip(blocks.canary, blocks.baseline, strict=True)
    counts = [(new[0], new[ERRORS], old[0], old[ERRORS]) for new, old in sides]
    return [(segment, [int(n) for n in row]) for segment, row in zip(blocks.segments, counts, strict=True)]


def test_each_proxy_and_segment_is_a_block():
    found = cut(
        seen(
            ("p", "beta", "v1", 5, 1), ("p", "beta", "v2", 6, 2), ("p", "everyone", "v1", 50, 0),
            ("q", "beta", "v2", 7, 3), ("q", "everyone", "v0", 9, 9),
        ), "v2", "v1", frozenset(),
    )  # fmt: skip

    assert pairs(found) == [("beta", [6, 2, 5, 1]), ("everyone", [0, 0, 50, 0]), ("beta", [7, 3, 0, 0])]
    assert found.canary_sum[:2] == (13, 5)
    assert found.baseline_sum[:2] == (55, 1)


def test_a_full_segment_borrows_the_baseline_of_its_proxy():
    observation = seen(
        ("p", "staff", "v2", 5, 1), ("p", "beta", "v1", 30, 1), ("p", "everyone", "v1", 50, 2),
        ("q", "everyone", "v1", 70, 4),
    )  # fmt: skip

    found = cut(observation, "v2", "v1", frozenset({"staff"}))

    assert pairs(found)[2] == ("staff", [5, 1, 80, 3])
    assert found.borrowed.tolist() == [False, False, True, False]
    assert found.sums["staff"][1][:2] == (80, 3)
    assert found.baseline_sum[:2] == (150, 7)


def test_each_proxy_lends_the_sum_of_its_own_baseline_and_one_without_any_lends_nothing():
    observation = seen(
        ("p", "beta", "v1", 30, 1), ("p", "everyone", "v1", 50, 2), ("p", "staff", "v2", 5, 1),
        ("q", "beta", "v1", 60, 3), ("q", "everyone", "v1", 70, 4), ("q", "staff", "v2", 6, 1),
        ("r", "everyone", "v2", 8, 0), ("r", "staff", "v2", 7, 1),
    )  # fmt: skip

    found = cut(observation, "v2", "v1", frozenset({"staff"}))

    staff = [row for segment, row in pairs(found) if segment == "staff"]
    assert staff == [[5, 1, 80, 3], [6, 1, 130, 7], [7, 1, 0, 0]]
    assert found.sums["staff"][1][:2] == (210, 10)
    assert found.sums["everyone"][1][:2] == (120, 6)


def test_blocks_of_one_observation_leave_those_of_the_next_alone():
    first = seen(("p", "staff", "v2", 5, 1), ("p", "everyone", "v1", 50, 2))
    second = seen(("p", "staff", "v2", 6, 0), ("p", "everyone", "v1", 70, 3))
    full = frozenset({"staff"})

    found = cut(first, "v2", "v1", full), cut(second, "v2", "v1", full), cut(first, "v2", "v1", frozenset())

    assert [dict(pairs(blocks))["staff"] for blocks in found] == [[5, 1, 50, 2], [6, 0, 70, 3], [5, 1, 0, 0]]


def test_requests_without_identity_or_decided_elsewhere_and_doubtful_proxies_are_left_out():
    observation = seen(
        ("p", "anonymous", "v2", 5, 5), ("p", "followed", "v2", 5, 5), ("q", "everyone", "v2", 5, 5)
    )  # fmt: skip

    assert cut(replace(observation, partial=(("q", "gap"),)), "v2", "v1", frozenset()).segments == ()


@pytest.mark.parametrize("told", ["fresh", "silent", "late", "reporting", "partial"])
def test_proxies_stay_in_their_group_when_some_have_no_request(told):
    names = tuple(f"proxy-{i:02}" for i in range(GROUPS + 2))
    all_ = seen(*((name, "everyone", "v1", 10, 0) for name in names))
    few = seen(*((name, "everyone", "v1", 10, 0) for name in names[3:]))

    few = replace(few, **{told: tuple((name, "why") for name in names) if told == "partial" else names})

    assert few.groups == {name: all_.groups[name] for name in names[3:]}


def test_many_proxies_are_merged_into_few_groups_whatever_their_order():
    cells = [(f"proxy-{i}", "everyone", v, 10, 1) for i in range(200) for v in ("v1", "v2")]

    found = cut(seen(*cells), "v2", "v1", frozenset())

    assert len(found.segments) == GROUPS
    assert found.canary_sum[:2] == (2000, 200)
    assert pairs(found) == pairs(cut(seen(*cells[::-1]), "v2", "v1", frozenset()))
