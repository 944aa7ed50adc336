"""What intervals say of latency, in tables for all of them and both parts of the distribution.

Source: docs/decision-rule.md, "Rollback evidence: latency" and "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.account import FULL_MARGIN, Beside, Interval, Stage
from controlplane.evidence.edges import Beyond, Floats, Places
from controlplane.evidence.figures import LONG, Figures
from controlplane.evidence.lines import Counts, Stack, taught
from controlplane.evidence.rows import as_often, no_harm, no_harm_plain
from controlplane.evidence.scarce import RAREST
from controlplane.evidence.table import SLOWER

ALTERNATIVES = (1.15, 1.3, 1.6, 2.0, 3.0, 6.0)
_TIMES = np.array(ALTERNATIVES)
WARM = 2.0  # margin while the canary warms up
# What promotion must exclude: (up to this share in the next step, times as slow, times as many in the tail).
# A policy that tolerates more against the baseline asks for less proof: in excess of 1, so many margins of
# slowness, and so many times that in the tail, as in the table.
MARGINS, TAILS = 2.5, 4.0
EXCLUDED = ((0.05, 3.0, 10.0), (0.10, 2.0, 6.0), (0.25, 1.5, 4.0), (0.50, 1.35, 2.5), (1.0, 1.25, 2.0))


class Part(NamedTuple):
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


Parts = tuple[Part, ...]
PARTS = (Part("latency", 0.1, 0.6, 0.35, tail=False), Part("latency tail", 0.0015, 0.1, 0.01, tail=True))


class _Columns(NamedTuple):
    """The same of several parts, each as a column that goes with tables of a line per part."""

    least: Floats
    most: Floats
    typical: Floats
    tail: NDArray[np.bool_]


@lru_cache(maxsize=16)
def _columns(parts: Parts) -> _Columns:
    _, *columns = zip(*parts, strict=True)
    return _Columns(*(np.array(column)[:, None] for column in columns))


def nearest(parts: Parts, baselines: Beyond) -> Places:
    """Return the edges that are looked at for promotion, and shown: a line per part, a column per baseline.

    Few requests are past a tail's.
    """
    _, most, typical, tail = _columns(parts)
    edges = baselines.nearest(typical)
    few = baselines.shares <= most[:, None]
    # Shares fall from edge to edge.
    fine = ~tail | ~few[:, :, -1] | (baselines.shares[np.arange(edges.shape[1]), edges] <= most)
    found: Places = np.where(fine, edges, np.argmax(few, axis=2))
    return found


def excluded(
    parts: Parts, margins: Sequence[float], stages: Sequence[Stage], baselines: Beyond, edges: Places
) -> Floats:
    """Return the ratios of counts that promotion must exclude, with lines and columns as the ``edges`` have.

    ``margins`` and ``stages`` are by column. First come the ratios of blocks with a baseline of their own,
    then those of blocks that borrow one. Where fewer of the baseline are past the edge than belong to the
    part, the edges do not show it. Then what has to be excluded is harm to as many requests as may fail.
    """
    least, _, _, tail = _columns(parts)
    lines = np.arange(edges.shape[1])
    asked, share = MARGINS * np.array(margins), baselines.shares[lines, edges]
    slower, more, risen = np.array([(*_excluded(s.next_share), s.tolerated(0.0)) for s in stages]).T
    slower, more = np.maximum(slower, 1 + asked), np.maximum(more, 1 + TAILS * asked)
    times = np.array((slower, slower + FULL_MARGIN))[:, None]
    body = baselines.ratio(lines, edges, times) * np.minimum(1.0, share / RAREST)
    ratios = np.where(tail, np.array((more, more * (1 + FULL_MARGIN)))[:, None], body)
    found: Floats = np.maximum(np.where(share < least, 1 + risen / np.maximum(share, RAREST), 1.1), ratios)
    return np.maximum(1.1, found)


@lru_cache(maxsize=1024)
def _excluded(next_share: float) -> tuple[float, float]:
    """Return what EXCLUDED says of a share: times as slow, and times as many in the tail."""
    return next(row[1:] for row in EXCLUDED if next_share <= row[0] + 1e-9 or row[0] == 1.0)


def uneven(known: Figures, baselines: Beyond, edges: Places) -> Floats:
    """Return how uneven a version's own share past each edge is; of so few that a share is taken, of that."""
    lines, at = np.arange(edges.shape[1]), SLOWER + edges - 1
    found = known.unevennesses[lines, at]
    rare = baselines.shares[lines, edges] < RAREST
    return np.where(rare, found * np.minimum(1.0, known.rates[lines, at] / RAREST), found)


def tolerated(interval: Interval, margin: float) -> float:
    """Return the margin; while the canary warms up it may be slower."""
    return max(margin, WARM) if interval.stage.elapsed < interval.stage.limits.warm_up else margin


class Slowed(NamedTuple):
    """What an interval says of a part.

    Attributes:
        gains: By edge, what it adds for each alternative.
        edge: That is looked at.
        harmless: Evidence of no harm, as in :meth:`Account.after`.
    """

    gains: Mapping[int, list[float]]
    edge: int
    harmless: tuple[float, float] | None


def slowed(beside: Beside, margins: Sequence[float]) -> list[Mapping[str, Slowed]]:
    """Return what each interval says of all parts, by name.

    ``margins`` are of each: tolerated slowness, as a ratio of times.
    """
    intervals, known, stack = beside.intervals, beside.shared(taught), beside.shared(Stack.of)
    count = len(intervals)
    # What the past says of each interval, then the same with the interval.
    rows = np.array([interval.blocks.baseline_sum for interval in intervals])
    baselines = Beyond.at(np.concatenate([known.now(), known.now(rows)])[:, SLOWER - 1 :])
    edges = nearest(PARTS, baselines)
    stages = [interval.stage for interval in intervals]
    ratios = excluded(PARTS, (*margins, *margins), (*stages, *stages), baselines, edges)
    seconds = np.array([interval.seconds for interval in intervals])
    before, now = (
        _Looked(stack, known, seconds, baselines.part(part), edges[:, part], ratios[:, :, part])
        for part in (slice(count), slice(count, None))
    )
    times = np.array([1 + tolerated(*each) for each in zip(intervals, margins, strict=True)])
    good = zip(now.no_harm(), before.as_often(), strict=True)
    said = zip(before.gains(times), now.edges.ravel().tolist(), good, strict=True)
    found: list[dict[str, Slowed]] = [{} for _ in intervals]
    for part in PARTS:
        for at, interval in enumerate(intervals):
            gains, edge, harmless = next(said)
            found[at][part.name] = Slowed(gains, edge, harmless if interval.counting else None)
    return [*found]


@dataclass(frozen=True, slots=True)
class _Looked:
    """Where intervals are looked at: tables have a line per part and a column per interval.

    Attributes:
        stack: The blocks.
        known: What the past taught.
        seconds: Of each interval.
        baselines: Their shares.
        edges: That are looked at.
        excluded: Ratios that promotion must exclude there.
    """

    stack: Stack
    known: Figures
    seconds: Floats
    baselines: Beyond
    edges: Places
    excluded: Floats

    @property
    def shares(self) -> Floats:
        """The baseline's share past each edge that is looked at."""
        found: Floats = self.baselines.shares[np.arange(self.edges.shape[1]), self.edges]
        return found

    def _counts(self) -> Counts:
        intervals = [*range(self.edges.shape[1])] * len(self.edges)
        return self.stack.counts(zip(intervals, (SLOWER + self.edges).ravel().tolist(), strict=True))

    def _ratios(self, counts: Counts) -> Floats:
        own, lent = self.excluded.reshape(2, -1)[:, counts.lines.at]
        found: Floats = np.where(counts.borrowed, lent, own)
        return found

    def no_harm(self) -> list[float]:
        """Return the evidence of no harm."""
        counts = self._counts()
        counts = counts.where(counts.n_c > 0)
        share, at = np.maximum(self.shares, RAREST), counts.lines.at
        own = uneven(self.known, self.baselines, self.edges) * share * LONG / self.seconds  # per request
        share, phi = share.ravel()[at], 1 + own.ravel()[at] * counts.n_c
        good = no_harm(counts.k_c, counts.n_c, share, (self._ratios(counts) - 1) * share)[0] / phi
        found: list[float] = counts.lines.sums(good).tolist()
        return found

    def as_often(self) -> list[float]:
        """Return the evidence of the counts as they are, each block against its baseline of the same seconds.

        Latency wanders with the load, and a recent share lags behind: a canary that is slower all the time
        would now and then look as fast as the baseline was. The edges are chosen by the past alone: those
        chosen by the counts that are compared would be some where few of the baseline's happen to be slow.
        What is taken for the share where the baseline has hardly any does not lag behind.
        """
        counts = self._counts()
        ratios, requests = self._ratios(counts), (counts.n_c, counts.n_b)
        often = as_often(counts.k_c, requests, counts.k_c + counts.k_b, ratios)
        rare = self.shares < RAREST
        if any(rare.ravel().tolist()):
            plain = no_harm_plain(counts.k_c, counts.n_c, RAREST, (ratios - 1) * RAREST)
            often = np.where(rare.ravel()[counts.lines.at], plain, often)
        found: list[float] = counts.lines.sums(often).tolist()
        return found

    def gains(self, times: Floats) -> list[dict[int, list[float]]]:
        """Return what is added by edge, for each alternative: binomial() over its dispersion.

        A segment without a baseline of its own may well be of slower users: limits alone judge it. ``times``
        are how many times as slow each canary may be.
        """
        least, most, *_ = (column[:, None] for column in _columns(PARTS))
        rates, shares = self.known.rates[:, SLOWER - 1 :], self.baselines.shares
        # By the past alone: an edge that counts only while few of the baseline's happen to be past it makes
        # an equal canary look slow. Where none usually is of the part, little is known of any.
        known = np.logical_or.reduce((least <= rates) & (rates <= most), axis=2, keepdims=True)
        part, line, edge = np.nonzero(known & (least <= shares) & (shares <= most))
        found: list[dict[int, list[float]]] = [{} for _ in range(self.edges.size)]
        if not len(line):
            return found
        counts = self.stack.counts(zip(line.tolist(), (SLOWER + edge).tolist(), strict=True)).own()
        null = self.baselines.ratio(line, edge, times[line])[:, None]
        rhos = np.maximum(null, np.minimum(null * _TIMES, 0.95 / shares[line, edge][:, None]))
        # One line per block and edge, one column per alternative.
        at, n_c, k_c = counts.lines.at, counts.n_c[:, None], counts.k_c[:, None]
        ratio, events = n_c / counts.n_b[:, None], k_c + counts.k_b[:, None]
        common = np.log((1 + null[at] * ratio) / (1 + ratio * rhos[at]))
        terms = k_c * np.log(rhos / null)[at] + events * common
        own, sway = self._swings(line, edge)
        # The blocks of a version sway together.
        phi = 1 + (own[at] * n_c + (sway * counts.lines.sums(n_c))[at]) * (1 + ratio)
        groups = (part * self.edges.shape[1] + line).tolist()
        for group, where, gain in zip(
            groups, edge.tolist(), counts.lines.sums(terms / phi).tolist(), strict=True
        ):
            found[group][where] = gain
        return found

    def _swings(self, line: Places, edge: Places) -> tuple[Floats, Floats]:
        """Return how uneven blocks are, and how a version sways: variance per request, beside 1."""
        expected, at = self.baselines.shares[line, edge] * LONG / self.seconds[line], SLOWER + edge - 1
        own, sway = self.known.unevennesses[line, at], self.known.sways[line, at]
        return (own * expected)[:, None], (sway * expected)[:, None]
