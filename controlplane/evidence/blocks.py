"""Blocks: what the canary and its concurrent baseline saw in one interval, per proxy group and segment.

Source: docs/decision-rule.md, "Blocks" and "Segments at 100 %".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.observation import Observation
from controlplane.evidence.once import once
from controlplane.evidence.table import Row, Rows, Table, places, table_of
from controlplane.evidence.table import sums as sums_at

Pair = tuple[Rows, Rows]  # of the canary and of the baseline
Pairs = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]  # columns: n_c, k_c, n_b, k_b


_NOTHING = table_of((), ())


@dataclass(frozen=True, eq=False)  # no slots: what several metrics ask is worked out once
class Blocks:
    """An interval's blocks as tables, one block per line.

    Attributes:
        segments: Of each block.
        canary: Rows of the canary.
        baseline: Rows of the baseline; of the whole group where the segment has no baseline of its own.
        borrowed: Where that is so.
        canary_sum: All of the canary's requests.
        baseline_sum: All of the baseline's requests, each once.
        lines: By segment: where its blocks are.
        sums: By segment: the sums of the canary's and the baseline's rows.
    """

    segments: tuple[str, ...]
    canary: Rows
    baseline: Rows
    borrowed: NDArray[np.bool_]
    canary_sum: Row
    baseline_sum: Row
    lines: Mapping[str, NDArray[np.bool_]]
    sums: Mapping[str, tuple[Row, Row]]

    @classmethod
    def of(
        cls, segments: tuple[str, ...], canary: Rows, baseline: Rows, borrowed: Sequence[bool], lent: Row
    ) -> Blocks:
        """Return blocks with their sums; ``lent`` is that of the baseline, from which some may borrow."""
        names, at = places(segments)
        all_of = total(canary)
        if len(names) == 1:
            lines = {names[0]: np.ones(len(segments), dtype=bool)}
            sums = {names[0]: (all_of, total(baseline))}
        else:
            lines = {name: at == place for place, name in enumerate(names)}
            sums = {name: (total(canary[line]), total(baseline[line])) for name, line in lines.items()}
        return cls(segments, canary, baseline, np.array(borrowed, dtype=bool), all_of, lent, lines, sums)

    @once
    def lent(self) -> bool:
        """Whether any baseline is borrowed."""
        return any(self.borrowed.tolist())

    @once
    def both(self) -> NDArray[np.bool_]:
        """Where both versions have requests."""
        return (self.canary[:, 0] > 0) & (self.baseline[:, 0] > 0)

    @once
    def met(self) -> tuple[str, ...]:
        """The segments in which both versions have requests somewhere."""
        return tuple(s for s, lines in self.lines.items() if any((self.both & lines).tolist()))

    @once
    def concurrent(self) -> tuple[Row, Row]:
        """The sums of both versions, of all blocks whose baseline is their own."""
        if not self.lent:
            return self.canary_sum, total(self.baseline)
        return total(self.canary[~self.borrowed]), total(self.baseline[~self.borrowed])

    def counted(self, counter: int) -> NDArray[np.bool_]:
        """Return where either version has events."""
        found: NDArray[np.bool_] = self.canary[:, counter] + self.baseline[:, counter] > 0
        return found

    @once
    def own(self) -> Pair:
        """Rows of both versions where both have requests and the baseline is the block's own."""
        return self.rows(self.both & ~self.borrowed)

    @once
    def served(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Rows of the canary where it has requests, and whether their baseline is borrowed."""
        some = self.canary[:, 0] > 0
        if all(some.tolist()):
            return self.canary, self.borrowed
        return self.canary[some], self.borrowed[some]

    def rows(self, where: NDArray[np.bool_]) -> Pair:
        """Return the rows of both versions ``where`` it is so."""
        if all(where.tolist()):
            return self.canary, self.baseline
        return self.canary[where], self.baseline[where]

    def pair(self, counter: int, where: NDArray[np.bool_] | None = None) -> Pairs:
        """Return requests and events of both versions, of the blocks ``where`` it is so."""
        new, old = (self.canary, self.baseline) if where is None else self.rows(where)
        return new[:, 0], new[:, counter], old[:, 0], old[:, counter]


def total(rows: Rows) -> Row:
    """Return the sum of rows, column by column."""
    return tuple(np.add.reduce(rows).tolist())


def version_rows(observation: Observation, version: str) -> Table:
    """Return the rows of one version, of all that is compared."""
    return observation.tables.get(version, _NOTHING)


def cut(observation: Observation, canary: str, stable: str, full_segments: frozenset[str]) -> Blocks:
    """Pair the canary with its concurrent baseline, block by block.

    A segment of ``full_segments`` has no baseline of its own and borrows that of its proxy group.
    """
    new, old = version_rows(observation, canary), version_rows(observation, stable)
    keys = new.keys
    if keys != old.keys:
        keys = tuple(sorted({*keys, *(key for key in old.keys if key[1] not in full_segments)}))
    baseline, borrowed = old.aligned(keys), [segment in full_segments for _, segment in keys]
    if any(borrowed):
        baseline = baseline.copy()
        groups, at = places([group for group, _ in old.keys])
        lent = dict(zip(groups, sums_at(old.rows, at, len(groups)), strict=True))
        for line, (group, _) in enumerate(keys):
            if borrowed[line]:
                baseline[line] = lent.get(group, 0)
    segments = tuple(segment for _, segment in keys)
    return Blocks.of(segments, new.aligned(keys), baseline, borrowed, total(old.rows))
