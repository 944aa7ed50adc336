"""Make before break for a client that comes back, from a restart or another replica, with an older world."""

from __future__ import annotations

import pytest

from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE


@pytest.fixture(params=["sotw", "delta"])
def client(request, model):
    """A client that has routes ``r`` and ``s`` over cluster ``a``, as its ``world`` says."""
    client = model.Client(request.param)
    client.world = model.World(clusters={"a": 1}, routes={"r": (1, ("a",)), "s": (1, ("a",))})
    client.stream.publish(client.world.snapshot())
    model.settle(client)
    return client


def changes(client, clusters, hollow, **routes):
    """Change the world, in a process that knows the client only by what it brings."""
    world = client.world
    world.revision += 1
    world.clusters = dict.fromkeys(clusters, 1)
    world.endpoints |= dict.fromkeys(set(world.hollow) - set(hollow), world.revision)
    world.hollow = set(hollow)
    world.routes |= {name: (world.revision, (cluster,)) for name, cluster in routes.items()}


def publish(client, model):
    client.stream.publish(client.world.snapshot())
    model.settle(client)


def returns(client, model):
    client.connect()
    publish(client, model)


def over(client):
    """The clusters that each of its routes names."""
    return {name: "".join(sorted(used)) for name, used in client.named().items()}


@pytest.mark.parametrize("hasty", [False, True])
def test_route_waits_for_cluster_and_endpoints_that_it_never_had(client, model, hasty):
    client.hasty = hasty
    changes(client, "ab", "", r="b")

    returns(client, model)

    assert over(client) == {"r": "b", "s": "a"}
    assert client.problems == []


def test_route_stays_where_it_is_while_the_new_cluster_is_empty_and_others_go_on(client, model):
    changes(client, "abc", "b", r="b", s="c")

    returns(client, model)
    waiting, gated = over(client), client.stream.view().of(ROUTE).gated
    changes(client, "abc", "")
    publish(client, model)

    assert (waiting, gated) == ({"r": "a", "s": "c"}, {"r": (ENDPOINT, "b")})
    assert over(client) == {"r": "b", "s": "c"}
    assert client.problems == []


def test_route_waits_for_endpoints_of_a_cluster_that_was_empty_when_the_client_left(client, model):
    changes(client, "ab", "b")
    publish(client, model)
    changes(client, "ab", "", r="b")
    client.poison.add(client.world.snapshot().of(ENDPOINT)["b"].body)

    returns(client, model)
    refused = over(client)
    client.world.endpoints["b"] = client.world.revision = client.world.revision + 1
    publish(client, model)

    assert (refused, over(client)) == ({"r": "a", "s": "a"}, {"r": "b", "s": "a"})
    assert client.problems == []


def test_route_waits_for_endpoints_of_a_cluster_that_was_empty_and_gone_while_the_client_came_back(model):
    """When it told of its endpoints the target had none to compare them with."""

    def world(revision, clusters, endpoints, cluster):
        there = [model.resource(name) for name in clusters]
        route = model.resource("r", cluster, needs=[(CLUSTER, cluster), (ENDPOINT, cluster)])
        return revision, (CLUSTER, *there), (ENDPOINT, *endpoints), (ROUTE, route)

    def endpoints(name, content, *, hollow=False):
        return model.resource(name, content, follows=(CLUSTER, name), hollow=hollow)

    first, again = model.Talk(model, "delta"), model.Talk(model, "delta")
    first.publish(*world(1, "ab", [endpoints("a", "1"), endpoints("b", "0", hollow=True)], "a"))
    claims = {}
    for url, names in ((CLUSTER, []), (ENDPOINT, ["a", "b"]), (ROUTE, ["r"])):
        first.ask(url, names)
        claims[url] = {r.name: r.version for r in first.last[url].resources}
        first.ack(url)

    again.publish(*world(2, "a", [endpoints("a", "1")], "a"))
    again.ask(CLUSTER, initial_resource_versions=claims[CLUSTER])
    again.ask(ENDPOINT, ["a", "b"], initial_resource_versions=claims[ENDPOINT])
    again.publish(*world(3, "ab", [endpoints("a", "1"), endpoints("b", "1")], "b"))
    early = again.ask(ROUTE, ["r"], initial_resource_versions=claims[ROUTE])
    again.ack(CLUSTER)
    told = again.ack(ENDPOINT)

    assert (early, told, again.view(ROUTE).gated) == ([], [["b"]], {"r": (ENDPOINT, "b")})
    assert again.ack(ENDPOINT) == [["r"]]


def test_old_cluster_goes_after_the_routes_that_left_it(client, model):
    changes(client, "ab", "b", r="b", s="b")
    returns(client, model)
    waiting = set(client.types[CLUSTER].bodies)
    changes(client, "b", "", r="b", s="b")
    publish(client, model)

    assert waiting == {"a", "b"}
    assert set(client.types[CLUSTER].bodies) == {"b"}
    assert client.problems == []


def test_listeners_that_are_asked_for_by_name_are_sent_whole(sotw, model):
    """The one that need not wait does not go without the other: absence would take that away."""
    waiting = model.resource("l", needs=[(CLUSTER, "a")])
    sotw.publish(6, (CLUSTER, model.resource("a")), (LISTENER, waiting, model.resource("m")))
    sotw.ask(CLUSTER, version_info="5.abc")

    early = sotw.ask(LISTENER, ["l", "m"], version_info="5.def")

    assert (early, sotw.ack(CLUSTER)) == ([], [["l", "m"]])


def route(model, cluster):
    return model.resource("r", cluster or "0", needs=[(CLUSTER, cluster)] if cluster else ())


def comes_back_and_refuses(sotw, model, others, at_first):
    """A client with an unknown route ``r`` that the target lacks by now; it has ``a`` and refused ``b``."""
    clusters = (CLUSTER, model.resource("a"), model.resource("b"))
    sotw.publish(5, (CLUSTER, model.resource("a")))
    sotw.ask(CLUSTER)
    sotw.ack(CLUSTER)
    sotw.publish(6, clusters, (ROUTE, *at_first, *others))
    if at_first:
        sotw.ask(ROUTE, ["r"], version_info="5.abc")
        if ROUTE in sotw.last:
            sotw.ack(ROUTE, ["r"], error="bad r")
    sotw.ack(CLUSTER, error="bad b")
    sotw.publish(7, clusters, (ROUTE, *others))
    if not at_first:
        sotw.ask(ROUTE, ["r"], version_info="5.abc")


@pytest.mark.parametrize("others", [[], ["a"]], ids=["only route", "other routes"])
@pytest.mark.parametrize("at_first", [[], ["b"], [""]], ids=["gone", "waited", "refused"])
def test_route_that_was_gone_meanwhile_stays_where_it_is(sotw, model, others, at_first):
    """Nothing takes a route from a state-of-the-world client: it has what it brought, whatever we had."""
    others = [model.resource("s", needs=[(CLUSTER, cluster)]) for cluster in others]
    comes_back_and_refuses(sotw, model, others, [route(model, cluster) for cluster in at_first])
    clusters = (CLUSTER, model.resource("a"), model.resource("b", "2"))

    back = sotw.publish(8, (CLUSTER, clusters[1], model.resource("b")), (ROUTE, route(model, "b"), *others))
    gated = sotw.view(ROUTE).gated
    good = sotw.publish(9, clusters, (ROUTE, route(model, "b"), *others))

    assert (back, gated, good) == ([], {"r": (CLUSTER, "b")}, [["a", "b"]])
    assert sotw.ack(CLUSTER) == [["r"]]


def test_route_that_the_client_dropped_while_it_was_gone_is_new_to_it(sotw, model):
    comes_back_and_refuses(sotw, model, [], [])
    sotw.ask(ROUTE, ["s"])
    sotw.ask(ROUTE, ["r"])

    back = sotw.publish(8, (CLUSTER, model.resource("a"), model.resource("b")), (ROUTE, route(model, "b")))

    assert back == [["r"]]


def test_host_does_not_go_to_routes_that_the_client_names_but_refused_before_it_came_back(model):
    """A state-of-the-world client names its routes, and not which of them it has."""
    client = model.Client("sotw")
    client.world = model.World(routes={"r": (1, ("a",)), "s": (1, ("a",))})
    client.poison.add(client.world.snapshot().of(ROUTE)["s"].body)
    publish(client, model)
    returns(client, model)

    client.world.host, client.world.revision = "s", 2
    publish(client, model)
    refused = client.types[SCOPED_ROUTE].bodies["host"]
    changes(client, "ab", "", s="a")
    publish(client, model)
    accepted = client.types[SCOPED_ROUTE].bodies["host"]

    assert (refused, accepted) == (b"host=r;0", b"host=s;0")
    assert client.problems == []


def test_what_is_refused_of_clusters_that_another_process_sent_is_not_in_the_next_set(sotw, model):
    """What the client is on is not known, so it cannot be listed; the others do not wait for that."""
    sotw.publish(5, (CLUSTER, model.resource("a", "2")))
    first = sotw.ask(CLUSTER, version_info="4.abc")
    refused = sotw.ack(CLUSTER, error="bad a")

    later = sotw.publish(6, (CLUSTER, model.resource("a", "2"), model.resource("b")))

    assert (first, refused, later) == ([["a"]], [], [["b"]])
