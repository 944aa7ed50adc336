"""Calls that end with certain gRPC codes: how often on the canary, beside the baseline or a limit.

The codes are counted apart from outcomes, so the rules of errors and of limits are asked about them instead.
Source: docs/decision-rule.md, "gRPC statuses".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controlplane.evidence.account import ALPHA, RECENT_HALF_LIFE, Account, Interval, Stage
from controlplane.evidence.blocks import ERRORS, WIDTH, cut
from controlplane.evidence.ceiling import Ceiling
from controlplane.evidence.comparison import Comparison
from controlplane.evidence.learned import HALF_LIFE, Learned
from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.evidence.reading import total
from controlplane.evidence.verdict import Outcome, Verdict
from controlplane.policy.documents import EVERYONE
from controlplane.policy.grpc_codes import MEASURE

USUAL, NOW = "usual", "now"  # (calls, events) of the baseline, half-lives of 30 minutes and 30 s


@dataclass(frozen=True, slots=True)
class Statuses:
    """The share of calls that end with one of some codes, by the rule of errors or by that of limits.

    What the baseline's past teaches is its rate since the release began; how unevenly the codes arrive is
    taken as without history.

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
        learned = _learned(account)
        account = self._rule.fold(account, replace(interval, blocks=blocks, learned=learned))
        calls, events = blocks.baseline_sum[0], blocks.baseline_sum[ERRORS]
        capped = min(events, 4 * learned.rate(ERRORS) * calls + 20)  # an outage does not become normal
        usual = _decayed(account, USUAL, (calls, capped), interval.seconds / HALF_LIFE)
        now = _decayed(account, NOW, (calls, events), interval.seconds / RECENT_HALF_LIFE)
        return replace(account, state=dict(account.state) | {USUAL: usual, NOW: now})

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
            return Verdict(self.name, EVERYONE, Outcome.NOT_YET, reason, lacking=True)
        return self._rule.verdict(account, _learned(account), stage)


def _learned(account: Account) -> Learned:
    """Return what the account knows of the baseline, in the form in which the rules ask for it."""
    rest = (0.0,) * (WIDTH - 2)
    usual, now = (account.state.get(label, (0.0, 0.0)) for label in (USUAL, NOW))
    return Learned(total=(*usual, *rest), recent=(*now, *rest))


def _decayed(
    account: Account, label: str, more: tuple[float, float], half_lives: float
) -> tuple[float, float]:
    calls, events = account.state.get(label, (0.0, 0.0))
    decay = 0.5**half_lives
    return calls * decay + more[0], events * decay + more[1]
