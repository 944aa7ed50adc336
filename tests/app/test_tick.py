"""A release through the loop, interval by interval."""

import asyncio
from datetime import timedelta

import pytest

from controlplane.app import tick
from controlplane.evidence.verdict import Outcome
from controlplane.release import watch
from controlplane.release.ports import StoreError
from controlplane.release.state import Phase, Stage
from controlplane.release.watch import Watch
from controlplane.web.asked import Act, Documents, Order
from controlplane.web.port import RefusedError

ANN = Act(actor="ann")


async def ordered(site, **over):
    return (await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann", **over))).name


async def acted(site, name="shop-v2"):
    """Return what was done to a release, without holds and changes of stage."""
    records = await site.store.records(name, 1000)
    return [(r.action, r.step) for r in records if r.action not in ("hold", "proceed")]


async def test_a_good_release_takes_each_step_once_and_is_promoted(site, kit):
    name = await ordered(site)

    world = await kit.until(site, lambda w: w.releases[name].ended)

    assert await acted(site) == [
        ("order", "waiting"),
        ("start", "waiting"),
        ("advance", "staff"),
        ("advance", "ten"),
        ("guard", "all"),
        ("promote", "guarding"),
    ]
    assert world.releases[name].phase is Phase.PROMOTED
    assert world.releases[name].ended_at == site.clock.now
    assert world.stable == {"shop": "v2"}


async def test_a_bad_release_is_rolled_back_and_stays_so(site, kit):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    site.traffic.mode = "bad"

    world = await kit.until(site, lambda w: w.releases[name].ended)
    after = await kit.tick(site, 5)

    assert world.releases[name].phase is Phase.ROLLED_BACK
    assert after.releases == world.releases
    assert after.stable == {"shop": "v1"}
    last = [r for r in await site.store.records(name) if r.action == "rollback"]
    assert len(last) == 1
    assert Outcome.FAIL in [v["outcome"] for v in last[0].numbers["verdicts"]]


@pytest.mark.parametrize("mode", ["none", "silent", "partial"])
async def test_silence_promotes_nothing(site, kit, mode):
    name = await ordered(site)
    before = await kit.until(site, lambda w: w.releases[name].at == "ten")
    site.traffic.mode = mode

    world = await kit.tick(site, 60, seconds=600)

    state = world.releases[name]
    assert (state.at, state.judged) == ("ten", timedelta(0))
    assert state.stage is not Stage.JUDGE
    assert state.hold in {"none": ("quiet",), "silent": ("stale",), "partial": ("stale",)}[mode]
    assert state.because
    assert before.stable == world.stable


async def test_silence_in_the_middle_of_judging_stops_the_clock(site, kit):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].judged >= timedelta(seconds=5))
    site.traffic.mode = "silent"

    world = await kit.tick(site, 60)

    assert world.releases[name].judged == timedelta(seconds=5)
    assert "no statistics from edge-1" in world.releases[name].because


@pytest.mark.parametrize("fleet", ["some", "nack", "none"])
async def test_a_step_waits_for_every_proxy(site, kit, fleet):
    name = await ordered(site)
    site.fleet.mode = fleet

    world = await kit.tick(site, 20)

    assert (world.releases[name].at, world.releases[name].stage) == ("staff", Stage.PROPAGATE)


async def test_a_hold_is_one_record_not_one_per_interval(site, kit):
    await ordered(site)
    site.fleet.mode = "nack"

    await kit.tick(site, 20)

    holds = [r for r in await site.store.records("shop-v2") if r.action == "hold"]
    assert [r.reason for r in holds] == ["b refuses Cluster 'shop~v2': bad"]


async def test_when_every_endpoint_of_the_canary_is_replaced_the_step_begins_again(site, kit):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].judged >= timedelta(seconds=5))
    moved = kit.SERVICE.replace("10.0.0.2:80", "10.0.0.9:80")

    await site.plane.apply(Documents(files={"shop.yaml": moved}, actor="ann"))
    state = (await kit.tick(site)).releases[name]

    assert (state.at, state.stage, state.judged) == ("ten", Stage.PROPAGATE, timedelta(0))
    assert state.canary_endpoints == ("10.0.0.9:80",)
    assert "every endpoint of v2 was replaced" in state.because
    assert site.loop.watches[f"{name}#1"].step == {}
    assert (await kit.until(site, lambda w: w.releases[name].ended)).stable == {"shop": "v2"}


@pytest.mark.parametrize(
    "endpoints", ['"10.0.0.2:80", "10.0.0.9:80"', "", '{address: "10.0.0.2:80", weight: 3}']
)
async def test_other_changes_of_endpoints_do_not_restart_the_step(site, kit, endpoints):
    name = await ordered(site)
    before = await kit.until(site, lambda w: w.releases[name].judged >= timedelta(seconds=5))
    site.traffic.mode = "silent"

    text = kit.SERVICE.replace('"10.0.0.2:80"', endpoints)
    await site.plane.apply(Documents(files={"shop.yaml": text}, actor="ann"))
    state = (await kit.tick(site)).releases[name]

    assert (state.stage, state.judged) == (Stage.JUDGE, before.releases[name].judged)


async def test_a_new_attempt_begins_without_the_evidence_of_the_last_even_after_a_crash(tmp_path, kit):
    site = await kit.start(tmp_path)
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    site.traffic.mode = "bad"
    await kit.until(site, lambda w: w.releases[name].ended)
    await ordered(site)
    await site.store.close()

    site = await kit.start(tmp_path, site.clock)
    world = await kit.tick(site, 2)
    assert world.releases[name].attempt == 2
    world = await kit.until(site, lambda w: w.releases[name].ended)

    assert world.releases[name].phase is Phase.PROMOTED
    await site.store.close()


async def test_a_restart_goes_on_where_it_was(tmp_path, kit):
    site = await kit.start(tmp_path)
    name = await ordered(site)
    before = await kit.until(site, lambda w: w.releases[name].judged >= timedelta(seconds=5))
    watches, totals = site.loop.watches, site.traffic.totals
    await site.store.close()

    site = await kit.start(tmp_path, kit.Clock())
    await site.restore(totals)
    assert await site.store.world() == before
    assert site.loop.watches == watches
    state = (await kit.tick(site, seconds=1_000_000)).releases[name]

    assert (state.at, state.stage, state.judged) == ("ten", Stage.JUDGE, timedelta(seconds=5))
    assert state.hold == "stale", "the first interval after a restart proves nothing"
    await site.store.close()


async def test_a_wall_clock_that_jumps_neither_ages_a_step_nor_holds_it_up(site, kit):
    name = await ordered(site)
    for jump in (3600, -7200, 10 * 365 * 86_400, -86_400) * 10:
        site.clock.now += timedelta(seconds=jump)
        if (await kit.tick(site)).releases[name].ended:
            break

    records = await site.store.records(name, 1000)
    assert [r.action for r in records if r.action == "promote"] == ["promote"]
    assert "guarded for 15s" in records[-1].reason


async def test_a_store_that_fails_decides_nothing_and_counts_nothing_twice(site, kit, monkeypatch):
    name = await ordered(site)
    before = await kit.until(site, lambda w: w.releases[name].judged >= timedelta(seconds=5))
    watch = site.loop.watches[f"{name}#1"]

    async def full(change):
        raise StoreError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(site.store, "commit", full)
        for _ in range(3):
            with pytest.raises(StoreError):
                await kit.tick(site)
    assert await site.store.world() == before
    assert site.loop.watches[f"{name}#1"] is watch
    state = (await kit.tick(site)).releases[name]

    assert (state.at, state.phase) == ("all", Phase.PROGRESSING)
    seen = [each.moment.observation for each in (await site.store.recording(name)).turns]
    canary = sum(t.requests for o in seen if o for c, t in o.cells if c.version == "v2")
    assert canary == sum(n for key, n in site.traffic.totals.items() if key.endswith("/v2/n"))


async def test_the_loop_outlives_a_store_that_fails(site, monkeypatch):
    calls = 0

    async def flaky(now, monotonic):
        nonlocal calls
        calls += 1
        if calls < 3:
            raise StoreError("disk full")

    site.loop._interval = timedelta(0)
    monkeypatch.setattr(site.loop, "tick", flaky)
    task = asyncio.ensure_future(site.loop.run())
    seen = set()
    while calls < 4:
        seen.add(site.loop.failure)
        await asyncio.sleep(0.005)
    task.cancel()

    assert seen == {"", "disk full"}
    assert site.loop.failure == ""


async def test_one_release_that_cannot_be_decided_does_not_stop_the_others(tmp_path, kit):
    second = kit.SERVICE.replace("name: shop", "name: cart").replace("shop.example", "cart.example")
    site = await kit.start(tmp_path, cart=second)
    await ordered(site)
    await site.plane.order(Order(service="cart", to="v2", policy="quick", actor="ann"))
    whole = site.fleet.propagation

    def broken(world, service):
        if service == "cart":
            raise RuntimeError("a bug")
        return whole(world, service)

    site.fleet.propagation = broken
    world = await kit.tick(site, 6)

    assert world.releases["cart-v2"].phase is Phase.WAITING
    assert world.releases["shop-v2"].at == "ten"
    await site.store.close()


@pytest.mark.parametrize(("part", "stopped"), [("work_out", False), ("fold", True)])
async def test_evidence_that_cannot_be_gathered_does_not_stop_the_others(
    tmp_path, kit, monkeypatch, part, stopped
):
    """What several releases ask is worked out at once; if that fails, each is decided by itself."""
    second = kit.SERVICE.replace("name: shop", "name: cart").replace("shop.example", "cart.example")
    site = await kit.start(tmp_path, cart=second)
    await ordered(site)
    await site.plane.order(Order(service="cart", to="v2", policy="quick", actor="ann"))
    world = await kit.tick(site)
    assert {world.releases[name].phase for name in ("shop-v2", "cart-v2")} == {Phase.PROGRESSING}

    def broken(*args, **more):
        raise RuntimeError("a bug")

    monkeypatch.setattr(*((tick, part) if part == "work_out" else (watch, part)), broken)
    before, world = world.releases, await kit.tick(site, 6)

    assert (world.releases["shop-v2"] == before["shop-v2"]) is stopped  # the one that has statistics to fold
    assert world.releases["cart-v2"] != before["cart-v2"]
    await site.store.close()


async def test_an_operators_advance_skips_proof_but_not_the_record(site, kit):
    name = await ordered(site)
    site.traffic.mode = "silent"
    await kit.tick(site)

    await site.plane.act(name, "advance", Act(actor="ann", reason="trust me"))

    record = (await site.store.records(name))[-1]
    assert (record.kind, record.action, record.actor, record.step) == ("action", "advance", "ann", "staff")
    assert record.reason == "trust me"
    assert (await site.store.world()).releases[name].at == "ten"
    assert site.loop.watches[f"{name}#1"].step == {}
    assert (await site.store.memory()).evidence[f"{name}#1"] == kit.plain(
        site.loop.watches[f"{name}#1"].to_json()
    )


async def test_a_paused_release_stands_and_goes_on_where_it_was(site, kit):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].judged >= timedelta(seconds=5))
    await site.plane.act(name, "pause", ANN)
    paused = (await kit.tick(site, 20)).releases[name]
    assert (paused.at, paused.halt, paused.judged) == ("ten", "paused", timedelta(seconds=5))
    with pytest.raises(RefusedError):
        await site.plane.act("shop-v9", "resume", ANN)

    await site.plane.act(name, "resume", ANN)

    assert (await kit.until(site, lambda w: w.releases[name].ended)).stable == {"shop": "v2"}


async def test_a_new_watch_is_stored_when_an_operator_starts_a_release(site, kit):
    name = await ordered(site)

    await site.plane.act(name, "advance", ANN)

    assert (await site.store.memory()).evidence[f"{name}#1"] == kit.plain(Watch().to_json())
