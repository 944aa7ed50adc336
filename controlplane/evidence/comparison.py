"""Error rates against the concurrent baseline.

Rollback evidence is conditional on the errors of both versions together, so drift and shared outages cancel.
Source: docs/decision-rule.md, "Rollback evidence: errors" and "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from controlplane.evidence.account import ENOUGH, FULL_MARGIN, Account, Counts, Find, Interval, Stage
from controlplane.evidence.by_segment import loudness
from controlplane.evidence.compared import DENSE, MAIN, QUASI, SURGE, Asked, Compared, compared
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import log_mean_exp, log_mixture, no_harm_rate
from controlplane.evidence.reading import (
    HELPLESS,
    LIKE,
    MORE,
    Reading,
    Words,
    above_usual,
    alone,
    borrowed,
    more_often,
    once_each,
    percent,
)
from controlplane.evidence.table import ERRORS
from controlplane.evidence.verdict import Outcome, Verdict

MAIN_WEIGHT, QUASI_WEIGHT, DENSE_WEIGHT, SURGE_WEIGHT, SEGMENT_WEIGHT = 0.4, 0.2, 0.1, 0.2, 0.1
ACQUAINTED = 50  # requests of the baseline before anything is compared with it
MOST, TOLD = 0.5, 20  # share of failures with which a version is broken, and requests of late that tell it


@dataclass(frozen=True, slots=True)
class Comparison:
    """A counter's share of the canary's requests, compared with the baseline's.

    Attributes:
        name: The metric's name.
        counter: Position in a row.
        margin: Tolerated rise, as a ratio.
        threshold: e-value at which it fails.
        beside: All counters that are compared in the same interval, this one among them; () if it is alone.
    """

    name: str
    counter: int
    margin: float
    threshold: float
    beside: tuple[Asked, ...] = ()

    @property
    def asks(self) -> tuple[Find[tuple[Asked, ...], Mapping[int, Compared]], tuple[Asked, ...]]:
        """What it asks of an interval."""
        return compared, self.beside or (Asked(self.counter, self.margin),)

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        found = interval.kept(*self.asks)[self.counter]
        return account.after(interval, self.counter, found.gains, found.harmless)

    def _log_e(self, account: Account) -> float:
        """Return the logarithm of the evidence of a fault."""
        if MAIN not in account.processes:
            return 0.0
        weights = (
            (MAIN_WEIGHT, MAIN),
            (QUASI_WEIGHT, QUASI),
            (DENSE_WEIGHT, DENSE),
            (SURGE_WEIGHT, SURGE),
        )
        known, segments = account.processes, list(loudness(account).values())
        parts = [(weight, log_mean_exp(known[label]) if label in known else 0.0) for weight, label in weights]
        return log_mixture((*parts, (SEGMENT_WEIGHT, log_mean_exp(segments) if segments else parts[0][1])))

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        fault, shows = partial(self._log_e, account), partial(loudness, account)
        reading = Reading(account, fault, self.threshold, shows, borrowing=stage.borrowing)

        def words() -> Words:
            short, wanted = self._short(reading.counts, learned, stage)
            return Words(
                fault=f"{self.name} in segment {reading.segment} are above the baseline's",
                doubt=f"{self.name} look suspicious",
                good=f"{self.name} do no harm",
                short=short,
                seen=reading.told(partial(beside, learned.rate_now(self.counter)) if alone(stage) else both),
                note=borrowed(reading.table, stage, self.margin),
                wanted=wanted,
            )

        holds = (
            (learned.total[0] < ACQUAINTED, "too little is known of the baseline"),
            (
                learned.unusual(self.counter) and not stage.limits.emergency,
                f"the baseline itself has unusually many {self.name}",
            ),
        )
        needed = partial(self._needed, reading, learned, stage)
        found = reading.answer(self.name, words, holds, needed, "errors")
        wrong = "" if found.outcome is Outcome.FAIL else self._wrong(account, learned, stage)
        return replace(found, baseline=wrong) if wrong else found

    def _wrong(self, account: Account, learned: Learned, stage: Stage) -> str:
        """Say what is wrong with both versions; '' if nothing is, and in an emergency.

        What has lasted for hours has become usual. That both fail most of their requests never is.
        """
        n_c, k_c, n_b, k_b = once_each(account.recent, stage.borrowing)
        broken = self.counter == ERRORS and n_b >= TOLD and k_b >= MOST * n_b and k_c >= MOST * n_c
        if stage.limits.emergency or not (broken or learned.unusual(self.counter)):
            return ""
        of_late = f"{percent(k_b, n_b)} of late, the canary {percent(k_c, n_c)}"
        usual = percent(learned.rate(self.counter), 1)
        return f"the baseline itself has {of_late}" + ("" if broken else f"; usual are {usual}")

    def _short(self, counts: Counts, learned: Learned, stage: Stage) -> tuple[str, str]:
        """Say that nothing is proved, by where the counts point so far, and what is wanted."""
        if alone(stage):
            if self._raised(counts, learned):
                return f"{self.name} are above what is usual, {HELPLESS}", MORE
            return f"{self.name} look as usual, too few requests to be sure", MORE
        if more_often(counts, 1 + self.margin):
            return f"{self.name} are above the baseline's so far, too little to be sure", LIKE
        return f"{self.name} look alike, too few requests to be sure", MORE

    def _raised(self, counts: Counts, learned: Learned) -> bool:
        """Return whether there are more than the past tolerates, where it alone says what is usual."""
        return above_usual(counts, learned.rate_now(self.counter) * (1 + max(self.margin, FULL_MARGIN)))

    def _needed(self, reading: Reading, learned: Learned, stage: Stage) -> float | None:
        if alone(stage) and self._raised(reading.counts, learned):
            return None
        rate, asked = learned.rate_now(self.counter), Asked(self.counter, self.margin)
        tolerated = asked.risen(stage, learned.rate(self.counter), rate)
        speed = no_harm_rate(rate, rate, tolerated)
        return max(0.0, ENOUGH - reading.account.promotion) / speed


def both(counts: Counts) -> str:
    """Say what of each version's requests counts."""
    n_c, k_c, n_b, k_b = counts
    return (
        f"canary {k_c:.0f} of {n_c:.0f} ({percent(k_c, n_c)}), "
        f"baseline {k_b:.0f} of {n_b:.0f} ({percent(k_b, n_b)})"
    )


def beside(usual: float, counts: Counts) -> str:
    """Say what of the canary's requests counts, and what is usual."""
    n_c, k_c, _, _ = counts
    return f"canary {k_c:.0f} of {n_c:.0f} ({percent(k_c, n_c)}), usually {percent(usual, 1)}"
