"""Blocks: what the canary and its concurrent baseline saw in one interval, per proxy group and segment.

Source: docs/decision-rule.md, "Blocks" and "Segments at 100 %".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.observation import Observation
from controlplane.evidence.once import once
from controlplane.evidence.table import WIDTH, Key, Row, Rows, Table, places, table_of

Pair = tuple[Rows, Rows]  # of the canary and of the baseline


_NOTHING, _NO_ROW = table_of((), ()), np.zeros((1, WIDTH))


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
        names: The segments, sorted, each once.
        place: Of each block's segment among them.
        sums: By segment: the sums of the canary's and the baseline's rows.
    """

    segments: tuple[str, ...]
    canary: Rows
    baseline: Rows
    borrowed: NDArray[np.bool_]
    canary_sum: Row
    baseline_sum: Row
    names: Sequence[str]
    place: NDArray[np.intp]
    sums: Mapping[str, tuple[Row, Row]]

    @classmethod
    def of(
        cls,
        segments: tuple[str, ...],
        canary: Rows,
        baseline: Rows,
        borrowed: NDArray[np.bool_],
        lent: Row,
    ) -> Blocks:
        """Return blocks with their sums; ``lent`` is that of the baseline, from which some may borrow."""
        names, place, summing = _summing(segments)
        *of_canary, all_of = map(tuple, (summing @ canary).tolist())
        *of_baseline, _ = map(tuple, (summing @ baseline).tolist())
        sums = dict(zip(names, zip(of_canary, of_baseline, strict=True), strict=True))
        return cls(segments, canary, baseline, borrowed, all_of, lent, names, place, sums)

    @once
    def lent(self) -> bool:
        """Whether any baseline is borrowed."""
        return any(self.borrowed.tolist())

    @once
    def both(self) -> NDArray[np.bool_]:
        """Where both versions have requests."""
        return (self.canary[:, 0] > 0) & (self.baseline[:, 0] > 0)

    @once
    def met(self) -> frozenset[str]:
        """The segments in which both versions have requests somewhere."""
        return frozenset(self.names[place] for place in self.place[self.both].tolist())

    @once
    def own(self) -> Pair:
        """Rows of both versions where both have requests and the baseline is the block's own."""
        return self.rows(self.both & ~self.borrowed)

    def rows(self, where: NDArray[np.bool_]) -> Pair:
        """Return the rows of both versions ``where`` it is so."""
        if all(where.tolist()):
            return self.canary, self.baseline
        return self.canary[where], self.baseline[where]


def total(rows: Rows) -> Row:
    """Return the sum of rows, column by column."""
    return tuple(np.add.reduce(rows).tolist())


def version_rows(observation: Observation, version: str) -> Table:
    """Return the rows of one version, of all that is compared."""
    return observation.tables.get(version, _NOTHING)


@lru_cache(maxsize=64)  # of a hundred segments in 16 groups each is a megabyte
def _summing(segments: tuple[str, ...]) -> tuple[Sequence[str], NDArray[np.intp], Rows]:
    """Return these segments, sorted, the place of each among them, and what sums up their lines, then all."""
    names, place = places(segments)
    summing = np.ones((len(names) + 1, len(segments)))
    summing[:-1] = place == np.arange(len(names))[:, None]
    for each in (place, summing):
        each.flags.writeable = False  # many blocks have these
    return names, place, summing


class _Pairing(NamedTuple):
    """Which lines of two tables make the blocks, whatever their rows are.

    Attributes:
        segments: Of each block.
        canary: The line of its canary; one more than there are for none. None if these are all, in order.
        baseline: The same; the sums of the proxy groups follow the lines of the table.
        groups: Where the lines of each proxy group begin, in the baseline's table.
        borrowed: Whether it has the sum of its group.
    """

    segments: tuple[str, ...]
    canary: NDArray[np.intp] | None
    baseline: NDArray[np.intp] | None
    groups: NDArray[np.intp]
    borrowed: NDArray[np.bool_]


@lru_cache(maxsize=256)  # the same proxies and segments have requests in most intervals
def _pairing(new: tuple[Key, ...], old: tuple[Key, ...], full_segments: frozenset[str]) -> _Pairing:
    keys = new
    if new != old:
        keys = tuple(sorted({*new, *(key for key in old if key[1] not in full_segments)}))
    begins: dict[str, int] = {}
    for line, (group, _) in enumerate(old):
        begins.setdefault(group, line)
    sums = {group: len(old) + at for at, group in enumerate(begins)}
    mine, theirs = ({key: line for line, key in enumerate(table)} for table in (new, old))
    none, nothing = len(new), len(old) + len(sums)
    canary = [mine.get(key, none) for key in keys]
    borrowed = tuple(segment in full_segments for _, segment in keys)
    baseline = [
        sums.get(key[0], nothing) if lent else theirs.get(key, nothing)
        for key, lent in zip(keys, borrowed, strict=True)
    ]
    return _Pairing(
        tuple(segment for _, segment in keys),
        None if new == keys else np.array(canary, dtype=np.intp),
        None if old == keys and not any(borrowed) else np.array(baseline, dtype=np.intp),
        np.array([*begins.values()], dtype=np.intp),
        np.array(borrowed, dtype=bool),
    )


def cut(observation: Observation, canary: str, stable: str, full_segments: frozenset[str]) -> Blocks:
    """Pair the canary with its concurrent baseline, block by block.

    A segment of ``full_segments`` has no baseline of its own and borrows that of its proxy group.
    """
    new, old = version_rows(observation, canary), version_rows(observation, stable)
    pairing = _pairing(new.keys, old.keys, full_segments)
    rows, baseline = new.rows, old.rows
    if pairing.canary is not None:
        rows = np.concatenate((rows, _NO_ROW)).take(pairing.canary, axis=0)
    if pairing.baseline is not None:
        sums = np.add.reduceat(baseline, pairing.groups)
        baseline = np.concatenate((baseline, sums, _NO_ROW)).take(pairing.baseline, axis=0)
    return Blocks.of(pairing.segments, rows, baseline, pairing.borrowed, total(old.rows))
