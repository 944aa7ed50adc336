"""All resources of a fleet of gRPC clients, which ask for each service by its name: ``xds:///checkout``.

A listener, a route configuration and some clusters per service, and nothing that a proxy would need more. Of
clusters only those exist that routes name: nobody else would ask for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.wrappers_pb2 import UInt32Value

from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.core_pb2 import V3, ConfigSource, Locality, SelfConfigSource
from controlplane._pb.endpoint_pb2 import ClusterLoadAssignment
from controlplane._pb.hcm_pb2 import HttpConnectionManager, HttpFilter, Rds
from controlplane._pb.listener_pb2 import ApiListener, Listener
from controlplane._pb.route_pb2 import RouteConfiguration, VirtualHost
from controlplane._pb.router_pb2 import Router
from controlplane.policy.documents import Fleet
from controlplane.release.traffic import ServiceTraffic
from controlplane.resources.clusters import ADS, assignment
from controlplane.resources.grpc_routes import call_routes, shares
from controlplane.resources.making import Maker, Table
from controlplane.resources.names import segment_cluster_name
from controlplane.resources.readable import packed
from controlplane.resources.rendering import Rendering, Work, declared
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, Ref

ORDER: Final = (CLUSTER, ENDPOINT, ROUTE, LISTENER)

_SELF = ConfigSource(self=SelfConfigSource(), resource_api_version=V3)
_REGION = "turnout"  # a client skips endpoints without a locality


def render_calls(
    fleet: Fleet, services: Sequence[ServiceTraffic], revision: int, previous: Rendering | None = None
) -> Rendering:
    """Return the resources of ``fleet``; what did not change since ``previous`` is taken from there.

    Raises:
        ValueError: If something cannot be rendered; the message names it and what to change.
    """
    work = Work.of(fleet, services, previous)
    by_name, old = work.services, work.old
    make = Maker(revision, previous.snapshot if previous else Snapshot(revision, {}))
    before = old.services if old else {}
    tables = {type_url: dict(old.snapshot.of(type_url)) if old else {} for type_url in ORDER}
    for name in (*work.changed, *work.gone):
        if old is not None and name in before:
            for type_url, table in _former(old.snapshot, name).items():
                for stale in table:
                    del tables[type_url][stale]
    for name in work.changed:
        for type_url, table in _service(make, by_name[name]).items():
            tables[type_url].update(table)
    resources = {type_url: make.table(type_url, table) for type_url, table in tables.items()}
    if old is not None and before.keys() == by_name.keys():
        groups, home = old.groups, old.home
    else:
        groups, home = {name: (name,) for name in sorted(by_name)}, {name: name for name in by_name}
    return Rendering(Snapshot(revision, resources, ORDER), fleet, by_name, groups, home)


def _former(snapshot: Snapshot, name: str) -> Mapping[str, Table]:
    route = snapshot.of(ROUTE)[name]
    found: dict[str, dict[str, Resource]] = {ROUTE: {name: route}, CLUSTER: {}, ENDPOINT: {}}
    for type_url, needed in route.needs:
        found[type_url][needed] = snapshot.of(type_url)[needed]
    return {**found, LISTENER: {name: snapshot.of(LISTENER)[name]}}


def _service(make: Maker, traffic: ServiceTraffic) -> Mapping[str, Table]:
    service = traffic.service.name
    clusters: dict[str, Resource] = {}
    endpoints: dict[str, Resource] = {}
    for split in traffic.splits:
        for version, _ in shares(traffic, split):
            name = segment_cluster_name(service, version, split.segment)
            members = _members(traffic, version)
            clusters[name] = make(CLUSTER, name, _cluster(name))
            if members is not None:
                endpoints[name] = make(
                    ENDPOINT, name, _placed(name, members), follows=(CLUSTER, name), hollow=not members
                )
    host = VirtualHost(name=service, domains=["*"], routes=call_routes(traffic))
    parts = ((CLUSTER, clusters), (ENDPOINT, endpoints))
    needs: frozenset[Ref] = frozenset((kind, name) for kind, table in parts for name in table)
    route = make(ROUTE, service, RouteConfiguration(name=service, virtual_hosts=[host]), needs)
    listener = make(LISTENER, service, _listener(service), frozenset({(ROUTE, service)}))
    return {
        CLUSTER: clusters,
        ENDPOINT: endpoints,
        LISTENER: {service: listener},
        ROUTE: {service: route},
    }


def _members(traffic: ServiceTraffic, version: str) -> list[tuple[str, int]] | None:
    """Return the addresses of a version; None while those of its name are not known.

    Then there is no assignment, so that clients keep the addresses that they have. Without that, a restart
    of ours during an outage of DNS would take them away.
    """
    members = declared(traffic.service, version).endpoints
    if members is None:
        found = traffic.resolved.get(version)
        return None if found is None else [(address, 1) for address in found]
    return [(member.address, 1) for member in members]


def _cluster(name: str) -> Cluster:
    return Cluster(
        name=name,
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=ADS),
        lb_policy=Cluster.ROUND_ROBIN,
        lrs_server=_SELF,
    )


def _placed(name: str, members: Sequence[tuple[str, int]]) -> ClusterLoadAssignment:
    message = assignment(name, members)
    for place in message.endpoints:
        place.locality.CopyFrom(Locality(region=_REGION))
        place.load_balancing_weight.CopyFrom(UInt32Value(value=1))
    return message


def _listener(service: str) -> Listener:
    manager = HttpConnectionManager(
        rds=Rds(config_source=ADS, route_config_name=service),
        http_filters=[HttpFilter(name="envoy.filters.http.router", typed_config=packed(Router()))],
    )
    return Listener(name=service, api_listener=ApiListener(api_listener=packed(manager)))
