"""A/B tests: whether business metrics are better on the canary, or worse, with a stated error rate.

The tests are those that look for harm, without a margin, and turned round to look for what is better. They
see only the intervals of the test, and only segments whose users the hash divides.

Source: docs/decision-rule.md, "A/B tests".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Literal

from controlplane.evidence import totals
from controlplane.evidence.account import EMPTY, Account, Counts, Interval
from controlplane.evidence.conversions import PROCESS, Conversions
from controlplane.evidence.difference import Difference, bounds, left
from controlplane.evidence.evidence import Evidence
from controlplane.evidence.likelihood import log_mean_exp
from controlplane.evidence.measures import Measured, divided
from controlplane.evidence.sums import Sums
from controlplane.evidence.totals import Totals
from controlplane.policy.pinned import PinnedMetric

ERROR_RATE = 0.05  # chance that any of the metrics is called better when none is; the same for worse
BOLDEST = 0.1  # of `Sums`: what swings for one version over several windows is shown by a test, not a fault
RATIOS = (0.99, 0.98, 0.95, 0.9, 0.8, 0.5)  # that are looked for: people test for a few percent

Said = Literal["better", "worse", "no difference seen"]


@dataclass(frozen=True, slots=True)
class Half:
    """One direction of a test; its account begins anew with the step."""

    name: str
    test: Conversions | Sums | Difference | Totals

    @property
    def covers(self) -> float:
        """For how many seconds before an interval its values may speak."""
        test = self.test.falls if isinstance(self.test, Difference) else self.test
        return test.measured.every if test.measured.waits else 0.0

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        if not interval.stage.judged:
            account = EMPTY
        if not interval.counting:
            return account
        seen = divided(interval.observation, interval.stage.full_segments)
        return self.test.fold(account, replace(interval, observation=seen))


@dataclass(frozen=True, slots=True)
class MetricTest:
    """One metric that is tested, in both directions.

    Attributes:
        metric: Its name.
        more: Whether more is better.
        decides: Whether a promotion may rest on it.
        threshold: e-value from which on a difference is shown.
        better: Looks for what is better on the canary.
        worse: Looks for what is worse.
        difference: Looks for the bounds of the difference.
        users: Keeps what users came to, where values are pushed by user: these tell instead of the others.
    """

    metric: str
    more: bool
    decides: bool
    threshold: float
    better: Half
    worse: Half
    difference: Half
    users: Half

    @property
    def parts(self) -> tuple[Half, ...]:
        """What is gathered."""
        return self.better, self.worse, self.difference, self.users


@dataclass(frozen=True, slots=True)
class Result:
    """What a test has shown of one metric.

    Attributes:
        metric: Its name.
        decides: Whether a promotion may rest on it.
        canary: Its share of events, or its mean.
        baseline: The same, segments weighted as they are on the canary.
        canary_n: Requests or users of the canary.
        baseline_n: Of the baseline.
        better: e-value of its being better on the canary.
        worse: e-value of its being worse.
        threshold: e-value from which on a difference is shown.
        low: The difference, as a part of the baseline, is more than this; None if nothing is too little.
        high: It is less than this. Each of the two is wrong as seldom as `better` and `worse` are.
    """

    metric: str
    decides: bool
    canary: float
    baseline: float
    canary_n: float
    baseline_n: float
    better: float
    worse: float
    threshold: float
    low: float | None = None
    high: float | None = None

    @property
    def said(self) -> Said:
        """What it comes to."""
        if self.better >= self.threshold:
            return "better"
        return "worse" if self.worse >= self.threshold else "no difference seen"

    @property
    def change(self) -> float | None:
        """Difference as a part of the baseline; None where that has nothing."""
        return self.canary / self.baseline - 1 if self.baseline else None


def metric_tests(
    metrics: Iterable[PinnedMetric], decisive: Collection[str], per_user: float
) -> tuple[MetricTest, ...]:
    """Return the tests of metrics; those that decide share one error rate, and so do the others.

    Args:
        metrics: What is measured.
        decisive: Names of those on which a promotion may rest.
        per_user: How many events one user makes in the test.
    """
    known = tuple(metrics)
    deciding = sum(metric.name in decisive for metric in known)
    among = {True: deciding, False: len(known) - deciding}
    return tuple(_test(m, m.name in decisive, among[m.name in decisive], per_user) for m in known)


def _test(metric: PinnedMetric, decides: bool, among: int, per_user: float) -> MetricTest:
    threshold = among / ERROR_RATE
    more = metric.better == "more"
    tests: list[Conversions | Sums] = []
    for name, falls in ((f"{metric.name} better", not more), (f"{metric.name} worse", more)):
        every = metric.every.total_seconds()
        measured = Measured(
            name, metric.name, metric.per or "", falls, metric.pushed, every, metric.per_pushed
        )
        tests.append(
            Sums(name, measured, 0.0, None, threshold, per_user, BOLDEST)
            if metric.sum
            else Conversions(name, measured, 0.0, threshold, RATIOS, per_user)
        )
    better, worse = tests
    falling, rising = (worse, better) if more else (better, worse)
    difference = Difference(f"{metric.name} difference", falling, rising)
    users = Totals(f"{metric.name} users", falling.measured)
    halves = (Half(test.name, test) for test in (better, worse, difference, users))
    return MetricTest(metric.name, more, decides, threshold, *halves)


def result(test: MetricTest, evidence: Evidence) -> Result:
    """Return what a test has shown until now."""
    account = evidence.accounts.get(test.better.name, EMPTY)
    users = evidence.accounts.get(test.users.name, EMPTY)
    if totals.known(users):
        return _by_user(test, users)
    rows = [row for _, row in sorted(account.step.items()) if row[0] and row[2]]
    low, high = bounds(evidence.accounts.get(test.difference.name, EMPTY), test.threshold)
    found = _counted(test, rows)
    return replace(
        found,
        better=_e_value(account),
        worse=_e_value(evidence.accounts.get(test.worse.name, EMPTY)),
        low=low,
        high=high,
    )


def _by_user(test: MetricTest, users: Account) -> Result:
    """Return what is shown by what each user came to."""
    better, worse = (_e_of(totals.log_e(users, 1.0, more=more)) for more in (test.more, not test.more))

    def rejected(change: float, above: bool) -> bool:
        return totals.log_e(users, 1 + change, more=above) >= log(test.threshold)

    low, high = left(rejected)
    return replace(_counted(test, list(totals.counts(users))), better=better, worse=worse, low=low, high=high)


def _counted(test: MetricTest, rows: Sequence[Counts]) -> Result:
    """Return a result with what was counted, and no evidence."""
    n_c, n_b = sum(row[0] for row in rows), sum(row[2] for row in rows)
    return Result(
        metric=test.metric,
        decides=test.decides,
        canary=sum(row[1] for row in rows) / n_c if n_c else 0.0,
        baseline=sum(row[0] / n_c * row[3] / row[2] for row in rows),
        canary_n=n_c,
        baseline_n=n_b,
        better=1.0,
        worse=1.0,
        threshold=test.threshold,
    )


def _e_value(account: Account) -> float:
    process = account.processes.get(PROCESS)
    return _e_of(log_mean_exp(process)) if process else 1.0


def _e_of(log_e: float) -> float:
    return exp(min(log_e, 690.0))
