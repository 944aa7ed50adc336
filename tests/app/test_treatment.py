"""What is kept from world to world is what would be found afresh, and stays the same object."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controlplane.app.taking import order
from controlplane.app.treatment import Treatment
from controlplane.release.ports import World
from controlplane.release.state import Phase

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def world(kit):
    cart = kit.SERVICE.replace("name: shop", "name: cart").replace("shop.example", "cart.example")
    return World(
        1, kit.load(kit.files(cart=cart, release=kit.RELEASE)).catalog, 1, {"shop": "v1", "cart": "v1"}
    )


@pytest.fixture
def fleet(world):
    return world.catalog.fleet("edge")


def released(world, **changes):
    state = order(world.catalog, world.catalog.releases()[0], NOW)
    return state.model_copy(update={"phase": Phase.PROGRESSING, **changes})


def with_release(world, state):
    return replace(world, revision=world.revision + 1, releases={state.name: state})


def test_only_the_service_that_changed_is_another_object(world, fleet):
    treatment = Treatment()
    before = treatment.of(world, fleet)

    switched = treatment.of(replace(world, stable={**world.stable, "shop": "v2"}), fleet)

    assert switched["cart"] is before["cart"]
    assert (before["shop"].stable, switched["shop"].stable) == ("v1", "v2")


def test_a_world_that_treats_all_alike_gives_the_very_same_table(world, fleet, kit):
    treatment = Treatment()
    state = released(world)
    before = treatment.of(with_release(world, state), fleet)

    judged = state.model_copy(update={"because": "it waits", "revision": 2})
    after = treatment.of(with_release(world, judged), fleet)

    assert all(after[name] is before[name] for name in before)
    assert before["shop"].canary == "v2"


def test_whatever_happened_it_is_what_would_be_found_afresh(world, fleet, kit):
    treatment = Treatment()
    without = kit.load(kit.files(release=None)).catalog
    slower = kit.load(kit.files(shop=kit.SERVICE + "timeout: 13s\n")).catalog
    state = released(world)
    ended = state.model_copy(update={"phase": Phase.ROLLED_BACK})
    worlds = [
        world,
        with_release(world, state),
        with_release(world, released(world, step=1)),
        with_release(world, ended),
        replace(world, stable={"shop": "v2"}),
        replace(world, stable={}),
        replace(world, catalog=without),
        replace(world, catalog=slower),
        world,
    ]

    for each in worlds:
        kept, fresh = treatment.of(each, fleet), Treatment().of(each, fleet)

        assert dict(kept) == dict(fresh)
