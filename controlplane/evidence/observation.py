"""What was seen in one interval: counts per proxy, segment and version, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from zlib import crc32

from controlplane.evidence.once import once
from controlplane.evidence.table import Key, Row, Table, table_of
from controlplane.policy.documents import UNCOMPARED
from controlplane.policy.latency import EDGES_MS

GROUPS = 16  # bounds the cost of an interval, whatever the number of proxies
NO_BUCKETS: tuple[int, ...] = (0,) * len(EDGES_MS)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of requests that ended in an interval.

    Attributes:
        requests: All that got an outcome; client aborts are not among them.
        errors: 5xx, gRPC failures, resets, timeouts, no host.
        client_errors: 4xx without 429.
        aborted: Requests that the client gave up; shown, never judged.
        slower: For each edge of EDGES_MS, how many took longer than it; timeouts are among them.
    """

    requests: int = 0
    errors: int = 0
    client_errors: int = 0
    aborted: int = 0
    slower: tuple[int, ...] = NO_BUCKETS

    @property
    def row(self) -> Row:
        """What versions are compared by, as a row of a table."""
        return (self.requests, self.errors, self.client_errors, *self.slower)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.requests + other.requests,
            self.errors + other.errors,
            self.client_errors + other.client_errors,
            self.aborted + other.aborted,
            tuple(a + b for a, b in zip(self.slower, other.slower, strict=True)),
        )


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """Where a tally was counted."""

    proxy: str
    segment: str
    version: str


class Users(NamedTuple):
    """What the users of a cell came to in an epoch, in which each counts as one.

    Attributes:
        epoch: Names the time since all of them were new.
        n: How many there are.
        total: Sum of what each came to; of what is counted, how many converted.
        squares: Sum of its squares.
    """

    epoch: str
    n: int
    total: float
    squares: float


@dataclass(frozen=True, slots=True, order=True)
class Measure:
    """A business metric in one cell: ``total`` over ``n``, or over the cell's requests if ``n`` is None.

    Where users count once, ``n`` are those who are new, and ``among`` those who could have added to the
    total: users that came earlier act later. ``age`` is how many seconds before the interval's end the last
    value was pushed; None for what Envoy counts. ``users`` is what those who were pushed by user came to
    until the interval's end, in a release.
    """

    cell: Cell
    metric: str
    total: float
    n: int | None = None
    among: int | None = None
    age: float | None = None
    users: Users | None = None


@dataclass(frozen=True, slots=True, order=True)
class Stat:
    """By how much a counter of a version's cluster grew on one proxy."""

    proxy: str
    version: str
    name: str
    count: int


@dataclass(frozen=True, slots=True, order=True)
class Reading:
    """One answer of another system about both versions.

    ``canary`` and ``baseline`` are None where none was asked for, and where ``problem`` says why not. ``age``
    is how many seconds before the interval's end it was answered.
    """

    name: str
    canary: float | None
    baseline: float | None = None
    problem: str = ""
    age: float = 0.0


@dataclass(frozen=True)  # no slots: what several releases and the past ask of it is worked out once
class Observation:
    """All that was seen of one service in one interval.

    Attributes:
        service: Its name.
        start: Begin of the interval, UTC.
        end: End of the interval, UTC.
        cells: Tallies, sorted by cell; cells without any request are left out.
        fresh: Proxies whose statistics cover the interval; a proxy without traffic is fresh too.
        silent: Proxies that are connected but whose statistics did not arrive.
        partial: Proxies whose counters do not add up (series beyond the cap, or a lost one), with the reason.
        issued: Calls of gRPC clients that found an endpoint and began, by cell; others are in no count.
        healthy: Proxy, version, and how many of its endpoints are healthy there; those that it does not check
            are. Of a proxy that is not listed nothing is known.
        measures: Business metrics, sorted.
        stats: Counters of clusters that grew, sorted.
        reporting: Proxies that report those counters; of the others nothing is known.
        readings: Of other systems, each once, in the interval in which it arrived.
        late: Proxies whose statistics are overdue but not silent yet, or have just come after they were.
    """

    service: str
    start: datetime
    end: datetime
    cells: tuple[tuple[Cell, Tally], ...] = ()
    fresh: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    partial: tuple[tuple[str, str], ...] = ()
    issued: tuple[tuple[Cell, int], ...] = ()
    healthy: tuple[tuple[str, str, int], ...] = ()
    measures: tuple[Measure, ...] = ()
    stats: tuple[Stat, ...] = ()
    reporting: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()
    late: tuple[str, ...] = ()

    @once
    def groups(self) -> Mapping[str, str]:
        """The group of each proxy that counted: itself, unless more than GROUPS are known.

        Those without a request in this interval are among these: or quiet proxies would change groups from
        one interval to the next.
        """
        proxies = {cell.proxy for cell, _ in self.cells}
        lists = (self.fresh, self.silent, self.late, self.reporting, [proxy for proxy, _ in self.partial])
        # Of thousands the first few tell that they are more.
        told = {proxy for names in lists for proxy in names[: GROUPS + 1]}
        if len(proxies | told) <= GROUPS:
            return {proxy: proxy for proxy in proxies}
        return {proxy: f"#{crc32(proxy.encode()) % GROUPS}" for proxy in proxies}

    @once
    def tables(self) -> Mapping[str, Table]:
        """By version: what versions are compared by, by proxy group and segment.

        Requests without identity, those that another release decided, and proxies whose counters do not add
        up are left out.
        """
        left_out = {proxy for proxy, _ in self.partial}
        keys: dict[str, list[Key]] = {}
        rows: dict[str, list[Row]] = {}
        for cell, tally in self.cells:
            if cell.segment not in UNCOMPARED and cell.proxy not in left_out:
                keys.setdefault(cell.version, []).append((self.groups[cell.proxy], cell.segment))
                rows.setdefault(cell.version, []).append(tally.row)
        return {version: table_of(keys[version], rows[version]) for version in keys}
