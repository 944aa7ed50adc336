"""Absolute limits as tests on counts: at most a share of the canary's requests may be bad.

A limit fails when the canary breaks it and is worse than the concurrent baseline: each interval counts only
for the lesser of the evidence against the limit and against the baseline. So a breach of both never fails.
It holds, except in an emergency, whose limit is relaxed to what the baseline shows.
Source: docs/decision-rule.md, "Rollback evidence: absolute limits".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

from controlplane.evidence.account import ENOUGH, Account, Interval, Stage
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import binomial, log_mean_exp, no_harm, no_harm_rate
from controlplane.evidence.reading import Reading, Words, borrowed, percent, total
from controlplane.evidence.verdict import Verdict
from controlplane.policy.documents import EVERYONE

ALTERNATIVES = (1.3, 1.6, 2.0, 3.0, 5.0, 10.0, 30.0, 90.0)  # multiples of the limit
ALIKE = 1.25  # ratio of rates up to which both versions count as breaching alike
PROCESS = "breach"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """At most ``allowed`` (in 0..1) of the canary's requests may be counted by ``counter``.

    It passes when the last half minute stays within the limit, the step's requests exclude ``allowed`` plus
    the harm that the step tolerates, and the baseline does not breach the limit itself.

    Attributes:
        name: The metric's name.
        counter: Position in a row.
        allowed: The limit.
        threshold: e-value at which it fails.
        event: What is counted, for reasons.
    """

    name: str
    counter: int
    allowed: float
    threshold: float
    event: str

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        pooled = interval.blocks
        allowed = self._held_to(account, interval.learned, interval.stage)
        gain = [value / interval.learned.swing(self.counter) for value in self._gain(interval, allowed)]
        account = replace(account, processes={PROCESS: interval.moved(account, PROCESS, gain)})
        if interval.counting and pooled.canary_sum[0]:
            added = no_harm(
                pooled.canary_sum[self.counter],
                pooled.canary_sum[0],
                allowed,
                interval.stage.tolerated(allowed),
            )
            account = account.promoted(added)
        return account.counted(pooled, self.counter, interval.seconds, interval.counting)

    def _held_to(self, account: Account, learned: Learned, stage: Stage) -> float:
        """Return the limit, in an emergency at least what the baseline does not keep either.

        Of the baseline counts what was seen since the release began, and just before.
        """
        if not stage.limits.emergency:
            return self.allowed
        _, _, requests, bad = total(account.whole)
        requests, bad = requests + learned.recent[0], bad + learned.recent[self.counter]
        return max(self.allowed, ALIKE * bad / requests) if requests else self.allowed

    def _gain(self, interval: Interval, allowed: float) -> list[float]:
        n_c, k_c = interval.blocks.canary_sum[0], interval.blocks.canary_sum[self.counter]
        n_b, k_b = interval.blocks.baseline_sum[0], interval.blocks.baseline_sum[self.counter]
        if EVERYONE in interval.stage.full_segments:
            # Nobody is left on the baseline: the limit alone.
            return [k_c * log(a) - (a - 1) * allowed * n_c for a in _alternatives(allowed)]
        grid = _alternatives(self.allowed)
        limit = [k_c * log(a) - (a - 1) * self.allowed * n_c for a in grid]
        if not n_c or not n_b:
            return [0.0] * len(grid)
        baseline = [binomial(k_c, k_c + k_b, n_c / n_b, ALIKE, ALIKE * a) for a in grid]
        return [min(pair) for pair in zip(limit, baseline, strict=True)]

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        log_e = log_mean_exp(account.processes[PROCESS]) if account.processes else 0.0
        excess = {s: counts[1] - self.allowed * counts[0] for s, counts in account.recent.items()}
        reading = Reading(account, log_e, self.threshold, excess)
        n_c, k_c, *_ = reading.counts
        recent = total(account.recent)
        above = "the canary is above the limit, not beyond doubt"
        allowed = self._held_to(account, learned, stage)
        relaxed = "" if allowed == self.allowed else f", in this emergency {percent(allowed, 1)}"
        words = Words(
            fault=f"the limit is broken in segment {reading.segment}",
            doubt=above,
            good="the limit is kept",
            short="within the limit, too few requests to be sure",
            seen=(
                f"{percent(k_c, n_c)} of {n_c:.0f} canary requests {self.event}, "
                f"allowed {percent(self.allowed, 1)}{relaxed}{borrowed(reading.table, stage)}"
            ),
        )
        holds = (
            (self._baseline_breaches(learned, stage), "the baseline breaches the limit itself"),
            (recent[1] > allowed * recent[0], above),
        )
        needed = self._needed(account, stage, allowed, k_c / n_c if n_c else 0.0)
        return reading.answer(self.name, words, holds, needed, "bad")

    def _baseline_breaches(self, learned: Learned, stage: Stage) -> bool:
        """Return whether the baseline's last half minute is above the limit by more than chance explains."""
        expected = self.allowed * learned.recent[0]
        chance = 2 * (expected * learned.swing(self.counter)) ** 0.5
        compared = EVERYONE not in stage.full_segments and not stage.limits.emergency
        return compared and learned.recent[self.counter] > expected + chance

    def _needed(self, account: Account, stage: Stage, allowed: float, rate: float) -> float | None:
        speed = no_harm_rate(allowed, rate, stage.tolerated(allowed))
        return max(0.0, ENOUGH - account.promotion) / speed if speed > 0 else None


def _alternatives(allowed: float) -> list[float]:
    """Return the multiples of a limit that are looked for; none beyond what a share can be."""
    return [max(1.0, min(a, 0.95 / allowed)) for a in ALTERNATIVES]
