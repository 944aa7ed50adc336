"""Business metrics on simulated traffic: true to the model, and judged by the evidence of real releases."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from controlplane.policy.pinned import PinnedPolicy
from controlplane.simulation.business import Business
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import release
from controlplane.simulation.summary import summarise
from controlplane.simulation.traffic import CANARY, STABLE, Model, Traffic

ORDERS = Business("orders", 0.05)
METRICS = (
    Business("carts", 0.2),
    ORDERS,
    Business("bought", 0.1, per="carts"),
    Business("revenue", 0.02, 40.0),
    Business("complaints", 0.01, more=False),
    Business("signups", 0.03, pushed=True),
)
MODEL = Model(interval=5, history=0, rps=400, noise="iid", metrics=METRICS)
HALF = {"everyone": ("everyone", 0.5)}
STEPS = ({"name": "half", "share": "50%", "for": "10m"}, {"name": "all", "share": "100%", "for": "10s"})


def faults(text):
    return Fault.several(text)


def drawn(text="none", model=MODEL, intervals=400):
    traffic = Traffic(model, faults(text), seed=3)
    return [traffic.step(HALF) for _ in range(intervals)]


def totals(steps, version):
    found = Counter()
    for seen, _ in steps:
        found["requests"] += sum(t.requests for c, t in seen.cells if c.version == version)
        for measure in seen.measures:
            if measure.cell.version == version:
                found[measure.metric] += measure.total
                found[f"{measure.metric} of"] += measure.n or 0
    return found


def test_metrics_have_the_rates_of_the_model_in_both_versions():
    steps = drawn(intervals=3000)

    for found in (totals(steps, STABLE), totals(steps, CANARY)):
        rates = {name: found[name] / found["requests"] for name in ("carts", "orders", "revenue")}
        assert rates == pytest.approx({"carts": 0.2, "orders": 0.05, "revenue": 0.8}, rel=0.3)  # they swing
        assert found["orders"] / found["carts"] == pytest.approx(0.25, rel=0.02)
        assert found["revenue"] / found["carts"] == pytest.approx(4, rel=0.05)
        assert found["bought"] / found["carts"] == pytest.approx(0.5, rel=0.02)
        assert found["signups of"] == pytest.approx(found["requests"], rel=0.03)  # the last is still to come
        assert found["signups"] / found["signups of"] == pytest.approx(0.03, rel=0.3)


def test_a_fault_makes_them_worse_on_the_canary_alone_and_says_what_it_cost():
    good, bad = drawn(), drawn("metric=50%")

    assert totals(bad, STABLE) == pytest.approx(totals(good, STABLE), rel=0.05)
    for name, factor in {"orders": 0.5, "revenue": 0.5, "signups": 0.5, "complaints": 2.0}.items():
        assert totals(bad, CANARY)[name] == pytest.approx(factor * totals(good, CANARY)[name], rel=0.06)
    only = drawn("metric=50%@metric=orders")
    assert totals(only, CANARY)["revenue"] == pytest.approx(totals(good, CANARY)["revenue"], rel=0.05)
    lost = sum(harm.lost for _, harm in only)
    assert lost == pytest.approx(
        0.05 * 0.5 * totals(only, CANARY)["requests"], rel=0.02
    )  # as usually expected


def test_a_failed_request_is_no_order():
    good, bad = totals(drawn(), CANARY), totals(drawn("errors=50%"), CANARY)

    assert bad["orders"] == pytest.approx(0.5 * good["orders"], rel=0.05)


def test_what_a_late_proxy_counted_comes_in_the_end_and_what_a_restarted_one_did_is_lost():
    good = totals(drawn(), CANARY)["orders"]

    assert totals(drawn("lost=20%"), CANARY)["orders"] == pytest.approx(good, rel=0.03)
    assert totals(drawn("resets=40%"), CANARY)["orders"] == pytest.approx(0.8 * good, rel=0.05)
    silent = drawn("silent")
    assert totals(silent, CANARY)["orders"] == 0
    assert totals(silent, CANARY)["signups"] > 0


def test_metrics_change_nothing_of_the_rest():
    without = drawn(model=replace(MODEL, metrics=()))

    assert [seen.cells for seen, _ in drawn()] == [seen.cells for seen, _ in without]


@pytest.mark.parametrize(
    ("name", "fault", "outcome"),
    [
        ("orders", "none", "promoted"),
        ("orders", "metric=60%", "rolled back"),
        ("complaints", "metric=75%", "rolled back"),
        ("signups", "metric=60%", "rolled back"),
        ("orders", "metric=60%@metric=signups", "promoted"),
    ],
)
def test_a_condition_on_a_metric_decides_a_simulated_release(name, fault, outcome):
    metric = next(each for each in METRICS if each.name == name)
    pinned = {"name": name, "better": "more" if metric.more else "less", "pushed": metric.pushed}
    policy = PinnedPolicy.model_validate(
        {
            "name": "sales",
            "steps": STEPS,
            "conditions": ({"metric": {"name": name, "margin": "10%"}},),
            "metrics": (pinned,),
            "guard": {"for": "10s", "hold_back": "10%"},
        }
    )

    ended = release(policy, replace(MODEL, longest=7200), faults(fault), 4)

    assert ended.outcome == outcome, ended.reason
    if outcome == "rolled back":
        assert name in ended.reason


def test_pushed_values_come_as_often_as_they_should_and_each_version_by_itself():
    minute = replace(MODEL, metrics=(Business("signups", 0.03, pushed=True, every=60.0),))
    came = {STABLE: [], CANARY: []}
    for at, (seen, _) in enumerate(drawn(model=minute, intervals=120)):
        for measure in seen.measures:
            assert measure.age is not None
            assert measure.age < 60
            if measure.n:
                came[measure.cell.version].append(at * 5)

    for moments in came.values():
        assert {b - a for a, b in pairwise(moments)} == {60}
    assert not {*came[STABLE]} & {*came[CANARY]}


@pytest.mark.parametrize("pushed", [False, True])
def test_a_comparison_does_not_keep_everyone_on_the_canary_undecided(pushed):
    metric = {"name": "orders", "better": "more", "pushed": pushed, "every": "1m"}
    conditions = ({"success_rate": {"at_least": "90%"}}, {"metric": {"name": "orders", "margin": "20%"}})
    rules = PinnedPolicy.model_validate({
        "name": "p", "conditions": conditions, "steps": STEPS, "metrics": [metric], "guard": {"for": "1m"},
    })  # fmt: skip
    model = replace(MODEL, interval=15, longest=7200, metrics=(replace(ORDERS, pushed=pushed, every=60.0),))

    ended = release(rules, model, (), 7)

    assert ended.outcome == "promoted", ended.reason


def test_a_gain_is_more_of_what_is_better_and_less_of_what_is_worse():
    usual, better = (totals(drawn(text, intervals=3000), CANARY) for text in ("none", "metric=+25%"))

    for name in ("orders", "revenue", "signups"):
        assert better[name] / usual[name] == pytest.approx(1.25, rel=0.03)
    assert better["complaints"] / usual["complaints"] == pytest.approx(0.8, rel=0.03)


@pytest.mark.parametrize("do", ["promote_if_better", "ask", "report"])
def test_a_test_shows_a_gain_whatever_its_end_does(do):
    test = PinnedPolicy.model_validate(
        {
            "name": "ab",
            "steps": ({"name": "half", "share": "50%"},),
            "conditions": ({"metric": {"name": "orders", "margin": "10%"}},),
            "metrics": ({"name": "orders", "better": "more"},),
            "ends": {"after": "20m", "do": do, "per_user": 1},
            "guard": {"for": "10s"},
        }
    )
    model = replace(MODEL, metrics=(ORDERS,), longest=3600)

    found = release(test, model, faults("metric=+50%"), 5)
    summary = summarise([found], bad=False)

    assert found.outcome == ("promoted" if do == "promote_if_better" else "ended")
    assert found.seconds < 1500  # nobody is waited for
    word, since = found.shown["orders"]
    assert word == "better"
    assert since < 1300
    assert summary.shown["orders"].better.share == 1.0
    assert summary.shown["orders"].after.median == since
