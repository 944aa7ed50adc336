"""Which intervals an A/B test rests on, where the split is wrong for a while."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from controlplane.evidence.learned import Learned
from controlplane.evidence.observation import Cell, Measure, Observation, Tally
from controlplane.policy.pinned import PinnedMetric
from controlplane.release import watch as watching
from controlplane.release.eras import era
from controlplane.release.seen import Moment, Propagation
from controlplane.release.turn import Progress, turn
from controlplane.release.watch import Watch
from controlplane.sources.pushed import Pushed, Values, cell

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
    assert result.canary_n == pytest.approx(2000 * (60 if pushed else 74), rel=0.02)
    assert wrong.canary_n == pytest.approx(2000 * (30 if pushed else 42), rel=0.02)


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


def by_user(make, minutes, wrong, *, anew=True):
    """Run a test of two equal versions, of which orders are pushed by user; yield its result.

    In the minutes of ``wrong`` all but 5 % of the users have the old version.
    """
    metric = PinnedMetric(name="orders", better="more", pushed=True, every="5m")
    steps = (make.step("ten", "10%"), make.step("half", "50%", for_="0s"))
    ends = {"after": "14d", "do": "report"}
    rules = make.policy(steps=steps, ends=ends, metrics=(metric,), observe=("orders",), conditions=())
    progress = Progress(make.state(policy=rules, elapsed=MINUTE))
    rng, pushed, who = np.random.default_rng(4), Pushed(born="a"), Propagation(("a",), ("a",))
    for minute in range(minutes):
        start, share = make.T0 + minute * MINUTE, 0.05 if minute in wrong else 0.5
        state = progress.state if anew else progress.state.model_copy(update={"apart": False})
        pushed.begin("shop", era(state))
        came = rng.integers(0, 3000, 600)
        cells = []
        for version, mine in (("v1", came >= 3000 * share), ("v2", came < 3000 * share)):
            cells.append((Cell("a", "everyone", version), Tally(int(rng.poisson(4000 * mine.mean())))))
            named = {str(user): float(rng.random() < 0.02) for user in came[mine]}
            pushed.receive(
                ("shop", "orders", cell("everyone", version)), Values(users=named), "", summed=False
            )
        measures = tuple(sorted(pushed.take()["shop"]))
        pushed.commit()
        observation = Observation(
            "shop", start, start + MINUTE, tuple(cells), fresh=("a",), measures=measures
        )
        moment = Moment(start + MINUTE, MINUTE, observation, propagation=who, endpoints=make.ENDPOINTS)
        took = turn(progress, Learned(), moment)
        progress = Progress(took.after.state, took.after.watch, took.after.verdicts)
        yield took.decision.code, *watching.results(progress.watch, progress.state)


def test_users_who_had_the_wrong_version_for_a_while_are_new_after_it(make):
    seen = list(by_user(make, 90, range(42, 58)))
    *_, (_, mixed) = by_user(make, 90, range(42, 58), anew=False)

    (_, before), (code, wrong), (last, result) = seen[41], seen[57], seen[-1]
    assert (code, last) == ("split", "testing")
    assert wrong.canary == pytest.approx(before.canary, abs=0.02)  # of when it was right
    assert result.said == "no difference seen"
    assert result.canary_n == pytest.approx(3000, rel=0.05)  # 1500 before, and as many after
    assert result.baseline_n == pytest.approx(3000, rel=0.05)
    assert mixed.said == "better"  # half of the old version's users are not there any more
