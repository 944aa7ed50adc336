"""What proxies push, kept until it is asked for, and turned into observations once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from controlplane.evidence.observation import Cell, Measure, Observation, Stat, Tally
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


@dataclass(slots=True)
class _Seen:
    """One service in the making."""

    tallies: dict[Cell, Tally] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    partial: list[tuple[str, str]] = field(default_factory=list)
    healthy: list[tuple[str, str, int]] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    stats: list[Stat] = field(default_factory=list)
    reporting: list[str] = field(default_factory=list)


# Between two exports is what falls just after an interval's end; a tuple holds the reason why it is partial.
_State = Literal["fresh", "between", "late", "silent"] | tuple[str]


class Collector:
    """Keeps the latest export of every proxy and counts what is new in it.

    Counting moves cursors. They become current by ``commit``, once they and the observation were stored in
    one transaction; until then ``observe`` counts the same again. Not thread-safe: one loop calls it.
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
        self._quarantined: tuple[tuple[str, str], ...] = ()
        self.ignored = 0

    @property
    def quarantined(self) -> tuple[tuple[str, str], ...]:
        """Exporters that did not count in the last observation, sorted, each with the reason."""
        return self._quarantined

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
        else:
            if export.start != last.export.start:
                if export.overlaps(last.export) or (export.start and export.start in last.former):
                    last.clashed = now
                last.former = (*last.former, last.export.start)[-8:]
            last.export, last.arrived = export, now

    def observe(
        self,
        start: datetime,
        end: datetime,
        connected: Mapping[str, Link],
        services: Mapping[str, AbstractSet[str]],
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any] | None]]:
        """Count what arrived since the last committed observation.

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
        seen = {service: _Seen() for service in services}
        for proxy, link in sorted(connected.items()):
            state = self._count(proxy, link, end, seen, services)
            cursor = self._pending.get(proxy) or self._cursors.get(proxy)
            for service in link.services & seen.keys():
                past = cursor.bypassed(service) if cursor and state in ("fresh", "between", "late") else None
                _place(seen[service], proxy, (past,) if past else state)
                if state != "silent":
                    seen[service].healthy += self._healthy(proxy, link, service, services[service])
                if link.reports:
                    seen[service].reporting.append(proxy)
        for proxy, link in sorted(self._links.items()):
            if proxy not in connected:  # it has left: what it counted before that still counts
                self._count(proxy, link, end, seen, services)
        self._quarantined = tuple(sorted(self._strangers(connected, end)))
        self._prune(connected, end)
        found = {service: _observation(service, start, end, seen[service]) for service in sorted(seen)}
        cursors = {
            proxy: None if cursor is None else cursor.dump()
            for proxy, cursor in sorted(self._pending.items())
        }
        return found, cursors

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

    def _count(
        self,
        proxy: str,
        link: Link,
        end: datetime,
        seen: Mapping[str, _Seen],
        services: Mapping[str, AbstractSet[str]],
    ) -> _State:
        heard = self._exporters.get((proxy, origin(link.peer)))
        cursor = self._cursors.get(proxy)
        overdue = end - SILENT_AFTER * self._flush
        if heard is None:
            return "silent" if self._since.get(proxy, end) <= overdue else "between"
        if cursor is not None and heard.export.overlaps(cursor.seen):
            heard.clashed = heard.arrived
        if heard.clashed is not None and heard.clashed > overdue:
            self._pending[proxy] = Cursor(heard.export)  # nothing until now can be told apart
            return (_clash(proxy),)
        heard.clashed = None
        added = delta(heard.export, cursor, self._longest)
        if added is not None:
            self._pending[proxy] = added.cursor
            for (service, cell), tally in added.tallies.items():
                known = service in link.services and service in services
                if known and cell.version in {*services[service], ""}:
                    seen[service].tallies[cell] = tally
            _besides(proxy, added, link.services & services.keys(), seen)
        return self._state(heard, cursor, added, end)

    def _state(self, heard: _Exporter, cursor: Cursor | None, added: Delta | None, end: datetime) -> _State:
        """Return how far the last export of a proxy covers the interval until ``end``."""
        if heard.arrived < end - SILENT_AFTER * self._flush:
            return "silent"
        if cursor is not None and heard.export.time < cursor.seen.time:
            return ("its clock went back behind what was counted",)
        if doubt := added.doubt if added else cursor and cursor.doubt:
            return (doubt,)
        if added and cursor and heard.export.time - cursor.seen.time > self._longest:
            return "late"  # much of what it counts may be from before the interval
        if heard.arrived < end - LATE_AFTER * self._flush:
            return "late"
        return "fresh" if added or heard.arrived >= end - self._flush else "between"

    def _healthy(
        self, proxy: str, link: Link, service: str, versions: AbstractSet[str]
    ) -> Iterator[tuple[str, str, int]]:
        heard = self._exporters.get((proxy, origin(link.peer)))
        healthy = heard.export.healthy if heard else {}
        for version in sorted(versions):
            if (count := healthy.get(f"{service}{VERSIONED}{version}")) is not None:
                yield proxy, version, count

    def _strangers(self, connected: Mapping[str, Link], end: datetime) -> Iterator[tuple[str, str]]:
        for (proxy, host), heard in self._exporters.items():
            link = connected.get(proxy)
            if link is None and proxy not in self._links:
                yield proxy, f"exports from {host} without an ADS stream"
            elif link is not None and origin(link.peer) != host:
                yield proxy, f"exports from {host}, but its ADS stream comes from {origin(link.peer)}"
            elif heard.clashed is not None:
                yield proxy, _clash(proxy)

    def _prune(self, connected: Mapping[str, Link], end: datetime) -> None:
        overdue = end - SILENT_AFTER * self._flush
        for (proxy, host), heard in list(self._exporters.items()):
            if heard.arrived < overdue and not (proxy in connected and origin(connected[proxy].peer) == host):
                del self._exporters[proxy, host]
        exporting = {proxy for proxy, _ in self._exporters}
        for proxy, cursor in self._cursors.items():
            gone = end.timestamp() - cursor.seen.time / 1e9 > FORGET_AFTER.total_seconds()
            if gone and proxy not in connected and proxy not in exporting:
                self._pending[proxy] = None


def origin(peer: Peer) -> str:
    """Name where a peer calls from: its host without the port, and what its certificate proves."""
    return " ".join((peer.host, *peer.identities))


def _clash(proxy: str) -> str:
    return f"two proxies call themselves {proxy!r}"


def _place(seen: _Seen, proxy: str, state: _State) -> None:
    match state:
        case "fresh":
            seen.fresh.append(proxy)
        case "late":
            seen.late.append(proxy)
        case "silent":
            seen.silent.append(proxy)
        case (reason,):
            seen.partial.append((proxy, reason))


def _besides(proxy: str, added: Delta, services: AbstractSet[str], seen: Mapping[str, _Seen]) -> None:
    """Take in what was counted besides requests."""
    for (series, service, segment, cluster), total in added.measures.items():
        owner, _, version = cluster.partition(VERSIONED)
        if service in services and owner == service:  # a sum that stands still tells that it is counted
            seen[service].measures.append(Measure(Cell(proxy, segment, version), series, total))
    for (cluster, name), count in added.stats.items():
        owner, version, *_ = *cluster.split(VERSIONED), ""
        if count and owner in services:  # an adopted listener has several clusters of a version
            seen[owner].stats.append(Stat(proxy, version, name, count))


def _observation(service: str, start: datetime, end: datetime, seen: _Seen) -> Observation:
    return Observation(
        service,
        start,
        end,
        tuple(sorted(seen.tallies.items(), key=_cell)),
        tuple(seen.fresh),
        tuple(seen.silent),
        tuple(seen.partial),
        healthy=tuple(seen.healthy),
        measures=tuple(sorted(seen.measures)),
        stats=tuple(sorted(seen.stats)),
        reporting=tuple(seen.reporting),
        late=tuple(seen.late),
    )


def _cell(item: tuple[Cell, Tally]) -> Cell:
    return item[0]
