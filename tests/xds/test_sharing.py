"""What is encoded once for all streams, and when a writer need not wake."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from time import process_time

import pytest
from talk import Talk

from controlplane._pb.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from controlplane._pb.node_pb2 import Node
from controlplane.xds.delta import DeltaStream
from controlplane.xds.snapshot import Resource, Snapshot, content_hash
from controlplane.xds.stream import WINDOW
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, PUSH_ORDER, ROUTE
from controlplane.xds.version import Version
from controlplane.xds.view import Peer

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def resource(name, body, revision=1, **fields):
    return Resource(name, body, Version(revision, content_hash((body,))), **fields)


def ask(stream, **fields):
    node = Node(id="edge-1").SerializeToString() if stream.node is None else b""
    stream.receive(DeltaDiscoveryRequest(node=node, type_url=ROUTE, **fields).SerializeToString(), NOW)


def ack(stream, data):
    ask(stream, response_nonce=DeltaDiscoveryResponse.FromString(data).nonce)


@pytest.fixture
def streams():
    made = [DeltaStream(Peer("127.0.0.1:1"), NOW, identifier="t") for _ in range(2)]
    for stream in made:
        ask(stream, resource_names_subscribe=["r"])
    return made


def publish(streams, *resources, revision):
    snapshot = Snapshot(revision, {ROUTE: {r.name: r for r in resources}}, PUSH_ORDER)
    for stream in streams:
        stream.publish(snapshot)


def test_streams_with_one_history_get_the_very_same_bytes(streams):
    publish(streams, resource("r", b"1"), revision=1)

    first, second = (stream.next_response(NOW) for stream in streams)

    assert first is second


def test_another_nonce_or_content_is_another_response(streams):
    publish(streams, resource("r", b"1"), revision=1)
    ahead, other = streams
    ack(ahead, ahead.next_response(NOW))
    changed = resource("r", b"2", 2)
    publish(streams, changed, revision=2)

    first, second = (DeltaDiscoveryResponse.FromString(s.next_response(NOW)) for s in (ahead, other))

    assert (first.nonce, second.nonce) == ("2", "1")
    assert first.resources == second.resources
    assert first.resources[0].version == str(changed.version)


def test_same_content_of_another_revision_keeps_its_own_version(streams):
    one, other = streams
    publish([one], resource("r", b"1", 1), revision=5)
    publish([other], resource("r", b"1", 2), revision=5)

    versions = [DeltaDiscoveryResponse.FromString(s.next_response(NOW)).resources[0].version for s in streams]

    assert [version.partition(".")[0] for version in versions] == ["1", "2"]


def test_stream_is_due_only_while_there_may_be_something_to_send(streams):
    stream = streams[0]
    publish([stream], resource("r", b"1"), revision=1)
    assert stream.due

    data = stream.next_response(NOW)
    assert not stream.due

    ack(stream, data)
    assert not stream.due
    publish([stream], resource("r", b"2", 2), revision=2)
    assert stream.due


def test_change_while_a_response_is_unanswered_is_due_with_the_ack(streams):
    stream = streams[0]
    publish([stream], resource("r", b"1"), revision=1)
    data = stream.next_response(NOW)
    for revision in range(2, WINDOW + 1):
        publish([stream], resource("r", b"%d" % revision, revision), revision=revision)
        assert stream.due
        assert stream.next_response(NOW) is not None
    publish([stream], resource("r", b"last", 9), revision=9)
    assert not stream.due

    ack(stream, data)

    assert stream.due


def test_relations_of_tables_that_stay_are_those_of_a_fresh_snapshot():
    endpoints = {name: resource(name, b"e", follows=(CLUSTER, name)) for name in "ab"}
    clusters = {name: resource(name, b"c") for name in "ab"}
    needs = frozenset({(CLUSTER, "a"), (ENDPOINT, "a")})
    old = {CLUSTER: clusters, ENDPOINT: endpoints, ROUTE: {"r": resource("r", b"1", needs=needs)}}
    before = Snapshot(1, old, PUSH_ORDER).relations

    after = Snapshot(2, {**old, ROUTE: {"r": resource("r", b"2", 2)}}, PUSH_ORDER).relations

    assert before.followers == {(CLUSTER, "a"): ((ENDPOINT, "a"),), (CLUSTER, "b"): ((ENDPOINT, "b"),)}
    assert before.needing == {(ROUTE, CLUSTER), (ROUTE, ENDPOINT)}
    assert after.followers == before.followers
    assert after.following == {(ENDPOINT, CLUSTER)}
    assert after.needing == frozenset()


def test_stream_that_was_answered_has_nothing_pending(streams):
    stream = streams[0]
    publish([stream], resource("r", b"1"), revision=1)
    ack(stream, stream.next_response(NOW))
    assert stream.next_response(NOW) is None

    assert not stream.publish(Snapshot(2, stream.snapshot.resources, PUSH_ORDER))


def test_what_one_stream_drops_another_and_a_view_keep(streams):
    publish(streams, resource("r", b"1"), resource("s", b"1"), revision=1)
    for stream in streams:
        ask(stream, resource_names_subscribe=["s"])
        while (data := stream.next_response(NOW)) is not None:
            ack(stream, data)
    one, other = streams
    before = one.view().of(ROUTE)

    ask(one, resource_names_unsubscribe=["s"])

    assert set(before.acked) == set(before.names) == {"r", "s"}
    assert set(one.view().of(ROUTE).acked) == one.view().of(ROUTE).names == {"r"}
    assert set(other.view().of(ROUTE).acked) == other.view().of(ROUTE).names == {"r", "s"}


@pytest.mark.parametrize("variant", ["sotw", "delta"])
def test_stream_with_the_history_of_others_keeps_few_objects_of_its_own(model, variant):
    """A full collection looks through all of them, and a push fetches them from memory, for each stream."""
    tables = {url: {name: resource(name, name.encode()) for name in "ab"} for url in PUSH_ORDER}
    changed = {**tables, ROUTE: {**tables[ROUTE], "a": resource("a", b"a=2", 2)}}
    first, second = Snapshot(1, tables, PUSH_ORDER), Snapshot(2, changed, PUSH_ORDER)
    again = "ab" if variant == "sotw" else ""

    def served():
        talk = Talk(model, variant)
        talk.stream.publish(first)
        for url in PUSH_ORDER:
            assert talk.ask(url, "ab") == [["a", "b"]]
            assert talk.ack(url, again) == []
        talk.hear(talk.stream.push(second, NOW))
        assert talk.ack(ROUTE, again) == []
        assert talk.view(ROUTE).acked["a"].revision == 2
        return talk.stream

    kept = [served() for _ in range(3)]
    gc.collect()
    before = len(gc.get_objects())
    kept += [served() for _ in range(10)]
    gc.collect()

    assert (len(gc.get_objects()) - before) / 10 < 40


def test_many_names_asked_for_again_cost_no_more_each_than_few():
    """They go one by one, to a stream that shares nothing of what it has meanwhile."""

    def each(count):
        names = [f"r{number}" for number in range(count)]
        stream = DeltaStream(Peer("127.0.0.1:1"), NOW)
        ask(stream, resource_names_subscribe=names)
        publish([stream], *(resource(name, b"1") for name in names), revision=1)
        while (data := stream.next_response(NOW)) is not None:
            ack(stream, data)
        ask(stream, resource_names_subscribe=names)
        began, responses = process_time(), 0
        while (data := stream.next_response(NOW)) is not None:
            ack(stream, data)
            responses += 1
        assert responses == count
        return (process_time() - began) / count

    few, many = (min(each(count) for _ in range(2)) for count in (300, 3000))
    assert many < 3 * few
