"""Who has which turn of the event loop, counted by the clock that the server looks at: each look is 3 ms."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from bench.seam import Proxy
from bench.wire import ANSWERS, ROUTES, snapshots
from controlplane._pb.discovery_pb2 import DeltaDiscoveryRequest
from controlplane.server import share, turns
from controlplane.server.limits import Limits
from controlplane.server.streams import XdsServer
from controlplane.xds.type_urls import CLUSTER, ROUTE

LOOK = 0.003  # seconds
FEW = 8  # streams that may have what takes long in one turn of the loop


@pytest.fixture
def slow(monkeypatch):
    """Let every piece of work take long."""
    now = 1e9  # later than any deadline

    def look():
        nonlocal now
        now += LOOK
        return now

    def begin():
        monkeypatch.setattr(share, "monotonic", look)
        monkeypatch.setattr(turns, "monotonic", look)

    return begin


@pytest.fixture
async def fleet():
    """Thirty proxies that have a route and are at rest, and their server."""
    server, sequence = XdsServer(lambda n: n.cluster, limits=Limits(first_requests=1e9)), snapshots()
    server.publish("edge", sequence.next(1000))
    proxies = [Proxy("delta", number, ROUTES) for number in range(30)]
    tasks = [asyncio.create_task(server.serve(each, "delta")) for each in proxies]
    await step_until(lambda: all(each.done and each.free for each in proxies))
    take_and_answer(proxies)
    await step_until(lambda: all(each.free for each in proxies))
    yield server, sequence, proxies
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def take_and_answer(proxies):
    for each in proxies:
        each.take()
        each.answer(ANSWERS["delta"](each.sent.pop()))


async def step_until(true):
    """Let the loop turn until something is true."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come true")


async def per_turn(count):
    """Return how many more there were in each turn of the loop, until all thirty."""
    seen = [count()]
    for _ in range(1000):
        if seen[-1] == 30:
            break
        await asyncio.sleep(0)
        seen.append(count())
    return [after - before for before, after in pairwise(seen)]


def asking_for(server, type_url):
    return sum(view.of(type_url) is not None for view in server.views())


async def test_small_requests_that_take_long_do_not_share_one_turn_of_the_loop(fleet, slow):
    server, _, proxies = fleet
    request = DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_subscribe=["a"]).SerializeToString()

    slow()
    for each in proxies:
        each.answer(request)
    found = await per_turn(lambda: asking_for(server, CLUSTER))

    assert sum(found) == 30
    assert max(found) <= FEW


async def test_acks_of_clients_at_rest_wait_for_nobody(fleet, slow):
    server, sequence, proxies = fleet
    server.publish("edge", sequence.next(1000))
    await step_until(lambda: all(each.done and each.free for each in proxies))

    slow()
    take_and_answer(proxies)
    found = await per_turn(lambda: sum(view.of(ROUTE).waiting_since is None for view in server.views()))

    assert 30 in found


async def test_pushes_that_take_long_do_not_share_one_turn_of_the_loop(fleet, slow):
    server, sequence, proxies = fleet

    slow()
    server.publish("edge", sequence.next(1000))
    found = await per_turn(lambda: sum(each.done is not None for each in proxies))

    assert sum(found) == 30
    assert max(found) <= FEW


async def test_what_is_due_after_a_write_has_its_turn(fleet, slow):
    server, sequence, proxies = fleet
    everything = DeltaDiscoveryRequest(type_url=CLUSTER).SerializeToString()
    server.publish("edge", sequence.next(1000))
    await step_until(lambda: all(each.done and each.free for each in proxies))
    for each in proxies:
        each.answer(everything)  # it is answered once the route is out
    await step_until(lambda: asking_for(server, CLUSTER) == 30)

    slow()
    for each in proxies:
        each.take()
    found = await per_turn(lambda: sum(each.done is not None for each in proxies))

    assert sum(found) == 30
    assert max(found) <= FEW
