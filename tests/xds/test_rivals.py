"""Resources that exclude one another: a listener may have the address that another one leaves."""

from __future__ import annotations

import pytest

from controlplane.xds.type_urls import CLUSTER, LISTENER, ROUTE, SCOPED_ROUTE


@pytest.fixture
def listening(talk, model):
    """Return a stream whose client has the listener ``http`` on an address."""
    talk.publish(1, _on(model, http="a"))
    talk.ask(LISTENER)
    talk.ack(LISTENER)
    return talk


def _on(model, **addresses):
    return (LISTENER, *(model.resource(name, address) for name, address in addresses.items()))


@pytest.mark.parametrize("name", ["alpha", "web"])
def test_a_listener_that_is_renamed_comes_in_the_response_that_takes_the_old_one_away(listening, model, name):
    renamed = listening.publish(2, _on(model, **{name: "a"}))

    assert renamed == ([[name]] if listening.variant == "sotw" else [[name, "-http"]])


def test_all_that_comes_goes_with_what_leaves(delta, model):
    delta.publish(1, _on(model, http="a", same="s"))
    delta.ask(LISTENER)
    delta.ack(LISTENER)

    assert delta.publish(2, _on(model, alpha="b", same="t", web="a")) == [["alpha", "same", "web", "-http"]]


def test_what_moves_goes_before_what_comes_new(delta, model):
    delta.publish(1, _on(model, http="a"))
    delta.ask(LISTENER)
    delta.ack(LISTENER)

    moved = delta.publish(2, _on(model, alpha="a", http="b"))

    assert (moved, delta.ack(LISTENER)) == ([["http"]], [["alpha"]])


def test_what_leaves_stays_until_what_comes_new_has_what_it_needs(delta, model):
    delta.publish(1, (ROUTE, model.resource("r")), _on(model, http="a"))
    for url, names in ((LISTENER, ()), (ROUTE, ["r"])):
        delta.ask(url, names)
        delta.ack(url)
    web = model.resource("web", "a", needs=[(CLUSTER, "c")])
    delta.ask(CLUSTER)
    delta.ack(CLUSTER)

    first = delta.publish(2, (CLUSTER, model.resource("c")), (ROUTE, model.resource("r")), (LISTENER, web))

    assert (first, delta.ack(CLUSTER)) == ([["c"]], [["web", "-http"]])


def test_what_was_refused_is_tried_once_more_when_another_one_has_moved_and_not_twice(listening, model):
    listening.publish(2, _on(model, http="a", web="a"))
    refused = listening.ack(LISTENER, error="duplicate address")

    moved = listening.publish(3, _on(model, http="b", web="a"))
    tried = listening.ack(LISTENER)
    again = listening.ack(LISTENER, error="duplicate address")

    whole = listening.variant == "sotw"
    assert (refused, moved) == ([], [["http"]])
    assert (tried, again) == ([["http", "web"]] if whole else [["web"]], [])
    assert listening.view(LISTENER).nacks["web"].message == "duplicate address"


def test_the_refusal_is_shown_while_it_is_tried_again(listening, model):
    listening.publish(2, _on(model, http="a", web="a"))
    listening.ack(LISTENER, error="duplicate address")
    listening.publish(3, _on(model, http="b", web="a"))

    listening.ack(LISTENER)

    assert set(listening.view(LISTENER).nacks) == {"web"}
    listening.ack(LISTENER)
    assert listening.view(LISTENER).nacks == {}


def test_what_was_refused_is_tried_once_more_when_another_one_has_gone(listening, model):
    listening.publish(2, _on(model, http="a", web="a"))
    listening.ack(LISTENER, error="duplicate address")

    gone = listening.publish(3, _on(model, web="a"))
    tried = listening.ack(LISTENER)

    assert gone == ([[]] if listening.variant == "sotw" else [["-http"]])
    assert tried == [["web"]]


def test_several_that_are_refused_together_are_each_tried_once(listening, model):
    whole = {"http": "b", "web": "a", "alpha": "a"}
    listening.publish(2, _on(model, http="a", web="a", alpha="a"))
    for _ in range(8):
        listening.ack(LISTENER, error="duplicate address")
    before = set(listening.view(LISTENER).nacks)
    listening.publish(3, _on(model, **whole))
    tried = listening.ack(LISTENER)
    for _ in range(8):
        tried += listening.ack(LISTENER, error="duplicate address")

    assert before == set(listening.view(LISTENER).nacks) == {"web", "alpha"}
    assert sum("web" in names for names in tried) <= 2  # alone, and before that together with the other
    assert sum("alpha" in names for names in tried) <= 2


def test_other_types_are_not_tried_again(talk, model):
    talk.publish(1, (CLUSTER, model.resource("a")))
    talk.ask(CLUSTER)
    talk.ack(CLUSTER)
    talk.publish(2, (CLUSTER, model.resource("a"), model.resource("b")))
    talk.ack(CLUSTER, error="bad")

    changed = talk.publish(3, (CLUSTER, model.resource("a", "2"), model.resource("b")))

    assert (changed, talk.ack(CLUSTER)) == ([["a"]], [])


@pytest.mark.parametrize("name", ["alpha", "web"])
def test_a_returning_client_gets_the_renamed_listener_in_the_response_that_takes_the_old_one_away(
    delta, model, name
):
    delta.publish(2, _on(model, **{name: "a"}))

    found = delta.ask(LISTENER, initial_resource_versions={"http": "1.abc"})

    assert found == [[name, "-http"]]


def test_a_returning_client_keeps_a_scope_that_a_listener_may_need(delta, model):
    """Then a new scope of the same key is refused; once the old one has gone it is tried again."""
    delta.publish(2, (SCOPED_ROUTE, model.resource("new")))

    first = delta.ask(SCOPED_ROUTE, initial_resource_versions={"old": "1.abc"})
    gone = delta.ack(SCOPED_ROUTE, error="scope key conflict")

    assert (first, gone, delta.ack(SCOPED_ROUTE)) == ([["new"]], [["-old"]], [["new"]])
