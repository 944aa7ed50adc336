"""How often sums and readings of equal versions fail, and how soon worse ones do: the fold on drawn windows.

``python -m bench.business sums`` and ``readings`` print figures of docs/decision-rule.md, "Business metrics".
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median
from typing import Protocol

import numpy as np

from bench.report import say
from controlplane.evidence.account import Limits, Metric, Stage
from controlplane.evidence.evidence import Evidence, fold, verdicts
from controlplane.evidence.learned import Learned
from controlplane.evidence.measures import Measured
from controlplane.evidence.observation import Cell, Measure, Observation, Reading, Tally
from controlplane.evidence.scalars import Scalars
from controlplane.evidence.sums import Sums
from controlplane.evidence.verdict import Outcome
from controlplane.policy.documents import EVERYONE
from controlplane.simulation.summary import Rate

CANARY, STABLE, START = "v2", "v1", datetime(2026, 1, 1, tzinfo=UTC)


class Kind(Protocol):
    """A service whose canary is watched in one step."""

    @property
    def metric(self) -> Metric:
        """What it is judged by."""
        ...

    def seen(self, rng: np.random.Generator) -> Iterator[Observation]:
        """Yield what is seen, until the release is over."""
        ...


@dataclass(frozen=True, slots=True)
class Shop:
    """Orders and what they are worth, in minutes.

    Attributes:
        lift: By how much more orders the canary has, as a part.
        rps: Requests per second.
        orders: Their share that are orders.
        share: Of the requests that the canary gets.
        sigma: Standard deviation of the logarithm of what an order is worth.
        hours: How long it is watched.
        own: Standard deviation of the logarithm of each version's own rate, with a memory of two minutes.
        late: Minutes until the fault begins.
    """

    lift: float
    rps: float
    orders: float
    share: float
    sigma: float
    hours: float
    own: float = 0.0
    late: int = 0

    @property
    def metric(self) -> Metric:
        """The mean per request."""
        return Sums("metric money", Measured("metric money", "money"), 0.05)

    def seen(self, rng: np.random.Generator) -> Iterator[Observation]:
        """Yield the minutes."""
        swings, keep = rng.normal(0, self.own, 2), np.exp(-0.5)
        for minute in range(int(self.hours * 60)):
            swings = keep * swings + np.sqrt(1 - keep**2) * rng.normal(0, self.own, 2)
            cells, measures = [], []
            lift = self.lift if minute >= self.late else 0.0
            parts = ((CANARY, self.share, 1 + lift), (STABLE, 1 - self.share, 1.0))
            for (version, part, factor), swing in zip(parts, swings, strict=True):
                cell, n = Cell("p", EVERYONE, version), int(rng.poisson(60 * self.rps * part))
                sold = int(rng.poisson(n * self.orders * factor * np.exp(swing)))
                cells.append((cell, Tally(n)))
                worth = rng.lognormal(np.log(1000) - self.sigma**2 / 2, self.sigma, sold)
                measures.append(Measure(cell, "money", int(worth.sum())))
            begin = START + minute * timedelta(minutes=1)
            end = begin + timedelta(minutes=1)
            yield Observation("shop", begin, end, tuple(cells), ("p",), measures=tuple(measures))


@dataclass(frozen=True, slots=True)
class Rates:
    """Answers of Prometheus: events per second of both versions over a range.

    Attributes:
        lift: By how much more events the canary has, as a part.
        events: Per second, of the canary.
        range: Seconds that a reading looks back.
        every: Seconds between readings.
        more: Whether more is better.
        hours: How long it is watched.
        times: How many times as many events the baseline has.
    """

    lift: float
    events: float
    range: int
    every: int
    more: bool
    hours: float = 2.0
    times: float = 20.0

    @property
    def metric(self) -> Metric:
        """The comparison, with a margin of 10 %."""
        apart = max(self.range, self.every)
        return Scalars("prometheus rate", "rate", 0.1, self.more, self.every, apart)

    def seen(self, rng: np.random.Generator) -> Iterator[Observation]:
        """Yield the readings, each in an interval of its own."""
        rates = np.array([[self.events * (1 + self.lift)], [self.events * self.times]])
        counts = rng.poisson(rates, (2, int(self.hours * 3600))).cumsum(axis=1)
        for second in range(self.range, counts.shape[1], self.every):
            canary, baseline = (counts[:, second] - counts[:, second - self.range]) / self.range
            reading = Reading("rate", float(canary), float(baseline / self.times))
            end = START + timedelta(seconds=second)
            begin = end - timedelta(seconds=self.every)
            yield Observation("shop", begin, end, fresh=("p",), readings=(reading,))


def minutes(kind: Kind, seed: int) -> float | None:
    """Return after how many minutes the metric fails; None if it does not."""
    limits, evidence = Limits(errors_margin=None, added=(kind.metric,)), Evidence()
    passed = timedelta(0)
    for seen in kind.seen(np.random.default_rng(seed)):
        at = Stage(CANARY, STABLE, limits, passed, 1.0, judged=passed)
        evidence = fold(evidence, Learned(), seen, at)
        passed += seen.end - seen.start
        if verdicts(evidence, Learned(), at)[0].outcome is Outcome.FAIL:
            return passed.total_seconds() / 60
    return None


KINDS: dict[str, tuple[Kind, ...]] = {
    "sums": (
        Shop(0, 50, 0.01, 0.05, 1.0, 8),
        Shop(0, 50, 0.01, 0.05, 1.5, 8),
        Shop(0, 50, 0.01, 0.01, 1.0, 8),
        Shop(0, 50, 0.01, 0.01, 1.5, 8),
        Shop(0, 20, 0.005, 0.05, 1.0, 24),
        Shop(0, 20, 0.005, 0.01, 1.5, 24),
        Shop(0, 50, 0.01, 0.5, 1.0, 8),
        Shop(0, 50, 0.01, 0.98, 1.0, 8),
        Shop(0, 500, 0.01, 0.1, 1.0, 8, own=0.2),
        Shop(-0.5, 50, 0.01, 0.05, 1.0, 8),
        Shop(-0.5, 50, 0.01, 0.05, 1.0, 8, late=120),
        Shop(-0.2, 50, 0.01, 0.5, 1.0, 8),
        Shop(-0.9, 50, 0.01, 0.25, 1.0, 4),
        Shop(-0.9, 50, 0.01, 0.01, 1.5, 24),
    ),
    "readings": (
        *(Rates(0, n / 60, 60, 60, True) for n in (0.2, 0.4, 0.6, 1, 3, 15)),
        Rates(0, 0.6 / 60, 60, 60, False),
        Rates(0, 0.25, 300, 15, False),
        Rates(1.0, 0.25, 300, 15, False),
        Rates(1.0, 0.25, 60, 60, False),
        Rates(1.0, 0.05, 60, 60, False),
        Rates(-0.5, 0.25, 60, 60, True),
        Rates(-0.5, 0.05, 60, 60, True),
    ),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=sorted(KINDS))
    parser.add_argument("-n", type=int, default=200, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    for kind in KINDS[given.what]:
        with ProcessPoolExecutor(given.jobs) as pool:
            seeds = range(given.seed, given.seed + given.n)
            found = [
                each for each in pool.map(partial(minutes, kind), seeds, chunksize=10) if each is not None
            ]
        rate = Rate.of(len(found), given.n)
        after = f", median {median(found):.0f} min" if found else ""
        say(f"{kind}: {len(found)} of {given.n} ({100 * rate.low:.1f} to {100 * rate.high:.1f} %){after}")


if __name__ == "__main__":
    main()
