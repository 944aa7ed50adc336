"""What proxies push, kept until it is asked for, and turned into observations once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from controlplane.evidence.observation import Cell, Measure, Observation, Stat, Tally
from controlplane.evidence.observed import Observed
from controlplane.sources.audiences import NOTHING, Audiences, State, told
from controlplane.sources.cursor import Cursor, Delta, delta
from controlplane.sources.envoy import VERSIONED, Export, MalformedError, parse_export
from controlplane.xds.view import Peer

MAX_EXPORTERS = 10_000
LATE_AFTER, SILENT_AFTER = 2, 3  # flush intervals without an export
FORGET_AFTER = timedelta(hours=1)  # cursors of proxies that are gone


@dataclass(frozen=True, slots=True)
class Link:
    """A proxy's open ADS stream.

    Attributes:
        peer: Where it comes from.
        services: Names of the services that the proxy is given.
        reports: Whether its bootstrap makes it report counters of clusters.
    """

    peer: Peer
    services: frozenset[str]
    reports: bool = False


@dataclass(slots=True)
class _Exporter:
    """The latest export of one name from one host."""

    export: Export
    arrived: datetime
    former: tuple[int, ...] = ()  # starts of earlier processes
    clashed: datetime | None = None
    older: datetime | None = None  # when one came that its proxy's clock says is older than this


class _Heard(NamedTuple):
    """The last export of a proxy from where its stream comes: as it was at the interval's end."""

    export: Export
    arrived: datetime
    exporter: _Exporter


@dataclass(slots=True)
class _Counts:
    """What is new of one service."""

    tallies: dict[Cell, Tally] = field(default_factory=dict)
    measures: list[Measure] = field(default_factory=list)
    stats: list[Stat] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Interval:
    """An interval in the making.

    Attributes:
        start: Its begin.
        end: Its end.
        connected: Proxies with an open ADS stream.
        services: Names of the versions of each service.
        heard: By proxy: what it said last, whatever arrives while this is made.
        counts: By service.
        audiences: Of the proxies that are connected.
        uncounted: Why the counts of some of them do not count, by name.
    """

    start: datetime
    end: datetime
    connected: Mapping[str, Link]
    services: Mapping[str, AbstractSet[str]]
    heard: Mapping[str, _Heard]
    counts: dict[str, _Counts] = field(default_factory=dict)
    audiences: Audiences = field(default_factory=Audiences)
    uncounted: dict[str, str] = field(default_factory=dict)

    def of(self, service: str) -> _Counts:
        """Return where the counts of a service belong."""
        found = self.counts.get(service)
        if found is None:
            found = self.counts[service] = _Counts()
        return found

    def observed(self) -> Observed:
        """Return what was seen, one observation per service."""
        counted = {service for service, counts in self.counts.items() if counts.tallies}
        return Observed(self.services.keys(), counted, self._observation)

    def _observation(self, service: str, healthy: bool) -> Observation:
        counts = self.counts.get(service, _NO_COUNTS)
        told = self.audiences.told(service, self.services[service] if healthy else frozenset())
        return Observation(
            service,
            self.start,
            self.end,
            tuple(sorted(counts.tallies.items(), key=_cell)),
            told.fresh,
            told.silent,
            told.partial,
            healthy=told.healthy,
            measures=tuple(sorted(counts.measures)),
            stats=tuple(sorted(counts.stats)),
            reporting=told.reporting,
            late=told.late,
        )


_NO_COUNTS = _Counts()
_WENT_BACK = "its clock went back behind what was counted"


class Collector:
    """Keeps the latest export of every proxy and counts what is new in it.

    Counting moves cursors. They become current by ``commit``, once they and the observation were stored in
    one transaction; until then ``counting`` counts the same again. Not thread-safe: one loop calls it.
    """

    def __init__(
        self, flush: timedelta = timedelta(seconds=5), listens: Callable[[str], bool] = lambda prefix: True
    ) -> None:
        """Collect from proxies that export every ``flush``; ``listens`` knows our stat prefixes."""
        self._flush = flush
        # One export may be lost; nanoseconds of the proxy's clock, so its own delays are in it.
        self._longest = (LATE_AFTER + 0.5) * flush.total_seconds() * 1e9
        self._listens = listens
        self._exporters: dict[tuple[str, str], _Exporter] = {}
        self._cursors: dict[str, Cursor] = {}
        self._pending: dict[str, Cursor | None] = {}
        self._since: dict[str, datetime] = {}
        self._links: Mapping[str, Link] = {}
        self._next_links: Mapping[str, Link] = {}
        self._uncounted: Mapping[str, str] = {}
        self.ignored = 0

    @property
    def uncounted(self) -> Mapping[str, str]:
        """Why what proxies export did not count in the last observation, by name."""
        return self._uncounted

    def receive(self, peer: Peer, data: bytes, now: datetime) -> None:
        """Take in an export; one that is older than the last of its proxy, or the same, is ignored.

        Raises:
            MalformedError: If it cannot be used.
        """
        export = parse_export(data, self._listens)
        key = (export.proxy, origin(peer))
        last = self._exporters.get(key)
        if last is None:
            if len(self._exporters) >= MAX_EXPORTERS:
                raise MalformedError(f"more than {MAX_EXPORTERS} proxies export")
            self._exporters[key] = _Exporter(export, now)
        elif export.time <= last.export.time:
            self.ignored += 1
            if export.time < last.export.time:
                last.older = now
        else:
            if export.start != last.export.start:
                if export.overlaps(last.export) or (export.start and export.start in last.former):
                    last.clashed = now
                last.former = (*last.former, last.export.start)[-8:]
            last.export, last.arrived = export, now

    def counting(
        self,
        start: datetime,
        end: datetime,
        connected: Mapping[str, Link],
        services: Mapping[str, AbstractSet[str]],
    ) -> Generator[None, None, tuple[Observed, dict[str, dict[str, Any] | None]]]:
        """Count what arrived since the last committed observation, a proxy in each step.

        Exports may arrive between two steps: the next observation counts them.

        Args:
            start: Begin of the interval, UTC.
            end: End of the interval, UTC: the present.
            connected: Proxies with an open ADS stream, by node id.
            services: Names of the versions of each service; counts of others are dropped.

        Returns:
            One observation per service, and the cursors to store with them: the moved ones, None to delete.
        """
        self._pending, self._next_links = {}, dict(connected)
        for heard in self._exporters.values():
            heard.arrived = min(heard.arrived, end)  # if the clock went back: it may fall silent all the same
        self._since = {proxy: self._since.get(proxy, end) for proxy in connected}
        hosts = {proxy: origin(link.peer) for proxy, link in connected.items()}
        left = {proxy: link for proxy, link in self._links.items() if proxy not in connected}
        at = _Interval(start, end, connected, services, self._heard(hosts, left))
        for proxy, link in sorted(connected.items()):
            self._take(proxy, link, at)
            yield
        for proxy, link in sorted(left.items()):  # it has left: what it counted before that still counts
            self._count(proxy, link, at)
            yield
        self._uncounted = at.uncounted | dict(self._strangers(hosts))
        self._prune(hosts, end)
        cursors: dict[str, dict[str, Any] | None] = {}
        for proxy, cursor in sorted(self._pending.items()):
            cursors[proxy] = None if cursor is None else cursor.dump()
            yield
        return at.observed(), cursors

    def commit(self) -> None:
        """Make the cursors of the last observation current; they are stored."""
        for proxy, cursor in self._pending.items():
            if cursor is None:
                self._cursors.pop(proxy, None)
            else:
                self._cursors[proxy] = cursor
        self._pending, self._links = {}, self._next_links

    def restore(self, cursors: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from stored cursors."""
        self._cursors = {proxy: Cursor.load(proxy, data) for proxy, data in cursors.items()}

    def _heard(self, hosts: Mapping[str, str], left: Mapping[str, Link]) -> dict[str, _Heard]:
        """Return what was heard of proxies where their streams come from, or came from."""
        sources = {**hosts, **{proxy: origin(link.peer) for proxy, link in left.items()}}
        found = ((proxy, self._exporters.get((proxy, host))) for proxy, host in sources.items())
        return {proxy: _Heard(e.export, e.arrived, e) for proxy, e in found if e is not None}

    def _take(self, proxy: str, link: Link, at: _Interval) -> None:
        """Count what is new of a connected proxy, and note what is known of it."""
        state = self._count(proxy, link, at)
        cursor, heard = self._pending.get(proxy) or self._cursors.get(proxy), at.heard.get(proxy)
        audience, bypassed = at.audiences.of(link.services), cursor.bypassed if cursor else NOTHING
        audience.place(proxy, state, bypassed)
        since = heard.arrived if heard is not None else self._since[proxy]
        if why := told(state, bypassed, at.end - since):
            at.uncounted[proxy] = why
        if heard is not None and state != "silent":
            audience.healthy.append((proxy, heard.export.healthy))
        if link.reports:
            audience.reporting.append(proxy)

    def _count(self, proxy: str, link: Link, at: _Interval) -> State:
        cursor = self._cursors.get(proxy)
        overdue = at.end - SILENT_AFTER * self._flush
        if proxy not in at.heard:
            return "silent" if self._since.get(proxy, at.end) <= overdue else "between"
        export, arrived, exporter = at.heard[proxy]
        if cursor is not None and export.overlaps(cursor.seen):
            exporter.clashed = arrived
        if exporter.clashed is not None and exporter.clashed > overdue:
            self._pending[proxy] = Cursor(export)  # nothing until now can be told apart
            return (_clash(proxy),)
        exporter.clashed = None
        added = delta(export, cursor, self._longest)
        if added is not None:
            self._pending[proxy] = added.cursor
            _add(proxy, link, added, at)
        return self._state(at.heard[proxy], cursor, added, at.end)

    def _state(self, heard: _Heard, cursor: Cursor | None, added: Delta | None, end: datetime) -> State:
        """Return how far the last export of a proxy covers the interval until ``end``."""
        (export, arrived, exporter), overdue = heard, end - SILENT_AFTER * self._flush
        if arrived < overdue:
            return (_WENT_BACK,) if exporter.older is not None and exporter.older >= overdue else "silent"
        if cursor is not None and export.time < cursor.seen.time:
            return (_WENT_BACK,)
        if doubt := added.doubt if added else cursor and cursor.doubt:
            return (doubt,)
        if added and cursor and export.time - cursor.seen.time > self._longest:
            return "late"  # much of what it counts may be from before the interval
        if arrived < end - LATE_AFTER * self._flush:
            return "late"
        return "fresh" if added or arrived >= end - self._flush else "between"

    def _strangers(self, hosts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for (proxy, host), heard in self._exporters.items():
            known = hosts.get(proxy)
            if known is None and proxy not in self._links:
                yield proxy, f"exports from {host} without an ADS stream"
            elif known is not None and known != host:
                yield proxy, f"exports from {host}, but its ADS stream comes from {known}"
            elif heard.clashed is not None:
                yield proxy, _clash(proxy)

    def _prune(self, hosts: Mapping[str, str], end: datetime) -> None:
        overdue = end - SILENT_AFTER * self._flush
        for (proxy, host), heard in list(self._exporters.items()):
            if heard.arrived < overdue and hosts.get(proxy) != host:
                del self._exporters[proxy, host]
        exporting = {proxy for proxy, _ in self._exporters}
        for proxy, cursor in self._cursors.items():
            gone = end.timestamp() - cursor.seen.time / 1e9 > FORGET_AFTER.total_seconds()
            if gone and proxy not in hosts and proxy not in exporting:
                self._pending[proxy] = None


def origin(peer: Peer) -> str:
    """Name where a peer calls from: its host without the port, and what its certificate proves."""
    return " ".join((peer.host, *peer.identities))


def _clash(proxy: str) -> str:
    return f"two proxies call themselves {proxy!r}"


def _add(proxy: str, link: Link, added: Delta, at: _Interval) -> None:
    """Take in what a proxy counted of the services that it is given."""
    for (service, cell), tally in added.tallies.items():
        versions = at.services.get(service) if service in link.services else None
        if versions is not None and (not cell.version or cell.version in versions):
            at.of(service).tallies[cell] = tally
    for (series, service, segment, cluster), total in added.measures.items():
        owner, _, version = cluster.partition(VERSIONED)
        # A sum that stands still tells that it is counted.
        if owner == service and service in link.services and service in at.services:
            at.of(service).measures.append(Measure(Cell(proxy, segment, version), series, total))
    for (cluster, name), count in added.stats.items():
        if count:  # an adopted listener has several clusters of a version
            owner, version, *_ = *cluster.split(VERSIONED), ""
            if owner in link.services and owner in at.services:
                at.of(owner).stats.append(Stat(proxy, version, name, count))


def _cell(item: tuple[Cell, Tally]) -> Cell:
    return item[0]
