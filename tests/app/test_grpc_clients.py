"""Services on fleets of gRPC clients: who has acknowledged, and policies that do not fit."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest

from controlplane.app.following import Part
from controlplane.app.propagation import Relevant, propagation
from controlplane.app.statistics import merged
from controlplane.evidence.observation import Cell, Measure, Observation, Reading, Stat, Tally
from controlplane.policy.documents import Propagate
from controlplane.release.state import Phase
from controlplane.web.asked import Act, Order
from controlplane.web.port import RefusedError
from controlplane.xds.messages import Node
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from controlplane.xds.version import Version
from controlplane.xds.view import Peer, StreamView, TypeView

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WANTED, OLD = Version(7, "new"), Version(3, "old")
MESH = "kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners: [{name: calls, kind: grpc}]\n"
BY_CALL = """\
kind: Policy
name: quick
steps: [{name: half, everyone: 50%}, {name: all, everyone: 100%}]
conditions: [{errors: {against: baseline, margin: 25%}}]
guard: {for: 15s, hold_back: 2%}
"""
SLOW = BY_CALL.replace("errors: {against: baseline, margin: 25%}", "latency: {p99: 400ms}")
CLUSTERS = ("shop~v1~everyone", "shop~v2~everyone")
TARGET = {CLUSTER: CLUSTERS, ENDPOINT: CLUSTERS, ROUTE: ("shop",), LISTENER: ("shop",)}


def snapshot():
    needs = frozenset((kind, name) for kind in (CLUSTER, ENDPOINT) for name in CLUSTERS)
    tables = {
        url: {n: Resource(n, b"", WANTED, needs if url == ROUTE else frozenset()) for n in (*names, "cart")}
        for url, names in TARGET.items()
    }
    return Snapshot(7, tables, tuple(TARGET))


def caller(proxy="a", **changed):
    """Return a client that has all; ``changed`` has the versions of one type by its last word."""
    types = []
    for url, names in TARGET.items():
        has = changed.get(url.rpartition(".")[2], dict.fromkeys(names, WANTED))
        types.append(TypeView(url, True, False, frozenset(has), NOW, {}, has, {}, None, {}, None))
    return StreamView(Peer("10.0.0.1:1"), "sotw", NOW, Node(proxy), "mesh", 7, False, tuple(types))


@pytest.mark.parametrize(
    ("view", "live", "acked"),
    [
        (caller(), "a", "a"),
        (caller(Cluster={CLUSTERS[0]: WANTED}), "a", ""),  # it has not asked for the new one yet
        (caller(ClusterLoadAssignment={CLUSTERS[0]: WANTED, CLUSTERS[1]: OLD}), "a", ""),
        (caller(RouteConfiguration={"shop": OLD}), "a", ""),
        (caller(RouteConfiguration={}), "a", ""),
        (caller(Listener={"cart": WANTED}), "", ""),  # it calls another service
    ],
)
def test_a_client_has_acknowledged_when_it_has_asked_for_all_that_its_route_names(view, live, acked):
    got = propagation([view], Relevant.of_calls(snapshot(), "shop"), Propagate())

    assert (got.live, got.acked) == (tuple(live), tuple(acked))


def test_observations_by_proxies_and_by_clients_are_one():
    proxies = Observation(
        "shop", NOW, NOW, ((Cell("b", "everyone", "v1"), Tally(5)),), ("b",), (), (("c", "x"),)
    )
    clients = Observation("shop", NOW, NOW, ((Cell("a", "everyone", "v1"), Tally(7, 1)),), ("a",), ("d",))

    both = merged(proxies, clients)

    assert [(cell.proxy, tally.requests) for cell, tally in both.cells] == [("a", 7), ("b", 5)]
    assert (both.fresh, both.silent, both.partial) == (("a", "b"), ("d",), (("c", "x"),))


def test_nothing_that_either_kind_of_client_said_is_lost_where_both_call_a_service():
    """A field that is added to observations is brought together, too."""
    cell = Cell("b", "everyone", "v1")
    full = Observation(
        service="shop",
        start=NOW,
        end=NOW,
        cells=((cell, Tally(5)),),
        fresh=("b",),
        silent=("c",),
        partial=(("d", "x"),),
        issued=((cell, 5),),
        healthy=(("b", "v1", 1),),
        measures=(Measure(cell, "orders", 1.0),),
        stats=(Stat("b", "v1", "ejections", 1),),
        reporting=("b",),
        readings=(Reading("queue", 1.0),),
        late=("e",),
    )
    empty = Observation("shop", NOW, NOW)
    assert all(getattr(full, each.name) != getattr(empty, each.name) for each in fields(full)[3:])

    assert merged(full, empty) == full
    assert merged(empty, full) == full


async def test_an_order_by_a_policy_that_does_not_fit_is_refused(tmp_path, kit):
    site = await kit.start(tmp_path, fleet=MESH, quick=SLOW)

    with pytest.raises(RefusedError, match="does not fit grpc fleet 'edge': it has a condition on"):
        await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="tester"))

    assert (await site.store.world()).releases == {}
    await site.store.close()


async def test_a_service_does_not_get_a_grpc_fleet_under_a_release_that_does_not_fit(tmp_path, kit):
    site = await kit.start(tmp_path, quick=SLOW, release=kit.RELEASE)
    world = await kit.until(site, lambda world: world.releases["shop-2"].phase is Phase.PROGRESSING)
    site.publisher.publish(world)
    mesh = MESH.replace("edge", "mesh")
    both = kit.SERVICE.replace("[edge]", "[edge, mesh]")

    applied = await site.plane.take_part(Part({"m.yaml": mesh.encode(), "s.yaml": both.encode()}), "x")

    [problem] = applied.problems
    assert "policy 'quick' does not fit: it has a condition on" in problem
    assert (await site.store.world()).catalog.service("shop").fleets == ("edge",)
    await site.store.close()


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.PROGRESSING, Phase.ROLLED_BACK])
async def test_a_fleet_does_not_become_grpc_under_a_release_that_does_not_fit(phase, tmp_path, kit):
    held = kit.RELEASE.replace("start: auto", f"start: {'manual' if phase is Phase.WAITING else 'auto'}")
    site = await kit.start(tmp_path, quick=SLOW, release=held)
    if phase is not Phase.WAITING:
        world = await kit.until(site, lambda world: world.releases["shop-2"].phase is Phase.PROGRESSING)
        site.publisher.publish(world)
    if phase is Phase.ROLLED_BACK:
        await site.plane.act("shop-2", "rollback", Act(actor="tester"))
        await kit.until(site, lambda world: world.releases["shop-2"].ended)

    applied = await site.plane.take(kit.files(fleet=MESH, quick=SLOW, release=held), "tester")

    errors = [problem for problem in applied.problems if "cannot become grpc" in problem]
    after = (await site.store.world()).catalog.fleet("edge")
    assert after.grpc is (phase is Phase.ROLLED_BACK) is not bool(errors)
    for error in errors:
        assert error.startswith(
            "fleet.yaml:1:1: listeners: this cannot become grpc fleet 'edge' under release"
        )
        assert f"'shop-2' ({phase}): policy 'quick' does not fit: it has a condition on" in error
    await site.store.close()


async def test_a_release_that_does_not_fit_holds_with_the_reason_and_may_go_back(tmp_path, kit):
    site = await kit.start(tmp_path, quick=SLOW, release=kit.RELEASE)
    world = await kit.until(site, lambda world: world.releases["shop-2"].phase is Phase.PROGRESSING)
    mesh = kit.load(kit.files(fleet=MESH, quick=SLOW)).catalog
    world = replace(world, catalog=mesh)
    back = world.releases["shop-2"].model_copy(update={"phase": Phase.ROLLING_BACK})

    site.publisher.publish(world)
    held = site.publisher.propagation(world, "shop")
    site.publisher.publish(replace(world, releases={"shop-2": back}))

    assert "does not fit grpc fleets" in held.nacked[0][1]
    assert site.publisher.problems == {}
    assert [*site.publisher.server.snapshot("edge").of(CLUSTER)] == ["shop~v1~everyone"]
    await site.store.close()
