"""Clients of gRPC without a proxy: real grpcio processes on a real control plane, by ``xds:///shop``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from controlplane.demo.ports import free_ports
from tests.waiting import PATIENCE

pytestmark = [
    pytest.mark.waits,
    pytest.mark.parametrize("site", ["1s"], indirect=True),
]

LONGEST = 4 * PATIENCE  # of many calls, each of which has so long
SCRIPT = Path(__file__).with_name("grpc_peer.py")
DOCUMENTED = ("xds_v3", "ignore_resource_deletion")  # of the bootstrap in docs/envoy.md
FLEET = """\
kind: Fleet
name: mesh
nodes: {cluster: mesh}
listeners: [{name: calls, kind: grpc}]
"""
SERVICE = """\
kind: Service
name: shop
fleets: [mesh]
routes: [{{host: shop}}]
initial: v1
versions:
  v1: {{endpoints: ["127.0.0.1:{v1}"]}}
  v2: {{endpoints: ["127.0.0.1:{v2}"]}}
"""
POLICY = """\
kind: Policy
name: quick
steps:
{steps}
conditions:
{conditions}
guard: {{for: 1s, hold_back: 5%}}
"""
RELEASE = """\
kind: Release
name: shop-v2
service: shop
from: v1
to: v2
policy: quick
start: auto
"""
SUCCESS_RATE = "  - success_rate: {at_least: 90%}"
COMPARED = "  - errors: {against: baseline, margin: 25%}"


def order(*steps, conditions=COMPARED):
    ladder = "\n".join(f"  - {{{step}}}" for step in (*steps, "name: all, everyone: 100%"))
    return [POLICY.format(steps=ladder, conditions=conditions), RELEASE]


class Peer:
    """A process that takes a line of JSON and answers with one."""

    def __init__(self, process):
        self._process = process

    async def tell(self, **wanted):
        self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), LONGEST))

    async def call(self, count=400, **metadata):
        """Return how many calls ended how; metadata names have _ for -."""
        named = {name.replace("_", "-"): value for name, value in metadata.items()}
        return await self.tell(call=count, metadata=named)


@contextlib.asynccontextmanager
async def peer(*arguments, **environment):
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip
    try:
        yield Peer(process)
    finally:
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), PATIENCE)
        if process.returncode is None:
            process.kill()
            await process.wait()


class Line:
    """A way to a port that can be cut: whoever comes then is sent away."""

    def __init__(self, port):
        self.to, self.port, self.whole, self.refused = port, 0, True, 0
        self._ends = set()

    async def take(self, reader, writer):
        if not self.whole:
            self.refused += 1
            writer.close()
            return
        there = await asyncio.open_connection("127.0.0.1", self.to)
        self._ends |= {writer, there[1]}
        await asyncio.gather(self._carry(reader, there[1]), self._carry(there[0], writer))

    async def _carry(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await asyncio.sleep(0.02)  # each way: what is answered too early shows for longer
                writer.write(data)
        writer.close()

    def cut(self):
        self.whole = False
        while self._ends:
            self._ends.pop().transport.abort()


@contextlib.asynccontextmanager
async def cuttable(port):
    line = Line(port)
    server = await asyncio.start_server(line.take, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        line.cut()
        server.close()


def client(site, node="caller-1", *, ports=(), features=DOCUMENTED, **environment):
    servers = [{
        "server_uri": f"127.0.0.1:{port}",
        "channel_creds": [{"type": "insecure"}],
        "server_features": [*features],
    } for port in ports or [site.xds]]  # fmt: skip
    bootstrap = {"xds_servers": servers, "node": {"id": node, "cluster": "mesh"}}
    return peer("client", "xds:///shop", GRPC_XDS_BOOTSTRAP_CONFIG=json.dumps(bootstrap), **environment)


@pytest.fixture
async def shop(site):
    """The control plane with the service on it; yields its backends."""
    v1, v2 = free_ports(2)
    await site.serve()
    await site.apply(FLEET, SERVICE.format(v1=v1, v2=v2))
    async with peer("backend", f"v1={v1}", f"v2={v2}") as backends:
        await backends.tell()  # it answers once it listens
        backends.ports = v1, v2
        yield backends


async def stepped(site, step):
    """Wait until a step has reached every client."""

    async def there():
        shown = await site.release()
        return shown["step"] == step and shown["stage"] in ("verify", "judge")

    await site.until(there)


async def test_calls_follow_shares_and_segments_on_metadata(site, shop):
    beta_or_n = (
        '{any: [{header: {name: x-beta, equals: "1"}}, {header: {name: x-n, range: {from: 5, to: 9}}}]}'
    )
    paying = (
        '{all: [{header: {name: x-plan, regex: "pro|team"}}, {not: {header: {name: x-region, prefix: eu-}}}]}'
    )
    steps = (
        f"name: beta, segment: {beta_or_n}, share: 100%",
        f"name: most, segment: {paying}, share: 50%",
        "name: ten, everyone: 10%",
        "name: half, everyone: 50%",
    )
    async with client(site) as caller:
        before = await caller.call(40)
        await site.apply(*order(*(f"{step}, for: 1h" for step in steps)))
        await stepped(site, "beta")
        beta = [
            await caller.call(40, **m)
            for m in ({"x_beta": "1"}, {"x_beta": "2"}, {"x_n": "7"}, {"x_n": "9"}, {})
        ]
        await site.act("advance")
        await stepped(site, "most")
        pro = [
            await caller.call(n, **m)
            for n, m in (
                (400, {"x_plan": "team"}),
                (400, {"x_plan": "team", "x_region": "us-1"}),
                (40, {"x_plan": "team", "x_region": "eu-1"}),
                (40, {"x_plan": "teams"}),
            )
        ]
        await site.act("advance")
        await stepped(site, "ten")
        ten, still = await caller.call(), await caller.call(40, x_beta="1")
        await site.act("advance")
        await stepped(site, "half")
        half = await caller.call()

    assert before == {"v1": 40}
    assert beta == [{"v2": 40}, {"v1": 40}, {"v2": 40}, {"v1": 40}, {"v1": 40}]
    assert all(150 <= seen["v2"] <= 250 for seen in pro[:2])  # 200, and 10 is a standard deviation
    assert pro[2:] == [{"v1": 40}, {"v1": 40}]
    assert 15 <= ten["v2"] <= 70  # 40, and 6
    assert still == {"v2": 40}
    assert 150 <= half["v2"] <= 250


async def test_no_call_fails_while_the_version_is_swapped_again_and_again(site, shop):
    async with client(site, features=("xds_v3",)) as caller:
        await caller.call(10)
        await caller.tell(start=400)
        for version in ("v2", "v1") * 10:
            await site.post("/v1/services/shop/switch", version=version)

            async def there(wanted=version):
                return await caller.call(4) == {wanted: 4}

            await site.until(there)
        seen = await caller.tell(stop=True)

    assert seen.keys() == {"v1", "v2"}
    assert min(seen.values()) > 100


async def test_no_call_fails_when_clients_come_back_after_a_switch(site, shop):
    """To the process that they left, and to one that was started anew and knows nothing of them.

    In which order a client asks for types again depends on where its heap has them (seen): one of these asks
    for clusters before routes, as the allocator takes nothing from a cache.
    """
    heap = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    async with (
        cuttable(site.xds) as line,
        client(site, ports=[line.port], features=("xds_v3",), **heap) as one,
        client(site, "caller-2", ports=[line.port]) as other,
    ):
        for caller in (one, other):
            await caller.call(10)
            await caller.tell(start=600)
        for version, anew in (("v2", False), ("v1", True)):
            line.cut()
            if anew:
                await site.kill()
                await site.serve()
            await site.post("/v1/services/shop/switch", version=version)
            line.whole = True

            async def there(wanted=version):
                return [await each.call(4) for each in (one, other)] == [{wanted: 4}] * 2

            await site.until(there)
        seen = [await caller.tell(stop=True) for caller in (one, other)]

    # Another process cannot list the old cluster, so without `ignore_resource_deletion` it may go a moment
    # before the client has left it. More than a hundred failed while it got its clusters before its routes.
    assert seen[0].pop("UNAVAILABLE", 0) <= 5
    assert [each.keys() for each in seen] == [{"v1", "v2"}] * 2, seen
    assert min(min(each.values()) for each in seen) > 100


async def test_a_release_with_good_calls_is_promoted_by_what_clients_report(site, shop):
    async with client(site) as one, client(site, "caller-2") as other:
        for caller in (one, other):
            await caller.tell(start=600)
        await site.apply(*order("name: half, everyone: 50%", conditions=f"{COMPARED}\n{SUCCESS_RATE}"))
        shown = await site.released(phase="promoted")
        seen = [await caller.tell(stop=True) for caller in (one, other)]

    records = await site.get("/v1/records?release=shop-v2&limit=100")
    proofs = [r["numbers"]["verdicts"] for r in records if r["action"] in ("advance", "guard", "promote")]
    assert [each.keys() for each in seen] == [{"v1", "v2"}] * 2
    assert [[(v["metric"], v["outcome"]) for v in proof] for proof in proofs] == [
        [("errors", "pass"), ("success rate", "pass")]
    ] * 3
    assert all(proof[0]["numbers"]["baseline_requests"] > 40 for proof in proofs)  # of the same time
    assert shown["canary_requests"] > 300
    assert shown["canary_errors"] == 0
    assert shown["canary_requests"] <= sum(each["v2"] for each in seen)


async def test_a_release_with_failing_calls_is_rolled_back_by_what_clients_report(site, shop):
    async with client(site) as caller:
        await shop.tell(v2=0.3)
        await caller.tell(start=400)
        await site.apply(*order("name: half, everyone: 50%, for: 1h"))
        shown = await site.released(phase="rolled_back")
        await caller.tell(stop=True)
        after = await caller.call(100)

    assert 0.2 < shown["canary_errors"] / shown["canary_requests"] < 0.4
    assert after == {"v1": 100}


async def test_a_canary_that_no_client_can_connect_to_is_rolled_back(site):
    v1, nobody = free_ports(2)
    await site.serve()
    await site.apply(FLEET, SERVICE.format(v1=v1, v2=nobody))
    async with peer("backend", f"v1={v1}") as backend, client(site) as caller:
        await backend.tell()
        await caller.tell(start=400)
        await site.apply(*order("name: half, everyone: 50%, for: 1h"))
        shown = await site.released(phase="rolled_back")
        await caller.tell(stop=True)
        after = await caller.call(100)

    records = await site.get("/v1/records?release=shop-v2&limit=100")
    [reason] = [record["reason"] for record in records if record["action"] == "rollback"]
    assert reason.startswith("no client reaches v2: none of ")
    assert shown["canary_requests"] == 0
    assert after == {"v1": 100}


async def test_a_call_may_take_as_long_as_its_service_allows_and_hardly_longer(site):
    v1, v2 = free_ports(2)
    await site.serve()
    await site.apply(FLEET, SERVICE.format(v1=v1, v2=v2) + "timeout: 3s\n")
    async with peer("backend", f"v1={v1}") as backend, client(site) as caller:
        await backend.tell()
        await caller.call(8)  # what a first call takes besides is no part of it
        short = await caller.call(8, x_takes="1")
        began = time.monotonic()
        long = await caller.call(8, x_takes="10")
        took = time.monotonic() - began

    assert short == {"v1": 8}
    assert long == {"DEADLINE_EXCEEDED": 8}  # a service that says nothing allows 15 s, the caller a minute
    assert took >= 3


async def test_versions_at_names_are_resolved_and_released(site):
    v1, v2 = free_ports(2)
    named = SERVICE.format(v1=v1, v2=v2)
    for port in (v1, v2):
        named = named.replace(f'endpoints: ["127.0.0.1:{port}"]', f'dns: "localhost:{port}"')
    await site.serve()
    await site.apply(FLEET, named.replace(f"localhost:{v2}", f"nobody.invalid:{v2}"))
    async with peer("backend", f"v1={v1}", f"v2={v2}") as backends, client(site) as caller:
        await backends.tell()
        before = await caller.call(40)
        await site.apply(*order("name: half, everyone: 50%, for: 1h"))
        held = await site.released(hold="no-endpoints")
        await site.apply(named)
        await stepped(site, "half")
        half = await caller.call()

    assert before == {"v1": 40}
    assert held["phase"] == "waiting"
    assert f"'nobody.invalid:{v2}' is not resolved" in held["because"]
    assert 150 <= half["v2"] <= 250


async def test_a_release_holds_while_nobody_calls(site, shop):
    async with client(site) as caller:
        await caller.call(1)
        await site.apply(*order("name: half, everyone: 50%", conditions="  - errors: off"))
        await stepped(site, "half")
        await asyncio.sleep(4)  # four intervals of silence

        async def uncounted():  # and not that it is silent: idle clients report nothing
            shown = await site.release()
            return shown if "none counted yet" in shown["because"] else None

        shown = await site.until(uncounted)

    assert (shown["phase"], shown["step"]) == ("progressing", "half")


async def test_callers_are_left_alone_when_the_store_was_lost(site, shop):
    service = SERVICE.format(v1=shop.ports[0], v2=shop.ports[1])
    documents = [FLEET, service, *order("name: fifth, everyone: 20%, for: 10m")]

    async def state():
        return [proxy["state"] for proxy in await site.get("/v1/proxies")]

    async with client(site) as caller:
        await caller.call(10)
        await site.apply(*documents)
        await stepped(site, "fifth")

        async def has_it():
            return "v2" in await caller.call(50)

        await site.until(has_it)
        await site.kill()
        shutil.rmtree(site.folder / "data")
        await site.serve()
        await site.apply(*documents)

        async def told():
            return await state() == ["alone"]

        await site.until(told)
        await site.apply(service + "timeout: 20s\n")
        alone = await caller.call(1000)
        await site.post("/v1/adopt", adopt={"shop": "v2"})

        async def moved():
            return await caller.call(20) == {"v2": 20}

        await site.until(moved)

        assert 120 < alone["v2"] < 280
        assert alone["v1"] + alone["v2"] == 1000

        async def synced():  # calls move before the client has answered all that it was sent
            return await state() == ["synced"]

        await site.until(synced)


async def test_a_second_control_plane_is_no_safe_one_for_clients(site, shop):
    """As docs/envoy.md says: who has what it needs stays, and who comes back takes what the first one has."""
    second = type(site)(site.folder / "second", "1s")
    second.folder.mkdir()
    async with second, cuttable(site.xds) as line:
        both = [line.port, second.xds]
        await second.serve()
        await second.apply(FLEET, SERVICE.format(v1=shop.ports[0], v2=shop.ports[1]))
        async with client(site, ports=both) as stays:
            await stays.call(4)
            line.cut()
            await second.post("/v1/services/shop/switch", version="v2")

            async def tried():
                return line.refused >= 2

            await site.until(tried)
            stayed, seen = await stays.call(20), await second.get("/v1/proxies")

            async with client(site, "caller-2", ports=both) as comes:
                fresh = await comes.call(20)
                line.whole = True

                async def back():
                    return await comes.call(4) == {"v1": 4}

                await site.until(back)
                problems = await site.problems(), await second.problems()

    assert (stayed, seen) == ({"v1": 20}, [])
    assert fresh == {"v2": 20}
    assert problems == ([], [])
