"""Releases on simulated traffic: reproducible, true to the model, and through the real loop."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from controlplane.policy.latency import EDGES_MS
from controlplane.policy.pinned import PinnedPolicy
from controlplane.simulation.families import FAMILIES
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import before, release, releases
from controlplane.simulation.pauses import Pauses
from controlplane.simulation.summary import Rate, summarise
from controlplane.simulation.traffic import CANARY, STABLE, Model, Traffic

HALF = {"everyone": ("everyone", 0.5)}
MODEL = Model(interval=1, history=60, longest=900, rps=200, noise="iid")
BETA = {"cookie": {"name": "b", "present": True}}
QUICK = PinnedPolicy.model_validate(
    {
        "name": "quick",
        "steps": [
            {"name": "beta", "segment": "beta", "match": BETA, "share": "50%"},
            {"name": "ten", "share": "10%", "for": "5s"},
            {"name": "all", "share": "100%", "for": "5s"},
        ],
        "guard": {"for": "10s", "hold_back": "2%"},
    }
)  # fmt: skip


def faults(text):
    return Fault.several(text)


def drawn(model, *wrong, intervals=200, shares=HALF, guarding=None):
    traffic = Traffic(replace(model, history=0), tuple(Fault.parse(w) for w in wrong), seed=3)
    return [traffic.step(shares, guarding) for _ in range(intervals)]


def counted(steps, version, segment="everyone"):
    tallies = [t for seen, _ in steps for c, t in seen.cells if (c.version, c.segment) == (version, segment)]
    return (
        sum(t.requests for t in tallies),
        sum(t.errors for t in tallies),
        np.sum([t.slower for t in tallies], 0),
    )


@pytest.mark.parametrize("noise", sorted(set(FAMILIES) - {"users", "users-harsh"}))
def test_noise_keeps_the_rates_of_the_model_and_both_versions_alike(noise):
    steps = drawn(Model(noise=noise, rps=500, errors=0.02, interval=5), intervals=3000)

    requests = [counted(steps, version)[0] for version in (STABLE, CANARY)]
    errors = [counted(steps, version)[1] for version in (STABLE, CANARY)]
    assert requests[1] == pytest.approx(requests[0], rel=0.02)
    assert sum(requests) == pytest.approx(500 * 5 * 3000, rel=0.1)
    assert sum(errors) / sum(requests) == pytest.approx(
        0.02, rel=0.35
    )  # proxies' own rates do not average out
    assert errors[1] == pytest.approx(errors[0], rel=0.1)


def test_errors_are_more_clustered_in_harsher_noise():
    def dispersion(noise):
        steps = drawn(Model(noise=noise, rps=100, errors=0.02, interval=5, proxies=(1.0,)), intervals=1500)
        errors = [sum(t.errors for c, t in seen.cells if c.version == CANARY) for seen, _ in steps]
        return np.var(errors) / np.mean(errors)

    found = {noise: dispersion(noise) for noise in FAMILIES}

    assert 0.85 < found["iid"] < 1.15
    assert found["iid"] < found["mod"] < found["harsh"]
    assert found["mod"] < found["switching"] < found["switching-harsh"]


@pytest.mark.parametrize(
    ("fault", "failed", "slow"),
    [
        ("errors=10%", (0.005, 0.105), 1), ("errors=x5", (0.005, 0.025), 1), ("crash", (0.005, 1.0), 1),
        ("both=10%", (0.105, 0.105), 1), ("latency=x2", (0.005, 0.005), 4), ("tail=x4", (0.005, 0.005), 2.5),
        ("errors=10%@2m", (0.005, 0.045), 1), ("errors=10%@0s-1m", (0.005, 0.035), 1),
        ("errors=10%@guarding", (0.005, 0.005), 1),
    ],
)  # fmt: skip
def test_a_fault_does_what_it_says(fault, failed, slow):
    steps = drawn(replace(MODEL, rps=2000), fault)

    for version, rate in zip((STABLE, CANARY), failed, strict=True):
        requests, errors, beyond = counted(steps, version)
        assert errors / requests == pytest.approx(rate, rel=0.15)
        if version == CANARY:
            usual = counted(drawn(replace(MODEL, rps=2000)), CANARY)
            factor = (beyond[8] / requests) / (usual[2][8] / usual[0])
            assert slow * 0.7 < factor < slow * 1.6


def test_harm_is_what_the_fault_spoiled():
    steps = drawn(replace(MODEL, rps=2000), "errors=10%")
    requests, errors, _ = counted(steps, CANARY)

    assert sum(harm.failed for _, harm in steps) == pytest.approx(0.1 * requests, rel=0.01)
    assert errors == pytest.approx(0.105 * requests, rel=0.1)
    assert sum(harm.failed for _, harm in drawn(MODEL, "both=10%", shares={})) == 0


def test_a_fault_in_a_segment_leaves_the_rest_alone():
    shares = {"beta": ("beta", 0.5), **HALF}
    steps = drawn(replace(MODEL, segments={"beta": 0.2}), "errors=50%@segment=beta", shares=shares)

    assert counted(steps, CANARY, "beta")[1] / counted(steps, CANARY, "beta")[0] > 0.4
    assert counted(steps, CANARY)[1] / counted(steps, CANARY)[0] < 0.02


def test_lost_reads_come_an_interval_later():
    def whole(fault):
        return sum(counted(drawn(MODEL, fault), v)[0] for v in (STABLE, CANARY))

    late = drawn(MODEL, "lost=20%")
    assert any(len(seen.fresh) < 3 for seen, _ in late)
    assert whole("lost=20%") == pytest.approx(whole("none"), rel=0.02)
    assert whole("lost=20%@proxy=p1") == pytest.approx(whole("none"), rel=0.02)


def test_a_restarted_proxy_is_partial_and_has_lost_what_nobody_had_read():
    def whole(fault):
        return np.sum([counted(drawn(MODEL, fault), v)[0] for v in (STABLE, CANARY)])

    seen = [seen for seen, _ in drawn(MODEL, "resets=20%")]

    partial = [dict(one.partial) for one in seen]
    assert sum(map(len, partial)) == pytest.approx(0.2 * 3 * len(seen), rel=0.2)
    assert {why for one in partial for why in one.values()} == {"restarted: its last counts are lost"}
    assert all(
        set(one.fresh) == {"p0", "p1", "p2"} - set(lost) for one, lost in zip(seen, partial, strict=True)
    )
    assert whole("resets=20%") == pytest.approx(0.9 * whole("none"), rel=0.03)
    tallies = [tally for one in seen for cell, tally in one.cells if cell.proxy in dict(one.partial)]
    assert all(t.requests >= t.errors and t.requests >= max(t.slower) for t in tallies)
    assert all(sorted(t.slower, reverse=True) == list(t.slower) for t in tallies)


def test_a_proxy_is_late_before_it_is_silent_and_its_counts_come_in_the_end():
    seen = [seen for seen, _ in drawn(MODEL, "silent@10s-20s@proxy=p1")]
    heard = [counted([(one, None)], STABLE)[0] for one in seen]

    assert [one.silent for one in seen[9:21]] == [(), (), (), *[("p1",)] * 8, ()]
    assert all("p1" not in one.fresh for one in seen[10:20])
    assert all("p1" in one.fresh for one in (*seen[:10], *seen[20:]))
    assert heard[20] > 3 * np.mean(heard[:10])


def test_every_proxy_may_fall_silent():
    seen = [seen for seen, _ in drawn(MODEL, "silent")]

    assert not any(one.cells or one.fresh for one in seen)
    assert all(one.silent == ("p0", "p1", "p2") for one in seen[2:])


def test_one_silent_proxy_of_several_holds_a_release_and_a_fault_is_found_all_the_same():
    good = release(QUICK, replace(MODEL, longest=300), faults("silent@10s@proxy=p2"), 5)
    bad = release(QUICK, replace(MODEL, longest=300), faults("silent@1s@proxy=p2+errors=20%"), 5)

    assert (good.outcome, good.reason) == ("undecided", "no statistics from p2")
    assert bad.outcome == "rolled back"


def test_a_guard_of_hours_without_a_hold_back_ends_in_time():
    steps = ({"name": "half", "share": "50%", "for": "5m"}, {"name": "all", "share": "100%", "for": "5m"})
    policy = {"name": "long", "steps": steps, "guard": {"for": "8h", "hold_back": "0%"}}
    model = Model(interval=60, history=1800, longest=10 * 3600, rps=20, noise="iid")

    good = release(PinnedPolicy.model_validate(policy), model, (), 5)

    assert good.outcome == "promoted"
    assert good.seconds < 9 * 3600


def test_a_fault_behind_one_proxy_leaves_the_others_alone():
    seen = drawn(MODEL, "errors=50%@proxy=p1")

    rates = {}
    for one, _ in seen:
        for cell, tally in one.cells:
            if cell.version == CANARY:
                n, k = rates.get(cell.proxy, (0, 0))
                rates[cell.proxy] = n + tally.requests, k + tally.errors
    assert {proxy: k / n > 0.4 for proxy, (n, k) in rates.items()} == {"p0": False, "p1": True, "p2": False}


def test_a_seed_gives_the_same_release_again_and_another_seed_another():
    model = replace(MODEL, noise="harsh")
    ends = [release(QUICK, model, faults("errors=10%"), seed) for seed in (1, 1, 2)]

    assert ends[0] == ends[1]
    assert ends[0].harm != ends[2].harm


def test_releases_with_one_past_are_those_that_draw_it_for_themselves():
    kinds = [faults(text) for text in ("errors=20%", "none", "lost=20%+latency=x3@1m", "none")]

    past, _ = before(QUICK, MODEL, (3, 4))

    assert [release(QUICK, MODEL, kind, past) for kind in kinds] == [
        release(QUICK, MODEL, kind, 3) for kind in kinds
    ]


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("none", "promoted"), ("lost=5%", "promoted"), ("outage=20%@30s-60s", "promoted"),
        ("errors=10%", "rolled back"), ("crash", "rolled back"), ("errors=50%@segment=beta", "rolled back"),
        ("errors=50%@guarding", "rolled back"),
        ("silent", "undecided"), ("both=30%", "undecided"),
    ],
)  # fmt: skip
def test_the_loop_ends_a_release_as_it_should(fault, outcome):
    assert release(QUICK, replace(MODEL, longest=600), faults(fault), 5).outcome == outcome


@pytest.mark.parametrize("do", ["rollback", "freeze", "hold"])
@pytest.mark.parametrize(
    ("more", "metric"), [({}, "errors/"), ({"budget": {"failed": 5}}, "budget/everyone")]
)
def test_what_a_release_failed_by_is_told_whatever_the_policy_does_then(do, more, metric):
    policy = PinnedPolicy.model_validate(QUICK.model_dump(by_alias=True) | {"on_failure": {"do": do}} | more)

    ended = release(policy, MODEL, faults("errors=15%"), 5)

    assert ended.outcome == "rolled back"
    assert ended.metric.startswith(metric)


def test_a_limit_that_is_kept_by_all_together_is_broken_in_one_segment():
    own = {
        "steps": (QUICK.steps[0], {"name": "half", "share": "50%", "for": "10m"}),
        "conditions": ({"success_rate": {"at_least": "95%"}},),
    }
    policy = PinnedPolicy.model_validate(QUICK.model_dump(by_alias=True) | own)
    model = replace(MODEL, segments={"beta": 0.03}, longest=600)

    ended = release(policy, model, faults("errors=40%@2m@segment=beta"), seed=5)

    assert (ended.outcome, ended.where) == ("rolled back", "half")
    assert ended.reason.startswith("the limit is broken in segment beta")


def test_a_simulation_waits_for_nobody_who_would_be_called_or_asked():
    point = {"approve": {"role": "admin"}, "run": {"url": "https://ops.example.com/drop"}}
    asking = {
        "hooks": ({"at": "before_step", "url": "https://ci.example.com"},),
        "point_of_no_return": point,
        "guard": {"for": "10s"},
        "conditions": ({"success_rate": {"at_least": "99%"}},),
    }
    policy = PinnedPolicy.model_validate(QUICK.model_dump(by_alias=True) | asking)

    assert release(policy, replace(MODEL, longest=600), faults("none"), 5).outcome == "promoted"


@pytest.mark.parametrize(
    "text", ["none", "errors=10%", "errors=x5@5m", "leak=20%", "both=10%@1m-2m", "silent", "crash@guarding",
             "errors=50%@segment=beta", "outage=20%", "lost=5%", "silent@proxy=p1",
             "errors=10%@1m@segment=beta@proxy=p0", "client_errors=10%@2m@segment=beta", "client_errors=x5",
             "coldstart=x2@steps", "coldstart=x2@steps@proxy=p1", "metric=20%@5m",
             "metric=20%@metric=orders", "metric=+10%@metric=orders", "outage=20%@10m", "outage=20%@guarding",
             "errors=10%@1m@guarding", "leak=20%@guarding"],
)  # fmt: skip
def test_a_fault_is_written_as_it_is_read(text):
    assert str(Fault.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "metric=x2",
        "errors",
        "errors=10",
        "latency=10%",
        "none=1",
        "errors=5%@x",
        "errors=5%@5m-",
        "errors=5%@segment=",
        "errors=5%@guarding=1",
        "errors=5%@kind=x",
        "client_errors",
    ],
)
def test_what_is_no_fault_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError, match=r"is not a fault.*; allowed: none; errors=10%"):
        Fault.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("errors=5%@metric=orders", "@metric is of metric"),
        ("latency=x2@steps", "@steps is of coldstart"),
        ("lost=5%@segment=beta", "a proxy's statistics are those of all segments"),
        ("errors=200%", "more than 100%"),
        ("errors=+5%", "only a metric can be better"),
        ("outage=20%@10m-5m", "it ends before it begins"),
        ("errors=10%@1m@guarding@5m", "@1m and @5m both say when"),
        ("errors=10%@guarding@guarding", "@guarding stands twice"),
        ("errors=10%@segment=a@segment=b", "@segment stands twice"),
        ("none@5m", "where nothing is wrong there is no when or where"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(text, why):
    with pytest.raises(ValueError, match=f"is not a fault: {re.escape(why)}.*; allowed: none"):
        Fault.parse(text)


def test_an_outage_lasts_as_long_whenever_it_begins():
    def there(text, guarding=None):
        fault = Fault.parse(text)
        return [s for s in range(0, 2000, 30) if fault.effect(s, guarding).added]

    assert there("outage=20%") == [120, 150, 180]
    assert there("outage=20%@10m") == [600, 630, 660]
    assert there("outage=20%@1m-2m") == [60, 90]
    assert there("outage=20%@guarding", 900) == [900, 930, 960]


def test_times_of_a_fault_of_the_guard_count_from_it():
    fault = Fault.parse("errors=10%@guarding@1m-2m")

    assert str(fault) == "errors=10%@1m-2m@guarding"
    assert [s for s in range(0, 900, 30) if fault.effect(s, 300.0).added] == [360, 390]
    assert not any(fault.effect(s, None).added for s in range(0, 900, 30))


def test_a_fault_begins_when_the_canary_has_requests_that_it_hits():
    staff = {"name": "staff", "segment": "staff", "match": BETA | {"cookie": {"name": "s", "present": True}}}
    order = ({**staff, "share": "100%"}, *QUICK.model_dump(by_alias=True)["steps"])
    second = PinnedPolicy.model_validate(QUICK.model_dump(by_alias=True) | {"steps": order})
    within = QUICK.model_copy(update={"steps": (QUICK.steps[1], QUICK.steps[0], QUICK.steps[2])})
    beta = Fault.parse("errors=20%@segment=beta")

    late = release(second, MODEL, (beta,), 5)
    early = release(within, MODEL, faults("none"), 5)

    assert late.reached["staff"] == 0.0
    assert beta.begun(None, late.reached) == late.reached["beta"] > 0
    # Until a step is for it, a segment is part of everyone.
    assert beta.begun(None, early.reached) == 0.0
    nobody = Fault.parse("errors=20%@segment=nobody")
    assert nobody.begun(None, early.reached) == 0.0
    assert Fault.parse("errors=20%@0s-5s@segment=beta").begun(None, {"everyone": 0.0, "beta": 60.0}) is None
    assert Fault.parse("errors=20%@guarding@1m").begun(300.0, early.reached) == 360.0
    assert Fault.parse("errors=20%@guarding").begun(None, early.reached) is None


@pytest.mark.parametrize(
    ("more", "metric"),
    [
        ({"deadline": "30s", "on_timeout": "rollback"}, "late"),
        ({"when_unsure": {"after": "1m", "do": "rollback"}}, "unsure/everyone"),
    ],
)
def test_a_rollback_by_the_clock_is_neither_a_false_alarm_nor_a_fault_that_was_found(more, metric):
    policy = PinnedPolicy.model_validate(QUICK.model_dump(by_alias=True) | more)

    ended = release(policy, replace(MODEL, rps=2), faults("errors=0.1%"), 5)
    found = summarise([ended], bad=True)

    assert (ended.outcome, ended.metric, ended.by_clock) == ("rolled back", metric, True)
    assert (found.rolled_back.share, found.timed_out.share, found.detected) == (0.0, 1.0, None)
    assert found.reasons == {f"rolled back: {metric}": ended.reason}


def test_what_was_over_before_the_fault_began_is_neither_missed_nor_found():
    found = release(QUICK, MODEL, faults("errors=20%"), 1)
    early = [replace(found, outcome=outcome, seconds=60.0) for outcome in ("promoted", "rolled back")]
    late = replace(found, seconds=400.0)

    summary = summarise([*early, late], bad=True, begins=300.0)
    never = summarise(early, bad=True, begins=lambda _: None)

    assert (summary.releases, summary.before) == (3, {"promoted": 1, "rolled back": 1})
    assert (summary.rolled_back.share, summary.promoted.share) == (1.0, 0.0)
    assert summary.detected.median == 100.0
    assert never.before == {"promoted": 1, "rolled back": 1}
    assert (never.promoted.share, never.failed) == (0.0, 0.0)


def test_rates_have_an_interval_that_holds_near_zero():
    rate = Rate.of(0, 200)

    assert (rate.share, rate.low) == (0.0, 0.0)
    assert 0.015 < rate.high < 0.02
    assert Rate.of(100, 200).low == pytest.approx(0.431, abs=0.001)


def test_a_summary_says_what_was_missed():
    ended = [release(QUICK, MODEL, faults("errors=10%"), seed) for seed in range(4)]
    summary = summarise([*ended, replace(ended[0], outcome="promoted")], bad=True)

    assert summary.promoted.share == 0.2
    assert summary.detected.count == 4
    assert json.dumps(summary.where)


@pytest.mark.parametrize(("fault", "outcome"), [("none", "ended"), ("errors=20%", "rolled back")])
def test_an_ab_test_ends_and_a_bad_one_goes_back_before(fault, outcome):
    steps = ({"name": "half", "share": "50%"},)
    test = PinnedPolicy.model_validate({"name": "ab", "steps": steps, "ends": {"after": "5m"}})

    found = release(test, MODEL, faults(fault), 7)
    summary = summarise([found], bad=False)

    assert found.outcome == outcome
    assert (found.seconds > 300) is (outcome == "ended")
    assert (summary.ended.share, summary.undecided.share) == (float(outcome == "ended"), 0.0)


def test_a_service_is_as_fast_as_the_model_says_and_pauses_of_a_version_hit_both_alike():
    usual = drawn(Model(noise="iid", rps=500), intervals=400)
    fast = drawn(Model(noise="iid", rps=500, latency=4.0), intervals=400)
    paused = drawn(Model(noise="iid", rps=500, latency=0.1, pauses=Pauses(0.002, 20)), intervals=2000)

    requests, _, slow = counted(usual, STABLE)
    tenth, _, past = counted(fast, STABLE)
    assert past[EDGES_MS.index(5)] / tenth == pytest.approx(slow[EDGES_MS.index(50)] / requests, rel=0.02)
    for version in (STABLE, CANARY):
        n, _, slow = counted(paused, version)
        assert slow[EDGES_MS.index(200)] / n == pytest.approx(0.002, rel=0.1)
        assert slow[EDGES_MS.index(250)] == 0


def test_a_release_is_the_same_beside_others():
    """Evidence is worked out in tables for all; what comes of one must not depend on who is beside it."""
    wanted = [(seed, faults(wrong)) for seed in (1, 2, 3) for wrong in ("none", "errors=5%", "latency=x2")]

    beside = releases(QUICK, MODEL, wanted)

    assert beside == [release(QUICK, MODEL, wrong, seed) for seed, wrong in wanted]
    assert len({each.seconds for each in beside}) > 3  # one after the other is left alone
