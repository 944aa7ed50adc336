"""How often an A/B test of values that are pushed by user is wrong where users come again, and what it finds.

``python -m bench.returning`` prints the figures of docs/decision-rule.md, "A/B tests: pushed by user".
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
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
from controlplane.evidence.observation import Measure, Observation
from controlplane.policy.documents import EVERYONE
from controlplane.policy.pinned import PinnedMetric
from controlplane.simulation.returning import Regulars, named
from controlplane.simulation.summary import Rate
from controlplane.sources.pushed import Pushed, cell

CANARY, STABLE, START = "v2", "v1", datetime(2026, 1, 1, tzinfo=UTC)
EVERY = timedelta(minutes=10)  # between two pushes
DAY = 144  # pushes


@dataclass(frozen=True, slots=True)
class Shop:
    """A service whose users come again, each as often as is their habit.

    Attributes:
        name: For the table.
        users: How many there are.
        habit: Standard deviation of the logarithm of how many orders one makes.
        orders: That one makes in the mean, in the whole test.
        amount: Standard deviation of the logarithm of what an order is worth.
        share: Of the users who have the canary.
        lift: By how much more orders are made with it, as a part.
        summed: Whether amounts are added up; else users who order are counted.
        restarts: How often the server starts anew, and forgets who came.
    """

    name: str
    users: int = 3000
    habit: float = 1.0
    orders: float = 7.0
    amount: float = 0.5
    share: float = 0.5
    lift: float = 0.0
    summed: bool = True
    restarts: int = 0

    def pushes(self, rng: np.random.Generator, count: int) -> Iterator[tuple[Measure, ...]]:
        """Yield what is known after each push."""
        regulars = Regulars.drawn(self.users, self.habit, rng)
        canary = regulars.buckets < self.share
        rates = self.orders / count * regulars.habits * np.where(canary, 1 + self.lift, 1.0)
        pushed, anew = Pushed(born="0"), count // (self.restarts + 1)
        for number in range(count):
            if number % anew == 0:
                pushed = Pushed(born=str(number))
                pushed.begin("shop", "test")
            made = rng.poisson(rates)
            came = np.flatnonzero((made > 0) | (rng.random(self.users) < 5 / count))
            worth = rng.lognormal(0, self.amount, int(made.sum()))
            spent = np.bincount(np.repeat(np.arange(self.users), made), worth, self.users)
            values = (spent if self.summed else made > 0).astype(float)
            for version, mask in ((CANARY, canary), (STABLE, ~canary)):
                place = ("shop", "spend", cell(EVERYONE, version))
                pushed.receive(place, named(came[mask[came]], values), "", summed=self.summed)
            yield pushed.take()["shop"]
            pushed.commit()

    def run(self, count: int, seed: int) -> Result:
        """Return what a test of ``count`` pushes shows at its end."""
        metric = PinnedMetric(name="spend", better="more", sum=self.summed, pushed=True, every=EVERY)
        (test,) = metric_tests([metric], {"spend"}, 1)
        limits, evidence = Limits(errors_margin=None, tests=test.parts), Evidence()
        for number, measures in enumerate(self.pushes(np.random.default_rng(seed), count), 1):
            begin, passed = START + number * EVERY, number * EVERY
            seen = Observation("shop", begin, begin + EVERY, fresh=("p",), measures=measures)
            at = Stage(CANARY, STABLE, limits, passed, 1.0, judged=passed)
            evidence = fold(evidence, Learned(), seen, at)
        return result(test, evidence)


ALIKE = (
    Shop("alike"),
    Shop("alike, 500 users", users=500),
    Shop("alike, an order for three", orders=0.3, amount=1.0),
    Shop("alike, a few who buy most", habit=2.0, amount=1.0),
    Shop("alike, the same, a tenth", habit=2.0, amount=1.0, share=0.1),
    Shop("alike, nine tenths", habit=1.5, amount=1.0, share=0.9),
    Shop("alike, three restarts", restarts=3),
    Shop("alike, counted", orders=1.0, summed=False),
)
MORE = (
    Shop("10 % more, 3000 users", lift=0.1),
    Shop("10 % more, 10,000 users", users=10_000, lift=0.1),
    Shop("10 % more, 20,000 users", users=20_000, lift=0.1),
    Shop("10 % more, 20,000 users, a tenth", users=20_000, lift=0.1, share=0.1),
    Shop("10 % more, 20,000 users, three restarts", users=20_000, lift=0.1, restarts=3),
    Shop("10 % more, 20,000 users, counted", users=20_000, lift=0.1, orders=0.3, summed=False),
    Shop("20 % more, 3000 users", lift=0.2),
)


def main(shops: Sequence[Shop] = (*ALIKE, *MORE)) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="tests of each kind")
    parser.add_argument("--pushes", type=int, default=DAY, help="in each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    for shop in (shop for shop in shops if given.only in shop.name):
        with ProcessPoolExecutor(given.jobs) as pool:
            seeds = range(given.seed, given.seed + given.n)
            found = list(pool.map(partial(shop.run, given.pushes), seeds, chunksize=4))
        shown = (Rate.of(sum(r.said == said for r in found), given.n) for said in ("better", "worse"))
        better, worse = (f"{100 * r.share:5.1f} % ({100 * r.low:.1f} to {100 * r.high:.1f})" for r in shown)
        beyond = sum(
            (r.low is not None and r.low > shop.lift) or (r.high is not None and r.high < shop.lift)
            for r in found
        )
        widths = [r.high - r.low for r in found if r.low is not None and r.high is not None]
        width = f"{100 * float(np.median(widths)):.1f} %" if widths else "unknown"
        say(f"{shop.name:40s} better {better}  worse {worse}  out of bounds {beyond}  width {width}")


if __name__ == "__main__":
    main()
