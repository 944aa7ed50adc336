"""A server that stops: what clients see."""

from __future__ import annotations

import asyncio

import grpc
import h2.config
import h2.connection

from controlplane.server.ads import stop
from controlplane.xds.type_urls import CLUSTER
from tests.waiting import PATIENCE

HEADERS, GOAWAY, END_STREAM = 1, 7, 1  # of HTTP/2


async def test_streams_end_one_after_another_and_all_are_told(serve, kit):
    world = await serve()
    calls = [world.connect(node=f"proxy-{n}") for n in range(12)]
    for call in calls:
        await call.ask(CLUSTER)
    await kit.until(lambda: all(v.node for v in world.xds.views()) and len(world.xds.views()) == 12)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def ended(call):
        return *(await call.end()), loop.time() - began

    stopping = asyncio.create_task(stop(world.server, world.xds, 2))
    seen = await asyncio.gather(*(ended(call) for call in calls))
    await stopping

    assert {(code, text) for code, text, _ in seen} == {
        (grpc.StatusCode.UNAVAILABLE, "the server is stopping")
    }
    times = sorted(at for *_, at in seen)
    assert times[-1] - times[0] > 0.1
    assert len({round(at, 2) for at in times}) > 4  # spread, not all at once


async def test_connection_gets_goaway_before_its_stream_ends(serve, kit):
    world = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "cp",
        ":path": f"/{kit.ADS}/DeltaAggregatedResources",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    connection.send_headers(1, list(headers.items()))
    writer.write(connection.data_to_send())
    await kit.until(world.xds.views)
    heard = bytearray()

    async def listen():
        while data := await reader.read(65536):
            heard.extend(data)

    listening = asyncio.create_task(listen())
    await stop(world.server, world.xds, 0.2)
    await asyncio.wait_for(listening, PATIENCE)
    writer.close()

    frames = []
    while heard:
        size, (kind, flags) = int.from_bytes(heard[:3], "big"), heard[3:5]
        frames.append((kind, flags & END_STREAM if kind == HEADERS else 0))
        del heard[: 9 + size]
    assert frames.index((GOAWAY, 0)) < frames.index((HEADERS, END_STREAM))


async def test_nobody_gets_in_while_it_stops(serve, kit):
    world = await serve()
    old = world.connect(node="old")
    await old.ask(CLUSTER)
    await kit.until(world.xds.views)

    stopping = asyncio.create_task(world.xds.drain(0.2))
    await asyncio.sleep(0)
    new = world.connect(node="new")

    assert await new.end() == (grpc.StatusCode.UNAVAILABLE, "the server is stopping")
    await stopping
