"""A half-written file lies in the followed folder while a release runs: nothing moves."""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.app import logs
from controlplane.app.importing import Importer
from controlplane.release.state import Phase
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.port import Act
from tests.app.site import Site

EXAMPLES = Path(__file__).parents[2] / "policies"
ALL = "TURNOUT_CHAOS" in os.environ  # every prefix, not a sample
LEFT = 10.0  # seconds for which a prefix lies there
TOGETHER = 250

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.xdist_group("prefixes"),
    pytest.mark.timeout(3600),  # of a busy machine
]


def prefixes():
    """Return (file, length): each, or each end of a line with its neighbour and every 50th.

    Of the policies to start from, which are alike, every 100th.
    """
    found = []
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        data, name = path.read_bytes(), path.relative_to(EXAMPLES).as_posix()
        ends = {end + beside for end, byte in enumerate(data) if byte == 10 for beside in (0, 1)}
        some = set(range(0, len(data), 100)) if "/" in name else ends | set(range(0, len(data), 50))
        found += [(name, n) for n in range(len(data)) if ALL or n in some]
    return found


class Follower:
    """A control plane of its own that follows a folder of its own, by the real clock."""

    def __init__(self, folder, file, length):
        self.folder, self.file, self.length = folder, file, length
        self.site = self.before = None
        self._tasks = ()

    async def start(self):
        shutil.copytree(EXAMPLES, self.folder / "policies")
        store = await SqliteStore(self.folder / "data", ballast=0).open()
        self.site = await Site(store, lambda: datetime.now(UTC)).restore()
        self.site.fleet.mode = "all"
        importer = Importer(self.folder / "policies", self.site.plane)
        files = {str(p): p.read_bytes() for p in (self.folder / "policies").rglob("*.yaml")}
        applied = await self.site.plane.take(files, "test")
        assert not applied.problems
        await self.site.plane.act("checkout-2.4.0", "advance", Act(actor="ann"))
        self._tasks = (asyncio.create_task(importer.run()), asyncio.create_task(self._tick()))
        self.before = self._essence(await store.world())

    def cut(self):
        """Leave what a copy leaves that was stopped."""
        (self.folder / "policies" / self.file).write_bytes((EXAMPLES / self.file).read_bytes()[: self.length])

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

    @property
    def problems(self):
        return self.site.plane.problems()

    async def _tick(self):
        while True:
            await self.site.loop.tick(datetime.now(UTC), asyncio.get_running_loop().time())
            await asyncio.sleep(2)

    @staticmethod
    def _essence(world):
        releases = world.releases.values()
        return {
            "documents": world.catalog.digests(),
            "stable": dict(world.stable),
            "releases": {r.key: (r.phase is Phase.PROGRESSING, r.step, r.policy, r.salt) for r in releases},
        }


async def test_no_prefix_of_an_example_starts_a_release_or_takes_a_field_away(tmp_path):
    logs.quiet()
    harm, silent, cases = [], [], prefixes()
    for start in range(0, len(cases), TOGETHER):
        batch = [
            Follower(tmp_path / f"{file.replace('/', '-')}-{n}", file, n)
            for file, n in cases[start : start + TOGETHER]
        ]
        for one in batch:
            await one.start()
        await asyncio.sleep(2.5)  # each folder was seen at rest
        for one in batch:
            one.cut()
        await asyncio.sleep(LEFT)
        for one in batch:
            harm += await one.harm()
            if (EXAMPLES / one.file).read_bytes()[one.length :].strip() and not one.problems:
                silent.append((one.file, one.length))
        await asyncio.gather(*(one.stop() for one in batch))

    print(f"{len(cases)} prefixes, {LEFT:g} s each: {len(harm)} did harm, {len(silent)} went unreported")
    assert not harm
    assert not silent
