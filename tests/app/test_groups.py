"""Releases that know one another, over the whole loop: dependencies, lockstep, joint end, reverse order."""

from __future__ import annotations

from itertools import pairwise

import pytest

from controlplane.release.state import Phase
from controlplane.web.asked import Act, Documents, Order
from controlplane.web.port import RefusedError
from tests.app.site import Many

ANN = Act(actor="ann")
CHAIN = ("back", "mid", "front")  # each depends on the one before


def release(name, *, group="group: summer", after=None, policy="quick", more="", start="auto"):
    lines = f"kind: Release\nname: {name}-2\nservice: {name}\nfrom: v1\nto: v2\npolicy: {policy}\n{group}\n"
    return lines + (f"after: [{after}]\n" if after else "") + f"{more}\nstart: {start}\n"


async def begin(tmp_path, kit, *, policy=None, texts=None, **orders):
    """Return a site with a service for each order, and the orders taken."""
    services = {
        name: kit.SERVICE.replace("name: shop", f"name: {name}").replace("shop.", f"{name}.")
        for name in orders
    }
    site = await kit.start(tmp_path, shop=None, quick=policy or kit.POLICY, **services)
    site.traffic = site.statistics = Many(orders)
    texts = (texts or {}) | {f"{name}-order": text for name, text in orders.items()}
    applied = await site.plane.take(
        kit.files(shop=None, quick=policy or kit.POLICY, **services, **texts), "test"
    )
    assert not applied.problems
    return site


async def chain(tmp_path, kit, **over):
    orders = {"back": release("back")}
    orders |= {name: release(name, after=f"{{release: {dep}-2}}") for dep, name in pairwise(CHAIN)}
    return await begin(tmp_path, kit, **(orders | over))


def phases(world):
    return {name: world.releases[f"{name}-2"].phase for name in CHAIN}


async def moved(site, *actions):
    """Return (release, action) of the loop's records, in order."""
    return [(r.release[:-2], r.action) for r in await site.store.records(limit=10_000) if r.action in actions]


async def test_a_group_goes_step_by_step_dependencies_first_and_ends_together(tmp_path, kit):
    site = await chain(tmp_path, kit)
    world = await site.store.world()
    assert {r.salt for r in world.releases.values()} == {"summer.1"}
    while not all(r.ended for r in world.releases.values()):
        world = await kit.tick(site)
        going = [world.releases[f"{name}-2"] for name in CHAIN]
        steps = [min(r.step, 2) + r.active for r in going]  # the guard moves nobody, and has no order
        assert steps == sorted(steps, reverse=True), "a dependant is never ahead"
        assert max(steps) - min(steps) <= 1, "nobody runs ahead by more than a step"
        assert len({phase is Phase.PROMOTED for phase in phases(world).values()}) == 1, "all or none"

    assert world.stable == dict.fromkeys(CHAIN, "v2")
    begun = await moved(site, "start", "advance", "guard")
    assert [name for name, action in begun if action == "start"] == list(CHAIN)
    assert [name for name, action in begun if action == "advance"] == [*CHAIN, *CHAIN]
    await site.store.close()


@pytest.fixture
async def irreversible(tmp_path, kit):
    """Start a chain whose middle has a point of no return, and wait until it asks for consent to that."""
    limited = kit.POLICY.replace("{latency: off}]", "{latency: off}, {success_rate: {at_least: 90%}}]")
    limited = limited.replace(", hold_back: 2%", "")
    point = limited.replace("name: quick", "name: final")
    point += "point_of_no_return: {approve: {}, run: 'http://127.0.0.1:1/drop'}\n"
    orders = {"mid": release("mid", policy="final", after="{release: back-2}")}
    site = await chain(tmp_path, kit, policy=limited, texts={"final": point}, **orders)
    await kit.until(site, lambda w: w.releases["mid-2"].hold == "approval")
    yield site
    await site.store.close()


async def test_a_group_crosses_a_point_of_no_return_when_nobody_of_it_can_fail_any_more(irreversible, kit):
    site = irreversible
    await site.plane.act("mid-2", "approve", ANN)
    with pytest.raises(RefusedError, match="ends with its group 'summer'"):
        await site.plane.act("mid-2", "advance", ANN)
    world = await kit.tick(site)
    assert {r.hold for r in world.releases.values()} == {"apart"}, "each is ready, and is seen to be"
    site.traffic.of["front"].mode = "both"
    world = await kit.tick(site, 3)
    assert world.releases["mid-2"].crossing is None
    assert set(phases(world).values()) == {Phase.GUARDING}

    site.traffic.of["front"].mode = "good"
    world = await kit.until(site, lambda w: w.releases["mid-2"].crossing is not None)

    assert phases(world) == {"back": Phase.PROMOTED, "mid": Phase.GUARDING, "front": Phase.PROMOTED}
    end = await moved(site, "cross", "promote")
    assert sorted(end) == [("back", "promote"), ("front", "promote"), ("mid", "cross")]
    ends = {r.at for r in await site.store.records(limit=10_000) if r.action in ("cross", "promote")}
    assert len(ends) == 1, "in one transaction"


async def test_a_group_goes_back_as_a_whole_before_its_point_of_no_return(irreversible, kit):
    site = irreversible
    await site.plane.act("mid-2", "approve", ANN)
    site.traffic.of["front"].mode = "bad"

    world = await kit.until(site, lambda w: all(r.ended for r in w.releases.values()))

    assert set(phases(world).values()) == {Phase.ROLLED_BACK}
    assert world.releases["mid-2"].crossing is None


@pytest.mark.parametrize("culprit", CHAIN)
async def test_a_group_goes_back_as_a_whole_in_reverse_order(tmp_path, kit, culprit):
    site = await chain(tmp_path, kit)
    await kit.until(site, lambda w: w.releases["front-2"].at == "ten")
    site.traffic.of[culprit].mode = "bad"

    world = await kit.until(site, lambda w: all(r.ended for r in w.releases.values()))

    assert set(phases(world).values()) == {Phase.ROLLED_BACK}
    assert world.stable == dict.fromkeys(CHAIN, "v1")
    back = await moved(site, "rollback", "finish")
    assert back == [(name, action) for name in reversed(CHAIN) for action in ("rollback", "finish")]
    await site.store.close()


async def test_a_dependant_that_cannot_go_back_delays_the_others_for_a_while_only(tmp_path, kit):
    site = await chain(tmp_path, kit)
    await kit.until(site, lambda w: w.releases["front-2"].at == "ten")
    site.fleet.mode = "some"  # b never acknowledges
    before = site.clock.now
    site.traffic.of["back"].mode = "bad"

    world = await kit.until(site, lambda w: w.releases["back-2"].phase is Phase.ROLLING_BACK, most=40)

    assert world.releases["front-2"].phase is Phase.ROLLING_BACK
    assert (site.clock.now - before).total_seconds() < 90
    await site.store.close()


async def test_an_operator_takes_a_group_back_by_any_of_its_releases(tmp_path, kit):
    site = await chain(tmp_path, kit)
    await kit.until(site, lambda w: w.releases["front-2"].at == "ten")
    with pytest.raises(RefusedError, match="ends with its group 'summer'"):
        await site.plane.act("mid-2", "promote", ANN)

    shown = await site.plane.act("back-2", "rollback", ANN)
    assert (shown.phase, "after mid-2, of its group" in shown.because) == ("progressing", True)
    world = await kit.until(site, lambda w: all(r.ended for r in w.releases.values()))

    assert set(phases(world).values()) == {Phase.ROLLED_BACK}
    assert [name for name, _ in await moved(site, "rollback")] == ["front", "mid", "back"]
    await site.store.close()


async def test_past_the_point_of_no_return_a_person_takes_each_back_dependants_first(tmp_path, kit):
    policy = kit.POLICY.replace("for: 10s}", "for: 10s, approve: {}, irreversible: {because: migrated}}")
    site = await chain(tmp_path, kit, policy=policy.replace("hold_back: 2%", "hold_back: 0%"))
    for name in CHAIN:
        await site.plane.act(f"{name}-2", "approve", ANN)
    await kit.until(site, lambda w: w.releases["front-2"].at == "ten")
    meant = Act(actor="ann", past_point_of_no_return=True)

    with pytest.raises(RefusedError, match="and mid-2 of its group goes back before it"):
        await site.plane.act("back-2", "rollback", meant)
    for name in reversed(CHAIN):
        await site.plane.act(f"{name}-2", "rollback", meant)
        await kit.until(site, lambda w, name=name: w.releases[f"{name}-2"].ended)

    assert [name for name, _ in await moved(site, "rollback")] == ["front", "mid", "back"]
    await site.store.close()


async def test_a_group_is_retried_as_a_whole_with_one_new_salt(tmp_path, kit):
    site = await chain(tmp_path, kit)
    await kit.until(site, lambda w: w.releases["front-2"].at == "ten")
    await site.plane.act("front-2", "rollback", ANN)
    await kit.until(site, lambda w: all(r.ended for r in w.releases.values()))

    await site.plane.act("mid-2", "retry", ANN)

    world = await site.store.world()
    assert {(r.attempt, r.salt, r.phase) for r in world.releases.values()} == {(2, "summer.2", Phase.WAITING)}
    world = await kit.until(site, lambda w: all(r.ended for r in w.releases.values()), most=400)
    assert set(phases(world).values()) == {Phase.PROMOTED}
    await site.store.close()


async def test_a_new_attempt_of_a_group_waits_for_members_that_are_still_in_the_last_one(tmp_path, kit):
    orders = {"back": release("back"), "front": release("front", after="{release: back-2}")}
    site = await begin(tmp_path, kit, **orders)
    await kit.until(site, lambda w: w.releases["front-2"].at == "ten")
    site.fleet.of["front"] = "some"  # b never acknowledges that front is back
    await site.plane.act("back-2", "rollback", ANN)
    await kit.until(site, lambda w: w.releases["back-2"].ended)
    texts = {f"{name}.yaml": text.replace("start:", "attempt: 2\nstart:") for name, text in orders.items()}
    await site.plane.apply(Documents(files=texts, actor="ann"))

    world = await kit.tick(site, 5)

    again = world.releases["back-2"]
    assert (again.attempt, again.phase, again.hold) == (2, Phase.WAITING, "apart")
    assert "waits for attempt 2 of front-2" in again.because
    site.fleet.of["front"] = "all"
    await kit.until(site, lambda w: w.releases["front-2"].ended)
    world = await kit.tick(site, 3)
    assert (world.releases["back-2"].phase, world.releases["back-2"].attempt) == (Phase.WAITING, 2)
    if world.releases["front-2"].attempt == 1:
        await site.plane.act("front-2", "retry", ANN)
    world = await kit.until(site, lambda w: all(r.ended for r in w.releases.values()), most=400)
    assert {r.phase for r in world.releases.values()} == {Phase.PROMOTED}
    await site.store.close()


async def test_an_order_of_a_group_can_be_called_off_while_the_last_attempt_goes_back(tmp_path, kit):
    orders = {"back": release("back"), "front": release("front", after="{release: back-2}")}
    site = await begin(tmp_path, kit, **orders)
    await kit.until(site, lambda w: w.releases["front-2"].at == "ten")
    site.fleet.of["front"] = "some"
    await site.plane.act("back-2", "rollback", ANN)
    await kit.until(site, lambda w: w.releases["back-2"].ended)
    again = orders["back"].replace("start:", "attempt: 2\nstart:")
    front = orders["front"].replace("start:", "attempt: 2\nstart:")
    await site.plane.apply(Documents(files={"back.yaml": again, "front.yaml": front}, actor="ann"))

    shown = await site.plane.act("back-2", "rollback", ANN)

    assert (shown.attempt, shown.phase) == (2, "rolled_back")
    await site.store.close()


# --- dependencies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", ["guarding", "promoted"])
async def test_a_dependency_comes_first_as_far_as_it_must(tmp_path, kit, reached):
    orders = {
        "back": release("back", group=""),
        "front": release("front", group="", after=f"{{release: back-2, reached: {reached}}}"),
    }
    site = await begin(tmp_path, kit, **orders)
    await kit.tick(site, 3)
    assert f"until release 'back-2' is {reached}" in site.plane.release("front-2").because
    with pytest.raises(RefusedError, match="waits until release 'back-2'"):
        await site.plane.act("front-2", "advance", ANN)

    world = await kit.until(site, lambda w: w.releases["front-2"].active)

    assert world.releases["back-2"].phase == reached
    world = await kit.until(site, lambda w: w.releases["front-2"].ended)
    assert world.stable == {"back": "v2", "front": "v2"}
    await site.store.close()


@pytest.mark.parametrize(
    ("do", "started"), [("hold", False), ("rollback", False), ("hold", True), ("rollback", True)]
)
async def test_a_dependency_that_goes_back_holds_or_fails_what_depends_on_it(tmp_path, kit, do, started):
    policy = kit.POLICY + f"on_failed_dependency: {do}\n"
    orders = {
        "back": release("back", group=""),
        "front": release("front", group="", after="{release: back-2, reached: guarding}"),
    }
    site = await begin(tmp_path, kit, policy=policy.replace("15s", "10m"), **orders)
    if started:
        await kit.until(site, lambda w: w.releases["front-2"].at == "ten")
    await kit.tick(site, 2)
    await site.plane.act("back-2", "rollback", ANN)

    world = await kit.tick(site, 30)

    front = world.releases["front-2"]
    assert "'back-2', on which it depends, went back" in (front.reason or front.because)
    if do == "rollback":
        assert front.phase is Phase.ROLLED_BACK
    else:
        assert front.phase is (Phase.PROGRESSING if started else Phase.WAITING)
        assert (front.hold, front.told) == ("dependency-failed", "dependency-failed")
        assert front.at == ("ten" if started else "waiting")
    await site.store.close()


# --- one for another --------------------------------------------------------------------------------------


HOTFIX = """\
kind: Release
name: hotfix
service: shop
from: v1
to: v3
policy: quick
supersedes: shop-v2
start: auto
"""


async def superseding(site, kit, start="auto"):
    text = HOTFIX.replace("auto", start)
    three = kit.SERVICE + '  v3: {endpoints: ["10.0.0.3:80"]}\n'
    applied = await site.plane.take(kit.files(shop=three, hotfix=text), "test")
    assert not applied.problems


async def test_a_hotfix_takes_the_place_of_a_release_that_goes_back_first(site, kit):
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    site.fleet.mode = "nack"
    await superseding(site, kit)

    world = await kit.tick(site, 5)
    assert world.releases["shop-v2"].phase is Phase.ROLLING_BACK
    assert world.releases["hotfix"].phase is Phase.WAITING, "not before every proxy has acknowledged"
    site.fleet.mode = "all"
    world = await kit.until(site, lambda w: w.releases["hotfix"].ended)

    assert world.stable == {"shop": "v3"}
    assert "'hotfix' takes its place" in world.releases["shop-v2"].reason
    await site.store.close()


async def test_what_is_to_be_started_by_hand_takes_nobodys_place_yet(site, kit):
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    await superseding(site, kit, start="manual")

    assert (await kit.tick(site, 2)).releases["shop-v2"].phase is Phase.PROGRESSING
    await site.plane.act("hotfix", "advance", ANN)
    world = await kit.until(site, lambda w: w.releases["hotfix"].active)

    assert world.releases["shop-v2"].phase is Phase.ROLLED_BACK


async def test_a_release_in_its_guard_is_not_taken_back_for_another_without_a_person(tmp_path, kit):
    site = await kit.start(tmp_path, quick=kit.POLICY.replace("15s", "10m"))
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.GUARDING)
    text = kit.POLICY.replace("15s", "10m")
    three = kit.SERVICE + '  v3: {endpoints: ["10.0.0.3:80"]}\n'
    await site.plane.take(kit.files(shop=three, quick=text, hotfix=HOTFIX), "test")

    world = await kit.tick(site, 10)
    assert world.releases["shop-v2"].phase is Phase.GUARDING
    assert "`turnout promote shop-v2` finishes it" in world.releases["hotfix"].because
    await site.plane.act("shop-v2", "rollback", ANN)

    assert (await kit.until(site, lambda w: w.releases["hotfix"].active)).stable == {"shop": "v1"}
    await site.store.close()
