"""Streams over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
import structlog
from grpc._cython import cygrpc

from bench import http2
from bench.wire import PATHS, first_requests, node
from controlplane._pb.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from controlplane._pb.node_pb2 import Node
from controlplane.server import processor
from controlplane.server.admission import Admission
from controlplane.server.ads import SERVICES
from controlplane.server.limits import Limits
from controlplane.server.options import SERVER_OPTIONS, BindError, bind
from controlplane.server.streams import XdsServer
from controlplane.server.transport import GrpcTransport
from controlplane.xds.snapshot import Snapshot
from controlplane.xds.sotw import SotwStream
from controlplane.xds.type_urls import CLUSTER, PUSH_ORDER, ROUTE
from controlplane.xds.view import Peer
from tests.waiting import PATIENCE


async def test_state_of_the_world_stream_is_served_acked_and_updated(serve, kit):
    world = await serve(identifier="replica-1")
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    call = world.connect()

    await call.ask(CLUSTER)
    first = await call.hear()
    await call.ask(CLUSTER, response_nonce=first.nonce, version_info=first.version_info)
    await kit.until(lambda: world.xds.views()[0].of(CLUSTER).acked)
    world.xds.publish("edge", kit.snapshot(2, CLUSTER, kit.resource("a", b"2", 2)))
    assert world.xds.views()[0].revision == 2  # at once, though its turn to send comes later
    second = await call.hear()

    assert [r.value for r in first.resources] == [b"1"]
    assert first.control_plane.identifier == "replica-1"
    assert [(r.type_url, r.value) for r in second.resources] == [(CLUSTER, b"2")]
    assert second.nonce != first.nonce
    view = world.xds.views()[0]
    assert (view.node.id, view.group, view.revision) == ("proxy-1", "edge", 2)
    assert view.peer.address.startswith("127.0.0.1:")


async def test_all_streams_can_be_looked_at_in_steps_and_are_then_known(serve, kit):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    calls = [world.connect() for _ in range(3)]
    for call in calls:
        await call.ask(CLUSTER)
        await call.hear()

    streams = [session.stream for session in world.xds._sessions]
    known = [sum(stream._view is not None for stream in streams) for _ in world.xds.looking()]

    assert known == [1, 2, 3]
    assert all(view is stream._view for view, stream in zip(world.xds.views(), streams, strict=True))


async def test_delta_stream_is_served_and_a_refusal_is_seen(serve, kit):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    call = world.connect(f"/{kit.ADS}/DeltaAggregatedResources")

    await call.ask(CLUSTER)
    first = await call.hear()
    await call.ask(CLUSTER, response_nonce=first.nonce, error_detail={"code": 3, "message": b"no \xff"})
    await kit.until(lambda: world.xds.views()[0].of(CLUSTER).nacks)

    nack = world.xds.views()[0].of(CLUSTER).nacks["a"]
    assert [r.name for r in first.resources] == ["a"]
    assert nack.message == "no \ufffd"
    assert nack.version == kit.resource("a").version


@pytest.mark.parametrize("variant", ["Stream", "Delta"])
async def test_service_of_one_type_implies_it(serve, kit, variant):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, ROUTE, kit.resource("r")))
    call = world.connect(f"/envoy.service.route.v3.RouteDiscoveryService/{variant}Routes")

    await call.ask(**{"resource_names_subscribe" if variant == "Delta" else "resource_names": ["r"]})

    assert (await call.hear()).type_url == ROUTE


async def test_nothing_is_answered_before_a_snapshot_nor_to_an_unknown_node(serve, kit):
    groups = {}
    world = await serve(group_of=lambda node: groups.get(node.id))
    call = world.connect()
    await call.ask(CLUSTER)
    await kit.until(lambda: world.xds.views() and world.xds.views()[0].node is not None)
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    held = world.xds.views()[0]

    groups["proxy-1"] = "edge"
    world.xds.regroup()

    assert (held.group, held.revision) == (None, None)
    assert len((await call.hear()).resources) == 1


async def test_broken_client_ends_its_own_stream_only(serve, kit):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    good, bad, nameless = world.connect(), world.connect(), world.connect(node="")
    forger = world.connect(node="p\x1b[2J\nedge-1 edge synced")
    await good.ask(CLUSTER)
    await bad.call.write(b"\xff\xff\xff")
    await nameless.ask(CLUSTER)
    await forger.ask(CLUSTER)

    assert (await bad.end())[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert await nameless.end() == (grpc.StatusCode.INVALID_ARGUMENT, "node.id: is empty")
    assert await forger.end() == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "node: id or cluster has characters that cannot be printed",
    )
    assert (await good.hear()).resources
    await kit.until(lambda: len(world.xds.views()) == 1)


async def test_peer_that_may_not_have_the_node_is_refused(serve, kit):
    world = await serve(refusal=lambda node, peer: f"{node.id!r} is not yours")
    call = world.connect()

    await call.ask(CLUSTER)

    assert await call.end() == (grpc.StatusCode.PERMISSION_DENIED, "'proxy-1' is not yours")


async def test_replica_that_stays_behind_closes_the_stream(serve, kit):
    world = await serve(limits=Limits(behind_timeout=0.1))
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    call = world.connect()

    await call.ask(CLUSTER, version_info="9.abcdef")

    status, text = await call.end()
    assert status is grpc.StatusCode.UNAVAILABLE
    assert "behind" in text


async def test_client_by_name_that_asks_for_nothing_else_is_answered_in_the_end(serve, kit):
    """It may come back with routes over what has gone; they would be in a request that comes soon."""
    world = await serve(limits=Limits(silence=0.1))
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    call = world.connect()

    await call.ask(CLUSTER, resource_names=["a", "gone"], version_info="1.abcdef")

    assert [r.value for r in (await call.hear()).resources] == [b"1"]


async def test_client_by_name_is_told_that_a_cluster_has_gone_though_something_else_was_sent_last(serve, kit):
    """Nothing needs it, but the client names it: the time for that begins with what is sent meanwhile."""
    world = await serve(limits=Limits(silence=0.1))
    call = world.connect()

    def publish(revision, *clusters):
        route = replace(kit.resource("r", b"%d" % revision), needs=frozenset({(CLUSTER, "b")}))
        tables = {CLUSTER: {name: kit.resource(name) for name in clusters}, ROUTE: {"r": route}}
        world.xds.publish("edge", Snapshot(revision, tables, PUSH_ORDER))

    publish(1, "a", "b")
    for type_url, names in ((CLUSTER, ["a", "b"]), (ROUTE, ["r"])):
        await call.ask(type_url, resource_names=names)
        nonce = (await call.hear()).nonce
        await call.ask(type_url, resource_names=names, response_nonce=nonce)
    await kit.until(lambda: world.xds.views()[0].of(ROUTE).acked)

    publish(2, "b")

    assert [r.value for r in (await call.hear()).resources] == [b"2"]
    assert [r.type_url for r in (await call.hear()).resources] == [CLUSTER]


async def test_replica_that_catches_up_serves(serve, kit):
    world = await serve(limits=Limits(behind_timeout=30))
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    call = world.connect()
    await call.ask(CLUSTER, version_info="9.abcdef")
    await kit.until(lambda: world.xds.views() and world.xds.views()[0].behind)

    world.xds.publish("edge", kit.snapshot(9, CLUSTER, kit.resource("a", b"9", 9)))

    assert [r.value for r in (await call.hear()).resources] == [b"9"]


class Slow:
    """A transport to a client that takes a message in when it is told to."""

    def __init__(self, request):
        self.peer, self.end = Peer("10.0.0.1:1"), object()
        self._requests = [request]
        self.sent, self.taken, self.ended = [], None, None

    async def read(self):
        return self._requests.pop() if self._requests else await asyncio.Event().wait()

    def write(self, data, done):
        self.sent.append(DiscoveryResponse.FromString(data))
        self.taken = done

    def finish(self, status, text):
        self.ended = status


def ahead(kit, timeout):
    """Return a replica, and a client that is ahead of it."""
    xds = XdsServer(lambda node: node.cluster, limits=Limits(behind_timeout=timeout))
    xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    node = Node(id="proxy-1", cluster="edge").SerializeToString()
    request = DiscoveryRequest(node=node, type_url=CLUSTER, version_info="9.abcdef")
    return xds, Slow(request.SerializeToString())


async def held(xds):
    """Return as soon as a client is waited for, however short that may be."""
    while not (xds.views() and xds.views()[0].behind):  # noqa: ASYNC110 - turn by turn
        await asyncio.sleep(0)


async def test_replica_that_catches_up_in_the_turn_of_the_loop_in_which_it_would_give_up_serves(kit):
    xds, client = ahead(kit, 0.05)
    serving = asyncio.create_task(xds.serve(client, "sotw"))
    await held(xds)

    time.sleep(0.1)  # noqa: ASYNC251 - a loop that did not run finds both at once
    await asyncio.sleep(0)
    xds.publish("edge", kit.snapshot(9, CLUSTER, kit.resource("a", b"9", 9)))
    await kit.until(lambda: client.sent or client.ended)

    assert (client.ended, [r.value for r in client.sent[0].resources]) == (None, [b"9"])
    serving.cancel()


async def test_replica_that_caught_up_does_not_close_a_client_that_is_slow_to_take_it_in(kit):
    xds, slow = ahead(kit, 0.05)
    serving = asyncio.create_task(xds.serve(slow, "sotw"))
    await held(xds)

    xds.publish("edge", kit.snapshot(9, CLUSTER, kit.resource("a", b"9", 9)))
    await kit.until(lambda: slow.sent)
    late = asyncio.get_running_loop().time() + 0.1  # twice as long as it was waited for us
    await kit.until(lambda: asyncio.get_running_loop().time() > late)
    slow.taken(None)
    await asyncio.sleep(0)

    assert [r.value for r in slow.sent[0].resources] == [b"9"]
    assert (slow.ended, serving.done()) == (None, False)
    serving.cancel()


async def test_older_snapshot_is_ignored(serve, kit):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(2, CLUSTER, kit.resource("a", b"2", 2)))

    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a", b"1", 1)))

    assert world.xds.snapshot("edge").revision == 2


@pytest.fixture
async def unread(serve, kit, request):
    """Return a server, and a client that does not read what is being written to it.

    Parametrize the seconds that it may take indirectly, where it must not be let go.
    """
    most = getattr(request, "param", 0.3)
    world = await serve(limits=Limits(write_timeout=most, streams_per_peer=2))
    big = [kit.resource(f"r{n}", bytes([n]) * (4 << 20)) for n in range(8)]
    world.xds.publish("edge", kit.snapshot(1, ROUTE, *big))
    stuck = world.connect(**{"grpc.max_receive_message_length": -1})
    await stuck.ask(ROUTE, resource_names=[r.name for r in big])
    await kit.until(lambda: world.xds.views() and world.xds.views()[0].of(ROUTE) is not None)
    return world, stuck


async def test_stuck_client_is_let_go_and_delays_nobody(unread, kit):
    world, _stuck = unread

    await kit.until(lambda: not world.xds.views())

    fine = world.connect()
    await fine.ask(ROUTE, resource_names=["r0"])
    await kit.until(lambda: len(world.xds.views()) == 1)


async def test_stuck_client_hears_that_its_stream_is_over_when_it_reads_again(unread, kit):
    world, stuck = unread
    await kit.until(lambda: not world.xds.views())

    assert (await stuck.hear()).resources

    assert await stuck.end() == (grpc.StatusCode.UNAVAILABLE, "a write took more than 0.3 s")


async def test_nobody_counts_as_stuck_while_the_server_waits_for_a_cpu(unread, kit, monkeypatch, tmp_path):
    world, _stuck = unread
    monkeypatch.setattr(processor, "SCHEDSTAT", tmp_path / "schedstat")

    for waited in range(20):  # as the kernel would write it of a thread that always waits
        (tmp_path / "schedstat").write_text(f"0 {waited * 500_000_000} 0\n")
        await asyncio.sleep(0.05)
        assert len(world.xds.views()) == 1

    await kit.until(lambda: not world.xds.views())


@pytest.mark.parametrize("unread", [PATIENCE], indirect=True)
async def test_stream_that_a_bug_ends_in_the_middle_of_a_write_is_ended_for_its_client_too(
    unread, kit, monkeypatch
):
    def bug(*_):
        raise RuntimeError("a bug")

    world, client = unread
    monkeypatch.setattr(SotwStream, "receive", bug)
    await client.ask(CLUSTER)
    await kit.until(lambda: not world.xds.views())

    assert (await client.hear()).resources

    assert (await client.end())[0] is grpc.StatusCode.INTERNAL


class Leaves:
    """What grpc.aio hands to a handler whose client leaves in the moment of a write."""

    def __init__(self, request):
        self._requests = [request]
        self.status = None

    def peer(self):
        return "ipv4:10.0.0.1:1"

    def auth_context(self):
        return {}

    async def read(self):
        return self._requests.pop() if self._requests else await asyncio.Event().wait()

    async def write(self, _data):
        begun = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(begun.set_result, None)
        await begun
        raise cygrpc.ExecuteBatchError('Failed "execute_batch": (<SendMessageOperation>,)')

    def set_code(self, code):
        self.status = code

    def set_details(self, text):
        pass


async def test_client_that_leaves_in_the_moment_of_a_write_is_no_error(kit):
    xds = XdsServer(lambda node: node.cluster)
    xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    node = Node(id="proxy-1", cluster="edge").SerializeToString()
    context = Leaves(DiscoveryRequest(node=node, type_url=CLUSTER).SerializeToString())

    with structlog.testing.capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(PATIENCE):
            await xds.serve(GrpcTransport(context), "sotw")

    assert [line for line in lines if line["log_level"] in ("warning", "error")] == []
    assert (context.status, dict(xds.counts.closed), xds.views()) == (None, {}, ())


async def test_stuck_client_keeps_its_place_until_it_has_gone(unread, kit):
    world, stuck = unread
    other = world.connect(node="other")
    await other.ask(CLUSTER)
    await kit.until(lambda: [str(view) for view in world.xds.views()] == ["other"])
    third = world.connect()
    await third.ask(CLUSTER)
    assert (await third.end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED

    await stuck.channel.close()

    async with asyncio.timeout(PATIENCE):
        while (
            len([view for view in world.xds.views() if view.node]) == 1
        ):  # refused, until the server knows that the connection is gone
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await world.connect(node="new").ask(CLUSTER)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("unread", [2.0], indirect=True)
async def test_write_that_took_long_because_the_server_did_not_run_is_no_fault_of_the_client(unread, kit):
    world, slow = unread

    time.sleep(2.5)  # noqa: ASYNC251 - nothing shall run meanwhile: the client could not read either

    assert len((await slow.hear()).resources) == 8
    assert len(world.xds.views()) == 1
    assert not world.xds.counts.closed


async def test_half_closed_stream_ends(serve, kit):
    world = await serve()
    call = world.connect()
    await call.ask(CLUSTER)
    await call.call.done_writing()

    assert (await call.end())[0] is grpc.StatusCode.OK
    await kit.until(lambda: not world.xds.views())


async def test_drain_ends_every_stream(serve, kit):
    world = await serve()
    calls = [world.connect(node=f"proxy-{n}") for n in range(3)]
    for call in calls:
        await call.ask(CLUSTER)
    await kit.until(lambda: len(world.xds.views()) == 3)

    await world.xds.drain(0.05)

    assert {(await call.end())[0] for call in calls} == {grpc.StatusCode.UNAVAILABLE}


async def test_busy_port_is_one_clear_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = grpc.aio.server(options=SERVER_OPTIONS)

        with pytest.raises(BindError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            bind(server, "127.0.0.1", port)
        await server.stop(0)


def test_every_option_is_one_that_grpc_knows():
    library = Path(cygrpc.__file__).read_bytes()

    assert [name for name, _ in SERVER_OPTIONS if name.encode() not in library] == []


async def test_a_request_has_no_ping_sent(serve, kit):
    """gRPC would probe the bandwidth with each: as many system calls as the response itself takes."""
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    (first,) = first_requests("delta", node(1), ((CLUSTER, ()),))

    writer.write(http2.preface(PATHS["delta"]))
    writer.write(http2.frame(http2.DATA, 0, 1, b"\0" + struct.pack(">I", len(first)) + first))
    frames: list[tuple[int, int]] = []
    async with asyncio.timeout(PATIENCE):
        while (http2.DATA, 0) not in frames:
            _, length, kind, flags, _ = struct.unpack(">BHBBI", await reader.readexactly(9))
            await reader.readexactly(length)
            frames.append((kind, flags))
    writer.close()

    assert http2.PING not in dict(frames)


def test_admission_spreads_a_storm_over_time():
    now = 100.0
    admission = Admission(1000, lambda: now)

    def free():
        return sum(admission.turn() for _ in range(2000))

    assert free() == pytest.approx(100, abs=1)  # a tenth of a second's worth
    assert free() == 0
    now += 0.05
    assert free() == pytest.approx(50, abs=1)
    now += 60
    assert free() == pytest.approx(100, abs=1)  # turns are not saved up


async def test_whoever_leaves_while_it_waits_takes_no_turn(kit):
    now = 100.0
    admission = Admission(100, lambda: now)
    while admission.turn():
        pass
    leaving = [asyncio.create_task(admission.admit(Peer("10.0.0.1:1"))) for _ in range(5000)]
    staying = asyncio.create_task(admission.admit(Peer("10.0.0.1:2")))
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    now += 0.02

    await asyncio.wait_for(staying, PATIENCE)


async def test_peers_are_let_in_by_turns(kit):
    now = 100.0
    admission = Admission(100, lambda: now)
    while admission.turn():
        pass
    order = []

    async def wait(host, number):
        await admission.admit(Peer(f"{host}:{number}"))
        order.append(host)

    tasks = [asyncio.create_task(wait("10.0.0.1", n)) for n in range(4)]
    tasks += [asyncio.create_task(wait("10.0.0.2", n)) for n in range(2)]
    await asyncio.sleep(0)
    now += 1
    await asyncio.gather(*tasks)

    assert order == ["10.0.0.1", "10.0.0.2"] * 2 + ["10.0.0.1"] * 2


async def test_storm_of_streams_is_admitted_at_the_rate(serve, kit):
    world = await serve(limits=Limits(first_requests=20))
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    calls = [world.connect(node=f"proxy-{n}") for n in range(12)]
    started = asyncio.get_running_loop().time()

    for call in calls:
        await call.ask(CLUSTER)
    for call in calls:
        await call.hear()

    assert asyncio.get_running_loop().time() - started > 0.3


@pytest.mark.parametrize("variant", ["Stream", "Delta"])
async def test_all_services_at_once_on_one_connection(serve, kit, variant):
    world = await serve()
    all_types = {url: {"a": kit.resource("a")} for _, _, url in SERVICES if url}
    world.xds.publish("edge", Snapshot(1, all_types, PUSH_ORDER))
    first = world.connect(f"/{kit.ADS}/{variant}AggregatedResources")
    calls = [
        (kit.Call(first.channel, f"/{service}/{method}{noun}"), url)
        for service, noun, url in SERVICES
        for method in (("Stream", "Delta") if url else (variant,))
    ]

    names = {True: "resource_names_subscribe", False: "resource_names"}
    for call, url in calls:
        await call.ask(url or CLUSTER, **{names[call.delta]: ["a"]})

    assert {url or CLUSTER for _, url in calls} == set(all_types)
    for call, url in calls:
        response = await call.hear()
        assert (response.type_url, len(response.resources)) == (url or CLUSTER, 1)
    assert len({view.peer.address for view in world.xds.views()}) == 1


async def test_refusal_of_one_client_is_its_own(serve, kit):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    refusing, content = world.connect(node="refusing"), world.connect(node="content")
    for call, answer in ((refusing, {"error_detail": {"message": b"no"}}), (content, {})):
        await call.ask(CLUSTER)
        await call.ask(CLUSTER, response_nonce=(await call.hear()).nonce, **answer)
    await kit.until(lambda: world.xds.counts.nacks == 1)

    world.xds.publish("edge", kit.snapshot(2, CLUSTER, kit.resource("a", b"2", 2)))

    assert [(await call.hear()).resources[0].value for call in (refusing, content)] == [b"2", b"2"]
    views = {view.node.id: view.of(CLUSTER) for view in world.xds.views()}
    assert views["content"].error is None
    assert views["refusing"].error.message == "no"


async def test_nothing_is_kept_of_groups_whose_nodes_have_left(serve, kit):
    world = await serve(group_of=lambda node: node.id)
    calls = []
    for number in range(20):
        group = f"proxy-{number}"
        world.xds.publish(group, kit.snapshot(1, CLUSTER, kit.resource("a")))
        calls.append(world.connect(node=group))
        await calls[-1].ask(CLUSTER)
        await calls[-1].hear()

    for number, call in enumerate(calls):
        world.xds.withdraw(f"proxy-{number}")
        call.call.cancel()

    await kit.until(lambda: not world.xds.views())
    assert (world.xds._members, world.xds._snapshots) == ({}, {})


async def test_whoever_is_there_when_its_group_is_withdrawn_keeps_what_it_has(serve, kit):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    call = world.connect()
    await call.ask(CLUSTER)
    response = await call.hear()

    world.xds.withdraw("edge")
    await call.ask(CLUSTER, response_nonce=response.nonce)
    later = world.connect(node="later")
    await later.ask(CLUSTER)

    def acked():
        return [bool(view.of(CLUSTER).acked) for view in world.xds.views() if view.node is not None]

    await kit.until(lambda: acked() == [True, False])
    world.xds.publish("edge", kit.snapshot(2, CLUSTER, kit.resource("a", b"2", 2)))
    assert [len((await c.hear()).resources) for c in (call, later)] == [1, 1]
