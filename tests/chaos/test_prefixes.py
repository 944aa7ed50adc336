"""A half-written file lies in the followed folder while a release runs: nothing moves.

Besides the examples each folder has two orders that would start by themselves. ``payments-2`` is taken in and
waits for the running release alone; ``search-2`` is not there yet, and would start as soon as it is whole.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.app import logs
from controlplane.app.importing import Importer
from controlplane.release.state import Phase
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Act
from tests.app.site import Site

EXAMPLES = Path(__file__).parents[2] / "policies"
ALL = "TURNOUT_CHAOS" in os.environ  # every prefix, not a sample
LEFT = 10.0 if ALL else 2.0  # seconds for which a prefix lies there, at least
PATIENCE = 120.0  # for what a busy machine is to do
TOGETHER = 100  # each ticks while it is there: the more at once, the longer all take on a busy machine
SERVICE = b"""kind: Service
name: %(name)s
fleets: [edge]
routes: [{host: %(name)s.example.com}]
user: {from: [{header: x-user-id}], otherwise: random}
initial: v1
versions: {v1: {endpoints: ["10.9.0.1:80"]}, v2: {endpoints: ["10.9.0.2:80"]}}
"""
ORDER = b"""kind: Release
name: %(name)s-2
service: %(name)s
from: v1
to: v2
policy: careful
%(after)sstart: auto
"""
WAITING, NEW = "payments-2.yaml", "search-2.yaml"
TEXTS = {path.relative_to(EXAMPLES).as_posix(): path.read_bytes() for path in EXAMPLES.rglob("*.yaml")} | {
    "payments.yaml": SERVICE % {b"name": b"payments"},
    "search.yaml": SERVICE % {b"name": b"search"},
    WAITING: ORDER
    % {b"name": b"payments", b"after": b"after: [{release: checkout-2.4.0, reached: promoted}]\n"},
    NEW: ORDER % {b"name": b"search", b"after": b""},
}

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.waits,
    pytest.mark.long,
    pytest.mark.timeout(3600),  # of a busy machine
]


def prefixes():
    """Return (file, length): each, or some.

    Of the new order, which nothing before it shows to be cut, every end of a line with its neighbours and
    every fifth; of the order that waits every third end of a line with its neighbour; of all others, which
    are known by their beginning (`whole` of `policy/settling.py`, tested with each), half of the file.
    """
    found = []
    for name, data in sorted(TEXTS.items()):
        lines = [end for end, byte in enumerate(data) if byte == 10]
        if name == NEW:
            some = {end + beside for end in lines for beside in (-1, 0, 1)} | set(range(0, len(data), 5))
        elif name == WAITING:
            some = {end + beside for end in lines[::3] for beside in (0, 1)}
        else:
            some = {len(data) // 2}
        most = len(data.rstrip() if name == NEW else data)
        found += [(name, n) for n in range(most) if ALL or n in some]
    return found


class Follower:
    """A control plane of its own that follows a folder of its own, by the real clock."""

    def __init__(self, folder, file, length):
        self.folder, self.file, self.length = folder, file, length
        self.site = self.before = self.importer = None
        self.ticks = 0
        self._tasks = ()

    async def start(self):
        for name, data in TEXTS.items():
            path = self.folder / "policies" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name != NEW:
                path.write_bytes(data)
        store = await SqliteStore(self.folder / "data", ballast=0).open()
        self.site = await Site(store, lambda: datetime.now(UTC)).restore()
        self.site.fleet.mode = "all"
        self.importer = Importer(self.folder / "policies", self.site.plane)
        files = {str(p): p.read_bytes() for p in (self.folder / "policies").rglob("*.yaml")}
        orders = {name for name in files if b"kind: Release" in files[name]}
        # The first documents of a store start no release.
        for taken in ({name: files[name] for name in files if name not in orders}, files):
            applied = await self.site.plane.take(taken, "test")
            assert not applied.problems
        await self.site.plane.act("checkout-2.4.0", "advance", Act(actor="ann"))
        self._tasks = (asyncio.create_task(self.importer.run()), asyncio.create_task(self._tick()))
        world = await store.world()
        assert world.releases["payments-2"].start == "auto"
        self.before = self._essence(world)

    def cut(self):
        """Leave what a copy leaves that was stopped."""
        (self.folder / "policies" / self.file).write_bytes(TEXTS[self.file][: self.length])

    async def at_rest(self):
        """Return whether the folder was seen at rest as it was; what it has first is what is in force."""
        return self.importer._taken is not None

    async def noticed(self):
        """Return whether it is shown that something is missing, if it is."""
        return bool(self.site.plane.problems()) or not TEXTS[self.file][self.length :].strip()

    async def ticked(self, ticks):
        """Return whether there were so many ticks."""
        return self.ticks >= ticks

    async def began(self, name):
        """Return whether a release has begun."""
        state = (await self.site.store.world()).releases.get(name)
        return state is not None and state.active

    async def harm(self):
        """Return what is not as it was."""
        after = self._essence(await self.site.store.world())
        return [(self.file, self.length, key) for key in after if after[key] != self.before[key]]

    async def stop(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.site.store.close()
        shutil.rmtree(self.folder)

    async def _tick(self):
        while True:
            await self.site.loop.tick(datetime.now(UTC), asyncio.get_running_loop().time())
            self.ticks += 1
            await asyncio.sleep(2)

    @staticmethod
    def _essence(world):
        releases = world.releases.values()
        return {
            "documents": world.catalog.digests(),
            "stable": dict(world.stable),
            "releases": {r.key: (r.phase is Phase.PROGRESSING, r.step, r.policy, r.salt) for r in releases},
        }


async def comes(wanted):
    """Return whether something comes true while we have patience."""
    deadline = time.monotonic() + PATIENCE
    while not await wanted():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.2)
    return True


async def test_the_new_order_starts_once_it_is_whole(tmp_path):
    """Or the others would prove nothing."""
    logs.quiet()
    one = Follower(tmp_path / "whole", NEW, len(TEXTS[NEW]))
    await one.start()
    assert await comes(one.at_rest)
    one.cut()
    assert await comes(lambda: one.began("search-2"))
    await one.stop()


async def left(follower):
    """Leave a prefix in a folder of its own; return what it did harm to, and whether nobody was told."""
    await follower.start()
    assert await comes(follower.at_rest)
    follower.cut()
    enough = asyncio.create_task(asyncio.sleep(LEFT))
    silent = not await comes(follower.noticed)
    ticks = follower.ticks + 2  # one may be on its way
    assert await comes(lambda: follower.ticked(ticks))
    await enough
    harm = await follower.harm()
    await follower.stop()
    return harm, silent


async def test_no_prefix_of_an_example_starts_a_release_or_takes_a_field_away(tmp_path):
    """`make chaos` leaves every prefix of every file; the gate those of the two orders that could start."""
    logs.quiet()
    cases, room = prefixes(), asyncio.Semaphore(TOGETHER)

    async def one(file, length):
        async with room:
            return await left(Follower(tmp_path / f"{file.replace('/', '-')}-{length}", file, length))

    async with asyncio.TaskGroup() as group:
        tasks = {case: group.create_task(one(*case)) for case in cases}
    harm = [each for task in tasks.values() for each in task.result()[0]]
    silent = [case for case, task in tasks.items() if task.result()[1]]

    print(f"{len(cases)} prefixes, {LEFT:g} s each: {len(harm)} did harm, {len(silent)} went unreported")
    assert not harm
    assert not silent
