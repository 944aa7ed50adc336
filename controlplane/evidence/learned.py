"""What the baseline's past teaches: its rates, and how unevenly its errors arrive.

Only what is past may judge the present: learn an observation after it was folded. Each figure is kept for
every counter of a row. Source: docs/decision-rule.md, "What the past teaches".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any, NamedTuple

import numpy as np

from controlplane.evidence import usual
from controlplane.evidence.blocks import version_rows
from controlplane.evidence.crowd import Crowd
from controlplane.evidence.edges import Beyond
from controlplane.evidence.fading import (
    BEFORE,
    BRIEF,
    BURSTS,
    CLUSTERS,
    EXPOSED,
    HALF_LIFE,
    LAGS,
    LASTING,
    LINES,
    RECENT,
    SHORT,
    SIZE,
    SWAYING,
    TOTAL,
    FadingSums,
)
from controlplane.evidence.figures import LONG, SWAY, Figures
from controlplane.evidence.observation import Observation
from controlplane.evidence.once import once
from controlplane.evidence.table import WIDTH, Row, Table, from_json, stacked
from controlplane.evidence.usual import Array

FEWEST = 0.01  # a cell that decayed to fewer requests than this is forgotten

_NO_SUMS: Array = np.zeros((LINES, WIDTH))
_NO_CELLS = Table((), np.zeros((0, WIDTH)))
_ALL, _COUNTED = slice(None), slice(1, None)
_STORED: dict[str, tuple[int | slice, slice]] = {  # what has its own name in JSON: lines, and columns
    "total": (TOTAL, _ALL),
    "recent": (RECENT, _ALL),
    "brief": (BRIEF, _COUNTED),
    "lasting": (LASTING, _COUNTED),
    "clusters": (CLUSTERS, _COUNTED),
    "size": (SIZE, slice(0, 3)),
    "bursts": (BURSTS, _COUNTED),
    "exposed": (EXPOSED, _COUNTED),
    "before": (BEFORE, _ALL),
}


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are gathered until the window is long enough."""

    seconds: float = 0.0
    rows: Table = _NO_CELLS

    def plus(self, seconds: float, rows: Table) -> Window:
        """Return the window with one more interval in it."""
        return Window(self.seconds + seconds, self.rows.plus(rows))


_NO_WINDOW = Window()


@dataclass(frozen=True, eq=False)  # no slots: what several metrics ask is worked out once
class Learned:
    """What the past of a service's stable version taught. The default is no history at all.

    Attributes:
        sums: Faded sums by counter; their lines are those of :mod:`controlplane.evidence.fading`.
        cells: As TOTAL, per proxy group and segment.
        short: The window that is being filled.
        long: The window that is being filled.
        last: What an only cell had in the interval before.
        last_short: The same in the SHORT window before.
        last_long: The same in the LONG window before.
        crowd: How far the requests of all versions come from few users.
        swaying: Seconds of the SWAY window that is being filled.
    """

    sums: Array = field(default_factory=lambda: _NO_SUMS)
    cells: Table = _NO_CELLS
    short: Window = _NO_WINDOW
    long: Window = _NO_WINDOW
    last: Table = _NO_CELLS
    last_short: Table = _NO_CELLS
    last_long: Table = _NO_CELLS
    crowd: Crowd = field(default_factory=Crowd)
    swaying: float = 0.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Learned) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.total, self.recent))

    def to_json(self) -> dict[str, Any]:
        """Return plain values; nothing is lost."""
        lags = self.sums[LAGS, 1:].tolist()
        return {name: self.sums[at].tolist() for name, at in _STORED.items()} | {
            "cells": self.cells.to_json(),
            "short": [self.short.seconds, self.short.rows.to_json()],
            "long": [self.long.seconds, self.long.rows.to_json()],
            "last": [table.to_json() for table in (self.last, self.last_short, self.last_long)],
            "crowd": self.crowd.to_json(),
            "lags": [lags[:2], lags[2:]],
            "swaying": [self.swaying, self.sums[SWAYING].tolist()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Learned:
        """Return what :meth:`to_json` was made from; earlier versions stored less."""
        sums = _NO_SUMS.copy()
        for name in _STORED.keys() & data.keys() - {"size"}:
            sums[_STORED[name]] = data[name]
        sums[SIZE, :3] = *data["size"][:2], data["size"][-1]  # without lengths, which usually are 1
        if "lags" in data:
            sums[LAGS, 1:] = [line for lag in data["lags"] for line in lag]
        swaying, sums[SWAYING] = data.get("swaying", (0.0, 0.0))
        short, long = (Window(data[name][0], from_json(data[name][1])) for name in ("short", "long"))
        last, last_short, last_long = map(from_json, data.get("last", ((), (), ())))
        crowd = Crowd.from_json(data["crowd"]) if "crowd" in data else Crowd()
        cells = from_json(data["cells"])
        return cls(sums, cells, short, long, last, last_short, last_long, crowd, swaying)

    @classmethod
    def lately(cls, recent: Row) -> Learned:
        """Return what is known where nothing but RECENT is."""
        sums = _NO_SUMS.copy()
        sums[RECENT] = recent
        return cls(sums)

    @once
    def total(self) -> Row:
        """Requests and counters of TOTAL."""
        return tuple(self.sums[TOTAL].tolist())

    @once
    def recent(self) -> Row:
        """Requests and counters of RECENT."""
        return tuple(self.sums[RECENT].tolist())

    def rate(self, counter: int) -> float:
        """Return the long-run share of requests that are counted, in 0..1; 1 % without history."""
        return usual.share(self.total[counter], self.total[0])

    def rate_now(self, counter: int) -> float:
        """Return the share of the last half minute; with few requests, the long-run one."""
        return usual.share_now(self.recent[counter], self.recent[0], self.rate(counter))

    def gap(self, idle: float) -> float:
        """Return the mean seconds between requests before ``idle`` without any; 0 if that is not known."""
        before = self.total[0] * 2.0 ** min(idle / HALF_LIFE, 500.0)
        return HALF_LIFE / (log(2) * before) if before >= 1 else 0.0

    @once
    def figures(self) -> Figures:
        """All that its sums come to, in one line."""
        return figures((self,))

    @once
    def beyond_now(self) -> Beyond:
        """The shares past each edge of latency in the last half minute."""
        return self.figures.beyond()

    def unusual(self, counter: int) -> bool:
        """Return whether the baseline itself is far above its usual share: both versions suffer."""
        return self.recent[counter] > usual.most(self.recent[0], self.rate(counter), usual.MORE_LATELY)

    @once
    def swings(self) -> list[float]:
        """:meth:`swing` of all counters."""
        found: list[float] = self.figures.swings[0].tolist()
        return found

    def swing(self, counter: int) -> float:
        """Return variance / mean of counts over half a minute, without what all cells share; at least 1."""
        return self.swings[counter - 1]


def figures(pasts: Sequence[Learned]) -> Figures:
    """Return what pasts taught, worked out at once."""
    return Figures.of([past.sums for past in pasts], [len(past.cells.keys) for past in pasts])


def learn(learned: Learned, observation: Observation, stable: str, *, left: bool = False) -> Learned:
    """Return what is known after one more interval of the stable version; its past is not needed again.

    Where a release has ``left`` nobody on it, what was usual is not forgotten.
    """
    return learn_all((learned,), (observation,), (stable,), (left,))[0]


def learn_all(
    learneds: Sequence[Learned],
    observations: Sequence[Observation],
    stables: Sequence[str],
    left: Sequence[bool],
) -> list[Learned]:
    """Return what :func:`learn` returns of each; ten at a time cost about as much as three one by one.

    None bears on another: what comes of each is the same to the last bit, whatever is learned with it.
    """
    lessons = [_Lesson.of(*each) for each in zip(learneds, observations, stables, left, strict=True)]
    alike: dict[_Kind, list[_Lesson]] = {}
    for lesson in lessons:
        alike.setdefault(lesson.kind, []).append(lesson)
    found = {kind: iter(_learn(kind, group)) for kind, group in alike.items()}
    return [next(found[lesson.kind]) for lesson in lessons]


class _Kind(NamedTuple):
    """What there is to learn of an interval; where that is the same, it is worked out together.

    Attributes:
        uneven: Whether the interval's cells can be compared.
        short: Whether a SHORT window is full.
        again: Whether that is not compared as the interval is.
        short_uneven: Whether its cells can be compared.
        sway: Whether a SWAY window is full.
        long: Whether a LONG window is full.
        long_uneven: Whether its cells can be compared.
    """

    uneven: bool
    short: bool
    again: bool
    short_uneven: bool
    sway: bool
    long: bool
    long_uneven: bool


class _Lesson(NamedTuple):
    """An interval of a past, and the windows with it.

    Attributes:
        learned: The past.
        seen: What was seen.
        seconds: Of the interval.
        rows: Of its stable version.
        last: What to keep of it.
        cells: What to compare.
        short: The SHORT window.
        last_short: What to keep of the last full one.
        short_cells: What to compare if it is full.
        long: The LONG window.
        last_long: What to keep of the last full one.
        long_cells: What to compare if it is full.
        swaying: Seconds of the SWAY window.
        fading: Seconds by which the past fades with the SHORT window.
        kind: What there is to learn.
    """

    learned: Learned
    seen: Observation
    seconds: float
    rows: Table
    last: Table
    cells: Table
    short: Window
    last_short: Table
    short_cells: Table
    long: Window
    last_long: Table
    long_cells: Table
    swaying: float
    fading: float
    kind: _Kind

    @classmethod
    def of(cls, learned: Learned, seen: Observation, stable: str, left: bool) -> _Lesson:
        """Take an interval into the windows of a past."""
        seconds, rows = (seen.end - seen.start).total_seconds(), version_rows(seen, stable)
        last, cells = beside = _beside(rows, learned.last)
        short, long = learned.short.plus(seconds, rows), learned.long.plus(seconds, rows)
        last_short, last_long, short_cells, long_cells = learned.last_short, learned.last_long, cells, cells
        swaying = learned.swaying + seconds
        is_short, sway, is_long = short.seconds >= SHORT, swaying >= SWAY, long.seconds >= LONG
        # Where it is the only interval of the window, and not beside another, it is compared but once.
        again = is_short and bool(learned.short.seconds or learned.short.rows.keys or last.keys)
        if is_short:
            last_short, short_cells = _beside(short.rows, last_short) if again else beside
        if is_long:
            last_long, long_cells = _beside(long.rows, last_long)
        uneven, short_uneven = len(cells.keys) > 1, again and len(short_cells.keys) > 1
        kind = _Kind(
            uneven, is_short, again, short_uneven, sway, is_long, is_long and len(long_cells.keys) > 1
        )
        of_short, of_long = (short, last_short, short_cells), (long, last_long, long_cells)
        fading = 0.0 if left and not short.rows.keys else short.seconds
        return cls(learned, seen, seconds, rows, last, cells, *of_short, *of_long, swaying, fading, kind)

    def after(self, sums: Array, cells: Table) -> Learned:
        """Return what is known with it, of the sums and long-run rows with it."""
        kind = self.kind
        return Learned(
            sums,
            cells,
            _NO_WINDOW if kind.short else self.short,
            _NO_WINDOW if kind.long else self.long,
            self.last,
            self.last_short,
            self.last_long,
            self.learned.crowd.plus(self.seen),
            0.0 if kind.sway else self.swaying,
        )


def _learn(kind: _Kind, lessons: Sequence[_Lesson]) -> list[Learned]:
    """Return what is known after lessons of a kind."""
    cells = [lesson.learned.cells for lesson in lessons]
    seconds = [lesson.seconds for lesson in lessons]
    rows = stacked([lesson.rows.rows for lesson in lessons])
    sums = FadingSums.of([lesson.learned.sums for lesson in lessons], rows, seconds)
    uneven = None
    # What cannot be compared teaches nothing: when nobody is left on the stable version, limits alone judge
    # the canary, and how far a version swings must not be forgotten then.
    if kind.uneven:
        uneven = sums.compare(BRIEF, [lesson.cells for lesson in lessons], cells, seconds)
    if kind.sway:
        sums.close_sway([lesson.swaying for lesson in lessons])
    if kind.again:
        rows = stacked([lesson.short.rows.rows for lesson in lessons])
        windows = [lesson.short_cells for lesson in lessons]
        uneven = sums.dispersion(windows, cells) if kind.short_uneven else None
    if kind.short:
        sums.close_short(rows, [lesson.fading for lesson in lessons], uneven)
        cells = [_with(lesson, table) for lesson, table in zip(lessons, cells, strict=True)]
    if kind.long_uneven:
        windows = [lesson.long_cells for lesson in lessons]
        sums.later().compare(LASTING, windows, cells, [lesson.long.seconds for lesson in lessons])
    # Copied, for what is kept for long would keep the sums of all the others, too.
    return [
        lesson.after(own.copy(), table) for lesson, own, table in zip(lessons, sums.sums, cells, strict=True)
    ]


def _with(lesson: _Lesson, cells: Table) -> Table:
    """Return long-run rows with those of a full short window."""
    found = cells.plus(lesson.short.rows, 0.5 ** (lesson.fading / HALF_LIFE))
    return found.where(found.rows[:, 0] >= FEWEST)


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
