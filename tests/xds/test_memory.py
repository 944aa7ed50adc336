"""What is remembered for sharing: no more than it may be, and the newest of it."""

from __future__ import annotations

from controlplane.xds import sets
from controlplane.xds.memory import IdentityCache, release, weight
from controlplane.xds.snapshot import Resource, Snapshot, difference
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, PUSH_ORDER
from controlplane.xds.version import Version
from controlplane.xds.wire import sotw_response


def resources(count, size, prefix="r"):
    found = (
        Resource(f"{prefix}{n}", b"x" * size, Version(1, f"{prefix}{n}"), follows=(CLUSTER, "c"))
        for n in range(count)
    )
    return {each.name: each for each in found}


def test_a_cache_is_bound_by_bytes_and_keeps_the_newest():
    cache, made = IdentityCache(10, most=weight(resources(2, 1000).values())), []
    inputs = [tuple(resources(1, 1000, prefix).values()) for prefix in "abc"]
    huge = tuple(resources(50, 1000).values())

    def get(key):
        return cache.get(key, lambda: made.append(key) or len(made))

    assert [get(key) for key in inputs] == [1, 2, 3]
    assert [get(inputs[1]), get(inputs[2]), get(inputs[0])] == [2, 3, 4]
    assert [get(huge), get(huge)] == [5, 5]
    release()
    assert get(huge) == 6


def test_sets_that_were_sent_are_kept_up_to_some_bytes():
    base = resources(100, 50_000)

    for edit in range(30):
        sets.remember(CLUSTER, f"1.apart{edit}", resources(100, 50_000), "g")
    apart = [edit for edit in range(30) if sets.recall(CLUSTER, f"apart{edit}")]
    for edit in range(30):
        changed = {**base, "r7": Resource("r7", b"y" * 50_000, Version(1, f"{edit}"))}
        sets.remember(CLUSTER, f"1.alike{edit}", changed, "h")
    alike = [edit for edit in range(30) if sets.recall(CLUSTER, f"alike{edit}")]

    assert apart == [29]
    assert alike == list(range(30))  # what they have in common is there once
    sets.forget("h")
    assert not any(sets.recall(CLUSTER, f"alike{edit}") for edit in range(30))


def test_a_large_response_is_the_same_whether_it_is_remembered_or_not():
    many = [resources(100, 5_000, prefix) for prefix in "abc"]

    first = [sotw_response(CLUSTER, each, 1, "1", "me") for each in many]
    again = [sotw_response(CLUSTER, each, 1, "1", "me") for each in many]
    release()

    assert first == again == [sotw_response(CLUSTER, each, 1, "1", "me") for each in many]


def test_what_refers_to_what_is_known_of_the_next_snapshot_where_that_stays():
    table = resources(3, 10)
    old = Snapshot(0, {ENDPOINT: table, CLUSTER: {}}, PUSH_ORDER)
    changed = Resource("r1", b"y", Version(2, "new"), follows=(CLUSTER, "c"))
    strayed = Resource("r1", b"z", Version(3, "newer"), follows=(CLUSTER, "d"))
    followers = old.relations.followers

    alike = Snapshot(0, {ENDPOINT: {**table, "r1": changed}, CLUSTER: {}}, PUSH_ORDER)
    other = Snapshot(0, {ENDPOINT: {**table, "r1": strayed}, CLUSTER: {}}, PUSH_ORDER)
    fewer = Snapshot(0, {ENDPOINT: {"r1": changed}, CLUSTER: {}}, PUSH_ORDER)
    names = [difference(old, each).names for each in (alike, other, fewer)]

    assert names == [{ENDPOINT: ("r1",)}, {ENDPOINT: ("r1",)}, {ENDPOINT: ("r0", "r1", "r2")}]
    assert alike.relations.followers is followers
    assert other.relations.followers[CLUSTER, "d"] == ((ENDPOINT, "r1"),)
    assert fewer.relations.followers == {(CLUSTER, "c"): ((ENDPOINT, "r1"),)}
