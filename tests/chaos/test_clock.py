"""The wall clock jumps in the middle of steps: no step is shorter, nothing stops, nothing ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.ledger import Weights
from tests.chaos.lives import Mortal

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
DWELL = 1  # seconds
JUMPS = {"third": "+1h", "most": "-2h", "all": "+10y"}

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.chaos,
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (package faketime)"),
]


class Displaced(Mortal):
    """An installation whose control plane believes a file about what time it is; Envoy does not."""

    async def displace(self, offset):
        new = self.folder / "clock.new"
        new.write_text(offset)
        new.rename(self.folder / "clock")

    async def start_serving(self):
        await self.displace("+0s")
        environment = {
            **os.environ,
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.folder / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        await self.serve_here(environment)


async def test_a_clock_that_jumps_shortens_no_step_and_stops_nothing(tmp_path, receiver):
    async with Displaced(tmp_path, "200ms") as site:
        await site.start_serving()
        await site.apply(*site.world("edge"))
        await site.start(edge_1=site.eager("edge-1"))
        await site.come(300)
        weights = await Weights(site.envoys["edge-1"]).begin()
        steps = (f"name: third, everyone: 30%, for: {DWELL}s", f"name: most, everyone: 60%, for: {DWELL}s")
        policy, order = site.order(*steps, guard=f"{DWELL}s")
        policy = policy.replace("name: all, everyone: 100%", f"name: all, everyone: 100%, for: {DWELL}s")
        policy += (
            f'hooks: [{{at: before_step, url: "{receiver.url}"}}, {{at: judging, url: "{receiver.url}"}}]\n'
        )
        policy += f'notify: [{{webhook: "{receiver.url}", on: [started, advanced, guarding, promoted]}}]\n'
        receiver.answers[:] = [503, 204, 503, 503]  # some are asked or told again, after the jump
        jumped = []
        # However late a busy machine sees that a step is judged, it is not over before the jump.
        receiver.refused = lambda body: (
            body["type"].endswith(".judging") and body["data"]["step"] not in jumped
        )
        await site.apply(policy, order)
        for step, offset in JUMPS.items():
            await site.released(step=step, stage="judge")
            await site.displace(offset)
            jumped.append(step)
        await site.released(phase="promoted")
        told = {"started", "advanced", "guarding", "promoted"}

        async def all_told():
            return told <= {body["type"].rpartition(".")[2] for _, _, body in receiver.got}

        await site.until(all_told)
        await weights.are([0, 3000, 6000, 9500, 10_000])
        seen = await site.leave()
        await weights.stop()

    assert min(seconds for _, seconds in weights.dwelt()) >= DWELL
    assert seen.unexplained == 0, seen.examples
    assert "Traceback" not in site.log
