"""Where observations come from: what proxies pushed, and what gRPC clients reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from controlplane.evidence.observation import Observation
from controlplane.release.ports import Json, World
from controlplane.server.streams import XdsServer
from controlplane.sources.collector import Collector, Link, origin
from controlplane.sources.lrs import Client, LoadReports
from controlplane.xds.type_urls import LISTENER
from controlplane.xds.view import StreamView


class StreamStatistics:
    """Observations of all clients with an ADS stream, each by the way of its kind."""

    def __init__(self, server: XdsServer, collector: Collector, reports: LoadReports) -> None:
        self._server = server
        self._collector = collector
        self._reports = reports

    def observe(
        self, world: World, start: datetime, end: datetime
    ) -> tuple[Mapping[str, Observation], Mapping[str, Json | None]]:
        """Return what was seen of each service since the last `commit`, and the cursors to store with it."""
        services = world.catalog.services()
        fleets = world.catalog.fleets()
        by_fleet = {f.name: frozenset(s.name for s in services if f.name in s.fleets) for f in fleets}
        callers = {fleet.name for fleet in fleets if fleet.grpc}
        links: dict[str, Link] = {}
        clients: list[StreamView] = []
        for view in self._server.views():
            if view.node is None or view.group is None:
                continue
            if view.group in callers:
                clients.append(view)
            else:
                links[view.node.id] = Link(view.peer, by_fleet.get(view.group, frozenset()))
        versions = {service.name: set(service.versions) for service in services}
        observed, cursors = self._collector.observe(start, end, links, versions)
        reported = self._reports.observe(start, end, _by_node(clients, by_fleet), versions)
        return {
            name: merged(seen, reported[name]) if name in reported else seen
            for name, seen in observed.items()
        }, cursors

    def commit(self) -> None:
        """Say that the last observation was stored."""
        self._collector.commit()
        self._reports.commit()


def merged(one: Observation, other: Observation) -> Observation:
    """Return two observations of one service and interval, by different clients, as one."""
    return Observation(
        one.service,
        one.start,
        one.end,
        tuple(sorted((*one.cells, *other.cells), key=lambda item: item[0])),
        tuple(sorted((*one.fresh, *other.fresh))),
        tuple(sorted((*one.silent, *other.silent))),
        tuple(sorted((*one.partial, *other.partial))),
        tuple(sorted((*one.issued, *other.issued))),
        tuple(sorted((*one.unhealthy, *other.unhealthy))),
    )


def _by_node(views: Iterable[StreamView], by_fleet: Mapping[str, frozenset[str]]) -> dict[str, Client]:
    found: dict[str, Client] = {}
    for view in views:
        assert view.node is not None
        asked = view.of(LISTENER)
        services = by_fleet.get(view.group or "", frozenset()) & (asked.names if asked else frozenset())
        before = found.get(view.node.id, Client(frozenset(), frozenset()))
        found[view.node.id] = Client(before.origins | {origin(view.peer)}, before.services | services)
    return found
