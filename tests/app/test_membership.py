"""Where a node belongs, and that a node of two fleets is held, shown and waited for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controlplane.app.membership import member
from controlplane.app.showing import show_proxy
from controlplane.policy.documents import Fleet
from controlplane.release.ports import World
from controlplane.web.asked import Documents, Order
from controlplane.xds.messages import Node
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE
from controlplane.xds.version import Version
from controlplane.xds.view import Peer, StreamView, TypeView, Versions

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NEW = Node("w-1", "edge", version=(1, 40, 0))
OTHER = "kind: Fleet\nname: west\nnodes: {id: 'w-*'}\nlisteners: [{name: http, address: '127.0.0.1:9'}]\n"


def fleet(name, **nodes):
    listeners = [{"name": "http", "address": "0.0.0.0:80"}]
    return Fleet.model_validate({"kind": "Fleet", "name": name, "nodes": nodes, "listeners": listeners})


def test_a_node_of_one_fleet_is_in_its_group():
    assert member(NEW, [fleet("a", cluster="edge"), fleet("b", id="x-*")]).group == "a"


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ((1, 38, 0), ""),
        ((1, 40, 0), ""),
        ((1, 37, 9), "Envoy 1.37.9 is too old for a listener of kind edge, which needs 1.38.0: counts by"),
        ((1, 35, 0), "Envoy 1.35.0 is too old for a listener of kind edge, which needs 1.38.0: versions by"),
        (None, "does not say its Envoy version; a listener of kind edge needs 1.38.0 or newer"),
    ],
)
def test_a_proxy_that_is_too_old_is_refused_with_what_it_lacks(version, problem):
    found = member(replace(NEW, version=version), [fleet("a", cluster="edge")])

    assert found.problem[: len(problem) or None] == problem
    assert found.group == (None if problem else "a")


def test_gRPC_clients_need_no_envoy():  # noqa: N802 - its name
    calls = [{"name": "calls", "kind": "grpc"}]
    mesh = Fleet.model_validate({"kind": "Fleet", "name": "m", "nodes": {"id": "*"}, "listeners": calls})

    assert member(Node("cart-1"), [mesh]).group == "m"


def test_a_node_of_none_or_of_two_is_in_no_group_and_knows_why():
    fleets = [fleet("a", cluster="edge"), fleet("b", id="w-*")]

    both, none = member(Node("w-1", "edge"), fleets), member(Node("x", "y"), fleets)

    assert both.group is none.group is None
    assert both.problem.startswith("belongs to fleets 'a' and 'b'")
    assert none.problem.startswith("belongs to no fleet")


async def test_a_node_of_two_fleets_is_shown_and_holds_the_releases_of_both(site, monkeypatch):
    await site.plane.apply(Documents(files={"west.yaml": OTHER}, actor="ann"))
    world = await site.store.world()
    site.publisher.publish(world)
    await asyncio.sleep(0)
    view = StreamView(Peer("10.0.0.1:1"), "delta", NOW, Node("w-1", "edge"), None, None, False, ())
    monkeypatch.setattr(site.publisher.server, "views", lambda: (view,))

    shown = show_proxy(view, site.publisher, 0, {}, NOW)
    propagation = site.publisher.propagation(world, "shop")

    assert shown.state == "refused"
    assert shown.problems[0].startswith("belongs to fleets 'edge' and 'west'")
    assert propagation.unserved == (("w-1", shown.problems[0]),)
    assert propagation.trouble.startswith("w-1 is not served: belongs to fleets 'edge' and 'west'")
    assert not propagation.complete


def stream(node, group, *clusters, waiting=None):
    """Return the stream of a proxy that has clusters of a fleet."""
    acked = Versions(dict.fromkeys(clusters, Version(1, "a")))
    types = (TypeView(CLUSTER, True, True, frozenset(), NOW, acked, acked, {}, None, {}, waiting),)
    return StreamView(Peer("10.0.0.1:1"), "delta", NOW, node, group, 1, False, types)


@pytest.mark.parametrize(
    ("view", "unserved", "left"),
    [
        (stream(NEW, None), "belongs to no fleet", ()),
        (stream(NEW, "west", "shop~v2"), "is of fleet 'west' now, and has not replaced 'shop' yet", ()),
        (stream(NEW, "west", "cart~v1", waiting=NOW), "is of fleet 'west' now, and has not", ()),
        (stream(NEW, "west"), "is of fleet 'west' now, and has not", ()),  # it said nothing yet
        (stream(NEW, "west", "cart~v1"), "", ("w-1",)),
        (stream(Node("other", "x"), None), "", ()),  # never had it
    ],
)
async def test_a_proxy_that_had_a_release_and_is_of_its_fleets_no_more_may_serve_it_still(
    site, kit, monkeypatch, view, unserved, left
):
    await site.plane.apply(Documents(files={"fleet.yaml": kit.FLEET.replace("edge}", "no}")}, actor="ann"))
    world = await site.store.world()
    site.publisher.publish(world)
    await asyncio.sleep(0)
    monkeypatch.setattr(site.publisher.server, "views", lambda: (view,))
    monkeypatch.setattr(World, "had", lambda _, service: {"shop": frozenset({"w-1"})}[service])

    found = site.publisher.propagation(world, "shop")

    assert [(proxy, why[: len(unserved)]) for proxy, why in found.unserved] == (
        [("w-1", unserved)] if unserved else []
    )
    assert found.left == left
    assert found.at_least == 1_000_000


async def test_a_fleet_edit_that_takes_proxies_out_under_a_release_is_warned_about(site, kit, monkeypatch):
    views = (stream(Node("e-1", "edge"), "edge"), stream(Node("w-9", "far"), None))
    monkeypatch.setattr(site.publisher.server, "views", lambda: views)
    typo = Documents(files={"fleet.yaml": kit.FLEET.replace("cluster: edge", "cluster: edgy")}, actor="ann")
    right = Documents(files={"fleet.yaml": kit.FLEET}, actor="ann")

    idle = await site.plane.apply(typo)
    await site.plane.apply(right)
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.tick(site)
    same = await site.plane.apply(Documents(files={"fleet.yaml": kit.FLEET + "# same\n"}, actor="ann"))
    running = await site.plane.apply(typo)

    assert idle.accepted == running.accepted == ("Fleet edge",)
    assert idle.warnings == same.warnings == ()
    assert [w.partition(":")[0] for w in running.warnings] == ["Fleet 'edge'"]
    assert "e-1 is connected and leaves it (belongs to no fleet" in running.warnings[0]
    assert "release shop-v2 in progress there" in running.warnings[0]


@pytest.mark.parametrize(("fleets", "warned"), [("[edge, west]", []), ("[edge]", ["Fleet 'edge'"])])
async def test_proxies_that_come_into_another_fleet_of_the_released_service_are_not_warned_about(
    tmp_path, kit, monkeypatch, fleets, warned
):
    west = kit.FLEET.replace("edge", "west").replace("8080", "8081")
    site = await kit.start(tmp_path, west=west, shop=kit.SERVICE.replace("[edge]", fleets))
    views = (stream(Node("e-1", "edge", version=(1, 40, 0)), "edge"),)
    monkeypatch.setattr(site.publisher.server, "views", lambda: views)
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.tick(site)
    swapped = {"a.yaml": kit.FLEET.replace("cluster: edge", "cluster: x"),
               "b.yaml": west.replace("cluster: west", "cluster: edge")}  # fmt: skip

    applied = await site.plane.apply(Documents(files=swapped, actor="ann"))

    assert applied.accepted == ("Fleet edge", "Fleet west")
    assert [warning.partition(":")[0] for warning in applied.warnings] == warned
    await site.store.close()


async def test_a_proxy_that_is_too_old_for_a_setting_is_served_and_shown_with_it(tmp_path, kit):
    site = await kit.start(tmp_path, shop=kit.SERVICE + "retries: {other_version: true}\n")
    site.publisher.publish(await site.store.world())

    def shown(*version):
        node = Node("edge-1", "edge", version=version)
        view = StreamView(Peer("10.0.0.1:1"), "delta", NOW, node, "edge", None, False, ())
        return show_proxy(view, site.publisher, 0, {}, NOW).problems

    said = "retries.other_version of service 'shop' has no effect on Envoy 1.38.2, only since 1.39.0"
    assert shown(1, 39, 0) == ()
    assert shown(1, 38, 2) == (f"{said}: retries stay within the version",)
    await site.store.close()


async def test_what_waits_for_what_is_shown(site):
    """A gate is a reason why a release waits: who is on duty must see for what."""
    site.publisher.publish(await site.store.world())
    gated = dict.fromkeys("ab", (CLUSTER, "shop~v2")) | {"c": (ENDPOINT, "cart~v1")}
    routes = TypeView(ROUTE, True, False, frozenset(), NOW, Versions({}), Versions({}), {}, None, gated, None)
    view = StreamView(Peer("10.0.0.1:1"), "delta", NOW, Node("edge-1", "edge"), "edge", 1, False, (routes,))

    shown = show_proxy(view, site.publisher, 0, {}, NOW)

    assert shown.state == "waiting"
    assert shown.problems[:2] == (
        "RouteConfiguration 'a', 'b' waits for Cluster 'shop~v2'",
        "RouteConfiguration 'c' waits for ClusterLoadAssignment 'cart~v1'",
    )
    assert shown.types[0].gated == 3


async def test_a_fleet_without_refused_proxies_keeps_its_time_to_propagate(tmp_path, kit):
    slow = kit.FLEET + "propagate: {within: 2m}\n"
    site = await kit.start(tmp_path, fleet=slow)
    world = await site.store.world()
    site.publisher.publish(world)

    assert site.publisher.propagation(world, "shop").within.total_seconds() == 120
