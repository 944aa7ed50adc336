"""Runs the releases of many cells, a batch of each at a time, and keeps what came out in a file.

A run that is stopped goes on where it was: ``--resume``. Batches keep the cells alike: stopped early, each
has about as many releases as any other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from bench.cells import SEED, UNSURE, Cell
from controlplane.simulation.loop import Ended
from controlplane.simulation.summary import Summary, summarise
from controlplane.simulation.traffic import Harm

BATCH = 50  # releases of a cell before the next cell has its turn
Batch = tuple[Cell, int]  # its first seed is SEED + the number


def _run(cell: Cell, seeds: Iterable[int]) -> list[Ended]:
    return [replace(cell.run(seed), reason="") for seed in seeds]


@dataclass
class Lab:
    """What is known of each cell.

    Attributes:
        good: Releases of a cell that should be promoted.
        bad: Releases of a cell that should be rolled back.
        file: Where finished batches are appended, a line each; None keeps them in memory alone.
        known: Batches that are done.
    """

    good: int
    bad: int
    file: Path | None = None
    known: dict[Batch, list[Ended]] = field(default_factory=dict)

    def resume(self) -> None:
        """Take up the batches of the file; one that was being written when the run was stopped is dropped."""
        assert self.file is not None
        whole, _, cut = (self.file.read_text() if self.file.exists() else "").rpartition("\n")
        if cut:
            self.file.write_text(whole + "\n" if whole else "")
        for line in whole.splitlines():
            data = json.loads(line)
            self.known[Cell(**data["cell"]), data["begin"]] = [_ended(row) for row in data["ended"]]

    def wanted(self, cells: Iterable[Cell]) -> Iterator[tuple[Batch, int]]:
        """Yield the batches that are still to be run and how many releases each has, round by round."""
        cells = tuple(dict.fromkeys(cells))
        for begin in range(0, max(self.good, self.bad), BATCH):
            for cell in cells:
                size = min(BATCH, (self.bad if cell.bad else self.good) - begin)
                if size > len(self.known.get((cell, begin), ())):
                    yield (cell, begin), size

    def run(self, cells: Iterable[Cell], jobs: int) -> None:
        """Run what is wanted of the cells; with more than one job each takes a part of every batch."""
        with ProcessPoolExecutor(jobs) as pool:
            for (cell, begin), size in self.wanted(cells):
                began, seeds = monotonic(), range(SEED + begin, SEED + begin + size)
                known = self._as_strict(cell, begin)
                left = [seed for seed in seeds if seed not in known]
                # A worker finds the past of its seeds again if it has drawn it for another cell.
                parts = [left] if jobs == 1 else [left[i::jobs] for i in range(jobs)]
                work = map if jobs == 1 else pool.map
                for part, ended in zip(parts, work(partial(_run, cell), parts), strict=True):
                    known |= zip(part, ended, strict=True)
                self._keep((cell, begin), [known[seed] for seed in seeds])
                sys.stderr.write(f"{cell}: {begin}..{begin + size} in {monotonic() - began:.0f} s\n")

    def _as_strict(self, cell: Cell, begin: int) -> dict[int, Ended]:
        """Return by seed what is known because it ended before ``when_unsure`` could make a difference."""
        batch = self.known.get((cell.strict, begin), []) if cell.strict else []
        return {SEED + begin + i: ended for i, ended in enumerate(batch) if ended.seconds < UNSURE}

    def _keep(self, batch: Batch, ended: list[Ended]) -> None:
        self.known[batch] = ended
        if self.file is not None:
            row = {"cell": batch[0].plain(), "begin": batch[1], "ended": [asdict(e) for e in ended]}
            with self.file.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def find(self, cell: Cell) -> Summary | None:
        """Return what a cell's releases say; None if there are none."""
        ended = [e for (known, _), batch in self.known.items() if known == cell for e in batch]
        return summarise(ended, bad=cell.bad, begins=cell.begins) if ended else None


def _ended(row: dict[str, Any]) -> Ended:
    return Ended(**(row | {"harm": Harm(**row["harm"])}))
