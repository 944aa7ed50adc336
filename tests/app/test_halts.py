"""Paused and frozen releases as operators meet them: what still happens, and what lets them go on."""

from __future__ import annotations

import pytest

from controlplane.release.state import Phase
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Act, Order, Switch
from controlplane.web.port import RefusedError

ANN = Act(actor="ann")
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")
EXPIRES = "everyone: 100%, approve: {expires: 20s, on_expiry: freeze},"
FREEZES = "on_failure: {do: freeze}\n"


def frozen(world):
    return world.releases["shop-v2"].halt == "frozen"


async def going(tmp_path, kit, policy, condition):
    site = await kit.start(tmp_path, quick=policy)
    await site.plane.order(TO_V2)
    await kit.until(site, condition)
    return site


async def unapproved(tmp_path, kit, more=""):
    """Return a site whose release is frozen because nobody approved its last step."""
    return await going(tmp_path, kit, kit.POLICY.replace("everyone: 100%,", EXPIRES) + more, frozen)


async def failed(tmp_path, kit):
    """Return a site whose release is frozen because the canary failed at the second step."""
    site = await going(tmp_path, kit, kit.POLICY + FREEZES, lambda w: w.releases["shop-v2"].at == "ten")
    site.traffic.mode = "bad"
    await kit.until(site, frozen)
    return site


async def events(site):
    return [(r.action, r.numbers.get("code")) for r in await site.store.records("shop-v2", 1000)]


async def test_a_canary_that_fails_while_frozen_for_want_of_an_approval_goes_back(tmp_path, kit):
    site = await unapproved(tmp_path, kit)
    site.traffic.mode = "bad"

    world = await kit.until(site, lambda w: w.releases["shop-v2"].ended)

    assert world.releases["shop-v2"].phase is Phase.ROLLED_BACK
    assert "errors" in world.releases["shop-v2"].reason
    await site.store.close()


async def test_a_failure_that_would_freeze_what_is_frozen_is_told_once_with_both_reasons(tmp_path, kit):
    site = await unapproved(tmp_path, kit, FREEZES)
    site.traffic.mode = "bad"

    world = await kit.tick(site, 40)

    state = world.releases["shop-v2"]
    assert (state.phase, state.halt, state.frozen_by) == (
        Phase.PROGRESSING,
        "frozen",
        ("approval", "condition"),
    )
    assert "nobody approved 'all' within 20s" in state.because
    assert "errors" in state.because
    assert [code for action, code in await events(site) if action == "freeze"] == [
        "approval-expired",
        "failed",
    ]
    await site.store.close()


async def test_who_resumes_what_nobody_approved_is_asked_again_for_as_long(tmp_path, kit):
    site = await unapproved(tmp_path, kit)
    assert "`turnout approve shop-v2 --step all`" in site.plane.release("shop-v2").because
    assert "`turnout resume shop-v2` asks again" in site.plane.release("shop-v2").because

    await site.plane.act("shop-v2", "resume", ANN)
    world = await kit.tick(site, 3)

    assert (world.releases["shop-v2"].halt, world.releases["shop-v2"].hold) == (None, "approval")
    await kit.until(site, frozen)
    await site.plane.act("shop-v2", "approve", ANN)
    await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.PROMOTED)
    await site.store.close()


async def test_who_resumes_what_failed_begins_the_step_again_with_new_evidence(tmp_path, kit):
    site = await failed(tmp_path, kit)
    assert "`turnout resume shop-v2` begins the step again" in site.plane.release("shop-v2").because
    site.traffic.mode = "good"
    await kit.tick(site, 5)
    assert frozen(await site.store.world())

    shown = await site.plane.act("shop-v2", "resume", ANN)

    assert (shown.halt, shown.stage, shown.step) == (None, "propagate", "ten")
    world = await kit.until(site, lambda w: w.releases["shop-v2"].ended)
    assert world.releases["shop-v2"].phase is Phase.PROMOTED
    assert [action for action, _ in await events(site)].count("freeze") == 1
    await site.store.close()


async def test_new_evidence_freezes_it_again_and_a_restart_does_not_bring_back_the_old(tmp_path, kit):
    site = await failed(tmp_path, kit)
    site.traffic.mode = "good"
    await site.plane.act("shop-v2", "resume", ANN)
    await site.store.close()
    again = await kit.Site(await SqliteStore(tmp_path).open(), site.clock).restore(site.traffic.totals)

    world = await kit.until(again, lambda w: w.releases["shop-v2"].at == "all")

    assert world.releases["shop-v2"].halt is None
    assert [action for action, _ in await events(again)].count("freeze") == 1
    again.traffic.mode = "bad"
    await kit.until(again, frozen)
    await again.store.close()


async def test_a_person_does_not_turn_a_freeze_into_a_pause(tmp_path, kit):
    site = await failed(tmp_path, kit)

    with pytest.raises(
        RefusedError, match=r"is progressing and frozen: cannot pause; possible: .*resume"
    ) as error:
        await site.plane.act("shop-v2", "pause", ANN)

    assert error.value.status == 409
    await site.store.close()


async def test_a_pause_keeps_its_reason_and_is_told_as_a_pause_only(tmp_path, kit):
    told = "notify: [{webhook: 'http://127.0.0.1:1/x', on: [paused, held, frozen]}]\n"
    site = await going(tmp_path, kit, kit.POLICY + told, lambda w: w.releases["shop-v2"].at == "ten")

    await site.plane.act("shop-v2", "pause", Act(actor="ann", reason="lunch"))
    world = await kit.tick(site, 5)

    assert world.releases["shop-v2"].because == "pause by ann: lunch"
    assert [m.body["type"] for m in await site.store.waiting()] == ["turnout.release.paused"]
    await site.store.close()


@pytest.mark.parametrize(
    ("action", "phase", "halt"),
    [
        ("advance", "progressing", None),
        ("promote", "promoted", None),
        ("rollback", "rolling_back", None),
        ("switch", "rolling_back", None),
    ],
)
@pytest.mark.parametrize("halted", ["paused", "frozen"])
async def test_what_a_person_does_to_a_halted_release_lifts_the_halt(
    tmp_path, kit, halted, action, phase, halt
):
    site = await failed(tmp_path, kit)
    if halted == "paused":
        await site.plane.act("shop-v2", "resume", ANN)
        await site.plane.act("shop-v2", "pause", ANN)

    if action == "switch":
        await site.plane.switch("shop", Switch(actor="ann", version="v1"))
    else:
        await site.plane.act("shop-v2", action, ANN)

    shown = site.plane.release("shop-v2")
    assert (shown.phase, shown.halt) == (phase, halt)
    await site.store.close()
