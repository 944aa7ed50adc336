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
from controlplane.web.connections import AT_ONCE, Listener, Punctual
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

    async def open(self, said=b"", host="127.0.0.1"):
        reader, writer = await asyncio.open_connection(*self.listener.getsockname()[:2], local_addr=(host, 0))
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


async def test_beyond_the_most_the_oldest_goes_and_is_told_and_who_asks_is_answered(port):
    there = [await port.open() for _ in range(MOST)]
    await until(lambda: port.listener.open == MOST)

    more, _ = await port.open(GET + b"\r\n")

    assert (await heard(more, b"ok")).startswith(b"HTTP/1.1 200")
    assert await heard(there[0][0]) == b""
    assert (port.refused, port.listener.open) == (["127.0.0.1"], MOST)
    there[1][1].close()
    await until(lambda: port.listener.open < MOST)
    last, _ = await port.open(GET + b"\r\n")
    assert (await heard(last, b"ok")).startswith(b"HTTP/1.1 200")
    assert len(port.refused) == 1


async def test_who_opens_many_ends_nobody_elses(port):
    reader, writer = await port.open()
    await until(lambda: port.listener.open == 1)

    others = [await port.open(host="127.0.0.2") for _ in range(3 * MOST)]
    await until(lambda: len(port.refused) == len(others) + 1 - MOST)

    assert set(port.refused) == {"127.0.0.2"}
    writer.write(GET + b"\r\n")
    assert (await heard(reader, b"ok")).startswith(b"HTTP/1.1 200")


async def test_more_are_dropped_while_those_that_were_ended_are_not_closed_yet():
    listener = Listener(socket.AF_INET, MOST)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    clients = [socket.create_connection(listener.getsockname()) for _ in range(2 * MOST + 1)]

    taken = [listener.accept()[0] for _ in range(2 * MOST)]

    with pytest.raises(ConnectionAbortedError):
        listener.accept()
    assert listener.open == MOST
    for each in (*taken, *clients, listener):
        each.close()
    assert listener.open == 0


async def test_those_that_come_at_once_are_taken_in_several_turns_of_the_loop():
    listener = Listener(socket.AF_INET, 1000)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    clients = [socket.create_connection(listener.getsockname()) for _ in range(AT_ONCE + 1)]

    taken = [listener.accept()[0] for _ in range(AT_ONCE)]
    with pytest.raises(BlockingIOError):
        listener.accept()
    await asyncio.sleep(0)
    taken.append(listener.accept()[0])

    for each in (*taken, *clients, listener):
        each.close()
