"""Error rates against the concurrent baseline.

Rollback evidence is conditional on the errors of both versions together, so drift and shared outages cancel.
Source: docs/decision-rule.md, "Rollback evidence: errors" and "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from math import log

import numpy as np

from controlplane.evidence.account import ENOUGH, FULL_MARGIN, Account, Counts, Interval, Stage
from controlplane.evidence.blocks import Blocks, Pairs
from controlplane.evidence.by_segment import SEGMENT, loudness
from controlplane.evidence.learned import SIZES, Learned
from controlplane.evidence.likelihood import (
    binomial,
    log_mean_exp,
    log_mixture,
    no_harm_rate,
)
from controlplane.evidence.reading import Reading, Words, borrowed, more_often, percent
from controlplane.evidence.rows import Floats, cautious, dues, no_harm
from controlplane.evidence.verdict import Verdict

ALTERNATIVES = (
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
    300.0,
)  # faults, as multiples of what is tolerated
LEAST_RISE = 0.001  # a rise by 0.1 percentage points is always tolerated, whatever the usual rate
QUASI_MOST = 1.0  # that one block may add to the process for small lasting faults: a burst is not lasting
DENSE_RATE, DENSE_EVENTS = 0.05, 10  # above five times the usual rate; what an interval must have to be dense
MOSTLY = 4.0  # canary requests per baseline request from which on the dense process counts
SURGING = 0.2  # chance that a block shows a burst of a size, while a fault makes them
RARE = 0.005  # chance of a burst in a block of a good canary from which on it says nothing
SURGE_RISE = ALTERNATIVES.index(10.0)  # the fault by which a burst must also be explained
MAIN, QUASI, DENSE, SURGE = "main", "quasi", "dense", "surge"
MAIN_WEIGHT, QUASI_WEIGHT, DENSE_WEIGHT, SURGE_WEIGHT, SEGMENT_WEIGHT = 0.4, 0.2, 0.1, 0.2, 0.1
ACQUAINTED = 50  # requests of the baseline before anything is compared with it
_SIZES = np.array(SIZES, dtype=float)
_TIMES = np.array((1.0, *ALTERNATIVES))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A counter's share of the canary's requests, compared with the baseline's.

    Attributes:
        name: The metric's name.
        counter: Position in a row.
        margin: Tolerated rise, as a ratio.
        threshold: e-value at which it fails.
    """

    name: str
    counter: int
    margin: float
    threshold: float

    def grid(self, learned: Learned, lent: bool) -> Floats:
        """Return the tolerated ratio of rates, then the alternatives, none above what a rate can be."""
        return _grid(1 + self._margin(lent), learned.rate(self.counter))

    def _margin(self, lent: bool) -> float:
        return max(self.margin, FULL_MARGIN) if lent else self.margin

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        gains = self._gains(interval.blocks, interval.learned)
        harmless = self._no_harm(interval) if interval.counting else None
        return account.after(interval, self.counter, gains, harmless)

    def _gains(self, blocks: Blocks, learned: Learned) -> dict[str, list[float]]:
        """Return what the interval adds to each process, for each alternative."""
        width, counter = len(ALTERNATIVES), self.counter
        # Where all blocks are one, or bursts, the least rise is a ratio to the usual rate.
        rate = learned.rate(counter)
        wide = _grid(1 + max(self.margin, LEAST_RISE / rate), rate)
        spread, swing = learned.spread(counter), learned.swing(counter)
        gains = {label: [0.0] * width for label in (MAIN, QUASI, *(SEGMENT + s for s in blocks.met))}
        gains[DENSE] = self._dense(blocks, learned, wide)
        gains[SURGE] = self._surge(blocks, learned, wide)
        for lent in (False, True) if blocks.lent else (False,):
            rise = max(0.0, LEAST_RISE - self._margin(lent) * rate)
            some = blocks.both if rise else blocks.both & blocks.counted(counter)
            if blocks.lent:
                some = some & (blocks.borrowed == lent)
            if not any(some.tolist()):
                continue
            plain, least = self._compared(blocks.pair(counter, some), learned, lent, rise)
            together = (np.add.reduce(least) / spread).tolist()
            for segment, lines in blocks.lines.items():
                mine = lines[some].tolist()
                if any(mine):
                    own = together if all(mine) else (np.add.reduce(least[mine]) / spread).tolist()
                    gains[SEGMENT + segment] = own
            # A borrowed baseline is in a block of its own already: one process must not count it twice.
            if not lent:
                gains[MAIN] = together
                gains[QUASI] = (np.add.reduce(np.minimum(plain, QUASI_MOST * swing)) / swing).tolist()
        return gains

    def _compared(self, pairs: Pairs, learned: Learned, lent: bool, rise: float) -> tuple[Floats, Floats]:
        """Return the evidence of each block, binomial and cautious, less what a tolerated ``rise`` gains.

        Without a rise every block has events.
        """
        n_c, k_c, n_b, k_b = pairs
        grid = self.grid(learned, lent)
        if not rise:
            return self._failed(pairs, learned, grid)
        plain, failed = -dues((n_c, n_b), grid, rise), k_c + k_b > 0
        if not any(failed.tolist()):
            return plain, plain
        least = plain.copy()
        some = (n_c[failed], k_c[failed], n_b[failed], k_b[failed])
        more, sure = self._failed(some, learned, grid)
        plain[failed] += more
        least[failed] += sure
        return plain, least

    def _failed(self, pairs: Pairs, learned: Learned, grid: Floats) -> tuple[Floats, Floats]:
        """Return the evidence of blocks that have events."""
        n_c, k_c, n_b, k_b = pairs
        clusters = learned.cluster_rate(self.counter) * (n_c + n_b)
        return cautious(k_c, (n_c, n_b), k_c + k_b, clusters, grid)

    def _surge(self, blocks: Blocks, learned: Learned, grid: Floats) -> list[float]:
        """Return what blocks add for each size of burst.

        A version gets bursts of a size in proportion to its requests; the past says how many. One that was
        never seen on all of the baseline says much on the few requests of a canary, even if it had a single
        cause. In an outage of both it says nothing: then the binomial evidence is the lesser.
        """
        canary, baseline = blocks.own
        if not len(canary):
            return [0.0] * len(SIZES)
        n_c, k_c = canary[:, :1], canary[:, self.counter : self.counter + 1]
        due = n_c * learned.burst_rates(self.counter)
        usual = np.minimum(due, RARE)
        said = np.log((1 - SURGING) / (1 - usual))
        if max(k_c[:, 0].tolist()) >= SIZES[0]:
            n_b, k_b = baseline[:, :1], baseline[:, self.counter : self.counter + 1]
            null, rho, ratio = grid[0], grid[1 + SURGE_RISE], n_c / n_b
            common = np.log1p(null * ratio) - np.log1p(rho * ratio)
            plain = k_c * log(rho / null) + (k_c + k_b) * common
            burst = np.minimum(np.log(SURGING / usual) / learned.spread(self.counter), plain)
            said = np.where(k_c >= _SIZES, burst, said)
        said[(due >= RARE) | (n_c < _SIZES)] = 0.0
        found: list[float] = np.add.reduce(said).tolist()
        return found

    def _dense(self, blocks: Blocks, learned: Learned, grid: Floats) -> list[float]:
        """Return what the interval adds when much fails and only a hold-back is left on the baseline.

        Then a burst is on the canary anyway and says little. What tells a fault from a shared outage is that
        the few requests of the baseline do not fail; amid an outage they fail independently of one another.
        """
        canary, baseline = blocks.concurrent
        n_c, k_c, n_b, k_b = canary[0], canary[self.counter], baseline[0], baseline[self.counter]
        dense = (DENSE_RATE + 5 * learned.rate(self.counter)) * (n_c + n_b)
        if not n_b or n_c < MOSTLY * n_b or k_c + k_b < max(DENSE_EVENTS, dense):
            return [0.0] * len(ALTERNATIVES)
        null, *rhos = grid.tolist()
        return [binomial(k_c, k_c + k_b, n_c / n_b, null, rho) for rho in rhos]

    def _no_harm(self, interval: Interval) -> tuple[float, float]:
        blocks = interval.blocks
        canary, borrowed = blocks.served
        if not len(canary):
            return 0.0, 0.0
        rate = interval.learned.rate_now(self.counter, blocks.baseline_sum)
        risen = interval.stage.tolerated(self._usual(interval.learned, interval.stage, rate), self.margin)
        base: Floats | float = rate
        if blocks.lent:
            wider = 1 + max(self.margin, FULL_MARGIN)
            base = np.where(borrowed, rate * wider, rate)
        least, plain = no_harm(canary[:, self.counter], canary[:, 0], base, risen)
        return float(np.add.reduce(least)), float(np.add.reduce(plain))

    def _usual(self, learned: Learned, stage: Stage, now: float) -> float:
        """Return the rate of which a rise is tolerated; in an emergency that of a broken baseline."""
        usual = learned.rate(self.counter)
        return max(usual, now) if stage.limits.emergency else usual

    def _log_e(self, account: Account, loud: Mapping[str, float]) -> float:
        """Return the logarithm of the evidence of a fault."""
        if MAIN not in account.processes:
            return 0.0
        weights = (
            (MAIN_WEIGHT, MAIN),
            (QUASI_WEIGHT, QUASI),
            (DENSE_WEIGHT, DENSE),
            (SURGE_WEIGHT, SURGE),
        )
        known, segments = account.processes, list(loud.values())
        parts = [(weight, log_mean_exp(known[label]) if label in known else 0.0) for weight, label in weights]
        return log_mixture((*parts, (SEGMENT_WEIGHT, log_mean_exp(segments) if segments else parts[0][1])))

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        loud = loudness(account)
        reading = Reading(account, self._log_e(account, loud), self.threshold, loud)

        def words() -> Words:
            return Words(
                fault=f"{self.name} in segment {reading.segment} are above the baseline's",
                doubt=f"{self.name} look suspicious",
                good=f"{self.name} do no harm",
                short=self._short(reading.counts),
                seen=reading.told(both),
                note=borrowed(reading.table, stage, self.margin),
            )

        holds = (
            (learned.total[0] < ACQUAINTED, "too little is known of the baseline"),
            (
                learned.unusual(self.counter) and not stage.limits.emergency,
                f"the baseline itself has unusually many {self.name}",
            ),
        )
        needed = partial(self._needed, account, learned, stage)
        return reading.answer(self.name, words, holds, needed, "errors")

    def _short(self, counts: Counts) -> str:
        """Say that nothing is proved, by where the counts point so far."""
        if more_often(counts, 1 + self.margin):
            return f"{self.name} are above the baseline's so far, too little to be sure"
        return f"{self.name} look alike, too few requests to be sure"

    def _needed(self, account: Account, learned: Learned, stage: Stage) -> float:
        rate = learned.rate_now(self.counter)
        usual = self._usual(learned, stage, rate)
        speed = no_harm_rate(rate, rate, stage.tolerated(usual, self.margin))
        return max(0.0, ENOUGH - account.promotion) / speed


def both(counts: Counts) -> str:
    """Say what of each version's requests counts."""
    n_c, k_c, n_b, k_b = counts
    return (
        f"canary {k_c:.0f} of {n_c:.0f} ({percent(k_c, n_c)}), "
        f"baseline {k_b:.0f} of {n_b:.0f} ({percent(k_b, n_b)})"
    )


@lru_cache(maxsize=16)
def _grid(null: float, rate: float) -> Floats:
    found: Floats = np.maximum(null, np.minimum(null * _TIMES, 0.95 / rate))
    return found
