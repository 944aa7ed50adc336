"""Lives of `turnout serve`: real processes that end by SIGKILL, quickly followed by the next one.

Importing everything takes a second of CPU, which a restart need not pay: each life is forked from a process
that has it imported, and that is the only difference from the command line.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import httpx

from controlplane.failpoints import VARIABLE
from tests.envoy.conftest import Site

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["controlplane.app.serving", "controlplane.cli.serve"])


def live(arguments, failpoint, log):
    """Run `turnout` with these arguments; this is what the forked process does."""
    with Path(log).open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.pop(VARIABLE, None)
    if failpoint:
        os.environ[VARIABLE] = failpoint
    sys.argv = ["turnout", *arguments]
    from controlplane.cli import main

    main()


class Mortal(Site):
    """An installation whose control plane is born to be killed."""

    def __init__(self, folder, interval):
        super().__init__(folder, interval)
        self._life = None

    async def live(self, failpoint=""):
        """Start the control plane, and do not wait for it: it may be killed before it is ready."""
        arguments = (
            "serve", f"--data={self.folder / 'data'}", f"--xds=127.0.0.1:{self.xds}",
            f"--http=127.0.0.1:{self.http}", f"--interval={self.interval}",
        )  # fmt: skip
        log = str(self.folder / "serve.log")
        self._life = _FORKS.Process(target=live, args=(arguments, failpoint, log), daemon=True)
        await asyncio.to_thread(self._life.start)

    async def up(self):
        """Return whether the control plane is ready."""
        try:
            return (await self.client.get("/readyz")).is_success
        except httpx.TransportError:
            return False

    def eager(self, node):
        """Return a bootstrap by which an Envoy comes back at once, however often it was left alone."""
        made = self.bootstrap(node)
        (service,) = made["dynamic_resources"]["ads_config"]["grpc_services"]
        pause = {"base_interval": "0.05s", "max_interval": "0.1s"}
        service["envoy_grpc"]["retry_policy"]["retry_back_off"] = pause
        return made

    def end(self):
        """Kill the control plane now, wherever it is."""
        self._life.kill()

    async def death(self, within):
        """Wait until the process was killed at its failpoint."""
        await asyncio.to_thread(self._life.join, within)
        assert self._life.exitcode == -signal.SIGKILL, f"ended with {self._life.exitcode}\n{self.log[-3000:]}"

    async def __aexit__(self, *_):
        await super().__aexit__(*_)
        if self._life is not None and self._life.is_alive():
            self._life.terminate()
            await asyncio.to_thread(self._life.join, 20)
