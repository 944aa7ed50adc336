from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from itertools import pairwise

import grpc
import grpc.aio
import pytest

from controlplane.server.accepting import make
from controlplane.server.intake import MAX_BYTES, SERVICE, Intake
from tests.waiting import PATIENCE

METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


class Callback:
    def __init__(self):
        self.taken = []

    def __call__(self, peer, data):
        if data == b"junk":
            raise ValueError("not an export")
        self.taken.append((peer, data))


@pytest.fixture
async def service():
    callback = Callback()
    intake = Intake(callback)
    server = make(intake.services())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield intake, callback, channel.unary_unary(METHOD)
    await server.stop(None)


async def test_an_export_reaches_the_callback_with_its_peer(service):
    intake, callback, call = service

    answer = await call(b"export", timeout=PATIENCE)

    ((peer, data),) = callback.taken
    assert (answer, data) == (b"", b"export")
    assert peer.address.startswith("127.0.0.1:")
    assert (intake.accepted, intake.refused, intake.troubles.current()) == (1, 0, ())


async def test_what_the_callback_cannot_use_is_an_invalid_argument(service):
    intake, callback, call = service

    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call(b"junk", timeout=PATIENCE)

    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.value.details() == "not an export"
    assert (intake.accepted, intake.refused, callback.taken) == (0, 1, [])
    assert intake.troubles.current() == ("statistics of 127.0.0.1: refused: not an export",)


async def test_a_large_export_is_refused_before_it_is_read_and_shown(service):
    intake, callback, call = service

    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call(bytes(MAX_BYTES + 1), timeout=PATIENCE)

    assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (intake.refused, callback.taken) == (1, [])
    (trouble,) = intake.troubles.current()
    assert trouble.endswith(f"refused: export of {MAX_BYTES + 1} bytes, at most {MAX_BYTES} are allowed")


class Context:
    """What gRPC says of a call."""

    def peer(self):
        return "ipv4:127.0.0.1:1"

    def auth_context(self):
        return {}


async def test_exports_that_come_at_once_do_not_share_one_turn_of_the_loop():
    taken, seen = [], [0]

    def receive(peer, data):
        until = time.monotonic() + 0.004
        while time.monotonic() < until:
            pass
        taken.append(data)

    export = Intake(receive).services()[SERVICE]["Export"].unary_unary
    calls = [asyncio.create_task(export(b"", Context())) for _ in range(20)]
    while len(taken) < len(calls):
        await asyncio.sleep(0)
        seen.append(len(taken))
    await asyncio.gather(*calls)

    assert max(after - before for before, after in pairwise(seen)) <= 2


async def test_what_is_refused_is_given_back_without_the_garbage_collector():
    """A proxy whose exports are refused sends the next in five seconds, and the collector looks seldom."""

    def refuse(peer, data):
        message = bytearray(data)
        raise ValueError(f"{len(message)} bytes too many")

    server = make(Intake(refuse).services())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for size in [MAX_BYTES] * 5 + [MAX_BYTES + 1] * 5:
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary(METHOD)(bytes(size), timeout=PATIENCE)
            held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
        await server.stop(None)

    assert most > MAX_BYTES
    assert held < MAX_BYTES
