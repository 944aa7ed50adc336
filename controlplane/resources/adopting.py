"""All resources of a fleet whose listeners are their owner's: clusters, endpoints, and routes for each.

The owner's listener counts nothing for us. So each version has a cluster for each segment, and what Envoy
counts of a cluster is what is known of the requests: ``sources/envoy.py`` reads it by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from controlplane._pb.route_pb2 import Route, RouteConfiguration
from controlplane.policy.documents import ANONYMOUS, EVERYONE, Fleet
from controlplane.release.traffic import ServiceTraffic
from controlplane.resources.clusters import cluster, placed
from controlplane.resources.making import Maker
from controlplane.resources.names import (
    METADATA,
    in_segment,
    segment_cluster,
    segment_cluster_name,
    stat_name,
)
from controlplane.resources.rendering import Rendering, Work, check_clusters, declared
from controlplane.resources.shared_routes import parts_of
from controlplane.resources.virtual_hosts import route_configuration
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE, Ref

ORDER: Final = (CLUSTER, ENDPOINT, ROUTE)


def render_adopted(
    fleet: Fleet, services: Sequence[ServiceTraffic], revision: int, previous: Rendering | None = None
) -> Rendering:
    """Return the resources of ``fleet``; what did not change since ``previous`` keeps its version.

    Raises:
        ValueError: If something cannot be rendered; the message names it and what to change.
    """
    work = Work.of(fleet, services, previous)
    by_name, old = work.services, work.old
    if old is not None and not work.changed and not work.gone:
        return replace(old, snapshot=Snapshot(revision, old.snapshot.resources, ORDER))
    make = Maker(revision, previous.snapshot if previous else Snapshot(revision, {}))
    tables: dict[str, dict[str, Resource]] = {type_url: {} for type_url in ORDER}
    for name in sorted(by_name):
        for type_url, resource in _clusters(make, by_name[name]):
            tables[type_url][resource.name] = resource
    check_clusters(fleet, len(tables[CLUSTER]))
    for listener in fleet.listeners:
        tables[ROUTE][listener.name] = _route(
            make, listener.name, [by_name[name] for name in sorted(by_name)]
        )
    resources = {type_url: make.table(type_url, table) for type_url, table in tables.items()}
    home = dict.fromkeys(by_name, fleet.listeners[0].name)
    groups = {listener.name: tuple(sorted(by_name)) for listener in fleet.listeners}
    return Rendering(Snapshot(revision, resources, ORDER), fleet, by_name, groups, home)


def _clusters(make: Maker, traffic: ServiceTraffic) -> Iterator[tuple[str, Resource]]:
    """Yield the clusters and endpoints of the versions in use: all to which requests may have to go back."""
    service = traffic.service
    segments = dict.fromkeys((*(split.segment for split in traffic.splits), EVERYONE, ANONYMOUS))
    for version in dict.fromkeys((traffic.stable, traffic.canary or traffic.stable)):
        document = declared(service, version)
        for segment in segments:
            name = segment_cluster_name(service.name, version, segment)
            message = cluster(service, version)
            message.name = name
            if document.dns is not None:
                message.load_assignment.cluster_name = name
            if "." in name:
                message.alt_stat_name = stat_name(name)
            yield CLUSTER, make(CLUSTER, name, message)
            if (members := document.endpoints) is not None:
                endpoints = placed(name, members)
                yield ENDPOINT, make(ENDPOINT, name, endpoints, follows=(CLUSTER, name), hollow=not members)


def _route(make: Maker, name: str, traffics: Sequence[ServiceTraffic]) -> Resource:
    compiled = partial(_routes, name)
    parts = parts_of(traffics, compiled, partial(_needs, name), make.former.of(ROUTE).get(name))
    needs = frozenset(ref for part in parts.of.values() for ref in part.needs)
    return make(ROUTE, name, compiled(traffics), needs, parts=parts)


def _routes(name: str, traffics: Sequence[ServiceTraffic]) -> RouteConfiguration:
    message = route_configuration(name, traffics)
    message.ignore_port_in_host_matching = True  # the owner's listener may leave it there
    for host in message.virtual_hosts:
        for route in host.routes:
            _separate(route)
    return message


def _separate(route: Route) -> None:
    """Lead a route to the clusters of its segment."""
    segment = route.metadata.filter_metadata[METADATA].fields["segment"].string_value
    weighted = route.route.weighted_clusters.clusters
    for each in weighted:
        each.name = in_segment(each.name, segment)
    if not weighted:
        route.route.cluster = in_segment(route.route.cluster, segment)


def _needs(name: str, traffic: ServiceTraffic) -> Iterator[Ref]:
    """Yield the clusters that a service's routes name, and their endpoints."""
    message = _routes(name, [traffic])
    actions = [route.route for host in message.virtual_hosts for route in host.routes]
    names = {action.cluster for action in actions if action.cluster}
    names |= {to.name for action in actions for to in action.weighted_clusters.clusters}
    for each in names:
        yield CLUSTER, each
        found = segment_cluster(each)
        if found is not None and traffic.service.versions[found[1]].endpoints is not None:
            yield ENDPOINT, each
