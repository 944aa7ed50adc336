"""What was refused is of the subscription: who asks for a name anew is answered anew."""

from __future__ import annotations

import pytest

from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE, SCOPED_ROUTE


@pytest.fixture
def refusing(talk, model):
    """Return a stream whose client has ``a``, asks for ``g`` too, and refused it."""
    talk.publish(1, _endpoints(model, "a", "g"))
    talk.ask(ENDPOINT, ["a"])
    talk.ack(ENDPOINT, ["a", "g"] if talk.variant == "sotw" else ["g"])
    talk.ack(ENDPOINT, talk.repeated("a", "g"), error="not today")
    return talk


def _endpoints(model, *names):
    return (ENDPOINT, *(model.resource(name) for name in names))


def drop(talk, *left, gone):
    if talk.variant == "sotw":
        return talk.ack(ENDPOINT, list(left))
    return talk.ask(ENDPOINT, resource_names_unsubscribe=[gone])


def test_a_refusal_ends_with_its_subscription(refusing):
    shown = refusing.view(ENDPOINT)

    drop(refusing, "a", gone="g")

    assert (set(shown.nacks), shown.error.message) == ({"g"}, "not today")
    assert (refusing.view(ENDPOINT).nacks, refusing.view(ENDPOINT).error) == ({}, None)


def test_what_was_refused_is_sent_to_whoever_asks_for_it_anew(refusing):
    drop(refusing, "a", gone="g")

    assert refusing.ack(ENDPOINT, refusing.repeated("a", "g") or ["g"]) == [["g"]]


def test_what_was_refused_and_came_back_is_sent_to_whoever_asks_for_it_anew(refusing, model):
    drop(refusing, "a", gone="g")
    refusing.publish(2, _endpoints(model, "a"))
    refusing.publish(3, _endpoints(model, "a", "g"))

    assert refusing.ack(ENDPOINT, refusing.repeated("a", "g") or ["g"]) == [["g"]]


def test_a_refusal_of_what_is_still_asked_for_stays(refusing):
    drop(refusing, "g", gone="a")

    assert refusing.ack(ENDPOINT, refusing.repeated("g")) == []
    assert set(refusing.view(ENDPOINT).nacks) == {"g"}
    assert refusing.view(ENDPOINT).error.message == "not today"


def test_what_a_stale_list_dropped_is_sent_anew_though_it_was_refused(sotw, model):
    """It dropped the name before it had read the newest response."""
    sotw.publish(1, (ROUTE, model.resource("r"), model.resource("s")))
    sotw.ask(ROUTE, ["r"])
    sotw.ack(ROUTE, ["r"], error="not today")
    sotw.ack(ROUTE, ["r", "s"])

    sotw.ask(ROUTE, ["s"], nonce="stale")

    assert sotw.ack(ROUTE, ["r", "s"]) == [["r"]]


def test_a_cluster_that_a_stale_list_dropped_is_in_each_set_once_it_is_asked_for_again(sotw, model):
    """The client may have taken it from the newest response, so it must not go while a culprit is sought."""
    sotw.publish(1, (CLUSTER, *map(model.resource, "abc")))
    sotw.ask(CLUSTER, ["a"])
    sotw.ack(CLUSTER, ["a", "b", "c"])
    without_culprit = sotw.ack(CLUSTER, ["a", "b", "c"], error="c: not today")

    sotw.ask(CLUSTER, ["b", "c"], nonce="stale")

    assert without_culprit == [["a", "b"]]
    assert sotw.ack(CLUSTER, ["a", "b", "c"]) == [["a", "b", "c"]]
    assert sotw.ack(CLUSTER, ["a", "b", "c"], error="c: not today") == [["a", "b"]]
    assert sotw.ack(CLUSTER, ["a", "b", "c"]) == []


def test_the_loss_of_what_a_client_may_have_is_not_repeated_once_it_is_refused(talk, model):
    """Each refusal would be answered by the same response, without an end."""
    talk.publish(1, (CLUSTER, *map(model.resource, "ab")))
    talk.ask(CLUSTER, ["a", "b"])
    talk.ack(CLUSTER, talk.repeated("a", "b"), error="a: not today")
    talk.publish(2, (CLUSTER, model.resource("b")))
    lost = talk.ack(CLUSTER, talk.repeated("a", "b"))

    refused = talk.ack(CLUSTER, talk.repeated("a", "b"), error="not that either")

    assert (lost, refused) == ([["b"] if talk.variant == "sotw" else ["-a"]], [])


def test_a_name_that_was_refused_and_is_asked_for_once_more_is_sent_once_more(delta, model):
    """It has no version of it, so there is nothing else to answer with."""
    delta.publish(1, (ROUTE, model.resource("r")))
    delta.ask(ROUTE, ["r"])
    silent = delta.ack(ROUTE, error="not today")

    assert (silent, delta.ask(ROUTE, ["r"]), delta.ack(ROUTE, error="not today")) == ([], [["r"]], [])


def test_a_refusal_of_everything_ends_with_the_wildcard(delta, model):
    delta.publish(1, (CLUSTER, model.resource("a"), model.resource("z")))
    delta.ask(CLUSTER, ["*", "a"])
    delta.ack(CLUSTER, error="z: not today")
    delta.ack(CLUSTER)
    delta.ack(CLUSTER, error="z: not today")
    shown = set(delta.view(CLUSTER).nacks)

    delta.ask(CLUSTER, resource_names_unsubscribe=["*"])

    assert shown == {"z"}
    assert (delta.view(CLUSTER).nacks, delta.view(CLUSTER).error) == ({}, None)
    assert delta.ask(CLUSTER, ["z"]) == [["z"]]


def test_a_refusal_of_everything_ends_with_the_wildcard_of_a_list(sotw, model):
    sotw.publish(1, (CLUSTER, model.resource("a"), model.resource("z")))
    sotw.ask(CLUSTER, ["*"])
    sotw.ack(CLUSTER, ["*"], error="z: not today")
    sotw.ack(CLUSTER, ["*"])
    sotw.ack(CLUSTER, ["*"], error="z: not today")
    shown = set(sotw.view(CLUSTER).nacks)

    sotw.ack(CLUSTER, ["a"])

    assert (shown, sotw.view(CLUSTER).nacks) == ({"z"}, {})
    assert sotw.ack(CLUSTER, ["a", "z"]) == [["a", "z"]]


def test_a_host_waits_for_routes_that_the_client_dropped_and_asks_for_again(sotw, model):
    """What it accepted before it dropped the name is not there any more."""

    def world(revision, route):
        needs = [(SCOPED_ROUTE, f"s-{route}"), (ROUTE, route)]
        scopes = (*map(model.resource, ("s-r", "s-s")), model.resource("host", route, needs=needs))
        return revision, (ROUTE, *map(model.resource, "rs")), (SCOPED_ROUTE, *scopes)

    sotw.publish(*world(1, "r"))
    for url, names in ((SCOPED_ROUTE, ()), (ROUTE, ["r", "s"])):
        sotw.ask(url, names)
        sotw.ack(url, names)
    sotw.ask(ROUTE, ["s"], nonce="stale")

    dropped = sotw.publish(*world(2, "s")), sotw.ack(SCOPED_ROUTE), sotw.publish(*world(3, "r"))
    again = sotw.ack(ROUTE, ["r", "s"])

    whole = ["host", "s-r", "s-s"]
    assert (dropped, again) == (([whole], [], []), [["r"]])
    assert sotw.ack(ROUTE, ["r", "s"]) == [whole]
