"""Users who buy again: they keep their version and their habits, and each counts once in what is pushed."""

from collections import Counter
from itertools import pairwise

import pytest

from controlplane.policy.pinned import PinnedPolicy
from controlplane.simulation.business import Business
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import watch
from controlplane.simulation.traffic import CANARY, STABLE, Model, Traffic

HALF = {"everyone": ("everyone", 0.5)}
ORDERS, CARTS = Business("orders", 0.1), Business("bought", 0.05, per="orders")
SPEND = Business("spend", 0.1, 40.0, pushed=True, every=60)
BUYERS = Business("buyers", 0.1, pushed=True, every=60)


def drawn(*metrics, users=50, habit=1.5, intervals=200, seed=3, era="test"):
    model = Model(interval=10, history=0, rps=50, noise="iid", metrics=metrics, users=users, habit=habit)
    traffic = Traffic(model, (), seed)
    return [traffic.step(HALF, None, era)[0] for _ in range(intervals)]


def ratios(seen, metric, of=None):
    """Return the metric per request, or per event of another one, of the canary beside the baseline."""
    found = Counter()
    for each in seen:
        for cell, tally in each.cells:
            found[cell.version, None] += tally.requests - tally.errors - tally.client_errors
        for measure in each.measures:
            found[measure.cell.version, measure.metric] += measure.total
    canary, stable = (found[version, metric] / found[version, of] for version in (CANARY, STABLE))
    return canary / stable


def test_who_has_the_better_customers_sells_more_for_as_long_as_they_stay():
    for seed in (1, 2, 3):
        early, late = (
            ratios(drawn(ORDERS, seed=seed)[part], "orders") for part in (slice(100), slice(100, 200))
        )

        assert abs(early - 1) > 0.1
        assert early == pytest.approx(late, rel=0.1)
    assert ratios(drawn(ORDERS, users=0), "orders") == pytest.approx(1, abs=0.05)
    assert ratios(drawn(ORDERS, habit=0.0), "orders") == pytest.approx(1, abs=0.05)
    assert ratios(drawn(ORDERS, CARTS), "bought", "orders") == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("metric", [SPEND, BUYERS])
def test_a_user_counts_once_and_comes_to_all_that_was_pushed(metric):
    measures = [m for seen in drawn(metric) for m in seen.measures]

    users = 0
    for version in (STABLE, CANARY):
        rows = [m for m in measures if m.cell.version == version]
        assert {m.cell.segment for m in rows} == {"everyone"}
        assert rows[-1].users.n == sum(m.n for m in rows)
        assert rows[-1].users.total == pytest.approx(sum(m.total for m in rows))
        assert all(before.users.n <= after.users.n for before, after in pairwise(rows))
        users += rows[-1].users.n
    assert users == 50  # everyone came, and to one version only


def test_users_are_new_in_another_era_and_keep_their_version_while_shares_grow():
    model = Model(interval=10, history=0, rps=50, noise="iid", metrics=(BUYERS,), users=200)
    traffic, known = Traffic(model, (), 3), []
    for share in (0.25, 0.5):
        for _ in range(60):
            seen, _ = traffic.step({"everyone": ("everyone", share)}, None, f"{share}")
        known.append({m.cell.version: m.users for m in seen.measures})

    first, second = known
    assert first[CANARY].epoch != second[CANARY].epoch
    assert first[CANARY].n == pytest.approx(50, abs=20)
    assert second[CANARY].n == pytest.approx(100, abs=25)


def test_a_test_is_not_misled_by_pushes_that_name_users_of_before_it():
    buyers = {"name": "buyers", "better": "more", "pushed": True, "every": "10m"}
    policy = PinnedPolicy.model_validate(
        {
            "name": "test",
            "steps": ({"name": "half", "share": "50%", "segment": "everyone"},),
            "ends": {"after": "1d", "do": "report"},
            "metrics": (buyers,),
            "observe": ("buyers",),
            "conditions": ({"client_errors": "off"}, {"latency": "off"}),
        }
    )
    metric = Business("buyers", 0.1, pushed=True, every=600)
    model = Model(rps=5, noise="iid", interval=60, longest=7200, metrics=(metric,), users=1000, habit=1.5)

    *_, last = watch(policy, model, Fault.several("none"), 0)

    (result,) = last.turn.after.state.result
    assert result.said == "no difference seen"
    assert result.canary_n + result.baseline_n <= 1000
