"""The way back as operators see and take it: irreversible steps, endpoints that go away, undo."""

from __future__ import annotations

import pytest

from controlplane.release.seen import Propagation
from controlplane.release.state import Phase, Stage
from controlplane.web.asked import Act, Documents, Order, Switch
from controlplane.web.port import RefusedError

ANN = Act(actor="ann")
SURE = Act(actor="ann", past_point_of_no_return=True)
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")
MIGRATION = "everyone: 10%, approve: {}, irreversible: {because: drops a column},"


def irreversible(kit):
    return kit.POLICY.replace("everyone: 10%,", MIGRATION).replace("hold_back: 2%", "hold_back: 0%")


async def test_how_far_away_the_point_of_no_return_is_and_what_it_takes_to_go_back_past_it(tmp_path, kit):
    site = await kit.start(tmp_path, quick=irreversible(kit))
    await site.plane.order(TO_V2)
    assert site.plane.release("shop-v2").point_of_no_return == "2 steps away: 'ten', drops a column"
    await kit.until(site, lambda w: w.releases["shop-v2"].hold == "approval")
    assert site.plane.release("shop-v2").point_of_no_return == "1 step away: 'ten', drops a column"
    assert site.plane.release("shop-v2").return_point == "one route change, to 1 endpoint of v1"

    await site.plane.act("shop-v2", "approve", ANN)
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    shown = site.plane.release("shop-v2")
    passed = f"passed at step 'ten': drops a column ({site.clock.now:%Y-%m-%d %H:%M:%S} UTC by turnout)"
    assert shown.point_of_no_return == passed
    assert "NO WAY BACK" in shown.return_point
    site.traffic.mode = "bad"
    world = await kit.until(site, lambda w: w.releases["shop-v2"].halt == "frozen")
    assert world.releases["shop-v2"].phase is Phase.PROGRESSING
    for asked in (
        site.plane.act("shop-v2", "rollback", ANN),
        site.plane.switch("shop", Switch(actor="ann", version="v1")),
    ):
        with pytest.raises(RefusedError, match="--past-point-of-no-return"):
            await asked

    going = await site.plane.act("shop-v2", "rollback", SURE)
    await kit.tick(site)
    back = site.plane.release("shop-v2")
    assert [going.phase, back.phase] == ["rolling_back", "rolled_back"]
    assert going.point_of_no_return == back.point_of_no_return
    assert back.point_of_no_return == f"{passed}; a person took it back all the same"
    await site.store.close()


async def test_what_was_seen_before_a_rollback_is_not_shown_beside_what_it_asks_for(tmp_path, kit):
    site = await kit.start(tmp_path)
    told = Propagation(("edge-1",), ("edge-1",))
    site.publisher.propagation = site.fleet.propagation = lambda world, service: told
    await site.plane.order(TO_V2)
    judged = "ten", Stage.JUDGE
    await kit.until(site, lambda w: (w.releases["shop-v2"].at, w.releases["shop-v2"].stage) == judged)
    (before,) = site.plane.release("shop-v2").proxies

    await site.plane.act("shop-v2", "rollback", ANN)
    (after,) = site.plane.release("shop-v2").proxies

    assert (before.asked, round(before.observed, 2)) == (0.1, 0.1)
    assert (after.asked, after.observed) == (0.0, None)
    assert after.canary_requests >= before.canary_requests > 0
    await site.store.close()


async def test_endpoints_of_the_old_version_that_go_away_are_shown_and_stop_the_growth(tmp_path, kit):
    four = kit.SERVICE.replace('"10.0.0.1:80"', ", ".join(f'"10.0.0.{n}:81"' for n in range(1, 5)))
    keeping = kit.POLICY.replace("hold_back: 2%", "hold_back: 2%, keep_endpoints: 75%")
    site = await kit.start(tmp_path, shop=four, quick=keeping)
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    two = four.replace(', "10.0.0.3:81", "10.0.0.4:81"', "")

    await site.plane.apply(Documents(files={"shop.yaml": two}, actor="ann"))
    world = await kit.tick(site, 20)

    assert (world.releases["shop-v2"].at, world.releases["shop-v2"].hold) == ("ten", "no-way-back")
    assert "UNSAFE: v1 has 2 of 4 endpoints" in site.plane.release("shop-v2").return_point
    await site.plane.apply(Documents(files={"shop.yaml": four}, actor="ann"))
    world = await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.GUARDING)
    await site.store.close()


async def test_what_a_rollback_would_do_is_said_by_health_as_the_loop_and_the_operator_see_it(tmp_path, kit):
    site = await kit.start(tmp_path)
    await site.plane.order(TO_V2)
    assert site.plane.release("shop-v2").return_point == "nothing has moved: v1 has every request"
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    assert site.plane.release("shop-v2").return_point == "one route change, to 1 endpoint of v1"

    site.traffic.mode, site.traffic.healthy = "bad", {"v1": 0, "v2": 1}
    world = await kit.until(site, lambda w: w.releases["shop-v2"].hold == "unsafe")

    dead = "v1 has no endpoints that are healthy, says edge-1"
    assert f"ALARM: cannot go back, {dead}" in world.releases["shop-v2"].because
    assert site.plane.release("shop-v2").return_point == f"UNSAFE: {dead}"
    with pytest.raises(RefusedError, match="v1 of 'shop' has no endpoints that are healthy, says edge-1"):
        await site.plane.act("shop-v2", "rollback", ANN)
    with pytest.raises(RefusedError, match="v1 of 'shop' has no endpoints that are healthy, says edge-1"):
        await site.plane.switch("shop", Switch(actor="ann", version="v1"))
    site.traffic.healthy["v1"] = 1
    world = await kit.until(site, lambda w: w.releases["shop-v2"].ended)
    assert world.releases["shop-v2"].phase is Phase.ROLLED_BACK
    await site.store.close()


@pytest.mark.parametrize(("version", "believed"), [("1", "new"), ("2", "old")])
async def test_what_was_said_of_endpoints_that_are_replaced_keeps_nobody_from_going_back(
    tmp_path, kit, version, believed
):
    site = await kit.start(tmp_path)
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    site.traffic.healthy = {"v1": 1, "v2": 1} | {f"v{version}": 0}
    await kit.tick(site)
    others = kit.SERVICE.replace(f'"10.0.0.{version}:80"', f'"10.0.0.{version}:80", "10.0.0.9:80"')

    await site.plane.apply(Documents(files={"shop.yaml": others}, actor="ann"))

    if believed == "new":
        assert site.plane.release("shop-v2").return_point == "one route change, to 2 endpoints of v1"
        assert (await site.plane.act("shop-v2", "rollback", ANN)).phase == "rolling_back"
    else:
        with pytest.raises(RefusedError, match="v2 of 'shop' has no endpoints that are healthy"):
            await site.plane.act("shop-v2", "promote", ANN)
    await site.store.close()


async def test_endpoints_are_believed_for_two_intervals_and_then_what_proxies_say_of_them(tmp_path, kit):
    site = await kit.start(tmp_path)
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    site.traffic.healthy = {"v1": 0}
    await kit.tick(site)
    others = kit.SERVICE.replace('"10.0.0.1:80"', '"10.0.0.9:80"')
    await site.plane.apply(Documents(files={"shop.yaml": others}, actor="ann"))

    seen = [site.plane.release("shop-v2").return_unsafe]
    for _ in range(4):
        await kit.tick(site)
        seen.append(site.plane.release("shop-v2").return_unsafe)

    assert seen == [False, False, False, True, True]
    await site.store.close()


async def test_a_way_back_that_gets_unsafe_in_the_guard_is_told_also_behind_a_name(tmp_path, kit):
    named = kit.SERVICE.replace('endpoints: ["10.0.0.1:80"]', 'dns: "shop.prod.svc:80"')
    keeping = kit.POLICY.replace("hold_back: 2%", "hold_back: 2%, keep_endpoints: 80%").replace("15s", "1h")
    told = "notify: [{webhook: 'https://tell.example.com/', on: [held]}]\n"
    site = await kit.start(tmp_path, shop=named, quick=keeping + told)
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].active)
    assert site.plane.release("shop-v2").return_point == "one route change, to v1 at shop.prod.svc:80"
    site.traffic.healthy = {"v1": 20}
    await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.GUARDING)
    assert site.plane.release("shop-v2").return_point == "one route change, to 20 endpoints of v1"
    already = len(await site.store.waiting())

    few, none = (
        "v1 has 2 of 20 endpoints (keep_endpoints)",
        "v1 has no endpoints that are healthy, says edge-1",
    )
    seen = []
    for healthy in (2, 2, 0, 20, 16):
        site.traffic.healthy["v1"] = healthy
        await kit.tick(site)
        seen.append((site.plane.release("shop-v2").return_point, site.plane.problems()))

    way = "release shop-v2: ALARM: a rollback would be unsafe, "
    assert seen == [
        *[(f"UNSAFE: {few}", (way + few,))] * 2,
        (f"UNSAFE: {none}", (way + none,)),
        ("one route change, to 20 endpoints of v1", ()),
        ("one route change, to 16 endpoints of v1", ()),
    ]
    records = [r for r in await site.store.records("shop-v2", 1000) if r.action in ("unsafe", "safe")]
    assert [(r.action, r.step, r.reason.partition(", ")[2]) for r in records] == [
        ("unsafe", "guarding", few),
        ("unsafe", "guarding", none),
        ("safe", "guarding", "to 20 endpoints of v1"),
    ]
    assert len(await site.store.waiting()) - already == 2
    assert (await site.store.world()).releases["shop-v2"].phase is Phase.GUARDING
    await site.store.close()


async def test_a_promotion_can_be_undone_while_the_old_version_is_declared(site, kit):
    with pytest.raises(RefusedError, match="nothing to undo"):
        await site.plane.undo("shop", ANN)
    with pytest.raises(RefusedError, match="no service and no release is named 'shap'"):
        await site.plane.undo("shap", ANN)
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].active)
    with pytest.raises(RefusedError, match="is progressing: roll that back"):
        await site.plane.undo("shop", ANN)
    await kit.until(site, lambda w: w.releases["shop-v2"].ended)

    shown = await site.plane.undo("shop-v2", Act(actor="ann", reason="prices"))

    assert shown.stable == "v1"
    record = (await site.store.records("shop-v2"))[-1]
    assert (record.action, record.actor, record.reason) == ("undo", "ann", "to v1: prices")
    with pytest.raises(RefusedError, match="nothing to undo"):
        await site.plane.undo("shop-v2", ANN)


async def test_what_is_past_the_point_of_no_return_is_undone_only_by_who_says_so(tmp_path, kit):
    site = await kit.start(tmp_path, quick=irreversible(kit) + "when_unsure: {after: 5s, do: advance}\n")
    await site.plane.order(TO_V2)
    await site.plane.act("shop-v2", "approve", ANN)
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    await site.plane.act("shop-v2", "promote", ANN)
    with pytest.raises(RefusedError, match="--past-point-of-no-return"):
        await site.plane.undo("shop", ANN)

    assert (await site.plane.undo("shop", SURE)).stable == "v1"
    await site.store.close()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (
            "approve: {}, irreversible: {because: x},",
            "guard.hold_back: step 'ten' is irreversible; it must be 0%",
        ),
        ("irreversible: {because: x},", "it needs 'approve'"),
        ("approve: {}, irreversible: {},", "because: missing"),
    ],
)
def test_an_irreversible_step_needs_consent_a_reason_and_nobody_left_behind(kit, policy, words):
    text = kit.POLICY.replace("everyone: 10%,", f"everyone: 10%, {policy}")

    found = [str(problem) for problem in kit.load(kit.files(quick=text)).errors]

    assert len(found) == 1
    assert words in found[0]
