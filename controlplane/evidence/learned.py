"""What the baseline's past teaches: its rates, and how unevenly its errors arrive.

Only what is past may judge the present: learn an observation after it was folded. Each figure is kept for
every counter of a row. Source: docs/decision-rule.md, "What the past teaches".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import log
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.blocks import version_rows
from controlplane.evidence.crowd import Crowd
from controlplane.evidence.edges import Beyond
from controlplane.evidence.observation import Observation
from controlplane.evidence.once import once
from controlplane.evidence.table import SLOWER, WIDTH, Row, Table, from_json

Floats = tuple[float, ...]
Array = NDArray[np.float64]
COUNTERS = WIDTH - 1
HALF_LIFE, RECENT_HALF_LIFE = 1800.0, 30.0  # seconds
SHORT, LONG = 5.0, 30.0  # seconds: windows in which clusters, and slower swings of one version, show
SWAY = 15.0  # seconds: windows in which a whole version is compared with itself
PHI, WEIGHT = 3.0, 10.0  # dispersion that is assumed before any history, and how many windows that is worth
ICC_WEIGHT, ICC_SAFETY = 20.0, 1.5
OUTAGE_WEIGHT = 0.01  # of a window amid an outage: only what lasts for hours becomes normal
RECENT_PRIOR = 5.0  # events at the long-run rate, added to those of the last half minute
SIZES = (5, 8, 12, 20, 40, 80)  # of bursts: events of one cell within SHORT, that many or more
FEWEST = 0.01  # a cell that decayed to fewer requests than this is forgotten

_SIZES = np.array(SIZES)[:, None, None]
_ZEROS: Array = np.zeros(COUNTERS)
_NO_ROW: Floats = (0.0,) * WIDTH
_NO_CELLS = Table((), np.zeros((0, WIDTH)))


@dataclass(frozen=True, slots=True, eq=False)
class Fraction:
    """A ratio of decayed sums, one per counter."""

    over: Array = field(default_factory=lambda: _ZEROS)
    under: Array = field(default_factory=lambda: _ZEROS)

    def plus(self, over: Array, under: Array, decay: float) -> Fraction:
        """Return the sums after a decay, with new terms."""
        return Fraction(self.over * decay + over, self.under * decay + under)

    def shrunk(self, prior: float, weight: float) -> Array:
        """Return each counter's ratio, drawn towards ``prior`` as if ``weight`` had been seen of it."""
        return (self.over + prior * weight) / (self.under + weight)

    def to_json(self) -> list[Any]:
        """Return plain values."""
        return [self.over.tolist(), self.under.tolist()]

    @classmethod
    def from_json(cls, data: Iterable[Iterable[float]]) -> Fraction:
        """Return what :meth:`to_json` was made from."""
        return cls(*(np.array(row, dtype=float) for row in data))


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are gathered until the window is long enough."""

    seconds: float = 0.0
    rows: Table = _NO_CELLS

    def plus(self, seconds: float, rows: Table) -> Window:
        """Return the window with one more interval in it."""
        return Window(self.seconds + seconds, self.rows.plus(rows))


@dataclass(frozen=True, eq=False)  # no slots: what several metrics ask is worked out once
class Learned:
    """What the past of a service's stable version taught. The default is no history at all.

    Attributes:
        total: Requests and counters, half-life 30 min; capped, so that an outage does not become normal.
        recent: The same with a half-life of 30 s, and nothing capped.
        cells: As ``total``, per proxy group and segment.
        brief: Dispersion of one interval, as squares seen / squares expected of independent errors.
        lasting: The same over LONG.
        clusters: Correlation of errors within SHORT, as seen / possible.
        size: Sums of requests per SHORT window, of windows, and of their lengths, which are an interval's
            where statistics come less often; 1 is SHORT.
        short: The window that is being filled.
        long: The window that is being filled.
        bursts: By size: how many SHORT windows of a cell had that many events or more.
        exposed: Requests of those windows, without the times of an outage.
        last: What an only cell had in the interval before.
        last_short: The same in the SHORT window before.
        last_long: The same in the LONG window before.
        crowd: How far the requests of all versions come from few users.
        lags: As ``lasting``, of all cells together, beside the SWAY window before and the one before that.
        before: What all cells together had in these two windows.
        swaying: Seconds of the window that is being filled, and what all cells together have in it.
    """

    total: Floats = _NO_ROW
    recent: Floats = _NO_ROW
    cells: Table = _NO_CELLS
    brief: Fraction = field(default_factory=Fraction)
    lasting: Fraction = field(default_factory=Fraction)
    clusters: Fraction = field(default_factory=Fraction)
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    short: Window = Window()
    long: Window = Window()
    bursts: Array = field(default_factory=lambda: np.zeros((len(SIZES), COUNTERS)))
    exposed: Array = field(default_factory=lambda: _ZEROS)
    last: Table = _NO_CELLS
    last_short: Table = _NO_CELLS
    last_long: Table = _NO_CELLS
    crowd: Crowd = field(default_factory=Crowd)
    lags: tuple[Fraction, ...] = field(default_factory=lambda: (Fraction(), Fraction()))
    before: tuple[Floats, ...] = (_NO_ROW, _NO_ROW)
    swaying: tuple[float, Floats] = (0.0, _NO_ROW)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Learned) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.total, self.recent))

    def to_json(self) -> dict[str, Any]:
        """Return plain values; nothing is lost."""
        return {
            "total": list(self.total),
            "recent": list(self.recent),
            "cells": self.cells.to_json(),
            "brief": self.brief.to_json(),
            "lasting": self.lasting.to_json(),
            "clusters": self.clusters.to_json(),
            "size": list(self.size),
            "short": [self.short.seconds, self.short.rows.to_json()],
            "long": [self.long.seconds, self.long.rows.to_json()],
            "bursts": self.bursts.tolist(),
            "exposed": self.exposed.tolist(),
            "last": [table.to_json() for table in (self.last, self.last_short, self.last_long)],
            "crowd": self.crowd.to_json(),
            "lags": [lag.to_json() for lag in self.lags],
            "before": [list(row) for row in self.before],
            "swaying": [self.swaying[0], list(self.swaying[1])],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Learned:
        """Return what :meth:`to_json` was made from."""
        brief, lasting, clusters = (
            Fraction.from_json(data[name]) for name in ("brief", "lasting", "clusters")
        )
        short, long = (Window(data[name][0], from_json(data[name][1])) for name in ("short", "long"))
        found = cls(
            tuple(data["total"]),
            tuple(data["recent"]),
            from_json(data["cells"]),
            brief,
            lasting,
            clusters,
            (*data["size"][:2], data["size"][-1]),  # older servers stored no lengths, which usually are 1
            short,
            long,
            *_since_0_2(data),
        )
        if "crowd" in data:
            found = replace(found, crowd=Crowd.from_json(data["crowd"]))
        if "lags" in data:
            lags = tuple(map(Fraction.from_json, data["lags"]))
            found = replace(found, lags=lags, before=tuple(map(tuple, data["before"])))
        if "swaying" in data:
            seconds, row = data["swaying"]
            found = replace(found, swaying=(seconds, tuple(row)))
        return found

    def rate(self, counter: int) -> float:
        """Return the long-run share of requests that are counted, in 0..1; 1 % without history."""
        return (self.total[counter] + 0.5) / (self.total[0] + 50)

    def rate_now(self, counter: int, also: Row | None = None) -> float:
        """Return the share of the last half minute and of ``also``; with few requests, the long-run one."""
        usual = self.rate(counter)
        n, k = (also[0], also[counter]) if also else (0, 0)
        return (self.recent[counter] + k + RECENT_PRIOR) / (self.recent[0] + n + RECENT_PRIOR / usual)

    def gap(self, idle: float) -> float:
        """Return the mean seconds between requests before ``idle`` without any; 0 if that is not known."""
        before = self.total[0] * 2.0 ** min(idle / HALF_LIFE, 500.0)
        return HALF_LIFE / (log(2) * before) if before >= 1 else 0.0

    @once
    def rates(self) -> Array:
        """:meth:`rate` of all counters."""
        return (np.array(self.total[1:]) + 0.5) / (self.total[0] + 50)

    @once
    def usually_beyond(self) -> list[float]:
        """The long-run share past each edge of latency."""
        found: list[float] = self.rates[SLOWER - 1 :].tolist()
        return found

    def beyond(self, also: Row | None = None) -> Beyond:
        """Return the shares past each edge of latency in the last half minute, and ``also`` in an interval.

        As :meth:`rate_now`.
        """
        n, more = (also[0], also[SLOWER:]) if also else (0, _NO_ROW[SLOWER:])
        counted, requests = map(add, self.recent[SLOWER:], more), self.recent[0] + n
        both = zip(counted, self.usually_beyond, strict=True)
        return Beyond.at([(k + RECENT_PRIOR) / (requests + RECENT_PRIOR / usual) for k, usual in both])

    @once
    def beyond_now(self) -> Beyond:
        """The shares past each edge of latency in the last half minute."""
        return self.beyond()

    def unusual(self, counter: int) -> bool:
        """Return whether the baseline itself is far above its usual share: both versions suffer."""
        return self.recent[counter] > 4 * self.rate(counter) * self.recent[0] + 10

    @once
    def _swings(self) -> list[float]:
        found: list[float] = np.maximum(1.0, self.lasting.shrunk(PHI, WEIGHT)).tolist()
        return found

    def swing(self, counter: int) -> float:
        """Return variance / mean of counts over half a minute, without what all cells share; at least 1."""
        return self._swings[counter - 1]

    @once
    def _spreads(self) -> list[float]:
        within = np.maximum(1.0, self.brief.shrunk(PHI, WEIGHT))
        found: list[float] = np.minimum(5.0, np.maximum(1.0, np.array(self._swings) / within)).tolist()
        return found

    def spread(self, counter: int) -> float:
        """Return how much more the counts swing over half a minute than within an interval, in 1..5."""
        return self._spreads[counter - 1]

    def cluster_rate(self, counter: int) -> float:
        """Return clusters of events per request: how many independent causes there are."""
        window = self._window
        prior = 1 / (1 + self.rate(counter) / (PHI - 1) * window)
        icc = ICC_SAFETY * float(self.clusters.shrunk(prior, ICC_WEIGHT)[counter - 1])
        return (1 / min(max(icc, 1e-6), 0.999) - 1) / window

    @property
    def _window(self) -> float:
        """Requests of all cells in a SHORT window."""
        return (self.size[0] + 1000) / (self.size[1] + 1)

    def _within(self, seconds: float) -> float:
        """Return the requests of all cells in so many seconds, or in an interval if that is longer."""
        length = (self.size[2] + 1) / (self.size[1] + 1)
        return self._window / length * max(seconds, length * SHORT) / SHORT

    def burst_rates(self, counter: int) -> Array:
        """Return by position in SIZES: bursts of that size per request, rather too many than too few."""
        found: Array = (self.bursts[:, counter - 1] + 1) / (self.exposed[counter - 1] + 1)
        return found

    @once
    def unevennesses(self) -> Array:
        """By counter: the variance of a version's own rate in a cell over LONG, relative to its square."""
        cells = max(1, len(self.cells.keys))
        requests = self._within(LONG) / cells
        found: Array = (np.array(self._swings) - 1) / (requests * self.rates)
        return found

    @once
    def sways(self) -> Array:
        """By counter: the variance of a whole version's own rate over SWAY, relative to its square.

        A pause of the runtime or an ill host moves all cells of a version, which no cell beside another
        shows. Drift that both versions share shows, too, but the more so the farther apart two windows are:
        a straight line through both distances leaves it out, and the shorter they are, the less of it there
        is to leave out. An only cell has it in :attr:`unevennesses`.
        """
        if len(self.cells.keys) < 2:
            return _ZEROS
        near, far = (lag.shrunk(1.0, WEIGHT) for lag in self.lags)
        own = np.maximum(0.0, np.minimum(2 * near - far, near) - 1)
        found: Array = own / (self._within(SWAY) * self.rates)
        return found


def _unusual(recent: Floats, usual: Array) -> NDArray[np.bool_]:
    """Return :meth:`Learned.unusual` of all counters."""
    return np.array(recent[1:]) > 4 * usual * recent[0] + 10


def learn(learned: Learned, observation: Observation, stable: str) -> Learned:
    """Return what is known after one more interval of the stable version; its past is not needed again."""
    seconds = (observation.end - observation.start).total_seconds()
    rows = version_rows(observation, stable)
    row = np.add.reduce(rows.rows)
    recent = _decayed(learned.recent, row, 0.5 ** (seconds / RECENT_HALF_LIFE))
    calm = ~_unusual(recent, learned.rates)
    only, cells = _beside(rows, learned.last)
    seen = _Dispersion.of(cells, learned, calm)
    short, long = learned.short.plus(seconds, rows), learned.long.plus(seconds, rows)
    fresh: dict[str, Any] = {"short": short}
    if short.seconds >= SHORT:
        # Where it is the only interval of the window, and not beside another, it is compared but once.
        once = not (learned.short.seconds or only.keys)
        fresh = _short(learned, short, calm, (only, seen) if once else None)
    learned = replace(
        learned,
        recent=recent,
        long=long,
        crowd=learned.crowd.plus(observation),
        brief=seen.added(learned.brief, seconds),
        last=only,
        **_swayed(learned, seconds, row, calm),
        **fresh,
    )
    return _close_long(learned, calm) if long.seconds >= LONG else learned


def _close_long(learned: Learned, calm: NDArray[np.bool_]) -> Learned:
    """Take in a full long window: how its cells differ."""
    window = learned.long
    only, cells = _beside(window.rows, learned.last_long)
    lasting = _Dispersion.of(cells, learned, calm).added(learned.lasting, window.seconds)
    return replace(learned, lasting=lasting, long=Window(), last_long=only)


def _swayed(learned: Learned, seconds: float, row: Array, calm: NDArray[np.bool_]) -> dict[str, Any]:
    """Return how far all cells together are from what they were one and two SWAY windows before."""
    seconds, now = learned.swaying[0] + seconds, _decayed(learned.swaying[1], row, 1.0)
    if seconds < SWAY:
        return {"swaying": (seconds, now)}
    lags = list(learned.lags)
    for lag, then in enumerate(learned.before):
        if now[0] and then[0]:
            both = Table((("now", ""), ("then", "")), np.array((now, then)))
            lags[lag] = _Dispersion.of(both, learned, calm).added(lags[lag], seconds)
    return {"swaying": (0.0, _NO_ROW), "lags": tuple(lags), "before": (now, *learned.before[:-1])}


def _short(
    learned: Learned, window: Window, calm: NDArray[np.bool_], known: tuple[Table, _Dispersion] | None
) -> dict[str, Any]:
    """Return what a full short window teaches: rates, correlation within it, and its size.

    ``known`` is what :func:`_beside` keeps of the window, and how its cells differ, where that is known.
    """
    decay = 0.5 ** (window.seconds / HALF_LIFE)
    rows = window.rows.rows
    row = np.add.reduce(rows)
    requests = float(row[0])
    some = bool(requests)
    row[1:] = np.minimum(row[1:], 4 * (learned.rates * requests) + 20)
    weight = 1.0 if calm[0] else OUTAGE_WEIGHT
    cells = learned.cells.plus(window.rows, decay)
    if known is None:
        only, beside = _beside(window.rows, learned.last_short)
        known = only, _Dispersion.of(beside, learned, calm)
    only, seen = known
    pairs = np.maximum(seen.events - 1, 1)
    many = seen.events >= 2
    return {
        "total": _decayed(learned.total, weight * row, decay),
        "cells": cells.where(cells.rows[:, 0] >= FEWEST),
        "clusters": learned.clusters.plus(
            np.where(many, (seen.squares - seen.expected) / pairs**2, 0.0),
            np.where(many, seen.expected / pairs, 0.0),
            decay,
        ),
        "size": _decayed(learned.size, np.array((requests, some, some * window.seconds / SHORT)), decay),
        "short": Window(),
        "bursts": learned.bursts * decay + np.add.reduce(rows[:, 1:] >= _SIZES, axis=1, dtype=np.int64),
        "exposed": learned.exposed * decay + calm * requests,
        "last_short": only,
    }


@dataclass(frozen=True, slots=True)
class _Dispersion:
    """How unevenly a window's events fell on its cells; conditional on their sum, so shared drift cancels."""

    squares: Array
    expected: Array
    events: Array
    freedom: int

    @classmethod
    def of(cls, cells: Table, learned: Learned, calm: NDArray[np.bool_]) -> _Dispersion:
        """Compare each cell with its long-run share. Counters that are not calm count as no events."""
        if len(cells.keys) < 2:
            return cls(_ZEROS, _ZEROS, _ZEROS, 0)
        past, usual = learned.cells.aligned(cells.keys), learned.rates
        requests, counts = cells.rows[:, :1], cells.rows[:, 1:]
        events = np.add.reduce(counts)
        sane = calm & (events <= 4 * usual * np.add.reduce(requests)[0] + 20)
        if not all(sane.tolist()):
            counts, events = np.where(sane, counts, 0.0), np.where(sane, events, 0.0)
        share = requests * (past[:, 1:] + 5) / (past[:, :1] + 5 / usual)
        share /= np.add.reduce(share)
        mean = events * share
        return cls(
            np.add.reduce((counts - mean) ** 2),
            np.add.reduce(mean * (1 - share)),
            events,
            len(cells.keys) - 1,
        )

    def added(self, past: Fraction, seconds: float) -> Fraction:
        """Return the sums with this window; one window weighs at most its degrees of freedom.

        One with nothing to compare teaches nothing: when nobody is left on the stable version, limits alone
        judge the canary, and how far a version swings must not be forgotten then.
        """
        if not self.freedom:
            return past
        weight = np.minimum(self.expected, self.freedom)
        ratio = np.divide(self.squares, self.expected, out=np.zeros(COUNTERS), where=self.expected > 0)
        return past.plus(weight * ratio, weight, 0.5 ** (seconds / HALF_LIFE))


def _beside(rows: Table, before: Table) -> tuple[Table, Table]:
    """Return what to keep of a window, and the window's cells; an only one beside its own last window.

    Alone it has nothing to be compared with in the same seconds. The seconds before are the next best: drift
    between them counts as unevenness, which errs on the safe side.
    """
    now = rows.where(rows.rows[:, 0] > 0)
    if len(now.keys) != 1:
        return _NO_CELLS, now
    if before.keys != now.keys:
        return now, now
    return now, Table((*now.keys, *before.keys), np.concatenate((now.rows, before.rows)))


def _since_0_2(data: Mapping[str, Any]) -> Iterable[Any]:
    """Return the fields that earlier versions did not store."""
    if "bursts" not in data:
        return ()
    bursts, exposed = (np.array(data[name], dtype=float) for name in ("bursts", "exposed"))
    return (bursts, exposed, *(from_json(rows) for rows in data["last"]))


def _decayed(old: Floats, new: NDArray[Any], decay: float) -> Floats:
    return tuple((np.array(old) * decay + new).tolist())
