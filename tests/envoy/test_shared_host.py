"""Services on one host share its routes: what one waits for never holds back the rollback of another."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.demo.client import Pool
from controlplane.demo.sample import INJECTED
from controlplane.resources.names import group_name
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy]

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
    await site.shared(port, users)
    await site.post("/v1/documents", files={"more.yaml": f"{EMPTY}---\n{REFUSED}"})
    proxy = await site.refusing()
    await site.act("rollback")
    await site.released(phase="rolled_back")
    versions = set(await site.ask(port, users))
    (after,) = await site.get("/v1/proxies")
    seen = await site.leave()
    beneath = set(await site.ask(port, [request(0).replace(b"GET / ", b"GET /refused ")]))

    shared = group_name("shop", ["shop.example.com"])
    assert "shop-refused~v1" in proxy["problems"][0]
    assert f"RouteConfiguration {shared!r} waits for Cluster 'shop-refused~v1'" in after["problems"]
    assert versions == {"v1"}
    assert beneath == {"v1"}  # as before: its own route would lead nowhere
    assert seen.unexplained == 0, seen.examples


# It sorts before the others, so it would give the routes that it shares with them another name.
EARLY = """\
kind: Service
name: aaa
fleets: [edge]
routes: [{{host: aaa.example.com}}{more}]
initial: v1
versions: {{v1: {{endpoints: ["127.0.0.1:9"]}}}}
"""
SHARED = ", {host: shop.example.com, path: /aaa}"


async def keep(port, ended, found):
    """Ask over one connection that is kept open, and note the answers; a made-up failure is none."""
    pool = Pool(port)
    await pool.fill(1)
    (connection,) = pool.open
    while not ended.is_set():
        done = asyncio.get_running_loop().create_future()
        pool.send(request(1), done.set_result)
        answer = await asyncio.wait_for(done, PATIENCE)
        found.append(200 if answer.header(INJECTED) else answer.status)
        await asyncio.sleep(0.002)  # leave the processor to the proxy
    assert pool.open == {connection}, "it was closed, so it proves nothing"
    pool.close()


async def status(port, asked):
    pool, done = Pool(port), asyncio.get_running_loop().create_future()
    pool.send(asked, done.set_result)
    answer = await asyncio.wait_for(done, PATIENCE)
    pool.close()
    return answer.status


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_kept_connections_go_on_while_a_service_joins_their_host_and_leaves_it(site, variant):
    await site.serve()
    await site.apply(*site.world("edge"))
    await site.start(edge_1=site.bootstrap("edge-1", variant=variant))
    await site.apply(EARLY.format(more=""))
    port, ended = site.ports["edge"], asyncio.Event()
    own = request(1).replace(b"shop.example", b"aaa.example")

    async def there():
        return (await status(port, own)) == 503  # there is nobody at its endpoint

    await site.until(there)  # on a new listener, as its host is new
    answers = [[] for _ in range(4)]
    kept = [asyncio.create_task(keep(port, ended, found)) for found in answers]
    beneath = request(1).replace(b"GET / ", b"GET /aaa ")

    async def joined():
        return (await status(port, beneath)) == 503

    async def left():
        return (await status(port, beneath)) in (200, 500)

    async def change(more, condition):
        await site.apply(EARLY.format(more=more))
        await site.until(condition)
        before = list(map(len, answers))

        async def went_on():
            return all(len(found) >= count + 20 for found, count in zip(answers, before, strict=True))

        await site.until(went_on)

    for _ in range(2):
        await change(SHARED, joined)
        await change("", left)
    ended.set()
    await asyncio.gather(*kept)

    assert [each.count(200) for each in answers] == [len(each) for each in answers], answers
