"""What the baseline's past teaches: its rates, and how unevenly its errors arrive.

Only what is past may judge the present: learn an observation after it was folded. Each figure is kept for
every counter of a row. Source: docs/decision-rule.md, "What the past teaches".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.blocks import WIDTH, Row, add, version_rows
from controlplane.evidence.observation import Observation

Floats = tuple[float, ...]
Key = tuple[str, str]  # proxy group, segment
Table = tuple[tuple[Key, Floats], ...]  # sorted; each row is WIDTH long

COUNTERS = WIDTH - 1
HALF_LIFE, RECENT_HALF_LIFE = 1800.0, 30.0  # seconds
SHORT, LONG = 5.0, 30.0  # seconds: windows in which clusters, and slower swings of one version, show
PHI, WEIGHT = 3.0, 10.0  # dispersion that is assumed before any history, and how many windows that is worth
ICC_WEIGHT, ICC_SAFETY = 20.0, 1.5
OUTAGE_WEIGHT = 0.01  # of a window amid an outage: only what lasts for hours becomes normal
RECENT_PRIOR = 5.0  # events at the long-run rate, added to those of the last half minute
SIZES = (5, 8, 12, 20, 40, 80)  # of bursts: events of one cell within SHORT, that many or more
FEWEST = 0.01  # a cell that decayed to fewer requests than this is forgotten

_ZEROS: Floats = (0.0,) * COUNTERS
_NO_ROW: Floats = (0.0,) * WIDTH


@dataclass(frozen=True, slots=True)
class Fraction:
    """A ratio of decayed sums, one per counter."""

    over: Floats = _ZEROS
    under: Floats = _ZEROS

    def plus(self, over: NDArray[Any], under: NDArray[Any], decay: float) -> Fraction:
        """Return the sums after a decay, with new terms."""
        return Fraction(
            tuple((np.array(self.over) * decay + over).tolist()),
            tuple((np.array(self.under) * decay + under).tolist()),
        )

    def shrunk(self, prior: float, weight: float, counter: int) -> float:
        """Return one counter's ratio, drawn towards ``prior`` as if ``weight`` had been seen of it."""
        return (self.over[counter - 1] + prior * weight) / (self.under[counter - 1] + weight)


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are gathered until the window is long enough."""

    seconds: float = 0.0
    rows: Table = ()

    def plus(self, seconds: float, rows: Mapping[Key, Row]) -> Window:
        """Return the window with one more interval in it."""
        if not self.rows:
            return Window(self.seconds + seconds, tuple(sorted(rows.items())))
        return Window(self.seconds + seconds, _summed(self.rows, tuple(rows.items()), 1.0))


@dataclass(frozen=True, slots=True)
class Learned:
    """What the past of a service's stable version taught. The default is no history at all.

    Attributes:
        total: Requests and counters, half-life 30 min; capped, so that an outage does not become normal.
        recent: The same with a half-life of 30 s, and nothing capped.
        cells: As ``total``, per proxy group and segment.
        brief: Dispersion of one interval, as squares seen / squares expected of independent errors.
        lasting: The same over LONG.
        clusters: Correlation of errors within SHORT, as seen / possible.
        size: Sums of requests per SHORT window and of windows.
        short: The window that is being filled.
        long: The window that is being filled.
        bursts: By size: how many SHORT windows of a cell had that many events or more.
        exposed: Requests of those windows, without the times of an outage.
        last: What an only cell had in the interval before.
        last_short: The same in the SHORT window before.
        last_long: The same in the LONG window before.
    """

    total: Floats = _NO_ROW
    recent: Floats = _NO_ROW
    cells: Table = ()
    brief: Fraction = Fraction()
    lasting: Fraction = Fraction()
    clusters: Fraction = Fraction()
    size: tuple[float, float] = (0.0, 0.0)
    short: Window = Window()
    long: Window = Window()
    bursts: tuple[Floats, ...] = (_ZEROS,) * len(SIZES)
    exposed: Floats = _ZEROS
    last: Table = ()
    last_short: Table = ()
    last_long: Table = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values; nothing is lost."""
        return {
            "total": list(self.total),
            "recent": list(self.recent),
            "cells": _plain(self.cells),
            **{name: [list(f.over), list(f.under)] for name, f in self._fractions()},
            "size": list(self.size),
            "short": [self.short.seconds, _plain(self.short.rows)],
            "long": [self.long.seconds, _plain(self.long.rows)],
            "bursts": [list(row) for row in self.bursts],
            "exposed": list(self.exposed),
            "last": [_plain(self.last), _plain(self.last_short), _plain(self.last_long)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Learned:
        """Return what :meth:`to_json` was made from."""
        brief, lasting, clusters = (
            Fraction(tuple(data[name][0]), tuple(data[name][1])) for name in ("brief", "lasting", "clusters")
        )
        short, long = (Window(data[name][0], _table(data[name][1])) for name in ("short", "long"))
        return cls(
            tuple(data["total"]),
            tuple(data["recent"]),
            _table(data["cells"]),
            brief,
            lasting,
            clusters,
            (data["size"][0], data["size"][1]),
            short,
            long,
            *_since_0_2(data),
        )

    def _fractions(self) -> tuple[tuple[str, Fraction], ...]:
        return (("brief", self.brief), ("lasting", self.lasting), ("clusters", self.clusters))

    def rate(self, counter: int) -> float:
        """Return the long-run share of requests that are counted, in 0..1; 1 % without history."""
        return (self.total[counter] + 0.5) / (self.total[0] + 50)

    def rate_now(self, counter: int, also: Row | None = None) -> float:
        """Return the share of the last half minute and of ``also``; with few requests, the long-run one."""
        usual = self.rate(counter)
        n, k = (also[0], also[counter]) if also else (0, 0)
        return (self.recent[counter] + k + RECENT_PRIOR) / (self.recent[0] + n + RECENT_PRIOR / usual)

    def unusual(self, counter: int) -> bool:
        """Return whether the baseline itself is far above its usual share: both versions suffer."""
        return self.recent[counter] > 4 * self.rate(counter) * self.recent[0] + 10

    def swing(self, counter: int) -> float:
        """Return variance / mean of counts over half a minute, without what all cells share; at least 1."""
        return max(1.0, self.lasting.shrunk(PHI, WEIGHT, counter))

    def spread(self, counter: int) -> float:
        """Return how much more the counts swing over half a minute than within an interval, in 1..5."""
        return min(5.0, max(1.0, self.swing(counter) / max(1.0, self.brief.shrunk(PHI, WEIGHT, counter))))

    def cluster_rate(self, counter: int) -> float:
        """Return clusters of events per request: how many independent causes there are."""
        window = (self.size[0] + 1000) / (self.size[1] + 1)
        prior = 1 / (1 + self.rate(counter) / (PHI - 1) * window)
        icc = ICC_SAFETY * self.clusters.shrunk(prior, ICC_WEIGHT, counter)
        return (1 / min(max(icc, 1e-6), 0.999) - 1) / window

    def burst_rate(self, counter: int, size: int) -> float:
        """Return bursts of the size at this position of SIZES per request, rather too many than too few."""
        return (self.bursts[size][counter - 1] + 1) / (self.exposed[counter - 1] + 1)

    def unevenness(self, counter: int) -> float:
        """Return the variance of a version's own rate in a cell over LONG, relative to its square."""
        cells = max(1, len(self.cells))
        requests = (self.size[0] + 1000) / (self.size[1] + 1) * LONG / SHORT / cells
        return (self.swing(counter) - 1) / (requests * self.rate(counter))


def learn(learned: Learned, observation: Observation, stable: str) -> Learned:
    """Return what is known after one more interval of the stable version; its past is not needed again."""
    seconds = (observation.end - observation.start).total_seconds()
    rows = version_rows(observation, stable)
    summed = add(rows.values())
    learned = replace(
        learned,
        recent=_decayed(learned.recent, summed, 0.5 ** (seconds / RECENT_HALF_LIFE)),
        short=learned.short.plus(seconds, rows),
        long=learned.long.plus(seconds, rows),
    )
    calm = ~np.array([learned.unusual(c) for c in range(1, WIDTH)])
    only, pairs = _beside(rows.items(), learned.last)
    seen = _Dispersion.of(pairs, learned, calm)
    learned = replace(learned, brief=seen.added(learned.brief, seconds), last=only)
    if learned.short.seconds >= SHORT:
        learned = _close_short(learned, calm)
    if learned.long.seconds >= LONG:
        only, pairs = _beside(learned.long.rows, learned.last_long)
        seen = _Dispersion.of(pairs, learned, calm)
        lasting = seen.added(learned.lasting, learned.long.seconds)
        learned = replace(learned, lasting=lasting, long=Window(), last_long=only)
    return learned


def _close_short(learned: Learned, calm: NDArray[np.bool_]) -> Learned:
    """Take in a full short window: rates, correlation within it, and its size."""
    window = learned.short
    decay = 0.5 ** (window.seconds / HALF_LIFE)
    summed = tuple(map(sum, zip(_NO_ROW, *(row for _, row in window.rows), strict=True)))
    usual = [learned.rate(c) * summed[0] for c in range(1, WIDTH)]
    capped = (summed[0], *(min(k, 4 * e + 20) for k, e in zip(summed[1:], usual, strict=True)))
    weight = 1.0 if calm[0] else OUTAGE_WEIGHT
    cells = _summed(learned.cells, window.rows, decay)
    only, beside = _beside(window.rows, learned.last_short)
    seen = _Dispersion.of(beside, learned, calm)
    table = np.array([row for _, row in window.rows], dtype=float).reshape(-1, WIDTH)
    large = [(table[:, 1:] >= size).sum(axis=0) for size in SIZES]
    pairs = np.maximum(seen.events - 1, 1)
    many = seen.events >= 2
    return replace(
        learned,
        total=_decayed(learned.total, (weight * count for count in capped), decay),
        cells=tuple((key, row) for key, row in cells if row[0] >= FEWEST),
        clusters=learned.clusters.plus(
            np.where(many, (seen.squares - seen.expected) / pairs**2, 0.0),
            np.where(many, seen.expected / pairs, 0.0),
            decay,
        ),
        size=(learned.size[0] * decay + summed[0], learned.size[1] * decay + bool(summed[0])),
        short=Window(),
        bursts=tuple(
            _decayed(old, new.tolist(), decay) for old, new in zip(learned.bursts, large, strict=True)
        ),
        exposed=_decayed(learned.exposed, (calm * summed[0]).tolist(), decay),
        last_short=only,
    )


@dataclass(frozen=True, slots=True)
class _Dispersion:
    """How unevenly a window's events fell on its cells; conditional on their sum, so shared drift cancels."""

    squares: NDArray[np.float64]
    expected: NDArray[np.float64]
    events: NDArray[np.float64]
    freedom: int

    @classmethod
    def of(cls, rows: Iterable[tuple[Key, Floats]], learned: Learned, calm: NDArray[np.bool_]) -> _Dispersion:
        """Compare each cell with its long-run share. Counters that are not calm count as no events."""
        pairs = [(key, row) for key, row in rows if row[0]]
        if len(pairs) < 2:
            nothing = np.zeros(COUNTERS)
            return cls(nothing, nothing, nothing, 0)
        table = np.array([row for _, row in pairs], dtype=float)
        known = dict(learned.cells)
        past = np.array([known.get(key, _NO_ROW) for key, _ in pairs])
        usual = np.array([learned.rate(c) for c in range(1, WIDTH)])
        requests, counts = table[:, :1], table[:, 1:]
        events = counts.sum(axis=0)
        sane = calm & (events <= 4 * usual * requests.sum() + 20)
        counts, events = np.where(sane, counts, 0.0), np.where(sane, events, 0.0)
        share = requests * (past[:, 1:] + 5) / (past[:, :1] + 5 / usual)
        share /= share.sum(axis=0)
        mean = events * share
        return cls(
            ((counts - mean) ** 2).sum(axis=0), (mean * (1 - share)).sum(axis=0), events, len(pairs) - 1
        )

    def added(self, past: Fraction, seconds: float) -> Fraction:
        """Return the sums with this window; one window weighs at most its degrees of freedom."""
        weight = np.minimum(self.expected, self.freedom)
        ratio = np.divide(self.squares, self.expected, out=np.zeros(COUNTERS), where=self.expected > 0)
        return past.plus(weight * ratio, weight, 0.5 ** (seconds / HALF_LIFE))


def _beside(rows: Iterable[tuple[Key, Floats]], before: Table) -> tuple[Table, Table]:
    """Return what to keep of a window, and the window's cells; an only one beside its own last window.

    Alone it has nothing to be compared with in the same seconds. The seconds before are the next best: drift
    between them counts as unevenness, which errs on the safe side.
    """
    table = tuple((key, tuple(map(float, row))) for key, row in rows if row[0])
    if len(table) != 1:
        return (), table
    (key, row), now = table[0], table
    if len(before) != 1 or before[0][0] != key:
        return now, now
    return now, ((key, row), before[0])


def _since_0_2(data: Mapping[str, Any]) -> Iterable[Any]:
    """Return the fields that earlier versions did not store."""
    if "bursts" not in data:
        return ()
    bursts = tuple(tuple(row) for row in data["bursts"])
    return (bursts, tuple(data["exposed"]), *(_table(rows) for rows in data["last"]))


def _summed(old: Table, new: Table, decay: float) -> Table:
    """Return the sums of two tables, the first decayed."""
    keys = sorted({key for key, _ in (*old, *new)})
    place = {key: line for line, key in enumerate(keys)}
    table = np.zeros((len(keys), WIDTH))
    if old:
        table[[place[key] for key, _ in old]] = np.array([row for _, row in old]) * decay
    if new:
        table[[place[key] for key, _ in new]] += np.array([row for _, row in new], dtype=float)
    return tuple(zip(keys, map(tuple, table.tolist()), strict=True))


def _decayed(old: Floats, new: Iterable[float], decay: float) -> Floats:
    return tuple(a * decay + b for a, b in zip(old, new, strict=True))


def _plain(table: Table) -> list[list[Any]]:
    return [[group, segment, list(row)] for (group, segment), row in table]


def _table(data: Iterable[tuple[str, str, Iterable[float]]]) -> Table:
    return tuple(((group, segment), tuple(row)) for group, segment, row in data)
