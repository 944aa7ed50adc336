"""Calls that end with certain gRPC codes: how often on the canary, beside the baseline or a limit.

The codes are counted apart from outcomes, so the rules of errors and of limits are asked about them instead.
Source: docs/decision-rule.md, "gRPC statuses".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controlplane.evidence.account import ALPHA, Account, Interval, Stage
from controlplane.evidence.blocks import cut
from controlplane.evidence.ceiling import Ceiling
from controlplane.evidence.comparison import Comparison
from controlplane.evidence.learned import Learned, learn
from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.evidence.reading import alone, total
from controlplane.evidence.table import ERRORS
from controlplane.evidence.verdict import Outcome, Said, Verdict
from controlplane.policy.documents import EVERYONE
from controlplane.policy.grpc_codes import MEASURE


@dataclass(frozen=True, slots=True)
class Statuses:
    """The share of calls that end with one of some codes, by the rule of errors or by that of limits.

    What the baseline's past teaches of the codes is learned since the release began, and kept in the account.

    Attributes:
        name: The metric's name.
        counts: Names in observations of the codes' counts.
        margin: Tolerated rise, as a ratio, where they are compared with the baseline.
        limit: The greatest share allowed, in 0..1, where there is one; it is the margin or the limit.
    """

    name: str
    counts: frozenset[str]
    margin: float = 0.0
    limit: float | None = None

    @property
    def _rule(self) -> Comparison | Ceiling:
        if self.limit is None:
            return Comparison(self.name, ERRORS, self.margin, 1 / ALPHA)
        return Ceiling(self.name, ERRORS, max(self.limit, 1e-6), 1 / ALPHA, "ended so")

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        stage, seen = interval.stage, self._coded(interval.observation)
        blocks = cut(seen, stage.canary, stage.stable, stage.full_segments)
        learned = account.learned or Learned()
        account = self._rule.fold(account, replace(interval, blocks=blocks, learned=learned))
        return account._replace(learned=learn(learned, seen, stage.stable, left=alone(stage)))

    def _coded(self, seen: Observation) -> Observation:
        """Return the calls of cells in which codes are counted, those that end with ours as errors."""
        events: dict[Cell, int] = {}
        for measure in seen.measures:
            if measure.metric.startswith(MEASURE):
                found = int(measure.total) if measure.metric in self.counts else 0
                events[measure.cell] = events.get(measure.cell, 0) + found
        cells = tuple(
            (cell, Tally(tally.requests, min(events[cell], tally.requests)))
            for cell, tally in seen.cells
            if cell in events
        )
        return replace(seen, cells=cells)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        if not total(account.whole)[0]:
            reason = f"{self.name}: no call of the canary was answered with a gRPC status yet"
            return Verdict(self.name, EVERYONE, Outcome.NOT_YET, Said(reason), lacking=True)
        return self._rule.verdict(account, account.learned or Learned(), stage)
