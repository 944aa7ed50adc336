"""One interval, cut into blocks: what both versions saw in one proxy group and segment.

A row is ``(requests, *counters)``: errors, client errors, then requests slower than each edge of EDGES_MS.
Source: docs/decision-rule.md, "Blocks" and "Segments at 100 %".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from controlplane.evidence.observation import Observation, Tally
from controlplane.policy.documents import UNCOMPARED
from controlplane.policy.latency import EDGES_MS

GROUPS = 16  # bounds the cost of an interval, whatever the number of proxies
ERRORS, CLIENT_ERRORS, SLOWER = 1, 2, 3  # positions in a row; SLOWER + i is the i-th edge
WIDTH = SLOWER + len(EDGES_MS)

Row = tuple[int, ...]
NOTHING: Row = (0,) * WIDTH


@dataclass(frozen=True, slots=True)
class Block:
    """What both versions saw in one proxy group and segment.

    Attributes:
        segment: Its name.
        canary: Row of the canary.
        baseline: Row of the baseline; of the whole group if the segment has no baseline of its own.
        borrowed: True if the baseline is not the segment's own.
    """

    segment: str
    canary: Row
    baseline: Row
    borrowed: bool = False


@dataclass(frozen=True, slots=True)
class Blocks:
    """An interval's blocks and the sums of both versions over them."""

    blocks: tuple[Block, ...]
    canary: Row
    baseline: Row


def row(tally: Tally) -> Row:
    """Return the counts of a tally as one row."""
    return (tally.requests, tally.errors, tally.client_errors, *tally.slower)


def add(rows: Iterable[Row]) -> Row:
    """Return the sum of rows, column by column."""
    return tuple(map(sum, zip(NOTHING, *rows, strict=True)))


def version_rows(observation: Observation, version: str) -> dict[tuple[str, str], Row]:
    """Return the rows of one version by (proxy group, segment), sorted.

    Requests without identity, those that another release decided, and proxies whose counters do not add up
    are left out.
    """
    left_out = {proxy for proxy, _ in observation.partial}
    proxies = {cell.proxy for cell, _ in observation.cells}
    found: dict[tuple[str, str], list[Row]] = {}
    for cell, tally in observation.cells:
        if cell.version == version and cell.segment not in UNCOMPARED and cell.proxy not in left_out:
            group = cell.proxy if len(proxies) <= GROUPS else f"#{crc32(cell.proxy.encode()) % GROUPS}"
            found.setdefault((group, cell.segment), []).append(row(tally))
    return {key: found[key][0] if len(found[key]) == 1 else add(found[key]) for key in sorted(found)}


def cut(observation: Observation, canary: str, stable: str, full_segments: frozenset[str]) -> Blocks:
    """Pair the canary with its concurrent baseline, block by block.

    A segment of ``full_segments`` has no baseline of its own and borrows that of its proxy group.
    """
    new, old = version_rows(observation, canary), version_rows(observation, stable)
    lent = {
        group: add(r for (g, _), r in old.items() if g == group) for group, s in new if s in full_segments
    }
    blocks = []
    for key in sorted(new.keys() | old.keys()):
        group, segment = key
        if segment in full_segments:
            if key in new:
                blocks.append(Block(segment, new[key], lent[group], borrowed=True))
        else:
            blocks.append(Block(segment, new.get(key, NOTHING), old.get(key, NOTHING)))
    return Blocks(tuple(blocks), add(new.values()), add(old.values()))
