"""A version made stable at once: over a point of no return, back over one, and in a group."""

from __future__ import annotations

import pytest

from controlplane.release.state import Phase
from controlplane.web.asked import Act, Order, Switch
from controlplane.web.port import RefusedError
from tests.app.test_groups import begin, chain, phases, release

ANN = Act(actor="ann")
SURE = Act(actor="ann", past_point_of_no_return=True)
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")
LAST = "everyone: 100%, approve: {role: admin}, irreversible: {because: drops a column},"
PASSED = "passed at step 'all': drops a column ("


def to(version, *, sure=False):
    return Switch(actor="ann", version=version, past_point_of_no_return=sure)


@pytest.fixture
async def staff(tmp_path, kit):
    """Serve a release at its first step, whose last is irreversible."""
    policy = kit.POLICY.replace("everyone: 100%,", LAST).replace("hold_back: 2%", "hold_back: 0%")
    site = await kit.start(tmp_path, quick=policy)
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "staff")
    yield site
    await site.store.close()


async def test_a_promotion_over_an_irreversible_step_passes_the_point_and_says_by_whom(staff):
    await staff.plane.act("shop-v2", "approve", ANN)
    shown = await staff.plane.act("shop-v2", "promote", ANN)

    assert shown.point_of_no_return == f"{PASSED}{staff.clock.now:%Y-%m-%d %H:%M:%S} UTC by ann)"
    assert shown.return_point == (
        "NO WAY BACK, step 'all': drops a column: v2 is stable;"
        " `turnout undo shop-v2 --past-point-of-no-return` goes back all the same"
    )
    for asked in (staff.plane.undo("shop", ANN), staff.plane.switch("shop", to("v1"))):
        with pytest.raises(RefusedError, match=r"point of no return of release 'shop-v2' .*--past-point"):
            await asked
    assert (await staff.plane.undo("shop", SURE)).stable == "v1"


async def test_a_switch_over_an_irreversible_step_needs_its_consent_or_a_word_of_its_own(staff):
    with pytest.raises(RefusedError, match=r"'all': drops a column\) that nobody approved: `turnout approve"):
        await staff.plane.switch("shop", to("v2"))
    await staff.plane.act("shop-v2", "approve", ANN)

    await staff.plane.switch("shop", to("v2"))

    assert staff.plane.release("shop-v2").point_of_no_return.startswith(PASSED)
    with pytest.raises(RefusedError, match="--past-point-of-no-return"):
        await staff.plane.switch("shop", to("v1"))
    assert (await staff.plane.switch("shop", to("v1", sure=True))).stable == "v1"
    assert staff.plane.release("shop-v2").return_point == "over: v1 is stable"


async def test_a_release_that_goes_back_is_past_its_point_if_its_version_is_made_stable_meanwhile(staff, kit):
    staff.fleet.mode = "some"
    await staff.plane.act("shop-v2", "rollback", ANN)

    await staff.plane.switch("shop", to("v2", sure=True))

    staff.fleet.mode = "all"
    world = await kit.tick(staff)
    assert world.releases["shop-v2"].phase is Phase.ROLLED_BACK
    assert world.releases["shop-v2"].because.endswith("v2 was made stable meanwhile and has every request")
    assert staff.plane.release("shop-v2").return_point == "over: v2 is stable"
    with pytest.raises(RefusedError, match="from before the point of no return of release 'shop-v2'"):
        await staff.plane.switch("shop", to("v1"))


async def test_a_point_that_an_earlier_version_passed_is_read_from_its_step(staff, kit):
    await staff.plane.act("shop-v2", "approve", ANN)
    await kit.until(staff, lambda w: w.releases["shop-v2"].at == "all")
    state = (await staff.store.world()).releases["shop-v2"]
    older = state.model_copy(update={"passed": None})
    await staff.store.commit(kit.Change(releases=(older,)))

    await staff.loop.restore()

    read = staff.loop.world.releases["shop-v2"]
    assert (read.passed.because, read.passed.at, read.passed.actor) == (state.past, state.step_at, "")


async def test_who_waits_for_a_promotion_that_is_undone_waits_on(tmp_path, kit):
    after = release("front", group="", after="{release: back-2}", start="manual")
    site = await begin(tmp_path, kit, back=release("back", group=""), front=after)
    await kit.until(site, lambda w: w.releases["back-2"].phase is Phase.PROMOTED)
    await site.plane.undo("back", ANN)

    await site.plane.act("front-2", "advance", ANN)
    world = await kit.tick(site, 3)

    waits = world.releases["front-2"]
    assert (waits.phase, waits.hold) == (Phase.WAITING, "dependency-failed")
    assert waits.because == "release 'back-2', on which it depends, was undone: v1 of 'back' is stable"
    assert site.plane.release("back-2").return_point == "over: v1 is stable"
    await site.plane.switch("back", to("v2"))
    assert (await kit.tick(site)).releases["front-2"].phase is Phase.PROGRESSING
    await site.store.close()


async def test_a_switch_takes_no_release_out_of_its_group(tmp_path, kit):
    site = await chain(tmp_path, kit)
    await kit.until(site, lambda w: w.releases["front-2"].at == "ten")
    for service, version, words in (
        ("front", "v2", "ends with its group 'summer', not alone"),
        ("back", "v1", "mid-2, of its group, depends on it .* `turnout rollback back-2` takes all back"),
    ):
        with pytest.raises(RefusedError, match=words):
            await site.plane.switch(service, to(version))

    await site.plane.switch("front", to("v1"))
    world = await kit.until(site, lambda w: all(r.ended for r in w.releases.values()))

    assert set(phases(world).values()) == {Phase.ROLLED_BACK}
    await site.store.close()


@pytest.mark.parametrize("how", ["paused", "manual"])
async def test_an_order_advanced_before_its_turn_starts_by_itself_also_if_it_was_paused(site, kit, how):
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].active)
    await site.plane.take(kit.files(order=kit.RELEASE.replace("start: auto", "start: manual")), "test")
    if how == "paused":
        await site.plane.act("shop-2", "pause", ANN)

    shown = await site.plane.act("shop-2", "advance", ANN)

    assert shown.halt is None
    assert "starts by itself: waits behind release 'shop-v2'" in shown.because
    await site.plane.act("shop-v2", "rollback", ANN)
    assert (await kit.until(site, lambda w: w.releases["shop-2"].active)).releases["shop-v2"].ended
