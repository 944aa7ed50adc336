"""Where observations come from: what proxies pushed, and what gRPC clients reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from controlplane.evidence.observation import Observation
from controlplane.policy.documents import EVERYONE, Service
from controlplane.policy.grpc_codes import CODES, MEASURE, OK
from controlplane.policy.stats import REPORTS, REPORTS_KEY
from controlplane.release.ports import Json, World
from controlplane.release.state import ReleaseState, Stage
from controlplane.release.watch import whole
from controlplane.resources.statistics import HeaderMetric
from controlplane.server.streams import XdsServer
from controlplane.sources.collector import Collector, Link, origin
from controlplane.sources.lrs import Client, LoadReports
from controlplane.sources.prometheus import Prometheus, Query, filled
from controlplane.sources.pushed import Pushed
from controlplane.xds.type_urls import LISTENER
from controlplane.xds.view import StreamView


class StreamStatistics:
    """Observations of all clients with an ADS stream, each by the way of its kind."""

    def __init__(
        self,
        server: XdsServer,
        collector: Collector,
        reports: LoadReports,
        prometheus: Prometheus | None = None,
        pushed: Pushed | None = None,
    ) -> None:
        self._server = server
        self._collector = collector
        self._reports = reports
        self._prometheus = prometheus or Prometheus(None)
        self._pushed = pushed or Pushed()

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
                reports = view.node.metadata.get(REPORTS_KEY, 0) == REPORTS
                links[view.node.id] = Link(view.peer, by_fleet.get(view.group, frozenset()), reports)
        versions = {service.name: set(service.versions) for service in services}
        observed, cursors = self._collector.observe(start, end, links, versions)
        reported = self._reports.observe(start, end, _by_node(clients, by_fleet), versions)
        self._prometheus.want(
            query for state in world.releases.values() if state.active for query in queries(state)
        )
        for service in services:
            self._pushed.begin(service.name, era(world.active.get(service.name)))
        readings, pushed = self._prometheus.take(), self._pushed.take()
        found = {}
        for service in services:
            seen = observed[service.name]
            if service.name in reported:
                seen = merged(seen, reported[service.name])
            seen = named(seen, service)
            measures = tuple(sorted((*seen.measures, *pushed.get(service.name, ()))))
            found[service.name] = replace(seen, measures=measures, readings=readings.get(service.name, ()))
        return found, cursors

    def commit(self) -> None:
        """Say that the last observation was stored."""
        self._collector.commit()
        self._reports.commit()
        self._prometheus.commit()
        self._pushed.commit()


def era(state: ReleaseState | None) -> str:
    """Return within what a user counts once: while nobody changes versions."""
    if state is None:
        return ""
    return f"{state.key}/{state.phase}/{state.step}/{state.stage is Stage.PROPAGATE}"


def queries(state: ReleaseState) -> Iterator[Query]:
    """Yield what a release asks Prometheus at its present step."""
    step = state.current
    places = {
        "service": state.service,
        "baseline": state.from_version,
        "segment": step.segment if step else EVERYONE,
    }
    for condition in (*state.policy.conditions, *(step.conditions if step else ())):
        if (wanted := condition.prometheus) is not None:
            canary = filled(wanted.query, places | {"version": state.to_version})
            baseline = filled(wanted.query, places | {"version": state.from_version})
            every = wanted.every.total_seconds()
            # What both break is no fault of the canary: a limit asks about the baseline too, where it can.
            asked = baseline if "$version" in wanted.query else ""
            compared = wanted.against is not None and not whole(state)
            yield Query(state.service, wanted.name, canary, asked, every, compared)


def named(seen: Observation, service: Service) -> Observation:
    """Return the observation with measures by the service's names of them, not by their headers.

    Counts by gRPC status have the same name everywhere.
    """
    codes = range(OK, len(CODES) + 1) if service.protocol == "grpc" else ()
    names: dict[str, list[str]] = {(name := f"{MEASURE}{code}"): [name] for code in codes}
    for name, metric in service.metrics.items():
        if metric.header is not None:
            names.setdefault(HeaderMetric(metric.header, metric.sum).series, []).append(name)
    found = (replace(m, metric=name) for m in seen.measures for name in names.get(m.metric, ()))
    return replace(seen, measures=tuple(sorted(found))) if seen.measures else seen


def merged(one: Observation, other: Observation) -> Observation:
    """Return two observations of one service and interval, by different clients, as one."""
    return replace(
        one,
        cells=tuple(sorted((*one.cells, *other.cells), key=lambda item: item[0])),
        fresh=tuple(sorted((*one.fresh, *other.fresh))),
        silent=tuple(sorted((*one.silent, *other.silent))),
        partial=tuple(sorted((*one.partial, *other.partial))),
        issued=tuple(sorted((*one.issued, *other.issued))),
        healthy=tuple(sorted((*one.healthy, *other.healthy))),
        measures=tuple(sorted((*one.measures, *other.measures))),
        stats=tuple(sorted((*one.stats, *other.stats))),
        reporting=tuple(sorted((*one.reporting, *other.reporting))),
        readings=(*one.readings, *other.readings),
        late=tuple(sorted((*one.late, *other.late))),
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
