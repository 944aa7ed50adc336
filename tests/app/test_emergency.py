"""An emergency: a broken stable version is replaced, with a reason that everybody sees."""

import pytest

from controlplane.release.state import Phase
from controlplane.web.asked import Act, Declare, Order
from controlplane.web.port import RefusedError

WHY = "v1 loses orders"


def urgent(kit, on=True):
    limited = kit.POLICY.replace("{latency: off}]", "{latency: off}, {success_rate: {at_least: 99%}}]")
    return limited + f"emergency: {str(on).lower()}\n"


def order(**more):
    return Order(**({"service": "shop", "to": "v2", "policy": "quick", "actor": "ann", "reason": WHY} | more))


async def test_an_emergency_replaces_a_broken_stable_version_in_a_blackout(tmp_path, kit):
    """v1 fails one request in ten, v2 too: nothing holds, nothing rolls back; without emergency it holds."""
    for emergency in (True, False):
        site = await kit.start(tmp_path / str(emergency), quick=urgent(kit, emergency))
        site.traffic.mode = "both"
        await kit.tick(site, 20)
        if emergency:
            await site.plane.declare(Declare(fleet="edge", for_="9h", actor="bob"))
        await site.plane.order(order())

        world = await kit.tick(site, 40)

        state = world.releases["shop-v2"]
        if emergency:
            assert state.phase is Phase.PROMOTED, state.because
            assert world.stable == {"shop": "v2"}
        else:
            assert (state.phase, state.hold) == (Phase.PROGRESSING, "baseline")
            assert "the baseline breaches the limit itself" in state.because
        await site.store.close()


async def test_a_canary_that_is_worse_than_a_broken_version_goes_back(tmp_path, kit):
    site = await kit.start(tmp_path, quick=urgent(kit))
    site.traffic.mode = "both"
    await kit.tick(site, 20)
    await site.plane.order(order())
    await kit.until(site, lambda world: world.releases["shop-v2"].at == "ten")
    site.traffic.mode = "bad"

    world = await kit.until(site, lambda world: world.releases["shop-v2"].ended)

    assert world.releases["shop-v2"].phase is Phase.ROLLED_BACK
    await site.store.close()


async def test_an_emergency_needs_a_reason_and_shows_it(tmp_path, kit):
    site = await kit.start(tmp_path, quick=urgent(kit))

    with pytest.raises(
        RefusedError, match="'quick' is an emergency, so the order needs a reason: --reason"
    ) as no:
        await site.plane.order(order(reason=""))
    shown = await site.plane.order(order())

    assert no.value.status == 400
    assert (shown.emergency, shown.purpose) == (True, WHY)
    record = (await site.store.records("shop-v2"))[-1]
    assert record.reason == f"emergency: shop v1 -> v2, policy quick: {WHY}"
    await site.store.close()


async def test_a_retry_under_what_became_an_emergency_needs_a_reason(tmp_path, kit):
    site = await kit.start(tmp_path)
    await site.plane.order(order(reason=""))
    await site.plane.act("shop-v2", "rollback", Act(actor="ann"))
    await kit.until(site, lambda world: world.releases["shop-v2"].ended)
    await site.plane.take(kit.files(quick=urgent(kit)), "ann")

    with pytest.raises(RefusedError, match="needs a reason"):
        await site.plane.act("shop-v2", "retry", Act(actor="ann"))
    shown = await site.plane.act("shop-v2", "retry", Act(actor="ann", reason=WHY))

    assert (shown.emergency, shown.purpose) == (True, WHY)
    await site.store.close()


async def test_the_reason_of_a_document_is_recorded_and_follows_edits_while_it_waits(tmp_path, kit):
    text = kit.RELEASE.replace("start: auto", "reason: old words\nstart: manual")
    site = await kit.start(tmp_path, quick=urgent(kit), order=text)
    assert (await site.store.records("shop-2"))[-1].reason.endswith("policy quick: old words")

    await site.plane.take(kit.files(quick=urgent(kit), order=text.replace("old", "new")), "ann")

    assert site.plane.release("shop-2").purpose == "new words"
    await site.store.close()
