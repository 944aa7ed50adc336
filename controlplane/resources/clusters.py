"""Clusters and their endpoints: one of each per service and version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.core_pb2 import (
    V3,
    Address,
    AggregatedConfigSource,
    ConfigSource,
    Locality,
    SocketAddress,
)
from controlplane._pb.endpoint_pb2 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from controlplane.policy.documents import Endpoint as Member
from controlplane.policy.documents import Service
from controlplane.policy.overrides import merge
from controlplane.resources.names import cluster_name, mirror_cluster_name
from controlplane.resources.upstreams import treat

BUFFER_BYTES = 1 << 20  # per connection
_CONNECT_TIMEOUT = Duration(seconds=2)

ADS = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=V3)


def cluster(service: Service, version: str, *, copies: bool = False) -> Cluster:
    """Return the cluster of one version: endpoints over ADS, or a DNS name that Envoy resolves."""
    name, declared = cluster_name(service.name, version), service.versions[version]
    message = Cluster(
        name=name,
        connect_timeout=_CONNECT_TIMEOUT,
        per_connection_buffer_limit_bytes=UInt32Value(value=BUFFER_BYTES),
    )
    treat(message, service, version, copies)
    if service.envoy.cluster:
        merge(message, "cluster", service.envoy.cluster)
    if declared.dns is None:
        if any(member.zone for member in declared.endpoints or ()):
            message.common_lb_config.locality_weighted_lb_config.SetInParent()
        message.type = Cluster.EDS
        message.eds_cluster_config.eds_config.CopyFrom(ADS)
        return message
    message.type = Cluster.STRICT_DNS
    message.dns_lookup_family = Cluster.V4_PREFERRED
    message.respect_dns_ttl = True
    message.load_assignment.CopyFrom(assignment(name, [(declared.dns, 1)]))
    return message


def mirror_cluster(service: Service, version: str) -> Cluster:
    """Return the cluster that gets copies of requests: as the version's own, without checks of its own."""
    message, name = cluster(service, version, copies=True), mirror_cluster_name(service.name, version)
    message.name = name
    del message.health_checks[:]
    message.ClearField("ignore_health_on_host_removal")
    message.ClearField("outlier_detection")
    if message.HasField("load_assignment"):
        message.load_assignment.cluster_name = name
    return message


def placed(name: str, members: Sequence[Member]) -> ClusterLoadAssignment:
    """Return the endpoints of a cluster; where zones are given, each has a share by weight."""
    if not any(member.zone for member in members):
        return assignment(name, [(member.address, member.weight) for member in members])
    message = ClusterLoadAssignment(cluster_name=name)
    for zone in sorted({member.zone or "" for member in members}):
        inside = [(m.address, m.weight) for m in members if (m.zone or "") == zone]
        place = message.endpoints.add(locality=Locality(zone=zone), lb_endpoints=_endpoints(inside))
        place.load_balancing_weight.value = sum(weight for _, weight in inside)
    return message


def assignment(name: str, members: Iterable[tuple[str, int]]) -> ClusterLoadAssignment:
    """Return the endpoints of a cluster, from addresses and weights; none at all is an assignment too."""
    endpoints = _endpoints(members)
    places = [LocalityLbEndpoints(lb_endpoints=endpoints)] if endpoints else []
    return ClusterLoadAssignment(cluster_name=name, endpoints=places)


def _endpoints(members: Iterable[tuple[str, int]]) -> list[LbEndpoint]:
    return [
        LbEndpoint(
            endpoint=Endpoint(address=socket(address)), load_balancing_weight=UInt32Value(value=weight)
        )
        for address, weight in members
    ]


def socket(address: str) -> Address:
    """Return ``'10.0.0.1:8080'`` or ``'[::1]:8080'`` as a message."""
    host, _, port = address.rpartition(":")
    return Address(socket_address=SocketAddress(address=host.strip("[]"), port_value=int(port)))
