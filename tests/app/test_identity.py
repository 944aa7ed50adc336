"""Who a user is stays what it was when a release was ordered, until that has ended."""

from __future__ import annotations

import pytest

from controlplane.app.treatment import Treatment
from controlplane.policy.segments import Request
from controlplane.release.ports import Change
from controlplane.release.state import Phase
from controlplane.resources.buckets import pick
from controlplane.web.asked import Act, Documents, Order
from tests.app.test_groups import begin, release

USERS = tuple(
    Request(host="shop.example.com", headers=(("cookie", f"u=c{n}"), ("x-user-id", f"h{n}")))
    for n in range(200)
)
NOBODY = Request(host="shop.example.com")
OF_HEADER = "user: {from: [{header: x-user-id}]}"
OF_COOKIE = "user: {from: [{cookie: u}]}"


def given(world, service="shop"):
    """Return the version of each user."""
    traffic = Treatment().of(world, world.catalog.fleet("edge"))[service]
    return [pick(traffic, user).version for user in USERS]


async def edited(site, kit, text):
    assert OF_COOKIE in kit.SERVICE
    changed = kit.SERVICE.replace(OF_COOKIE, text)
    return await site.plane.apply(Documents(files={"shop.yaml": changed}, actor="ann"))


async def going(site, kit):
    """Return the world at a step in which some have the canary."""
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    return await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")


async def test_an_edit_of_who_a_user_is_moves_nobody_under_a_release(site, kit):
    before = given(await going(site, kit))

    applied = await edited(site, kit, OF_HEADER)
    after = given(await site.store.world())

    assert set(before) == {"v1", "v2"}
    assert after == before
    assert applied.accepted == ("Service shop",)
    assert applied.warnings[0].endswith(
        "the service was edited (user); the release goes on with what was pinned"
    )
    assert site.plane.release("shop-v2").drift == (
        "the service was edited (user); the release goes on with what was pinned",
    )


async def test_the_next_release_is_by_the_edited_service(site, kit):
    treatment = Treatment()
    await going(site, kit)
    await edited(site, kit, OF_HEADER)
    world = await site.store.world()
    during = treatment.of(world, world.catalog.fleet("edge"))["shop"]

    await site.plane.act("shop-v2", "rollback", Act(actor="ann"))
    world = await kit.until(site, lambda w: w.releases["shop-v2"].ended)
    again = await site.plane.act("shop-v2", "retry", Act(actor="ann"))

    after = treatment.of(world, world.catalog.fleet("edge"))["shop"]
    assert [source.cookie for source in during.service.user.from_] == ["u"]
    assert [source.header for source in after.service.user.from_] == ["x-user-id"]
    assert again.drift == ()
    world = await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    assert [s.header for s in world.releases["shop-v2"].policy.user.from_] == ["x-user-id"]


async def test_what_becomes_of_requests_without_identity_stays_too(site, kit):
    await going(site, kit)

    await edited(site, kit, OF_COOKIE.replace("]}", "], otherwise: baseline}"))
    world = await site.store.world()

    # Of the edge, where nothing is said, they are given an identity.
    traffic = Treatment().of(world, world.catalog.fleet("edge"))["shop"]
    assert traffic.anonymous == "generate"
    assert pick(traffic, NOBODY).version is None


async def test_a_release_of_before_goes_by_the_document_and_shows_no_drift(site, kit):
    state = (await going(site, kit)).releases["shop-v2"]
    old = state.policy.model_dump(mode="json", by_alias=True)
    del old["user"]
    policy = type(state.policy).model_validate(old)
    site.loop.world = world = await site.store.commit(
        Change(releases=(state.model_copy(update={"policy": policy}),))
    )
    before = given(world)

    await edited(site, kit, OF_HEADER)

    assert policy.user is None
    assert given(await site.store.world()) != before
    assert site.plane.release("shop-v2").drift == ()


@pytest.mark.parametrize("whole", [True, False], ids=["both services", "one service"])
async def test_all_of_a_group_go_on_moving_the_same_users(tmp_path, kit, whole):
    """Also one that starts after the edit, while another has started."""
    site = await begin(tmp_path, kit, back=release("back"), front=release("front", after="{release: back-2}"))
    world = await kit.until(site, lambda w: w.releases["back-2"].phase is Phase.PROGRESSING)
    assert world.releases["front-2"].phase is Phase.WAITING
    names = ("back", "front") if whole else ("front",)
    texts = {
        f"{name}.yaml": kit.SERVICE.replace("name: shop", f"name: {name}")
        .replace("shop.", f"{name}.")
        .replace(OF_COOKIE, OF_HEADER)
        for name in names
    }

    await site.plane.apply(Documents(files=texts, actor="ann"))
    world = await kit.until(site, lambda w: w.releases["front-2"].at == "ten" == w.releases["back-2"].at)

    assert set(given(world, "back")) == {"v1", "v2"}
    assert given(world, "front") == given(world, "back")
