"""Two services of a group on a real Envoy: who came by the new version of one gets that of the other."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

import httpx
import pytest

from controlplane.demo.ports import free_ports
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy]

HEADER = "x-turnout-version"
FLEET = """\
kind: Fleet
name: mesh
nodes: {{cluster: mesh}}
listeners:
  - {{name: http, address: "127.0.0.1:{edge}", kind: edge}}
  - {{name: inside, address: "127.0.0.1:{inside}", kind: local}}
"""
SERVICE = """\
kind: Service
name: {name}
fleets: [mesh]
routes: [{{host: {name}.test}}]
user: {{from: [{{header: x-user-id}}], otherwise: baseline}}
initial: v1
versions: {{v1: {{endpoints: ["127.0.0.1:{v1}"]}}, v2: {{endpoints: ["127.0.0.1:{v2}"]}}}}
version_header: x-turnout-version
"""
POLICY = """\
kind: Policy
name: half
steps: [{name: half, everyone: 50%, for: 10m}, {name: all, everyone: 100%}]
conditions: [{errors: off}, {client_errors: off}, {latency: off}]
guard: {for: 1s, hold_back: 5%}
"""
RELEASE = """\
kind: Release
name: {name}-v2
service: {name}
from: v1
to: v2
policy: half
group: summer
start: auto
"""


async def told(reader):
    """Return what an endpoint was told."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    found = re.search(rf"{HEADER}: (\S+)\r\n", head)
    return found[1] if found else ""


def answer(writer, text):
    lines = "HTTP/1.1 200 OK", "connection: close", f"content-length: {len(text)}", "", text
    writer.write("\r\n".join(lines).encode())
    writer.close()


async def ask(port, host, **headers):
    """Return the words of the answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        found = await client.get(f"http://127.0.0.1:{port}/", headers={"host": f"{host}.test", **named})
    return tuple(found.text.split())


async def test_the_first_hop_decides_for_both_and_nobody_from_outside(site):
    edge, inside = free_ports(2)

    async def front(reader, writer):
        mine = await told(reader)
        answer(writer, " ".join((mine, *await ask(inside, "back", x_turnout_version=mine))))

    async def back(reader, writer):
        answer(writer, await told(reader))

    async def phase(name):
        return (await site.get(f"/v1/releases/{name}-v2"))["phase"]

    async def both(wanted):
        return {await phase("front"), await phase("back")} == {wanted}

    async with AsyncExitStack() as servers:
        ports = []
        for serve in (front, front, back, back):
            server = await servers.enter_async_context(await asyncio.start_server(serve, "127.0.0.1", 0))
            ports.append(server.sockets[0].getsockname()[1])
        texts = [
            SERVICE.format(name=name, v1=v1, v2=v2)
            for name, v1, v2 in (("front", *ports[:2]), ("back", *ports[2:]))
        ]
        await site.serve()
        await site.apply(FLEET.format(edge=edge, inside=inside), *texts)
        await site.start(mesh_1=site.bootstrap("mesh-1", "mesh"))
        await site.apply(POLICY, RELEASE.format(name="front"), RELEASE.format(name="back"))

        async def acknowledged():
            shown = [await site.get(f"/v1/releases/{name}-v2") for name in ("front", "back")]
            return {each["stage"] for each in shown} <= {"verify", "judge"}

        async def followed():
            return await ask(inside, "back", x_turnout_version="front=v2") == ("back=v2",)

        await site.until(acknowledged)
        await site.until(followed)
        users = [f"user-{number}" for number in range(24)]
        # No identity is passed on: alone, the second service would answer all of them by its baseline.
        pairs = await asyncio.gather(*(ask(edge, "front", x_user_id=user) for user in users))
        assert set(pairs) == {("front=v1", "back=v1"), ("front=v2", "back=v2")}

        own = [await ask(inside, "back", x_user_id=user) for user in users]
        assert set(own) == {("back=v1",), ("back=v2",)}
        kept = [await ask(inside, "back", x_user_id=user, x_turnout_version="front=v1") for user in users]
        assert set(kept) == {("back=v1",)}
        for value in ("front=v1", "front=v2"):
            spoofed = [await ask(edge, "back", x_user_id=user, x_turnout_version=value) for user in users]
            assert spoofed == own

        apart = await site.stats("mesh-1", "^turnout.*back.*followed.*back~v[12]")
        assert sum(apart.values()) > len(users), apart

        await site.post("/v1/releases/front-v2/rollback", reason="enough")
        await site.until(lambda: both("rolled_back"))
        assert await ask(inside, "back", x_turnout_version="front=v2") == ("back=v1",)
