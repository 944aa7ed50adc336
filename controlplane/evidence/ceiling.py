"""Absolute limits as tests on counts: at most a share of the canary's requests may be bad.

A limit fails when the canary breaks it and is worse than the concurrent baseline, by all requests or by those
of one segment: each interval counts only for the lesser of the evidence against the limit and against the
baseline. So a breach of both never fails.
It holds, except in an emergency, whose limit is relaxed to what the baseline shows.
Source: docs/decision-rule.md, "Rollback evidence: absolute limits".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.account import ENOUGH, FULL_MARGIN, Account, Beside, Counts, Find, Interval, Stage
from controlplane.evidence.blocks import Blocks
from controlplane.evidence.by_segment import SEGMENT, joined, loudness, shown
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import no_harm, no_harm_rate
from controlplane.evidence.reading import DOUBT, Reading, Words, average, borrowed, bound, percent, total
from controlplane.evidence.table import WIDTH
from controlplane.evidence.verdict import Outcome, Verdict
from controlplane.policy.documents import EVERYONE

ALTERNATIVES = (1.3, 1.6, 2.0, 3.0, 5.0, 10.0, 30.0, 90.0)  # multiples of the limit
ALIKE = 1.25  # ratio of rates up to which both versions count as breaching alike
LEFT = 0.02  # requests of the baseline per request of the canary, which a small hold-back has as well
PROCESS = "breach"
BREACHES = "the baseline breaches the limit itself"

Floats = NDArray[np.float64]
Gains = Mapping[str, list[float]]  # by process, for each alternative
_TIMES: Floats = np.array([ALTERNATIVES])


class Limit(NamedTuple):
    """What is limited, and how: as in `Ceiling`."""

    counter: int
    allowed: float
    share: bool


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
        share: Whether a request has one event at most; else there may be more events than requests.
        beside: All that is limited in the same interval, this among it; () if it is alone.
    """

    name: str
    counter: int
    allowed: float
    threshold: float
    event: str
    share: bool = True
    beside: tuple[Limit, ...] = ()

    @property
    def limit(self) -> Limit:
        """What is limited."""
        return Limit(self.counter, self.allowed, self.share)

    @property
    def asks(self) -> tuple[Find[tuple[Limit, ...], Mapping[Limit, Gains]], tuple[Limit, ...]]:
        """What it asks of an interval."""
        return _broken, self.beside or (self.limit,)

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        blocks = interval.blocks
        harmless = None
        if interval.counting and (blocks.canary_sum[0] or blocks.canary_sum[self.counter]):
            allowed = self._held_to(account, interval.learned, interval.stage)
            added = no_harm(
                blocks.canary_sum[self.counter],
                blocks.canary_sum[0],
                allowed,
                interval.stage.tolerated(allowed),
            )
            harmless = added, added
        return account.after(interval, self.counter, self._gains(account, interval), harmless)

    def _gains(self, account: Account, interval: Interval) -> Gains:
        """Return what the interval adds to each process: of all requests, and of each segment's."""
        blocks = interval.blocks
        few = blocks.baseline_sum[0] < LEFT * blocks.canary_sum[0]
        if EVERYONE not in interval.stage.full_segments or not few:
            return interval.kept(*self.asks)[self.limit]
        # Nobody is left on the baseline: the limit alone.
        sums = blocks.sums
        counts = np.array(_counts(blocks, self.counter), dtype=float)
        held_to = self._held_to(account, interval.learned, interval.stage)
        allowed = [held_to, *(max(held_to, ALIKE * (shown(account, segment) or 0)) for segment in sums)]
        gains = _above(counts, _Faults.beyond(np.array(allowed), self.share))
        return dict(zip(_labels(sums), (gains / interval.learned.swing(self.counter)).tolist(), strict=True))

    def _held_to(self, account: Account, learned: Learned, stage: Stage) -> float:
        """Return the limit, in an emergency at least what the baseline does not keep either.

        Of the baseline counts what was seen since the release began, and just before.
        """
        if not stage.limits.emergency:
            return self.allowed
        _, _, requests, bad = total(account.whole)
        requests, bad = requests + learned.recent[0], bad + learned.recent[self.counter]
        return max(self.allowed, ALIKE * bad / requests) if requests else self.allowed

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        fault, shows = partial(joined, account, PROCESS), partial(loudness, account)
        reading = Reading(account, fault, self.threshold, shows, borrowing=stage.borrowing)
        n_c, k_c, n_b, k_b = reading.counts
        recent, swing = total(account.recent), learned.swing(self.counter)
        allowed = self._held_to(account, learned, stage)
        breaches = self._baseline_breaches(learned, stage)
        holds = (
            (breaches, BREACHES),
            (recent[1] > allowed * recent[0], DOUBT),
            # Among many half minutes one keeps it by chance; all of the step's requests do not. An outage of
            # both versions is over with its half minute.
            (k_c > _by_chance(max(allowed, k_b / max(n_b, 1)) * n_c, swing), DOUBT),
        )
        words = partial(self._words, reading, allowed, learned, stage)
        # Where the step is above the limit and those of late are not, more like the step's never do.
        late = recent[1] / recent[0] if recent[0] else 0.0
        needed = partial(self._needed, account, stage, allowed, min(late, k_c / n_c) if n_c else 0.0)
        found = reading.answer(self.name, words, holds, needed, "bad")
        if breaches and found.outcome is Outcome.NOT_YET:
            found = replace(found, baseline=f"{BREACHES}: {self._of_late(learned)}")
        # The last half minute may keep by chance what the step does not.
        beyond = found.outcome is Outcome.NOT_YET and k_c > allowed * n_c
        return replace(found, doubtful=True) if beyond and not found.doubtful else found

    def _words(self, reading: Reading, allowed: float, learned: Learned, stage: Stage) -> Words:
        n_c, k_c, *_ = reading.counts
        within = k_c <= allowed * n_c
        relaxed = "" if allowed == self.allowed else f", in this emergency {bound(allowed, self.share)}"

        def seen(counts: Counts) -> str:
            if not self.share:
                return average(counts)
            return f"{percent(counts[1], counts[0])} of {counts[0]:.0f} canary requests {self.event}"

        return Words(
            fault=f"the limit is broken in segment {reading.segment}",
            doubt=self._beyond(reading.counts, allowed, learned, stage),
            good=self._kept(reading.counts, allowed, learned.swing(self.counter), stage),
            short=f"{'within the limit' if within else self._broken_by()}, too few requests to be sure",
            seen=f"{reading.told(seen)}, allowed {bound(self.allowed, self.share)}{relaxed}",
            note=borrowed(reading.table, stage),
        )

    def _beyond(self, counts: Counts, allowed: float, learned: Learned, stage: Stage) -> str:
        """Say how the canary is above the limit, and what of a breach is not proved."""
        n_c, k_c, *_ = counts
        if k_c <= allowed * n_c:
            return f"{self._broken_by()} in the last half minute"
        sure = k_c > 2 * _by_chance(allowed * n_c, learned.swing(self.counter)) - allowed * n_c
        if sure and EVERYONE not in stage.full_segments and not stage.limits.emergency:
            return f"{self._broken_by()}, not beyond doubt worse than the baseline"
        return f"{self._broken_by()}, not beyond doubt"

    def _baseline_breaches(self, learned: Learned, stage: Stage) -> bool:
        """Return whether the baseline's last half minute is above the limit by more than chance explains."""
        most = _by_chance(self.allowed * learned.recent[0], learned.swing(self.counter))
        compared = EVERYONE not in stage.full_segments and not stage.limits.emergency
        return compared and learned.recent[self.counter] > most

    def _of_late(self, learned: Learned) -> str:
        """Return what the baseline has of late, and what is allowed."""
        rate = learned.recent[self.counter] / learned.recent[0]
        has = bound(rate, self.share) + (f" {self.event}" if self.share else " on average")
        return f"{has} of late, allowed {bound(self.allowed, self.share)}"

    def _kept(self, counts: Counts, allowed: float, swing: float, stage: Stage) -> str:
        """Say what a PASS shows: of a canary that is above the limit within chance, what is excluded."""
        n_c, k_c, *_ = counts
        if k_c <= allowed * n_c:
            return "the limit is kept"
        if k_c > _by_chance(allowed * n_c, swing):
            return "the limit is kept again, after both versions broke it"
        excluded = bound(allowed + stage.tolerated(allowed), self.share)
        return f"{self._broken_by()}, within what chance explains, and {excluded} is excluded"

    def _broken_by(self) -> str:
        """Say what breaks the limit; of a success rate 'above the limit' would sound well."""
        return f"more {self.event} than is allowed" if self.share else "the canary is above the limit"

    def _needed(self, account: Account, stage: Stage, allowed: float, rate: float) -> float | None:
        speed = no_harm_rate(allowed, rate, stage.tolerated(allowed))
        return max(0.0, ENOUGH - account.promotion) / speed if speed > 0 else None


def beside(account: Account, counter: int, stage: Stage) -> Learned:
    """Return what an account knows of the baseline of late, where nothing is learned of what it counts.

    In an emergency, which holds nothing against the baseline, that is nothing.
    """
    if stage.limits.emergency:
        return Learned()
    own = {s: counts for s, counts in account.recent.items() if s not in stage.full_segments}
    recent = [0.0] * WIDTH
    _, _, recent[0], recent[counter] = total(own)
    return Learned.lately(tuple(recent))


def _by_chance(expected: float, swing: float) -> float:
    """Return the count that chance explains: two standard deviations more than expected."""
    return expected + 2 * sqrt(swing * expected)


class _Faults(NamedTuple):
    """What is looked for beyond limits: a line per limit, a column per alternative.

    Attributes:
        times: Multiples of the limits; of shares none beyond what a share can be.
        logs: Their logarithms.
        excess: Share of the requests by which each is above its limit.
    """

    times: Floats
    logs: Floats
    excess: Floats

    @classmethod
    def beyond(cls, allowed: Floats, share: bool) -> _Faults:
        """Return what is looked for beyond so many limits."""
        theta, times = allowed[:, None], _TIMES
        if share:
            # Beyond a limit that is nearly all requests there is only what lies between it and all.
            most = np.maximum(0.95, (1 + theta) / 2) / theta
            times = np.maximum(1.0, np.minimum(times, most))
        times = np.broadcast_to(times, (len(allowed), len(ALTERNATIVES)))
        return cls(times, np.log(times), (times - 1) * theta)


class _Sought(NamedTuple):
    """What is looked for beyond limits and beside the baseline, a line for each process.

    Attributes:
        faults: Beyond the limits.
        null: Ratio of the canary's rate to the baseline's up to which both breach alike, in a column.
        raised: The same times the faults.
    """

    faults: _Faults
    null: Floats
    raised: Floats


@lru_cache(maxsize=16)  # few combinations of intervals come again
def _sought(limits: tuple[tuple[Limit, ...], ...], alike: tuple[tuple[float, ...], ...]) -> _Sought:
    """Return what is looked for; by interval, the ``limits`` and ``alike``, the ratios of one's processes."""
    each = [
        _Faults.beyond(np.full(len(ratios), limit.allowed), limit.share)
        for asked, ratios in zip(limits, alike, strict=True)
        for limit in asked
    ]
    faults = _Faults(*(np.concatenate(tables) for tables in zip(*each, strict=True)))
    every = [ratios * len(asked) for asked, ratios in zip(limits, alike, strict=True)]
    null = np.concatenate(every)[:, None]
    return _Sought(faults, null, null * faults.times)


def _broken(beside: Beside, limits: Sequence[tuple[Limit, ...]]) -> list[Mapping[Limit, Gains]]:
    """Return what each interval adds by limit, in a table for all of them: a line more costs little."""
    intervals, counts, swings, alike = beside.intervals, [], [], []
    for interval, asked in zip(intervals, limits, strict=True):
        sums, whole = interval.blocks.sums, interval.stage.full_segments
        alike.append((ALIKE, *(1 + FULL_MARGIN if segment in whole else ALIKE for segment in sums)))
        for limit in asked:
            counts += _counts(interval.blocks, limit.counter)
            swings += [[interval.learned.swing(limit.counter)]] * (1 + len(sums))
    lines = iter((_above_both(counts, _sought((*limits,), (*alike,))) / swings).tolist())
    labels = [_labels(interval.blocks.sums) for interval in intervals]
    return [
        {limit: dict(zip(names, lines, strict=False)) for limit in asked}
        for asked, names in zip(limits, labels, strict=True)
    ]


def _labels(segments: Iterable[str]) -> tuple[str, ...]:
    """Return the names of processes: of all requests, and of each segment's."""
    return (PROCESS, *(SEGMENT + segment for segment in segments))


def _counts(blocks: Blocks, counter: int) -> list[Counts]:
    """Return the counts of the same."""
    rows = ((blocks.canary_sum, blocks.baseline_sum), *blocks.sums.values())
    return [(c[0], c[counter], b[0], b[counter]) for c, b in rows]


def _above(counts: Floats, faults: _Faults) -> Floats:
    """Return evidence that more than a share is bad: a line per row of counts, a column per alternative."""
    found: Floats = counts[:, 1:2] * faults.logs - faults.excess * counts[:, :1]
    return found


def _above_both(counts: Sequence[Counts], sought: _Sought) -> Floats:
    """Return the lesser of :func:`_above` and of the evidence that the canary is worse than the baseline.

    There is none where one of them has no requests.
    """
    table = np.array(counts, dtype=float)
    n_c, k_c, n_b, k_b = table.T[:, :, None]
    both = [canary > 0 and baseline > 0 for canary, _, baseline, _ in counts]
    met = None if all(both) else np.array(both)[:, None]
    ratio = n_c / n_b if met is None else np.where(met, n_c, 1.0) / np.where(met, n_b, 1.0)
    common = np.log1p(sought.null * ratio) - np.log1p(sought.raised * ratio)
    worse = k_c * sought.faults.logs + (k_c + k_b) * common
    found: Floats = np.minimum(_above(table, sought.faults), worse)
    return found if met is None else np.where(met, found, 0.0)
