"""Approvals, windows and blackouts through the plane and the loop: who opens what, and what is recorded."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.release.state import Phase
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Act, Declare, Order, Switch, Who
from controlplane.web.port import RefusedError

ANN = Act(actor="ann", reason="looks good")
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")


def gated(kit, approve="{role: releaser, expires: 1h}", more=""):
    return kit.POLICY.replace("everyone: 10%,", f"everyone: 10%, approve: {approve},") + more


def at(name, hold=None):
    def there(world):
        state = world.releases["shop-v2"]
        return state.at == name and (hold is None or state.hold == hold)

    return there


async def refused(asked, status, *words):
    with pytest.raises(RefusedError) as error:
        await asked
    assert error.value.status == status
    for word in words:
        assert word in str(error.value)


async def test_a_step_begins_when_a_person_approved_it_and_the_record_says_who(tmp_path, kit):
    site = await kit.start(tmp_path, quick=gated(kit))
    await site.plane.order(TO_V2)
    await kit.until(site, at("staff", "approval"))
    await kit.tick(site, 20)
    assert site.plane.release("shop-v2").step == "staff"
    assert site.plane.release("shop-v2").steps[1].approval == "needed"

    await refused(site.plane.act("shop-v2", "advance", ANN), 409, "approve 'ten'")
    await refused(site.plane.act("shop-v2", "promote", ANN), 409, "ten", "turnout approve")
    await refused(
        site.plane.act("shop-v2", "approve", Act(actor="ann", step="all")), 409, "'all'", "that do: ten"
    )
    shown = await site.plane.act("shop-v2", "approve", ANN)

    assert shown.steps[1].approval == "ann"
    record = (await site.store.records("shop-v2"))[-1]
    assert (record.action, record.actor, record.reason) == (
        "approve",
        "ann",
        "ten approved: looks good",
    )
    await refused(site.plane.act("shop-v2", "approve", ANN), 409, "no step ahead waits for an approval")
    await kit.until(site, at("ten"))
    await site.store.close()


async def test_an_approval_outlives_a_restart_and_can_be_given_ahead(tmp_path, kit):
    site = await kit.start(tmp_path, quick=gated(kit))
    await site.plane.order(TO_V2)
    await site.plane.act("shop-v2", "approve", ANN)
    await site.store.close()

    again = kit.Site(await SqliteStore(tmp_path).open(), site.clock)
    await again.restore(site.traffic.totals)

    assert again.plane.release("shop-v2").steps[1].approval == "ann"
    await kit.until(again, lambda world: world.releases["shop-v2"].phase is Phase.PROMOTED)
    await again.store.close()


async def test_an_approval_that_nobody_gives_does_what_the_policy_says(tmp_path, kit):
    site = await kit.start(tmp_path, quick=gated(kit, "{expires: 1m, on_expiry: rollback}"))
    await site.plane.order(TO_V2)

    world = await kit.until(site, lambda world: world.releases["shop-v2"].ended)

    assert world.releases["shop-v2"].phase is Phase.ROLLED_BACK
    assert world.releases["shop-v2"].reason == "nobody approved 'ten' within 1m"
    assert world.stable == {"shop": "v1"}
    await site.store.close()


async def test_a_declared_blackout_stops_steps_but_no_rollback_and_no_switch(site, kit):
    await site.plane.order(TO_V2)
    await kit.until(site, at("ten"))
    shown = await site.plane.declare(Declare(fleet="edge", for_="1h", actor="ann", reason="incident 12"))
    assert [(b.id, b.fleet, b.actor, b.because) for b in shown] == [("b1", "edge", "ann", "incident 12")]
    assert shown[0].until - site.clock.now >= timedelta(hours=1)

    await kit.until(site, at("ten", "blackout"))
    await kit.tick(site, 20)

    assert "incident 12" in site.plane.release("shop-v2").because
    await refused(site.plane.act("shop-v2", "advance", ANN), 409, "blackout (incident 12)")
    await refused(site.plane.act("shop-v2", "promote", ANN), 409, "blackout (incident 12)")
    assert (await site.plane.act("shop-v2", "rollback", ANN)).phase == "rolling_back"
    assert (await site.plane.switch("shop", Switch(actor="ann", version="v2"))).stable == "v2"
    assert [r.action for r in await site.store.records() if r.kind == "calendar"] == ["blackout"]


async def test_a_blackout_is_over_by_the_clock_or_when_it_is_withdrawn_and_outlives_a_restart(tmp_path, kit):
    site = await kit.start(tmp_path)
    await site.plane.declare(Declare(fleet="edge", for_="1h", actor="ann"))
    await site.plane.order(TO_V2)
    assert (await kit.tick(site, 3)).releases["shop-v2"].hold == "blackout"
    before = await site.store.world()
    await site.store.close()
    again = await kit.Site(await SqliteStore(tmp_path).open(), site.clock).restore(site.traffic.totals)
    assert await again.store.world() == before

    await refused(again.plane.withdraw("b7", Who(actor="ann")), 404, "'b7'", "known: b1")
    await refused(again.plane.declare(Declare(fleet="edgy", for_="1h", actor="a")), 404, "'edgy'", "edge")
    await again.plane.withdraw("b1", Who(actor="ann"))
    assert (await kit.tick(again, 3)).releases["shop-v2"].phase is Phase.PROGRESSING
    await again.plane.declare(Declare(fleet="edge", for_="1h", actor="ann"))
    again.clock.now += timedelta(hours=2)
    assert [b.until for b in again.plane.blackouts()] == [None]
    shown = await again.plane.declare(Declare(fleet="edge", cron="0 18 * * fri", for_="1h", actor="ann"))
    assert [b.when for b in shown] == ["0 18 * * fri for 1h UTC"]  # what is over went with it
    await again.store.close()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"for_": "soon"}, "for: 'soon' is not a duration"),
        ({"cron": "0 18 * * fri"}, "has cron"),
        ({"from_": "2026-12-23T18:00"}, "has from"),
        ({"from_": "2026-12-23", "to": "2026-12-24"}, "is not a local time"),
        ({"cron": "x", "for_": "1h"}, "has 1 fields"),
        ({"from_": "2020-12-23T18:00", "to": "2020-12-24T18:00", "zone": "Europe/Berlin"}, "over already"),
        ({"cron": "0 18 * * *", "for_": "1h", "zone": "Mars/Base"}, "not a time zone"),
    ],
)
async def test_what_is_no_blackout_is_refused_in_words(site, fields, words):
    await refused(site.plane.declare(Declare(fleet="edge", actor="ann", **fields)), 400, words)


async def test_a_release_waits_outside_of_its_policys_windows(tmp_path, kit):
    site = await kit.start(
        tmp_path, quick=kit.POLICY + "windows: [{days: sun, from: '13:00', to: '14:00'}]\n"
    )
    await site.plane.order(TO_V2)  # it is Sunday, 12:00

    assert (await kit.tick(site, 3)).releases["shop-v2"].hold == "window"
    site.clock.now += timedelta(hours=1)
    assert (await kit.tick(site, 2)).releases["shop-v2"].phase is Phase.PROGRESSING
    await site.store.close()


async def test_an_order_to_be_started_by_hand_starts_as_soon_as_it_may(tmp_path, kit):
    lunch = kit.POLICY + "windows: [{from: '13:00', to: '14:00'}]\n"
    site = await kit.start(tmp_path, quick=lunch, order=kit.RELEASE.replace("auto", "manual"))
    await kit.tick(site, 2)

    shown = await site.plane.act("shop-2", "advance", ANN)

    assert (shown.phase, "starts by itself: outside of" in shown.because) == ("waiting", True)
    assert (await site.store.records("shop-2"))[-1].action == "arm"
    await refused(site.plane.act("shop-2", "advance", ANN), 409, "outside of the policy's windows")
    site.clock.now += timedelta(hours=1)
    assert (await kit.tick(site, 2)).releases["shop-2"].phase is Phase.PROGRESSING
    await site.store.close()
