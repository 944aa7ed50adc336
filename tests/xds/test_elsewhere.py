"""Clusters whose endpoints the client does not ask for: of another kind, or from elsewhere."""

from __future__ import annotations

import pytest

from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE


def world(model, revision, cluster, *, x="eds", hollow=False):
    """Routes that name a cluster, and two clusters with an assignment each; ``x`` is what its cluster is."""
    return (
        revision,
        (CLUSTER, model.resource("x", x), model.resource("z")),
        (
            ENDPOINT,
            model.resource("x", f"x{hollow}", follows=(CLUSTER, "x"), hollow=hollow),
            model.resource("z", follows=(CLUSTER, "z")),
        ),
        (ROUTE, model.resource("r", cluster, needs=[(CLUSTER, cluster), (ENDPOINT, cluster)])),
    )


def start(talk, model, *asked, x):
    """Let a client have all, with the endpoints that it asks for, and routes to ``z``."""
    talk.publish(*world(model, 1, "z", x=x))
    talk.ask(CLUSTER)
    talk.ask(ENDPOINT, list(asked))
    talk.ack(ENDPOINT, talk.repeated(*asked))
    talk.ack(CLUSTER)
    talk.ask(ROUTE, ["r"])
    talk.ack(ROUTE, talk.repeated("r"))
    return talk


@pytest.mark.parametrize("hollow", [False, True])
def test_a_route_waits_for_no_assignment_that_is_never_asked_for(talk, model, hollow):
    """A static cluster, or one that gets its endpoints by another stream, while there is an assignment."""
    start(talk, model, "z", x="static")

    moved = talk.publish(*world(model, 2, "x", x="static", hollow=hollow))

    assert moved == [["r"]]


def test_a_route_goes_to_a_cluster_that_has_become_static(talk, model):
    start(talk, model, "x", "z", x="eds")
    talk.publish(*world(model, 2, "z", x="static"))
    talk.ack(ENDPOINT, talk.repeated("x", "z"))
    talk.ack(CLUSTER)
    if talk.variant == "sotw":
        talk.ack(ENDPOINT, ["z"])
    else:
        talk.ask(ENDPOINT, resource_names_unsubscribe=["x"])

    assert talk.publish(*world(model, 3, "x", x="static")) == [["r"]]


def test_a_route_waits_while_a_static_cluster_becomes_one_with_endpoints(talk, model):
    """The client asks for them before it acknowledges the cluster."""
    start(talk, model, "z", x="static")

    changed = talk.publish(*world(model, 2, "x", x="eds"))
    asked = talk.ack(ENDPOINT, ["x", "z"] if talk.variant == "sotw" else ["x"])
    warm = [talk.ack(CLUSTER), talk.ack(ENDPOINT, talk.repeated("x", "z"))]

    assert (changed, asked) == ([["x", "z"]] if talk.variant == "sotw" else [["x"]], [["x"]])
    assert warm == [[], [["r"]]]


def test_a_route_waits_while_the_only_cluster_becomes_one_with_endpoints(talk, model):
    """Of which the client asked for none until then."""
    talk.publish(*world(model, 1, "z", x="static"))
    talk.ask(CLUSTER)
    talk.ack(CLUSTER)
    talk.ask(ROUTE, ["r"])
    talk.ack(ROUTE, talk.repeated("r"))

    changed = talk.publish(*world(model, 2, "x", x="eds"))
    asked = talk.ask(ENDPOINT, ["x"])
    warm = [talk.ack(CLUSTER), talk.ack(ENDPOINT, talk.repeated("x"))]

    assert (changed, asked) == ([["x", "z"]] if talk.variant == "sotw" else [["x"]], [["x"]])
    assert warm == [[], [["r"]]]


def test_a_route_waits_for_a_new_cluster_whose_endpoints_are_not_asked_for_yet(talk, model):
    start(talk, model, "z", x="static")
    (url, *clusters), endpoints, _ = world(model, 2, "z", x="static")[1:]
    new = model.resource("n", follows=(CLUSTER, "n"))
    route = model.resource("r", "n", needs=[(CLUSTER, "n"), (ENDPOINT, "n")])

    sent = talk.publish(2, (url, *clusters, model.resource("n")), (*endpoints, new), (ROUTE, route))

    assert sent == ([["n", "x", "z"]] if talk.variant == "sotw" else [["n"]])
    assert set(talk.view(ROUTE).gated) == {"r"}
    assert talk.ack(CLUSTER) == [["r"]]  # it does not ask for them


def test_a_route_goes_to_a_static_cluster_though_its_next_version_was_refused(talk, model):
    start(talk, model, "z", x="static")
    talk.publish(*world(model, 2, "z", x="eds"))
    talk.ack(CLUSTER, error="bad")
    if talk.variant == "sotw":  # all clusters were in the response
        talk.ack(CLUSTER, error="x is bad")

    assert talk.publish(*world(model, 3, "x", x="eds")) == [["r"]]


def test_a_stale_list_that_asks_for_endpoints_counts_before_the_cluster_is_acknowledged(sotw, model):
    """What it asks for will be known once it has answered; until then the cluster has none."""
    start(sotw, model, "z", x="static")
    (_, z) = world(model, 2, "z")[2][1:]
    news = model.resource("z", "new", follows=(CLUSTER, "z"))
    first = world(model, 2, "x", x="eds")
    sotw.publish(2, first[1], (ENDPOINT, first[2][1], news), first[3])

    ignored = sotw.ask(ENDPOINT, ["x", "z"], nonce="stale")
    early = sotw.ack(CLUSTER)
    known = sotw.ack(ENDPOINT, ["x", "z"])

    assert z.name == "z"
    assert (ignored, early, known) == ([], [], [["x"]])
    assert sotw.ack(ENDPOINT, ["x", "z"]) == [["r"]]
