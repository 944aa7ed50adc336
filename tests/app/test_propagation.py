"""Who has acknowledged what a service rests on, from views built by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.app.propagation import Refused, Relevant, merge, propagation, refusals
from controlplane.app.remembered import Remembered
from controlplane.policy.documents import Propagate
from controlplane.release.seen import Propagation
from controlplane.xds.messages import Node
from controlplane.xds.parts import Part, Parts
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE, SCOPED_ROUTE
from controlplane.xds.version import Version
from controlplane.xds.view import Nack, Peer, StreamView, TypeView

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WANTED, OLD = Version(7, "new"), Version(3, "old")
LIMITS = Propagate()


def resource(name, *clusters):
    return Resource(name, b"", WANTED, frozenset((CLUSTER, cluster) for cluster in clusters))


SNAPSHOT = Snapshot(
    7,
    {
        type_url: {r.name: r for r in resources}
        for type_url, resources in {
            CLUSTER: [resource("shop~v1"), resource("shop~v2"), resource("cart~v1"), resource("shop2~v1")],
            ENDPOINT: [resource("shop~v1"), resource("cart~v1")],
            ROUTE: [resource("hosts-a", "shop~v1", "shop~v2"), resource("hosts-b", "cart~v1")],
            SCOPED_ROUTE: [resource("a.test"), resource("b.test")],
            LISTENER: [resource("http")],
        }.items()
    },
    PUSH_ORDER,
)
RELEVANT = Relevant.of(SNAPSHOT, "shop", ["shop~v1", "shop~v2"], "hosts-a", ["a.test"])
EVERYTHING = {type_url: {r.name: WANTED for r in SNAPSHOT.of(type_url).values()} for type_url in PUSH_ORDER}


def view(proxy="a", *, asks=PUSH_ORDER, acked=EVERYTHING, nacks=(), names=None, node=True):
    """Return a stream; ``nacks`` are (type, name), ``names`` what it asks for by name of a type."""
    types = tuple(
        TypeView(
            type_url=type_url,
            served=True,
            wildcard=type_url not in (names or {}),
            names=frozenset((names or {}).get(type_url, ())),
            since=NOW,
            sent={},
            acked=acked.get(type_url, {}),
            nacks={n: Nack(WANTED, "bad", NOW) for t, n in nacks if t == type_url},
            error=None,
            gated={},
            waiting_since=None,
        )
        for type_url in asks
    )
    return StreamView(
        Peer("10.0.0.1:1"), "delta", NOW, Node(proxy) if node else None, "edge", 7, False, types
    )


def without(type_url, name, version=None):
    """Return what is ACKed, but for one resource, of which another version or none is."""
    table = {n: v for n, v in EVERYTHING[type_url].items() if n != name}
    return EVERYTHING | {type_url: table | ({name: version} if version else {})}


def part(owner, source):
    return {owner: Part(owner, frozenset(), source)}


def joined(parts):
    return ",".join(f"{each.owner}={each.source}" for each in parts).encode()


@pytest.mark.parametrize(
    ("shop", "acked"), [("rolled back", ("a",)), ("canary", ())], ids=["its part", "another part"]
)
def test_a_service_is_not_behind_because_of_another_ones_part_of_its_route(shop, acked):
    """The proxy has accepted the route with the cart's part as it was: that one waits for its cluster."""
    target = part("shop", "rolled back") | part("cart", "new")
    route = replace(resource("hosts-a"), parts=Parts(target, joined))
    snapshot = replace(SNAPSHOT, resources={**SNAPSHOT.resources, ROUTE: {"hosts-a": route}})
    relevant = Relevant.of(snapshot, "shop", ["shop~v1", "shop~v2"], "hosts-a", ["a.test"])
    has = Resource("hosts-a", b"", OLD, parts=Parts(part("shop", shop) | part("cart", "old"), joined))
    stream = view(acked=without(ROUTE, "hosts-a", OLD))
    types = (replace(t, partial={"hosts-a": has}) if t.type_url == ROUTE else t for t in stream.types)

    got = propagation([replace(stream, types=tuple(types))], relevant, Propagate())

    assert (got.live, got.acked) == (("a",), acked)


@pytest.mark.parametrize(
    ("owners", "nacked"), [((), True), (("cart",), False), (("cart", "shop"), True)], ids=repr
)
def test_a_refusal_of_shared_routes_concerns_those_whose_parts_it_may_be_about(owners, nacked):
    stream = view(nacks=[(ROUTE, "hosts-a")])
    nack = Nack(WANTED, "bad", NOW, frozenset(owners))
    types = (replace(t, nacks={"hosts-a": nack}) if t.type_url == ROUTE else t for t in stream.types)

    got = propagation([replace(stream, types=tuple(types))], RELEVANT, Propagate())

    assert bool(got.nacked) is nacked


def test_a_service_rests_on_its_clusters_and_routes_and_on_the_listeners():
    assert {(t.rpartition(".")[2], r.name) for t, r in RELEVANT.resources} == {
        ("Cluster", "shop~v1"),
        ("Cluster", "shop~v2"),
        ("ClusterLoadAssignment", "shop~v1"),
        ("RouteConfiguration", "hosts-a"),
        ("ScopedRouteConfiguration", "a.test"),
        ("Listener", "http"),
    }


@pytest.mark.parametrize(
    ("streams", "live", "acked"),
    [
        ([], "", ""),
        ([view()], "a", "a"),
        ([view("b"), view("a")], "ab", "ab"),
        ([view(acked={})], "a", ""),
        ([view(acked=without(ROUTE, "hosts-a"))], "a", ""),
        ([view(acked=without(ROUTE, "hosts-a", OLD))], "a", ""),
        ([view(acked=without(CLUSTER, "shop~v2"))], "a", ""),
        ([view(acked=without(ENDPOINT, "shop~v1"))], "a", ""),
        ([view(acked=without(LISTENER, "http", OLD))], "a", ""),
        ([view(acked=without(SCOPED_ROUTE, "a.test"))], "a", ""),
        ([view(acked=without(SCOPED_ROUTE, "b.test"))], "a", "a"),
        ([view(acked=without(ROUTE, "hosts-b"))], "a", "a"),
        ([view(acked=without(CLUSTER, "cart~v1"))], "a", "a"),
        ([view(), view(acked=without(ROUTE, "hosts-a", OLD))], "a", ""),
        ([view(node=False), view("b")], "b", "b"),
        ([view(asks=(ENDPOINT,)), view("b")], "b", "b"),
        ([view(asks=(CLUSTER,))], "a", ""),
        ([view(names={ROUTE: ["hosts-a"]})], "a", "a"),
        ([view(names={ROUTE: ["hosts-b"]})], "a", ""),
        ([view(names={ENDPOINT: []}, acked=without(ENDPOINT, "shop~v1"))], "a", "a"),
        ([view(acked=without(ROUTE, "hosts-a", replace(WANTED, revision=2)))], "a", "a"),
    ],
)
def test_a_proxy_has_acknowledged_when_all_its_streams_have_all_that_is_relevant(streams, live, acked):
    got = propagation(streams, RELEVANT, LIMITS)

    assert (got.live, got.acked, got.nacked) == (tuple(live), tuple(acked), ())
    assert got.complete is bool(live and live == acked)
    assert got.waiting == tuple(sorted(set(live) - set(acked)))


def test_a_refusal_of_what_is_relevant_counts_and_is_told_in_the_proxys_words():
    refusing = view("b", nacks=[(ROUTE, "hosts-a")], acked=without(ROUTE, "hosts-a", OLD))

    got = propagation([view(), refusing], RELEVANT, Propagate(at_least="50%"))

    assert got.nacked == (("b", "RouteConfiguration 'hosts-a': bad"),)
    assert got.waiting == ()
    assert not got.complete


def test_a_refusal_of_another_service_is_not_this_ones_but_is_shown():
    refusing = view("b", nacks=[(CLUSTER, "cart~v1")])

    assert propagation([refusing], RELEVANT, LIMITS).complete
    assert list(refusals(refusing)) == ["Cluster 'cart~v1': bad"]


def test_the_fleet_says_how_many_are_enough():
    streams = [view("a"), view("b"), view("c", acked={})]

    enough = [
        propagation(streams, RELEVANT, Propagate(at_least=s)).complete for s in ("60%", "66.66%", "66.67%")
    ]

    assert enough == [True, True, False]


def test_fleets_are_merged_to_the_strictest():
    one = Propagation(("a",), ("a",), at_least=500_000, within=timedelta(seconds=60))
    strict = {"at_least": 900_000, "within": timedelta(seconds=10)}
    two = Propagation(("b", "c"), ("c",), (("b", "no"),), **strict)

    merged = merge([one, two])

    assert merged == Propagation(("a", "b", "c"), ("a", "c"), (("b", "no"),), **strict)
    assert not merge([]).complete


@pytest.mark.parametrize(
    ("owners", "told"),
    [
        ((), "RouteConfiguration 'shop~x': bad"),
        (("shop",), "RouteConfiguration 'shop~x': bad"),
        (("web",), "RouteConfiguration 'shop~x' (the part of web): bad"),
        (("web", "shop"), "RouteConfiguration 'shop~x' (the part of shop or web): bad"),
    ],
)
def test_a_refusal_of_shared_routes_says_whose_part_it_is_of(owners, told):
    stream = view(nacks=[(ROUTE, "shop~x")])
    nack = Nack(WANTED, "bad", NOW, frozenset(owners))
    types = (replace(t, nacks={"shop~x": nack} if t.nacks else {}) for t in stream.types)

    assert list(refusals(replace(stream, types=tuple(types)))) == [told]


# --- what was refused on streams that are over ------------------------------------------------------------


def past(version=WANTED, owners=(), proxy="a", name="hosts-a"):
    return {proxy: {(ROUTE, name): Refused(version, Nack(version, "bad", NOW, frozenset(owners)))}}


@pytest.mark.parametrize("acked", [without(ROUTE, "hosts-a", OLD), without(ROUTE, "hosts-a"), {}])
def test_a_proxy_that_is_back_refuses_what_it_refused_until_it_answers(acked):
    got = propagation([view(acked=acked)], RELEVANT, LIMITS, past())

    assert (got.live, got.acked) == (("a",), ())
    assert got.nacked == (("a", "RouteConfiguration 'hosts-a': bad"),)
    assert got.refused == ()


def test_what_it_has_accepted_since_is_no_refusal():
    assert propagation([view()], RELEVANT, LIMITS, past()).nacked == ()


@pytest.mark.parametrize("before", [past(OLD), past(owners=["cart"]), past(name="hosts-b")])
def test_a_refusal_of_something_else_is_none_of_this(before):
    streams = [view(acked=without(ROUTE, "hosts-a", OLD))]

    got = propagation(streams, RELEVANT, LIMITS, before)

    assert (got.nacked, got.refused) == ((), ())


def test_a_proxy_that_is_away_refuses_what_it_refused():
    got = propagation([view("b")], RELEVANT, LIMITS, past(owners=["shop"]))

    assert (got.live, got.nacked) == (("b",), ())
    assert got.refused == (("a", "RouteConfiguration 'hosts-a' (the part of shop): bad"),)
    assert merge([got, Propagation()]).refused == got.refused


@pytest.mark.parametrize(
    ("nack", "kept"),
    [
        (Nack(WANTED, "bad", NOW), True),
        (Nack(OLD, "bad", NOW), False),
        (Nack(OLD, "bad", NOW, frozenset({"shop"})), True),
        (Nack(None, "bad", NOW), False),
    ],
    ids=["the target", "something older", "a part of it", "its removal"],
)
def test_a_stream_that_ends_leaves_what_it_refused_of_the_target(nack, kept):
    remembered = Remembered()
    stream = view(nacks=[(ROUTE, "hosts-a")], acked=without(ROUTE, "hosts-a"))
    types = (replace(t, nacks={"hosts-a": nack} if t.nacks else {}) for t in stream.types)

    remembered.note(replace(stream, types=tuple(types)), SNAPSHOT)

    assert list(remembered.of("edge")) == (["a"] if kept else [])


def test_what_was_refused_is_kept_until_it_is_answered():
    remembered = Remembered()
    remembered.note(view(nacks=[(ROUTE, "hosts-a")], acked=without(ROUTE, "hosts-a")), SNAPSHOT)

    remembered.note(view(acked={}), SNAPSHOT)  # it ended before it was answered
    kept = remembered.of("edge")["a"]
    remembered.note(view(), SNAPSHOT)

    assert kept == past()["a"]
    assert remembered.of("edge") == remembered.of("other") == {}


def test_refusals_of_many_nodes_are_bounded(monkeypatch):
    monkeypatch.setattr("controlplane.app.remembered.NODES", 2)
    remembered = Remembered()

    for proxy in "abac":
        remembered.note(view(proxy, nacks=[(ROUTE, "hosts-a")], acked={}), SNAPSHOT)

    assert list(remembered.of("edge")) == ["a", "c"]
