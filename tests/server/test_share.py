"""What takes long has some of each turn of the loop, by time, and peers by turns."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

from controlplane.server.share import Share
from controlplane.xds.view import Peer
from tests.waiting import PATIENCE


def busy(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def test_many_that_are_quick_do_not_share_one_turn_of_the_loop():
    share, done, seen = Share(0.005), [], []

    def work():
        busy(0.002)
        done.append(None)

    tasks = [asyncio.create_task(share.take(Peer("10.0.0.1:1"), work)) for _ in range(30)]
    while len(done) < len(tasks):
        seen.append(len(done))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)

    seen.append(len(done))
    assert max(after - before for before, after in pairwise(seen)) <= 3


async def test_a_peer_does_not_wait_behind_all_of_another():
    share, order = Share(0.001), []

    def work(name):
        return lambda: (busy(0.002), order.append(name))

    bad, good = Peer("10.0.0.1:1"), Peer("10.0.0.2:1")
    tasks = [asyncio.create_task(share.take(bad, work("bad"))) for _ in range(20)]
    tasks.append(asyncio.create_task(share.take(good, work("good"))))
    await asyncio.gather(*tasks)

    assert order.index("good") <= 3


async def test_who_leaves_while_it_waits_has_nothing_done():
    share, order = Share(0.001), []
    peer = Peer("10.0.0.1:1")
    tasks = [
        asyncio.create_task(share.take(peer, lambda n=n: (busy(0.002), order.append(n)))) for n in range(3)
    ]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert order == [0, 2]


async def test_what_waiting_work_raises_comes_to_who_asked_and_the_others_go_on():
    share, order = Share(0.001), []
    peer = Peer("10.0.0.1:1")

    def work(number):
        busy(0.002)
        order.append(1 / number)

    tasks = [asyncio.create_task(share.take(peer, lambda n=n: work(n))) for n in (1, 0, 2)]
    done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)

    assert order == [1, 0.5]
    assert isinstance(done[1], ZeroDivisionError)
