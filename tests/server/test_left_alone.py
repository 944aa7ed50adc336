"""Clients that another store served are left alone, and those that have nothing wait for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.server.alone import WAITS
from controlplane.xds.type_urls import CLUSTER

OTHERS = {"a": "57.0123456789abcdef"}


@pytest.fixture
async def world(serve, kit):
    """A server whose store began at 100; it leaves alone who has something strange."""
    world = await serve()
    world.why = "has shop"
    world.xds.alone.aloof = lambda view: world.why if view.strange else ""
    world.delta = f"/{kit.ADS}/DeltaAggregatedResources"

    def publish(revision):
        new = kit.snapshot(revision, CLUSTER, kit.resource("a", b"ours", revision))
        world.xds.publish("edge", replace(new, began=100))

    world.publish = publish
    world.alone = lambda: {view.node.id: view.alone for view in world.xds.views() if view.node}
    world.publish(100)
    return world


async def test_who_has_anothers_resources_is_left_alone_and_who_has_nothing_waits(world, kit):
    old, new = world.connect(world.delta, "old"), world.connect(world.delta, "new")
    await old.ask(CLUSTER, initial_resource_versions=OTHERS)
    await kit.until(lambda: world.alone() == {"old": "has shop"})
    await new.ask(CLUSTER)
    await kit.until(lambda: world.alone() == {"old": "has shop", "new": WAITS})
    hearing = [asyncio.ensure_future(each.hear()) for each in (old, new)]
    world.publish(101)
    early, _ = await asyncio.wait(hearing, timeout=0.2)

    world.why = ""
    world.publish(102)
    heard = await asyncio.gather(*hearing)

    assert not early
    assert [[r.version.partition(".")[0] for r in each.resources] for each in heard] == [["102"], ["102"]]
    assert set(world.alone().values()) == {""}


async def test_who_waits_is_served_when_nobody_is_left_alone_any_more(world, kit):
    old, new = world.connect(world.delta, "old"), world.connect(world.delta, "new")
    await old.ask(CLUSTER, initial_resource_versions=OTHERS)
    await kit.until(lambda: world.alone() == {"old": "has shop"})
    await new.ask(CLUSTER)
    await kit.until(lambda: world.alone().get("new") == WAITS)

    old.call.cancel()

    assert [r.name for r in (await new.hear()).resources] == ["a"]
    assert world.alone() == {"new": ""}


async def test_who_has_ours_goes_on_beside_one_that_is_left_alone(world, kit):
    ours = {"a": str(kit.resource("a", b"ours", 100).version)}
    old, known = world.connect(world.delta, "old"), world.connect(world.delta, "known")
    await old.ask(CLUSTER, initial_resource_versions=OTHERS)
    await kit.until(lambda: world.alone() == {"old": "has shop"})
    await known.ask(CLUSTER, initial_resource_versions=ours)
    await kit.until(lambda: "known" in world.alone())

    changed = kit.snapshot(101, CLUSTER, kit.resource("a", b"changed", 101))
    world.xds.publish("edge", replace(changed, began=100))

    assert [r.version.partition(".")[0] for r in (await known.hear()).resources] == ["101"]
    assert world.alone() == {"old": "has shop", "known": ""}


async def test_who_waits_leaves_when_it_closes_its_side(world, kit):
    old = world.connect(world.delta, "old")
    await old.ask(CLUSTER, initial_resource_versions=OTHERS)
    await kit.until(lambda: world.alone() == {"old": "has shop"})

    await old.call.done_writing()

    await old.end()
    await kit.until(lambda: world.xds.views() == ())
