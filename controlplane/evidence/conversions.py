"""Events that are wanted, or not, per request or user: how often on the canary, beside the baseline.

Source: docs/decision-rule.md, "Business metrics: counts".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, log, sqrt

import numpy as np

from controlplane.evidence.account import ALPHA, ENOUGH, FULL_MARGIN, PROOF, Account, Counts, Interval, Stage
from controlplane.evidence.blocks import Blocks
from controlplane.evidence.blocks import total as total_row
from controlplane.evidence.by_segment import SEGMENT, joined, loudness, shown
from controlplane.evidence.ceiling import Ceiling, beside
from controlplane.evidence.comparison import both
from controlplane.evidence.figures import PHI, WEIGHT
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import TILT, binomial, log_mean_exp
from controlplane.evidence.measures import CLOCK, WINDOW, Filled, Measured, compared, counted, gathered
from controlplane.evidence.observation import Tally
from controlplane.evidence.reading import (
    DOUBT,
    LIKE,
    MORE,
    Reading,
    Words,
    average,
    borrowed,
    bound,
    more_often,
    once_each,
    percent,
    rested,
    total,
    traffic,
)
from controlplane.evidence.table import ERRORS, rows_of
from controlplane.evidence.verdict import Outcome, Verdict
from controlplane.policy.documents import EVERYONE

FAULTS = (0.95, 0.9, 0.8, 0.5, 0.2)  # of the rate that is tolerated; where fewer is better, one over these
MOST = 2.0  # that one window may say: a burst of one user is not a fault
EXCLUDED_MOST = 0.5  # of what the baseline has: the greatest loss that promotion excludes
PROCESS, SPREAD, USUAL = "main", "spread", "usual"
HISTORY = 0.98  # weight that the past keeps with each window


def excluded(margin: float) -> float:
    """Return the loss that promotion excludes, as a part of what the baseline has: three times the margin."""
    return min(EXCLUDED_MOST, max(3 * margin, 0.01))


@dataclass(frozen=True, slots=True)
class Conversions:
    """The share of events, compared with the baseline's.

    Attributes:
        name: The metric's name.
        measured: What is counted.
        margin: Tolerated loss, as a part of the baseline's rate.
        threshold: e-value at which it fails.
        faults: Ratios that are looked for, of what is tolerated; one over these where fewer is better.
        per_user: How many events one user makes; its evidence counts as that of one.
    """

    name: str
    measured: Measured
    margin: float
    threshold: float
    faults: tuple[float, ...] = FAULTS
    per_user: float = 1.0

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        interval = compared(interval)
        account, seen, proof = gathered(account, interval, self.measured)
        phi, whole = self._phi(account) * self.per_user, interval.stage.full_segments
        if proof is not None:
            harmless = sum(_ratio(row, *self._excluded(lent)) for row, lent in _compared(proof, whole))
            account = account.promoted(max(-MOST, min(MOST, harmless / phi)))
        if seen is None:
            return account
        gain = self.gains(account, seen, whole)
        account = account._replace(processes={PROCESS: interval.moved(account, PROCESS, gain)})
        return account._replace(state=dict(account.state) | self.learned(account, seen, whole))

    def gains(self, account: Account, seen: Filled, whole: frozenset[str]) -> list[float]:
        """Return what a window says for each of the faults that are looked for."""
        gain, phi = [0.0] * len(self.faults), self._phi(account) * self.per_user
        for row, lent in _compared(seen, whole):
            null = self._null(lent)
            for i, fault in enumerate(self.faults):
                gain[i] += _ratio(row, null, null * self.measured.ratio(fault)) / phi
        return [min(value, MOST) for value in gain]

    def _null(self, lent: bool) -> float:
        """Return the ratio of rates that is just tolerated."""
        part = 1 - min(self.margin, 0.99)
        least = min(part, 1 / (1 + FULL_MARGIN)) if lent else part
        return self.measured.ratio(least)

    def _excluded(self, lent: bool) -> tuple[float, float]:
        """Return the ratio that promotion excludes, and the one that it takes for good."""
        loss = excluded(self.margin)
        wide = self._null(True) if lent else 1.0
        return wide * self.measured.worse(loss), wide * self.measured.worse(TILT * loss)

    def learned(
        self, account: Account, window: Filled, whole: frozenset[str]
    ) -> dict[str, tuple[float, ...]]:
        """Return how unevenly the baseline's events fall on windows, and how many are usual."""
        _ = whole
        n_b, k_b = sum(row[2] for row in window.values()), sum(row[3] for row in window.values())
        n, k = account.state.get(USUAL, (0.0, 0.0))
        squares, expected = account.state.get(SPREAD, (0.0, 0.0))
        if n and n_b and k:
            mean = n_b * k / n
            squares = squares * HISTORY + min((k_b - mean) ** 2 / mean, 25.0)
            expected = expected * HISTORY + 1
        return {USUAL: (n * HISTORY + n_b, k * HISTORY + k_b), SPREAD: (squares, expected)}

    def _phi(self, account: Account) -> float:
        squares, expected = account.state.get(SPREAD, (0.0, 0.0))
        return max(1.0, (squares + PHI * WEIGHT) / (expected + WEIGHT))

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        fault, shows = partial(_log_e, account), partial(_excess, account)
        reading = Reading(account, fault, self.threshold, shows, borrowing=stage.borrowing)
        *_, k_b = reading.counts
        worse = "fewer" if self.measured.more else "more"

        def words() -> Words:
            behind = self._behind(reading.counts)
            return Words(
                fault=f"{worse} {self.name} on the canary",
                doubt=f"{worse} {self.name} on the canary, not beyond doubt",
                good=f"{self.name} does not suffer",
                short=f"{worse} {self.name} so far, too few to be sure"
                if behind
                else f"{self.name}: too few to be sure",
                seen=reading.told(both),
                note=borrowed(reading.table, stage, self.margin),
                wanted=LIKE if behind else MORE,
            )

        holds = ((not k_b, f"{self.name}: none on the baseline, so there is nothing to compare with"),)
        found = reading.answer(self.name, words, holds, partial(self._needed, account), "total")
        return rested(self.measured.current(found, account, stage), reading.doubted, stage)

    def _behind(self, counts: Counts) -> bool:
        """Return whether the canary is worse than is tolerated, so far."""
        n_c, k_c, n_b, k_b = counts
        tolerated = self._null(lent=False)
        if self.measured.more:
            return more_often((n_b, k_b, n_c, k_c), 1 / tolerated)
        return more_often(counts, tolerated)

    def _needed(self, account: Account) -> float | None:
        """Return how many more requests of the canary a PASS takes, if both have events as often.

        The fewer the baseline's are in parts of the canary's, the less is proved. What Envoy counts proves
        something when a window is full, and each window little at most.
        """
        n_c, _, n_b, k_b = total({s: row for s, row in account.step.items() if row[0] and row[2]})
        if not n_c:
            return None
        harm, good = self._excluded(lent=False)
        ratio = n_c / n_b
        known = (1 + 1 / ratio) * log((1 + good * ratio) / (1 + harm * ratio))
        speed = k_b / n_b * (log(good / harm) - known) / (self._phi(account) * self.per_user)
        lacking = max(0.0, ENOUGH - account.promotion)
        if speed <= 0 or self.measured.waits:
            return lacking / speed if speed > 0 else None
        requests, seconds = traffic(account)
        of_window = requests * WINDOW / seconds
        (begun,) = account.state.get(PROOF + CLOCK, (0.0,))
        return of_window * (ceil(lacking / min(MOST, speed * of_window)) - begun / WINDOW)


def _log_e(account: Account) -> float:
    """Return the logarithm of the evidence of a fault."""
    process = account.processes.get(PROCESS)
    return log_mean_exp(process) if process else 0.0


def _excess(account: Account) -> dict[str, float]:
    """Return by segment how far the canary's events of late are from the baseline's share."""
    return {s: abs(c[1] - c[0] * c[3] / c[2]) for s, c in account.recent.items() if c[2]}


def _compared(window: Filled, whole: frozenset[str]) -> Iterator[tuple[Counts, bool]]:
    """Yield the rows that have both versions, and whether the baseline is borrowed."""
    return ((row, segment in whole) for segment, row in window.items() if row[0] and row[2])


def _ratio(row: Counts, null: float, alternative: float) -> float:
    n_c, k_c, n_b, k_b = row
    return binomial(int(k_c), int(k_c + k_b), n_c / n_b, null, alternative)


@dataclass(frozen=True, slots=True)
class MostShare:
    """The greatest share of events that is allowed on the canary: a test on counts like other limits.

    Where they are divided by another metric, there may be several of each.
    """

    name: str
    measured: Measured
    limit: float

    @property
    def _ceiling(self) -> Ceiling:
        limit = max(self.limit, 1e-6)
        return Ceiling(self.name, ERRORS, limit, 1 / ALPHA, "have it", self.measured.share)

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        account, both = self.measured.paired(account, interval, self.measured.counts(interval))
        folded = self._ceiling.fold(account, self._pooled(interval, self.measured.counts(interval)))
        if self.measured.waits:
            # The limit is shown to be kept by whatever comes, but broken only beside the baseline.
            processes = self._ceiling.fold(account, self._pooled(interval, both)).processes
            folded = folded._replace(processes=processes)
        return self.measured.noted(folded, interval)

    @staticmethod
    def _pooled(interval: Interval, counts: Filled) -> Interval:
        """Return the interval with counts in the place of its requests."""
        whole = interval.stage.full_segments
        canary = rows_of([Tally(int(n), int(k)).row for n, k, _, _ in counts.values()])
        baseline = rows_of([Tally(int(n), int(k)).row for _, _, n, k in counts.values()])
        borrowed = np.array([segment in whole for segment in counts], dtype=bool)
        own = total_row(baseline[~borrowed])
        pooled = Blocks.of(tuple(counts), canary, baseline, borrowed, own)
        return replace(interval, blocks=pooled, learned=Learned())

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        known = beside(account, ERRORS, stage)
        return self.measured.current(self._ceiling.verdict(account, known, stage), account, stage)


ALIKE = 0.8  # ratio of rates down to which both versions count as breaking a limit alike
MISSES = "the baseline misses the limit itself"
SHORT_BY = 0.25  # part of the limit by which promotion excludes that it is missed


@dataclass(frozen=True, slots=True)
class LeastShare:
    """The least share of events that the canary must have.

    It fails when the canary stays below it and below the baseline, by all requests or by those of one
    segment: each interval counts for the lesser of the two. Evidence is divided by the dispersion that is
    taken without history.
    """

    name: str
    measured: Measured
    limit: float

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        counts, whole = self.measured.counts(interval), interval.stage.full_segments
        account, fresh = self.measured.paired(account, interval, counts)
        n_c, k_c, _, _ = total(fresh)
        own = total({s: row for s, row in fresh.items() if s not in whole})
        gains = {label: [0.0] * len(FAULTS) for label in account.processes}
        if EVERYONE in whole:
            # Nobody is left on the baseline: the limit alone, and for a segment what it used to have.
            gains[PROCESS] = _below(n_c, k_c, self.limit)
            for segment, row in fresh.items():
                usual = shown(account, segment)
                least = self.limit if usual is None else min(self.limit, ALIKE * usual)
                gains[SEGMENT + segment] = _below(row[0], row[1], least)
        else:
            gains[PROCESS] = _lesser(_below(n_c, k_c, self.limit), _worse(own, ALIKE))
            for segment, row in fresh.items():
                alike = 1 / (1 + FULL_MARGIN) if segment in whole else ALIKE
                gains[SEGMENT + segment] = _lesser(_below(row[0], row[1], self.limit), _worse(row, alike))
        processes = {label: interval.moved(account, label, gain) for label, gain in gains.items()}
        account = account._replace(processes=processes)
        n_c, k_c, _, _ = total(counts)
        if interval.counting and n_c:
            enough = -k_c * log(1 - SHORT_BY) - SHORT_BY * self.limit * n_c
            account = account.promoted(max(-MOST, min(MOST, enough / PHI)))
        return counted(self.measured.noted(account, interval), counts, interval)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        fault, shows = partial(joined, account, PROCESS), partial(loudness, account)
        reading = Reading(account, fault, 1 / ALPHA, shows, borrowing=stage.borrowing)
        n_c, k_c, *_ = reading.counts
        _, _, n_b, k_b = once_each(account.recent, stage.borrowing)

        def seen(counts: Counts) -> str:
            if not self.measured.share:
                return average(counts)
            return f"{percent(counts[1], counts[0])} of {counts[0]:.0f} on the canary"

        def words() -> Words:
            return Words(
                fault=f"the limit is missed in segment {reading.segment}",
                doubt="the canary is below the limit, not beyond doubt",
                good="the limit is kept",
                short="too few to be sure that the limit is kept",
                seen=f"{reading.told(seen)}, at least {bound(self.limit, self.measured.share)} wanted",
                note=borrowed(reading.table, stage),
            )

        def needed() -> float | None:
            speed = (k_c / n_c * -log(1 - SHORT_BY) - SHORT_BY * self.limit) / PHI if n_c else 0.0
            return max(0.0, ENOUGH - account.promotion) / speed if speed > 0 else None

        missed = _missed(n_b, k_b, self.limit)
        holds = ((missed, MISSES), (k_c < self.limit * n_c, DOUBT))
        found = reading.answer(self.name, words, holds, needed, "total")
        if missed and found.outcome is Outcome.NOT_YET:
            share = self.measured.share
            has, wanted = bound(k_b / n_b, share), bound(self.limit, share)
            found = replace(found, baseline=f"{MISSES}: {has} of late, at least {wanted} wanted")
        return self.measured.current(found, account, stage)


def _missed(n: float, k: float, least: float) -> bool:
    """Return whether fewer than the share ``least`` have it, by more than two standard deviations."""
    return k < least * n - 2 * sqrt(PHI * least * n)


def _below(n_c: float, k_c: float, least: float) -> list[float]:
    """Return evidence that fewer than the share ``least`` of the canary's requests have it."""
    return [(k_c * log(fault) + (1 - fault) * least * n_c) / PHI for fault in FAULTS]


def _worse(counts: Counts, alike: float) -> list[float]:
    """Return evidence that the canary has fewer than ``alike`` times the baseline's; none without one."""
    if not counts[0] or not counts[2]:
        return [0.0] * len(FAULTS)
    return [_ratio(counts, alike, alike * fault) / PHI for fault in FAULTS]


def _lesser(one: list[float], other: list[float]) -> list[float]:
    return [min(pair) for pair in zip(one, other, strict=True)]
