"""How often an A/B test calls a version better, or worse, that is not: the pure test on drawn counts.

``python -m bench.better`` prints the figures of docs/decision-rule.md, "A/B tests".
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np

from bench.report import say
from controlplane.evidence.account import Limits, Stage
from controlplane.evidence.better import Result, metric_tests, result
from controlplane.evidence.evidence import Evidence, fold
from controlplane.evidence.learned import Learned
from controlplane.evidence.observation import Cell, Measure, Observation, Tally
from controlplane.policy.documents import EVERYONE
from controlplane.policy.pinned import PinnedMetric
from controlplane.simulation.summary import Rate

CANARY, STABLE, START = "v2", "v1", datetime(2026, 1, 1, tzinfo=UTC)
SPAN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class World:
    """A service in an A/B test.

    Attributes:
        name: For the table.
        n: Requests in 30 s.
        share: Of them that the canary gets.
        rate: Share of the requests that are orders, on the old version.
        lift: By how much more they are on the canary, as a part.
        drift: Standard deviation of the logarithm of the rate from window to window, of both versions.
        own: The same, of each version for itself.
        users: How many there are, each with a rate of its own; 0: every request is another user's.
        told: Whether the test is told how many orders one user makes.
        metrics: How many alike, all of which decide.
        sums: Whether the orders' amounts are added up; they are skewed.
        more: Whether more is better.
    """

    name: str
    n: int = 300
    share: float = 0.5
    rate: float = 0.03
    lift: float = 0.0
    drift: float = 0.2
    own: float = 0.0
    users: int = 0
    told: bool = False
    metrics: int = 1
    sums: bool = False
    more: bool = True

    def windows(self, rng: np.random.Generator, count: int) -> Iterator[Observation]:
        """Yield what is seen, window by window."""
        factor = (self._user_factor(rng, self.share), self._user_factor(rng, 1 - self.share))
        for number in range(count):
            shared = float(np.exp(rng.normal(0, self.drift)))
            cells, measures = [], []
            for version, part, lift, users in (
                (CANARY, self.share, 1 + self.lift, factor[0]),
                (STABLE, 1 - self.share, 1.0, factor[1]),
            ):
                cell, n = Cell("p", EVERYONE, version), int(rng.poisson(self.n * part))
                cells.append((cell, Tally(n)))
                for metric in range(self.metrics):
                    rate = self.rate * shared * lift * users * float(np.exp(rng.normal(0, self.own)))
                    orders = int(rng.binomial(n, min(rate, 0.9)))
                    total = int(rng.lognormal(6.5, 1.0, orders).sum()) if self.sums else orders
                    measures.append(Measure(cell, f"m{metric}", total))
            begin = START + number * SPAN
            yield Observation("shop", begin, begin + SPAN, tuple(cells), ("p",), measures=tuple(measures))

    def _user_factor(self, rng: np.random.Generator, share: float) -> float:
        """Return by how much the users whom the hash gave a version buy more often than others.

        Users differ in how often they come (Pareto, at most a hundredth of all) and in how readily they buy.
        """
        if not self.users:
            return 1.0
        mine = max(1, int(self.users * share))
        comes, buys = rng.pareto(1.5, mine) + 1, rng.gamma(1.0, 1.0, mine)
        comes = np.minimum(comes, 0.01 * comes.sum())
        return float((comes * buys).sum() / comes.sum())

    def _per_user(self, count: int) -> float:
        """Return what a test of ``count`` windows is told: by how much users make its variance larger."""
        if not self.told:
            return 1.0
        rng = np.random.default_rng(1)
        factors = [self._user_factor(rng, self.share) for _ in range(400)]
        return 1 + float(np.var(factors)) * self.n * self.share * self.rate * count

    def run(self, count: int, seed: int) -> tuple[Result, ...]:
        """Return what a test of ``count`` windows shows at its end."""
        known = [
            PinnedMetric(name=f"m{i}", better="more" if self.more else "less", sum=self.sums)
            for i in range(self.metrics)
        ]
        tests = metric_tests(known, {metric.name for metric in known}, self._per_user(count))
        halves = tuple(half for test in tests for half in test.parts)
        limits, evidence = Limits(errors_margin=None, tests=halves), Evidence()
        for number, seen in enumerate(self.windows(np.random.default_rng(seed), count), 1):
            passed = number * SPAN
            at = Stage(CANARY, STABLE, limits, passed, 1.0, judged=passed)
            evidence = fold(evidence, Learned(), seen, at)
        return tuple(result(test, evidence) for test in tests)


WORLDS = (
    World("counts"),
    World("counts, a tenth", share=0.1),
    World("counts, own drift", own=0.2),
    World("counts, 4 metrics", metrics=4),
    World("counts, less is better", more=False),
    World("sums", sums=True),
    World("sums, a tenth", sums=True, share=0.1),
    World("sums, a tenth, less is better", sums=True, share=0.1, more=False),
    World("counts, 1000 users", users=1000),
    World("counts, 1000 users, told", users=1000, told=True),
    World("counts, 100000 users", users=100_000),
    World("counts, 100000 users, told", users=100_000, told=True),
    World("counts, 5 % more", lift=0.05),
    World("counts, 10 % more", lift=0.1),
    World("counts, 20 % more", lift=0.2),
    World("sums, 20 % more", sums=True, lift=0.2),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=400, help="tests of each kind")
    parser.add_argument("--windows", type=int, default=2880, help="of 30 s in each; 2880 are a day")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    for world in WORLDS:
        if given.only not in world.name:
            continue
        with ProcessPoolExecutor(given.jobs) as pool:
            seeds = range(given.seed, given.seed + given.n)
            found = list(pool.map(partial(world.run, given.windows), seeds, chunksize=4))
        better, worse = (
            Rate.of(sum(any(r.said == s for r in each) for each in found), given.n)
            for s in ("better", "worse")
        )
        beyond = Rate.of(sum(any(_missed(r, world.lift) for r in each) for each in found), given.n)
        line = f"{world.name:32s} better {_shown(better)}  worse {_shown(worse)}"
        say(f"{line}  true difference out of bounds {_shown(beyond)}  {_width(found)}")


def _missed(shown: Result, lift: float) -> bool:
    return (shown.low is not None and shown.low > lift) or (shown.high is not None and shown.high < lift)


def _width(found: Iterable[tuple[Result, ...]]) -> str:
    known = [each[0].high - each[0].low for each in found if None not in (each[0].low, each[0].high)]  # type: ignore[operator]
    return f"both known {len(known)}, median width {100 * float(np.median(known)) if known else 0:.1f} %"


def _shown(rate: Rate) -> str:
    return f"{100 * rate.share:5.1f} % ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


if __name__ == "__main__":
    main()
