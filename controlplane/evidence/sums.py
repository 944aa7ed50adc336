"""Sums: bets on windows, which need no shape of a distribution.

Source: docs/decision-rule.md, "Business metrics: sums".
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from functools import partial
from math import ceil, log1p, sqrt
from typing import NamedTuple

from controlplane.evidence import totals
from controlplane.evidence.account import ALPHA, ENOUGH, FULL_MARGIN, Account, Counts, Interval, Stage
from controlplane.evidence.conversions import EXCLUDED_MOST, excluded
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import log_mean_exp
from controlplane.evidence.measures import Filled, Measured, compared, gathered
from controlplane.evidence.pace import told
from controlplane.evidence.reading import DOUBT, Reading, Words, borrowed, rested, total
from controlplane.evidence.verdict import Said, Verdict
from controlplane.policy.documents import EVERYONE

# Of the largest stake, these parts are bet side by side. A stake is won or lost with the difference of a
# window, and its size follows from what is known of windows: see `Sums.gains`.
PARTS = (0.03, 0.1, 0.3, 1.0)
BOLDEST, TIMID = 0.2, 0.05  # most and least that the largest stake loses with one standard deviation
LEAN = 0.4  # part of what one has that it loses with one mean
RUIN = -0.97  # more than that is never lost at once: what is cut there is so far out that it hardly counts
STAKE, LEAST_PROOF = 0.5, -1.0  # on its being no worse than promotion allows; lost from a whole span on
SPANS = 3.0  # standard deviations of a window's difference beyond which nothing more is won
WINDOW = 60.0  # seconds
LEARNING = 5  # windows that only teach how much they differ
ALIKE = 0.25  # of the baseline's requests: with so many, a canary that has nothing shows that it has nothing
HISTORY, LONG_HISTORY = 0.97, 0.99
PROCESS, SCALE = "main", "scale"


class Means(NamedTuple):
    """What a window had per request.

    Attributes:
        canary: Of the canary.
        baseline: Of the baseline, each segment weighted by the canary's requests in it.
        wide: Share of the canary's requests that borrow a baseline.
        n_c: Requests of the canary.
        n_b: As many equally weighted requests of the baseline would vary as much.
    """

    canary: float
    baseline: float
    wide: float
    n_c: float
    n_b: float

    @property
    def tell(self) -> bool:
        """Whether something is learned of amounts: the canary has some, or had as good a chance of them."""
        return bool(self.canary) or (self.n_c >= ALIKE * self.n_b and bool(self.baseline))


def proof(share: float) -> float:
    """Return what a window proves that is better than what promotion excludes by a ``share`` of a span."""
    return log1p(STAKE * min(1.0, max(LEAST_PROOF, share)))


@dataclass(frozen=True, slots=True)
class Scale:
    """How much the difference of two versions changes from one window to the next.

    Differences of neighbours, so that a fault, which lasts, is not mistaken for noise. They are known twice:
    of the difference itself, and of each version's mean, from which follows what few requests may differ by.
    Where the canary has few orders, its own past knows too little of what one large order does.

    Attributes:
        last: The last difference.
        squares: Decayed sum of (difference - the one before)^2 / 2.
        weight: Decayed number of these.
        windows: How many told of the canary's amounts: from the others nothing is learned of them.
        begun: 1 once there was a window.
        usual: Decayed sum of the baseline's means.
        past: Decayed number of these.
        single: Decayed sum of the variance that one request must have for means to change as they did.
        pairs: Decayed number of these.
        canary: Its mean in the last window.
        n_c: Of so many requests.
        baseline: The same of the baseline.
        n_b: Of so many requests.
    """

    last: float = 0.0
    squares: float = 0.0
    weight: float = 0.0
    windows: float = 0.0
    begun: float = 0.0
    usual: float = 0.0
    past: float = 0.0
    single: float = 0.0
    pairs: float = 0.0
    canary: float = 0.0
    n_c: float = 0.0
    baseline: float = 0.0
    n_b: float = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of one difference."""
        return sqrt(self.squares / self.weight) if self.weight else 0.0

    @property
    def known(self) -> bool:
        """Whether it may be bet on."""
        return self.windows >= LEARNING and self.deviation > 0

    @property
    def mean(self) -> float:
        """The baseline's usual mean."""
        return self.usual / self.past if self.past else 0.0

    def noise(self, means: Means) -> float:
        """Return the standard deviation of the difference of a window with so many requests."""
        single = self.single / self.pairs if self.pairs else 0.0
        return max(self.deviation, sqrt(single * (1 / means.n_c + 1 / means.n_b)))

    def plus(self, means: Means) -> Scale:
        """Return the scale with one more window."""
        difference = means.canary - means.baseline
        found = replace(
            self,
            last=difference,
            windows=self.windows + means.tell,
            begun=1.0,
            usual=self.usual * LONG_HISTORY + means.baseline,
            past=self.past * LONG_HISTORY + 1,
            canary=means.canary,
            n_c=means.n_c,
            baseline=means.baseline,
            n_b=means.n_b,
        )
        if self.begun:
            square = (difference - self.last) ** 2 / 2
            found = replace(found, squares=self.squares * HISTORY + square, weight=self.weight * HISTORY + 1)
        if self.past:
            single = self.single * LONG_HISTORY + self._single(means)
            found = replace(found, single=single, pairs=self.pairs * LONG_HISTORY + 1)
        return found

    def _single(self, means: Means) -> float:
        """Return the variance of one request by the changes of both means, each weighted by its requests."""
        canary = (means.canary - self.canary) ** 2 / (1 / means.n_c + 1 / self.n_c)
        baseline = (means.baseline - self.baseline) ** 2 / (1 / means.n_b + 1 / self.n_b)
        return (means.n_c * canary + means.n_b * baseline) / (means.n_c + means.n_b)

    def state(self) -> tuple[float, ...]:
        """Return it as an account keeps it."""
        return astuple(self)


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
        boldest: Most that the largest stake loses with one standard deviation.
        by_user: Whether, of what is pushed by user, a difference must show between users as well.
    """

    name: str
    measured: Measured
    margin: float | None
    limit: float | None = None
    threshold: float = 1 / ALPHA
    per_user: float = 1.0
    boldest: float = BOLDEST
    by_user: bool = False

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        if self.margin is not None:
            interval = compared(interval)
        if self.by_user and interval.counting:
            account = totals.noted(account, interval, self.measured)
        account, seen, counting = gathered(account, interval, self.measured, WINDOW)
        scale, whole = Scale(*account.state.get(SCALE, ())), interval.stage.full_segments
        span = scale.deviation * SPANS
        if scale.known and (means := self._means(counting, whole)):
            account = account.promoted(proof(self._better(means, span) / span))
        if seen is None:
            return account
        if gain := self.gains(account, seen, whole):
            account = account._replace(processes={PROCESS: interval.moved(account, PROCESS, gain)})
        return account._replace(state=dict(account.state) | self.learned(account, seen, whole))

    def gains(self, account: Account, seen: Filled, whole: frozenset[str]) -> list[float]:
        """Return what a window says for each stake; nothing while it is not known how much windows differ.

        The fewer orders a window has, the less of its spread is its mean and the longer is the tail of what
        is lost: so the stake is a part of what one has that is lost with one mean, not with one deviation.
        """
        scale, means = Scale(*account.state.get(SCALE, ())), self._means(seen, whole)
        if not scale.known or means is None:
            return []
        noise = scale.noise(means)
        lost = min(self.boldest, max(TIMID, LEAN * abs(scale.mean) / noise))  # with one deviation
        won = min(self._worse(means) / noise, SPANS) * lost
        return [log1p(max(RUIN, part * won)) / self.per_user for part in PARTS]

    def learned(
        self, account: Account, window: Filled, whole: frozenset[str]
    ) -> dict[str, tuple[float, ...]]:
        """Return how much windows differ, with one more of them."""
        if (means := self._means(window, whole)) is None:
            return {}
        return {SCALE: Scale(*account.state.get(SCALE, ())).plus(means).state()}

    def _means(self, window: Filled | None, whole: frozenset[str]) -> Means | None:
        """Return the means of a window, each segment weighted by the canary's requests in it."""
        rows = {} if window is None else window
        if self.limit is not None and EVERYONE in whole:
            # Nobody is left on the baseline: the limit alone, which is as good as known.
            n_c, k_c = sum(row[0] for row in rows.values()), sum(row[1] for row in rows.values())
            return Means(k_c / n_c, self.limit, 0.0, n_c, n_c) if n_c else None
        n_c = sum(row[0] for row in rows.values() if row[2] or self.margin is None)
        if not n_c or not any(row[2] for row in rows.values()):
            return None
        canary = baseline = wide = thin = 0.0
        for segment, (n, k, n_b, k_b) in rows.items():
            if n and n_b:
                canary += k / n_c
                baseline += n / n_c * k_b / n_b
                wide += n / n_c * (segment in whole)
                thin += (n / n_c) ** 2 / n_b
        return Means(canary, baseline, wide, n_c, 1 / thin) if thin else None

    def _worse(self, means: Means) -> float:
        """Return by how much the canary is worse than what is tolerated, and than a limit."""
        canary, baseline, wide, *_ = means
        ahead = self.measured.ahead
        worse = ahead(self._tolerated(baseline, wide), canary)
        return worse if self.limit is None else min(worse, ahead(self.limit, canary))

    def _better(self, means: Means, span: float) -> float:
        """Return by how much the canary is better than what promotion excludes."""
        canary, baseline, wide, *_ = means
        if self.limit is not None:  # which is proved by itself, whatever the baseline has
            return self.measured.ahead(canary, self.limit) + span / SPANS
        return self.measured.ahead(canary, self._excluded(baseline, wide))

    def _tolerated(self, baseline: float, wide: float) -> float:
        """Return the mean that is just tolerated."""
        margin = self.margin or 0.0
        lost = margin + wide * max(0.0, FULL_MARGIN / (1 + FULL_MARGIN) - margin)
        return baseline * self.measured.worse(lost)

    def _excluded(self, baseline: float, wide: float) -> float:
        """Return the mean that promotion excludes."""
        loss = max(EXCLUDED_MOST * wide, excluded(self.margin or 0.0))
        return baseline * self.measured.worse(loss)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        fault = partial(self._log_e, account, stage)
        reading = Reading(account, fault, self.threshold, {}, borrowing=stage.borrowing)
        scale = Scale(*account.state.get(SCALE, ()))
        windows = self._windows(account, scale)

        def words() -> Words:
            worse = "lower" if self.measured.more else "higher"
            doubt = f"is {worse} on the canary" if self.limit is None else "does not keep its limit"
            limit = "" if self.limit is None else f", limit {self.limit:g}"
            time = "" if windows is None else f", about {self._told(account, windows)}"
            return Words(
                fault=f"{self.name} is {worse} on the canary",
                doubt=f"{self.name} {doubt}, not beyond doubt",
                good=f"{self.name} does not suffer",
                short=f"{self.name}: too little time to be sure{time}",
                seen=f"{reading.told(_averages)}{limit}",
                note=borrowed(reading.table, stage, self.margin),
            )

        def needed() -> None:
            """More requests alone will not do."""

        left = max(int(LEARNING - scale.windows), 1)
        canary, _ = _both(reading.counts)
        missed = self.limit is not None and self.measured.ahead(canary, self.limit) < 0
        holds = (
            (not scale.known, f"{self.name}: {self._told(account, left)} to learn how much it varies"),
            (missed, DOUBT),
        )
        answer = found = reading.answer(self.name, words, holds, needed, "total")
        if answer.cause == "short" and windows is not None:
            seconds = windows * self._window(account)

            def said() -> Said:
                return replace(answer.said, seconds_needed=seconds)

            found = answer.saying(said)
        found = self.measured.current(found, account, stage)
        return found if self.margin is None else rested(found, reading.doubted, stage)

    def _log_e(self, account: Account, stage: Stage) -> float:
        """Return the evidence of a fault; between users it is sought where both versions have some."""
        process = account.processes.get(PROCESS)
        found = log_mean_exp(process) if process else 0.0
        if not self.by_user or self.margin is None or stage.full_segments or not totals.known(account):
            return found
        tolerated = self.measured.worse(self.margin)
        return min(found, totals.log_e(account, tolerated, more=not self.measured.more))

    def _window(self, account: Account) -> float:
        """Return the seconds of a window: what is pushed fills none before it comes."""
        return max(WINDOW, self.measured.period(account)) if self.measured.pushed else WINDOW

    def _told(self, account: Account, windows: float) -> str:
        if self._window(account) == WINDOW:
            return "1 more minute" if windows <= 1 else f"{ceil(windows)} more minutes"
        return told(ceil(windows), ceil(windows) * self._window(account))

    def _windows(self, account: Account, scale: Scale) -> float | None:
        """Return how many more windows a PASS takes if nothing changes; None if that is none ever."""
        canary, usual = _both(total(account.step))
        span = scale.deviation * SPANS
        unknown = not scale.known or (self.limit is None and not usual)
        if unknown or self._better(Means(canary, usual, 0.0, 1, 1), span) <= 0:
            return None
        # Of a comparison with versions that are alike: what the canary has beyond it may be chance.
        expected = Means(usual if self.limit is None else canary, usual, 0.0, 1, 1)
        return max(0.0, ENOUGH - account.promotion) / proof(self._better(expected, span) / span)


def _both(counts: Counts) -> tuple[float, float]:
    """Return the means of the canary and of the baseline."""
    n_c, k_c, n_b, k_b = counts
    return k_c / n_c if n_c else 0.0, k_b / n_b if n_b else 0.0


def _averages(counts: Counts) -> str:
    canary, baseline = _both(counts)
    return f"canary {canary:.4g} on average of {counts[0]:.0f}, baseline {baseline:.4g} of {counts[2]:.0f}"
