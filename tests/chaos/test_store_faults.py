"""The store fails while a release runs: no new step, a clear alarm, and proxies keep what they have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from controlplane.stores.upkeep import backup, restore
from tests.chaos.ledger import Weights
from tests.chaos.lives import Mortal
from tests.waiting import PATIENCE

ALL = "TURNOUT_CHAOS" in os.environ  # each fault, not two of them
DWELL = 1  # seconds
ROLLBACK = ["-c", "from controlplane.cli import main; main()", "rollback", "shop-v2", "--reason", "full disk"]

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.chaos,
    pytest.mark.long,
]


class Release:
    """A release that stands in its first step, and would go on a moment after its hook is answered.

    However long a busy machine takes to break the store or to start anew, no step is over before that.
    """

    def __init__(self, folder, receiver):
        self.site = Mortal(folder, "200ms")
        self.weights = None
        self.answered = receiver.go_on
        self._hook = f'hooks: [{{at: judging, url: "{receiver.url}", timeout: {2 * PATIENCE:g}s}}]\n'

    async def __aenter__(self):
        self.answered.clear()
        site = await self.site.__aenter__()
        await self.serve()
        await site.apply(*site.world("edge"))
        await site.start(edge_1=site.eager("edge-1"))
        await site.come(200)
        self.weights = await Weights(site.envoys["edge-1"]).begin()
        policy, order = site.order(f"name: third, everyone: 30%, for: {DWELL:g}s")
        await site.apply(policy + self._hook, order)
        await site.released(step="third", stage="judge")
        await self.weights.are([0, 3000])
        return self

    async def __aexit__(self, *error):
        self.answered.set()
        await self.weights.stop()
        await self.site.__aexit__(*error)

    async def serve(self):
        await self.site.live()
        await self.site.until(self.site.up)

    async def kill(self):
        self.site.end()
        await self.site.death()

    async def refuses_to_serve(self, why):
        """Start the control plane: it must end by itself, and say why in one line."""
        before = len(self.site.log)
        await self.site.live()
        assert await self.site.life.ended(PATIENCE) == 1
        said = self.site.log[before:]
        assert said.count("\n") == 1
        assert why in said

    async def alarm(self, why):
        """Return once everybody can see what is wrong."""

        async def seen():
            problems = await self.site.problems()
            metrics = (await self.site.client.get("/metrics")).text
            return any(why in each for each in problems) and "turnout_decisions_failing 1.0" in metrics

        await self.site.until(seen)
        assert "store failed, no decisions" in self.site.log

    async def stands(self):
        """Let the step's time pass, with its hook answered, and more; nothing may happen."""
        assert self.answered.is_set()
        await asyncio.sleep(1.5 * DWELL)
        assert self.weights.sequence == [0, 3000]
        assert (await self.site.client.get("/livez")).is_success


@pytest.fixture
def mounted(tmp_path):
    """Return how to mount something at the store's folder; it is gone when the test ends."""
    folder = tmp_path / "data"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")

    def mount(*options):
        done = run("mount", *options, folder)
        if done.returncode:
            pytest.skip(f"this machine does not let root mount it: {done.stderr.strip()}")
        return folder

    yield mount
    run("umount", "--lazy", folder)


def run(*command):
    return subprocess.run(command, check=False, capture_output=True, text=True)


def fill(folder):
    """Write until the disk is full; returns the file."""
    path = folder / "somebody-elses.log"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return path


async def test_a_full_disk_stops_steps_and_not_a_rollback(tmp_path, mounted, receiver):
    data = mounted("-t", "tmpfs", "-o", "size=24m", "tmpfs")
    async with Release(tmp_path, receiver) as release:
        site = release.site
        other = fill(data)

        await release.alarm("free some room: nothing but a rollback is recorded until then")
        release.answered.set()
        await release.stands()
        environment = {**os.environ, "TURNOUT_SERVER": f"http://127.0.0.1:{site.http}"}
        asked = await asyncio.create_subprocess_exec(sys.executable, *ROLLBACK, env=environment)
        assert await asked.wait() == 0
        await site.released(phase="rolled_back")
        assert (await site.get("/v1/records?release=shop-v2"))[-1]["action"] == "finish"
        await release.alarm("almost full; free some room")
        await release.weights.are([0, 3000, 0])

        other.unlink()
        await site.until(lambda: _well(site))
        await site.act("retry")
        await site.released(step="third")
        seen = await site.leave()
    assert seen.unexplained == 0, seen.examples


async def test_a_disk_that_becomes_read_only_stops_steps_until_it_is_well(tmp_path, mounted, receiver):
    image = tmp_path / "image"
    image.write_bytes(bytes(48 * 1024 * 1024))
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4")
    run("mkfs.ext4", "-q", image)
    data = mounted("-o", "loop", image)
    async with Release(tmp_path, receiver) as release:
        # As the kernel does after an error of the device: also for files that are open.
        run("mount", "-o", "remount,abort", data)
        release.answered.set()

        await release.alarm(str(data / "turnout.db"))
        await release.stands()
        answer = await release.site.client.post("/v1/releases/shop-v2/rollback", json={"actor": "tester"})
        assert answer.status_code == 503
        assert "nothing was changed" in answer.text

        await release.kill()
        run("umount", data)
        mounted("-o", "loop", image)
        await release.serve()
        await release.site.released(phase="promoted")
        seen = await release.site.leave()
    assert seen.unexplained == 0, seen.examples


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def gone(path):
    path.rename(path.with_name("elsewhere.db"))


def newer(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")


FAULTS = {
    cut: ("while in use; stop the server and restore a copy", "restore a copy"),
    empty: ("while in use; stop the server and restore a copy", "is empty; restore a copy"),
    gone: ("is gone while in use", ""),
    newer: ("schema 99 was put in place", "use a newer turnout"),
}


async def test_a_damaged_store_takes_no_step_and_is_not_started_with(tmp_path, receiver):
    copy, path = tmp_path / "copy.db", tmp_path / "data" / "turnout.db"
    async with Release(tmp_path, receiver) as release:
        backup(path, copy)
        for damage in FAULTS if ALL else (cut, newer):
            running, starting = FAULTS[damage]
            damage(path)
            release.answered.set()
            await release.alarm(running)
            await release.stands()
            release.answered.clear()
            await release.kill()
            if starting:
                restore(copy, tmp_path / "data")
                damage(path)
                await release.refuses_to_serve(starting)
            restore(copy, tmp_path / "data")
            await release.serve()
            await release.site.until(lambda: _well(release.site))
        release.answered.set()
        await release.site.released(phase="promoted")
        await release.weights.are([0, 3000, 9500, 10_000])
        seen = await release.site.leave()
    assert seen.unexplained == 0, seen.examples


async def _well(site):
    metrics = (await site.client.get("/metrics")).text
    return "turnout_decisions_failing 0.0" in metrics and not await site.problems()
