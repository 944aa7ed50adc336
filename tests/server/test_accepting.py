"""The gRPC server, and what would end it."""

import asyncio

import grpc
import grpc.aio
import pytest

from controlplane.server.accepting import ended, make
from tests.waiting import PATIENCE

NOT_UTF8 = b"/\xff\xfe"


async def start(server):
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}")


async def test_what_ends_a_server_of_grpc_itself_is_told():
    """As long as this passes, gRPC needs the guard."""
    server = grpc.aio.server()
    watch = asyncio.create_task(ended(server))

    async with await start(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(NOT_UTF8)(b"", timeout=PATIENCE)

    with pytest.raises(UnicodeDecodeError):
        await asyncio.wait_for(watch, PATIENCE)


async def test_calls_that_are_refused_leave_nothing_behind():
    server = make({})
    async with await start(server) as channel:
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(NOT_UTF8)(b"", timeout=PATIENCE)
        await asyncio.wait_for(asyncio.gather(*server._server._answers), PATIENCE)
        await asyncio.sleep(0)
        assert not server._server._answers
    await server.stop(0)


async def test_a_server_that_is_stopped_has_ended():
    server = make({})
    watch = asyncio.create_task(ended(server))
    async with await start(server):
        await asyncio.sleep(0)
        assert not watch.done()

    await server.stop(0)

    await asyncio.wait_for(watch, PATIENCE)


async def test_a_server_that_nobody_watches_any_more_stops_as_before():
    server = make({})
    watch = asyncio.create_task(ended(server))
    async with await start(server):
        await asyncio.sleep(0)
    watch.cancel()
    await asyncio.wait((watch,))

    await asyncio.wait_for(server.stop(0), PATIENCE)

    await asyncio.wait_for(ended(server), PATIENCE)
