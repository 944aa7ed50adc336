"""Versions at names, for gRPC clients: published as they are resolved, and nobody is sent to one without."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta

import pytest

from controlplane._pb.endpoint_pb2 import ClusterLoadAssignment
from controlplane.app.publish import Publisher
from controlplane.release.state import Phase
from controlplane.sources.dns import Resolver
from controlplane.web.asked import Switch
from controlplane.web.port import RefusedError
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from tests.waiting import until

MESH = "kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners: [{name: calls, kind: grpc}]\n"
BY_CALL = """\
kind: Policy
name: quick
steps: [{name: half, everyone: 50%}, {name: all, everyone: 100%}]
conditions: [{errors: {against: baseline, margin: 25%}}]
guard: {for: 15s, hold_back: 2%}
"""
NOBODY = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
async def named(tmp_path, kit):
    """A site whose v2 is at a name; ``hosts`` is what the name's host answers."""
    shop = kit.SERVICE.replace('endpoints: ["10.0.0.2:80"]', 'dns: "new.svc:80"')
    site = await kit.start(tmp_path, fleet=MESH, shop=shop, quick=BY_CALL, release=kit.RELEASE)
    site.hosts = {"new.svc": NOBODY}

    async def lookup(host, _port):
        answer = site.hosts[host]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        return answer

    resolver = site.resolver = Resolver(lookup, timedelta(milliseconds=5))
    site.publisher = site.plane._publisher = Publisher(site.store, resolver=resolver)
    site.fleet.endpoints = site.publisher.endpoints
    loops = (site.publisher.run(), site.publisher.resolve(), resolver.run())
    tasks = [asyncio.create_task(loop) for loop in loops]
    yield site
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await site.store.close()


def assigned(snapshot, cluster):
    places = ClusterLoadAssignment.FromString(snapshot.of(ENDPOINT)[cluster].body).endpoints
    return [m.endpoint.address.socket_address.address for place in places for m in place.lb_endpoints]


async def test_a_release_to_a_name_that_does_not_exist_waits_and_says_so(named, kit):
    await until(named.publisher.whereabouts.problems)

    held = (await kit.tick(named, 2)).releases["shop-2"]
    with pytest.raises(RefusedError, match=r"v2 of 'shop' has no endpoints: 'new\.svc:80' is not resolved"):
        await named.plane.switch("shop", Switch(version="v2", actor="tester"))

    assert held.phase is Phase.WAITING
    assert held.because == "v2 has no endpoints: 'new.svc:80' is not resolved: there is no such name"
    [problem] = named.plane.problems()
    assert problem == "service shop: version v2: 'new.svc:80' is not resolved: there is no such name"


async def test_a_name_that_was_not_looked_up_yet_starts_nothing(named, kit):
    named.hosts["new.svc"] = asyncio.Event()
    named.resolver.answers.clear()

    held = (await kit.tick(named, 1)).releases["shop-2"]

    assert held.because == "v2 has no endpoints: 'new.svc:80' is not resolved: it was not looked up yet"


async def test_addresses_follow_the_name_and_touch_one_assignment(named, kit):
    cluster = "shop~v2~everyone"

    def published(world, *addresses):
        publisher = named.publisher
        found = publisher.revision == world.revision and publisher.server.snapshot("edge")
        return found and cluster in found.of(ENDPOINT) and assigned(found, cluster) == [*addresses]

    named.hosts["new.svc"] = ["10.0.0.7", "10.0.0.8"]
    await until(lambda: named.resolver.answers["new.svc:80"].addresses)
    world = await kit.until(named, lambda world: world.releases["shop-2"].phase is Phase.PROGRESSING)
    await until(lambda: published(world, "10.0.0.7", "10.0.0.8"))
    before = named.publisher.server.snapshot("edge")

    named.hosts["new.svc"] = ["10.0.0.9"]
    await until(lambda: published(world, "10.0.0.9"))
    after = named.publisher.server.snapshot("edge")
    named.hosts["new.svc"] = NOBODY
    await until(named.publisher.whereabouts.problems)
    ticked = await kit.tick(named, 2)
    await until(lambda: published(ticked, "10.0.0.9"))

    assert all(after.of(url) is before.of(url) for url in (CLUSTER, ROUTE, LISTENER))
    assert named.plane.problems()[0].endswith("there is no such name; its last addresses stay: 10.0.0.9:80")
    # the name is still the one that was declared
    assert ticked.releases["shop-2"].hold != "restarted"
