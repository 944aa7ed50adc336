"""What a release has cost: failures of the canary beyond the baseline's rate at the same time.

Source: docs/decision-rule.md, "Budget".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from controlplane.evidence.blocks import ERRORS, Blocks
from controlplane.evidence.learned import Learned
from controlplane.evidence.verdict import Outcome, Verdict
from controlplane.policy.documents import EVERYONE

PRIOR = 50  # requests at the baseline's recent rate, beside those of the interval
CHANCE = 2.0  # standard deviations that chance explains


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Sums over the release.

    Attributes:
        excess: Failures of the canary less those that the baseline's rate would have given it.
        variance: Of ``excess``, if the canary is as good as the baseline and failures are independent.
    """

    excess: float = 0.0
    variance: float = 0.0

    def plus(self, learned: Learned, seen: Blocks) -> Spoiled:
        """Return the sums with one more interval; ``learned`` is from before it."""
        requests, failed = seen.canary_sum[0], seen.canary_sum[ERRORS]
        if not requests:
            return self
        n_b, k_b = seen.baseline_sum[0] + PRIOR, seen.baseline_sum[ERRORS] + PRIOR * learned.rate_now(ERRORS)
        expected = requests * k_b / n_b
        return Spoiled(self.excess + failed - expected, self.variance + expected * (1 + requests / n_b))

    def requests(self, learned: Learned) -> float:
        """Return how many requests were spoiled beyond what chance explains, never below 0."""
        deviation = math.sqrt(self.variance * learned.swing(ERRORS))
        return max(0.0, self.excess - CHANCE * deviation)

    def verdict(self, budget: int, learned: Learned) -> Verdict:
        """Return FAIL once the budget is spent; what is left never keeps a release from going on."""
        if not self.variance:
            why = f"no canary requests yet, of which at most {budget} may be spoiled"
            return Verdict("budget", EVERYONE, Outcome.NOT_YET, why, lacking=True)
        spent = self.requests(learned)
        outcome = Outcome.FAIL if spent > budget else Outcome.PASS
        reason = f"{spent:.0f} of at most {budget} requests spoiled"
        return Verdict(
            "budget", EVERYONE, outcome, reason, (("spoiled", spent), ("budget", float(budget))), 0
        )
