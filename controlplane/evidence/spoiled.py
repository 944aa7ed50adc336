"""What a release has cost: failures of the canary beyond the baseline's rate at the same time.

Source: docs/decision-rule.md, "Budget".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.evidence.account import FULL_MARGIN, NO_COUNTS, Counts, plus
from controlplane.evidence.blocks import Blocks
from controlplane.evidence.learned import Learned
from controlplane.evidence.reading import without_own
from controlplane.evidence.table import ERRORS
from controlplane.evidence.verdict import Outcome, Said, Verdict
from controlplane.policy.documents import EVERYONE

BUDGET = "budget"  # as verdicts call it
LEAST = 10  # requests of the baseline beside which a segment's failures are counted
PRIOR = 50  # requests at the baseline's recent rate by which a deviation is guessed
CHANCE = 2.0  # standard deviations that chance explains


@dataclass(frozen=True, slots=True)
class Excess:
    """A sum over the release.

    Attributes:
        failures: Of the canary, less those that the baseline's rate would have given it.
        variance: Of these, if the canary is as good as the baseline and failures are independent.
    """

    failures: float = 0.0
    variance: float = 0.0

    def plus(self, failures: float, variance: float) -> Excess:
        """Return the sum with more."""
        return Excess(self.failures + failures, self.variance + variance)

    def spoiled(self, swing: float) -> float:
        """Return how many are beyond what chance explains, never below 0."""
        return max(0.0, self.failures - CHANCE * math.sqrt(self.variance * swing))


@dataclass(frozen=True, slots=True)
class Spoiled:
    """What was spoiled. Segments are compared each with itself: their shares and their usual rates differ.

    Attributes:
        own: Of all segments that have a baseline, and of all requests where nobody is left on it.
        lent: By segment whose baseline is borrowed: of each by itself, what is beyond the wider margin.
        pending: By segment: what waits for more of the baseline's requests.
    """

    own: Excess = Excess()
    lent: Mapping[str, Excess] = field(default_factory=dict)
    pending: Mapping[str, Counts] = field(default_factory=dict)

    def plus(self, learned: Learned, seen: Blocks, *, alone: bool = False) -> Spoiled:
        """Return the sums with one more interval.

        ``learned`` is from before it, ``alone`` whether nobody is left on the baseline.
        """
        requests, rate = seen.canary_sum[0], learned.rate_now(ERRORS)
        if not requests:
            return self
        if alone and seen.baseline_sum[0] < LEAST:
            usual = (requests, seen.canary_sum[ERRORS], PRIOR, PRIOR * rate)
            return replace(self, own=self.own.plus(*_excess(usual, rate, 1.0)))
        borrowed = {s for s, lent in zip(seen.segments, seen.borrowed, strict=True) if lent}
        own, lent, pending = self.own, dict(self.lent), dict(self.pending)
        for segment, (canary, baseline) in seen.sums.items():
            fresh = (float(canary[0]), canary[ERRORS], baseline[0], baseline[ERRORS])
            counts = plus(fresh, pending.pop(segment, NO_COUNTS))
            if not counts[0]:
                continue
            if segment in borrowed and not seen.baseline_sum[0]:
                # At a time at which nobody else comes: beside what is usual.
                counts = (counts[0], counts[1], PRIOR, PRIOR * rate)
            if counts[2] < LEAST:
                pending[segment] = counts
            elif segment in borrowed:
                sums = lent.get(segment, Excess()).plus(*_excess(counts, rate, 1 + FULL_MARGIN))
                # What it fails less than is tolerated makes no room for what it spoils later.
                lent[segment] = replace(sums, failures=max(0.0, sums.failures))
            else:
                own = own.plus(*_excess(counts, rate, 1.0))
        return Spoiled(own, lent, pending)

    def requests(self, learned: Learned) -> float:
        """Return how many requests were spoiled beyond what chance explains, never below 0."""
        swing = learned.swing(ERRORS)
        return sum(excess.spoiled(swing) for excess in (self.own, *self.lent.values()))

    def verdict(self, budget: int, learned: Learned) -> Verdict:
        """Return FAIL once the budget is spent; what is left never keeps a release from going on."""
        if not self.own.variance and not self.lent and not self.pending:
            why = f"no canary requests yet, of which at most {budget} may be spoiled"
            return Verdict(BUDGET, EVERYONE, Outcome.NOT_YET, Said(why), lacking=True)
        spent = self.requests(learned)
        # A part of one more than the budget is one more.
        outcome, told = (Outcome.FAIL, math.ceil(spent)) if spent > budget else (Outcome.PASS, int(spent))
        reason = f"{told} of at most {budget} requests spoiled"
        note, whole = "", sorted(self.lent.keys() - {EVERYONE})
        if whole:
            note = f"{without_own(whole)}: twice the rate of the rest of the service is tolerated"
        said = Said(reason, (("spoiled", spent), ("budget", float(budget))), 0, note=note)
        return Verdict(BUDGET, EVERYONE, outcome, said)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; nothing is lost."""
        return {
            "own": [self.own.failures, self.own.variance],
            "lent": {segment: [e.failures, e.variance] for segment, e in sorted(self.lent.items())},
            "pending": {segment: list(counts) for segment, counts in sorted(self.pending.items())},
        }

    @classmethod
    def from_json(cls, data: Any) -> Spoiled:
        """Return the sums of :meth:`to_json`; older stores have the sum of all segments alone."""
        if not isinstance(data, Mapping):
            return cls(Excess(*data))
        lent = {segment: Excess(*sums) for segment, sums in data["lent"].items()}
        pending = {segment: (n_c, k_c, n_b, k_b) for segment, (n_c, k_c, n_b, k_b) in data["pending"].items()}
        return cls(Excess(*data["own"]), lent, pending)


def _excess(counts: Counts, rate: float, ratio: float) -> tuple[float, float]:
    """Return failures of the canary beyond ``ratio`` times the baseline's rate, and their variance."""
    n_c, k_c, n_b, k_b = counts
    # The baseline's few requests may have had no failure by chance, which is no certainty.
    guess = ratio * n_c * (k_b + PRIOR * rate) / (n_b + PRIOR)
    return k_c - ratio * n_c * k_b / n_b, guess * (1 + ratio * n_c / n_b)
