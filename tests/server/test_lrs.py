"""The load reporting service over a real connection."""

from __future__ import annotations

import asyncio
import struct
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from grpc._cython import cygrpc

from bench import http2
from controlplane._pb.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from controlplane.server.accepting import make
from controlplane.server.lrs import SERVICE, LoadReporting
from tests.waiting import PATIENCE, until


class Taken:
    """What the streams said; a message ``bad`` cannot be used."""

    def __init__(self):
        self.peers, self.messages, self.closed = [], [], 0

    def opened(self, peer):
        self.peers.append(peer)
        return self

    def receive(self, data):
        if data == b"bad":
            raise ValueError("not a report")
        self.messages.append(data)

    def close(self):
        self.closed += 1


@pytest.fixture
async def served():
    taken = Taken()
    reporting = LoadReporting(timedelta(milliseconds=1500), taken.opened, streams_per_peer=3)
    server = make(reporting.services())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield taken, reporting, channel.stream_stream(f"/{SERVICE}/StreamLoadStats")
    await server.stop(None)


async def test_a_client_is_asked_once_for_all_clusters_at_the_interval(served):
    taken, reporting, stream_load_stats = served
    first = LoadStatsRequest(node=LoadStatsRequest.Sender(id="a")).SerializeToString()

    call = stream_load_stats()
    await call.write(first)
    answer = LoadStatsResponse.FromString(await call.read())
    await call.write(b"")
    await until(lambda: len(taken.messages) == 2)
    open_streams = reporting.streams
    await call.done_writing()
    end = await call.read()

    assert answer.send_all_clusters
    assert answer.load_reporting_interval.ToTimedelta() == timedelta(milliseconds=1500)
    assert (taken.messages, taken.closed, open_streams) == ([first, b""], 1, 1)
    assert end is grpc.aio.EOF
    assert reporting.streams == 0
    assert taken.peers[0].address.startswith("127.0.0.1:")


async def test_a_stream_that_sends_what_cannot_be_used_is_ended_with_the_reason(served):
    taken, reporting, stream_load_stats = served

    call = stream_load_stats()
    await call.write(b"bad")
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()

    assert (await call.code(), await call.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "not a report")
    await until(lambda: taken.closed == 1)
    assert (reporting.refused, reporting.streams) == (1, 0)


async def test_a_client_that_breaks_off_is_let_go(served):
    taken, reporting, stream_load_stats = served

    call = stream_load_stats()
    await call.write(b"")
    await call.read()
    call.cancel()
    await until(lambda: taken.closed == 1)

    assert reporting.streams == 0


class Leaves:
    """What grpc.aio hands to a handler whose client leaves while it is answered."""

    def peer(self):
        return "ipv4:10.0.0.1:1"

    def auth_context(self):
        return {}

    async def read(self):
        return b""

    async def write(self, _data):
        raise cygrpc.ExecuteBatchError('Failed "execute_batch": (<SendMessageOperation>,)')


async def test_a_client_that_leaves_while_it_is_answered_is_no_error():
    taken = Taken()
    reporting = LoadReporting(timedelta(seconds=1), taken.opened)
    handler = reporting.services()[SERVICE]["StreamLoadStats"].stream_stream

    with pytest.raises(asyncio.CancelledError):  # as of any call that is over, which grpc.aio takes quietly
        await handler(None, Leaves())

    assert (taken.closed, reporting.streams, reporting.refused) == (1, 0, 0)


async def test_a_peer_has_its_share_of_streams_and_gets_it_back(served):
    _, reporting, stream_load_stats = served
    calls = [stream_load_stats() for _ in range(3)]
    for call in calls:
        await call.write(b"x")
        await call.read()

    more = stream_load_stats()

    assert await more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await more.details() == "you have 3 streams already"
    assert (reporting.streams, reporting.refused) == (3, 1)
    calls[0].cancel()
    await until(lambda: reporting.streams == 2)
    again = stream_load_stats()
    await again.write(b"x")
    await again.read()
    assert reporting.streams == 3


async def test_streams_end_at_a_stop(served):
    taken, reporting, stream_load_stats = served
    calls = [stream_load_stats() for _ in range(3)]
    for call in calls:
        await call.write(b"x")
        await call.read()

    reporting.stop()

    async with asyncio.timeout(PATIENCE):
        assert {await call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}
    await until(lambda: reporting.streams == 0)
    assert taken.closed == 3


async def test_a_client_that_does_not_take_the_answer_is_let_go_and_told():
    """Its window is closed: what is written to it stays here until it opens that."""
    taken = Taken()
    reporting = LoadReporting(timedelta(seconds=1), taken.opened, streams_per_peer=1, write_timeout=0.2)
    server = make(reporting.services())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    opening = http2.preface(f"/{SERVICE}/StreamLoadStats")
    window = struct.pack(">HI", 4, http2.STREAM_WINDOW)
    assert window in opening
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    writer.write(opening.replace(window, struct.pack(">HI", 4, 0)))
    writer.write(http2.frame(http2.DATA, 0, 1, b"\0" + struct.pack(">I", 1) + b"x"))
    await until(lambda: taken.closed == 1)
    let_go, place = reporting.streams, reporting._quota.enter(taken.peers[0])
    writer.write(http2.frame(http2.WINDOW_UPDATE, 0, 1, struct.pack(">I", 1 << 20)))
    said = b""
    async with asyncio.timeout(PATIENCE):
        while b"a write took more than 0.2 s" not in said:
            more = await reader.read(1 << 16)
            assert more, "the connection ended, and it was not told why"
            said += more

    assert (let_go, place, taken.messages) == (0, False, [b"x"])
    await until(lambda: reporting._quota.enter(taken.peers[0]))
    writer.close()
    await server.stop(None)
