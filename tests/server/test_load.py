"""Many streams, slow ones, bursts: nobody waits for anybody, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from controlplane.server import streams
from controlplane.server.sessions import Session
from controlplane.server.streams import Limits
from controlplane.xds.stream import WINDOW
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE


def worlds(kit, revision, body):
    return kit.snapshot(revision, CLUSTER, kit.resource("a", body, revision))


async def test_burst_coalesces_and_the_client_ends_on_the_last(serve, kit):
    world = await serve()
    world.xds.publish("edge", worlds(kit, 1, b"1"))
    call = world.connect()
    await call.ask(CLUSTER)
    heard = [await call.hear()]

    for revision in range(2, 102):
        world.xds.publish("edge", worlds(kit, revision, b"%d" % revision))
        await asyncio.sleep(0)
    while heard[-1].resources[0].value != b"101":
        await call.ask(CLUSTER, response_nonce=heard[-1].nonce)
        heard.append(await call.hear())

    assert len(heard) <= 3


async def test_change_of_one_type_does_not_wait_for_the_answer_to_another(serve, kit):
    world = await serve()
    both = kit.snapshot(1, CLUSTER, kit.resource("a"))
    world.xds.publish("edge", both)
    call = world.connect()
    await call.ask(CLUSTER)
    await call.hear()  # and never ACK it
    await call.ask(ROUTE, resource_names=["r"])

    for revision in (2, 3):
        changed = kit.snapshot(revision, ROUTE, kit.resource("r", b"%d" % revision, revision))
        world.xds.publish(
            "edge", type(changed)(revision, {**both.resources, **changed.resources}, changed.order)
        )
        response = await call.hear()
        assert (response.type_url, response.resources[0].value) == (ROUTE, b"%d" % revision)
        await call.ask(ROUTE, resource_names=["r"], response_nonce=response.nonce)


async def test_streams_in_service_do_not_wait_for_a_storm(serve, kit):
    world = await serve(limits=Limits(first_requests=1))
    world.xds.publish("edge", worlds(kit, 1, b"1"))
    call = world.connect(node="in service")
    await call.ask(CLUSTER)
    response = await call.hear()
    storm = [world.connect(node=f"proxy-{n}") for n in range(30)]
    for other in storm:
        await other.ask(CLUSTER)
    await kit.until(lambda: len(world.xds.views()) == 31)

    world.xds.publish("edge", worlds(kit, 2, b"2"))
    await call.ask(CLUSTER, response_nonce=response.nonce)
    response = await call.hear()

    assert response.resources[0].value == b"2"
    assert sum(view.node is None for view in world.xds.views()) > 10  # the storm is still outside
    world.xds._admission.rate = 100
    assert [len((await other.hear()).resources) for other in storm] == [1] * 30  # and all get in
    assert not world.xds.counts.closed


async def test_client_that_reads_nothing_is_closed_and_delays_nobody(serve, kit, say):
    world = await serve(limits=Limits(write_timeout=1))
    big = [kit.resource(f"r{n}", bytes([n]) * (4 << 20)) for n in range(8)]
    world.xds.publish("edge", kit.snapshot(1, ROUTE, *big))
    good = world.connect(node="good")
    await good.ask(ROUTE, resource_names=["small"])
    await kit.until(lambda: [str(view) for view in world.xds.views()] == ["good"])
    stuck = world.connect(node="stuck", **{"grpc.max_receive_message_length": -1})
    await stuck.ask(ROUTE, resource_names=[r.name for r in big])
    await kit.until(lambda: [str(view) for view in world.xds.views()] == ["good", "stuck"])

    loop = asyncio.get_running_loop()
    longest, revision = 0.0, 1
    while len(world.xds.views()) == 2:
        revision += 1
        began = loop.time()
        small = kit.resource("small", b"%d" % revision, revision)
        world.xds.publish("edge", kit.snapshot(revision, ROUTE, *big, small))
        response = await good.hear()
        assert response.resources[0].value == b"%d" % revision
        await good.ask(ROUTE, resource_names=["small"], response_nonce=response.nonce)
        longest = max(longest, loop.time() - began)
        await asyncio.sleep(0.01)

    say(f"beside a stuck client: {revision} pushes, the longest took {longest * 1000:.1f} ms")
    assert [view.node.id for view in world.xds.views()] == ["good"]
    assert world.xds.counts.closed == {"UNAVAILABLE": 1}


async def test_memory_returns_after_clients_leave(serve, kit, monkeypatch, say):
    alive = weakref.WeakSet()

    class Counted(Session):
        __slots__ = ("__weakref__",)

        def __init__(self, *arguments):
            super().__init__(*arguments)
            alive.add(self)

    monkeypatch.setattr(streams, "Session", Counted)
    world = await serve()
    world.xds.publish("edge", worlds(kit, 1, b"1"))
    first = world.connect()
    path = f"/{kit.ADS}/StreamAggregatedResources"

    async def visit(number):
        visitor = type(first)(first.channel, path, f"visitor-{number}")
        await visitor.ask(CLUSTER, resource_names=[f"name-{number}-{n}" for n in range(20)] + ["a"])
        await visitor.hear()
        visitor.call.cancel() if number % 2 else await visitor.call.done_writing()

    def objects():
        gc.collect()
        return len(gc.get_objects())

    await asyncio.gather(*(visit(n) for n in range(100)))
    await kit.until(lambda: len(world.xds.views()) <= 1)
    before = objects()
    gc.disable()  # a stream is no cycle: its memory returns however seldom the collector looks
    try:
        for batch in range(20):
            await asyncio.gather(*(visit(n) for n in range(batch * 100, batch * 100 + 100)))
            await kit.until(lambda: len(world.xds.views()) <= 1)
        await kit.until(lambda: len(alive) < 10)
    finally:
        gc.enable()
    # Less than one object for each stream, once the last ones are out.
    await kit.until(lambda: objects() - before < 2000 and len(alive) < 10)

    say(f"2000 streams came and went: {objects() - before:+} objects, {len(alive)} sessions alive")


async def test_endpoints_and_everything_else_of_many_nodes_reach_their_own(serve, kit):
    world = await serve(group_of=lambda node: node.id)
    calls = [world.connect(node=f"n{n % 10}") for n in range(40)]  # four streams of each of ten nodes
    for n in range(10):
        world.xds.publish(f"n{n}", kit.snapshot(1, ENDPOINT, kit.resource("a", b"%d" % n)))
    for call in calls:
        await call.ask(ENDPOINT, resource_names=["a"])
    for call in calls:
        await call.ask(ENDPOINT, resource_names=["a"], response_nonce=(await call.hear()).nonce)

    world.xds.publish("n3", kit.snapshot(2, ENDPOINT, kit.resource("a", b"new", 2)))

    for call in calls[3::10]:
        assert (await call.hear()).resources[0].value == b"new"
    for call in (calls[0], calls[14]):
        with pytest.raises(TimeoutError):
            await call.hear(0.1)


@pytest.mark.parametrize("variant", ["Stream", "Delta"])
async def test_a_rollback_does_not_wait_for_the_answer_to_the_step(serve, kit, variant):
    world = await serve()
    names = {"resource_names_subscribe" if variant == "Delta" else "resource_names": ["r"]}
    again = {} if variant == "Delta" else names
    world.xds.publish("edge", kit.snapshot(1, ROUTE, kit.resource("r", b"old")))
    call = world.connect(f"/{kit.ADS}/{variant}AggregatedResources")
    await call.ask(ROUTE, **names)
    await call.ask(ROUTE, response_nonce=(await call.hear()).nonce, **again)
    await kit.until(lambda: world.xds.views()[0].of(ROUTE).acked)

    def body(response):
        return (response.resources[0].resource if variant == "Delta" else response.resources[0]).value

    world.xds.publish("edge", kit.snapshot(2, ROUTE, kit.resource("r", b"new", 2)))
    step = await call.hear()
    world.xds.publish("edge", kit.snapshot(3, ROUTE, kit.resource("r", b"old", 3)))
    rollback = await call.hear()

    assert (body(step), body(rollback)) == (b"new", b"old")
    error = {"error_detail": {"message": b"too late"}}
    await call.ask(ROUTE, response_nonce=step.nonce, **again, **error)
    await call.ask(ROUTE, response_nonce=rollback.nonce, **again)
    await kit.until(lambda: world.xds.views()[0].of(ROUTE).waiting_since is None)
    view = world.xds.views()[0].of(ROUTE)
    assert view.acked["r"] == kit.resource("r", b"old").version
    assert world.xds.counts.nacks == 1


async def test_a_client_that_answers_nothing_gets_few_responses_and_the_latest_in_the_end(serve, kit):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, ROUTE, kit.resource("r", b"1")))
    call = world.connect(f"/{kit.ADS}/DeltaAggregatedResources")
    await call.ask(ROUTE, resource_names_subscribe=["r"])
    heard = [await call.hear()]
    for revision in range(2, 50):
        resource = kit.resource("r", b"%d" % revision, revision)
        world.xds.publish("edge", kit.snapshot(revision, ROUTE, resource))
        await asyncio.sleep(0.001)
    heard += [await call.hear() for _ in range(WINDOW - 1)]

    await call.ask(ROUTE, response_nonce=heard[0].nonce)
    last = await call.hear()

    assert [int(response.nonce) for response in (*heard, last)] == list(range(1, WINDOW + 2))
    assert last.resources[0].resource.value == b"49"
