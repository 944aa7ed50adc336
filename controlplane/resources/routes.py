"""The routes of one service: splits in order, alternatives of each, identity sources of each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from controlplane._pb.core_pb2 import HeaderValue, HeaderValueOption, Metadata
from controlplane._pb.matcher_pb2 import RegexMatchAndSubstitute, RegexMatcher
from controlplane._pb.route_pb2 import HeaderMatcher, Route, RouteAction, RouteMatch, WeightedCluster
from controlplane.policy.documents import FOLLOWED, UserSource
from controlplane.policy.segments import lists
from controlplane.release.traffic import BUCKETS, ServiceTraffic, Span, Split
from controlplane.resources.buckets import USER_COOKIE, counted, sources, whole
from controlplane.resources.conditions import Conjunction, alternatives, identified, identity, unidentified
from controlplane.resources.mirroring import mirrored
from controlplane.resources.names import ATTEMPTS, FRESH_USER_HEADER, METADATA, cluster_name

ROUTES_LIMIT = 2000  # of one service and path: each costs time in every request that it does not match

_WHOLE = "^(.*)$"
_COOKIE_LIFE = timedelta(days=365) // timedelta(seconds=1)
_SET_COOKIE = HeaderValueOption(
    header=HeaderValue(
        key="set-cookie",
        value=f"{USER_COOKIE}=%REQ({FRESH_USER_HEADER})%; Path=/; Max-Age={_COOKIE_LIFE}"
        "; SameSite=Lax; HttpOnly",
    )
)


def service_routes(traffic: ServiceTraffic, path: str) -> tuple[Route, ...]:
    """Return the routes for requests below ``path``; the first match wins, and the last route matches all.

    Raises:
        ValueError: If the splits cannot be rendered, with what to change.
    """
    if traffic.canary is None and any(split.canary for split in traffic.splits):
        raise ValueError(f"service {traffic.service.name!r}: a split has buckets, but there is no canary")
    routes: list[Route] = []
    for split in traffic.splits:
        try:
            for route in _split(traffic, split, path):
                routes += (*mirrored(traffic, route), route)
        except ValueError as error:
            raise ValueError(
                f"service {traffic.service.name!r}, segment {split.segment!r}: {error}"
            ) from error
    if len(routes) > ROUTES_LIMIT:
        raise ValueError(
            f"service {traffic.service.name!r}: its segments need {len(routes)} routes, at most "
            f"{ROUTES_LIMIT} are allowed; use fewer alternatives in segments, or fewer identity sources"
        )
    return tuple(routes)


def _split(traffic: ServiceTraffic, split: Split, path: str) -> Iterator[Route]:
    """Yield the routes of a split, whose requests all meet one of them."""
    if split.match is None or not lists(split.match):
        for condition in alternatives(split.match):
            yield from _alternative(traffic, split, _below(path, condition))
        return
    # Who is listed depends on what names the user: the first source that does, and no other.
    found = sources(traffic)
    for place, source in enumerate(found):
        guards = (*map(unidentified, found[:place]), identified(source))
        for condition in alternatives(split.match, source=source):
            yield _users(traffic, split, _below(path, (*condition, *guards)), source)
    for condition in alternatives(split.match):
        yield _others(traffic, split, _below(path, (*condition, *map(unidentified, found))))


def _below(path: str, condition: Conjunction) -> RouteMatch:
    match = RouteMatch(headers=condition)
    if path.endswith("/"):
        match.prefix = path
    else:
        match.path_separated_prefix = path
    return match


def _alternative(traffic: ServiceTraffic, split: Split, match: RouteMatch) -> Iterator[Route]:
    """Yield routes that take all requests of one alternative: users first, then who has no identity."""
    found = sources(traffic)
    if not whole(split) or affine(traffic):
        for source in found:
            yield _users(traffic, split, _guarded(match, identified(source)), source)
        yield _others(traffic, split, match)
    elif not found or split.segment == FOLLOWED:
        yield _others(traffic, split, match)
    else:
        if traffic.anonymous != "generate":
            yield _others(traffic, split, _guarded(match, *map(unidentified, found)))
        yield _users(traffic, split, match, None)


def _guarded(match: RouteMatch, *guards: HeaderMatcher) -> RouteMatch:
    found = RouteMatch()
    found.CopyFrom(match)
    found.headers.extend(guards)
    return found


def _users(traffic: ServiceTraffic, split: Split, match: RouteMatch, source: UserSource | None) -> Route:
    """Return a route for users that the source names; it may be None if their bucket does not matter."""
    policy = None if source is None else _salted(*identity(source), traffic.salt)
    action = _action(traffic, _clusters(traffic, split.canary), policy)
    return Route(match=match, metadata=route_metadata(traffic, split.segment), route=action)


def _others(traffic: ServiceTraffic, split: Split, match: RouteMatch) -> Route:
    """Return a route for requests without identity."""
    if traffic.anonymous == "generate":
        policy = _salted(FRESH_USER_HEADER, _WHOLE, traffic.salt)
        action = _action(traffic, _clusters(traffic, split.canary), policy)
        route = Route(match=match, metadata=route_metadata(traffic, split.segment), route=action)
        if not whole(split) or affine(traffic):
            route.response_headers_to_add.append(_SET_COOKIE)
        return route
    drawn = 0 if traffic.anonymous == "baseline" and split.drawn < BUCKETS else split.drawn
    spans = split.canary if drawn == split.buckets else ((0, drawn),)
    action = _action(traffic, _clusters(traffic, spans))
    return Route(match=match, metadata=route_metadata(traffic, counted(split, user=False)), route=action)


def _clusters(traffic: ServiceTraffic, spans: tuple[Span, ...]) -> list[tuple[str, int]]:
    """Return clusters and weights in the order of buckets; the weights add up to BUCKETS."""
    stable = cluster_name(traffic.service.name, traffic.stable)
    canary = cluster_name(traffic.service.name, traffic.canary or traffic.stable)
    entries: list[tuple[str, int]] = []
    at = 0
    for start, end in spans:
        entries += [(stable, start - at), (canary, end - start)]
        at = end
    entries.append((stable, BUCKETS - at))
    return [entry for entry in entries if entry[1]]


def _action(
    traffic: ServiceTraffic, draw: list[tuple[str, int]], policy: RouteAction.HashPolicy | None = None
) -> RouteAction:
    timeout = Duration()
    timeout.FromTimedelta(traffic.service.timeout)
    action = RouteAction(timeout=timeout)
    if len(draw) == 1:
        action.cluster = draw[0][0]
        if policy is not None and affine(traffic):
            action.hash_policy.append(policy)
        return action
    for name, weight in draw:
        action.weighted_clusters.clusters.append(
            WeightedCluster.ClusterWeight(name=name, weight=UInt32Value(value=weight))
        )
    if policy is not None:
        action.weighted_clusters.use_hash_policy.CopyFrom(BoolValue(value=True))
        action.hash_policy.append(policy)
    return action


def affine(traffic: ServiceTraffic) -> bool:
    """Return whether a user's bucket matters even where all go to one version: it chooses the endpoint."""
    return traffic.service.balance == "ring_hash"


def _salted(header: str, pattern: str, salt: str) -> RouteAction.HashPolicy:
    rewrite = RegexMatchAndSubstitute(
        pattern=RegexMatcher(regex=pattern), substitution=salt.replace("\\", "\\\\") + ":\\1"
    )
    return RouteAction.HashPolicy(
        header=RouteAction.HashPolicy.Header(header_name=header, regex_rewrite=rewrite), terminal=True
    )


def route_metadata(traffic: ServiceTraffic, segment: str) -> Metadata:
    """Return what a route says of itself: service, release, segment."""
    fields = Struct()
    fields.update({"release": traffic.release or "", "segment": segment, "service": traffic.service.name})
    if traffic.service.retries is not None:
        fields.update({ATTEMPTS: True})
    return Metadata(filter_metadata={METADATA: fields})
