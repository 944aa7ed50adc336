"""The sample service with noise, for `bench.real`: ``python -m bench.noisy PORT PORT``.

Both versions are the same code. Latencies have the shape of the simulator's. What varies besides: errors and
latencies drift, alike for both versions; a version's own bursts fail for a moment, its own pauses hold all of
its requests; some users always fail a little.
"""

from __future__ import annotations

import math
import random
import time
import zlib

from controlplane.demo.sample import Sample, main
from controlplane.simulation.traffic import FAST, TAIL

ERRORS = 0.003  # besides those of bursts, of users, and the sample service's own
SLOWEST_MS = 2000.0
DRIFT = (60.0, 0.4, 0.1)  # seconds; spread of the errors' logarithm, of the latencies'
BURST = (90.0, 0.5, 10.0, 0.05, 0.4)  # mean time between; least, longest; least and greatest share that fails
PAUSE = (20.0, 0.05, 0.3)  # mean time between; shortest, longest
UNLUCKY, OFTEN = 150, 0.05  # one user of so many fails so often
_STEP = 0.5  # seconds between two looks at the drift
_TABLE = 8192


class Drift:
    """Factors of errors and latency that both versions share; it goes with the clock."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"drift/{seed}")
        self._at, self._errors, self._latency = 0.0, 0.0, 0.0

    def factors(self, now: float) -> tuple[float, float]:
        """Return the factors of errors and of latency at a time that does not go back."""
        scale, errors, latency = DRIFT
        keep = math.exp(-_STEP / scale)
        push = math.sqrt(1 - keep * keep)
        self._at = max(self._at, now - 10 * scale)
        while self._at < now:
            self._at += _STEP
            self._errors = keep * self._errors + push * self._rng.gauss(0, errors)
            self._latency = keep * self._latency + push * self._rng.gauss(0, latency)
        return math.exp(self._errors - errors**2 / 2), math.exp(self._latency)


class Noisy(Sample):
    """One version of the service."""

    drifts: dict[int, Drift] = {}  # noqa: RUF012 - one per seed, for both versions of the process

    def __init__(self, version: str, port: int = 0, seed: int = 0) -> None:
        super().__init__(version, port, seed)
        self._noise = random.Random(f"noise/{seed}/{version}")
        self._latencies = tuple(self._draw() for _ in range(_TABLE))
        self._drift = self.drifts.setdefault(seed, Drift(seed))
        now = time.monotonic()
        self._burst, self._burst_ends, self._fails = now + self._after(BURST[0]), 0.0, 0.0
        self._pause, self._pause_ends = now + self._after(PAUSE[0]), 0.0

    def answer(self, head: bytes) -> tuple[float, bytes]:
        """Return after how many seconds, and with which bytes, a request with this head is answered."""
        now = time.monotonic()
        self._go_to(now)
        errors, slower = self._drift.factors(now)
        seconds, response = super().answer(head)
        seconds = min(seconds * slower, SLOWEST_MS / 1000) + max(0.0, self._pause_ends - now)
        failing = ERRORS * errors + (self._fails if now < self._burst_ends else 0.0) + _unlucky(head)
        if response in (self._ok, self._order) and self._noise.random() < failing:
            self.injected += 1
            response = self._failures["base"]
        return seconds, response

    def _go_to(self, now: float) -> None:
        if now >= self._burst:
            _, least, longest, low, high = BURST
            self._fails = self._noise.uniform(low, high)
            self._burst_ends = now + min(least * self._noise.paretovariate(1.3), longest)
            self._burst = self._burst_ends + self._after(BURST[0])
        if now >= self._pause:
            self._pause_ends = now + self._noise.uniform(*PAUSE[1:])
            self._pause = self._pause_ends + self._after(PAUSE[0])

    def _after(self, mean: float) -> float:
        return self._noise.expovariate(1 / mean)

    def _draw(self) -> float:
        _, middle, spread = FAST if self._noise.random() < FAST[0] else TAIL
        return min(SLOWEST_MS, middle * math.exp(self._noise.gauss(0, spread)))


def _unlucky(head: bytes) -> float:
    start = head.find(b"user-")
    return OFTEN if start >= 0 and zlib.crc32(head[start : start + 10]) % UNLUCKY == 0 else 0.0


if __name__ == "__main__":
    main(Noisy)
