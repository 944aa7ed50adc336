"""Whoever reaches the HTTP port: connections that say nothing, and more of them than may be open."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import h11
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from controlplane.web import connections
from controlplane.web.connections import Listener, Punctual
from tests.waiting import PATIENCE, until

GET = b"GET / HTTP/1.1\r\nhost: here\r\n"
SHORT = 0.5
MOST = 5


async def answer(_: Request) -> Response:
    return PlainTextResponse("ok")


async def body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def events(_: Request) -> Response:
    async def lines():
        yield b"first\n"
        await asyncio.sleep(3 * SHORT)
        yield b"last\n"

    return StreamingResponse(lines())


class Port:
    """A server of three paths, and clients that speak bytes."""

    def __init__(self, listener):
        self.listener = listener
        self.refused = []
        listener.refused = self.refused.append

    async def open(self, said=b""):
        reader, writer = await asyncio.open_connection(*self.listener.getsockname()[:2])
        writer.write(said)
        return reader, writer


async def heard(reader, end=b""):
    """Return what comes until the connection is closed, or until ``end``."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionResetError):
            return await (reader.readuntil(end) if end else reader.read())
    return b""


def allow(monkeypatch, seconds):
    monkeypatch.setattr(connections, "WITHIN", dict.fromkeys((h11.IDLE, h11.SEND_BODY), seconds))


@pytest.fixture
async def port():
    listener = Listener(socket.AF_INET, MOST)
    listener.bind(("127.0.0.1", 0))
    routes = [Route("/", answer), Route("/body", body, methods=["POST"]), Route("/events", events)]
    config = uvicorn.Config(Starlette(routes=routes), http=Punctual, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([listener]))
    await until(lambda: server.started)
    yield Port(listener)
    server.should_exit = server.force_exit = True
    await serving


@pytest.mark.parametrize(
    "said",
    [
        b"",
        GET,
        GET + b"\r\n" + GET,
        b"POST /body HTTP/1.1\r\nhost: here\r\ncontent-length: 5\r\n\r\nab",
        b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 5\r\n\r\nab",
    ],
    ids=["nothing", "half a header", "half a second header", "half a body", "half a body that nobody reads"],
)
async def test_who_does_not_end_what_it_began_is_let_go(port, monkeypatch, said):
    allow(monkeypatch, SHORT)
    reader, _ = await port.open(said)

    await heard(reader)

    await until(lambda: port.listener.open == 0)


async def test_a_trickle_buys_no_time(port, monkeypatch):
    allow(monkeypatch, SHORT)
    reader, writer = await port.open(GET)

    async def trickle():
        while True:
            writer.write(b"x")
            await asyncio.sleep(SHORT / 5)

    trickling = asyncio.create_task(trickle())
    await heard(reader)

    await until(lambda: port.listener.open == 0)
    trickling.cancel()


async def test_who_reads_events_may_take_its_time(port, monkeypatch):
    allow(monkeypatch, SHORT)
    reader, _ = await port.open(b"GET /events HTTP/1.1\r\nhost: here\r\n\r\n")

    assert b"first" in await heard(reader, b"last")


async def test_a_connection_is_kept_for_more_requests(port, monkeypatch):
    allow(monkeypatch, 4 * SHORT)
    reader, writer = await port.open()

    for _ in range(4):  # for longer than one may take
        writer.write(GET + b"\r\n")
        assert (await heard(reader, b"ok")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(1.2 * SHORT)


async def test_beyond_the_most_connections_are_dropped_and_told_until_there_is_room(port):
    whole = b"GET /events HTTP/1.1\r\nhost: here\r\n\r\n"
    there = [await port.open(whole) for _ in range(MOST)]
    for reader, _ in there:
        await heard(reader, b"first")

    more, _ = await port.open(GET + b"\r\n")

    assert await heard(more) == b""
    assert (port.refused, port.listener.open) == (["127.0.0.1"], MOST)
    there[0][1].close()
    await until(lambda: port.listener.open < MOST)
    last, _ = await port.open(GET + b"\r\n")
    assert (await heard(last, b"ok")).startswith(b"HTTP/1.1 200")
