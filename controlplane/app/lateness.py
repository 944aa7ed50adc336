"""How late the event loop is, and why: what is late answers nobody, and looks as if it had stopped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Final

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

log = structlog.get_logger()
_KEPT: Final = 60  # measurements
_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")


class Lateness:
    """Measures by how much a sleep of the loop is too long; a Prometheus collector of the most in a minute.

    Args:
        every: Seconds of each sleep.
        much: Seconds too long that are worth a line in the log.
    """

    def __init__(self, every: float = 1.0, much: float = 5.0) -> None:
        self._every = every
        self._much = much
        self._late: deque[float] = deque((0.0,), _KEPT)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            begin, before = monotonic(), _cpu()
            await asyncio.sleep(self._every)
            late = max(0.0, monotonic() - begin - self._every)
            self._late.append(late)
            if late >= self._much:
                _say(late, before, _cpu())

    def describe(self) -> Iterator[Metric]:
        """Yield what is collected, as it never differs."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Yield the gauge."""
        yield GaugeMetricFamily(
            "turnout_loop_late_seconds",
            "The longest time in the last minute that nobody was answered.",
            value=max(self._late),
        )


def _cpu() -> tuple[float, float] | None:
    """Return the seconds that this thread ran, and waited for a CPU; None where the system does not say.

    Source: the kernel's Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat".
    """
    try:
        ran, waited, _ = _SCHEDSTAT.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return int(ran) / 1e9, int(waited) / 1e9


def _say(late: float, before: tuple[float, float] | None, after: tuple[float, float] | None) -> None:
    known: dict[str, object] = {}
    if before is not None and after is not None:
        ran, waited = after[0] - before[0], after[1] - before[1]
        known = {"ran": round(ran, 1), "waited_for_cpu": round(waited, 1)}
        if waited > late / 2:
            known["do"] = "give it more CPU, or its neighbours less"
    log.warning("event loop was late", seconds=round(late, 1), **known)
