"""Values that are pushed: sums, users that count once, keys, and that nothing is stored twice or lost."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from controlplane.evidence import Evidence, Learned, Limits, Outcome, Stage, fold, next_step, verdicts
from controlplane.evidence.conversions import Conversions
from controlplane.evidence.measures import Measured
from controlplane.evidence.observation import Measure, Observation
from controlplane.sources.pushed import MAX_KEYS, Pushed, Values, cell

START = datetime(2026, 1, 1, tzinfo=UTC)
V2 = cell("everyone", "v2")
PLACE = ("shop", "orders", V2)


def test_pushes_add_up_until_they_are_stored():
    pushed = Pushed(clock=lambda: 0.0)
    pushed.receive(PLACE, Values(10, 2), "", summed=False)
    pushed.receive(PLACE, Values(5, 1), "", summed=False)

    assert pushed.take() == {"shop": (Measure(V2, "orders", 3, 15, age=0.0),)}
    pushed.receive(PLACE, Values(1, 1), "", summed=False)
    pushed.commit()
    assert pushed.take() == {"shop": (Measure(V2, "orders", 1, 1, age=0.0),)}
    pushed.commit()
    assert pushed.take() == {}


def test_a_push_with_a_key_counts_once():
    pushed = Pushed(clock=lambda: 0.0)

    first = pushed.receive(PLACE, Values(10, 2), "a", summed=False)
    again = pushed.receive(PLACE, Values(10, 2), "a", summed=False)

    assert (first, again) == (True, False)
    assert pushed.take()["shop"][0].n == 10
    for number in range(MAX_KEYS):
        pushed.receive(PLACE, Values(1, 0), f"k{number}", summed=False)
    assert pushed.receive(PLACE, Values(1, 0), "a", summed=False)  # the oldest keys are forgotten


@pytest.mark.parametrize(("summed", "total"), [(False, 2), (True, 37)])
def test_a_user_counts_once_and_converts_once_while_sums_add_up(summed, total):
    pushed = Pushed(clock=lambda: 0.0)
    pushed.receive(PLACE, Values(users={"ada": 0, "bob": 12}), "", summed=summed)
    pushed.take()
    pushed.commit()
    pushed.receive(PLACE, Values(users={"ada": 20, "bob": 5, "eve": 0}), "", summed=summed)
    [measure] = pushed.take()["shop"]

    assert measure.n == 1  # eve is new
    assert measure.total + (12 if summed else 1) == total


def test_in_a_new_era_every_user_is_new_and_none_acts_without_being_counted():
    pushed = Pushed(clock=lambda: 0.0)
    pushed.receive(PLACE, Values(users={"ada": 0, "bob": 1}), "", summed=False)
    pushed.take()
    pushed.commit()
    pushed.receive(PLACE, Values(users={"ada": 1}), "", summed=False)
    pushed.begin("shop", "v2#1/first")
    assert pushed.take() == {}

    pushed.receive(PLACE, Values(users={"ada": 1, "bob": 0, "eve": 0}), "", summed=False)
    assert pushed.take()["shop"] == (Measure(V2, "orders", 1, 3, among=3, age=0.0),)
    pushed.commit()
    pushed.receive(PLACE, Values(users={"bob": 1}), "", summed=False)
    pushed.begin("shop", "v2#1/first")
    assert pushed.take()["shop"] == (Measure(V2, "orders", 1, 0, among=2, age=0.0),)  # ada has acted
    pushed.commit()
    assert pushed.take()["shop"] == (Measure(V2, "orders", 0, 0, among=1, age=0.0),)


def test_during_a_release_it_is_known_how_old_the_last_push_is():
    now = 0.0
    pushed = Pushed(clock=lambda: now)
    pushed.begin("shop", "v2#1/first")
    pushed.receive(PLACE, Values(10, 2), "", summed=False)
    pushed.take()
    pushed.commit()
    now = 60.0

    assert pushed.take()["shop"] == (Measure(V2, "orders", 0, 0, age=60.0),)


def test_of_very_many_users_a_part_counts_of_both_versions_alike(monkeypatch):
    monkeypatch.setattr("controlplane.sources.pushed.MAX_USERS", 1000)
    pushed, v1 = Pushed(clock=lambda: 0.0), cell("everyone", "v1")
    pushed.begin("shop", "v2#1/first")
    for number in range(100):
        for version, users in ((v1, 60), (V2, 40)):
            named = {f"{version.version}.{number}.{i}": float(i % 5 == 0) for i in range(users)}
            pushed.receive(("shop", "orders", version), Values(users=named), "", summed=False)
        pushed.take()
        pushed.commit()
    old, new = pushed.take()["shop"]

    assert old.among is not None
    assert new.among is not None
    assert old.among <= 1000
    assert new.among / old.among == pytest.approx(40 / 60, rel=0.2)


def judged(seed, canary, ladder=(0.1, 0.5), ticks=180):
    """Pushes go on since before the release; users come again and again, and may order each time."""
    rng, pushed = np.random.default_rng(seed), Pushed(clock=lambda: 0.0)
    metric = Conversions("orders", Measured("orders", "orders", pushed=True), 0.05, 100)
    limits, evidence, passed = Limits(errors_margin=None, added=(metric,)), Evidence(), 0
    for step, share in enumerate((0.0, *ladder)):
        pushed.begin("shop", f"step {step}" if step else "")
        for _ in range(ticks):
            named = {"v1": {}, "v2": {}}
            for user in rng.integers(0, 20_000, 100):
                version = "v2" if user < 20_000 * share else "v1"
                rate = 0.03 * (canary if version == "v2" else 1)
                named[version][str(user)] = float(rng.random() < rate)
            for version, users in named.items():
                if users:
                    where = ("shop", "orders", cell("everyone", version))
                    pushed.receive(where, Values(users=users), "", summed=False)
            measures = pushed.take()["shop"]
            pushed.commit()
            if not step:
                continue
            passed += 10
            seen = Observation("shop", START, START + timedelta(seconds=10), fresh=("p",), measures=measures)
            at = Stage("v2", "v1", limits, timedelta(seconds=passed), 0.5)
            evidence = fold(evidence, Learned(), seen, at)
            if verdicts(evidence, Learned(), at)[0].outcome is Outcome.FAIL:
                return passed
        evidence = next_step(evidence)
    return None


def test_users_who_were_known_before_the_release_do_not_roll_it_back():
    good = [judged(seed, canary=1.0) for seed in range(6)]
    bad = [judged(seed, canary=0.4) for seed in range(3)]

    assert good == [None] * 6
    assert all(bad)
