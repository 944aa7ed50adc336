"""`turnout` as a process of its own, by its command line.

Importing everything takes a second of CPU, which a test need not pay: each life is forked from a process that
has it imported, and that is the only difference from the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

from controlplane.failpoints import VARIABLE

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.preloaded"])


class Life:
    """One life of it; what it says goes to a log."""

    def __init__(self, arguments, log, failpoint=""):
        self._process = _FORKS.Process(target=_live, args=(arguments, str(log), failpoint), daemon=True)

    async def start(self):
        """Start it; it is not ready yet."""
        await asyncio.to_thread(self._process.start)

    @property
    def status(self):
        """How it ended, as of `subprocess`; None as long as it runs."""
        return self._process.exitcode

    def kill(self):
        self._process.kill()

    def terminate(self):
        self._process.terminate()

    async def ended(self, within):
        """Wait for its end for some seconds; return its status."""
        await asyncio.to_thread(self._process.join, within)
        return self.status


class Command:
    """The same as a new program, for a test that is in a place of its own: a namespace, an environment."""

    def __init__(self, arguments, log, environment=None):
        self._arguments = (sys.executable, "-c", "from controlplane.cli import main; main()", *arguments)
        self._log = log
        self._environment = environment
        self._process = None

    async def start(self):
        """Start it; it is not ready yet."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments, env=self._environment, stdout=log, stderr=log
            )

    @property
    def status(self):
        """How it ended, as of `subprocess`; None as long as it runs."""
        return self._process.returncode

    def kill(self):
        self._process.kill()

    def terminate(self):
        self._process.terminate()

    async def ended(self, within):
        """Wait for its end for some seconds; return its status."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), within)
        return self.status


def _live(arguments, log, failpoint):
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    with Path(log).open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.pop(VARIABLE, None)
    if failpoint:
        os.environ[VARIABLE] = failpoint
    sys.argv = ["turnout", *arguments]
    from controlplane.cli import main

    main()


def _end_with_the_tests():
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)
