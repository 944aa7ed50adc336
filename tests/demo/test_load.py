from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from controlplane.demo.client import Answer, Pool
from controlplane.demo.fault import Fault
from controlplane.demo.load import SETTLE, Load, explained
from controlplane.demo.sample import Sample
from controlplane.demo.users import User, population
from tests.waiting import PATIENCE

FIVE = timedelta(seconds=5)
UPSTREAM = b"upstream connect error or disconnect/reset before headers. reset reason: "
REFUSED = Answer(503, b"HTTP/1.1 503 x\r\n\r\n", UPSTREAM + b"remote connection failure")
CUT = Answer(503, b"HTTP/1.1 503 x\r\n\r\n", UPSTREAM + b"connection termination")
OVERFLOW = Answer(503, b"HTTP/1.1 503 x\r\n\r\n", UPSTREAM + b"overflow")
TIMEOUT = Answer(504, b"HTTP/1.1 504 x\r\n\r\n", b"upstream request timeout")
MARKED = Answer(500, b"HTTP/1.1 500 x\r\nx-sample-injected: base\r\n\r\n")
NOWHERE = Answer(404, b"HTTP/1.1 404 x\r\n\r\n")
LOST = Answer(0, b"connection lost")


@pytest.mark.parametrize(
    ("answer", "fault", "expected"),
    [
        (MARKED, "none", True),
        (REFUSED, "none", False),
        (REFUSED, "errors=10%", False),
        (REFUSED, "crash", True),
        (CUT, "crash", True),
        (OVERFLOW, "crash", False),
        (TIMEOUT, "crash", False),
        (TIMEOUT, "latency=x2", False),
        (TIMEOUT, "latency=x200", True),
        (NOWHERE, "crash", False),
        (LOST, "crash", False),
    ],
)
def test_failure_is_explained_only_if_the_fault_makes_it(answer, fault, expected):
    assert explained(answer, Fault.parse(fault), FIVE) is expected


def ok(version: str) -> Answer:
    return Answer(200, f"HTTP/1.1 200 OK\r\nx-sample-version: {version}\r\n\r\n".encode())


def load() -> Load:
    return Load(population(10), (1,), 10)


def seen(load: Load, user: User, version: str, sent: float, received: float | None = None) -> None:
    load._count(user, sent, sent + 0.01 if received is None else received, ok(version))


async def test_user_who_loses_the_canary_is_counted_once():
    moved, user = load(), population(10)[0]

    for at, version in ((0, "v1"), (10, "v2"), (20, "v1"), (30, "v2"), (40, "v1")):
        seen(moved, user, version, at)

    assert moved.moved_back() == 1
    assert moved.counts().users_on_canary == 1


async def test_user_who_loses_the_canary_after_the_rollback_is_not_counted():
    moved, user = load(), population(10)[0]

    seen(moved, user, "v2", 10)
    seen(moved, user, "v1", 20)

    assert moved.moved_back(before=20) == 0
    assert moved.moved_back(before=21) == 1


async def test_answers_that_overtake_each_other_move_nobody():
    moved, user = load(), population(10)[0]

    seen(moved, user, "v2", sent=10, received=10.01)
    seen(moved, user, "v1", sent=9.99, received=12)
    seen(moved, user, "v1", sent=10 + SETTLE / 2)

    assert moved.moved_back() == 0


async def test_requests_without_identity_move_nobody():
    moved, nobody = load(), User("", beta=False, activity=0, requests=())

    seen(moved, nobody, "v2", 10)
    seen(moved, nobody, "v1", 20)

    assert moved.moved_back() == 0
    assert moved.counts().users == 0


async def test_refused_canary_counts_as_a_request_to_it():
    crashed, user = load(), population(10)[0]
    crashed.fault = Fault.parse("crash")

    crashed._count(user, 1.0, 1.1, REFUSED)
    crashed._count(user, 2.0, 2.1, OVERFLOW)
    counts = crashed.counts()

    assert (counts.canary, counts.failed, counts.unexplained) == (1, 2, 1)
    assert crashed.first_canary_at == 1.0
    assert "overflow" in counts.examples[0]


async def test_load_and_service_agree_over_loopback():
    v1, v2 = Sample("v1"), Sample("v2")
    await asyncio.gather(v1.start(), v2.start())
    v2.inject(Fault.parse("errors=20%"))

    steady = Load(population(200), (v1.port, v2.port), 200)
    steady._most = 10_000  # of a machine that stands still for a while, none is skipped
    await steady.start()
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(2)
    took = asyncio.get_running_loop().time() - began
    await steady.stop(PATIENCE)
    counts = steady.counts()
    v1.stop()
    v2.stop()

    by_version = {each.version: each for each in counts.versions}
    assert 150 * took < counts.requests < 250 * took
    assert (by_version["v1"].requests, by_version["v2"].requests) == (v1.requests, v2.requests)
    assert counts.failed == v1.injected + v2.injected > 10
    assert counts.unexplained == counts.skipped == counts.in_flight == 0
    assert counts.canary == v2.requests
    assert by_version["v1"].p50 >= 8  # what the sample service takes at least


async def test_load_keeps_its_rate_when_nobody_answers():
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    busy = Load(population(50), (port,), 200)

    await busy.start()
    await asyncio.sleep(0.8)
    counts = busy.counts()
    await busy.stop(within=0.1)
    silent.close()

    assert counts.in_flight > 80
    assert busy.counts().unexplained == busy.counts().requests > 80


async def answered(serve: Callable[[asyncio.StreamWriter], None]) -> Answer:
    """Return what the client makes of a server's bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        serve(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    pool = Pool(server.sockets[0].getsockname()[1])
    got: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    pool.send(b"GET / HTTP/1.1\r\n\r\n", got.set_result)
    answer = await asyncio.wait_for(got, PATIENCE)
    pool.close()
    server.close()
    return answer


async def test_client_reads_length_and_chunks():
    plain = await answered(lambda w: w.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nx-a:  b \r\n\r\nabc"))
    chunked = await answered(
        lambda w: w.write(b"HTTP/1.1 503 x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
    )

    assert (plain.status, plain.body, plain.header("x-a"), plain.header("x-b")) == (200, b"abc", "b", "")
    assert chunked.status == 503


async def test_client_reports_what_is_no_answer():
    cut = await answered(lambda w: w.close())
    junk = await answered(lambda w: w.write(b"SSH-2.0-x\r\n\r\n"))

    assert (cut.status, junk.status) == (0, 0)
    assert b"connection lost" in cut.head
    assert b"SSH" in junk.head


async def test_client_opens_a_new_connection_after_one_is_closed(until):
    sample = Sample("v1")
    await sample.start()
    pool = Pool(sample.port)
    await pool.fill(2)
    await until(lambda: len(sample.connections) == 2)
    for connection in tuple(sample.connections):
        connection.abort()
    await until(lambda: not pool.open)
    got: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    pool.send(b"GET / HTTP/1.1\r\n\r\n", got.set_result)

    assert (await asyncio.wait_for(got, PATIENCE)).status in (200, 500)
    pool.close()
    sample.stop()


async def test_request_without_an_answer_expires():
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    pool = Pool(silent.sockets[0].getsockname()[1])
    await pool.fill(1)
    got: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    pool.send(b"GET / HTTP/1.1\r\n\r\n", got.set_result)

    pool.expire(asyncio.get_running_loop().time() + 1)

    assert (await got).head == b"no answer in time"
    silent.close()
