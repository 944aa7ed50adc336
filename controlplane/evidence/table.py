"""Rows of counts by proxy group and segment.

A row is ``(requests, *counters)``: errors, client errors, then requests slower than each edge of EDGES_MS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import lt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controlplane.policy.latency import EDGES_MS

ERRORS, CLIENT_ERRORS, SLOWER = 1, 2, 3  # positions in a row; SLOWER + i is the i-th edge
WIDTH = SLOWER + len(EDGES_MS)

Row = tuple[float, ...]
Rows = NDArray[np.float64]  # one row per line; of whole numbers, but all that is worked out of them is not
Key = tuple[str, str]  # proxy group, segment
Line = tuple[str, str, Sequence[float]]  # of a table as plain values


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows, one per key.

    Attributes:
        keys: Sorted; one twice where two windows of an only cell are compared.
        rows: One line per key, in their order.
    """

    keys: tuple[Key, ...]
    rows: NDArray[Any]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self.keys == other.keys and np.array_equal(self.rows, other.rows)

    def __hash__(self) -> int:
        return hash(self.keys)

    def aligned(self, keys: tuple[Key, ...]) -> NDArray[Any]:
        """Return the rows of these keys, not to be written to; nothing where there is none."""
        if keys == self.keys:
            return self.rows
        place = {key: line for line, key in enumerate(self.keys)}
        nothing = np.zeros((1, self.rows.shape[1]), self.rows.dtype)
        return np.concatenate((self.rows, nothing))[[place.get(key, -1) for key in keys]]

    def where(self, chosen: NDArray[np.bool_]) -> Table:
        """Return the chosen lines."""
        if all(chosen.tolist()):
            return self
        keys = tuple(key for key, is_chosen in zip(self.keys, chosen.tolist(), strict=True) if is_chosen)
        return Table(keys, self.rows[chosen])

    def plus(self, other: Table, decay: float = 1.0) -> Table:
        """Return the sums of two tables, the first decayed."""
        if not self.keys:
            return other
        keys = self.keys if self.keys == other.keys else tuple(sorted({*self.keys, *other.keys}))
        own = self.aligned(keys)
        return Table(keys, (own if decay == 1 else own * decay) + other.aligned(keys))

    def to_json(self) -> list[list[Any]]:
        """Return plain values."""
        return [[*key, row] for key, row in zip(self.keys, self.rows.tolist(), strict=True)]


def rows_of(counts: Sequence[Row]) -> Rows:
    """Return one row for each."""
    flat = np.fromiter(chain.from_iterable(counts), dtype=float, count=len(counts) * WIDTH)
    return flat.reshape(len(counts), WIDTH)


def stacked(tables: Sequence[Rows]) -> Rows:
    """Return rows by table and line; where one has fewer lines, zeros, which add nothing to any sum."""
    lengths = [len(rows) for rows in tables]
    if min(lengths) == max(lengths):
        return np.array(tables)
    found = np.zeros((len(tables), max(lengths), WIDTH))
    for at, rows in enumerate(tables):
        found[at, : lengths[at]] = rows
    return found


def table_of(keys: Sequence[Key], counts: Sequence[Row]) -> Table:
    """Return the table of counts at these keys; what several count at one is added up."""
    rows = rows_of(counts)
    if all(map(lt, keys, keys[1:])):
        return Table(tuple(keys), rows)
    names, at = places(keys)
    return Table(tuple(names), sums(rows, at, len(names)))


def places(labels: Sequence[Any]) -> tuple[list[Any], NDArray[np.intp]]:
    """Return the different labels, sorted, and the place among them of each label."""
    names = sorted({*labels})
    place = {name: at for at, name in enumerate(names)}
    return names, np.fromiter((place[label] for label in labels), dtype=np.intp, count=len(labels))


def sums(rows: Rows, at: NDArray[np.intp], count: int) -> Rows:
    """Return the sum of the rows at each place."""
    found = np.zeros((count, WIDTH))
    np.add.at(found, at, rows)
    return found


def from_json(data: Iterable[Line]) -> Table:
    """Return the table of :meth:`Table.to_json`."""
    lines = tuple(data)
    rows = np.array([row for _, _, row in lines], dtype=float).reshape(len(lines), WIDTH)
    return Table(tuple((group, segment) for group, segment, _ in lines), rows)
