"""Clients that ask for everything by name, as gRPC does, and come back after the world has moved on."""

from __future__ import annotations

import pytest
from calling import caller

from controlplane.xds import sets
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE

FOREIGN = "1.0123456789abcdef"


@pytest.fixture(params=["here", "elsewhere"])
def place(request):
    """The process that it comes back to knows what it was sent, or is another one."""
    return request.param


def world(model, *clusters, route="", listeners=("l",), revision=2):
    """A route ``r`` over the cluster named, if any; listeners by it."""
    return (
        revision,
        (CLUSTER, *(model.resource(name, revision=revision) for name in clusters)),
        (ENDPOINT, *(model.resource(name, follows=(CLUSTER, name)) for name in clusters)),
        (ROUTE, *([model.resource("r", route, needs=[(CLUSTER, route)])] if route else ())),
        (LISTENER, *(model.resource(name, needs=[(ROUTE, "r")]) for name in listeners)),
    )


@pytest.fixture
def back(sotw, model):
    """A client with a route ``r`` over ``a``, which another process sent; the target has it over ``b``."""
    sotw.publish(*world(model, "b", route="b"))
    return sotw


def asks(talk, url, *names, brings=True):
    return talk.ask(url, names, version_info=FOREIGN if brings else "")


def dropped_in_silence(talk):
    """Let the time pass in which a client drops what it uses no longer, and return what it is told then."""
    for _ in range(2):
        assert talk.stream.hesitant
        assert talk.heard() == []
        talk.stream.hear_out()
    told = talk.heard()
    assert not talk.stream.hesitant
    return told


@pytest.mark.parametrize("variant", ["sotw", "delta"])
@pytest.mark.parametrize("first", [CLUSTER, ROUTE, LISTENER])
def test_a_client_that_was_away_gets_the_new_route_before_its_cluster_goes(model, variant, first, place):
    client = caller(model)(variant)
    client.world = model.World()
    client.publish(client.world.snapshot(), at_once=False)
    model.settle(client)
    client.world.clusters, client.world.routes = {"b": 1}, {"r": (2, ("b",))}
    client.world.revision = 2
    if place == "elsewhere":
        sets._sets.clear()
        client.unlisted |= {"a"}

    client.connect([first, *(url for url in (CLUSTER, ENDPOINT, ROUTE, LISTENER) if url != first)])
    client.publish(client.world.snapshot(), at_once=False)
    model.settle(client)

    assert client.problems == []
    client.arrived(client.world.snapshot(), client.stream.view())


def test_the_old_cluster_goes_once_the_new_route_was_accepted(back):
    first = asks(back, CLUSTER, "a")
    route = asks(back, ROUTE, "r")
    both = back.ask(CLUSTER, ["a", "b"], version_info=FOREIGN)
    accepted = back.ack(ROUTE, ["r"])

    assert (first, route, both, accepted) == ([], [["r"]], [], [["b"]])


def test_a_refused_route_keeps_its_cluster_until_the_client_asks_for_another_one(back):
    asks(back, CLUSTER, "a")
    asks(back, ROUTE, "r")

    refused = back.ack(ROUTE, ["r"], error="bad r")
    more = back.ask(CLUSTER, ["a", "b"], version_info=FOREIGN)

    assert (refused, more) == ([], [["b"]])


@pytest.fixture
def left(back, model):
    """That client, whose route and listener have gone; the target has another route."""
    other = model.resource("s", needs=[(CLUSTER, "b")])
    back.publish(3, (CLUSTER, model.resource("b")), (ROUTE, other), (LISTENER, model.resource("m")))
    assert asks(back, CLUSTER, "a") == []
    assert asks(back, ROUTE, "r") == []
    return back


def test_a_route_that_the_target_lacks_keeps_its_cluster_until_the_client_drops_it(left):
    listener = asks(left, LISTENER, "l")
    accepted = left.ack(LISTENER, ["l"])

    dropped = left.ask(ROUTE, [])

    assert (listener, accepted, dropped) == ([[]], [], [[]])


def test_a_route_that_the_client_never_drops_keeps_its_cluster_until_it_was_heard_out(left):
    """One that ignores that its listener has gone, and goes on with it: others' clusters must not wait."""
    hesitant = left.stream.hesitant
    left.stream.hear_out()

    assert hesitant
    assert left.heard() == [[]]


def test_a_client_that_never_asks_for_routes_is_answered_when_it_was_heard_out(back):
    early, hesitant = asks(back, CLUSTER, "a", "b"), back.stream.hesitant
    back.stream.hear_out()

    assert (early, hesitant) == ([], True)
    assert back.heard() == [["b"]]
    assert not back.stream.hesitant


def test_a_cluster_that_goes_between_two_first_requests_waits_for_the_second(back, model):
    back.publish(*world(model, "a", route="a", revision=3))
    had = asks(back, CLUSTER, "a")
    acked = back.ack(CLUSTER, ["a"])

    gone = back.publish(*world(model, "b", route="b", revision=4))
    hesitant = back.stream.hesitant
    route = asks(back, ROUTE, "r")

    assert (had, acked, gone, hesitant, route) == ([["a"]], [], [], True, [["r"]])
    assert back.ack(ROUTE, ["r"]) == []
    assert dropped_in_silence(back) == [[]]


def test_a_client_with_a_stream_for_clusters_alone_is_answered_at_once(model):
    talk = model.Talk(model, "sotw", type_url=CLUSTER)
    talk.publish(*world(model, "b", route="b"))

    assert asks(talk, CLUSTER, "a", "b") == [["b"]]


def test_a_client_that_asks_for_everything_is_answered_at_once(back):
    """Its routes wait for the new clusters: to keep those back would be a deadlock."""
    assert asks(back, CLUSTER) == [["b"]]


def test_a_client_that_loses_nothing_is_answered_at_once(back):
    assert asks(back, CLUSTER, "b") == [["b"]]


def test_a_client_that_has_nothing_yet_is_answered_at_once(back):
    assert asks(back, CLUSTER, "a", brings=False) == [[]]


def test_a_listener_that_the_target_lacks_goes_at_once(back, model):
    """Nothing needs it: calls to a service that was taken away shall fail."""
    back.publish(*world(model, "b", route="b", listeners=("m",), revision=3))

    assert asks(back, LISTENER, "l") == [[]]


def test_what_the_process_sent_is_listed_beside_what_is_new_until_the_route_was_accepted(sotw, model):
    sotw.publish(*world(model, "a", "c", route="a"))
    for url, names in ((LISTENER, ["l"]), (ROUTE, ["r"]), (CLUSTER, ["a", "c"])):
        sotw.ask(url, names)
    brought = {url: sotw.last[url].version_info for url in (LISTENER, ROUTE, CLUSTER)}
    again = model.Talk(model, "sotw")
    _, _, *others = world(model, "b", "c", route="b", revision=3)
    again.publish(3, (CLUSTER, model.resource("b"), model.resource("c", "2", revision=3)), *others)

    again.ask(ROUTE, ["r"], version_info=brought[ROUTE])
    kept = again.ask(CLUSTER, ["a", "c"], version_info=brought[CLUSTER])
    both = again.ack(CLUSTER, ["a", "b", "c"])
    gone = again.ack(ROUTE, ["r"])

    assert (kept, both, gone) == ([["a", "c"]], [["a", "b", "c"]], [])
    assert again.ack(CLUSTER, ["a", "b", "c"]) == []
    assert dropped_in_silence(again) == [["b", "c"]]


@pytest.fixture
def going(sotw, model):
    """A client whose route ``r`` goes from ``a`` to ``b``: it has accepted that, and names both clusters."""
    sotw.publish(*world(model, "a", route="a"))
    for url, names in ((LISTENER, ["l"]), (ROUTE, ["r"]), (CLUSTER, ["a"]), (ENDPOINT, ["a"])):
        sotw.ask(url, names)
        sotw.ack(url, names)
    assert sotw.publish(*world(model, "b", route="b", revision=3)) == [["r"]]
    assert sotw.ack(ROUTE, ["r"]) == []
    assert sotw.ack(CLUSTER, ["a", "b"]) == [["a", "b"]]
    assert sotw.ack(CLUSTER, ["a", "b"]) == []
    return sotw


def test_a_cluster_that_the_new_route_has_left_goes_when_the_client_drops_it(going):
    """It accepts a route before its calls go by that: what it may still use it names."""
    assert going.stream.hesitant
    assert going.ack(CLUSTER, ["b"]) == []
    assert not going.stream.hesitant
    assert set(going.view(CLUSTER).acked) == {"b"}


def test_a_cluster_that_the_client_never_drops_goes_all_the_same(going):
    assert dropped_in_silence(going) == [["b"]]
    assert going.ack(CLUSTER, ["a", "b"]) == []
    assert not going.stream.hesitant


def test_a_cluster_that_comes_back_while_it_lingers_stays_and_lingers_as_long_the_next_time(going, model):
    going.stream.hear_out()
    assert going.publish(*world(model, "a", route="a", revision=4)) == [["r"]]
    assert not going.stream.hesitant
    going.ack(ROUTE, ["r"])
    assert going.publish(*world(model, "b", route="b", revision=5)) == [["r"]]
    assert going.ack(ROUTE, ["r"]) == []

    assert dropped_in_silence(going) == [["b"]]
