from __future__ import annotations

import asyncio
import random
import re

import pytest

from controlplane.demo.fault import Fault
from controlplane.demo.ports import free_ports
from controlplane.demo.sample import Sample, SampleProcess, latencies
from controlplane.demo.users import population
from tests.waiting import PATIENCE

GET = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"
BETA = b"GET / HTTP/1.1\r\nhost: shop\r\ncookie: theme=dark; beta=1; uid=u\r\n\r\n"
WHOLE = re.compile(rb"HTTP/1.1 \d+ .*?\r\n\r\n", re.DOTALL)  # a head, with which the body comes
NEAR_BETA = b"GET / HTTP/1.1\r\nhost: shop\r\ncookie: xbeta=1; beta=10\r\nx-note: beta=1\r\n\r\n"


def failures(sample: Sample, head: bytes, count: int = 4000) -> float:
    return sum(b" 500 " in sample.answer(head)[1][:20] for _ in range(count)) / count


async def exchange(port: int, *pieces: bytes, answers: int = 1) -> bytes:
    """Send the pieces one after the other; return what comes back until so many are there, or the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    answer = b""
    async with asyncio.timeout(PATIENCE):
        while len(WHOLE.findall(answer)) < answers and (more := await reader.read(65_536)):
            answer += more
    writer.close()
    return answer


@pytest.fixture
async def sample():
    sample = Sample("v1")
    await sample.start()
    yield sample
    sample.stop()


def test_latencies_leave_the_limit_a_wide_berth_and_a_factor_of_two_breaks_it():
    drawn = sorted(latencies(random.Random(1), 50_000))

    assert 10 <= drawn[25_000] <= 15
    assert drawn[49_500] < 60
    assert sum(ms > 50 for ms in drawn) / 50_000 < 0.002
    assert sum(2 * ms > 50 for ms in drawn) / 50_000 > 0.15


def test_healthy_version_fails_one_request_in_1000_and_says_so():
    sample = Sample("v2")

    answers = [sample.answer(GET)[1] for _ in range(20_000)]
    failed = [answer for answer in answers if b" 500 " in answer[:20]]

    assert 0.0004 < len(failed) / 20_000 < 0.0018
    assert all(b"x-sample-injected: base\r\n" in answer for answer in failed)
    assert all(b"x-sample-version: v2\r\n" in answer for answer in answers)
    assert not any(b"x-sample-injected" in answer for answer in answers if answer not in failed)
    assert sample.injected == len(failed)


def test_errors_fall_on_the_share_asked_for():
    sample = Sample("v2")
    sample.inject(Fault.parse("errors=10%"))

    assert 0.08 < failures(sample, GET) < 0.12
    assert b"x-sample-injected: errors\r\n" in next(
        a for _, a in iter(lambda: sample.answer(GET), 0) if b" 500 " in a
    )


def test_segment_fault_hits_only_its_segment():
    sample = Sample("v2")
    sample.inject(Fault.parse("errors=50%@segment=beta"))

    assert failures(sample, BETA) > 0.45
    assert failures(sample, GET) < 0.01
    assert failures(sample, NEAR_BETA) < 0.01


def test_segments_are_recognised_in_the_requests_that_users_send():
    sample = Sample("v2")
    sample.inject(Fault.parse("errors=100%@segment=beta"))

    for user in population(200):
        assert all(
            (b" 500 " in sample.answer(request)[1][:20]) == user.beta
            for request in user.requests
            if user.beta
        )


def test_latency_fault_multiplies():
    slow, fast = Sample("v2"), Sample("v2")
    slow.inject(Fault.parse("latency=x2"))

    assert slow.answer(GET)[0] == pytest.approx(2 * fast.answer(GET)[0])


async def test_requests_in_pieces_and_back_to_back_are_answered_in_order(sample):
    post = b"POST / HTTP/1.1\r\nhost: shop\r\nContent-Length: 5\r\n\r\nhello"

    answer = await exchange(sample.port, GET[:10], GET[10:] + post[:50], post[50:] + GET, answers=3)

    assert answer.count(b"HTTP/1.1 ") == 3
    assert sample.requests == 3


async def test_chunked_request_is_refused(sample):
    answer = await exchange(sample.port, b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 411 ")


async def test_endless_head_is_cut_off(sample):
    with pytest.raises(ConnectionError):
        await exchange(sample.port, *[b"a" * 300_000] * 8)

    assert sample.requests == 0


async def test_crash_cuts_connections_and_refuses_new_ones(sample):
    reader, writer = await asyncio.open_connection("127.0.0.1", sample.port)

    sample.inject(Fault.parse("crash"))

    assert await reader.read() == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", sample.port)
    writer.close()


async def test_process_serves_both_versions_and_obeys_faults():
    ports = free_ports(2)
    process = SampleProcess((ports[0], ports[1]))
    await process.start()

    try:
        first = await exchange(ports[0], GET)
        await process.inject(Fault.parse("both=100%"))
        answers = [await exchange(port, GET) for port in ports]
        served = await process.served()
        await process.inject(Fault.parse("crash"))
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", ports[1])
    finally:
        await process.stop()

    assert b"x-sample-version: v1\r\n" in first
    assert all(b" 500 " in answer for answer in answers)
    assert dict(served.requests) == {"v1": 2, "v2": 1}
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", ports[0])


async def test_process_that_cannot_listen_is_an_error(sample):
    with pytest.raises(OSError, match="ended with status"):
        await SampleProcess((sample.port, 0)).start()
