"""After a failure: a step back, and another attempt with other users and nothing of the last one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.release.state import Phase
from controlplane.web.asked import Act, Order
from controlplane.web.port import RefusedError

ANN = Act(actor="ann")
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")


async def failing(tmp_path, kit, on_failure, step="ten"):
    """Return a site whose release fails at a step."""
    site = await kit.start(tmp_path, quick=kit.POLICY + f"on_failure: {on_failure}\n")
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].at == step)
    site.traffic.mode = "bad"
    return site


async def test_a_failed_release_starts_again_by_itself_as_often_as_the_policy_says(tmp_path, kit):
    site = await failing(tmp_path, kit, "{do: rollback, retry: {after: 1m, times: 1}}")
    world = await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.RETRYING)
    assert world.releases["shop-v2"].ended_at is None
    before = site.clock.now

    world = await kit.until(site, lambda w: w.releases["shop-v2"].active)
    again = world.releases["shop-v2"]
    assert site.clock.now - before >= timedelta(minutes=1)
    assert (again.attempt, again.salt, again.at) == (2, "shop-v2.2", "staff")
    assert site.plane.release("shop-v2").suspicion == 1.0
    world = await kit.until(site, lambda w: w.releases["shop-v2"].ended)

    assert (world.releases["shop-v2"].phase, world.releases["shop-v2"].attempt) == (Phase.ROLLED_BACK, 2)
    kinds = [(r.attempt, r.action) for r in await site.store.records("shop-v2") if r.action != "hold"]
    assert (1, "rest") in kinds
    assert (1, "retry") in kinds
    assert kinds[-2:] == [(2, "rollback"), (2, "finish")]
    await site.store.close()


async def test_a_step_back_takes_the_canary_from_users_and_is_written_down(tmp_path, kit):
    site = await failing(tmp_path, kit, "{do: step_back, retry: {after: 1m}}", step="all")

    world = await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    site.traffic.mode = "good"
    back = [r for r in await site.store.records("shop-v2") if r.action == "step-back"]
    assert [(r.step, "back to step 'ten', goes on after 1m" in r.reason) for r in back] == [("all", True)]
    assert world.releases["shop-v2"].phase is Phase.PROGRESSING
    assert (await site.store.memory()).evidence["shop-v2#1"]["step"] == []
    await kit.until(site, lambda w: w.releases["shop-v2"].hold == "resting")
    world = await kit.until(site, lambda w: w.releases["shop-v2"].ended)

    assert world.releases["shop-v2"].phase is Phase.PROMOTED
    await site.store.close()


async def test_an_operator_runs_an_order_again_by_what_the_policy_says_now(tmp_path, kit):
    site = await kit.start(tmp_path)
    await site.plane.order(TO_V2)
    with pytest.raises(RefusedError, match="cannot retry"):
        await site.plane.act("shop-v2", "retry", ANN)
    await site.plane.act("shop-v2", "rollback", ANN)
    await site.plane.take(kit.files(quick=kit.POLICY.replace("name: ten", "name: tenth")), "test")

    shown = await site.plane.act("shop-v2", "retry", ANN)

    assert (shown.phase, shown.attempt, shown.steps[1].name) == ("waiting", 2, "tenth")
    await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.PROMOTED)
    await site.store.close()


async def test_who_is_notified_hears_of_the_rollback_and_of_the_attempt_that_follows(tmp_path, kit):
    told = "{do: rollback, retry: {after: 1m, times: 1}}\nnotify: [{webhook: 'http://127.0.0.1:1/x'}]"
    site = await failing(tmp_path, kit, told)
    await kit.until(site, lambda w: w.releases["shop-v2"].attempt == 2)

    messages = [message.body for message in await site.store.waiting()]

    said = [(m["type"].rpartition(".")[2], m["data"]["reason"]) for m in messages]
    assert [event for event, _ in said] == ["rolling_back", "rolled_back", "retried"]
    assert "starts again after 1m, as attempt 2" in said[1][1]
    await site.store.close()
