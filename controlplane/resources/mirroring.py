"""Copies of requests for the canary: routes that do as others do, and mirror besides."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane._pb.core_pb2 import RuntimeFractionalPercent
from controlplane._pb.route_pb2 import HeaderMatcher, Route, RouteAction
from controlplane._pb.type_pb2 import FractionalPercent
from controlplane.release.traffic import ServiceTraffic
from controlplane.resources.conditions import alternatives
from controlplane.resources.names import cluster_name, mirror_cluster_name

# What is sent twice must change nothing: the canary works on the data of the baseline's users.
_SAFE = HeaderMatcher(name=":method")
_SAFE.string_match.safe_regex.regex = "GET|HEAD|OPTIONS"


def mirrored(traffic: ServiceTraffic, route: Route) -> Iterator[Route]:
    """Yield routes to stand before ``route``: for those of its requests that are mirrored.

    Where all go to the canary anyway there are none.

    Raises:
        ValueError: If the segment cannot be rendered, with what to change.
    """
    service, canary, copies = traffic.service.name, traffic.canary, traffic.copies
    if copies is None or canary is None or route.route.cluster == cluster_name(service, canary):
        return
    try:
        found = alternatives(copies.match)
    except ValueError as error:
        raise ValueError(f"service {service!r}, mirror: {error}") from error
    fraction = FractionalPercent(numerator=copies.share, denominator=FractionalPercent.MILLION)
    policy = RouteAction.RequestMirrorPolicy(
        cluster=mirror_cluster_name(service, canary),
        runtime_fraction=RuntimeFractionalPercent(default_value=fraction),
        disable_shadow_host_suffix_append=True,  # servers choose by host; a header tells a copy
    )
    for condition in found:
        twin = Route()
        twin.CopyFrom(route)
        twin.match.headers.extend((*condition, _SAFE))
        twin.route.request_mirror_policies.append(policy)
        yield twin
