"""A/B tests in the running loop: their time over restarts, their ends, what operators may do."""

import pytest

from controlplane.release.state import Phase
from controlplane.web.asked import Act, Documents, Order
from controlplane.web.port import RefusedError

ANN = Act(actor="ann", reason="why not")
METRICS = "metrics: {orders: {header: x-order, better: more}}\n"


def policy(do, guard="guard: {for: 15s, hold_back: 10%}\n"):
    return f"""\
kind: Policy
name: quick
steps: [{{name: half, everyone: 50%}}]
conditions: [{{latency: off}}, {{client_errors: off}}, {{metric: {{name: orders, margin: 20%}}}}]
ends: {{after: 4m, do: {do}, per_user: 1}}
{guard if do != "report" else ""}"""


async def begin(tmp_path, kit, do, **orders):
    """Return a site in the middle of a test; 40 of a thousand requests are orders unless said."""
    site = await kit.start(tmp_path, shop=kit.SERVICE + METRICS, quick=policy(do))
    site.traffic.orders = {"v1": 4, "v2": 4} | orders
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.until(site, lambda w: w.releases["shop-v2"].hold == "testing")
    return site


def release(world):
    return world.releases["shop-v2"]


@pytest.mark.parametrize(
    ("orders", "said", "phase", "stable"),
    [
        ({"v2": 6}, "better", Phase.PROMOTED, "v2"),
        ({}, "no difference seen", Phase.ENDED, "v1"),
    ],
)
async def test_a_test_promotes_what_is_better_and_returns_everyone_else(
    tmp_path, kit, orders, said, phase, stable
):
    site = await begin(tmp_path, kit, "promote_if_better", **orders)

    world = await kit.until(site, lambda w: release(w).ended)

    state = release(world)
    assert (state.phase, world.stable["shop"]) == (phase, stable)
    assert [(r.metric, r.said) for r in state.result] == [("orders", said)]
    shown = site.plane.release("shop-v2")
    assert [(r.metric, r.said, r.decides) for r in shown.results] == [("orders", said, True)]
    decided = [r for r in await site.store.records("shop-v2", 1000) if r.action in ("guard", "end")]
    assert [r.numbers["result"][0]["said"] for r in decided] == [said]
    assert f"orders: {said}" in decided[0].reason
    await site.store.close()


async def test_a_restart_takes_nothing_from_a_test_and_forgets_nothing(tmp_path, kit):
    site = await begin(tmp_path, kit, "report")
    before = await kit.tick(site, 20)
    totals, cursor, orders = site.traffic.totals, site.clock, site.traffic.orders
    cursor.pass_(3600)  # nobody ran for an hour

    again = await kit.Site(site.store, cursor).restore(totals)
    again.clock, again.traffic.orders = cursor, orders
    first = await kit.tick(again)
    ended = await kit.until(again, lambda w: release(w).ended)

    assert release(first).judged == release(before).judged  # the first interval has no time
    assert release(first).result[0].canary_n >= release(before).result[0].canary_n
    assert release(ended).phase is Phase.ENDED
    assert release(ended).judged.total_seconds() == pytest.approx(240, abs=5)
    await site.store.close()


async def test_a_pause_stops_the_time_of_a_test(tmp_path, kit):
    site = await begin(tmp_path, kit, "report")
    await site.plane.act("shop-v2", "pause", ANN)
    before = release(await kit.tick(site))

    paused = release(await kit.tick(site, 100))
    await site.plane.act("shop-v2", "resume", ANN)
    ended = await kit.until(site, lambda w: release(w).ended)

    assert (paused.phase, paused.judged) == (Phase.PROGRESSING, before.judged)
    assert release(ended).phase is Phase.ENDED
    await site.store.close()


async def test_a_test_that_asks_waits_until_somebody_ends_or_promotes_it(tmp_path, kit):
    site = await begin(tmp_path, kit, "ask")
    world = await kit.until(site, lambda w: release(w).hold == "test-over")
    world = await kit.tick(site, 50)

    assert (release(world).phase, release(world).at) == (Phase.PROGRESSING, "half")
    shown = await site.plane.act("shop-v2", "advance", ANN)
    assert shown.phase == "guarding"
    world = await kit.until(site, lambda w: release(w).ended)
    assert (release(world).phase, world.stable["shop"]) == (Phase.PROMOTED, "v2")
    await site.store.close()


@pytest.mark.parametrize("do", ["report", "ask", "promote_if_better"])
async def test_an_operator_ends_a_test_early_and_the_result_stays(tmp_path, kit, do):
    site = await begin(tmp_path, kit, do)
    await kit.tick(site, 10)

    shown = await site.plane.act("shop-v2", "end", ANN)
    world = await kit.until(site, lambda w: release(w).ended)

    assert (shown.phase, release(world).phase, world.stable["shop"]) == ("ending", Phase.ENDED, "v1")
    assert shown.because.startswith("ending at half: end by ann: why not; orders: no difference seen")
    assert release(world).result == release(await kit.tick(site)).result != ()
    assert site.plane.release("shop-v2").return_point == "done: v1 has every request"
    with pytest.raises(RefusedError, match="nothing to undo"):
        await site.plane.undo("shop", ANN)
    await site.store.close()


async def test_advance_does_not_end_a_test_that_only_reports(tmp_path, kit):
    site = await begin(tmp_path, kit, "report")

    with pytest.raises(
        RefusedError, match="`turnout promote shop-v2` makes it stable, `turnout end shop-v2`"
    ):
        await site.plane.act("shop-v2", "advance", ANN)
    promoted = await site.plane.act("shop-v2", "promote", ANN)

    assert promoted.phase == "promoted"
    await site.store.close()


async def test_nobody_is_sent_back_to_a_version_without_endpoints(tmp_path, kit):
    site = await begin(tmp_path, kit, "report")
    text = (kit.SERVICE + METRICS).replace('"10.0.0.1:80"', "")
    await site.plane.apply(Documents(files={"shop.yaml": text}, actor="ann"))

    with pytest.raises(RefusedError, match="v1 of 'shop' has no endpoints"):
        await site.plane.act("shop-v2", "end", ANN)
    world = await kit.until(site, lambda w: release(w).hold == "unsafe")

    assert release(world).because.startswith("ALARM: cannot go back, v1 has no endpoints")
    await site.store.close()
