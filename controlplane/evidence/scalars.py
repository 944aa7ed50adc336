"""Readings of other systems, which come without counts.

Source: docs/decision-rule.md, "Readings of Prometheus".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import exp, log, log1p, sqrt
from typing import NamedTuple

from controlplane.evidence.account import ALPHA, ENOUGH, NO_COUNTS, PROOF, Account, Interval, Stage
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import log_mean_exp
from controlplane.evidence.observation import Reading
from controlplane.evidence.reading import LOG_DOUBT, rested
from controlplane.evidence.verdict import Numbers, Outcome, Said, Verdict
from controlplane.policy.documents import EVERYONE

PROCESS, SPREAD = "main", "spread"
STAKE, LOST = 0.5, -1.9  # of what one has; how many stakes one reading may lose
LEARNING = 3.0  # pairs of neighbouring readings from which on it is known how much they differ
HISTORY = 0.97


@dataclass(frozen=True, slots=True)
class Scalars:
    """Readings of both versions that come without counts, compared.

    Each reading is one bet of half of what one has on the canary being worse; at least 13 in a row are
    needed to fail. What is won is the lesser of two: all by its sign, or as much as the difference is of what
    differences usually are. The first is fair where the middle of what readings say is alike, the second
    where the mean is: of few events most readings are below their mean. Readings that overlap are no new
    bets.

    Attributes:
        name: The metric's name.
        reading: What readings are called.
        margin: Tolerated loss, as a part of the baseline's value.
        more: Whether more is better.
        every: Seconds between readings.
        apart: Seconds between two that say nothing of the same requests.
        threshold: e-value at which it fails.
    """

    name: str
    reading: str
    margin: float
    more: bool
    every: float
    apart: float
    threshold: float = 1 / ALPHA

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        account, fresh = noted(account, interval, self.reading)
        fresh, state = tuple(r for r in fresh if r.baseline is not None), dict(account.state)
        told, since = self._apart(fresh, state.get(SINCE, (self.apart,))[0], interval.seconds)
        state[SINCE] = (since,)
        for reading in told:
            gain = [self._won(reading, state)]
            state[SPREAD] = _spread(reading, state.get(SPREAD, ()))
            account = account._replace(processes={PROCESS: interval.moved(account, PROCESS, gain)})
        if interval.counting:
            # What a query looks back at before the step is no proof of it.
            told, since = self._apart(fresh, state.get(SINCE_STEP, (0.0,))[0], interval.seconds)
            state[SINCE_STEP] = (since,)
            for reading in told:
                account = account.promoted(log1p(-STAKE if self._worse(reading) > 0 else STAKE))
        return account._replace(state=state)

    def _apart(
        self, fresh: tuple[Reading, ...], since: float, passed: float
    ) -> tuple[tuple[Reading, ...], float]:
        """Return the readings that do not overlap, and how long ago the last of these was."""
        found, since = [], since + passed
        for reading in fresh:
            # Answers come a little early or late.
            if since - reading.age >= self.apart - self.every / 2:
                found.append(reading)
                since = reading.age
        return tuple(found), since

    def _won(self, reading: Reading, state: Mapping[str, tuple[float, ...]]) -> float:
        worse = self._worse(reading)
        share = float((worse > 0) - (worse < 0))
        squares, weight, *_ = state.get(SPREAD, (0.0, 0.0))
        if weight > LEARNING and squares:
            share = min(share, max(LOST, worse / sqrt(squares / weight)))
        return log1p(STAKE * share)

    def _worse(self, reading: Reading) -> float:
        assert reading.canary is not None
        assert reading.baseline is not None
        sign = 1 if self.more else -1
        return sign * (reading.baseline - reading.canary) - self.margin * abs(reading.baseline)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        log_e = log_mean_exp(account.processes[PROCESS]) if PROCESS in account.processes else 0.0
        e_value = exp(min(log_e, 690.0))
        numbers = (("e_value", e_value), ("threshold", self.threshold))
        told = partial(Verdict, self.name, EVERYONE, fault=e_value, threshold=self.threshold)
        if log_e >= log(self.threshold):
            reason = f"{self.name}: the canary is worse: {shown(account)}"
            return told(Outcome.FAIL, Said(reason, numbers))
        return rested(self._answer(account, numbers, told), log_e >= LOG_DOUBT, stage)

    def _answer(self, account: Account, numbers: Numbers, told: Callable[..., Verdict]) -> Verdict:
        if lack := lacking(account, self.every):
            return lack.verdict(told, self.name, numbers)
        if account.promotion >= ENOUGH:
            reason = f"{self.name}: the canary is no worse: {shown(account)}"
            return told(Outcome.PASS, Said(reason, numbers, 0))
        more = max(1, round((ENOUGH - account.promotion) / log1p(STAKE) + 0.5))
        each = f" that are {self.apart:.0f} s apart" if self.apart > self.every else ""
        reason = f"{self.name}: {more} more {'readings' if more > 1 else 'reading'}{each}"
        reason += f", {more * self.apart:.0f} s, if good: {shown(account)}"
        return told(Outcome.NOT_YET, Said(reason, numbers, None, more * self.apart))


def _spread(reading: Reading, before: tuple[float, ...]) -> tuple[float, float, float]:
    """Return sums of the squares of changes of the difference, of their number, and the difference."""
    assert reading.canary is not None
    assert reading.baseline is not None
    difference = reading.canary - reading.baseline
    if not before:
        return 0.0, 0.0, difference
    squares, weight, last = before
    return squares * HISTORY + (difference - last) ** 2 / 2, weight * HISTORY + 1, difference


BREACHES = 3  # readings in a row beyond a limit that fail
ENOUGH_READINGS = 2  # of a step, within a limit, that pass
GAP = (
    3  # times as long as readings are apart: what lies before it is too old to say anything with what follows
)
AGE, LATEST, STREAK, GOOD, PROBLEM = "age", "latest", "streak", "good", "problem:"
SINCE, SINCE_STEP = "since", PROOF + "since"  # seconds since the last bet, of the release and of the step


def noted(account: Account, interval: Interval, name: str) -> tuple[Account, tuple[Reading, ...]]:
    """Return the account with the readings of an interval, and those that are whole."""
    state = dict(account.state)
    state[AGE] = (state.get(AGE, (0.0,))[0] + interval.seconds,)
    fresh: list[Reading] = []
    for reading in interval.observation.readings:
        if reading.name != name:
            continue
        for key in [key for key in state if key.startswith(PROBLEM)]:
            del state[key]
        if reading.problem or reading.canary is None:
            state[PROBLEM + (reading.problem or "no value")] = (1.0,)
            continue
        both = (reading.canary,) if reading.baseline is None else (reading.canary, reading.baseline)
        state[AGE], state[LATEST] = (reading.age,), both
        fresh.append(reading)
    return account._replace(state=state), tuple(fresh)


def unjudged(account: Account, seconds: float) -> Account:
    """Return the account after an interval of a grace: readings are older, and a row of them ends."""
    if AGE not in account.state:
        return account
    state = {key: kept for key, kept in account.state.items() if key != STREAK}
    state[AGE] = (state[AGE][0] + seconds,)
    return account._replace(state=state, step={k: kept for k, kept in account.step.items() if k != GOOD})


class Lack(NamedTuple):
    """Why the last readings say nothing.

    Attributes:
        cause: In words that stay the same while that does.
        reason: In words.
        overdue: Whether a reading should have come by now.
    """

    cause: str
    reason: str
    overdue: bool = True

    def verdict(self, told: Callable[..., Verdict], name: str, numbers: Numbers) -> Verdict:
        """Return it as the answer of a metric."""
        said, more = Said(f"{name}: {self.reason}", numbers), {"lacking": True, "overdue": self.overdue}
        return told(Outcome.NOT_YET, said, cause=self.cause, **more)


def lacking(account: Account, every: float) -> Lack | None:
    """Return why the last readings say nothing; None if they do."""
    problem = next((key.removeprefix(PROBLEM) for key in account.state if key.startswith(PROBLEM)), "")
    if problem:
        return Lack(problem, problem)
    (age,) = account.state.get(AGE, (0.0,))
    late = age > GAP * every
    if LATEST not in account.state:
        return Lack("no reading yet", "no reading yet", late)
    return Lack("no new reading", f"the last reading is {age:.0f} s old") if late else None


def shown(account: Account) -> str:
    """Return the last reading in words."""
    canary, *baseline = account.state[LATEST]
    return f"canary {canary:.6g}" + "".join(f", baseline {value:.6g}" for value in baseline)


@dataclass(frozen=True, slots=True)
class ScalarLimit:
    """A limit on readings of the canary: three in a row beyond it fail, two of a step within it pass.

    After a gap in the readings a row begins anew, and so it does after a grace.

    A rule, not a test: what a reading is worth, only who wrote the query knows. With a baseline, a reading
    counts as beyond only while the baseline's keeps the limit or the canary's is worse by a tenth.
    """

    name: str
    reading: str
    limit: float
    most: bool
    every: float

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        before = account.state.get(AGE, (0.0,))[0] + interval.seconds  # how long ago the last reading was
        account, fresh = noted(account, interval, self.reading)
        streak = account.state.get(STREAK, (0.0,))[0]
        good, broken, *_ = account.step.get(GOOD, NO_COUNTS)
        for reading in fresh:
            assert reading.canary is not None
            if before - reading.age > GAP * self.every:
                streak = good = broken = 0.0
            before = reading.age
            streak = streak + 1 if self._beyond(reading.canary, reading.baseline) else 0.0
            breaks = self._breaks(reading.canary)
            good = good + 1 if interval.counting and not breaks else 0.0
            # Beyond it now and then: not until it keeps the limit is that over.
            broken = 0.0 if good >= ENOUGH_READINGS else broken + breaks
        return account._replace(
            state=dict(account.state) | {STREAK: (streak,)},
            step={GOOD: (good, broken, 0.0, 0.0)} if good or broken else {},
        )

    def _breaks(self, value: float) -> bool:
        return value > self.limit if self.most else value < self.limit

    def _beyond(self, canary: float, baseline: float | None) -> bool:
        if not self._breaks(canary):
            return False
        if baseline is None or not self._breaks(baseline):
            return True
        return (canary - baseline if self.most else baseline - canary) > 0.1 * abs(baseline)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        streak = account.state.get(STREAK, (0.0,))[0]
        bound = f"{'at most' if self.most else 'at least'} {self.limit:g}"
        numbers: Numbers = (("limit", self.limit), ("beyond", streak))
        if LATEST in account.state:
            numbers = (("canary", account.state[LATEST][0]), *numbers)
        if streak >= BREACHES:
            reason = f"{self.name}: {streak:.0f} readings in a row beyond {bound}: {shown(account)}"
            return Verdict(self.name, EVERYONE, Outcome.FAIL, Said(reason, numbers))
        if lack := lacking(account, self.every):
            return lack.verdict(partial(Verdict, self.name, EVERYONE), self.name, numbers)
        good, broken, *_ = account.step.get(GOOD, NO_COUNTS)
        reason = f"{self.name}: {shown(account)}, {bound}"
        if good >= ENOUGH_READINGS:
            return Verdict(self.name, EVERYONE, Outcome.PASS, Said(reason, numbers, 0))
        if LATEST in account.state and all(map(self._breaks, account.state[LATEST])) and not streak:
            reason = f"{self.name}: the baseline is beyond it too: {shown(account)}, {bound}"
            return Verdict(self.name, EVERYONE, Outcome.NOT_YET, Said(reason, numbers), lacking=True)
        more = ENOUGH_READINGS - good
        wanted = "readings within it are" if round(more) > 1 else "reading within it is"
        reason += f"; {more:.0f} more {wanted} needed"
        doubtful = broken > 0
        if doubtful:
            reason += f", {broken:.0f} were beyond it"
        said = Said(reason, numbers, None, more * self.every)
        return Verdict(self.name, EVERYONE, Outcome.NOT_YET, said, doubtful=doubtful)
