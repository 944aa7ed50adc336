"""Blocks: what the canary and its concurrent baseline saw in one interval, per proxy group and segment.

A row is ``(requests, *counters)``: errors, client errors, then requests slower than each edge of EDGES_MS.
Source: docs/decision-rule.md, "Blocks" and "Segments at 100 %".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.observation import Observation, Tally
from controlplane.evidence.table import Key, Table
from controlplane.policy.documents import UNCOMPARED
from controlplane.policy.latency import EDGES_MS

GROUPS = 16  # bounds the cost of an interval, whatever the number of proxies
ERRORS, CLIENT_ERRORS, SLOWER = 1, 2, 3  # positions in a row; SLOWER + i is the i-th edge
WIDTH = SLOWER + len(EDGES_MS)

Row = tuple[int, ...]
Rows = NDArray[np.int64]  # one row per line
Pairs = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]  # columns: n_c, k_c, n_b, k_b


@dataclass(frozen=True, slots=True, eq=False)
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
        names, at = _places(segments)
        new, old = (_sums(rows, at, len(names)).tolist() for rows in (canary, baseline))
        return cls(
            segments,
            canary,
            baseline,
            np.array(borrowed, dtype=bool),
            total(canary),
            lent,
            {name: at == place for place, name in enumerate(names)},
            {name: (tuple(c), tuple(b)) for name, c, b in zip(names, new, old, strict=True)},
        )

    def pair(self, counter: int, where: NDArray[np.bool_] | None = None) -> Pairs:
        """Return requests and events of both versions, of the blocks ``where`` it is so."""
        chosen = slice(None) if where is None else where
        new, old = self.canary[chosen], self.baseline[chosen]
        return new[:, 0], new[:, counter], old[:, 0], old[:, counter]


def rows_of(tallies: Sequence[Tally]) -> Rows:
    """Return the counts of tallies, one row for each."""
    rows = [(t.requests, t.errors, t.client_errors, *t.slower) for t in tallies]
    flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(rows) * WIDTH)
    return flat.reshape(len(rows), WIDTH)


def total(rows: Rows) -> Row:
    """Return the sum of rows, column by column."""
    return tuple(rows.sum(axis=0).tolist())


def proxy_groups(observation: Observation) -> dict[str, str]:
    """Return the group of each proxy: itself, unless there are more than GROUPS."""
    proxies = {cell.proxy for cell, _ in observation.cells}
    if len(proxies) <= GROUPS:
        return {proxy: proxy for proxy in proxies}
    return {proxy: f"#{crc32(proxy.encode()) % GROUPS}" for proxy in proxies}


def version_rows(observation: Observation, version: str) -> Table:
    """Return the rows of one version.

    Requests without identity, those that another release decided, and proxies whose counters do not add up
    are left out.
    """
    left_out = {proxy for proxy, _ in observation.partial}
    groups = proxy_groups(observation)
    keys: list[Key] = []
    found: list[Tally] = []
    for cell, tally in observation.cells:
        if cell.version == version and cell.segment not in UNCOMPARED and cell.proxy not in left_out:
            keys.append((groups[cell.proxy], cell.segment))
            found.append(tally)
    names, at = _places(keys)
    return Table(tuple(names), _sums(rows_of(found), at, len(names)))


def cut(observation: Observation, canary: str, stable: str, full_segments: frozenset[str]) -> Blocks:
    """Pair the canary with its concurrent baseline, block by block.

    A segment of ``full_segments`` has no baseline of its own and borrows that of its proxy group.
    """
    new, old = version_rows(observation, canary), version_rows(observation, stable)
    keys = tuple(sorted({*new.keys, *(key for key in old.keys if key[1] not in full_segments)}))
    baseline, borrowed = old.aligned(keys), [segment in full_segments for _, segment in keys]
    if any(borrowed):
        groups, at = _places([group for group, _ in old.keys])
        lent = dict(zip(groups, _sums(old.rows, at, len(groups)), strict=True))
        for line, (group, _) in enumerate(keys):
            if borrowed[line]:
                baseline[line] = lent.get(group, 0)
    segments = tuple(segment for _, segment in keys)
    return Blocks.of(segments, new.aligned(keys), baseline, borrowed, total(old.rows))


def _places(labels: Sequence[Any]) -> tuple[list[Any], NDArray[np.intp]]:
    """Return the different labels, sorted, and the place among them of each label."""
    names = sorted({*labels})
    place = {name: at for at, name in enumerate(names)}
    return names, np.fromiter((place[label] for label in labels), dtype=np.intp, count=len(labels))


def _sums(rows: Rows, places: NDArray[np.intp], count: int) -> Rows:
    """Return the sum of the rows at each place."""
    found = np.zeros((count, WIDTH), dtype=np.int64)
    np.add.at(found, places, rows)
    return found
