"""Latency against the concurrent baseline, on the buckets of Envoy's histograms.

A canary that is ``g`` times as slow is past an edge as often as the baseline is past ``edge / g``; so a
margin in time is a ratio of counts. Body and tail are two metrics: both must pass.
Source: docs/decision-rule.md, "Rollback evidence: latency" and "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from controlplane.evidence import rising, scarce
from controlplane.evidence.account import ENOUGH, Account, Counters, Counts, Find, Interval, Stage
from controlplane.evidence.comparison import ACQUAINTED
from controlplane.evidence.edges import Beyond
from controlplane.evidence.figures import LONG
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import log_mean_exp, no_harm_rate
from controlplane.evidence.reading import (
    HELPLESS,
    LIKE,
    LOG_DOUBT,
    MORE,
    Reading,
    Words,
    above_usual,
    alone,
    borrowed,
    more_often,
    once_each,
    percent,
    rough,
    total,
)
from controlplane.evidence.scarce import RAREST
from controlplane.evidence.slowed import Part, Slowed, excluded, nearest, slowed, tolerated, uneven
from controlplane.evidence.table import SLOWER
from controlplane.evidence.verdict import Verdict
from controlplane.policy.latency import EDGES_MS

_ONE = np.array([0])  # the line of a baseline that is alone
STEP, WHOLE, RISE = "edge of the step", "edge of the release", "edge of the rise"


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

    @property
    def asks(self) -> tuple[Find[float, Mapping[str, Slowed]], float]:
        """What it asks of an interval."""
        return slowed, self.margin

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        found = interval.kept(*self.asks)[self.part.name]
        gains = {str(EDGES_MS[edge]): gain for edge, gain in found.gains.items()}
        if self.part.tail and not gains:
            slower = 1 + tolerated(interval, self.margin)
            gains = scarce.gains(interval, 1 + self.margin, slower)
        edge = found.edge
        account = rising.gathered(_looking(account, edge), interval)
        step, whole, rise = (SLOWER + _looked(account, table, edge) for table in (STEP, WHOLE, RISE))
        shown = Counters(step, whole, rise, recent=SLOWER + edge)
        return account.after(interval, shown, gains, found.harmless)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        fault, shows = partial(_log_e, account), partial(_excess, account)
        reading = Reading(account, fault, self.threshold, shows, -ENOUGH, stage.borrowing)
        if reading.doubted:
            reading = replace(reading, account=rising.shown(account, RISE))
        holds = ((learned.total[0] < ACQUAINTED, "too little is known of the baseline"),)
        words = partial(self._words, reading, learned, stage)
        needed = partial(self._needed, reading, stage, learned)
        return reading.answer(self.name, words, holds, needed, "slow")

    def _words(self, reading: Reading, learned: Learned, stage: Stage) -> Words:
        beyond = learned.beyond_now
        account, edge = reading.account, _edge(self.part, beyond)
        usual = beyond.shares[0].tolist() if alone(stage) else None
        shown = _looked(account, RISE if reading.risen else WHOLE if reading.failed else STEP, edge)
        same = shown == _looked(account, WHOLE, edge)
        seen = reading.told(partial(_slower, shown, usual=usual), beside=same)
        if reading.log_e >= LOG_DOUBT and not reading.failed and account.rise:
            counts = once_each(account.rise, stage.borrowing)
            said = _slower(_looked(account, RISE, edge), counts, usual=usual)
            seen = f"in the last {rough(account.rising)} {said}"
        short, wanted = self._short(reading.counts, beyond, shown, stage)
        return Words(
            fault=f"the canary is slower in segment {reading.segment}",
            doubt="the canary is suspiciously slow",
            good="the canary is as fast as the baseline",
            short=short,
            bursts="so many canary requests are slow that a slower canary is not excluded",
            # At two edges the halves of one sentence could contradict each other.
            seen=seen,
            note=borrowed(reading.table, stage, self.margin),
            wanted=wanted,
        )

    def _short(self, counts: Counts, beyond: Beyond, edge: int, stage: Stage) -> tuple[str, str]:
        """Say that nothing is proved, by where the counts point so far, and what is wanted."""
        if alone(stage) and self._raised(counts, beyond, edge):
            return f"the canary is slower than is usual, {HELPLESS}", MORE
        if more_often(counts, self._tolerated(beyond, edge)):
            return "the canary is slower so far, too little to be sure", LIKE
        return "too few requests to exclude a slower canary", MORE

    def _tolerated(self, beyond: Beyond, edge: int) -> float:
        """Return how many times as many requests may be past an edge."""
        slower = 1 + self.margin
        return float(beyond.ratio(_ONE, np.array([edge]), slower)[0]) if beyond.shares[0, edge] else slower

    def _raised(self, counts: Counts, beyond: Beyond, edge: int) -> bool:
        """Return whether more are past an edge than the past tolerates, where it alone says what is usual."""
        return above_usual(counts, max(float(beyond.shares[0, edge]), RAREST) * self._tolerated(beyond, edge))

    def _needed(self, reading: Reading, stage: Stage, learned: Learned) -> float | None:
        """Return how many more requests of the canary a PASS takes, if they come as those of late."""
        account, beyond = reading.account, learned.beyond_now
        edge = _edge(self.part, beyond)
        if alone(stage) and self._raised(reading.counts, beyond, _looked(account, STEP, edge)):
            return None
        usual = float(beyond.shares[0, edge])
        share = max(usual, RAREST)
        at = np.array([[edge]])
        ratio = float(excluded((self.part,), (self.margin,), (stage,), beyond, at)[0, 0, 0])
        excess = (ratio - 1) * share
        requests = total(account.recent)[0] / max(1, len(learned.cells.keys))  # of a block
        seconds = max(account.lately, 1.0)
        phi = 1 + float(uneven(learned.figures, beyond, at)[0, 0]) * share * requests * LONG / seconds
        speed = no_harm_rate(share, min(usual, share), excess) / phi
        return max(0.0, ENOUGH - account.promotion) / speed


def _log_e(account: Account) -> float:
    """Return the logarithm of the evidence of a fault: the mean over all edges."""
    spoken = [log_mean_exp(account.processes[label]) for label in sorted(account.processes)]
    return log_mean_exp(spoken) if spoken else 0.0


def _excess(account: Account) -> dict[str, float]:
    """Return by segment how many more of the canary's requests of late are slow than of the baseline's."""
    return {s: c[1] - c[0] * c[3] / c[2] for s, c in account.recent.items() if c[2]}


@lru_cache(maxsize=1024)
def _edge(part: Part, beyond: Beyond) -> int:
    """Return the edge that is looked at beside a baseline that is alone; asked several times of each."""
    return int(nearest((part,), beyond)[0, 0])


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
