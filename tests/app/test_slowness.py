"""A store or a tick that takes longer than an interval is a problem and a figure, until a while after."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from controlplane.app import logs
from controlplane.app.slowness import CPU, DISK, LASTS, Slowness
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Act, Order
from controlplane.web.port import RefusedError
from tests.app import site as sites
from tests.app.test_attention import figures
from tests.waiting import until

ANN = Act(actor="ann")
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")
WAIT = "where an interval has 5s: decisions and commands, rollbacks too, wait for it"


class OnSlowDisk(SqliteStore):
    """A store that waits for its disk before each commit, and takes some seconds of a clock."""

    def __init__(self, folder, clock):
        super().__init__(folder)
        self.clock, self.seconds = clock, 0.0
        self.disk = asyncio.Event()
        self.disk.set()

    async def commit(self, change):
        await self.disk.wait()
        self.clock.pass_(self.seconds)
        return await super().commit(change)


@pytest.fixture
async def slow(tmp_path):
    """A site over such a store, whose ticks and commits are measured by the same clock."""
    clock = sites.Clock()
    store = await OnSlowDisk(tmp_path, clock).open()
    site = await sites.Site(store, clock).restore()
    site.loop.slowness = Slowness(sites.INTERVAL, lambda: clock.monotonic)
    await site.plane.take(sites.files(), "test")
    site.publisher.publish(await store.world())
    yield site
    store.disk.set()
    await store.close()


async def ticked(site):
    """Let the loop run for a tick, which has an end."""
    world, running = site.loop.world, asyncio.create_task(site.loop.run(site.clock))
    await until(lambda: figures(site)["turnout_tick_seconds_count"] >= 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert site.loop.world is not world


async def test_a_commit_that_takes_longer_than_an_interval_is_told_while_it_does_and_for_a_minute(slow):
    assert slow.plane.problems() == ()
    slow.store.disk.clear()
    ordering = asyncio.create_task(slow.plane.order(TO_V2))
    await until(lambda: slow.clock.pass_(6) or slow.plane.problems())

    (going,) = slow.plane.problems()
    told = figures(slow)
    slow.store.disk.set()
    await ordering
    (over,) = slow.plane.problems()
    after = figures(slow)
    slow.clock.pass_(LASTS.total_seconds())

    assert going == over
    assert going.startswith("the store is slow: a commit took ")
    assert going.endswith(f" s, {WAIT}; {DISK}")
    assert (told["turnout_decisions_late"], after["turnout_decisions_late"]) == (1, 1)
    assert (told["turnout_problems"], told["turnout_store_commit_seconds_count"]) == (1, 1)
    assert after["turnout_store_commit_seconds_count"] == 2
    assert after['turnout_store_commit_seconds_bucket{le="5.0"}'] == 1
    assert after["turnout_store_commit_seconds_sum"] >= 6
    assert slow.plane.problems() == ()
    assert figures(slow)["turnout_decisions_late"] == 0


async def test_a_commit_that_is_slow_and_fails_is_told_too(slow):
    await slow.plane.order(TO_V2)
    slow.store.seconds = 7.0
    slow.store.path.unlink()

    with pytest.raises(RefusedError, match="nothing was changed"):
        await slow.plane.act("shop-v2", "pause", ANN)

    (told,) = slow.plane.problems()
    assert told == f"the store is slow: a commit took 7.0 s, {WAIT}; {DISK}"


@pytest.mark.parametrize(
    ("statistics", "store", "said", "do"),
    [
        (7.0, 0.0, "one took 7.0 s, 0.0 s of them in the store", CPU),
        (2.0, 4.0, "one took 6.0 s, 4.0 s of them in the store", DISK),
        (2.0, 2.0, "", ""),
    ],
)
async def test_a_tick_that_takes_longer_than_its_interval_says_how_much_of_it_is_the_store(
    slow, monkeypatch, statistics, store, said, do
):
    observe, slow.store.seconds = slow.statistics.observe, store

    async def late(*args):
        slow.clock.pass_(statistics)
        return await observe(*args)

    monkeypatch.setattr(slow.statistics, "observe", late)
    logs.configure("warning")
    with capture_logs() as lines:
        await ticked(slow)
    logs.quiet()
    told = slow.plane.problems()
    slow.clock.pass_(LASTS.total_seconds())

    assert told == ((f"ticks are slow: {said}, {WAIT}; {do}",) if said else ())
    assert [(line["what"], line["log_level"]) for line in lines] == ([("tick", "warning")] if said else [])
    assert slow.plane.problems() == ()


async def test_a_tick_that_does_not_come_to_its_end_is_told(slow):
    async with slow.loop.lock:
        running = asyncio.create_task(slow.loop.run(slow.clock))
        (told,) = await until(lambda: slow.clock.pass_(6) or slow.plane.problems())
        running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert told.startswith("ticks are slow: one took ")
