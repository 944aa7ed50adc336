import json
from dataclasses import replace
from datetime import timedelta
from math import sin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import GOOD, START, Traffic, World, past

from controlplane.evidence import Cell, Learned, Observation, Tally, learn
from controlplane.evidence.learned import learn_all
from controlplane.evidence.table import CLIENT_ERRORS, ERRORS


def seen(*cells, seconds=5.0, **more):
    tallies = tuple((Cell(p, s, v), Tally(n, k)) for p, s, v, n, k in cells)
    return Observation("shop", START, START + timedelta(seconds=seconds), tallies, **more)


def taught(observation, times, learned=None, **more):
    learned = learned or Learned()
    for _ in range(times):
        learned = learn(learned, observation, "v1", **more)
    return learned


def test_without_history_rates_are_guessed_and_errors_taken_to_be_clustered():
    assert Learned().rate(ERRORS) == pytest.approx(0.01)
    assert Learned().swing(ERRORS) == 3
    assert Learned().figures.spreads[0, ERRORS - 1] == 1


def test_rate_is_that_of_the_stable_version_with_identity():
    learned = taught(
        seen(
            ("p", "everyone", "v1", 1000, 2),
            ("p", "everyone", "v2", 1000, 900),
            ("p", "anonymous", "v1", 500, 500),
        ),
        60,
    )

    assert learned.rate(ERRORS) == pytest.approx(0.002, rel=0.02)
    assert learned.rate(CLIENT_ERRORS) < 1e-4


def test_a_proxy_whose_counters_do_not_add_up_teaches_nothing():
    learned = taught(seen(("p", "everyone", "v1", 1000, 500), partial=(("p", "cap reached"),)), 10)

    assert learned.total[0] == 0


def test_an_outage_does_not_become_normal():
    calm = taught(seen(("p", "everyone", "v1", 1000, 2), ("q", "everyone", "v1", 1000, 2)), 60)

    outage = taught(seen(("p", "everyone", "v1", 1000, 200), ("q", "everyone", "v1", 1000, 200)), 24, calm)

    assert outage.unusual(ERRORS)
    assert outage.rate(ERRORS) < 0.004
    assert outage.rate_now(ERRORS) > 0.15
    assert outage.figures.clusters[0, ERRORS - 1] < 1.5 * calm.figures.clusters[0, ERRORS - 1]


def test_unusual_ends_after_the_outage():
    quiet = seen(("p", "everyone", "v1", 1000, 2))
    outage = taught(seen(("p", "everyone", "v1", 1000, 200)), 24, taught(quiet, 60))

    assert not taught(quiet, 48, outage).unusual(ERRORS)


@pytest.mark.parametrize("noise", ["iid", "harsh"])
def test_dispersion_tells_independent_errors_from_clusters(noise):
    world = World(noise=noise, history=900, interval=5, base=0.01, proxies=(0.4, 0.3, 0.3))

    learned = past(Traffic(world, GOOD, seed=1))

    assert (learned.swing(ERRORS) < 2) == (noise == "iid")
    assert (learned.figures.clusters[0, ERRORS - 1] / learned.rate(ERRORS) > 0.5) == (noise == "iid")


def test_json_round_trip_loses_nothing():
    world = World(noise="harsh", history=131)
    learned = past(Traffic(world, GOOD, seed=2))

    assert Learned.from_json(json.loads(json.dumps(learned.to_json()))) == learned


PLACES = st.one_of(
    st.just([]),
    st.just([("p", "everyone")]),
    st.lists(
        st.tuples(st.sampled_from([f"p{i}" for i in range(12)]), st.sampled_from(["everyone", "beta"])),
        min_size=1,
        max_size=24,
        unique=True,
    ),
)
COUNTS = st.tuples(st.sampled_from([1, 7, 300, 100_000]), st.floats(0, 1), st.booleans())
INTERVAL = st.tuples(
    st.sampled_from([5.0, 4.9, 1.0, 15.0, 31.0]), PLACES, st.lists(COUNTS, min_size=24, max_size=24)
)


def interval(seconds, places, counts):
    """An interval in which one of many requests fails; in an outage, up to all of them."""
    cells = [
        (*place, "v1", n, round(n * share * (1 if outage else 0.02)))
        for place, (n, share, outage) in zip(places, counts, strict=False)
    ]
    return seen(*sorted(cells), seconds=seconds)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(INTERVAL, min_size=3, max_size=3), min_size=2, max_size=5), st.integers(0, 40))
def test_what_is_learned_together_is_what_each_learns_alone(pasts, before):
    usual = taught(seen(("p1", "everyone", "v1", 900, 9), ("p2", "everyone", "v1", 900, 5)), before)
    alone = together = [usual if at % 2 else Learned() for at in range(len(pasts))]
    stables, left = ["v1"] * len(pasts), [bool(at % 3) for at in range(len(pasts))]

    for each in zip(*pasts, strict=True):
        observations = [interval(*one) for one in each]
        alone = [
            learn(known, observation, "v1", left=emptied)
            for known, observation, emptied in zip(alone, observations, left, strict=True)
        ]
        together = learn_all(together, observations, stables, left)

    assert [each.to_json() for each in together] == [each.to_json() for each in alone]


def test_nothing_is_learned_of_no_pasts():
    assert learn_all([], [], [], []) == []


def test_order_of_cells_does_not_matter():
    observation = Traffic(World(), GOOD, seed=3).step({})[0]
    turned = replace(observation, cells=observation.cells[::-1])

    assert learn(Learned(), observation, "v1") == learn(Learned(), turned, "v1")


def test_an_interval_without_requests_is_learned():
    learned = taught(seen(), 20, taught(seen(("p", "everyone", "v1", 1000, 2)), 10))

    assert learned.rate(ERRORS) == pytest.approx(0.002, rel=0.05)


def test_how_far_a_version_swings_is_not_forgotten_while_nobody_is_left_on_it():
    """Half a day at 100 % without a hold-back: limits alone judge, and by what was learned before."""
    traffic = Traffic(World(noise="harsh", interval=5.0, history=1800.0), GOOD, seed=3)
    before = past(traffic)
    gone = seen(("p0", "everyone", "v2", 500, 3), seconds=60.0)

    after = taught(gone, 12 * 60, before)

    assert after.swing(ERRORS) == before.swing(ERRORS) > 4
    assert after.total[0] < 1 < before.total[0]


@pytest.mark.parametrize("cells", [(("p", "everyone", "v2", 500, 3),), ()], ids=["some", "none"])
def test_what_was_usual_is_not_forgotten_while_a_release_leaves_nobody_on_the_version(cells):
    before = taught(seen(("p", "everyone", "v1", 500, 1), ("q", "everyone", "v1", 500, 1)), 300)

    after = taught(seen(*cells, seconds=60.0), 12 * 60, before, left=True)
    again = taught(seen(("p", "everyone", "v1", 500, 10)), 2000, after, left=True)

    assert (after.total, after.cells) == (before.total, before.cells)
    assert after.rate_now(ERRORS) == pytest.approx(before.rate(ERRORS))  # what was of late is not of late now
    assert again.rate(ERRORS) == pytest.approx(0.02, rel=0.05)  # who is there all the same teaches


def test_an_only_cell_is_compared_with_its_own_last_window():
    def learned(errors):
        known = Learned()
        for i in range(400):
            known = learn(known, seen(("p", "everyone", "v1", 500, errors(i))), "v1")
        return known

    steady = learned(lambda i: 3)
    bursts = learned(lambda i: 30 if i % 10 == 0 else 0)

    assert steady.swing(1) < 1.5
    assert bursts.swing(1) > steady.swing(1)
    assert bursts.figures.clusters[0, 0] < steady.figures.clusters[0, 0]


def swaying(factor):
    """Return what 100 minutes teach in which both proxies have ``factor(quarter minute)`` times 50 events."""
    known = Learned()
    for i in range(1200):
        errors = round(50 * factor(i // 3))
        known = learn(
            known, seen(("p", "everyone", "v1", 1000, errors), ("q", "everyone", "v1", 1000, errors)), "v1"
        )
    return known


def test_what_moves_a_whole_version_at_once_is_its_own_and_slow_drift_is_not():
    steady = swaying(lambda _: 1.0)
    pauses = swaying(lambda window: 1.4 if (window * 7919) % 5 == 0 else 0.9)  # variance 0.2 x 0.8 x 0.5^2
    drift = swaying(lambda window: 1 + 0.4 * sin(window / 40))

    assert steady.figures.sways[0, ERRORS - 1] == 0
    assert 0.02 < pauses.figures.sways[0, ERRORS - 1] < 0.08
    assert drift.figures.sways[0, ERRORS - 1] < 0.1 * pauses.figures.sways[0, ERRORS - 1]
    assert pauses.swing(ERRORS) == 1.0  # beside one another its cells look alike


def uneven(seconds):
    """Return what is learned by statistics each so many seconds of cells that go up and down each minute."""
    known = Learned()
    for i in range(int(7200 / seconds)):
        up, down = (60, 40) if int(i * seconds / 60) % 2 else (40, 60)
        errors = [round(half * seconds / 5) for half in (up, down)]
        requests = round(200 * seconds)
        counts = (("p", "everyone", "v1", requests, errors[0]), ("q", "everyone", "v1", requests, errors[1]))
        known = learn(known, seen(*counts, seconds=seconds), "v1")
    return known


@pytest.mark.parametrize("seconds", [1, 10, 30, 60])
def test_what_is_learned_of_unevenness_does_not_hang_on_how_often_statistics_come(seconds):
    usual, other = uneven(5), uneven(seconds)

    assert usual.figures.unevennesses[0, ERRORS - 1] > 0.05
    both = (each.figures.unevennesses[0, ERRORS - 1] for each in (other, usual))
    assert next(both) == pytest.approx(next(both), rel=0.1)


def test_an_only_cell_does_not_count_its_swings_twice():
    known = Learned()
    for i in range(400):
        known = learn(known, seen(("p", "everyone", "v1", 1000, 70 if i % 30 < 6 else 45)), "v1")

    assert known.figures.unevennesses[0, ERRORS - 1] > 0
    assert known.figures.sways[0, ERRORS - 1] == 0


def test_bursts_of_the_past_say_how_likely_they_are():
    known = Learned()
    for i in range(100):
        known = learn(known, seen(("p", "everyone", "v1", 1000, 9 if i == 50 else 1)), "v1")

    five, eight, twelve = known.figures.bursts[0, :3, 0]

    assert five == eight
    assert twelve < eight
    assert 1e-6 < twelve < 1e-4
    assert Learned().figures.bursts[0, 0, 0] == 1.0


def test_what_an_earlier_version_stored_is_read():
    data = Learned().to_json()
    for new in ("bursts", "exposed", "last", "crowd", "lags", "before", "swaying"):
        del data[new]

    assert Learned.from_json(data) == Learned()
