"""How many requests of the canary a step must have judged: proof by number, whatever the rates are."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.evidence.account import Account, Interval, Stage
from controlplane.evidence.learned import Learned
from controlplane.evidence.reading import total
from controlplane.evidence.table import ERRORS
from controlplane.evidence.verdict import Outcome, Said, Verdict
from controlplane.policy.documents import EVERYONE


@dataclass(frozen=True, slots=True)
class Volume:
    """Passes once this step has judged ``at_least`` canary requests; it never fails.

    Until then it is data that lacks: without them nothing goes on, with proof or without.
    """

    name: str
    at_least: int

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        return account.counted(interval, ERRORS)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        seen = int(total(account.step)[0])
        missing = max(0, self.at_least - seen)
        said = Said(
            f"{seen} of {self.at_least} canary requests judged in this step",
            (("canary_requests", seen), ("needed", self.at_least)),
            missing,
        )
        outcome = Outcome.NOT_YET if missing else Outcome.PASS
        return Verdict(self.name, EVERYONE, outcome, said, lacking=missing > 0)
