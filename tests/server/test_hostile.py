"""Clients that mean harm: each is refused with a clear status, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import tracemalloc

import grpc
import pytest

from controlplane._pb.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from controlplane._pb.node_pb2 import Node
from controlplane.server.streams import Limits
from controlplane.xds.messages import MAX_METADATA, MAX_NAME, MAX_NAMES, MAX_NODE, MAX_REQUEST
from controlplane.xds.type_urls import CLUSTER, ROUTE
from tests.waiting import PATIENCE

MOST = MAX_REQUEST
NODE = Node(id="bad", cluster="edge").SerializeToString()
DELTA = "DeltaAggregatedResources"
SOTW = "StreamAggregatedResources"


def field(number, value):
    def varint(n):
        return bytes([n & 0x7F | 0x80]) + varint(n >> 7) if n > 0x7F else bytes([n])

    return varint(number << 3 | 2) + varint(len(value)) + value


def deep(levels):
    """A Struct in a Struct in a Struct …"""
    value = b""
    for _ in range(levels):
        value = field(1, field(1, b"a") + field(2, field(5, value)))
    return value


def fill(entry, *, size=MOST - 1000):
    return entry * (size // len(entry))


def sotw(rest=b"", node=NODE):
    return field(2, node) + field(4, CLUSTER.encode()) + rest


def delta(rest=b"", node=NODE):
    return field(1, node) + field(2, CLUSTER.encode()) + rest


# Method, message, status (None: it is legal), part of the text.
CRAFTED = {
    "not a message": (SOTW, b"\xff" * 1000, "INVALID_ARGUMENT", "not a DiscoveryRequest"),
    "megabytes of garbage": (DELTA, b"\xff" * (MOST - 1), "INVALID_ARGUMENT", "not a DeltaDiscoveryRequest"),
    "larger than a request may be": (SOTW, bytes(MOST + 1), "RESOURCE_EXHAUSTED", "request of"),
    "larger than a message may be": (SOTW, bytes((8 << 20) + 1), "RESOURCE_EXHAUSTED", "larger than max"),
    "a million names": (SOTW, sotw(fill(field(3, b"a"))), "RESOURCE_EXHAUSTED", "resource_names: "),
    "a million subscriptions": (DELTA, delta(fill(field(3, b"a"))), "RESOURCE_EXHAUSTED", "_subscribe: "),
    "a million unsubscriptions": (DELTA, delta(fill(field(4, b"a"))), "RESOURCE_EXHAUSTED", "_unsubscribe: "),
    "a quarter of a million versions": (
        DELTA,
        delta(b"".join(field(5, field(1, b"%x" % n) + field(2, b"")) for n in range(MOST // 13))),
        "RESOURCE_EXHAUSTED",
        "initial_resource_versions: ",
    ),
    "a long name": (
        SOTW,
        sotw(field(3, b"x" * (MAX_NAME + 1))),
        "RESOURCE_EXHAUSTED",
        "resource_names: longer than",
    ),
    "a long version": (
        DELTA,
        delta(field(5, field(1, b"a") + field(2, b"x" * (MAX_NAME + 1)))),
        "RESOURCE_EXHAUSTED",
        "initial_resource_versions: longer than",
    ),
    "a large node": (SOTW, sotw(node=field(9, bytes(MAX_NODE)) + NODE), "RESOURCE_EXHAUSTED", "node: "),
    "much metadata": (
        SOTW,
        sotw(node=NODE + field(3, field(1, field(1, b"k") + field(2, field(3, bytes(MAX_METADATA)))))),
        "RESOURCE_EXHAUSTED",
        "node.metadata: ",
    ),
    "deep metadata": (SOTW, sotw(node=NODE + field(3, deep(3000))), "INVALID_ARGUMENT", "not a Node"),
    "metadata of empty entries": (
        SOTW,
        sotw(node=NODE + field(3, fill(field(1, b""), size=MAX_METADATA))),
        None,
        "",
    ),
    "metadata of many values": (
        SOTW,
        sotw(node=NODE + field(3, field(1, field(2, field(6, fill(field(1, field(5, b"")), size=5000)))))),
        "RESOURCE_EXHAUSTED",
        "node.metadata: more than 1000 values",
    ),
    "a long id": (SOTW, sotw(node=field(1, b"x" * 600)), "RESOURCE_EXHAUSTED", "is longer than 512"),
    "no type": (SOTW, field(2, NODE), "INVALID_ARGUMENT", "type_url: is required"),
    "no type URL": (SOTW, field(2, NODE) + field(4, b"a b"), "INVALID_ARGUMENT", "is not a type URL"),
    "a million empty nodes": (SOTW, fill(field(2, b"")) + sotw(), None, ""),
    "a million unknown fields": (DELTA, delta(fill(field(99, b""))), None, ""),
    "a million empty versions": (DELTA, delta(fill(field(5, b""))), None, ""),
    "a long refusal": (SOTW, sotw(field(6, field(2, b"x" * (MOST - 1000)))), None, ""),
    "as many names as are allowed": (
        SOTW,
        sotw(b"".join(field(3, b"name-%d" % n) for n in range(MAX_NAMES))),
        None,
        "",
    ),
}


@pytest.mark.parametrize("what", CRAFTED)
async def test_crafted_message_is_refused_with_a_clear_status(serve, kit, what):
    method, message, status, text = CRAFTED[what]
    world = await serve()
    call = world.connect(f"/{kit.ADS}/{method}")

    with contextlib.suppress(grpc.aio.AioRpcError):  # it may be over before all of it was sent
        await call.call.write(message)
        await call.call.done_writing()

    code, details = await call.end()
    assert code is grpc.StatusCode[status or "OK"]
    assert text in details
    await kit.until(lambda: not world.xds.views())


@pytest.mark.parametrize("what", ["megabytes of garbage", "a million names", "a million subscriptions"])
async def test_what_is_refused_is_given_back_without_the_garbage_collector(serve, kit, what):
    method, message, _, _ = CRAFTED[what]
    world = await serve()

    async def send():
        call = world.connect(f"/{kit.ADS}/{method}")
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.call.write(message)
        await call.end()
        await kit.until(lambda: not world.xds.views())

    await send()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(4):
            await send()
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()

    assert most > len(message)
    assert held < len(message)


async def test_good_client_is_served_while_others_throw_everything(serve, kit, say):
    """The figures include what the clients cost, which share the loop."""
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    good = world.connect(node="good")
    await good.ask(CLUSTER)
    response = await good.hear()
    gaps, rounds, over = [], [], asyncio.Event()

    async def tick():
        before = time.perf_counter()
        while not over.is_set():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - before)
            before = now

    async def attack(method, message):
        call = world.connect(path := f"/{kit.ADS}/{method}")
        while not over.is_set():
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.call.write(message)
                await call.call.done_writing()
            await call.end()
            call.call = call.channel.stream_stream(path)()

    tasks = [asyncio.create_task(tick())]
    tasks += [asyncio.create_task(attack(*CRAFTED[what][:2])) for what in list(CRAFTED)[::2]]
    until = time.perf_counter() + 4
    revision = 1
    while time.perf_counter() < until or world.xds.counts.streams <= 20:
        revision += 1
        began = time.perf_counter()
        world.xds.publish(
            "edge", kit.snapshot(revision, CLUSTER, kit.resource("a", b"%d" % revision, revision))
        )
        await good.ask(CLUSTER, response_nonce=response.nonce)
        response = await good.hear()
        rounds.append(time.perf_counter() - began)
    over.set()
    await asyncio.gather(*tasks)

    rounds.sort()
    say(
        f"{world.xds.counts.streams} hostile streams; {len(rounds)} pushes with ACK: "
        f"p50 {rounds[len(rounds) // 2] * 1000:.1f} ms, longest {rounds[-1] * 1000:.1f} ms; "
        f"the loop stood still for {max(gaps) * 1000:.1f} ms at most"
    )
    assert response.resources[0].value == b"%d" % revision
    assert [view.node.id for view in world.xds.views() if view.node and view.node.id == "good"] == ["good"]


async def test_peer_has_its_share_of_streams_and_gets_it_back(serve, kit):
    world = await serve(limits=Limits(streams_per_peer=2))
    first, second = world.connect(node="proxy-1"), world.connect(node="proxy-2")
    for call in (first, second):
        await call.ask(CLUSTER)
    await kit.until(lambda: len(world.xds.views()) == 2)

    third = world.connect(node="proxy-3")
    await third.ask(CLUSTER)

    assert await third.end() == (grpc.StatusCode.RESOURCE_EXHAUSTED, "you have 2 streams already")
    first.call.cancel()
    await kit.until(lambda: len(world.xds.views()) == 1)
    again = world.connect(node="proxy-4")
    await again.ask(CLUSTER)
    await kit.until(lambda: len(world.xds.views()) == 2)


async def test_streams_that_say_nothing_take_no_place_of_those_that_speak(serve, kit):
    world = await serve(limits=Limits(streams_per_peer=2, silent_per_peer=3))
    silent = [await opened(kit, world) for _ in range(3)]

    speaking = [world.connect(node=f"proxy-{n}") for n in range(2)]
    for call in speaking:
        await call.ask(CLUSTER)

    await kit.until(lambda: sum(view.node is not None for view in world.xds.views()) == 2)
    assert not any(call.call.done() for call in (*speaking, *silent[-1:]))


async def test_of_streams_that_say_nothing_the_oldest_goes_and_who_speaks_stays(serve, kit):
    world = await serve(limits=Limits(silent_per_peer=2))
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    spoke, oldest = [await opened(kit, world) for _ in range(2)]
    await spoke.ask(CLUSTER)
    await spoke.hear()

    others = [await opened(kit, world) for _ in range(2)]

    code, words = await oldest.end()
    assert (code, words) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "you have 2 streams that have said nothing, this one for longest",
    )
    await kit.until(lambda: len(world.xds.views()) == 3)
    world.xds.publish("edge", kit.snapshot(2, CLUSTER, kit.resource("a", b"2", 2)))
    assert not any(call.call.done() for call in (spoke, *others))


async def opened(kit, world):
    """Return a stream that is open, and has said nothing."""
    there = world.xds.counts.streams
    call = world.connect()
    await kit.until(lambda: world.xds.counts.streams > there)
    return call


async def test_type_that_nobody_serves_ends_no_stream_and_is_counted(serve, kit):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    call = world.connect()

    for type_url in ("type.googleapis.com/no.such.Thing", "type.googleapis.com/other", CLUSTER):
        await call.ask(type_url)

    assert (await call.hear()).type_url == CLUSTER
    assert world.xds.counts.unserved == 2


async def test_broken_type_url_on_a_service_of_one_type_is_refused(serve):
    world = await serve()
    call = world.connect("/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes")

    await call.ask(CLUSTER)

    code, text = await call.end()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert ROUTE in text


@pytest.mark.parametrize("kind", [DiscoveryRequest, DeltaDiscoveryRequest])
async def test_long_words_of_a_refusal_are_kept_in_part(serve, kit, kind):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    call = world.connect(f"/{kit.ADS}/{SOTW if kind is DiscoveryRequest else DELTA}")
    await call.ask(CLUSTER)
    response = await call.hear()

    await call.ask(CLUSTER, response_nonce=response.nonce, error_detail={"message": b"x" * (2 << 20)})

    await kit.until(lambda: world.xds.counts.nacks)
    assert len(world.xds.views()[0].of(CLUSTER).error.message) == 4096


@pytest.mark.parametrize(
    "method", [b"/unknown.Service/Method", b"/\xff\xfe", b"/" + b"x" * 4000, b"no-slash"]
)
async def test_method_that_nobody_serves_is_refused_and_the_others_go_on(serve, kit, method):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a", b"1")))
    before = world.connect()
    await before.ask(CLUSTER)
    await before.ask(CLUSTER, response_nonce=(await before.hear()).nonce)

    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await before.channel.unary_unary(method)(b"", timeout=PATIENCE)
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED

    world.xds.publish("edge", kit.snapshot(2, CLUSTER, kit.resource("a", b"2", 2)))
    after = world.connect(node="proxy-2")
    await after.ask(CLUSTER)
    assert {(await call.hear()).resources[0].value for call in (before, after)} == {b"2"}
