"""`make fuzz`: both stream handlers and every decoder of bytes that strangers send, against seeded mutation.

And both variants of the protocol against models of clients, in any order of events (`tests/xds`).

An execution is known by its target and number, so a crash is run again by `--target NAME --number N`. A crash
is any exception that the target does not expect, or the death of the process (the YAML parser is C).
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import mmap
import os
import resource
import sys
import time
import traceback
from collections.abc import Container
from pathlib import Path
from random import Random

from bench.machines import LIVES, machines
from bench.report import Table, say
from bench.targets import Target, targets
from controlplane.app import logs

SLICE = 0.5  # seconds of one target at a time
LONG_MS = 100  # an event loop must not be blocked for longer
MAX_CRASHES = 5  # of one target, then it is left out


class Run:
    """One target's executions so far."""

    def __init__(self, name: str, target: Target, seed: int) -> None:
        self.name, self.target, self.number = name, target, seed
        self.executions = self.crashes = 0
        self.slowest = (0.0, 0)  # ms of CPU, number
        self.seconds = 0.0

    def once(self, number: int) -> None:
        """Run one execution; raises what it raises."""
        self.target(Random(f"{self.name} {number}"))  # noqa: S311 (must be repeatable)

    def go(self, seconds: float, note: mmap.mmap) -> None:
        """Run executions for a while."""
        start = time.monotonic()
        while (spent := time.monotonic() - start) < seconds and self.crashes < MAX_CRASHES:
            note[:64] = f"{self.name} {self.number}".ljust(64).encode()
            before = time.thread_time()
            try:
                self.once(self.number)
            except Exception:  # noqa: BLE001 (whatever it is, it is what we look for)
                self.crashes += 1
                say(f"CRASH --target {self.name} --number {self.number}\n{traceback.format_exc()}")
            self.slowest = max(self.slowest, ((time.thread_time() - before) * 1e3, self.number))
            self.executions += 1
            self.number += 1
        self.seconds += spent


def fuzz(runs: list[Run], minutes: float, note: mmap.mmap, whole: Container[str] = ()) -> int:
    """Let the targets take turns, print what came of it, return the number of crashes.

    ``whole`` are those of which an execution is many requests, and may take long.
    """
    end = time.monotonic() + minutes * 60
    early = 0
    while (left := end - time.monotonic()) > 0:
        for run in runs:
            run.go(min(SLICE, left), note)
        if not early and left < minutes * 60 * 0.8:
            early = _rss()
    table = Table(
        ("target", "executions", "per s", "crashes", "longest ms", "its number"),
        widths=(16, 12, 10, 10, 12, 12),
    )
    for run in runs:
        longest, number = run.slowest
        rate = run.executions / run.seconds
        table.row(run.name, run.executions, f"{rate:.0f}", run.crashes, f"{longest:.0f}", number)
        if longest > LONG_MS and run.name not in whole:
            table.note(f"{run.name}: an event loop would be blocked for more than {LONG_MS} ms")
    if any(run.name in whole for run in runs):
        table.note(f"an execution of a machine is {LIVES} lives of a server and its clients")
    crashes = sum(run.crashes for run in runs)
    total = sum(run.executions for run in runs)
    grown = (_rss() - early) / 1e6
    say(f"  {total} executions, {crashes} crashes, RSS {grown:+.1f} MB after the first fifth of the time")
    return crashes


def _rss() -> int:
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


def main() -> None:
    """Fuzz in a child, so that its death is seen too."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="number of each target's first execution")
    parser.add_argument("--target", help="this one only")
    parser.add_argument("--number", type=int, help="one execution of --target, without catching anything")
    options = parser.parse_args()
    logs.configure("critical")
    whole = machines(Path("tests/xds"))
    known = targets(Path("policies")) | whole
    if options.target is not None and options.target not in known:
        parser.error(f"unknown target {options.target!r}; known: {', '.join(known)}")
    if options.number is not None:
        if options.target is None:
            parser.error("--number needs --target")
        Run(options.target, known[options.target], 0).once(options.number)
        return
    runs = [Run(name, t, options.seed) for name, t in known.items() if options.target in (None, name)]
    note = mmap.mmap(-1, 64)
    child = os.fork()
    if child == 0:
        faulthandler.enable()
        crashes = fuzz(runs, options.minutes, note, whole)
        sys.stdout.flush()
        os._exit(1 if crashes else 0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name, number = note[:64].decode().split()
        sys.exit(f"the process died of signal {os.WTERMSIG(status)}: --target {name} --number {number}")
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
