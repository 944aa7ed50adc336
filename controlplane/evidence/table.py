"""Rows of counts by proxy group and segment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
            return Table(other.keys, other.rows.astype(float))
        keys = self.keys if self.keys == other.keys else tuple(sorted({*self.keys, *other.keys}))
        return Table(keys, self.aligned(keys) * decay + other.aligned(keys))

    def to_json(self) -> list[list[Any]]:
        """Return plain values."""
        return [[*key, row] for key, row in zip(self.keys, self.rows.tolist(), strict=True)]


def from_json(data: Iterable[Line], width: int) -> Table:
    """Return the table of :meth:`Table.to_json`, whose rows are so wide."""
    lines = tuple(data)
    rows = np.array([row for _, _, row in lines], dtype=float).reshape(len(lines), width)
    return Table(tuple((group, segment) for group, segment, _ in lines), rows)
