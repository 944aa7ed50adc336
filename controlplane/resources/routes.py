"""The routes of one service: splits in order, alternatives of each, identity sources of each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from controlplane._pb.core_pb2 import HeaderValue, HeaderValueOption, Metadata
from controlplane._pb.matcher_pb2 import RegexMatchAndSubstitute, RegexMatcher
from controlplane._pb.route_pb2 import Route, RouteAction, RouteMatch, WeightedCluster
from controlplane.policy.documents import ANONYMOUS, UserSource
from controlplane.release.traffic import BUCKETS, ServiceTraffic, Span, Split
from controlplane.resources.buckets import USER_COOKIE, sources, whole
from controlplane.resources.conditions import Conjunction, alternatives, identified, identity, unidentified
from controlplane.resources.names import ATTEMPTS, FRESH_USER_HEADER, METADATA, cluster_name

ROUTES_LIMIT = 1000  # of one service and path: each costs time in every request that it does not match

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
            found = alternatives(split.match)
        except ValueError as error:
            raise ValueError(
                f"service {traffic.service.name!r}, segment {split.segment!r}: {error}"
            ) from error
        for condition in found:
            routes += _alternative(traffic, split, path, condition)
    if len(routes) > ROUTES_LIMIT:
        raise ValueError(
            f"service {traffic.service.name!r}: its segments need {len(routes)} routes, at most "
            f"{ROUTES_LIMIT} are allowed; use fewer alternatives in segments, or fewer identity sources"
        )
    return tuple(routes)


def _alternative(traffic: ServiceTraffic, split: Split, path: str, condition: Conjunction) -> Iterator[Route]:
    """Yield routes that take all requests of one alternative: users first, then who has no identity."""
    match = RouteMatch(headers=condition)
    if path.endswith("/"):
        match.prefix = path
    else:
        match.path_separated_prefix = path
    draw = _clusters(traffic, split.canary)
    user = route_metadata(traffic, split.segment)
    anonymous = user if traffic.anonymous == "generate" else route_metadata(traffic, ANONYMOUS)
    found = sources(traffic)
    if whole(split) and not affine(traffic):
        if found and traffic.anonymous != "generate":
            yield _route(match, anonymous, _action(traffic, draw), tuple(map(unidentified, found)))
        named = user if found else anonymous
        yield _route(match, named, _action(traffic, draw))
        return
    for source in found:
        yield _route(
            match, user, _action(traffic, draw, _hash_policy(source, traffic.salt)), (identified(source),)
        )
    match traffic.anonymous:
        case "generate":
            fresh = _route(
                match, user, _action(traffic, draw, _salted(FRESH_USER_HEADER, _WHOLE, traffic.salt))
            )
            fresh.response_headers_to_add.append(_SET_COOKIE)
            yield fresh
        case "random":
            yield _route(match, anonymous, _action(traffic, draw))
        case _:
            yield _route(match, anonymous, _action(traffic, draw if whole(split) else _clusters(traffic, ())))


def _route(match: RouteMatch, metadata: Metadata, action: RouteAction, guards: Conjunction = ()) -> Route:
    route = Route(match=match, metadata=metadata, route=action)
    route.match.headers.extend(guards)
    return route


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


def _hash_policy(source: UserSource, salt: str) -> RouteAction.HashPolicy:
    """Return a policy that hashes ``salt + ":" + identity``; only header policies can be salted."""
    return _salted(*identity(source), salt)


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
