"""Routes do not wait for answers: a rollback goes out at once, each answer counts for its own response."""

from __future__ import annotations

import pytest

from controlplane.xds.stream import WINDOW
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE


@pytest.fixture
def ready(talk, model):
    """Return a stream whose client has version 1 of three routes, and what it repeats in its answers."""
    talk.publish(1, (ROUTE, *(model.resource(name) for name in "rst")))
    talk.ask(ROUTE, ["r", "s", "t"])
    talk.names = talk.repeated("r", "s", "t")
    talk.ack(ROUTE, talk.names)
    return talk


def world(model, **contents):
    return (ROUTE, *(model.resource(name, contents.get(name, "1")) for name in "rst"))


def nonces(talk):
    return talk.last[ROUTE].nonce


def test_rollback_does_not_wait_for_the_answer_to_what_it_takes_back(ready, model):
    step = ready.publish(2, world(model, r="2"))
    first = nonces(ready)

    rollback = ready.publish(3, world(model))

    assert (step, rollback) == ([["r"]], [["r"]])
    assert ready.view(ROUTE).sent["r"] == model.resource("r").version
    ready.ask(ROUTE, ready.names, nonce=first)
    assert ready.view(ROUTE).acked["r"] == model.resource("r", "2").version
    assert ready.ack(ROUTE, ready.names) == []
    assert ready.view(ROUTE).acked["r"] == model.resource("r").version
    assert ready.view(ROUTE).waiting_since is None


def test_refusal_of_the_older_response_is_kept_until_the_newer_one_is_accepted(ready, model):
    ready.publish(2, world(model, r="2"))
    first = nonces(ready)
    ready.publish(3, world(model, r="3"))

    ready.ask(ROUTE, ready.names, nonce=first, error="bad")

    nack = ready.view(ROUTE).nacks["r"]
    assert (nack.version, nack.message) == (model.resource("r", "2").version, "bad")
    assert ready.view(ROUTE).acked["r"] == model.resource("r").version
    ready.ack(ROUTE, ready.names)
    assert (ready.view(ROUTE).nacks, ready.view(ROUTE).error) == ({}, None)
    assert ready.view(ROUTE).acked["r"] == model.resource("r", "3").version


def test_what_was_refused_is_not_sent_again_by_way_of_a_newer_response(ready, model):
    ready.publish(2, world(model, r="2"))
    ready.ack(ROUTE, ready.names, error="bad")
    ready.publish(3, world(model, r="3"))

    back = ready.publish(4, world(model, r="2"))

    assert back == []
    assert ready.ack(ROUTE, ready.names) == [["r"]]  # another version was accepted: it may be tried again


def test_few_responses_are_under_way_and_then_the_latest_target_wins(ready, model):
    sent = [ready.publish(n, world(model, r=str(n))) for n in range(2, 20)]
    oldest = str(int(nonces(ready)) - WINDOW + 1)

    assert sent == [[["r"]]] * WINDOW + [[]] * (18 - WINDOW)
    assert ready.ask(ROUTE, ready.names, nonce=oldest) == [["r"]]
    ready.ack(ROUTE, ready.names)
    assert ready.view(ROUTE).acked["r"] == model.resource("r", "19").version


def test_the_newest_change_goes_first(delta, model):
    names = [f"r{n}" for n in range(9)]
    delta.publish(1, (ROUTE, *map(model.resource, names)))
    delta.ask(ROUTE, names)
    delta.ack(ROUTE)
    delta.publish(2, (ROUTE, *(model.resource(n, "2") for n in names)))

    rolled = [model.resource(n, "1" if n == "r0" else "2") for n in names]
    waiting = delta.publish(3, (ROUTE, *rolled))
    next_one = delta.ask(ROUTE, nonce=str(int(nonces(delta)) - WINDOW + 1))

    assert (waiting, next_one) == ([], [["r0"]])


def test_names_of_a_stale_answer_do_not_count(sotw, model):
    sotw.publish(1, world(model))
    sotw.ask(ROUTE, ["r"])
    sotw.ack(ROUTE, ["r"])
    sotw.publish(2, world(model, r="2"))
    first = nonces(sotw)
    sotw.publish(3, world(model, r="3"))

    assert sotw.ask(ROUTE, ["r", "s"], nonce=first) == []
    assert sotw.view(ROUTE).names == {"r"}
    assert sotw.ack(ROUTE, ["r", "s"]) == [["s"]]


def test_what_a_client_left_unanswered_is_sent_again_unless_something_newer_came(ready, model):
    ready.publish(2, world(model, r="2"))
    ready.publish(3, world(model, r="2", s="2"))

    assert ready.ack(ROUTE, ready.names) == [["r"]]
    assert ready.publish(4, world(model, r="3", s="2")) == [["r"]]
    assert ready.ack(ROUTE, ready.names) == []
    assert ready.view(ROUTE).acked["r"] == model.resource("r", "3").version


def test_one_answer_at_a_time_while_a_culprit_is_sought(sotw, model):
    names = ["r", "s", "t"]
    sotw.publish(1, world(model))
    sotw.ask(ROUTE, names)

    half = sotw.ack(ROUTE, names, error="bad")

    assert len(half) == 1
    assert sotw.publish(3, world(model, r="3")) == []


def test_clusters_stay_while_any_response_under_way_needs_them(talk, model):
    full = talk.variant == "sotw"
    both = [*map(model.resource, "ab")]
    ends = [model.resource(n, follows=(CLUSTER, n)) for n in "ab"]

    def route(cluster):
        return ROUTE, model.resource("r", cluster, needs=[(CLUSTER, cluster), (ENDPOINT, cluster)])

    talk.publish(1, (CLUSTER, *both), (ENDPOINT, *ends), route("a"))
    for url, names in ((CLUSTER, ()), (ENDPOINT, ["a", "b"]), (ROUTE, ["r"])):
        talk.ask(url, names)
        talk.ack(url, names if full else ())
    talk.publish(2, (CLUSTER, *both), (ENDPOINT, *ends), route("b"))
    first = nonces(talk)

    back = talk.publish(3, (CLUSTER, both[0]), (ENDPOINT, ends[0]), route("a"))

    assert back == [["r"]]
    assert talk.ask(ROUTE, ["r"] if full else (), nonce=first) == []
    assert talk.ack(ROUTE, ["r"] if full else ()) == ([["a"]] if full else [["-b"]])


def test_return_to_a_cluster_that_was_emptied_meanwhile_waits(talk, model):
    """What the client uses now does not count if a response under way leads it away."""
    full = talk.variant == "sotw"
    cluster, filled = model.resource("a"), model.resource("a", "+", follows=(CLUSTER, "a"))
    emptied = model.resource("a", "-", follows=(CLUSTER, "a"), hollow=True)
    on_it = model.resource("r", "on", needs=[(CLUSTER, "a"), (ENDPOINT, "a")])
    talk.publish(1, (CLUSTER, cluster), (ENDPOINT, filled), (ROUTE, on_it))
    for url, names in ((CLUSTER, ()), (ENDPOINT, ["a"]), (ROUTE, ["r"])):
        talk.ask(url, names)
        talk.ack(url, names if full else ())
    talk.publish(2, (CLUSTER, cluster), (ENDPOINT, emptied), (ROUTE, on_it))
    talk.ack(ENDPOINT, ["a"] if full else ())

    away = talk.publish(3, (CLUSTER, cluster), (ENDPOINT, emptied), (ROUTE, model.resource("r", "off")))
    back = talk.publish(4, (CLUSTER, cluster), (ENDPOINT, emptied), (ROUTE, on_it))

    assert (away, back) == ([["r"]], [])
    assert talk.ack(ROUTE, ["r"] if full else ()) == []
    assert talk.publish(5, (CLUSTER, cluster), (ENDPOINT, filled), (ROUTE, on_it)) == [["a"]]
    assert talk.ack(ENDPOINT, ["a"] if full else ()) == [["r"]]


def test_returning_client_that_is_led_away_from_a_cluster_goes_back_only_once_it_is_filled(sotw, model):
    cluster, emptied = model.resource("a"), model.resource("a", "-", follows=(CLUSTER, "a"), hollow=True)
    filled = model.resource("a", "+", follows=(CLUSTER, "a"))
    on_it = model.resource("r", "on", needs=[(CLUSTER, "a"), (ENDPOINT, "a")])
    other = model.resource("s", "on", needs=[(CLUSTER, "a"), (ENDPOINT, "a")])

    def publish(revision, endpoints, route):
        return sotw.publish(revision, (CLUSTER, cluster), (ENDPOINT, endpoints), (ROUTE, route, other))

    publish(5, emptied, model.resource("r", "off"))
    sotw.ask(CLUSTER)
    sotw.ask(ENDPOINT, ["a"])
    sotw.ack(ENDPOINT, ["a"])
    sotw.ack(CLUSTER)
    away = sotw.ask(ROUTE, ["r"], version_info="4.abc")

    back = publish(6, emptied, on_it)

    assert (away, back, sotw.ack(ROUTE, ["r"])) == ([["r"]], [], [])
    assert publish(7, filled, on_it) == [["a"]]
    assert sotw.ack(ENDPOINT, ["a"]) == [["r"]]


def test_name_that_a_stale_list_left_out_is_sent_again_when_it_is_asked_for_again(sotw, model):
    """The client dropped it in between, though no answer to our newest response ever said so."""
    sotw.publish(1, world(model))
    sotw.ask(ROUTE, ["r", "s"])
    sotw.ack(ROUTE, ["r", "s"])
    sotw.publish(2, world(model, s="2"))
    first = nonces(sotw)
    sotw.publish(3, world(model, s="3"))

    dropped = sotw.ask(ROUTE, ["s"], nonce=first)
    back = sotw.ack(ROUTE, ["r", "s"])

    assert (dropped, back) == ([], [["r"]])
    assert sotw.ack(ROUTE, ["r", "s"]) == []


def test_version_that_was_left_unanswered_may_be_what_the_client_has(talk, model):
    """So it is not certain that the client is still on a cluster that was emptied meanwhile."""
    full = talk.variant == "sotw"
    cluster, filled = model.resource("a"), model.resource("a", "+", follows=(CLUSTER, "a"))
    emptied = model.resource("a", "-", follows=(CLUSTER, "a"), hollow=True)
    needs = [(CLUSTER, "a"), (ENDPOINT, "a")]
    on_it, off_it = model.resource("r", "on", needs=needs), model.resource("r", "off")
    routes = ["r", "s"]

    def publish(revision, endpoints, route, content):
        other = (ROUTE, route, model.resource("s", content))
        return talk.publish(revision, (CLUSTER, cluster), (ENDPOINT, endpoints), other)

    publish(1, filled, on_it, "1")
    for url, names in ((CLUSTER, ()), (ENDPOINT, ["a"]), (ROUTE, routes)):
        talk.ask(url, names)
        talk.ack(url, names if full else ())
    publish(2, filled, off_it, "1")
    publish(3, filled, off_it, "2")
    newest = nonces(talk)
    publish(4, emptied, off_it, "2")
    talk.ack(ENDPOINT, ["a"] if full else ())

    talk.stream.publish(
        model.snapshot(5, (CLUSTER, cluster), (ENDPOINT, emptied), (ROUTE, on_it, model.resource("s", "2")))
    )
    back = talk.ask(ROUTE, routes if full else (), nonce=newest)

    assert back == []
    assert talk.view(ROUTE).gated == {"r": (ENDPOINT, "a")}


def test_what_was_left_unanswered_before_a_refusal_may_be_in_use(talk, model):
    """The client took the route over ``a``, said nothing, and refused the next one: ``a`` has to stay."""
    full = talk.variant == "sotw"
    cluster, end = model.resource("a"), model.resource("a", follows=(CLUSTER, "a"))
    over = model.resource("r", "over", needs=[(CLUSTER, "a"), (ENDPOINT, "a")])
    talk.publish(1, (CLUSTER, cluster), (ENDPOINT, end), (ROUTE, model.resource("r")))
    for url, names in ((CLUSTER, ()), (ENDPOINT, ["a"]), (ROUTE, ["r"])):
        talk.ask(url, names)
        talk.ack(url, names if full else ())
    talk.publish(2, (CLUSTER, cluster), (ENDPOINT, end), (ROUTE, over))
    talk.publish(3, (CLUSTER,), (ENDPOINT,), (ROUTE, model.resource("r", "off")))

    names = ["r"] if full else ()

    assert talk.ack(ROUTE, names, error="bad") == [
        ["r"]
    ]  # what it is known to have had, over what it may have
    gone = talk.ack(ROUTE, names)
    assert gone == ([[]] if full else [["-a"]])  # all clusters are none, or it is taken away
    assert talk.view(ROUTE).nacks["r"].message == "bad"  # and what was refused is not sent again
