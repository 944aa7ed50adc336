"""Conditions on gRPC codes, which HTTP hides: a real gRPC service behind a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter

import grpc.aio
import pytest

from controlplane.demo.ports import free_ports
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy, pytest.mark.long]

SERVICE = """\
kind: Service
name: shop
fleets: [edge]
routes: [{{host: shop.example.com}}]
user: {{from: [{{header: x-user-id}}], otherwise: baseline}}
initial: v1
protocol: grpc
versions:
  v1: {{endpoints: ["127.0.0.1:{v1}"]}}
  v2: {{endpoints: ["127.0.0.1:{v2}"]}}
"""
POLICY = """\
kind: Policy
name: quick
steps:
  - {name: some, everyone: 30%}
  - {name: half, everyone: 50%, for: 30s}
  - {name: all, everyone: 100%}
conditions:
  - errors: off
  - client_errors: off
  - latency: off
  - grpc_status: {codes: [PERMISSION_DENIED, UNAUTHENTICATED]}
  - grpc_status: {codes: [RESOURCE_EXHAUSTED], at_most: 20%}
guard: {for: 1s, hold_back: 5%}
"""
DENIED, MISSING = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND


class Backends:
    """The service, of whose calls a share is refused; as many find nothing, on both versions."""

    def __init__(self):
        self.denied = {"v1": 0.1, "v2": 0.1}

    async def start(self, version, port):
        async def say(_request, context):
            await self._answer(version, context)
            return version.encode()

        async def tell(_request, context):
            yield version.encode()
            await self._answer(version, context)

        methods = {
            "Say": grpc.unary_unary_rpc_method_handler(say),
            "Tell": grpc.unary_stream_rpc_method_handler(tell),
        }
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", methods),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server

    async def _answer(self, version, context):
        drawn = random.random()
        if drawn < self.denied[version]:
            await context.abort(DENIED)
        elif drawn > 0.9:
            await context.abort(MISSING)


@contextlib.asynccontextmanager
async def calls(port):
    """Call steadily, as ever new users; one call in two is answered before it fails. Yield the codes.

    A busy machine takes fewer calls, and lets none wait until it is too late.
    """
    ended, over, room = Counter(), asyncio.Event(), asyncio.Semaphore(16)
    options = [("grpc.default_authority", "shop.example.com")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        say, tell = channel.unary_unary("/test.Echo/Say"), channel.unary_stream("/test.Echo/Tell")

        async def one(user):
            metadata = (("x-user-id", f"user-{user}"),)
            call = (say if user % 2 else tell)(b"", metadata=metadata, timeout=PATIENCE)
            with contextlib.suppress(grpc.aio.AioRpcError):
                while not user % 2 and await call.read() is not grpc.aio.EOF:
                    pass
            ended[(await call.code()).value[0]] += 1
            room.release()

        async def steadily():
            async with asyncio.TaskGroup() as group:
                for user in itertools.takewhile(lambda _: not over.is_set(), itertools.count()):
                    await room.acquire()
                    group.create_task(one(user))
                    await asyncio.sleep(1 / 400)

        running = asyncio.create_task(steadily())
        try:
            yield ended
        finally:
            over.set()
            await running


async def test_a_code_that_the_canary_returns_more_often_rolls_back_and_other_codes_do_not(site):
    backends, ports = Backends(), dict(zip(("v1", "v2"), free_ports(2), strict=True))
    servers = [await backends.start(*each) for each in ports.items()]
    await site.serve()
    fleet, _ = site.world("edge")
    await site.apply(fleet, SERVICE.format(**ports))
    await site.start(edge_1=site.bootstrap("edge-1"))
    async with calls(site.ports["edge"]) as ended:
        _, order = site.order()
        await site.apply(POLICY, order)
        await site.released(step="half")  # alike, every tenth call refused: no fault

        backends.denied["v2"] = 0.8
        await site.released(phase="rolled_back")
    records = await site.get("/v1/records?release=shop-v2&limit=10000")
    why = next(record["reason"] for record in records if record["action"] == "rollback")

    async def all_counted():  # Envoy counts a call after its client has heard how it ended
        counted = Counter()
        for name, count in (await site.stats("edge-1", r"^turnout[.]grpc[.]")).items():
            counted[int(name.rpartition(".")[2])] += count
        return counted if counted.total() >= ended.total() else None

    counted = await site.until(all_counted)
    for server in servers:
        await server.stop(None)

    assert why.startswith("grpc status PERMISSION_DENIED UNAUTHENTICATED in segment everyone are above")
    assert counted == ended  # whether a status came with the headers, or after an answer
    assert counted.keys() == {0, MISSING.value[0], DENIED.value[0]}
