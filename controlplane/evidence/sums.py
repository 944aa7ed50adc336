"""Sums: bets on windows, which need no shape of a distribution.

Source: docs/decision-rule.md, "Business metrics: sums".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log1p, sqrt

from controlplane.evidence.account import ALPHA, ENOUGH, FULL_MARGIN, Account, Counts, Interval, Stage
from controlplane.evidence.conversions import EXCLUDED_MARGINS, EXCLUDED_MOST
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import log_mean_exp
from controlplane.evidence.measures import Filled, Measured, gathered
from controlplane.evidence.reading import Reading, Words, borrowed
from controlplane.evidence.verdict import Verdict

# Parts of what one has that are bet. Sums of few orders are skewed, most so on the smaller side, and a cut of
# the long side is a gain on average: so little is bet, and a loss is cut far out only.
STAKES = (0.01, 0.03, 0.1, 0.3)
LEAST = -3.0
STAKE, LEAST_PROOF = 0.5, -1.0  # the same, on its being no worse than promotion allows
SPANS = 3.0  # standard deviations of a window's difference that win or lose a whole stake
WINDOW = 60.0  # seconds
LEARNING = 5  # windows that only teach how much they differ
HISTORY = 0.97
PROCESS, SCALE = "main", "scale"

Means = tuple[float, float, float]  # of the canary, of the baseline, share of requests that borrow one


def bet(share: float, stakes: tuple[float, ...], least: float = LEAST) -> list[float]:
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
        windows: How many had something on the canary: from the others nothing is learned of its amounts.
        begun: 1 once there was a window.
    """

    last: float = 0.0
    squares: float = 0.0
    weight: float = 0.0
    windows: float = 0.0
    begun: float = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of one difference."""
        return sqrt(self.squares / self.weight) if self.weight else 0.0

    @property
    def known(self) -> bool:
        """Whether it may be bet on."""
        return self.windows >= LEARNING and self.deviation > 0

    def plus(self, canary: float, baseline: float) -> Scale:
        """Return the scale with one more window."""
        difference, windows = canary - baseline, self.windows + bool(canary)
        if not self.begun:
            return Scale(difference, 0.0, 0.0, windows, 1.0)
        square = (difference - self.last) ** 2 / 2
        return Scale(difference, self.squares * HISTORY + square, self.weight * HISTORY + 1, windows, 1.0)

    def state(self) -> tuple[float, ...]:
        """Return it as an account keeps it."""
        return (self.last, self.squares, self.weight, self.windows, self.begun)


@dataclass(frozen=True, slots=True)
class Sums:
    """A sum per request or user, compared with the baseline's or with a limit.

    Attributes:
        name: The metric's name.
        measured: What is summed.
        margin: Tolerated loss, as a part of the baseline's mean; None if only the limit counts.
        limit: What the mean has to keep to: at least it where more is better, else at most it; None without.
        threshold: e-value at which it fails.
        per_user: How many events one user makes; its evidence counts as that of one.
    """

    name: str
    measured: Measured
    margin: float | None
    limit: float | None = None
    threshold: float = 1 / ALPHA
    per_user: float = 1.0

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        account, seen, proof = gathered(account, interval, self.measured, WINDOW)
        scale, whole = Scale(*account.state.get(SCALE, ())), interval.stage.full_segments
        span = scale.deviation * SPANS
        if scale.known and (means := self._means(proof, whole)):
            account = account.promoted(bet(self._better(means, span) / span, (STAKE,), LEAST_PROOF)[0])
        if seen is None:
            return account
        if gain := self.gains(account, seen, whole):
            account = replace(account, processes={PROCESS: interval.moved(account, PROCESS, gain)})
        return replace(account, state=dict(account.state) | self.learned(account, seen, whole))

    def gains(self, account: Account, seen: Filled, whole: frozenset[str]) -> list[float]:
        """Return what a window says for each stake; nothing while it is not known how much windows differ."""
        scale, means = Scale(*account.state.get(SCALE, ())), self._means(seen, whole)
        if not scale.known or means is None:
            return []
        won = bet(self._worse(means) / (scale.deviation * SPANS), STAKES)
        return [each / self.per_user for each in won]

    def learned(
        self, account: Account, window: Filled, whole: frozenset[str]
    ) -> dict[str, tuple[float, ...]]:
        """Return how much windows differ, with one more of them."""
        if (means := self._means(window, whole)) is None:
            return {}
        return {SCALE: Scale(*account.state.get(SCALE, ())).plus(*means[:2]).state()}

    def _means(self, window: Filled | None, whole: frozenset[str]) -> Means | None:
        """Return the means of a window, each segment weighted by the canary's requests in it."""
        rows = {} if window is None else window
        n_c = sum(row[0] for row in rows.values() if row[2] or self.margin is None)
        if not n_c or not any(row[2] for row in rows.values()):
            return None
        canary = baseline = wide = 0.0
        for segment, (n, k, n_b, k_b) in rows.items():
            if n and n_b:
                canary += k / n_c
                baseline += n / n_c * k_b / n_b
                wide += n / n_c * (segment in whole)
        return canary, baseline, wide

    def _worse(self, means: Means) -> float:
        canary, baseline, wide = means
        sign = 1 if self.measured.more else -1
        worse = sign * (self._tolerated(baseline, wide) - canary)
        return worse if self.limit is None else min(worse, sign * (self.limit - canary))

    def _better(self, means: Means, span: float) -> float:
        canary, baseline, wide = means
        sign = 1 if self.measured.more else -1
        better = sign * (canary - self._excluded(baseline, wide))
        return better if self.limit is None else min(better, sign * (canary - self.limit) + span / SPANS)

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
        scale = Scale(*account.state.get(SCALE, ()))
        _, usual = _both(reading.counts)
        worse = "lower" if self.measured.more else "higher"
        limit = "" if self.limit is None else f", limit {self.limit:g}"
        windows = self._windows(account, scale, usual)
        time = "" if windows is None else f", about {windows:.0f} more minutes"
        words = Words(
            fault=f"{self.name} is {worse} on the canary",
            doubt=f"{self.name} is {worse} on the canary, not beyond doubt",
            good=f"{self.name} does not suffer",
            short=f"{self.name}: too little time to be sure{time}",
            seen=f"{reading.told(_averages)}{limit}{borrowed(reading.table, stage, self.margin)}",
        )
        left = int(LEARNING - scale.windows)
        holds = ((not scale.known, f"{self.name}: {max(left, 1)} more minutes to learn how much it varies"),)
        found = reading.answer(self.name, words, holds, None, "total")
        if found.reason.startswith(words.short) and windows is not None:
            found = replace(found, seconds_needed=windows * WINDOW)
        return self.measured.current(found, account, stage)

    def _windows(self, account: Account, scale: Scale, usual: float) -> float | None:
        """Return how many more windows a PASS takes if they are as usual; None if that cannot be said."""
        if not scale.known or not usual:
            return None
        gain = bet(
            abs(usual - self._excluded(usual, 0.0)) / (scale.deviation * SPANS), (STAKE,), LEAST_PROOF
        )[0]
        return max(0.0, ENOUGH - account.promotion) / gain


def _both(counts: Counts) -> tuple[float, float]:
    """Return the means of the canary and of the baseline."""
    n_c, k_c, n_b, k_b = counts
    return k_c / n_c if n_c else 0.0, k_b / n_b if n_b else 0.0


def _averages(counts: Counts) -> str:
    canary, baseline = _both(counts)
    return f"canary {canary:.4g} on average of {counts[0]:.0f}, baseline {baseline:.4g} of {counts[2]:.0f}"
