"""The publisher: reads the store, renders, pushes. It decides nothing."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from datetime import datetime

import structlog

from controlplane.app.propagation import Relevant, merge, propagation, refusals
from controlplane.evidence.observation import Observation
from controlplane.policy.documents import Fleet, Service
from controlplane.release.decide import Propagation
from controlplane.release.ports import Json, Store, World
from controlplane.release.traffic import ServiceTraffic, traffic
from controlplane.resources.rendering import Rendering, render
from controlplane.server.streams import XdsServer
from controlplane.sources.collector import Collector, Link
from controlplane.xds.messages import Node
from controlplane.xds.view import StreamView

log = structlog.get_logger()


class Publisher:
    """Keeps each fleet's snapshot equal to what the store says, and knows who has it.

    Attributes:
        revision: Store revision of what is published; 0 before anything is.
        problems: Services that cannot be rendered, with the reason; what they had stays in force.
    """

    def __init__(self, store: Store) -> None:
        self.server = XdsServer(self._group_of, identifier="turnout")
        self.revision = 0
        self.problems: dict[str, str] = {}
        self._store = store
        self._fleets: tuple[Fleet, ...] = ()
        self._renderings: dict[str, Rendering] = {}

    def listens(self, prefix: str) -> bool:
        """Return whether statistics of this prefix come from a listener of ours."""
        return any(listener.name == prefix for fleet in self._fleets for listener in fleet.listeners)

    async def run(self) -> None:
        """Publish after each change of the store, until cancelled."""
        async for world in self._store.changes():
            self.publish(world)

    def publish(self, world: World) -> None:
        """Render what changed and hand it to the streams."""
        problems: dict[str, str] = {}
        for fleet in world.catalog.fleets():
            rendering, wrong = _rendered(world, fleet, self._renderings.get(fleet.name))
            problems |= wrong
            if rendering is not None:
                self._renderings[fleet.name] = rendering
                self.server.publish(fleet.name, rendering.snapshot)
        for service, why in problems.items():
            if self.problems.get(service) != why:
                log.error("service not rendered, its last good routes stay", service=service, error=why)
        self.problems = problems
        if world.catalog.fleets() != self._fleets:
            self._fleets = world.catalog.fleets()
            self.server.regroup()
        self.revision = world.revision

    def unrenderable(self, world: World) -> dict[str, str]:
        """Return the services of a world that could not be rendered, with the reason; publishes nothing."""
        found: dict[str, str] = {}
        for fleet in world.catalog.fleets():
            found |= _rendered(world, fleet, self._renderings.get(fleet.name))[1]
        return found

    def propagation(self, world: World, service: str) -> Propagation:
        """Return who has what the service should look like in a world."""
        document = world.catalog.get("Service", service)
        if not isinstance(document, Service):
            return Propagation()
        views = self.server.views()
        parts = []
        for name in document.fleets:
            if service in self.problems:
                refusal = ("turnout", f"to render it: {self.problems[service]}")
                parts.append(Propagation(nacked=(refusal,)))
                continue
            snapshot = self.server.snapshot(name)
            mine = [view for view in views if view.group == name]
            if snapshot is None or self.revision < world.revision:
                # Not published yet: whatever the proxies acknowledged, it was something older.
                parts.append(Propagation(live=tuple(sorted({v.node.id for v in mine if v.node}))))
                continue
            parts.append(
                propagation(mine, Relevant.of(snapshot, service), world.catalog.fleet(name).propagate)
            )
        return merge(parts)

    def refused(self, view: StreamView) -> tuple[str, ...]:
        """Return all that a proxy refuses now, with its words."""
        return tuple(refusals(view))

    def _group_of(self, node: Node) -> str | None:
        return next((fleet.name for fleet in self._fleets if belongs(node, fleet)), None)


def _rendered(world: World, fleet: Fleet, last: Rendering | None) -> tuple[Rendering | None, dict[str, str]]:
    """Render a fleet; services that cannot be are left as they were, and named with the reason."""
    wanted = traffics(world, fleet)
    try:
        return render(fleet, wanted, world.revision, last), {}
    except ValueError:
        pass
    # One at a time, each on top of what is known to work: only the culprits stay behind.
    names = {each.service.name for each in wanted}
    good = {name: known for name, known in (last.services if last else {}).items() if name in names}
    problems = {}
    for each in wanted:
        trial = {**good, each.service.name: each}
        try:
            last = render(fleet, tuple(trial.values()), world.revision, last)
            good = trial
        except ValueError as error:
            problems[each.service.name] = str(error)
    return last, problems


def belongs(node: Node, fleet: Fleet) -> bool:
    """Return whether a node is one of the fleet's: every condition that is given holds."""
    by_id = fleet.nodes.id is None or fnmatch.fnmatchcase(node.id, fleet.nodes.id)
    return by_id and fleet.nodes.cluster in (None, node.cluster)


def traffics(world: World, fleet: Fleet) -> list[ServiceTraffic]:
    """Return how each of the fleet's services is treated now."""
    return [
        traffic(
            service,
            world.stable.get(service.name, service.initial),
            world.of_service(service.name),
            world.catalog.anonymous(service),
        )
        for service in world.catalog.services()
        if fleet.name in service.fleets
    ]


class EnvoyStatistics:
    """Observations from what the connected proxies pushed."""

    def __init__(self, server: XdsServer, collector: Collector) -> None:
        self._server = server
        self._collector = collector

    def observe(
        self, world: World, start: datetime, end: datetime
    ) -> tuple[Mapping[str, Observation], Mapping[str, Json | None]]:
        """Return what was seen of each service since the last `commit`, and the cursors to store with it."""
        services = world.catalog.services()
        by_fleet = {
            fleet.name: frozenset(s.name for s in services if fleet.name in s.fleets)
            for fleet in world.catalog.fleets()
        }
        links = {
            view.node.id: Link(view.peer, by_fleet.get(view.group, frozenset()))
            for view in self._server.views()
            if view.node is not None and view.group is not None
        }
        return self._collector.observe(start, end, links, {s.name: set(s.versions) for s in services})

    def commit(self) -> None:
        """Say that the last observation was stored."""
        self._collector.commit()
