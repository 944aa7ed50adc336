"""Latency against the concurrent baseline, on the buckets of Envoy's histograms.

A canary that is ``g`` times as slow is past an edge as often as the baseline is past ``edge / g``; so a
margin in time is a ratio of counts. Body and tail are two metrics: both must pass.
Source: docs/decision-rule.md, "Rollback evidence: latency" and "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from controlplane.evidence import rising, scarce
from controlplane.evidence.account import ENOUGH, FULL_MARGIN, Account, Counters, Counts, Interval, Stage
from controlplane.evidence.comparison import ACQUAINTED
from controlplane.evidence.edges import Beyond
from controlplane.evidence.learned import LONG, Learned
from controlplane.evidence.likelihood import log_mean_exp, no_harm_rate
from controlplane.evidence.reading import (
    LOG_DOUBT,
    Reading,
    Words,
    borrowed,
    more_often,
    percent,
    rough,
    total,
)
from controlplane.evidence.rows import Floats, as_often, no_harm
from controlplane.evidence.scarce import RAREST
from controlplane.evidence.table import SLOWER
from controlplane.evidence.verdict import Verdict
from controlplane.policy.latency import EDGES_MS

ALTERNATIVES = (1.15, 1.3, 1.6, 2.0, 3.0, 6.0)
_TIMES = np.array(ALTERNATIVES)
WARM = 2.0  # margin while the canary warms up
# What promotion must exclude: (up to this share in the next step, times as slow, times as many in the tail).
# A policy that tolerates more against the baseline asks for less proof: in excess of 1, so many margins of
# slowness, and so many times that in the tail, as in the table.
MARGINS, TAILS = 2.5, 4.0
STEP, WHOLE, RISE = "edge of the step", "edge of the release", "edge of the rise"
EXCLUDED = ((0.05, 3.0, 10.0), (0.10, 2.0, 6.0), (0.25, 1.5, 4.0), (0.50, 1.35, 2.5), (1.0, 1.25, 2.0))


@dataclass(frozen=True, slots=True)
class Slowdown:
    """How often the canary is past the edges of one part of the baseline's distribution.

    Attributes:
        name: The metric's name.
        margin: Tolerated slowness, as a ratio of times: 0.1 is 10 % slower.
        threshold: e-value at which it fails.
        part: Least and greatest share of the baseline past an edge that belongs to the part.
        typical: Share past the edge that promotion looks at.
        tail: True if promotion excludes a ratio of counts rather than of times.
    """

    name: str
    margin: float
    threshold: float
    part: tuple[float, float]
    typical: float
    tail: bool

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        beyond, before = interval.beyond, interval.learned.beyond_now
        warm = interval.stage.elapsed < interval.stage.limits.warm_up
        margin = max(self.margin, WARM) if warm else self.margin
        # By the past alone: an edge that counts only while few of the baseline's happen to be past it
        # makes an equal canary look slow.
        edges = self._edges(interval.learned, before)
        found = zip(edges, _gain(interval, before, edges, 1 + margin), strict=True)
        gains = {str(EDGES_MS[edge]): gain for edge, gain in found}
        if self.tail and not edges:
            gains |= scarce.gains(interval, before, 1 + self.margin, 1 + margin)
        edge = self._nearest(beyond)
        harmless = None
        if interval.counting:
            harmless = self._no_harm(interval, beyond, edge), self._as_often(interval)
        account = rising.gathered(_looking(account, edge), interval)
        step, whole, rise = (SLOWER + _looked(account, table, edge) for table in (STEP, WHOLE, RISE))
        shown = Counters(step, whole, rise, recent=SLOWER + edge)
        return account.after(interval, shown, gains, harmless)

    def _edges(self, learned: Learned, beyond: Beyond) -> list[int]:
        """Return the edges of the part; none where none usually is of it, for then little is known of any."""
        least, most = self.part
        if not any(least <= usual <= most for usual in learned.usually_beyond):
            return []
        return [edge for edge, share in enumerate(beyond.shares) if least <= share <= most]

    def _nearest(self, beyond: Beyond) -> int:
        """Return the edge that is looked at for promotion, and shown; few requests are past a tail's."""
        edge = beyond.nearest(self.typical)
        if not self.tail or beyond.shares[edge] <= self.part[1]:
            return edge
        return next((at for at, share in enumerate(beyond.shares) if share <= self.part[1]), edge)

    def _no_harm(self, interval: Interval, beyond: Beyond, edge: int) -> float:
        blocks, counter, share = interval.blocks, SLOWER + edge, max(beyond.shares[edge], RAREST)
        canary, borrowed = blocks.served
        if not len(canary):
            return 0.0
        n, k = canary[:, 0], canary[:, counter]
        tolerated: Floats | float = (self._excluded(interval.stage, beyond, edge, lent=False) - 1) * share
        if blocks.lent:
            wider = (self._excluded(interval.stage, beyond, edge, lent=True) - 1) * share
            tolerated = np.where(borrowed, wider, tolerated)
        phi = 1 + _uneven(interval.learned, beyond, edge) * share * n * LONG / interval.seconds
        return float(np.add.reduce(no_harm(k, n, share, tolerated)[0] / phi))

    def _as_often(self, interval: Interval) -> float:
        """Return the evidence of the counts as they are, each block against its baseline of the same seconds.

        Latency wanders with the load, and a recent share lags behind: a canary that is slower all the time
        would now and then look as fast as the baseline was. The edge is chosen by the past alone: one chosen
        by the counts that are compared would be one where few of the baseline's happen to be slow.
        What is taken for the share where the baseline has hardly any does not lag behind.
        """
        before, blocks = interval.learned.beyond_now, interval.blocks
        edge = self._nearest(before)
        n_c, k_c, n_b, k_b = blocks.pair(SLOWER + edge)
        excluded: Floats | float = self._excluded(interval.stage, before, edge, lent=False)
        if blocks.lent:
            wider = self._excluded(interval.stage, before, edge, lent=True)
            excluded = np.where(blocks.borrowed, wider, excluded)
        if before.shares[edge] < RAREST:
            return float(np.add.reduce(no_harm(k_c, n_c, RAREST, (excluded - 1) * RAREST)[1]))
        return float(np.add.reduce(as_often(k_c, (n_c, n_b), k_c + k_b, excluded)))

    def _excluded(self, stage: Stage, beyond: Beyond, edge: int, lent: bool) -> float:
        """Return the ratio of counts that promotion must exclude.

        Where fewer of the baseline are past the edge than belong to the part, the edges do not show the part.
        Then what has to be excluded is harm to as many requests as may fail.
        """
        slower, more = _excluded(stage.next_share)
        asked, share = MARGINS * self.margin, beyond.shares[edge]
        slower, more = max(slower, 1 + asked), max(more, 1 + TAILS * asked)
        if self.tail:
            ratio = more * (1 + FULL_MARGIN) if lent else more
        else:
            ratio = beyond.ratio(edge, slower + FULL_MARGIN if lent else slower) * min(1.0, share / RAREST)
        if share < self.part[0]:
            ratio = max(ratio, 1 + stage.tolerated(0.0) / max(share, RAREST))
        return max(1.1, ratio)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        spoken = [log_mean_exp(account.processes[label]) for label in sorted(account.processes)]
        excess = {s: c[1] - c[0] * c[3] / c[2] for s, c in account.recent.items() if c[2]}
        log_e = log_mean_exp(spoken) if spoken else 0.0
        if log_e >= LOG_DOUBT:
            account = rising.shown(account, RISE)
        reading = Reading(account, log_e, self.threshold, excess, undoubted=-ENOUGH)
        holds = ((learned.total[0] < ACQUAINTED, "too little is known of the baseline"),)
        words = partial(self._words, reading, learned.beyond_now, stage)
        needed = partial(self._needed, account, stage, learned)
        return reading.answer(self.name, words, holds, needed, "slow")

    def _words(self, reading: Reading, beyond: Beyond, stage: Stage) -> Words:
        account, edge = reading.account, self._nearest(beyond)
        shown = _looked(account, RISE if reading.risen else WHOLE if reading.failed else STEP, edge)
        same = shown == _looked(account, WHOLE, edge)
        seen = reading.told(partial(_slower, shown), beside=same)
        if reading.log_e >= LOG_DOUBT and not reading.failed and account.rise:
            said = _slower(_looked(account, RISE, edge), total(account.rise))
            seen = f"in the last {rough(account.rising)} {said}"
        return Words(
            fault=f"the canary is slower in segment {reading.segment}",
            doubt="the canary is suspiciously slow",
            good="the canary is as fast as the baseline",
            short=self._short(reading.counts, beyond, shown),
            bursts="so many canary requests are slow that a slower canary is not excluded",
            # At two edges the halves of one sentence could contradict each other.
            seen=seen,
            note=borrowed(reading.table, stage, self.margin),
        )

    def _short(self, counts: Counts, beyond: Beyond, edge: int) -> str:
        """Say that nothing is proved, by where the counts point so far."""
        slower = 1 + self.margin
        tolerated = beyond.ratio(edge, slower) if beyond.shares[edge] else slower
        if more_often(counts, tolerated):
            return "the canary is slower so far, too little to be sure"
        return "too few requests to exclude a slower canary"

    def _needed(self, account: Account, stage: Stage, learned: Learned) -> float:
        """Return how many more requests of the canary a PASS takes, if they come as those of late."""
        beyond = learned.beyond_now
        edge = self._nearest(beyond)
        share = max(beyond.shares[edge], RAREST)
        excess = (self._excluded(stage, beyond, edge, lent=False) - 1) * share
        requests = total(account.recent)[0] / max(1, len(learned.cells.keys))  # of a block
        phi = 1 + _uneven(learned, beyond, edge) * share * requests * LONG / max(account.lately, 1.0)
        speed = no_harm_rate(share, min(beyond.shares[edge], share), excess) / phi
        return max(0.0, ENOUGH - account.promotion) / speed


@lru_cache(maxsize=1024)
def _excluded(next_share: float) -> tuple[float, float]:
    """Return what EXCLUDED says of a share: times as slow, and times as many in the tail."""
    return next(row[1:] for row in EXCLUDED if next_share <= row[0] + 1e-9 or row[0] == 1.0)


def _uneven(learned: Learned, beyond: Beyond, edge: int) -> float:
    """Return how uneven a version's own share past an edge is; of so few that a share is taken, of that."""
    at = SLOWER + edge - 1
    found, rate = float(learned.unevennesses[at]), float(learned.rates[at])
    return found * min(1.0, rate / RAREST) if beyond.shares[edge] < RAREST else found


def _looking(account: Account, edge: int) -> Account:
    """Return the account with the edge at which each of its tables begins to count, where one begins.

    What is shown is counted at one edge from a table's begin on; the evidence looks at the one that is best
    now.
    """
    tables, state = ((STEP, account.step), (WHOLE, account.whole), (RISE, account.rise)), account.state
    begun = {label: (float(edge),) for label, table in tables if not (table and label in state)}
    if all(state.get(label) == at for label, at in begun.items()):
        return account
    return account._replace(state={**state, **begun})


def _looked(account: Account, table: str, edge: int) -> int:
    """Return at which edge a table counts; ``edge`` where that is not known."""
    return int(account.state.get(table, (edge,))[0])


def _slower(edge: int, counts: Counts) -> str:
    n_c, k_c, n_b, k_b = counts
    return (
        f"slower than {EDGES_MS[edge]} ms were {percent(k_c, n_c)} of {n_c:.0f} canary requests "
        f"and {percent(k_b, n_b)} of the baseline's"
    )


def _gain(interval: Interval, beyond: Beyond, edges: Sequence[int], slower: float) -> list[list[float]]:
    """Return what an interval adds for each edge and alternative: binomial() over its dispersion.

    A segment without a baseline of its own may well be of slower users: limits alone judge it.
    """
    blocks, counters = interval.blocks, [SLOWER + edge for edge in edges]
    canary, baseline = blocks.own
    if not len(canary):
        return [[0.0] * len(ALTERNATIVES) for _ in edges]
    share = np.array([beyond.shares[edge] for edge in edges])
    null = np.array([beyond.ratio(edge, slower) for edge in edges])
    at = [counter - 1 for counter in counters]
    uneven, sway = interval.learned.unevennesses.take(at), interval.learned.sways.take(at)
    # One line per block, one column per edge, then one layer per alternative.
    requests, slow = canary[:, :1], canary.take(counters, axis=1)
    ratio, events = requests / baseline[:, :1], slow + baseline.take(counters, axis=1)
    expected = share * requests * LONG / interval.seconds
    phi = 1 + (uneven * expected + sway * np.add.reduce(expected)) * (1 + ratio)
    floor = null[:, None]
    rhos = np.maximum(floor, np.minimum(floor * _TIMES, 0.95 / share[:, None]))
    common = np.log((1 + null * ratio)[:, :, None] / (1 + ratio[:, :, None] * rhos))
    terms = (slow[:, :, None] * np.log(rhos / floor) + events[:, :, None] * common) / phi[:, :, None]
    found: list[list[float]] = np.add.reduce(terms).tolist()
    return found
