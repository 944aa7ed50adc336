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


@pytest.fixture
def back(talk, model, world):
    """Return a stream of a client that comes back with the scopes, and with the listeners named."""

    def come(*listeners):
        talk.publish(*world(1, "l"))
        brought = {}
        for url in (LISTENER, SCOPED_ROUTE):
            talk.ask(url)
            if talk.variant == "sotw":
                brought[url] = {"version_info": talk.last[url].version_info}
            else:
                versions = {r.name: r.version for r in talk.last[url].resources}
                brought[url] = {"initial_resource_versions": versions}
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
