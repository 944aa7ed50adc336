"""What connections may use that drain on a listener which has changed or gone: filters, and routes."""

from __future__ import annotations

import pytest

from controlplane.xds.type_urls import CLUSTER, EXTENSION, LISTENER, ROUTE


def world(model, revision, *extensions, **listeners):
    return (
        revision,
        (LISTENER, *(model.resource(name, content) for name, content in listeners.items())),
        (EXTENSION, *(model.resource(*each.split("=")) for each in extensions)),
    )


@pytest.fixture
def filtering(delta, model):
    """A client with the listener ``web``, that has asked for the filter ``f``."""
    delta.publish(*world(model, 1, "f", web="f"))
    delta.ask(LISTENER)
    delta.ack(LISTENER)
    assert delta.ask(EXTENSION, ["f"]) == [["f"]]
    delta.ack(EXTENSION)
    return delta


@pytest.mark.parametrize("listeners", [{"web": "g"}, {}, {"other": "g"}])
def test_a_filter_stays_until_it_is_given_up_when_its_listener_changed_or_went(filtering, model, listeners):
    changed = filtering.publish(*world(model, 2, "g", **listeners))
    accepted = filtering.ack(LISTENER)
    later = filtering.publish(*world(model, 3, "g", "h", **listeners))

    assert changed == [[*listeners, *([] if "web" in listeners else ["-web"])]]
    assert (accepted, later) == ([], [])
    assert set(filtering.view(EXTENSION).acked) == {"f"}
    assert filtering.ask(EXTENSION, resource_names_unsubscribe=["f"]) == []
    assert set(filtering.view(EXTENSION).acked) == set()


def test_a_filter_stays_that_is_taken_away_after_its_listener_has_changed(filtering, model):
    """As whoever is careful does it: first the listener, then what nobody needs any more."""
    filtering.publish(*world(model, 2, "f", web="g"))
    filtering.ack(LISTENER)

    assert filtering.publish(*world(model, 3, web="g")) == []


def test_a_filter_stays_while_the_change_of_its_listener_waits(filtering, model):
    filtering.ask(CLUSTER)
    filtering.ack(CLUSTER)
    (_, listeners, extensions) = world(model, 2, web="g")
    web = model.resource("web", "g", needs=[(CLUSTER, "c")])

    waiting = filtering.publish(2, (CLUSTER, model.resource("c")), (LISTENER, web), extensions)

    assert listeners[0] == LISTENER
    assert (waiting, filtering.ack(CLUSTER), filtering.ack(LISTENER)) == ([["c"]], [["web"]], [])


def test_a_filter_stays_though_the_change_of_its_listener_was_refused(filtering, model):
    filtering.publish(*world(model, 2, web="g"))

    assert filtering.ack(LISTENER, error="bad") == []
    assert set(filtering.view(EXTENSION).acked) == {"f"}


@pytest.mark.parametrize("listeners", [{"web": "f"}, {"web": "f", "other": "g"}])
def test_a_filter_that_is_taken_away_alone_goes(filtering, model, listeners):
    found = filtering.publish(*world(model, 2, **listeners))

    assert found[-1] == ["-f"]
    assert filtering.ack(EXTENSION) == []


def test_a_filter_that_came_after_the_change_goes_when_it_is_taken_away_alone(filtering, model):
    filtering.publish(*world(model, 2, "g", web="g"))
    filtering.ack(LISTENER)
    filtering.ask(EXTENSION, ["g"])
    filtering.ack(EXTENSION)

    assert filtering.publish(*world(model, 3, web="g")) == [["-g"]]


def test_a_filter_that_is_asked_for_anew_is_told_to_be_gone(filtering, model):
    filtering.publish(*world(model, 2, web="g"))
    filtering.ack(LISTENER)
    filtering.ask(EXTENSION, resource_names_unsubscribe=["f"])

    assert filtering.ask(EXTENSION, ["f"]) == [["-f"]]


def test_a_filter_that_comes_back_is_sent_if_it_differs(filtering, model):
    filtering.publish(*world(model, 2, web="g"))
    filtering.ack(LISTENER)

    assert filtering.publish(*world(model, 3, "f", web="g")) == []
    assert filtering.publish(*world(model, 4, "f=2", web="g")) == [["f"]]


@pytest.mark.parametrize("gone", ["all of it", "the routes alone"])
def test_routes_and_their_clusters_stay_until_they_are_given_up(delta, model, gone):
    route = model.resource("r", needs=[(CLUSTER, "c")])
    web = (LISTENER, model.resource("web"))
    delta.publish(1, (CLUSTER, model.resource("c")), (ROUTE, route), web)
    for type_url, names in ((CLUSTER, ["*"]), (LISTENER, ["*"]), (ROUTE, ["r"])):
        delta.ask(type_url, names)
        delta.ack(type_url)

    told = delta.publish(2, (CLUSTER,), (ROUTE,), *([web] if gone == "the routes alone" else [(LISTENER,)]))

    assert told == ([] if gone == "the routes alone" else [["-web"]])
    if told:
        assert delta.ack(LISTENER) == []
    assert set(delta.view(ROUTE).acked) == {"r"}
    assert delta.ask(ROUTE, resource_names_unsubscribe=["r"]) == [["-c"]]


def test_routes_that_stayed_are_sent_again_once_they_are_back(delta, model):
    delta.publish(1, (ROUTE, model.resource("r")))
    delta.ask(ROUTE, ["r"])
    delta.ack(ROUTE)

    assert delta.publish(2, (ROUTE,)) == []
    assert delta.publish(3, (ROUTE, model.resource("r", "new"))) == [["r"]]
