"""Resources for gRPC clients: what they match, what they are never given, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane._pb.endpoint_pb2 import ClusterLoadAssignment
from controlplane._pb.route_pb2 import RouteConfiguration
from controlplane.policy.documents import Fleet, Match
from controlplane.policy.segments import Request, matches
from controlplane.release.following import decided
from controlplane.release.traffic import Split
from controlplane.resources.grpc_rendering import render_calls
from controlplane.resources.grpc_routes import call_routes
from controlplane.resources.names import cluster_version, segment_cluster, segment_cluster_name
from controlplane.resources.readable import readable
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE

EVERYONE = Split("everyone", None, ((0, 1000),))
MESH = Fleet.model_validate(
    {
        "kind": "Fleet",
        "name": "mesh",
        "nodes": {"cluster": "mesh"},
        "listeners": [{"name": "calls", "kind": "grpc"}],
    }
)


def split(match, *canary):
    return Split("some", Match.model_validate(match), canary or ((0, 10_000),))


def header(name, **condition):
    return {"header": {"name": name, **condition}}


def weights(route):
    return {w.name: w.weight.value for w in route.route.weighted_clusters.clusters}


def test_shares_are_weights_of_clusters_by_segment_and_none_is_zero(traffic):
    some = split({"header": {"name": "x-a", "equals": "1"}}, (0, 500), (1000, 1500))

    first, last = call_routes(traffic([some, EVERYONE]))

    assert weights(first) == {"checkout~v2~some": 1000, "checkout~v1~some": 9000}
    assert weights(last) == {"checkout~v2~everyone": 1000, "checkout~v1~everyone": 9000}
    assert [weights(route) for route in call_routes(traffic())] == [{"checkout~v1~everyone": 10_000}]


def test_calls_that_another_release_decided_are_told_by_metadata_and_counted_apart(traffic):
    told = "x-turnout-version"
    first = decided(told, "front=v1", canary=False), decided(told, "front=v2", canary=True)

    *routes, last = call_routes(traffic([*first, EVERYONE]))

    found = [(route.match.headers[0].string_match.exact, weights(route)) for route in routes]
    assert found == [
        ("front=v1", {"checkout~v1~followed": 10_000}),
        ("front=v2", {"checkout~v2~followed": 10_000}),
    ]
    assert not last.match.headers
    assert render_calls(MESH, [traffic([*first, EVERYONE])], 1).snapshot.of(ROUTE)


@pytest.mark.parametrize(
    "match",
    [
        {"header": {"name": "x-a", "equals": "1"}},
        {"header": {"name": "x-a", "present": False}},
        {"not": {"header": {"name": "x-a", "present": True}}},
        {"not": {"header": {"name": "x-a", "equals": "1"}}},
        {"not": {"header": {"name": "x-a", "regex": "1?"}}},
        {"not": {"header": {"name": "x-a", "range": {"from": 1, "to": 3}}}},
        {"not": {"any": [header("x-a", prefix="1"), header("x-b", suffix="2")]}},
        {"all": [{"not": header("x-a", contains="1")}, header("x-b", regex="[23]")]},
    ],
)
@pytest.mark.parametrize("a", [None, "", "1", "2", "12"])
@pytest.mark.parametrize("b", [None, "2", "3"])
def test_a_client_that_never_matches_an_absent_header_finds_the_same_segment(match, a, b, traffic, envoy):
    routes = call_routes(traffic([split(match), EVERYONE]))
    headers = tuple((name, value) for name, value in (("x-a", a), ("x-b", b)) if value is not None)
    request = Request(path="/test.Echo/Say", headers=headers)

    chosen = next(route for route in routes if envoy._matches(route.match, request))

    assert not any(h.treat_missing_header_as_empty for route in routes for h in route.match.headers)
    segment = chosen.metadata.filter_metadata["turnout"]["segment"]
    assert (segment == "some") is matches(Match.model_validate(match), request)


@pytest.mark.parametrize(
    ("match", "part"),
    [
        ({"cookie": {"name": "beta", "equals": "1"}}, "cookie 'beta'"),
        ({"not": {"all": [{"cookie": {"name": "beta", "present": True}}]}}, "cookie 'beta'"),
        ({"cohort": {"from": "0%", "to": "1%"}}, "a cohort of users"),
        ({"any": [{"header": {"name": "x-trace-bin", "present": True}}]}, "binary metadata 'x-trace-bin'"),
    ],
)
def test_what_a_client_would_skip_is_refused_and_never_widened(match, part, traffic):
    with pytest.raises(ValueError, match=f"segment 'some': it chooses by {part}"):
        call_routes(traffic([split(match), EVERYONE]))


NAMES = {"v1": {"dns": "a.svc:80"}, "v2": {"dns": "b.svc:80"}}


def test_the_addresses_of_a_name_are_its_endpoints(traffic):
    at = replace(traffic([EVERYONE], versions=NAMES), resolved={"v1": ("10.0.0.1:80", "[::1]:80")})

    snapshot = render_calls(MESH, [at], 1).snapshot

    assert snapshot.of(CLUSTER).keys() == {"checkout~v1~everyone", "checkout~v2~everyone"}
    [(name, resource)] = snapshot.of(ENDPOINT).items()  # none for v2, not an empty one: clients keep theirs
    assert name == "checkout~v1~everyone"
    [place] = ClusterLoadAssignment.FromString(resource.body).endpoints
    sockets = [member.endpoint.address.socket_address for member in place.lb_endpoints]
    assert [(socket.address, socket.port_value) for socket in sockets] == [("10.0.0.1", 80), ("::1", 80)]
    assert snapshot.of(ROUTE)["checkout"].needs == {
        (CLUSTER, "checkout~v1~everyone"),
        (CLUSTER, "checkout~v2~everyone"),
        (ENDPOINT, "checkout~v1~everyone"),
    }


def test_other_addresses_of_a_name_change_one_assignment_and_nothing_else(traffic):
    before = replace(traffic(versions=NAMES), resolved={"v1": ("10.0.0.1:80",)})
    old = render_calls(MESH, [traffic(name="cart"), before], 3)
    after = replace(before, resolved={"v1": ("10.0.0.2:80",)})

    new = render_calls(MESH, [old.services["cart"], after], 3, old).snapshot

    assert all(new.of(url) is old.snapshot.of(url) for url in (CLUSTER, ROUTE, LISTENER))
    moved = {name for name, r in new.of(ENDPOINT).items() if r is not old.snapshot.of(ENDPOINT)[name]}
    assert moved == {"checkout~v1~everyone"}


def test_only_what_routes_name_exists(traffic):
    snapshot = render_calls(MESH, [traffic([EVERYONE])], 3).snapshot

    assert {url: [*snapshot.of(url)] for url in (LISTENER, ROUTE)} == {
        LISTENER: ["checkout"],
        ROUTE: ["checkout"],
    }
    names = {"checkout~v1~everyone", "checkout~v2~everyone"}
    assert snapshot.of(CLUSTER).keys() == snapshot.of(ENDPOINT).keys() == names
    assert snapshot.of(ROUTE)["checkout"].needs == {(url, n) for url in (CLUSTER, ENDPOINT) for n in names}
    route = RouteConfiguration.FromString(snapshot.of(ROUTE)["checkout"].body)
    assert [list(host.domains) for host in route.virtual_hosts] == [["*"]]


def test_what_did_not_change_is_the_same_object(traffic):
    cart, before, after = traffic(name="cart"), traffic(), traffic([EVERYONE])
    old = render_calls(MESH, [cart, before], 3)

    same = render_calls(MESH, [cart, before], 4, old).snapshot
    new = render_calls(MESH, [cart, after], 5, old).snapshot

    assert all(same.of(url) is old.snapshot.of(url) for url in (CLUSTER, ENDPOINT, ROUTE, LISTENER))
    assert new.of(LISTENER) is old.snapshot.of(LISTENER)
    assert new.of(ROUTE)["cart"] is old.snapshot.of(ROUTE)["cart"]
    assert new.of(ROUTE)["checkout"].version.revision == 5
    assert new.of(CLUSTER)["checkout~v1~everyone"] is old.snapshot.of(CLUSTER)["checkout~v1~everyone"]


def test_cluster_names_lead_back():
    name = segment_cluster_name("shop", "v1", "beta")

    assert segment_cluster(name) == ("shop", "v1", "beta")
    assert segment_cluster(f"{name}+beta~2") == ("shop", "v1", "beta+beta~2")
    assert segment_cluster("shop~v1") is None
    assert cluster_version("shop~v1") == ("shop", "v1")


def test_what_is_remembered_is_what_would_be_rendered(traffic):
    some = split(header("x-a", equals="1"))
    states = [
        [traffic(name="a"), traffic(name="b")],
        [traffic([some, EVERYONE], name="a"), traffic(name="b")],
        [traffic([EVERYONE], name="a"), traffic(name="c")],
        [traffic(name="c")],
        [],
    ]
    remembered = None
    for revision, services in enumerate(states):
        remembered = render_calls(MESH, services, revision, remembered)
        fresh = render_calls(MESH, services, revision)

        assert (remembered.home, remembered.groups) == (fresh.home, fresh.groups)
        for url in fresh.snapshot.order:
            assert dict(remembered.snapshot.of(url)) == dict(fresh.snapshot.of(url))


def test_a_timeout_of_zero_is_none(traffic):
    endless = render_calls(MESH, [traffic(timeout="0s")], 1).snapshot.of(ROUTE)["checkout"]

    assert "max_stream_duration" not in str(readable(ROUTE, endless.body))
    assert "timeout" not in str(readable(ROUTE, endless.body))
