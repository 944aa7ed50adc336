"""Services on one host share its routes: what one waits for never holds back the rollback of another."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("envoy"), pytest.mark.timeout(60)]

# One has nothing behind it, and the proxy refuses the cluster of the other.
EMPTY = """\
kind: Service
name: shop-empty
fleets: [edge]
routes: [{host: shop.example.com, path: /empty}]
initial: v1
versions: {v1: {endpoints: []}}
"""
REFUSED = """\
kind: Service
name: shop-refused
fleets: [edge]
routes: [{host: shop.example.com, path: /refused}]
initial: v1
versions: {v1: {endpoints: ["127.0.0.1:9"]}}
envoy:
  cluster: {upstream_bind_config: {source_address: {address: nowhere, port_value: 0}}}
"""


def request(user):
    return f"GET / HTTP/1.1\r\nhost: shop.example.com\r\nx-user-id: user-{user}\r\n\r\n".encode()


async def test_a_rollback_gets_through_beside_services_that_cannot_be_served(site):
    await site.serve()
    await site.apply(*site.world("edge"))
    await site.start(edge_1=site.bootstrap("edge-1"))
    await site.come(50)
    await site.apply(*site.order("name: half, everyone: 50%, for: 1h"))
    users = list(map(request, range(60)))
    port = site.ports["edge"]

    async def split():
        return set(await site.ask(port, users)) == {"v1", "v2"}

    await site.until(split)
    await site.post("/v1/documents", files={"more.yaml": f"{EMPTY}---\n{REFUSED}"})

    async def refuses():
        (proxy,) = await site.get("/v1/proxies")
        return proxy if proxy["state"] == "nacked" else None

    proxy = await site.until(refuses)
    await site.act("rollback")
    await site.released(phase="rolled_back")
    versions = set(await site.ask(port, users))
    (after,) = await site.get("/v1/proxies")
    seen = await site.leave()
    beneath = set(await site.ask(port, [request(0).replace(b"GET / ", b"GET /refused ")]))

    assert "shop-refused~v1" in proxy["problems"][0]
    assert "RouteConfiguration 'shop' waits for Cluster 'shop-refused~v1'" in after["problems"]
    assert versions == {"v1"}
    assert beneath == {"v1"}  # as before: its own route would lead nowhere
    assert seen.unexplained == 0, seen.examples
