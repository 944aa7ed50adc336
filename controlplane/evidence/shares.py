"""By which requests a split is judged: those of late, so that a change shows and what is over does not.

Source: docs/decision-rule.md, "Split check".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from controlplane.evidence.observation import Observation
from controlplane.evidence.split import EXPECTED
from controlplane.policy.latency import EDGES_MS

FULL = 2 * EXPECTED  # requests that the version with fewer was due, after which a window is full
SPAN = 30.0  # seconds that it lasts at least: for so long it is known how far users come in crowds

Row = tuple[
    int, int, int, int
]  # canary requests, baseline requests, and how many of each may have begun before
NOTHING: Row = (0, 0, 0, 0)


class Lately(NamedTuple):
    """The requests of two windows, the last full one and the one that is being filled.

    Attributes:
        older: Of the last full window.
        newer: Since then.
        seconds: Of the intervals with requests since then.
    """

    older: Row = NOTHING
    newer: Row = NOTHING
    seconds: float = 0.0

    @property
    def row(self) -> Row:
        """All of them; as long as no second window is full, all since the step began."""
        return plus(self.older, self.newer)

    def plus(self, row: Row, seconds: float, share: float) -> Lately:
        """Return the windows with one more interval; ``share`` is the canary's, in 0..1."""
        newer, lasted = plus(self.newer, row), self.seconds + seconds
        part = min(share, 1 - share) or 1.0
        if lasted >= SPAN and part * (newer[0] + newer[1]) >= FULL:
            return Lately(newer)
        return Lately(self.older, newer, lasted)

    def to_json(self) -> list[float]:
        """Return plain values; nothing is lost."""
        return [*self.older, *self.newer, self.seconds]

    @classmethod
    def from_json(cls, data: Sequence[float]) -> Lately:
        """Return what :meth:`to_json` was made from."""
        whole = [int(count) for count in data[:8]]
        return cls((*whole[:4],), (*whole[4:],), data[8])  # type: ignore[arg-type]


def plus(a: Row, b: Row) -> Row:
    """Return the sum of two rows."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


def rows(observation: Observation, canary: str, baseline: str, since: float) -> Mapping[tuple[str, str], Row]:
    """Return the requests of an interval by proxy and segment.

    Args:
        observation: The interval.
        canary: Version that is released.
        baseline: Version that is stable.
        since: Seconds from when every proxy had the step to the interval's begin.
    """
    issued = dict(observation.issued)
    clients = {cell.proxy for cell in issued}
    sides = {canary: 0, baseline: 1}
    edge = bisect_right(EDGES_MS, since * 1000) - 1
    found: dict[tuple[str, str], list[int]] = {}
    for cell, tally in observation.cells:
        side = sides.get(cell.version)
        if side is None:
            continue
        if cell.proxy in clients:
            # Of gRPC clients it is known how many began; one that ends in a later interval is paid for then.
            older = tally.requests - issued.get(cell, 0)
        else:  # what took so long may have begun before every proxy had the step
            older = tally.slower[edge] if edge >= 0 else 0
        row = found.setdefault((cell.proxy, cell.segment), [*NOTHING])
        row[side] += tally.requests
        row[side + 2] += older
    return {place: (*row,) for place, row in found.items()}  # type: ignore[misc]
