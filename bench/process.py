"""A server in a process of its own, and what it costs."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PAGE = resource.getpagesize()


class Server:
    """A running server of `bench.servers`.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line())

    def publish(self, size: int) -> int:
        """Have it publish a route of ``size`` bytes; return when, in ns of the monotonic clock."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"publish {size}\n")
        self._process.stdin.flush()
        return int(self._line())

    def cpu(self) -> int:
        """Return the nanoseconds of CPU that all its threads have used, in the kernel too.

        It is the process's CPU clock, which also has what ended threads used. Source: clock_getcpuclockid(3).
        """
        return time.clock_gettime_ns(~self._process.pid << 3 | 2)

    def scheduled(self) -> tuple[float, float]:
        """Return the seconds that its first thread, the event loop's, ran and that it waited for a CPU."""
        schedstat = Path(f"/proc/{self._process.pid}/schedstat").read_text(encoding="ascii")
        ran, waited, _ = schedstat.split()
        return int(ran) / 1e9, int(waited) / 1e9

    def rss(self) -> int:
        """Return its resident bytes."""
        statm = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii")
        return int(statm.split()[1]) * PAGE

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with status {self._process.wait()}")
        return line


@contextlib.contextmanager
def server(kind: str, *, pinned: bool = False) -> Iterator[Server]:
    """Run a server, ``turnout`` or ``echo``; ``pinned`` to the first CPU.

    Its log goes to /dev/null: formatting it is part of what a server costs, a disk is not.
    """
    command = [sys.executable, "-m", "bench.servers", kind]
    root = Path(__file__).parents[1]
    pin = (lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})) if pinned else None
    process = subprocess.Popen(  # noqa: S603 (our own module)
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=root,
        text=True,
        preexec_fn=pin,  # noqa: PLW1509 (before any thread is started)
    )
    try:
        yield Server(process)
    finally:
        process.terminate()
        process.communicate()


def raise_limits(connections: int) -> None:
    """Allow this process and its children one descriptor for each connection.

    Raises:
        SystemExit: If the system allows fewer.
    """
    wanted = connections + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"{wanted} open files are needed, `ulimit -Hn` is {hard}; use fewer proxies")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
