"""A release for which data that should come does not come: it stands, says so, and people are told."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controlplane.app.metrics import Metrics
from controlplane.evidence.observation import Reading
from controlplane.release.state import Phase
from controlplane.web.asked import Act, Order
from tests.documents import SERVICE

ANN = Act(actor="ann")
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")
TOLD = "notify: [{webhook: 'https://example.com'}]\n"
QUEUE = "{prometheus: {name: queue, query: 'max(queue{version=\"$version\"})', at_most: 10, every: 5s}}"
STAT = "{stat: {name: upstream_rq_timeout, at_most: 20}}"
BASKET = "{metric: {name: basket, at_least: 2}}"
PUSHED = "metrics: {basket: {sum: true, better: more, every: 5s}}\n"
GOOD = Reading("queue", 3.0)
NAN, DOWN = (Reading("queue", None, None, why) for why in ("the query gives NaN", "Prometheus is down"))
SEVERAL = Reading("queue", None, None, "the query gives 2 series; one is needed")


def policy(*conditions, for_="10m", more=""):
    steps = f"[{{name: ten, everyone: 10%, for: {for_}}}, {{name: all, everyone: 100%}}]"
    conditions = ", ".join(("{latency: off}", "{client_errors: off}", *conditions))
    text = f"kind: Policy\nname: quick\nsteps: {steps}\nconditions: [{conditions}]\n"
    return f"{text}guard: {{for: 15s, hold_back: 2%}}\n{more}{TOLD}"


async def judging(folder, kit, text, **texts):
    """Return a site whose release is judged, with all data."""
    site = await kit.start(folder, quick=text, **texts)
    site.publisher.publish(await site.store.world())
    site.traffic.read = (GOOD,)
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].judged)
    return site


def state(site):
    return site.plane.release("shop-v2")


async def told(site):
    waiting = await site.store.waiting()
    return [(m.body["type"].removeprefix("turnout.release."), m.body["data"]["reason"]) for m in waiting]


async def holds(site):
    records = await site.store.records("shop-v2", 1000)
    return [(r.numbers["code"], r.reason) for r in records if r.action == "hold"]


def figures(site):
    registry = CollectorRegistry()
    registry.register(Metrics(site.plane))
    return generate_latest(registry).decode()


@pytest.mark.parametrize("for_", ["10m", "30s"])
async def test_a_source_that_gives_nothing_holds_is_told_and_is_a_problem(tmp_path, kit, for_):
    site = await judging(tmp_path, kit, policy(QUEUE, for_=for_))
    judged = (await site.store.world()).releases["shop-v2"].judged
    site.traffic.read = (DOWN,)
    world = await kit.tick(site, 20)
    release = world.releases["shop-v2"]

    assert (release.phase, release.step, release.hold) == (Phase.PROGRESSING, 0, "no-data")
    assert release.judged == judged  # time counts only while data is fresh
    assert release.because == "prometheus queue: Prometheus is down"
    assert await told(site) == [("held", "for 30s: prometheus queue: Prometheus is down")]
    (problem,) = site.plane.problems()
    assert problem == (
        "release shop-v2: held for 1m: prometheus queue: Prometheus is down; "
        "see why it does not come; `turnout rollback shop-v2` takes it back"
    )
    assert 'held_seconds{code="no-data",kind="wrong",release="shop-v2"}' in figures(site)

    site.traffic.read = (GOOD,)
    world = await kit.until(site, lambda w: w.releases["shop-v2"].hold != "no-data")
    await kit.tick(site, 7)
    assert [event for event, _ in await told(site)] == ["held", "cleared"]
    assert site.plane.problems() == ()
    await site.store.close()


async def test_a_source_that_never_gave_anything_is_the_same_trouble(tmp_path, kit):
    site = await kit.start(tmp_path, quick=policy(QUEUE))
    site.publisher.publish(await site.store.world())
    await site.plane.order(TO_V2)
    world = await kit.tick(site, 20)

    assert world.releases["shop-v2"].hold == "no-data"
    assert [event for event, _ in await told(site)] == ["held"]
    assert "prometheus queue: no reading yet" in site.plane.problems()[0]
    await site.store.close()


async def test_the_first_answer_of_a_source_may_take_its_time(tmp_path, kit):
    site = await kit.start(tmp_path, quick=policy(QUEUE.replace("every: 5s", "every: 1m")))
    site.publisher.publish(await site.store.world())
    await site.plane.order(TO_V2)
    await kit.tick(site, 30)

    assert "no-data" not in [code for code, _ in await holds(site)]
    assert await told(site) == []
    await site.store.close()


async def test_values_that_are_pushed_no_more_hold_the_release(tmp_path, kit):
    site = await kit.start(tmp_path, quick=policy(BASKET), shop=SERVICE + PUSHED)
    site.publisher.publish(await site.store.world())
    site.traffic.pushed = {"v1": 3.0, "v2": 3.0}
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].judged)
    site.traffic.pushed = {}
    world = await kit.tick(site, 20)

    assert world.releases["shop-v2"].hold == "no-data"
    ((event, reason),) = await told(site)
    assert (event, reason.partition(" was pushed")[0]) == (
        "held",
        "for 30s: metric basket limit: no value of the canary",
    )
    await site.store.close()


async def test_an_ab_test_without_values_stands_is_told_and_its_clock_goes_on_with_them(tmp_path, kit):
    text = policy(BASKET.replace("at_least: 2", "margin: 10%")).replace(", {name: all, everyone: 100%}", "")
    text = text.replace(", for: 10m", "").replace("guard: {for: 15s, hold_back: 2%}\n", "")
    site = await kit.start(tmp_path, quick=f"{text}ends: {{after: 5m, do: report}}\n", shop=SERVICE + PUSHED)
    site.publisher.publish(await site.store.world())
    site.traffic.pushed = {"v1": 3.0, "v2": 3.0}
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].hold == "testing")
    site.traffic.pushed = {}
    world = await kit.until(site, lambda w: w.releases["shop-v2"].hold == "no-data")
    judged = world.releases["shop-v2"].judged
    world = await kit.tick(site, 100)  # more than the whole test would take

    assert (world.releases["shop-v2"].hold, world.releases["shop-v2"].judged) == ("no-data", judged)
    ((event, reason),) = await told(site)
    assert event == "held"
    assert reason.startswith("for 30s: metric basket: no value of the canary was pushed for ")
    (problem,) = site.plane.problems()
    assert problem.endswith("; see why it does not come; `turnout end shop-v2` ends the test")

    site.traffic.pushed = {"v1": 3.0, "v2": 3.0}
    world = await kit.until(site, lambda w: w.releases["shop-v2"].ended)
    assert world.releases["shop-v2"].phase is Phase.ENDED
    (over, ended) = (await told(site))[1:]
    assert (over[0], ended[0]) == ("cleared", "ended")
    await site.store.close()


async def test_proxies_that_do_not_report_a_counter_hold_the_release(tmp_path, kit):
    site = await kit.start(tmp_path, quick=policy(STAT))
    site.publisher.publish(await site.store.world())
    await site.plane.order(TO_V2)
    world = await kit.tick(site, 20)

    assert world.releases["shop-v2"].hold == "no-data"
    ((event, reason),) = await told(site)
    assert event == "held"
    assert "not reported by edge-1, whose bootstrap is older; `turnout bootstrap` writes one" in reason
    await site.store.close()


async def test_another_trouble_of_a_source_is_recorded_and_told_once_and_nothing_is_over(tmp_path, kit):
    site = await judging(tmp_path, kit, policy(QUEUE))
    before = len(await holds(site))
    for reading in (NAN, SEVERAL, DOWN):
        site.traffic.read = (reading,)
        await kit.tick(site, 20)

    assert (await holds(site))[before:] == [
        ("no-data", f"prometheus queue: {reading.problem}") for reading in (NAN, SEVERAL, DOWN)
    ]
    assert await told(site) == [
        ("held", f"for 30s: prometheus queue: {reading.problem}") for reading in (NAN, SEVERAL, DOWN)
    ]
    assert site.plane.problems()[0].startswith(
        "release shop-v2: held for 5m, by this for 1m: prometheus queue: Prometheus is down"
    )
    await site.store.close()


async def test_another_trouble_that_is_over_is_not_told_as_an_all_clear(tmp_path, kit):
    site = await judging(tmp_path, kit, policy(QUEUE))
    site.traffic.mode = "silent"
    await kit.tick(site, 10)
    site.traffic.mode, site.traffic.read = "good", (NAN,)
    await kit.tick(site, 30)

    assert [reason.rpartition(": ")[2] for _, reason in await told(site)] == [
        "no statistics from edge-1",
        "the query gives NaN",
    ]
    assert [event for event, _ in await told(site)] == ["held", "held"]
    await site.store.close()


async def test_one_answer_that_fails_is_told_to_nobody(tmp_path, kit):
    site = await judging(tmp_path, kit, policy(QUEUE))
    for _ in range(4):
        site.traffic.read = (DOWN,)
        await kit.tick(site)
        site.traffic.read = (GOOD,)
        await kit.tick(site, 8)

    assert await told(site) == []
    assert site.plane.problems() == ()
    await site.store.close()


async def test_what_is_told_first_is_what_does_not_come(tmp_path, kit):
    """Beside it more requests would be needed, which time brings: that is not what it waits for."""
    site = await judging(tmp_path, kit, policy(QUEUE, for_="5s"))
    site.traffic.mode, site.traffic.read = "both", (DOWN,)
    world = await kit.tick(site, 4)

    assert world.releases["shop-v2"].because == "prometheus queue: Prometheus is down"
    await site.store.close()


@pytest.mark.parametrize(
    "text", [policy(more="observe: [basket]\n"), policy(QUEUE.replace("}}", "}, grace: 1h}"))]
)
async def test_what_decides_nothing_now_holds_nothing(tmp_path, kit, text):
    site = await judging(tmp_path, kit, text, shop=SERVICE + PUSHED)
    site.traffic.read = (DOWN,)
    world = await kit.tick(site, 20)

    assert world.releases["shop-v2"].hold == "dwell"
    assert await told(site) == []
    await site.store.close()


@pytest.mark.parametrize(("do", "phase"), [("rollback", Phase.ROLLED_BACK), ("advance", Phase.PROGRESSING)])
async def test_a_policy_says_what_becomes_of_it(tmp_path, kit, do, phase):
    rule = f"when_unsure: {{do: {do}, after: 2m}}\n"
    site = await judging(tmp_path, kit, policy(QUEUE, more=rule))
    site.traffic.read = (DOWN,)
    world = await kit.tick(site, 30)

    assert world.releases["shop-v2"].phase is phase
    if do == "rollback":
        assert "unsure for 2m (when_unsure: rollback): prometheus queue: Prometheus is down" in [
            r.reason for r in await site.store.records("shop-v2", 1000)
        ]
    await site.store.close()


async def test_no_request_from_the_beginning_is_a_trouble_like_no_request_any_more(tmp_path, kit):
    site = await kit.start(tmp_path, quick=policy())
    site.publisher.publish(await site.store.world())
    site.traffic.mode = "none"
    await site.plane.order(TO_V2)
    early = (await kit.tick(site, 6)).releases["shop-v2"].hold
    world = await kit.tick(site, 14)

    why = "no request of shop has come for 80 s, of no version"
    assert (early, world.releases["shop-v2"].hold) == ("verify", "quiet")
    assert world.releases["shop-v2"].because == why
    ((event, reason),) = await told(site)
    assert (event, reason.partition(" come ")[0]) == ("held", "for 30s: no request of shop has")
    (problem,) = site.plane.problems()
    assert problem == (
        f"release shop-v2: held for 50s: {why}; "
        "see whether its requests reach the proxies: `turnout get services` has its hosts"
    )
    await site.store.close()


async def test_where_few_requests_are_usual_none_for_a_time_is_no_trouble(tmp_path, kit):
    site = await kit.start(tmp_path, quick=policy())
    site.publisher.publish(await site.store.world())
    for _ in range(30):
        site.traffic.arrive(await site.store.world(), requests=1)
        site.traffic.mode = "none"
        await kit.tick(site, 12)
        site.traffic.mode = "good"
    site.traffic.mode = "none"
    await site.plane.order(TO_V2)
    few = (await kit.tick(site, 50)).releases["shop-v2"].hold
    none = (await kit.tick(site, 100)).releases["shop-v2"].hold

    assert (few, none) == ("verify", "quiet")
    await site.store.close()


async def test_a_segment_of_which_no_request_comes_is_waited_for(tmp_path, kit):
    """Staff may be asleep; that others come shows that the routes are right."""
    site = await kit.start(tmp_path, quick=kit.POLICY)
    site.publisher.publish(await site.store.world())
    await site.plane.order(TO_V2)
    site.traffic.mode = "none"
    for _ in range(20):
        site.traffic.totals["everyone/v1/n"] += 1000
        world = await kit.tick(site)

    assert (world.releases["shop-v2"].at, world.releases["shop-v2"].hold) == ("staff", "verify")
    await site.store.close()
