"""How the statistics of proxies arrive: in time, late, after a restart, or not any more.

It answers as the collector and the cursor of the running server do. A proxy whose process is new has lost
what nobody had read, so its interval is partial; one of which nothing came for three intervals is silent.
Counts are cumulative: those of a late proxy come with its next statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from controlplane.evidence.observation import Cell, Measure, Tally
from controlplane.simulation.counted import Counted

SILENT_AFTER = 3  # intervals without statistics, as for a real proxy
RESTARTED = "restarted: its last counts are lost"


@dataclass(frozen=True, slots=True)
class Chance:
    """What may become of one proxy's statistics in an interval.

    Attributes:
        late: Chance that they come with the next ones.
        restarts: Chance that its process is a new one.
        silent: Whether they come at all.
    """

    late: float = 0.0
    restarts: float = 0.0
    silent: bool = False


IN_TIME = Chance()


@dataclass(frozen=True, slots=True)
class Count:
    """What a proxy counted of one cell; ``sums`` are those of its business metrics."""

    tally: Tally
    sums: tuple[int, ...] = ()

    def __add__(self, other: Count) -> Count:
        sums = tuple(a + b for a, b in zip(self.sums, other.sums, strict=True))
        return Count(self.tally + other.tally, sums)


@dataclass(slots=True)
class Arrived:
    """What came in an interval, of all proxies; the lists of an observation.

    ``counted`` are the same cells as counted if all came, and nothing else.
    """

    cells: list[tuple[Cell, Tally]] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    partial: list[tuple[str, str]] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    counted: Counted | None = None


class Reads:
    """Keeps what each proxy has counted and nobody has read."""

    def __init__(self, proxies: Sequence[str], metrics: Sequence[str], rng: np.random.Generator) -> None:
        """Read so many ``metrics`` besides requests, in the order of a count's sums."""
        self._proxies, self._metrics, self._rng = proxies, metrics, rng
        self._held: list[dict[Cell, Count]] = [{} for _ in proxies]
        self._missed = [0] * len(proxies)

    def arrive(self, counted: Counted, chances: Sequence[Chance] | None = None) -> Arrived:
        """Return what arrives of an interval in which so much was counted.

        Args:
            counted: By all proxies.
            chances: Of each proxy; None if all is in time.
        """
        if chances is None and not any(self._missed):
            return self._in_time(counted)
        new: dict[str, dict[Cell, Count]] = {proxy: {} for proxy in self._proxies}
        tallies, sums = list(counted.tallies()), list(counted.sums())
        for line in counted.lines.drawn:
            cell, tally = tallies[line]
            new[cell.proxy][cell] = Count(tally, tuple(sums[line][1]))
        return self._in_part(new, chances or [IN_TIME] * len(self._proxies))

    def _in_time(self, counted: Counted) -> Arrived:
        arrived = Arrived(list(counted.tallies()), list(self._proxies), counted=counted)
        if self._metrics:
            for cell, sums in counted.sums():
                pairs = zip(self._metrics, sums, strict=True)
                arrived.measures += (Measure(cell, metric, total) for metric, total in pairs)
        return arrived

    def _in_part(self, counted: Mapping[str, dict[Cell, Count]], chances: Sequence[Chance]) -> Arrived:
        """Return what arrives if some is late, or lost; ``counted`` is by proxy."""
        arrived = Arrived()
        for at, (proxy, chance) in enumerate(zip(self._proxies, chances, strict=True)):
            new = counted[proxy]
            if chance.silent or (chance.late and self._rng.random() < chance.late):
                self._held[at] = _joined(self._held[at], new)
                self._missed[at] += 1
                if self._missed[at] >= SILENT_AFTER:
                    arrived.silent.append(proxy)
                continue
            found = _joined(self._held[at], new)
            if chance.restarts and self._rng.random() < chance.restarts:
                part = self._rng.random()
                found = {cell: thinned(count, part, self._rng) for cell, count in new.items()}
                arrived.partial.append((proxy, RESTARTED))
            else:
                arrived.fresh.append(proxy)
            self._held[at], self._missed[at] = {}, 0
            for cell, count in found.items():
                if count.tally.requests:
                    arrived.cells.append((cell, count.tally))
                    # A sum of zero tells that it is counted.
                    pairs = zip(self._metrics, count.sums, strict=True)
                    arrived.measures += (Measure(cell, metric, total) for metric, total in pairs)
        arrived.cells.sort(key=_cell)
        return arrived


def _joined(held: dict[Cell, Count], new: dict[Cell, Count]) -> dict[Cell, Count]:
    if not held:
        return new
    return held | {cell: held[cell] + count if cell in held else count for cell, count in new.items()}


def _cell(item: tuple[Cell, Tally]) -> Cell:
    return item[0]


def thinned(count: Count, part: float, rng: np.random.Generator) -> Count:
    """Return the counts of a part of the requests, each of which is as likely to be in it."""
    tally = count.tally
    errors = int(rng.binomial(tally.errors, part))
    requests = errors + int(rng.binomial(tally.requests - tally.errors, part))
    buckets = -np.diff([tally.requests, *tally.slower, 0])
    kept = rng.multivariate_hypergeometric(buckets, requests)
    slower = tuple((requests - np.cumsum(kept)[:-1]).tolist())
    refused = min(round(tally.client_errors * part), requests - errors)
    sums = tuple(round(total * part) for total in count.sums)
    return Count(Tally(requests, errors, refused, slower=slower), sums)
