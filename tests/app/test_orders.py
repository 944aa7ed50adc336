"""When an order is taken, what becomes of it while it waits, and what its documents can and cannot do."""

import pytest

from controlplane.release.state import Phase
from controlplane.web.port import Act, Documents, Order, RefusedError
from tests.documents import RELEASE, SERVICE

ANN = Act(actor="ann")
THREE = SERVICE + '  v3: {endpoints: ["10.0.0.3:80"]}\n'


@pytest.fixture
async def three(tmp_path, kit):
    """A site whose service has three versions."""
    made = await kit.start(tmp_path, shop=THREE)
    yield made
    await made.store.close()


def to(version, **over):
    return Order(**({"service": "shop", "to": version, "policy": "quick", "actor": "ann"} | over))


async def apply(site, **texts):
    """Hand in documents by the names of their files."""
    applied = await site.plane.apply(
        Documents(files={f"{name}.yaml": text for name, text in texts.items()}, actor="ann")
    )
    assert not applied.problems
    return applied


# --- orders by a command ----------------------------------------------------------------------------------


async def test_a_command_orders_from_what_is_stable_when_its_turn_comes(three, kit):
    await three.plane.order(to("v2"))
    await kit.until(three, lambda w: w.releases["shop-v2"].active)
    await three.plane.order(to("v3"))
    await kit.tick(three)
    assert three.plane.release("shop-v3").hold == "busy"
    assert "waits behind release 'shop-v2'" in three.plane.release("shop-v3").because

    world = await kit.until(three, lambda w: w.releases["shop-v3"].active)
    assert world.stable == {"shop": "v2"}
    assert world.releases["shop-v3"].from_version == "v2"
    world = await kit.until(three, lambda w: w.releases["shop-v3"].ended)

    assert (world.releases["shop-v3"].phase, world.stable) == (Phase.PROMOTED, {"shop": "v3"})


async def test_by_hand_too_it_starts_from_what_is_stable(three, kit):
    await three.plane.order(to("v2"))
    await kit.until(three, lambda w: w.releases["shop-v2"].active)
    await three.plane.order(to("v3"))
    await three.plane.act("shop-v2", "promote", ANN)

    shown = await three.plane.act("shop-v3", "advance", ANN)

    assert (shown.phase, shown.from_version) == ("progressing", "v2")


async def test_a_version_is_ordered_once_at_a_time(three, kit):
    await three.plane.order(to("v2"))

    with pytest.raises(RefusedError, match="'v2' of 'shop' is ordered already: release 'shop-v2'"):
        await three.plane.order(to("v2", name="again"))


async def test_a_document_is_from_what_it_says_and_the_way_out_is_named(three, kit):
    await three.plane.order(to("v2"))
    await kit.until(three, lambda w: w.releases["shop-v2"].active)
    await apply(three, third=RELEASE.replace("to: v2", "to: v3").replace("shop-2", "third"))

    await kit.until(three, lambda w: w.releases["shop-v2"].ended)
    await kit.tick(three, 3)

    shown = three.plane.release("third")
    assert (shown.phase, shown.from_version) == ("waiting", "v1")
    assert "stable is 'v2', but the order is from 'v1'" in shown.because
    assert "`turnout rollback third`" in shown.because
    assert "`turnout release shop v3 --policy quick`" in shown.because


@pytest.mark.parametrize("retrying", [False, True])
async def test_an_order_that_has_no_traffic_is_called_off_whatever_the_old_version_is(
    tmp_path, kit, retrying
):
    again = kit.POLICY + "on_failure: {do: rollback, retry: {after: 1h}}\n"
    site = await kit.start(tmp_path, quick=again)
    await site.plane.order(to("v2"))
    if retrying:
        await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
        site.traffic.mode = "bad"
        await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.RETRYING)
    await apply(site, shop=SERVICE.replace('"10.0.0.1:80"', ""))

    shown = await site.plane.act("shop-v2", "rollback", ANN)

    assert shown.phase == "rolled_back"
    await site.store.close()


async def test_to_let_a_paused_order_start_by_itself_ends_its_pause(three, kit):
    await three.plane.order(to("v2"))
    await kit.until(three, lambda w: w.releases["shop-v2"].active)
    by_hand = RELEASE.replace("to: v2", "to: v3").replace("shop-2", "third").replace("auto", "manual")
    await apply(three, third=by_hand)
    await three.plane.act("third", "pause", ANN)

    shown = await three.plane.act("third", "advance", ANN)
    assert (shown.halt, "starts by itself: waits behind" in shown.because) == (None, True)
    await three.plane.act("shop-v2", "rollback", ANN)

    await kit.until(three, lambda w: w.releases["third"].active)
