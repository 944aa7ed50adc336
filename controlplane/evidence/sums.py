"""Sums: bets on windows, which need no shape of a distribution.

Source: docs/decision-rule.md, "Business metrics: sums".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log1p, sqrt

from controlplane.evidence.account import ALPHA, ENOUGH, FULL_MARGIN, Account, Interval, Stage
from controlplane.evidence.conversions import EXCLUDED_MARGINS, EXCLUDED_MOST
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import log_mean_exp
from controlplane.evidence.measures import Measured, gathered
from controlplane.evidence.reading import Reading, Words, borrowed, total
from controlplane.evidence.verdict import Verdict

STAKES = (0.1, 0.25, 0.5, 0.9)  # parts of what one has that are bet on the canary being worse
STAKE = 0.5  # on its being no worse than promotion allows
SPANS = 3.0  # standard deviations of a window's difference that win or lose a whole stake
WINDOW = 60.0  # seconds
LEARNING = 5  # windows that only teach how much they differ
HISTORY = 0.97
PROCESS, PAST, SCALE = "main", "past", "scale"


def bet(share: float, stakes: tuple[float, ...], least: float = -1.0) -> list[float]:
    """Return what a window adds to each process; ``share`` of the stake is won, from ``least`` to 1."""
    kept = min(1.0, max(least, share))
    return [log1p(stake * kept) for stake in stakes]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much the difference of two versions changes from one window to the next.

    Differences of neighbours, so that a fault, which lasts, is not mistaken for noise.

    Attributes:
        last: The last difference.
        squares: Decayed sum of (difference - the one before)^2 / 2.
        weight: Decayed number of these.
        windows: How many there were.
    """

    last: float = 0.0
    squares: float = 0.0
    weight: float = 0.0
    windows: float = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of one difference."""
        return sqrt(self.squares / self.weight) if self.weight else 0.0

    @property
    def known(self) -> bool:
        """Whether it may be bet on."""
        return self.windows >= LEARNING and self.deviation > 0

    def plus(self, difference: float) -> Scale:
        """Return the scale with one more window."""
        if not self.windows:
            return Scale(difference, 0.0, 0.0, 1.0)
        square = (difference - self.last) ** 2 / 2
        return Scale(difference, self.squares * HISTORY + square, self.weight * HISTORY + 1, self.windows + 1)

    def state(self) -> tuple[float, ...]:
        """Return it as an account keeps it."""
        return (self.last, self.squares, self.weight, self.windows)


@dataclass(frozen=True, slots=True)
class Sums:
    """A sum per request or user, compared with the baseline's or with a limit.

    Attributes:
        name: The metric's name.
        measured: What is summed.
        margin: Tolerated loss, as a part of the baseline's mean; None if only the limit counts.
        limit: What the mean has to keep to: at least it where more is better, else at most it; None without.
        threshold: e-value at which it fails.
        stakes: Parts of what one has that are bet.
        least: What a window loses at most, in stakes.
        per_user: How many events one user makes; its evidence counts as that of one.
    """

    name: str
    measured: Measured
    margin: float | None
    limit: float | None = None
    threshold: float = 1 / ALPHA
    stakes: tuple[float, ...] = STAKES
    least: float = -1.0
    per_user: float = 1.0

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        account, window = gathered(account, interval, self.measured, WINDOW)
        if window is None:
            return account
        n_c = sum(row[0] for row in window.counts.values() if row[2] or self.margin is None)
        if not n_c or not any(row[2] for row in window.counts.values()):
            return account
        canary = baseline = wide = 0.0
        for segment, (n, k, n_b, k_b) in window.counts.items():
            if n and n_b:
                canary += k / n_c
                baseline += n / n_c * k_b / n_b
                wide += n / n_c * (segment in interval.stage.full_segments)
        scale = Scale(*account.state.get(SCALE, ()))
        if scale.known:
            account = self._judged(account, interval, (canary, baseline, wide), scale.deviation * SPANS)
        kept = dict(account.state) | {
            SCALE: scale.plus(canary - baseline).state(),
            PAST: (canary, baseline),
        }
        return replace(account, state=kept)

    def _judged(
        self, account: Account, interval: Interval, means: tuple[float, float, float], span: float
    ) -> Account:
        canary, baseline, wide = means
        sign = 1 if self.measured.more else -1
        worse = sign * (self._tolerated(baseline, wide) - canary)
        better = sign * (canary - self._excluded(baseline, wide))
        if self.limit is not None:
            worse = min(worse, sign * (self.limit - canary))
            better = min(better, sign * (canary - self.limit) + span / SPANS)
        gain = [won / self.per_user for won in bet(worse / span, self.stakes, self.least)]
        account = replace(account, processes={PROCESS: interval.moved(account, PROCESS, gain)})
        return account.promoted(bet(better / span, (STAKE,))[0]) if interval.counting else account

    def _tolerated(self, baseline: float, wide: float) -> float:
        margin = self.margin or 0.0
        lost = margin + wide * max(0.0, FULL_MARGIN / (1 + FULL_MARGIN) - margin)
        return baseline * (1 - lost) if self.measured.more else baseline * (1 + lost)

    def _excluded(self, baseline: float, wide: float) -> float:
        loss = max(EXCLUDED_MOST * wide, min(EXCLUDED_MOST, EXCLUDED_MARGINS * (self.margin or 0.1)))
        return baseline * (1 - loss) if self.measured.more else baseline * (1 + loss)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        process = account.processes.get(PROCESS)
        reading = Reading(account, log_mean_exp(process) if process else 0.0, self.threshold, {})
        n_c, k_c, n_b, k_b = total(reading.table)
        scale = Scale(*account.state.get(SCALE, ()))
        mean, usual = k_c / n_c if n_c else 0.0, k_b / n_b if n_b else 0.0
        worse = "lower" if self.measured.more else "higher"
        limit = "" if self.limit is None else f", limit {self.limit:g}"
        words = Words(
            fault=f"{self.name} is {worse} on the canary",
            doubt=f"{self.name} is {worse} on the canary, not beyond doubt",
            good=f"{self.name} does not suffer",
            short=f"{self.name}: too little time to be sure{self._time(account, scale, usual)}",
            seen=f"canary {mean:.4g} on average of {n_c:.0f}, baseline {usual:.4g} of {n_b:.0f}{limit}"
            f"{borrowed(reading.table, stage, self.margin)}",
        )
        left = int(LEARNING - scale.windows)
        holds = ((not scale.known, f"{self.name}: {max(left, 1)} more minutes to learn how much it varies"),)
        return reading.answer(self.name, words, holds, None, "total")

    def _time(self, account: Account, scale: Scale, usual: float) -> str:
        if not scale.known or not usual:
            return ""
        gain = bet(abs(usual - self._excluded(usual, 0.0)) / (scale.deviation * SPANS), (STAKE,))[0]
        windows = max(0.0, ENOUGH - account.promotion) / gain
        return f", about {windows:.0f} more minutes"
