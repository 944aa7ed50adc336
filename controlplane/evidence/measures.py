"""Business metrics of one interval, by segment, and the windows that they are gathered in.

Source: docs/decision-rule.md, "Business metrics".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from controlplane.evidence import pairs
from controlplane.evidence.account import (
    NO_COUNTS,
    PROOF,
    RECENT_HALF_LIFE,
    Account,
    Counts,
    Interval,
    Stage,
    plus,
)
from controlplane.evidence.observation import Cell, Observation
from controlplane.evidence.pace import Pace, told
from controlplane.evidence.reading import rough
from controlplane.evidence.verdict import Outcome, Said, Verdict
from controlplane.policy.documents import EVERYONE, UNCOMPARED

Filled = Mapping[str, Counts]  # the counts of a window that has just been filled, by segment

WINDOW = 30.0  # seconds: users act within them, so counts of several are nearly independent
CLOCK, PENDING = "clock", "pending:"
AGE_CANARY, AGE_BASELINE = "age:canary", "age:baseline"
PACE = "pace"


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric as it is counted.

    Attributes:
        name: The metric's name, as a verdict calls it.
        metric: Its name in observations.
        per: Name of the metric that it is divided by; '' for requests, or what was pushed with it.
        more: Whether more is better.
        pushed: Whether it comes with numbers of its own: Envoy does not count it.
        every: Seconds between pushes, at most.
        per_pushed: Whether what it is divided by is pushed.
    """

    name: str
    metric: str
    per: str = ""
    more: bool = True
    pushed: bool = False
    every: float = 300.0
    per_pushed: bool = False

    @property
    def share(self) -> bool:
        """Whether one that it is divided by has one event at most; of another metric there may be more."""
        return not self.per

    @property
    def waits(self) -> bool:
        """Whether values of the versions come at moments of their own."""
        return self.pushed or self.per_pushed

    def ahead(self, value: float, other: float) -> float:
        """Return by how much a value is better than another one; below 0 if it is worse."""
        return value - other if self.more else other - value

    def worse(self, part: float) -> float:
        """Return by what a value is multiplied to be worse by this part of it."""
        return 1 - part if self.more else 1 + part

    def ratio(self, kept: float) -> float:
        """Return the ratio of rates that keeps this part of what is good: above 1 where fewer is better."""
        return kept if self.more else 1 / kept

    def counts(self, interval: Interval) -> dict[str, Counts]:
        """Return (n, total) of both versions by segment; a whole segment borrows the rest's baseline."""
        seen = interval.observation
        return tabled(interval, (*self._totals(seen), *self._base(seen)))

    def acting(self, interval: Interval) -> dict[str, Counts] | None:
        """Return the same with all users in ``n`` who could have added to the total; None without users."""
        seen = interval.observation
        known = [m for m in seen.measures if m.metric == self.metric and m.among is not None]
        if self.per or not self.pushed or not known:
            return None
        return tabled(interval, (*self._totals(seen), *((m.cell, 0, m.among or 0) for m in known)))

    def paired(
        self, account: Account, interval: Interval, fresh: Filled, prefix: str = ""
    ) -> tuple[Account, Filled]:
        """Return the account with pushed values that wait for the other version, and what both came of.

        What Envoy counts waits for nothing, nor does anything where nobody is left on the baseline.

        Args:
            account: Until then.
            interval: The interval.
            fresh: Its counts.
            prefix: ``PROOF`` for what only intervals that count are given to.
        """
        parts = {self.metric: self.pushed, self.per: self.per_pushed}
        columns = {name: column for column, (name, pushed) in enumerate(parts.items()) if pushed}
        if not self.waits or EVERYONE in interval.stage.full_segments:
            return account, fresh
        came = tabled(interval, _pushes(interval, columns))
        needed = tuple(side + column for side in (0, 2) for column in columns.values())
        account, ready = pairs.paired(account, fresh, came, needed, prefix)
        return (account if prefix else pairs.timed(account, ready, interval.seconds)), ready

    def noted(self, account: Account, interval: Interval) -> Account:
        """Return the account with how old the last pushed value of each version is."""
        if not self.pushed:
            return account
        state, stage = dict(account.state), interval.stage
        for label, version in ((AGE_CANARY, stage.canary), (AGE_BASELINE, stage.stable)):
            ages = [
                m.age or 0.0
                for m in interval.observation.measures
                if (m.metric, m.cell.version) == (self.metric, version) and m.n is not None
            ]
            state[label] = (min(ages, default=state.get(label, (0.0,))[0] + interval.seconds),)
        came = sum(row[0] for row in self.counts(interval).values())
        state[PACE] = self.pace(account).after(interval.seconds, came, self.every).state
        return account._replace(state=state)

    def pace(self, account: Account) -> Pace:
        """Return how values of the canary are pushed."""
        return Pace(*account.state.get(PACE, ()))

    def current(self, verdict: Verdict, account: Account, stage: Stage) -> Verdict:
        """Return a verdict, or that no value came for long: nothing passes by what is old.

        What is not overdue is not lacking, and how long it takes follows from the pace of pushes.
        """
        if verdict.outcome is Outcome.FAIL or not (found := self._overdue(account, stage)):
            return self._timed(verdict, account, stage)
        cause, reason = found
        late = _instead(verdict, f"{verdict.metric}: {reason}", cause)
        return replace(late, outcome=Outcome.NOT_YET, lacking=True, overdue=True)

    def _timed(self, verdict: Verdict, account: Account, stage: Stage) -> Verdict:
        if not self.pushed or verdict.outcome is not Outcome.NOT_YET:
            return verdict
        sides = (0,) if EVERYONE in stage.full_segments else (0, 2)
        if any(not any(row[side] for row in account.step.values()) for side in sides):
            reason = f"{self.name}: no values of both versions in this step yet"
            reason += f", they should come every {rough(self.every)}"
            return replace(_instead(verdict, reason, "no values"), lacking=False)
        return verdict.saying(lambda: self._at_this_pace(verdict.said, account))

    def _at_this_pace(self, said: Said, account: Account) -> Said:
        if not said.requests_needed:
            return said
        pushes, period = self.pace(account).needed(said.requests_needed), self.period(account)
        more = f"; about {said.requests_needed} {said.wanted} are needed, {told(pushes, pushes * period)}"
        return said.adding(more, pushes * period)

    def period(self, account: Account) -> float:
        """Return the seconds from one push to the next."""
        return self.pace(account).period(self.every)

    def _overdue(self, account: Account, stage: Stage) -> tuple[str, str] | None:
        """Return what of the pushed values does not come any more, or not together, in short and in words."""
        alone = EVERYONE in stage.full_segments
        for label, version in ((AGE_CANARY, "canary"), *(() if alone else ((AGE_BASELINE, "baseline"),))):
            (age,) = account.state.get(label, (0.0,))
            if age > 3 * self.every:
                rhythm = f"they should come every {rough(self.every)}"
                missing = f"no value of the {version}"
                return missing, f"{missing} was pushed for {rough(age)}, {rhythm}"
        unpaired = "" if alone else pairs.apart(account, self.every)
        return ("values of both versions apart", unpaired) if unpaired else None

    def _totals(self, seen: Observation) -> Iterator[tuple[Cell, int, float]]:
        return ((m.cell, 1, m.total) for m in seen.measures if m.metric == self.metric)

    def _base(self, seen: Observation) -> Iterator[tuple[Cell, int, float]]:
        """Return what the totals are divided by."""
        if self.per:
            return ((m.cell, 0, m.total) for m in seen.measures if m.metric == self.per)
        if self.pushed:
            return ((m.cell, 0, m.n or 0) for m in seen.measures if m.metric == self.metric)
        # Where nothing is counted, as by a proxy that has an older listener, no request may count either.
        known = {m.cell for m in seen.measures if m.metric == self.metric}
        return ((cell, 0, tally.requests) for cell, tally in seen.cells if cell in known)


def _instead(verdict: Verdict, reason: str, cause: str) -> Verdict:
    """Return a verdict that says something else: more requests will not do."""

    def said() -> Said:
        return replace(verdict.said, reason=reason, requests_needed=None, brief="", note="")

    return replace(verdict, say=said, cause=cause)


def tabled(interval: Interval, values: Iterable[tuple[Cell, int, float]]) -> dict[str, Counts]:
    """Return values by segment, each in its column of its version; a whole segment borrows a baseline."""
    seen, stage = interval.observation, interval.stage
    partial = {proxy for proxy, _ in seen.partial}
    columns = {stage.canary: 0, stage.stable: 2}
    found: dict[str, list[float]] = {}
    for cell, column, value in values:
        known = cell.segment not in UNCOMPARED and cell.proxy not in partial and cell.version in columns
        if known and value:
            row = found.setdefault(cell.segment, [0.0, 0.0, 0.0, 0.0])
            row[columns[cell.version] + column] += value
    return _lent({s: (c[0], c[1], c[2], c[3]) for s, c in found.items()}, stage.full_segments)


def _lent(counts: Mapping[str, Counts], whole: frozenset[str]) -> dict[str, Counts]:
    rest = NO_COUNTS
    for row in counts.values():
        rest = plus(rest, (0.0, 0.0, row[2], row[3]))
    return {
        segment: (row[0], row[1], rest[2], rest[3]) if segment in whole else row
        for segment, row in sorted(counts.items())
        if any(row)
    }


def compared(interval: Interval) -> Interval:
    """Return an interval as a comparison of habits takes it.

    Who is in a segment at 100 % chose it, or was chosen, and buys otherwise than the rest: they stand for the
    canary only where no users are divided.
    """
    stage = interval.stage
    if not stage.divided:
        return interval
    return replace(interval, observation=divided(interval.observation, stage.full_segments))


def divided(seen: Observation, whole: frozenset[str]) -> Observation:
    """Return what was seen without segments of which one version has every user."""
    if not whole:
        return seen
    cells = tuple(pair for pair in seen.cells if pair[0].segment not in whole)
    measures = tuple(measure for measure in seen.measures if measure.cell.segment not in whole)
    return replace(seen, cells=cells, measures=measures)


def _pushes(interval: Interval, columns: Mapping[str, int]) -> Iterator[tuple[Cell, int, float]]:
    """Yield where something was pushed, in the column of its metric."""
    for m in interval.observation.measures:
        recent = m.age is not None and m.age <= interval.seconds
        if m.metric in columns and m.n is not None and (m.n or m.total or recent):
            yield m.cell, columns[m.metric], 1.0


def gathered(
    account: Account, interval: Interval, measured: Measured, least: float = WINDOW
) -> tuple[Account, Filled | None, Filled | None]:
    """Return the account with the interval in its windows, and those of them that it filled.

    The first window has every interval and looks for a fault; the second has only those that count for this
    step, and proves that there is none.
    """
    account = counted(measured.noted(account, interval), measured.counts(interval), interval)
    account, seen = _window(account, interval, measured, least, "")
    if not interval.counting:
        return account, seen, None
    account, proof = _window(account, interval, measured, least, PROOF)
    return account, seen, proof


def _window(
    account: Account, interval: Interval, measured: Measured, least: float, prefix: str
) -> tuple[Account, Filled | None]:
    fresh: Filled | None = measured.acting(interval)
    if fresh is None:
        account, fresh = measured.paired(account, interval, measured.counts(interval), prefix)
    clock, pending = prefix + CLOCK, prefix + PENDING
    state = dict(account.state)
    (seconds,) = state.pop(clock, (0.0,))
    rows = {k.removeprefix(pending): state.pop(k) for k in list(state) if k.startswith(pending)}
    for segment, row in fresh.items():
        before = rows.get(segment, NO_COUNTS)
        rows[segment] = plus(row, (before[0], before[1], before[2], before[3]))
    if rows or not measured.waits:
        # Pushes of several segments follow one another: a window of theirs begins with the first.
        seconds += interval.seconds
    if seconds < least:
        kept = {pending + segment: row for segment, row in rows.items()}
        return account._replace(state=state | {clock: (seconds,)} | kept), None
    full = {segment: (row[0], row[1], row[2], row[3]) for segment, row in sorted(rows.items())}
    return account._replace(state=state), full


def counted(account: Account, fresh: Mapping[str, Counts], interval: Interval) -> Account:
    """Return the account with an interval's counts by segment."""
    decay = 0.5 ** (interval.seconds / RECENT_HALF_LIFE)
    recent = {segment: plus(NO_COUNTS, row, decay) for segment, row in account.recent.items()}
    whole, step, rise = dict(account.whole), dict(account.step), dict(account.rise)
    for table in (whole, rise, recent, *((step,) if interval.counting else ())):
        for segment, row in fresh.items():
            table[segment] = plus(row, table.get(segment, NO_COUNTS))
    rising, lately = account.rising + interval.seconds, account.lately * decay + interval.seconds
    account = account._replace(whole=whole, rise=rise, rising=rising, recent=recent, step=step)
    return account._replace(lately=lately, stepping=account.stepped(interval))
