"""Which intervals an A/B test rests on, where the split is wrong for a while."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from controlplane.evidence.learned import Learned
from controlplane.evidence.observation import Cell, Measure, Observation, Tally
from controlplane.policy.pinned import PinnedMetric
from controlplane.release import watch as watching
from controlplane.release.seen import Moment, Propagation
from controlplane.release.turn import Progress, turn
from controlplane.release.watch import Watch

MINUTE = timedelta(minutes=1)


def course(make, minutes, wrong=range(0), *, pushed=False, store=lambda watch: watch):
    """Run a test of two equal versions; yield its result after each minute.

    In the minutes of ``wrong`` routes send 5 % to the canary instead of 50 %, who buy three times as often.
    """
    metric = PinnedMetric(name="orders", better="more", pushed=pushed, every="10m")
    steps = (make.step("ten", "10%"), make.step("half", "50%", for_="0s"))
    ends = {"after": "14d", "do": "report", "per_user": 1}
    rules = make.policy(steps=steps, ends=ends, metrics=(metric,), observe=("orders",), conditions=())
    progress = Progress(make.state(policy=rules, elapsed=MINUTE))
    rng, held = np.random.default_rng(4), {"v1": (0, 0), "v2": (0, 0)}
    who = Propagation(("a",), ("a",))
    for minute in range(minutes):
        start, cells, measures = make.T0 + minute * MINUTE, [], []
        share = 0.05 if minute in wrong else 0.5
        for version, part in (("v1", 1 - share), ("v2", share)):
            n = int(rng.poisson(4000 * part))
            sold = int(rng.binomial(n, 0.3 if minute in wrong and version == "v2" else 0.1))
            cell = Cell("a", "everyone", version)
            cells.append((cell, Tally(n)))
            held[version] = held[version][0] + n, held[version][1] + sold
            if not pushed:
                measures.append(Measure(cell, "orders", sold))
            elif minute % 10 == 9:
                measures.append(Measure(cell, "orders", held[version][1], held[version][0], age=0.0))
                held[version] = 0, 0
        observation = Observation(
            "shop", start, start + MINUTE, tuple(cells), fresh=("a",), measures=tuple(measures)
        )
        moment = Moment(start + MINUTE, MINUTE, observation, propagation=who, endpoints=make.ENDPOINTS)
        took = turn(progress, Learned(), moment)
        progress = Progress(took.after.state, store(took.after.watch), took.after.verdicts)
        yield took.decision.code, *watching.results(progress.watch, progress.state)


@pytest.mark.parametrize("pushed", [False, True])
def test_a_test_forgets_what_it_saw_while_the_split_was_wrong(make, pushed):
    seen = list(course(make, 90, range(42, 58), pushed=pushed))

    code, wrong = seen[57]
    *_, (last, result) = seen
    assert (code, last) == ("split", "testing")
    for found in (wrong, result):
        assert found.said == "no difference seen"
        assert max(found.better, found.worse) < 10
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.change < found.high
    assert result.canary_n == pytest.approx(2000 * (70 if pushed else 74), rel=0.02)
    assert wrong.canary_n == pytest.approx(2000 * (40 if pushed else 42), rel=0.02)


def test_a_test_is_the_same_from_a_store_and_from_an_older_one(make):
    def older(watch):
        data = watch.to_json()
        del data["trial"]
        return Watch.from_json(data)

    *_, straight = course(make, 30)
    *_, stored = course(make, 30, store=lambda watch: Watch.from_json(watch.to_json()))
    *_, upgraded = course(make, 30, store=older)

    assert stored == straight == upgraded


def test_a_test_counts_what_is_seen_to_be_split_and_not_what_is_still_open(make):
    [*_, before, _] = course(make, 10)
    [*_, after] = course(make, 10, range(9, 10))

    # The minute alone shows that its split is wrong; it adds nothing but what may begin in it.
    assert (after[1].canary, after[1].canary_n) == (before[1].canary, before[1].canary_n)
    assert after[1].better == pytest.approx(before[1].better, rel=0.02)
