"""What is taken at once of small requests: the ACKs of clients at rest, and the same comes of them."""

from __future__ import annotations

import pytest
from talk import Talk

from controlplane.xds.type_urls import CLUSTER, ROUTE


@pytest.fixture(params=["sotw", "delta"])
def sent(request, model):
    """Return a client at rest that was sent a change of its route, twice alike."""
    pair = [Talk(model, request.param) for _ in range(2)]
    for talk in pair:
        talk.publish(1, (ROUTE, model.resource("r")))
        talk.ask(ROUTE, ["r"])
        talk.ack(ROUTE, talk.repeated("r"))
        talk.publish(2, (ROUTE, model.resource("r", "2")))
    return pair


def answer(talk, *names, **fields):
    listed = {"resource_names": [*talk.repeated("r"), *names]} if talk.variant == "sotw" else {}
    fields = {"type_url": ROUTE, "response_nonce": talk.last[ROUTE].nonce} | listed | fields
    return talk.request(**fields).SerializeToString()


def test_an_ack_is_settled_and_the_same_comes_of_it(sent, model):
    settled, received = sent

    one = settled.stream.settle(answer(settled), model.NOW)
    other = received.stream.receive(answer(received), model.NOW)

    assert one == other
    assert one.acked
    assert settled.stream.view() == received.stream.view()
    assert settled.view(ROUTE).acked["r"] == model.resource("r", "2").version


@pytest.mark.parametrize(
    "other",
    [
        {"error_detail": {"message": b"no"}},
        {"type_url": CLUSTER},
        {"response_nonce": ""},
        {"names": ["r", "s"]},
        {"type_url": "x" * 2000},
    ],
)
def test_whatever_else_is_left_as_it_was(sent, model, other):
    talk, untouched = sent
    if "names" in other:
        key = "resource_names" if talk.variant == "sotw" else "resource_names_subscribe"
        other = {key: other["names"]}

    assert talk.stream.settle(answer(talk, **other), model.NOW) is None
    assert talk.stream.settle(b"\xff\xff", model.NOW) is None
    assert talk.stream.view() == untouched.stream.view()


def test_the_ack_of_a_client_that_is_not_at_rest_is_left_as_it_was(sent, model):
    talk, _ = sent
    talk.ask(CLUSTER)
    talk.publish(3, (ROUTE, model.resource("r", "2")), (CLUSTER, model.resource("a")))

    assert talk.stream.settle(answer(talk, type_url=CLUSTER, response_nonce="2"), model.NOW) is None
    assert talk.view(CLUSTER).waiting_since is not None
