"""Latency against the concurrent baseline, on the buckets of Envoy's histograms.

A canary that is ``g`` times as slow is past an edge as often as the baseline is past ``edge / g``; so a
margin in time is a ratio of counts. Body and tail are two metrics: both must pass.
Source: docs/decision-rule.md, "Rollback evidence: latency" and "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np

from controlplane.evidence import rising, scarce
from controlplane.evidence.account import ENOUGH, FULL_MARGIN, Account, Counters, Counts, Interval, Stage
from controlplane.evidence.comparison import ACQUAINTED
from controlplane.evidence.edges import Beyond
from controlplane.evidence.learned import LONG, Learned
from controlplane.evidence.likelihood import log_mean_exp, no_harm_rate
from controlplane.evidence.reading import (
    HELPLESS,
    LOG_DOUBT,
    Reading,
    Words,
    above_usual,
    alone,
    borrowed,
    more_often,
    percent,
    rough,
    total,
)
from controlplane.evidence.rows import as_often, no_harm
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
class Part:
    """A part of the baseline's distribution.

    Attributes:
        name: The metric's name.
        least: Least share of the baseline past an edge that belongs to the part.
        most: The greatest.
        typical: Share past the edge that promotion looks at.
        tail: True if promotion excludes a ratio of counts rather than of times.
    """

    name: str
    least: float
    most: float
    typical: float
    tail: bool

    def edges(self, learned: Learned, beyond: Beyond) -> list[int]:
        """Return the edges of the part; none where none usually is of it, for then little is known of any."""
        least, most = self.least, self.most
        if not any(least <= usual <= most for usual in learned.usually_beyond):
            return []
        return [edge for edge, share in enumerate(beyond.shares) if least <= share <= most]

    def nearest(self, beyond: Beyond) -> int:
        """Return the edge that is looked at for promotion, and shown; few requests are past a tail's."""
        edge = beyond.nearest(self.typical)
        if not self.tail or beyond.shares[edge] <= self.most:
            return edge
        return next((at for at, share in enumerate(beyond.shares) if share <= self.most), edge)

    def excluded(self, margin: float, stage: Stage, beyond: Beyond, edge: int, lent: bool) -> float:
        """Return the ratio of counts that promotion must exclude.

        Where fewer of the baseline are past the edge than belong to the part, the edges do not show the part.
        Then what has to be excluded is harm to as many requests as may fail.
        """
        slower, more = _excluded(stage.next_share)
        asked, share = MARGINS * margin, beyond.shares[edge]
        slower, more = max(slower, 1 + asked), max(more, 1 + TAILS * asked)
        if self.tail:
            ratio = more * (1 + FULL_MARGIN) if lent else more
        else:
            ratio = beyond.ratio(edge, slower + FULL_MARGIN if lent else slower) * min(1.0, share / RAREST)
        if share < self.least:
            ratio = max(ratio, 1 + stage.tolerated(0.0) / max(share, RAREST))
        return max(1.1, ratio)


PARTS = (Part("latency", 0.1, 0.6, 0.35, tail=False), Part("latency tail", 0.0015, 0.1, 0.01, tail=True))


@dataclass(frozen=True, slots=True)
class Slowdown:
    """How often the canary is past the edges of one part of the baseline's distribution.

    Attributes:
        name: The metric's name.
        margin: Tolerated slowness, as a ratio of times: 0.1 is 10 % slower.
        threshold: e-value at which it fails.
        part: One of PARTS.
    """

    name: str
    margin: float
    threshold: float
    part: Part

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        found = interval.kept(_seen, self.margin)[self.part.name]
        gains = {str(EDGES_MS[edge]): gain for edge, gain in found.gains.items()}
        if self.part.tail and not gains:
            slower = 1 + _tolerated(interval, self.margin)
            gains = scarce.gains(interval, interval.learned.beyond_now, 1 + self.margin, slower)
        edge = found.edge
        account = rising.gathered(_looking(account, edge), interval)
        step, whole, rise = (SLOWER + _looked(account, table, edge) for table in (STEP, WHOLE, RISE))
        shown = Counters(step, whole, rise, recent=SLOWER + edge)
        return account.after(interval, shown, gains, found.harmless)

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
        needed = partial(self._needed, reading, stage, learned)
        return reading.answer(self.name, words, holds, needed, "slow")

    def _words(self, reading: Reading, beyond: Beyond, stage: Stage) -> Words:
        account, edge = reading.account, self.part.nearest(beyond)
        usual = beyond.shares if alone(stage) else None
        shown = _looked(account, RISE if reading.risen else WHOLE if reading.failed else STEP, edge)
        same = shown == _looked(account, WHOLE, edge)
        seen = reading.told(partial(_slower, shown, usual=usual), beside=same)
        if reading.log_e >= LOG_DOUBT and not reading.failed and account.rise:
            said = _slower(_looked(account, RISE, edge), total(account.rise), usual=usual)
            seen = f"in the last {rough(account.rising)} {said}"
        return Words(
            fault=f"the canary is slower in segment {reading.segment}",
            doubt="the canary is suspiciously slow",
            good="the canary is as fast as the baseline",
            short=self._short(reading.counts, beyond, shown, stage),
            bursts="so many canary requests are slow that a slower canary is not excluded",
            # At two edges the halves of one sentence could contradict each other.
            seen=seen,
            note=borrowed(reading.table, stage, self.margin),
        )

    def _short(self, counts: Counts, beyond: Beyond, edge: int, stage: Stage) -> str:
        """Say that nothing is proved, by where the counts point so far."""
        if alone(stage) and self._raised(counts, beyond, edge):
            return f"the canary is slower than is usual, {HELPLESS}"
        if more_often(counts, self._tolerated(beyond, edge)):
            return "the canary is slower so far, too little to be sure"
        return "too few requests to exclude a slower canary"

    def _tolerated(self, beyond: Beyond, edge: int) -> float:
        """Return how many times as many requests may be past an edge."""
        slower = 1 + self.margin
        return beyond.ratio(edge, slower) if beyond.shares[edge] else slower

    def _raised(self, counts: Counts, beyond: Beyond, edge: int) -> bool:
        """Return whether more are past an edge than the past tolerates, where it alone says what is usual."""
        return above_usual(counts, max(beyond.shares[edge], RAREST) * self._tolerated(beyond, edge))

    def _needed(self, reading: Reading, stage: Stage, learned: Learned) -> float | None:
        """Return how many more requests of the canary a PASS takes, if they come as those of late."""
        account, beyond = reading.account, learned.beyond_now
        looked = _looked(account, STEP, self.part.nearest(beyond))
        if alone(stage) and self._raised(reading.counts, beyond, looked):
            return None
        edge = self.part.nearest(beyond)
        share = max(beyond.shares[edge], RAREST)
        excess = (self.part.excluded(self.margin, stage, beyond, edge, lent=False) - 1) * share
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


def _slower(edge: int, counts: Counts, *, usual: Sequence[float] | None) -> str:
    """Say how many are past an edge, beside the baseline's, or beside what is ``usual`` where it has none."""
    n_c, k_c, n_b, k_b = counts
    slow = f"slower than {EDGES_MS[edge]} ms were {percent(k_c, n_c)} of {n_c:.0f} canary requests"
    if usual is not None:
        return f"{slow}, usually {percent(usual[edge], 1)}"
    return f"{slow} and {percent(k_b, n_b)} of the baseline's"


class _Seen(NamedTuple):
    """What an interval says of a part.

    Attributes:
        gains: By edge, what it adds for each alternative.
        edge: That is looked at.
        harmless: Evidence of no harm, as in :meth:`Account.after`.
    """

    gains: Mapping[int, list[float]]
    edge: int
    harmless: tuple[float, float] | None


def _seen(interval: Interval, margin: float) -> Mapping[str, _Seen]:
    """Return what an interval says of all parts by name, in tables for both: a line more costs little."""
    beyond, before = interval.beyond, interval.learned.beyond_now
    # By the past alone: an edge that counts only while few of the baseline's happen to be past it
    # makes an equal canary look slow.
    edges = [part.edges(interval.learned, before) for part in PARTS]
    looked = [part.nearest(beyond) for part in PARTS]
    gains = iter(_gain(interval, before, edges, 1 + _tolerated(interval, margin)))
    harmless: Iterable[tuple[float, float] | None] = repeat(None)
    if interval.counting:
        harmless = zip(_no_harm(interval, margin, looked), _as_often(interval, margin), strict=True)
    return {
        part.name: _Seen(dict(zip(own, gains, strict=False)), edge, found)
        for part, own, edge, found in zip(PARTS, edges, looked, harmless, strict=False)
    }


def _tolerated(interval: Interval, margin: float) -> float:
    """Return the margin; while the canary warms up it may be slower."""
    return max(margin, WARM) if interval.stage.elapsed < interval.stage.limits.warm_up else margin


def _excluded_by(
    interval: Interval, margin: float, beyond: Beyond, edges: Sequence[int], lent: bool
) -> list[list[float]]:
    """Return the ratio that promotion must exclude, in a line for each part."""
    both = zip(PARTS, edges, strict=True)
    return [[part.excluded(margin, interval.stage, beyond, edge, lent)] for part, edge in both]


def _no_harm(interval: Interval, margin: float, edges: Sequence[int]) -> list[float]:
    """Return the evidence of no harm of each part, whose ``edges`` these are."""
    blocks, beyond = interval.blocks, interval.beyond
    canary, borrowed = blocks.served
    if not len(canary):
        return [0.0 for _ in PARTS]
    n, k = canary[:, 0], canary.T.take([SLOWER + edge for edge in edges], axis=0)
    # One line per part, one column per block.
    share = np.array([[max(beyond.shares[edge], RAREST)] for edge in edges])
    tolerated = (np.array(_excluded_by(interval, margin, beyond, edges, lent=False)) - 1) * share
    if blocks.lent:
        wider = (np.array(_excluded_by(interval, margin, beyond, edges, lent=True)) - 1) * share
        tolerated = np.where(borrowed, wider, tolerated)
    uneven = np.array([[_uneven(interval.learned, beyond, edge)] for edge in edges])
    phi = 1 + uneven * share * n * LONG / interval.seconds
    found: list[float] = np.add.reduce(no_harm(k, n, share, tolerated)[0] / phi, axis=1).tolist()
    return found


def _as_often(interval: Interval, margin: float) -> list[float]:
    """Return the evidence of the counts as they are, each block against its baseline of the same seconds.

    Latency wanders with the load, and a recent share lags behind: a canary that is slower all the time
    would now and then look as fast as the baseline was. The edges are chosen by the past alone: those chosen
    by the counts that are compared would be some where few of the baseline's happen to be slow.
    What is taken for the share where the baseline has hardly any does not lag behind.
    """
    before, blocks = interval.learned.beyond_now, interval.blocks
    edges = [part.nearest(before) for part in PARTS]
    n_c, n_b = blocks.canary[:, 0], blocks.baseline[:, 0]
    counters = [SLOWER + edge for edge in edges]
    k_c, k_b = blocks.canary.T.take(counters, axis=0), blocks.baseline.T.take(counters, axis=0)
    excluded = np.array(_excluded_by(interval, margin, before, edges, lent=False))
    if blocks.lent:
        wider = np.array(_excluded_by(interval, margin, before, edges, lent=True))
        excluded = np.where(blocks.borrowed, wider, excluded)
    found: list[float] = np.add.reduce(as_often(k_c, (n_c, n_b), k_c + k_b, excluded), axis=1).tolist()
    for line, edge in enumerate(edges):
        if before.shares[edge] < RAREST:
            tolerated = (excluded[line] - 1) * RAREST
            found[line] = float(np.add.reduce(no_harm(k_c[line], n_c, RAREST, tolerated)[1]))
    return found


def _gain(
    interval: Interval, beyond: Beyond, parts: Sequence[Sequence[int]], slower: float
) -> list[list[float]]:
    """Return what an interval adds for each edge and alternative: binomial() over its dispersion.

    A segment without a baseline of its own may well be of slower users: limits alone judge it.

    Args:
        interval: What came.
        beyond: The baseline's shares.
        parts: The edges of each part, whose requests sway together.
        slower: Times as slow as is tolerated.
    """
    edges = [*chain.from_iterable(parts)]
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
    first = len(parts[0])
    whole = np.concatenate([np.add.reduce(part) for part in (expected[:, :first], expected[:, first:])])
    phi = 1 + (uneven * expected + sway * whole) * (1 + ratio)
    floor = null[:, None]
    rhos = np.maximum(floor, np.minimum(floor * _TIMES, 0.95 / share[:, None]))
    common = np.log((1 + null * ratio)[:, :, None] / (1 + ratio[:, :, None] * rhos))
    terms = (slow[:, :, None] * np.log(rhos / floor) + events[:, :, None] * common) / phi[:, :, None]
    found: list[list[float]] = np.add.reduce(terms).tolist()
    return found
