"""Three services that depend on one another, in lockstep: dependencies first, same users, back in reverse."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from controlplane.demo.fault import Fault
from controlplane.demo.load import Load
from controlplane.demo.users import HOST, population
from tests.documents import placed

pytestmark = [pytest.mark.envoy]

LONG = pytest.mark.skipif("TURNOUT_CHAOS" not in os.environ, reason="takes a minute; see `make chaos`")
CHAIN = ("back", "mid", "front")  # each depends on the one before
USERS = [user for user in population(150) if user.id]
RELEASE = """\
kind: Release
name: {name}-2
service: {name}
from: v1
to: v2
policy: quick
{after}
group: summer
start: auto
"""


def to(service, request):
    return request.replace(HOST.encode(), f"{service}.example.com".encode())


async def begin(site, *steps, stay=False):
    """Start everything, users of all three services included, and order the group.

    If they are to ``stay`` at the last of these steps, the one after it asks for consent.
    """
    v1, v2 = site.sample.ports
    services = [placed(name, v1, v2) for name in CHAIN]
    await site.serve()
    await site.apply(*site.world("edge"), *services)
    await site.start(edge_1=site.bootstrap("edge-1"), edge_2=site.bootstrap("edge-2"))
    visitors = tuple(
        replace(user, id=f"{name}/{user.id}", requests=tuple(to(name, each) for each in user.requests))
        for name in CHAIN
        for user in USERS
    )
    site.load = Load(visitors, (site.ports["edge"],), 450)
    await site.load.start()
    afters = ("", "after: [{release: back-2}]", "after: [{release: mid-2}]")
    orders = [RELEASE.format(name=name, after=after) for name, after in zip(CHAIN, afters, strict=True)]
    policy, _ = site.order(*steps, guard="1s")
    if stay:
        policy = policy.replace("name: all,", "name: all, approve: {},")
    await site.apply(policy, *orders)


async def shown(site):
    return [await site.get(f"/v1/releases/{name}-2") for name in CHAIN]


async def all_at(site, step):
    """Return whether every release is at a step that each proxy has acknowledged."""
    now = await shown(site)
    acked = all(proxy["acked"] for release in now for proxy in release["proxies"])
    return acked and [release["step"] for release in now] == [step] * len(CHAIN)


async def ended(site, phase):
    return [release["phase"] for release in await shown(site)] == [phase] * len(CHAIN)


async def picks(site, service):
    return await site.ask(site.ports["edge"], [to(service, user.requests[0]) for user in USERS])


async def begun(site, *actions):
    """Return (service, action) of the records, oldest first."""
    records = await site.get("/v1/records?limit=10000")
    found = [(r["release"].partition("-")[0], r["action"]) for r in records if r["release"].endswith("-2")]
    return [each for each in found if each[1] in actions]


async def never_ahead(site, ahead):
    """Ask the front first, without end: whoever has a new one there must have the new ones behind it."""
    while True:
        seen = [await picks(site, name) for name in reversed(CHAIN)]
        ahead.extend(each for each in zip(*seen, strict=True) if list(each) != sorted(each))


async def test_a_chain_goes_forward_from_its_end_and_back_from_its_front(site):
    await begin(site, "name: third, everyone: 30%", stay=True)
    ahead = []
    watch = asyncio.create_task(never_ahead(site, ahead))
    await site.until(lambda: all_at(site, "third"))
    watch.cancel()
    same = [await picks(site, name) for name in CHAIN]
    forward = await begun(site, "start")
    await site.sample.inject(Fault.parse("errors=60%"))
    await site.until(lambda: ended(site, "rolled_back"))
    backward = await begun(site, "rollback", "finish")
    after = [await picks(site, name) for name in CHAIN]
    load = await site.leave()

    assert not ahead
    assert same[0] == same[1] == same[2]
    assert 0.2 < same[0].count("v2") / len(USERS) < 0.4
    assert forward == [(name, "start") for name in CHAIN]
    assert backward == [(name, action) for name in reversed(CHAIN) for action in ("rollback", "finish")]
    assert after == [["v1"] * len(USERS)] * len(CHAIN)
    assert load.unexplained == 0, load.examples


@pytest.mark.chaos
@LONG
async def test_a_chain_that_went_back_tries_again_with_other_users_and_ends_together(site):
    await begin(site, "name: third, everyone: 30%", "name: most, everyone: 60%")
    await site.until(lambda: all_at(site, "third"))
    first = await picks(site, "front")
    await site.act("rollback", "back-2")
    await site.until(lambda: ended(site, "rolled_back"))
    await site.post("/v1/releases/mid-2/retry")
    ahead, same = [], {}
    watch = asyncio.create_task(never_ahead(site, ahead))
    for step in ("third", "most"):
        await site.until(lambda step=step: all_at(site, step))
        same[step] = [await picks(site, name) for name in CHAIN]
    await site.until(lambda: ended(site, "promoted"))
    watch.cancel()
    load = await site.leave()

    assert not ahead
    assert all(back == mid == front for back, mid, front in same.values())
    assert same["third"][0] != first
    assert load.unexplained == 0, load.examples
    stable = {s["name"]: s["stable"] for s in await site.get("/v1/services")}
    assert stable == {"shop": "v1", **dict.fromkeys(CHAIN, "v2")}
