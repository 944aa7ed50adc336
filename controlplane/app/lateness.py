"""How late the event loop is, and why: what is late answers nobody, and looks as if it had stopped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Final

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

from controlplane.server.processor import Given, given

log = structlog.get_logger()
_KEPT: Final = 60  # measurements


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
            begin, before = monotonic(), given()
            await asyncio.sleep(self._every)
            late = max(0.0, monotonic() - begin - self._every)
            self._late.append(late)
            if late >= self._much:
                _say(late, before, given())

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


def _say(late: float, before: Given | None, after: Given | None) -> None:
    known: dict[str, object] = {}
    if before is not None and after is not None:
        spent = after.since(before)
        known = {"ran": round(spent.ran, 1), "waited_for_cpu": round(spent.waited, 1)}
        if spent.waited > late / 2:
            known["do"] = "give it more CPU, or its neighbours less"
    log.warning("event loop was late", seconds=round(late, 1), **known)
