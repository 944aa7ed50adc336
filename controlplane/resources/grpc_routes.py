"""The routes of one service for gRPC clients: shares by call, segments by metadata, a cluster per segment.

A client skips what it does not know, so only what it does is rendered: header matchers with a present value,
weights without a hash. Seen with grpcio 1.85: cookies, hash policies and ``treat_missing_header_as_empty``
are ignored. Clusters carry the segment in their names, because load reports count by cluster.

The timeout of a service is its calls' longest duration; a deadline of the caller's that comes first wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from controlplane._pb.route_pb2 import HeaderMatcher, Route, RouteAction, RouteMatch, WeightedCluster
from controlplane.policy.fitness import unmatchable
from controlplane.release.traffic import BUCKETS, ServiceTraffic, Split
from controlplane.resources.conditions import Conjunction, alternatives
from controlplane.resources.names import segment_cluster_name
from controlplane.resources.routes import ROUTES_LIMIT, route_metadata

# Clients of gRPC's C core take 1 to 2 seconds off `max_stream_duration`, the same in all calls of a process.
# Seen with grpcio 1.85, in 8 processes: 1.15 to 1.76 s; a call with 1.5 s ended at once.
EARLY: Final = timedelta(seconds=2)


def call_routes(traffic: ServiceTraffic) -> tuple[Route, ...]:
    """Return the routes for the calls of a service; the first match wins, and the last route matches all.

    Raises:
        ValueError: If a segment cannot be told from metadata, or needs too many routes.
    """
    routes = [
        Route(
            match=RouteMatch(prefix="/", headers=condition),
            route=_action(traffic, split),
            metadata=route_metadata(traffic, split.segment),
        )
        for split in traffic.splits
        for condition in _conditions(traffic, split)
    ]
    if len(routes) > ROUTES_LIMIT:
        raise ValueError(
            f"service {traffic.service.name!r}: its segments need {len(routes)} routes, at most "
            f"{ROUTES_LIMIT} are allowed; use fewer alternatives in segments"
        )
    return tuple(routes)


def shares(traffic: ServiceTraffic, split: Split) -> tuple[tuple[str, int], ...]:
    """Return the versions that take calls of a split, with their weights: canary first, none of 0."""
    weights = ((traffic.canary or traffic.stable, split.buckets), (traffic.stable, BUCKETS - split.buckets))
    return tuple((version, weight) for version, weight in weights if weight)


def _conditions(traffic: ServiceTraffic, split: Split) -> Iterator[Conjunction]:
    where = f"service {traffic.service.name!r}, segment {split.segment!r}"
    if split.match is not None and (part := unmatchable(split.match, "grpc")):
        raise ValueError(f"{where}: it chooses by {part}")
    try:
        found = alternatives(split.match)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    for conjunction in found:
        yield from product(*map(_spelled_out, conjunction))


def _spelled_out(matcher: HeaderMatcher) -> tuple[HeaderMatcher, ...]:
    """Return alternatives that say without ``treat_missing_header_as_empty`` what a matcher says with it."""
    if not matcher.treat_missing_header_as_empty:
        return (matcher,)
    plain = HeaderMatcher()
    plain.CopyFrom(matcher)
    plain.treat_missing_header_as_empty = False
    return HeaderMatcher(name=matcher.name, present_match=False), plain


def _action(traffic: ServiceTraffic, split: Split) -> RouteAction:
    action = RouteAction()
    if traffic.service.timeout:
        longest = Duration()
        longest.FromTimedelta(traffic.service.timeout + EARLY)
        action.max_stream_duration.max_stream_duration.CopyFrom(longest)
    action.weighted_clusters.clusters.extend(
        WeightedCluster.ClusterWeight(
            name=segment_cluster_name(traffic.service.name, version, split.segment),
            weight=UInt32Value(value=weight),
        )
        for version, weight in shares(traffic, split)
    )
    return action
