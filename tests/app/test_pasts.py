"""What the past teaches is the same, whether an observation was made for it or not."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.app.pasts import STORED_EVERY, TOGETHER, Pasts
from controlplane.evidence.learned import Learned, learn
from controlplane.evidence.observation import NO_BUCKETS, Cell, Observation, Tally
from controlplane.evidence.observed import Observed
from tests.app.site import T0

STABLE = {"shop": "v1", "cart": "v1", "pay": "v1"}
COUNTS = st.sampled_from([0, 0, 1, 40, 900])
INTERVALS = st.lists(
    st.tuples(st.sampled_from([5.0, 4.9, 1.0, 40.0]), st.tuples(COUNTS, COUNTS, st.just(0))), max_size=12
)


def observation(service, start, end, count):
    cells = tuple(
        (Cell(proxy, "everyone", version), Tally(count, count // 7, 0, 0, NO_BUCKETS))
        for proxy in ("a", "b")
        for version in ("v1", "v2")
    )
    return Observation(service, start, end, cells if count else (), ("a", "b"), (), (("c", "restarted"),))


def taught(pasts, observed, start, end, releasing=MappingProxyType({})):
    steps = pasts.learning(observed, (start, end), STABLE, releasing)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def passed(pasts, counts, times=1, releasing=MappingProxyType({})):
    """Let intervals pass, each with these counts by service; return what each stored."""
    stored = []
    for _ in range(times):
        end = T0 + timedelta(seconds=5)
        seen = {service: observation(service, T0, end, count) for service, count in counts.items()}
        lesson = taught(pasts, Observed.of(seen), T0, end, releasing)
        pasts.commit(lesson)
        stored.append(lesson.stored)
    return stored


@settings(max_examples=60, deadline=None)
@given(intervals=INTERVALS)
def test_a_past_is_what_all_its_observations_teach(intervals):
    pasts, plain, start = Pasts(), dict.fromkeys(STABLE, Learned()), T0
    for seconds, counts in intervals:
        end = start + timedelta(seconds=seconds)
        seen = {s: observation(s, start, end, n) for s, n in zip(STABLE, counts, strict=True)}
        pasts.commit(taught(pasts, Observed.of(seen), start, end))
        plain = {service: learn(plain[service], seen[service], "v1") for service in STABLE}
        start = end

    assert {service: pasts.of(service) for service in STABLE} == plain


def test_no_observation_is_made_of_what_was_not_counted():
    def make(service, healthy):
        raise AssertionError(f"{service} was asked for")

    pasts = Pasts()

    pasts.commit(taught(pasts, Observed(STABLE.keys(), set(), make), T0, T0 + timedelta(seconds=5)))

    assert pasts.of("shop") is pasts.of("cart")
    assert pasts.of("shop").long.seconds == 5


def test_what_is_not_committed_is_not_learned():
    pasts = Pasts()

    taught(pasts, Observed.of({"shop": observation("shop", T0, T0 + timedelta(seconds=5), 40)}), T0, T0)

    assert pasts.of("shop") == Learned()


def test_many_services_are_what_each_of_them_would_be():
    counts = {f"m{number}": (number * 37) % 900 for number in range(3 * TOGETHER + 1)}
    together = Pasts()

    (stored,) = passed(together, counts)

    for service, count in counts.items():
        alone = Pasts()
        passed(alone, {service: count})
        assert together.of(service) == alone.of(service)
    assert stored == {service: together.of(service).to_json() for service, count in counts.items() if count}


def test_what_was_counted_is_stored_at_once_and_what_fades_seldom():
    pasts = Pasts()

    counted = passed(pasts, {"shop": 40, "cart": 0})
    quiet = passed(pasts, {"shop": 0, "cart": 0}, 3 * STORED_EVERY)

    assert [sorted(each) for each in counted] == [["shop"]]
    assert sum(map(len, quiet)) == 3
    assert quiet[-1] == {} or quiet[-1]["shop"] == pasts.of("shop").to_json()


@pytest.mark.parametrize("left", [False, True])
def test_a_past_fades_without_counts_unless_a_release_leaves_nobody_on_the_version(left):
    pasts = Pasts()
    passed(pasts, {"shop": 900, "cart": 900})
    before = pasts.of("shop").total

    passed(pasts, {"shop": 0, "cart": 0}, 20, releasing={"shop": left})

    assert (pasts.of("shop").total == before) is left
    assert pasts.of("cart").total < before


def test_what_is_learned_of_a_release_is_stored_in_each_interval():
    assert passed(Pasts(), {"shop": 0}, 3, releasing={"shop": False})[-1].keys() == {"shop"}


@pytest.mark.parametrize("times", [1, STORED_EVERY, 2 * STORED_EVERY + 1])
def test_after_a_restart_a_past_has_faded_as_far_as_was_stored(times):
    pasts, stored = Pasts(), {}
    for each in (*passed(pasts, {"shop": 900}), *passed(pasts, {"shop": 0}, times)):
        stored |= each

    again = Pasts(stored)

    ahead = pasts.of("shop").recent[0] / again.of("shop").recent[0]
    assert 0.5 ** (STORED_EVERY * 5 / 30) <= ahead <= 1
    assert passed(again, {"shop": 0}, STORED_EVERY) != [{}] * STORED_EVERY
