"""What proxies count of an interval: a row of counts for each cell that has requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from controlplane.evidence.observation import GROUPS, Cell, Observation, Tally
from controlplane.evidence.table import SLOWER, WIDTH, Key, Table
from controlplane.policy.documents import UNCOMPARED
from controlplane.simulation.noise import Counts

MOST = 64  # combinations of cells with requests that are kept in mind


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts by cell.

    Attributes:
        lines: Which cells they are of.
        rows: A line for each of these: a row of a `Table`, then the sums of business metrics.
    """

    lines: Lines
    rows: Counts

    def tallies(self) -> Iterable[tuple[Cell, Tally]]:
        """Return the tally of each cell."""
        requests, errors, refused = self.rows[:, :SLOWER].T.tolist()
        slower = map(tuple, self.rows[:, SLOWER:WIDTH].tolist())
        tallies = map(Tally, requests, errors, refused, repeat(0), slower)
        return zip(self.lines.cells, tallies, strict=True)

    def sums(self) -> Iterable[tuple[Cell, list[int]]]:
        """Return the sums of business metrics of each cell."""
        return zip(self.lines.cells, self.rows[:, WIDTH:].tolist(), strict=True)

    def tell(self, observation: Observation) -> None:
        """Tell one that has just these tallies its tables, which are here already."""
        if self.lines.tables:
            rows = self.rows[:, :WIDTH].astype(float)
            tables = self.lines.tables.items()
            found = {version: Table(keys, rows.take(at, axis=0)) for version, (keys, at) in tables}
            Observation.tables.keep(observation, found)


@dataclass(frozen=True, slots=True)
class Lines:
    """The cells that have requests, and where their counts are.

    Attributes:
        cells: Sorted, each once.
        at: Positions of what is counted, by cell.
        starts: Where in ``at`` each cell's begin; None if each has one.
        tables: By version: keys, and lines in the cells' order, of an observation's tables; empty if there
            are so many proxies that these put several together.
    """

    cells: tuple[Cell, ...]
    at: Counts
    starts: Counts | None
    tables: Mapping[str, tuple[tuple[Key, ...], Counts]]

    @property
    def drawn(self) -> list[int]:
        """The cells' positions in the order in which traffic has them."""
        first = self.at if self.starts is None else self.at[self.starts]
        found: list[int] = np.argsort(first).tolist()
        return found

    @classmethod
    def of(cls, cells: Sequence[Cell], some: Sequence[bool]) -> Lines:
        """Return the lines of those ``cells`` where there are some requests; several may be the same."""
        at = sorted((i for i, there in enumerate(some) if there), key=cells.__getitem__)
        begins = [n for n, i in enumerate(at) if not n or cells[i] != cells[at[n - 1]]]
        found = tuple(cells[at[n]] for n in begins)
        tables: dict[str, tuple[tuple[Key, ...], Counts]] = {}
        if len({cell.proxy for cell in cells}) <= GROUPS:
            compared = [n for n, cell in enumerate(found) if cell.segment not in UNCOMPARED]
            for version in dict.fromkeys(found[n].version for n in compared):
                mine = [n for n in compared if found[n].version == version]
                keys = tuple((found[n].proxy, found[n].segment) for n in mine)
                tables[version] = keys, np.array(mine)
        return cls(found, np.array(at, int), np.array(begins, int) if len(found) < len(at) else None, tables)


class Counter:
    """Counts the requests of a step, in which all is counted in the same cells."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        """Count each row in one of ``cells``."""
        self.cells = cells
        self._known: dict[tuple[bool, ...], Lines] = {}

    def count(self, rows: Counts) -> Counted:
        """Return what these rows come to; cells without requests are left out."""
        lines = self._lines(tuple((rows[:, 0] > 0).tolist()))
        found = rows.take(lines.at, axis=0)
        return Counted(lines, found if lines.starts is None else np.add.reduceat(found, lines.starts))

    def _lines(self, some: tuple[bool, ...]) -> Lines:
        known = self._known.get(some)
        if known is None:
            if len(self._known) >= MOST:
                self._known.clear()
            known = self._known[some] = Lines.of(self.cells, some)
        return known
