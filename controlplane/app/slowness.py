"""Ticks and commits that take longer than an interval: what is decided, rollbacks too, is late by as much."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from itertools import accumulate
from time import monotonic
from typing import Final

import structlog
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from controlplane.policy.values import format_duration

log = structlog.get_logger()

LASTS: Final = timedelta(minutes=1)  # that a slow one counts; four intervals, if that is longer
EDGES: Final = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
)  # seconds
DISK: Final = "see what slows the store's disk, or give it a faster one"
CPU: Final = "give the server more CPU, or a longer `--interval` with the `--flush` of bootstraps"


class Durations:
    """How long each of something takes, one at a time.

    Attributes:
        last: Seconds that the last one took.
        sum: Seconds of all together.
    """

    def __init__(self, what: str, much: timedelta, clock: Callable[[], float]) -> None:
        self._what = what
        self._much = much.total_seconds()
        self._lasts = max(LASTS, 4 * much).total_seconds()
        self._clock = clock
        self._began: float | None = None
        self._slow: tuple[float, float] | None = None  # the last that was: when it ended, and what it took
        self._counts = [0] * (len(EDGES) + 1)
        self.last = self.sum = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure what is done inside, also if it fails."""
        self._began = began = self._clock()
        try:
            yield
        finally:
            now = self._clock()
            self._began, self.last = None, now - began
            self._counts[bisect_left(EDGES, self.last)] += 1
            self.sum += self.last
            if self.last > self._much:
                if not self.late:
                    log.warning("took longer than an interval", what=self._what, seconds=round(self.last, 1))
                self._slow = now, self.last

    @property
    def late(self) -> float:
        """The seconds of what goes on, or of the last slow one, as long as it counts; 0 if there is none."""
        now = self._clock()
        if self._began is not None and now - self._began > self._much:
            return now - self._began
        return self._slow[1] if self._slow is not None and now - self._slow[0] < self._lasts else 0.0

    def family(self, name: str, what: str) -> Metric:
        """Return the histogram."""
        known = zip((*map(str, EDGES), "+Inf"), accumulate(self._counts), strict=True)
        buckets = [(edge, float(number)) for edge, number in known]
        return HistogramMetricFamily(name, what, buckets=buckets, sum_value=self.sum)


class Slowness:
    """Measures ticks and commits, whatever the store, and says what is wrong where they are slow."""

    def __init__(self, interval: timedelta, clock: Callable[[], float] = monotonic) -> None:
        self._interval = interval
        self._commits = Durations("commit", interval, clock)
        self._ticks = Durations("tick", interval, clock)
        self._stored = 0.0  # seconds of the last slow tick in which something was committed

    def commit(self) -> AbstractContextManager[None]:
        """Measure a commit."""
        return self._commits.measured()

    @contextmanager
    def tick(self) -> Iterator[None]:
        """Measure a tick, with its wait for others who write."""
        before = self._commits.sum
        try:
            with self._ticks.measured():
                yield
        finally:
            if self._ticks.last > self._interval.total_seconds():
                self._stored = self._commits.sum - before

    def problems(self) -> Iterator[str]:
        """Say what is slow, and what to do; of a tick that waits for the store it is the store."""
        late = (
            f"where an interval has {format_duration(self._interval)}: decisions and commands, rollbacks too,"
        )
        if took := self._commits.late:
            yield f"the store is slow: a commit took {took:.1f} s, {late} wait for it; {DISK}"
        elif took := self._ticks.late:
            do = DISK if self._stored > took / 2 else CPU
            of = f"{self._stored:.1f} s of them in the store, "
            yield f"ticks are slow: one took {took:.1f} s, {of}{late} wait for it; {do}"

    def collect(self) -> Iterator[Metric]:
        """Yield both histograms, and whether something is slow."""
        yield self._commits.family("turnout_store_commit_seconds", "How long the store took to commit.")
        yield self._ticks.family("turnout_tick_seconds", "How long ticks took, with their commits.")
        late = GaugeMetricFamily(
            "turnout_decisions_late", "1 while ticks or commits of late took longer than an interval."
        )
        late.add_metric([], bool(self._commits.late or self._ticks.late))
        yield late
