"""A peer can fill only so much of the log."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from controlplane.server.sparing import Sparing
from controlplane.xds.type_urls import ROUTE
from controlplane.xds.view import Peer

FLOOD = 250  # refusals: a hundred are logged at once, then one per second


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.usefixtures("unconfigured")
async def test_a_flood_of_refusals_is_counted_and_shown_and_logged_in_part(serve, kit):
    world = await serve()
    world.xds.publish("edge", kit.snapshot(1, ROUTE, kit.resource("r")))
    call = world.connect(f"/{kit.ADS}/DeltaAggregatedResources")

    with capture_logs() as lines:
        await call.ask(ROUTE, resource_names_subscribe=["r"])
        began = asyncio.get_running_loop().time()
        for number in range(FLOOD):
            again = {} if number == FLOOD - 1 else {"resource_names_subscribe": ["r"]}
            error = {"code": 3, "message": b"%d " % number + b"x" * 3000}
            await call.ask(ROUTE, response_nonce=(await call.hear()).nonce, error_detail=error, **again)
        await kit.until(lambda: world.xds.counts.nacks == FLOOD)
        lasted = asyncio.get_running_loop().time() - began

    refused = [line for line in lines if line["event"] == "response refused"]
    seen = world.xds.views()[0].of(ROUTE)
    assert 100 <= len(refused) <= 101 + lasted
    assert seen.nacked == FLOOD
    assert seen.nacks["r"].message.startswith(f"{FLOOD - 1} ")


def test_lines_come_back_with_time_and_say_what_was_left_out():
    clock, peer = Clock(), Peer("10.0.0.1:1")
    sparing = Sparing(clock)

    burst = [sparing.line(peer) for _ in range(103)]
    clock.now = 1.0
    later = [sparing.line(peer) for _ in range(2)]
    clock.now = 1000.0
    rested = [sparing.line(peer) for _ in range(101)]

    assert burst == [0] * 100 + [None] * 3
    assert later == [3, None]
    assert rested == [1] + [0] * 99 + [None]


def test_a_peer_takes_no_lines_of_another_one():
    sparing = Sparing(Clock())
    for port in range(200):
        sparing.line(Peer(f"10.0.0.1:{port}"))

    assert sparing.line(Peer("10.0.0.2:1")) == 0


def test_only_so_many_peers_are_remembered():
    sparing = Sparing(Clock())

    for number in range(10_100):
        sparing.line(Peer(f"host-{number}:1"))

    assert len(sparing._peers) == 10_000
