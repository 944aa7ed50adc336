"""Where observations come from: what proxies pushed, and what gRPC clients reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime

from controlplane.app.turns import in_turns
from controlplane.evidence.observation import Observation
from controlplane.evidence.observed import Observed
from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import EVERYONE, Service
from controlplane.policy.grpc_codes import CODES, MEASURE, OK
from controlplane.policy.stats import REPORTS, REPORTS_KEY
from controlplane.release.eras import era
from controlplane.release.ports import Json, World
from controlplane.release.state import ReleaseState
from controlplane.release.watch import whole
from controlplane.resources.statistics import HeaderMetric
from controlplane.server.streams import XdsServer
from controlplane.sources.collector import Collector, Link, origin
from controlplane.sources.lrs import Client, LoadReports
from controlplane.sources.prometheus import Prometheus, Query, filled
from controlplane.sources.pushed import Pushed
from controlplane.xds.type_urls import LISTENER
from controlplane.xds.view import StreamView


@dataclass(frozen=True, slots=True)
class _Documents:
    """What observations need of documents, as long as these are the same.

    Attributes:
        catalog: All of them.
        services: By name.
        versions: Names of the versions of each service.
        fleets: The services of each.
        callers: The fleets of gRPC clients.
    """

    catalog: Catalog
    services: Mapping[str, Service]
    versions: Mapping[str, AbstractSet[str]]
    fleets: Mapping[str, frozenset[str]]
    callers: AbstractSet[str]

    @classmethod
    def of(cls, catalog: Catalog) -> _Documents:
        services, fleets = catalog.services(), catalog.fleets()
        return cls(
            catalog,
            {service.name: service for service in services},
            {service.name: frozenset(service.versions) for service in services},
            {f.name: frozenset(s.name for s in services if f.name in s.fleets) for f in fleets},
            {fleet.name for fleet in fleets if fleet.grpc},
        )


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
        self._documents: _Documents | None = None

    async def observe(
        self, world: World, start: datetime, end: datetime
    ) -> tuple[Observed, Mapping[str, Json | None]]:
        """Return what was seen of each service since the last `commit`, and the cursors to store with it."""
        await in_turns(self._server.looking())
        of = self._of(world.catalog)
        links: dict[str, Link] = {}
        clients: list[StreamView] = []
        for view in self._server.views():
            if view.node is None or view.group is None:
                continue
            if view.group in of.callers:
                clients.append(view)
            else:
                reports = view.node.metadata.get(REPORTS_KEY, 0) == REPORTS
                links[view.node.id] = Link(view.peer, of.fleets.get(view.group, frozenset()), reports)
        callers = _by_node(clients, of.fleets)
        reported = await in_turns(self._reports.counting(start, end, callers, of.versions))
        self._prometheus.want(
            query for state in world.releases.values() if state.active for query in queries(state)
        )
        for service in of.services:
            self._pushed.begin(service, era(world.active.get(service)))
        readings, pushed = self._prometheus.take(), self._pushed.take()
        observed, cursors = await in_turns(self._collector.counting(start, end, links, of.versions))

        def whole(name: str, healthy: bool) -> Observation:
            seen = observed[name] if healthy else observed.counts(name)
            if name in reported:
                seen = merged(seen, reported.counts(name))
            seen = named(seen, of.services[name])
            measures = tuple(sorted((*seen.measures, *pushed.get(name, ()))))
            return replace(seen, measures=measures, readings=readings.get(name, ()))

        return Observed(of.services.keys(), observed.counted | reported.counted, whole), cursors

    def _of(self, catalog: Catalog) -> _Documents:
        if self._documents is None or self._documents.catalog is not catalog:
            self._documents = _Documents.of(catalog)
        return self._documents

    def commit(self) -> None:
        """Say that the last observation was stored."""
        self._collector.commit()
        self._reports.commit()
        self._prometheus.commit()
        self._pushed.commit()


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
    alike: dict[tuple[str | None, frozenset[str]], frozenset[str]] = {}  # many ask for the same
    for view in views:
        assert view.node is not None
        asked = view.of(LISTENER)
        which = view.group, asked.names if asked else frozenset()
        services = alike.get(which)
        if services is None:
            services = alike[which] = by_fleet.get(view.group or "", frozenset()) & which[1]
        origins, before = frozenset((origin(view.peer),)), found.get(view.node.id)
        if before is not None:
            origins, services = before.origins | origins, before.services | services
        found[view.node.id] = Client(origins, services)
    return found
