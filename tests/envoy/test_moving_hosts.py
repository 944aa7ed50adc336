"""Hosts that go from one service to another, and services that come and go: users notice nothing."""

from __future__ import annotations

import asyncio
import json

import pytest

from controlplane.demo.client import Pool
from controlplane.demo.relay import Relay
from controlplane.demo.sample import INJECTED, VERSION
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy]

SERVICE = """\
kind: Service
name: {name}
fleets: [edge]
routes: [{routes}]
initial: {version}
versions: {{{version}: {{endpoints: ["127.0.0.1:{port}"]}}}}
"""


def request(host, path="/"):
    return f"GET {path} HTTP/1.1\r\nhost: {host}.example.com\r\n\r\n".encode()


def claims(*routes):
    hosts = (route.partition("/")[::2] for route in routes)
    return ", ".join(f"{{host: {host}.example.com, path: /{path}}}" for host, path in hosts)


class Kept:
    """Requests over connections that are kept open, and what came of them."""

    def __init__(self, port, requests):
        self.statuses = [[] for _ in requests]
        self._over = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._keep(port, asked, found))
            for asked, found in zip(requests, self.statuses, strict=True)
        ]

    async def _keep(self, port, asked, found):
        pool = Pool(port)
        await pool.fill(1)
        (connection,) = pool.open
        while not self._over.is_set():
            done = asyncio.get_running_loop().create_future()
            pool.send(asked, done.set_result)
            answer = await asyncio.wait_for(done, PATIENCE)
            found.append(200 if answer.header(INJECTED) else answer.status)
            await asyncio.sleep(0.002)  # leave the processor to the proxy
        assert pool.open == {connection}, "it was closed, so it proves nothing"
        pool.close()

    async def went_on(self, site, count=20):
        """Return once each has been answered some more times."""
        before = list(map(len, self.statuses))

        async def each():
            return all(len(s) >= b + count for s, b in zip(self.statuses, before, strict=True))

        await site.until(each)

    async def end(self):
        self._over.set()
        await asyncio.gather(*self._tasks)
        return [status for found in self.statuses for status in found if status != 200]


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_a_host_moves_between_services_and_the_first_of_a_host_is_deleted(site, variant):
    folder = site.folder / "documents"
    folder.mkdir()
    fleet, _ = site.world("edge")
    port, (v1, v2) = site.ports["edge"], site.endpoints

    def services(first, second):
        early = SERVICE.format(name="aaa", routes=claims(*first), version="v2", port=v2)
        return early, SERVICE.format(name="shop", routes=claims(*second), version="v1", port=v1)

    async def answered(asked):
        pool, done = Pool(port), asyncio.get_running_loop().create_future()
        pool.send(asked, done.set_result)
        answer = await asyncio.wait_for(done, PATIENCE)
        pool.close()
        return answer.header(VERSION) or answer.status

    async def by(asked, version):
        async def there():
            return await answered(asked) == version

        await site.until(there)

    there, gone = (["aaa", "moved"], ["shop"]), (["aaa"], ["moved", "shop"])
    for name, text in zip(("fleet", "aaa", "shop"), (fleet, *services(*gone)), strict=True):
        (folder / f"{name}.yaml").write_text(text)
    await site.serve(f"--policies={folder}")
    await site.start(edge_1=site.bootstrap("edge-1", variant=variant))
    kept = Kept(port, [request("moved"), request("moved"), request("shop"), request("aaa")])
    for _ in range(3):
        await site.apply(*services(*there))
        await by(request("moved"), "v2")
        await site.apply(*services(*gone))
        await by(request("moved"), "v1")
    await kept.went_on(site)
    moves = await kept.end()

    kept = Kept(port, [request("moved"), request("shop"), request("shop")])
    await site.apply(*services(["aaa", "shop/aaa"], ["moved", "shop"]))
    await by(request("shop", "/aaa"), "v2")
    await kept.went_on(site)
    (folder / "aaa.yaml").unlink()
    await by(request("shop", "/aaa"), "v1")
    await kept.went_on(site)
    deletion = await kept.end()

    assert moves == []
    assert deletion == []
    await by(request("aaa"), 404)


async def test_a_client_of_whole_sets_that_comes_back_finds_its_hosts_where_they_were(site):
    """Its host has moved meanwhile. The server knows by the hash of its scopes where they led to."""
    relay = Relay(site.xds)
    await relay.start()
    fleet, _ = site.world("edge")
    port, (v1, v2) = site.ports["edge"], site.endpoints

    def services(first, second):
        early = SERVICE.format(name="aaa", routes=claims(*first), version="v2", port=v2)
        return early, SERVICE.format(name="shop", routes=claims(*second), version="v1", port=v1)

    async def by(version):
        async def there():
            return set(await site.ask(port, [request("moved")])) == {version}

        await site.until(there)

    await site.serve()
    await site.apply(fleet, *services(["aaa", "moved"], ["shop"]))
    text = json.dumps(site.bootstrap("edge-1", variant="sotw")).replace(str(site.xds), str(relay.port))
    await site.start(edge_1=text)
    kept = Kept(port, [request("moved")] * 4)
    for _ in range(3):
        for version, hosts in (("v1", (["aaa"], ["moved", "shop"])), ("v2", (["aaa", "moved"], ["shop"]))):
            await relay.stop()
            await site.apply(*services(*hosts))
            await relay.start()
            await by(version)
    await kept.went_on(site)
    failed = await kept.end()
    await relay.stop()

    assert failed == []


# Envoy lets nobody take the host header away, so it refuses these routes.
REFUSED = SERVICE + "envoy: {{route: {{request_headers_to_remove: [host]}}}}\n"


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_a_rollback_gets_through_while_the_routes_of_a_service_that_joins_are_refused(site, variant):
    """It joins with a host of its own, so they have another name. In between the proxy comes back."""
    relay = Relay(site.xds)
    await relay.start()
    await site.serve()
    await site.apply(*site.world("edge"))
    start = json.dumps(site.bootstrap("edge-1", variant=variant)).replace(str(site.xds), str(relay.port))
    await site.start(edge_1=start)
    await site.come(50)
    await site.apply(*site.order("name: half, everyone: 50%, for: 1h"))
    port = site.ports["edge"]
    lines = [f"\r\nx-user-id: {user}\r\n\r\n".encode() for user in range(60)]
    users = [request("shop").replace(b"\r\n\r\n", line) for line in lines]
    await site.shared(port, users)
    routes = claims("aaa", "shop/aaa")
    await site.apply(REFUSED.format(name="aaa", routes=routes, version="v1", port=site.endpoints[0]))

    async def gone():
        return not await site.get("/v1/proxies")

    await site.refusing()
    await relay.stop()
    await site.until(gone)
    await relay.start()
    await site.refusing()
    still = set(await site.ask(port, users))
    await site.act("rollback")
    await site.released(phase="rolled_back")
    after = set(await site.ask(port, users))
    proxy = await site.refusing()
    seen = await site.leave()
    await relay.stop()

    assert still == {"v1", "v2"}
    assert after == {"v1"}
    assert "host headers" in proxy["problems"][0]
    assert seen.unexplained == 0, seen.examples
