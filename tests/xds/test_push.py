"""A push in one go says what the long way says, and only where nothing else has to be looked at."""

from __future__ import annotations

import pytest
from talk import Talk

from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE


@pytest.fixture
def pair(variant, model):
    """Return two streams of one history, with three routes and two clusters that were ACKed."""
    return [_ready(Talk(model, variant, identifier="me")) for _ in range(2)]


@pytest.fixture(params=["sotw", "delta"])
def variant(request):
    return request.param


def _world(model, *, needs=(), clusters="ab", **contents):
    routes = (model.resource(n, contents.get(n, "1"), needs=needs if n == "r" else ()) for n in "rst")
    ends = (model.resource(n, follows=(CLUSTER, n)) for n in clusters)
    named = (model.resource(n, contents.get(n, "1")) for n in clusters)
    return (ROUTE, *routes), (CLUSTER, *named), (ENDPOINT, *ends)


def _ready(talk):
    talk.publish(1, *_world(talk.model))
    for url, names in ((CLUSTER, []), (ENDPOINT, ["a", "b"]), (ROUTE, ["r", "s", "t"])):
        talk.ask(url, names)
        talk.ack(url, names if talk.variant == "sotw" else ())
    return talk


def _ack(talk):
    return talk.ack(ROUTE, talk.repeated("r", "s", "t"))


def _both(pair, snapshot):
    """Push to the first, publish to the second; return what each says first."""
    short, long = (talk.stream for talk in pair)
    now = pair[0].model.NOW
    at_once = short.push(snapshot, now)
    long.publish(snapshot)
    return at_once, long.next_response(now)


def test_one_changed_resource_is_sent_at_once_and_the_same_to_both(pair, model):
    for revision in range(2, 6):
        at_once, looked = _both(pair, model.snapshot(revision, *_world(model, r=str(revision))))

        assert at_once == looked is not None
        assert pair[0].stream.view() == pair[1].stream.view()
        for talk in pair:
            talk.hear(at_once)
            assert _ack(talk) == []
        assert pair[0].stream.view() == pair[1].stream.view()
        assert pair[0].view(ROUTE).acked["r"] == model.resource("r", str(revision)).version


def test_streams_of_one_history_share_the_bytes(pair, model):
    snapshot = model.snapshot(2, *_world(model, r="2"))

    first, second = (talk.stream.push(snapshot, model.NOW) for talk in pair)

    assert first is second is not None


def test_another_nonce_is_another_response(pair, model):
    ahead, other = pair
    ahead.hear(ahead.stream.push(model.snapshot(2, *_world(model, r="2")), model.NOW))
    _ack(ahead)
    other.stream.publish(model.snapshot(2, *_world(model)))

    snapshot = model.snapshot(3, *_world(model, r="3"))
    for talk in pair:
        talk.hear(talk.stream.push(snapshot, model.NOW))

    assert int(ahead.last[ROUTE].nonce) == int(other.last[ROUTE].nonce) + 1
    assert ahead.view(ROUTE).sent == other.view(ROUTE).sent


@pytest.mark.parametrize(
    "change",
    [
        {},  # nothing
        {"r": "2", "s": "2"},  # two
        {"a": "2"},  # a cluster: endpoints follow
        {"r": "2", "needs": [(CLUSTER, "c")], "clusters": "abc"},  # rests on what is new
        {"clusters": "a"},  # something goes
    ],
)
def test_whatever_else_is_looked_at(pair, model, change):
    at_once, _ = _both(pair, model.snapshot(2, *_world(model, **change)))

    assert at_once is None
    assert pair[0].stream.snapshot is pair[1].stream.snapshot
    pair[0].heard()
    pair[1].heard()


def test_a_client_that_refused_or_has_not_answered_is_looked_at(pair, model):
    refusing, _silent = pair
    for talk in pair:
        talk.hear(talk.stream.push(model.snapshot(2, *_world(model, r="2")), model.NOW))
    refusing.ask(
        ROUTE,
        refusing.repeated("r", "s", "t"),
        nonce=refusing.last[ROUTE].nonce,
        error="no",
    )

    again = model.snapshot(3, *_world(model, r="3"))

    assert [talk.stream.push(again, model.NOW) for talk in pair] == [None, None]
    assert [talk.heard() for talk in pair] == [[["r"]], [["r"]]]


def test_streams_that_lack_different_things_are_sent_what_each_lacks(pair, model):
    for talk, had in zip(pair, "rs", strict=True):
        talk.hear(talk.stream.push(model.snapshot(2, *_world(model, **{had: "2"})), model.NOW))
        _ack(talk)
    both = model.snapshot(3, *_world(model, r="2", s="2"))

    sent = [talk.hear(talk.stream.push(both, model.NOW)) for talk in pair]

    assert sent == [["s"], ["r"]]


def test_an_answer_that_was_read_in_full_does_not_hold_up_the_next_push(pair, model):
    for talk in pair:
        data = talk.stream.push(model.snapshot(2, *_world(model, r="2")), model.NOW)
        talk.hear(data)
        # Repeats the node, so that it is not known by its bytes.
        names = {"resource_names": ["r", "s", "t"]} if talk.variant == "sotw" else {}
        ack = talk.request(type_url=ROUTE, node=model.NODE, response_nonce=talk.last[ROUTE].nonce, **names)
        talk.stream.receive(ack.SerializeToString(), model.NOW)
        assert not talk.stream.due

    third = model.snapshot(3, *_world(model, r="3"))

    assert all(talk.stream.push(third, model.NOW) for talk in pair)
