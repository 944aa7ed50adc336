"""How gRPC wakes the event loop."""

from __future__ import annotations

import asyncio
import socket
import time

import grpc
import grpc.aio

from controlplane.server.accepting import make
from controlplane.server.waking import together
from tests.waiting import PATIENCE

STREAMS = 20


async def swallow(_requests, context):
    while await context.read() is not grpc.aio.EOF:
        await context.write(b"read")


def waiting(bell):
    """Return how many bytes wait to be read."""
    try:
        return len(socket.socket.recv(bell, 4096, socket.MSG_PEEK))
    except BlockingIOError:
        return 0


async def test_all_that_grpc_has_done_is_taken_in_at_once():
    server = make({"a.B": {"C": grpc.stream_stream_rpc_method_handler(swallow)}})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    readers = asyncio.get_running_loop()._selector.get_map().values()
    (bell,) = [key.fileobj for key in readers if isinstance(key.fileobj, socket.socket)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        calls = [channel.stream_stream("/a.B/C")() for _ in range(STREAMS)]
        for call in calls:
            await call.write(b"1")
            assert await call.read() == b"read"
        writes = [asyncio.create_task(call.write(b"2")) for call in calls]
        await asyncio.sleep(0)  # they begin
        deadline = time.monotonic() + PATIENCE
        while waiting(bell) < 2 * STREAMS:  # each was sent, and was received
            assert time.monotonic() < deadline
            time.sleep(0.01)  # noqa: ASYNC251 - the loop is busy

        await asyncio.sleep(0)
        await asyncio.sleep(0)
        left = waiting(bell)
        await asyncio.gather(*writes)
        for call in calls:
            await call.read()
            call.cancel()
    await server.stop(0)

    assert left < STREAMS  # of the answers; of what was there, gRPC would have left all but two


async def test_another_loop_may_have_been_faster():
    loop = asyncio.get_running_loop()
    ours, other = socket.socketpair()
    ours.setblocking(False)
    taken = []
    with ours, other:
        with together(loop):
            loop.add_reader(ours, lambda: taken.append(ours.recv(1)))
        loop.remove_reader(ours)
        other.send(b"123")

        assert [ours.recv(1), ours.recv(1)] == [b"123", b""]
    assert loop.add_reader.__self__ is loop
