"""A listener that is new to a client that came back waits for scopes that the client tells it has."""

from __future__ import annotations

import pytest

from controlplane.xds.type_urls import LISTENER, SCOPED_ROUTE


@pytest.fixture
def world(model):
    """Two scopes and the listeners named."""

    def make(revision, *listeners):
        scopes = (SCOPED_ROUTE, model.resource("s"), model.resource("t"))
        return revision, scopes, (LISTENER, *map(model.resource, listeners))

    return make


def claims(talk, url):
    """What a client that has the last response says when it comes back."""
    if talk.variant == "sotw":
        return {"version_info": talk.last[url].version_info}
    return {"initial_resource_versions": {r.name: r.version for r in talk.last[url].resources}}


@pytest.fixture
def back(talk, model, world):
    """Return a stream of a client that comes back with the scopes, and with the listeners named."""

    def come(*listeners):
        talk.publish(*world(1, "l"))
        brought = {}
        for url in (LISTENER, SCOPED_ROUTE):
            talk.ask(url)
            brought[url] = claims(talk, url)
        again = model.Talk(model, talk.variant)
        again.publish(*world(1, "l"))
        again.brought = brought if listeners else {SCOPED_ROUTE: brought[SCOPED_ROUTE]}
        return again

    return come


@pytest.mark.parametrize("order", [(LISTENER, SCOPED_ROUTE), (SCOPED_ROUTE, LISTENER)])
def test_scopes_are_sent_to_who_has_them_and_gets_a_listener_that_it_had_not(back, order):
    talk = back()

    sent = [names for url in order for names in talk.ask(url, **talk.brought.get(url, {}))]

    assert sorted(sent) == [["l"], ["s", "t"]]


def test_who_comes_back_with_its_listener_is_sent_nothing(back):
    talk = back("l")

    assert [talk.ask(url, **talk.brought[url]) for url in (LISTENER, SCOPED_ROUTE)] == [[], []]


def test_a_listener_that_comes_later_has_the_scopes_sent_again_to_who_came_back(back, world):
    talk = back("l")
    for url in (LISTENER, SCOPED_ROUTE):
        talk.ask(url, **talk.brought[url])

    sent = talk.publish(*world(2, "l", "m"))

    assert sorted(map(set, sent), key=len) == [{"m"}, {"s", "t"}] or sorted(sent) == [["l", "m"], ["s", "t"]]


def test_who_was_sent_its_scopes_on_this_stream_is_not_sent_them_again(talk, world):
    talk.publish(*world(1, "l"))
    for url in (LISTENER, SCOPED_ROUTE):
        talk.ask(url)
        talk.ack(url)

    sent = talk.publish(*world(2, "l", "m"))

    assert sent == [["m"] if talk.variant == "delta" else ["l", "m"]]


def test_a_scope_that_is_to_go_is_sent_again_to_who_needs_it_and_goes_then(talk, model):
    """The host still leads by the former one when all scopes are sent again after a new listener."""

    def world(revision, to, *scopes):
        host = model.resource("host", to, needs=[(SCOPED_ROUTE, to)])
        return revision, (SCOPED_ROUTE, host, *scopes), (LISTENER, model.resource("l"))

    s, t = model.resource("s"), model.resource("t")
    talk.publish(*world(1, "s", s, t))
    talk.ask(SCOPED_ROUTE)
    again = model.Talk(model, talk.variant)
    again.publish(*world(1, "s", s, t))
    again.ask(SCOPED_ROUTE, **claims(talk, SCOPED_ROUTE))
    again.publish(*world(2, "s", s, model.resource("t", "2")))
    again.ask(LISTENER)

    again.publish(*world(3, "t", model.resource("t", "2")))
    moved = again.ack(SCOPED_ROUTE)
    gone = again.ack(SCOPED_ROUTE)

    assert moved == [["host", "s", "t"]]
    assert gone == ([["host", "t"]] if talk.variant == "sotw" else [["-s"]])
