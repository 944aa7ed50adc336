from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from controlplane._pb.route_pb2 import ScopedRouteConfiguration
from controlplane.release.traffic import BUCKETS, Split
from controlplane.resources import rendering
from controlplane.resources.adopting import render_adopted
from controlplane.resources.names import group_name
from controlplane.resources.readable import readable
from controlplane.resources.rendering import render, renewed
from controlplane.xds.snapshot import Snapshot, difference
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE, SECRET


def share(buckets: int) -> tuple[Split, ...]:
    return (Split("everyone", None, ((0, buckets),) if buckets else ()),)


def virtual_hosts(snapshot: Snapshot, name: str) -> dict[tuple[str, ...], list[str]]:
    """Return the paths of each virtual host's routes, by its domains."""
    found = readable(ROUTE, snapshot.of(ROUTE)[name].body)["virtual_hosts"]
    return {
        tuple(host["domains"]): list(
            dict.fromkeys(
                route["match"].get("prefix") or route["match"]["path_separated_prefix"]
                for route in host["routes"]
            )
        )
        for host in found
    }


def revisions(snapshot: Snapshot) -> dict[tuple[str, str], int]:
    return {
        (url, name): each.version.revision
        for url in snapshot.order
        for name, each in snapshot.of(url).items()
    }


def two(traffic: Any, **fields: Any) -> Sequence[Any]:
    return [traffic(name="a", splits=share(100)), traffic(name="b", splits=share(100), **fields)]


def test_a_weight_changes_one_route_configuration_only(fleet, traffic):
    first = render(fleet, two(traffic), 1)
    a, b = two(traffic)

    second = render(fleet, [a, replace(b, splits=share(200))], 2, first)

    assert difference(first.snapshot, second.snapshot).names == {ROUTE: ("b~b.example.com",)}
    assert second.snapshot.of(ROUTE)["b~b.example.com"].version.revision == 2
    assert second.snapshot.of(ROUTE)["a~a.example.com"].version.revision == 1
    assert second.snapshot.of(LISTENER) is first.snapshot.of(LISTENER)


def test_what_is_remembered_is_what_would_be_rendered(fleet, traffic):
    states = [
        two(traffic),
        two(traffic, routes=[{"host": "a.example.com", "path": "/b"}]),
        two(traffic, routes=[{"host": "a.example.com", "path": "/b"}], timeout="3s"),
        [traffic(name="b", canary=None)],
        [traffic(name="b", splits=share(7))],
        [traffic(name="b", splits=share(7), versions={"v1": {"dns": "b:80"}, "v2": {"dns": "b:81"}})],
        two(traffic, versions={"v1": {"dns": "b:80"}, "v2": {"endpoints": []}}),
    ]
    remembered = None
    for revision, services in enumerate(states):
        remembered = render(fleet, services, revision, remembered)
        fresh = render(fleet, services, revision)
        assert (remembered.series, remembered.home) == (fresh.series, fresh.home)
        assert remembered.snapshot.order == fresh.snapshot.order
        for url in fresh.snapshot.order:
            assert dict(remembered.snapshot.of(url)) == dict(fresh.snapshot.of(url))


def test_what_was_rendered_for_another_revision_is_renewed_to_what_would_be_rendered(fleet, traffic):
    states = [
        two(traffic),
        two(traffic, timeout="3s"),
        two(traffic, routes=[{"host": "a.example.com", "path": "/b"}], timeout="3s"),
        [traffic(name="b", splits=share(7))],
        two(traffic, versions={"v1": {"dns": "b:80"}, "v2": {"endpoints": []}}),
    ]
    published = tried = None
    for revision, services in enumerate(states, 10):
        by_name = {each.service.name: each for each in services}
        made = render(fleet, services, revision - 9, tried)
        rendered = render(fleet, services, revision, published)

        for found in (
            renewed(made, by_name, revision, published),
            renewed(rendered, by_name, revision, published),
        ):
            assert found == rendered
            assert found.snapshot.resources == rendered.snapshot.resources
            assert revisions(found.snapshot) == revisions(rendered.snapshot)
            for url in rendered.snapshot.order:
                kept = published is not None and published.snapshot.of(url) == rendered.snapshot.of(url)
                assert not kept or found.snapshot.of(url) is published.snapshot.of(url)
        published, tried = renewed(made, by_name, revision, published), made


def test_nothing_changed_is_a_new_revision_of_the_same_resources(fleet, traffic):
    first = render(fleet, two(traffic), 1)

    second = render(fleet, two(traffic), 5, first)

    assert second.snapshot.revision == 5
    assert second.snapshot.resources is first.snapshot.resources


def test_a_resource_with_the_same_content_keeps_its_version_when_the_fleet_changes(fleet, traffic):
    first = render(fleet, two(traffic), 1)
    smaller = fleet.model_copy(update={"listeners": fleet.listeners[:1]})

    second = render(smaller, two(traffic), 2, first)

    assert difference(first.snapshot, second.snapshot).names == {LISTENER: ("inside",)}


def test_endpoints_follow_their_cluster_and_routes_need_both(fleet, traffic):
    snapshot = render(fleet, [traffic(splits=share(100))], 1).snapshot

    assert set(snapshot.of(CLUSTER)) == set(snapshot.of(ENDPOINT)) == {"checkout~v1", "checkout~v2"}
    assert snapshot.of(ENDPOINT)["checkout~v2"].follows == (CLUSTER, "checkout~v2")
    assert snapshot.of(ROUTE)["checkout~checkout.example.com"].needs == {
        (url, f"checkout~{version}") for url in (CLUSTER, ENDPOINT) for version in ("v1", "v2")
    }


def test_a_route_does_not_wait_for_a_canary_that_it_does_not_name(fleet, traffic):
    versions = {"v1": {"dns": "v1:80"}, "v2": {"endpoints": []}}

    snapshot = render(fleet, [traffic(versions=versions)], 1).snapshot

    assert snapshot.of(ROUTE)["checkout~checkout.example.com"].needs == {(CLUSTER, "checkout~v1")}
    assert snapshot.of(ENDPOINT)["checkout~v2"].hollow
    assert "checkout~v1" not in snapshot.of(ENDPOINT)


def test_a_listener_waits_for_the_routes_of_its_hosts(fleet, traffic):
    snapshot = render(fleet, two(traffic), 1).snapshot

    for listener in snapshot.of(LISTENER).values():
        scopes = {(SCOPED_ROUTE, f"{name}.example.com") for name in "ab"}
        assert listener.needs == scopes | {(ROUTE, f"{name}~{name}.example.com") for name in "ab"}


def test_services_that_share_a_host_share_its_routes(fleet, traffic):
    services = [
        traffic(name="a", routes=[{"host": "x.test"}, {"host": "y.test"}]),
        traffic(name="b", routes=[{"host": "x.test", "path": "/b"}, {"host": "x.test", "path": "/b/c"}]),
        traffic(name="c", routes=[{"host": "z.test"}]),
    ]

    snapshot = render(fleet, services, 1).snapshot

    shared = group_name("a", ("x.test", "y.test"))
    assert set(snapshot.of(ROUTE)) == {shared, "c~z.test"}
    assert leads(snapshot) == {
        "x.test": shared,
        "y.test": shared,
        f"~{shared}": shared,
        "z.test": "c~z.test",
        "~c~z.test": "c~z.test",
    }
    assert virtual_hosts(snapshot, shared) == {("x.test",): ["/b/c", "/b", "/"], ("y.test",): ["/"]}


def test_a_host_goes_to_other_routes_only_once_they_are_there_and_listeners_know_nothing_of_it(
    fleet, traffic
):
    """Also if nobody shares more or less than before."""
    before = render(fleet, serving(traffic, a=["x.test", "y.test"], b=["z.test"]), 1)
    after = render(fleet, serving(traffic, a=["x.test"], b=["y.test", "z.test"]), 2, before).snapshot

    there, former = "b~y.test~0d3d4458", before.snapshot.of(ROUTE)
    assert leads(before.snapshot)["y.test"] == "a~x.test~2cc1d32f"
    assert leads(after)["y.test"] == there
    assert after.of(SCOPED_ROUTE)["y.test"].needs == {(SCOPED_ROUTE, f"~{there}"), (ROUTE, there)}
    assert after.of(SCOPED_ROUTE)[f"~{there}"].needs == {(ROUTE, there)}
    assert not former.keys() & after.of(ROUTE).keys()  # so none of them loses a host that leads there
    was = before.snapshot.of(LISTENER)
    assert {n: r.version for n, r in after.of(LISTENER).items()} == {n: r.version for n, r in was.items()}


def test_a_service_that_joins_the_same_hosts_moves_none(fleet, traffic):
    own = traffic(name="a", routes=[{"host": "x.test"}])
    before = render(fleet, [own], 1)

    after = render(fleet, [own, traffic(name="b", routes=[{"host": "x.test", "path": "/b"}])], 2, before)

    assert set(difference(before.snapshot, after.snapshot).names) == {CLUSTER, ENDPOINT, ROUTE}


def serving(traffic, **hosts):
    return [traffic(name=n, routes=[{"host": host} for host in served]) for n, served in hosts.items()]


def leads(snapshot):
    """Return the route configuration that each scope leads to."""
    scopes = map(ScopedRouteConfiguration.FromString, (r.body for r in snapshot.of(SCOPED_ROUTE).values()))
    return {scope.name: scope.route_configuration_name for scope in scopes}


def test_hosts_that_are_treated_alike_are_one_virtual_host(fleet, traffic):
    service = traffic(routes=[{"host": "b.test"}, {"host": "*.a.test"}])
    name = group_name("checkout", ("b.test", "*.a.test"))

    assert virtual_hosts(render(fleet, [service], 1).snapshot, name) == {("*.a.test", "b.test"): ["/"]}


def test_a_claim_of_two_services_is_refused_with_both_named(fleet, traffic):
    claim = [{"host": "x.test", "path": "/b"}]

    with pytest.raises(ValueError, match=r"services 'a' and 'b' both claim x\.test/b"):
        render(fleet, [traffic(name=name, routes=claim) for name in ("a", "b")], 1)


def test_a_version_in_use_must_be_declared(fleet, traffic):
    with pytest.raises(ValueError, match="version 'v3' is in use, but it is not declared; known: v1, v2"):
        render(fleet, [traffic(canary="v3", splits=share(BUCKETS))], 1)


def test_a_fleet_without_services_still_listens(fleet):
    snapshot = render(fleet, [], 1).snapshot

    assert {url: list(snapshot.of(url)) for url in snapshot.order} == {
        CLUSTER: [],
        ENDPOINT: [],
        SCOPED_ROUTE: [],
        ROUTE: [],
        SECRET: [],
        LISTENER: ["http", "inside"],
    }


def test_more_series_than_proxies_count_are_refused(fleet, traffic):
    segments = [Split(f"s{i}", None, ((0, 1),)) for i in range(6000)]

    with pytest.raises(ValueError, match=r"60010 counters .*, at most 12000"):
        render(fleet, [traffic(splits=segments)], 1)


@pytest.mark.parametrize("compiler", [render, render_adopted])
def test_more_clusters_than_a_proxy_may_ask_for_are_refused(fleet, traffic, monkeypatch, compiler):
    monkeypatch.setattr(rendering, "MAX_NAMES", 1)

    with pytest.raises(ValueError, match=r"fleet 'edge' would have [2-9] clusters .*, at most 1 are allowed"):
        compiler(fleet, [traffic()], 1)
