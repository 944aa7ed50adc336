"""All resources of a fleet, and the memory that keeps a small change small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.route_pb2 import RouteConfiguration, ScopedRouteConfiguration
from controlplane.policy.documents import Fleet, Service, ServiceVersion
from controlplane.release.traffic import ServiceTraffic
from controlplane.resources.clusters import cluster, mirror_cluster, placed
from controlplane.resources.hosts import groups, scope_values
from controlplane.resources.listeners import Demands, listener, secret
from controlplane.resources.making import Maker, Table, body_hash
from controlplane.resources.names import (
    PASSTHROUGH,
    SCOPE_NONE,
    anchor_name,
    cluster_name,
    mirror_cluster_name,
    scope_name,
)
from controlplane.resources.shared_routes import parts_of
from controlplane.resources.statistics import check_series, header_metrics, series
from controlplane.resources.transparent import passthrough, passthrough_hosts, passthrough_route
from controlplane.resources.virtual_hosts import route_configuration
from controlplane.xds.messages import MAX_NAMES
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.type_urls import (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    PUSH_ORDER,
    ROUTE,
    SCOPED_ROUTE,
    SECRET,
    Ref,
)


@dataclass(frozen=True, slots=True)
class Rendering:
    """A snapshot with the inputs that it was rendered from.

    Attributes:
        snapshot: What the fleet's proxies should have.
        fleet: Its document.
        services: Inputs by service name.
        groups: Services that share hosts, by name of their route configuration.
        home: Name of the route configuration, by service.
        series: How many counters the services need.
    """

    snapshot: Snapshot
    fleet: Fleet = field(repr=False)
    services: Mapping[str, ServiceTraffic] = field(repr=False)
    groups: Mapping[str, tuple[str, ...]] = field(repr=False)
    home: Mapping[str, str] = field(repr=False)
    series: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to render.

    Attributes:
        services: All of the fleet, by name.
        old: The rendering to go on from; None if the fleet's document is another.
        changed: Names of services that were not there or are treated otherwise.
        gone: Names of services that are there no more.
    """

    services: Mapping[str, ServiceTraffic]
    old: Rendering | None
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    @classmethod
    def of(cls, fleet: Fleet, services: Sequence[ServiceTraffic], previous: Rendering | None) -> Work:
        """Compare with what was rendered before.

        Raises:
            ValueError: If a service is given twice.
        """
        by_name = {traffic.service.name: traffic for traffic in services}
        if len(by_name) != len(services):
            raise ValueError(f"fleet {fleet.name!r}: a service is given twice")
        old = previous if previous is not None and previous.fleet == fleet else None
        before = old.services if old else {}
        changed = (n for n, new in by_name.items() if (was := before.get(n)) is not new and was != new)
        return cls(by_name, old, tuple(changed), tuple(before.keys() - by_name.keys()))

    @property
    def stale(self) -> list[ServiceTraffic]:
        """What changed or is gone, as it was rendered."""
        before = self.old.services if self.old else {}
        return [before[name] for name in (*self.changed, *self.gone) if name in before]


def render(
    fleet: Fleet, services: Sequence[ServiceTraffic], revision: int, previous: Rendering | None = None
) -> Rendering:
    """Return the resources of ``fleet``.

    What did not change since ``previous`` is taken from there: a service whose traffic is the same is not
    rendered again, and a resource with the same content stays the same object, with its version. What is new
    or changed gets ``revision``, the store revision of the inputs.

    Raises:
        ValueError: If something cannot be rendered; the message names it and what to change.
    """
    work = Work.of(fleet, services, previous)
    by_name, old, changed, gone = work.services, work.old, work.changed, work.gone
    before = old.services if old else {}
    if old is not None and not changed and not gone:
        return replace(old, snapshot=Snapshot(revision, old.snapshot.resources, PUSH_ORDER))
    count = (old.series if old else 0) - series(work.stale) + series(by_name[name] for name in changed)
    check_series(count, len(header_metrics(traffic.service for traffic in services)))
    moved = bool(gone) or any(
        name not in before or _asked(before[name].service) != _asked(by_name[name].service)
        for name in changed
    )
    make = Maker(revision, previous.snapshot if previous else Snapshot(revision, {}))
    resources = _clusters(make, work)
    check_clusters(fleet, len(resources[CLUSTER]))
    if old is None and fleet.transparent:
        resources[CLUSTER] = {**resources[CLUSTER], PASSTHROUGH: make(CLUSTER, PASSTHROUGH, passthrough())}
    if old is not None and not moved:
        grouped, home = old.groups, old.home
        resources |= _rerouted(make, by_name, changed, old)
    else:
        grouped = groups({n: _hosts(t) for n, t in by_name.items()})
        home = {member: name for name, members in grouped.items() for member in members}
        resources |= _routes(make, fleet, grouped, by_name, old)
        resources |= _listeners(make, fleet, grouped, by_name)
    return Rendering(Snapshot(revision, resources, PUSH_ORDER), fleet, by_name, grouped, home, count)


def renewed(
    made: Rendering, services: Mapping[str, ServiceTraffic], revision: int, previous: Rendering | None
) -> Rendering:
    """Return what `render` and the like would, from what they ``made`` of the same at another revision."""
    make = Maker(revision, previous.snapshot if previous else Snapshot(revision, {}))
    resources = {
        type_url: make.table(type_url, {name: make.kept(type_url, each) for name, each in table.items()})
        for type_url, table in made.snapshot.resources.items()
    }
    return replace(made, snapshot=Snapshot(revision, resources, made.snapshot.order), services=services)


def check_clusters(fleet: Fleet, count: int) -> None:
    """Raise ValueError if a proxy would ask for the endpoints of more clusters than a message may name."""
    if count > MAX_NAMES:
        raise ValueError(
            f"fleet {fleet.name!r} would have {count} clusters (services x versions), at most {MAX_NAMES} "
            "are allowed; remove versions that nobody needs, or split the fleet"
        )


def declared(service: Service, version: str) -> ServiceVersion:
    """Return what a service declares of a version that is in use.

    Raises:
        ValueError: If it declares no such version.
    """
    found = service.versions.get(version)
    if found is None:
        known = ", ".join(sorted(service.versions))
        text = f"version {version!r} is in use, but it is not declared; known: {known}"
        raise ValueError(f"service {service.name!r}: {text}")
    return found


def _asked(service: Service) -> tuple[object, ...]:
    """Return what listeners and scopes depend on."""
    return service.routes, Demands.of(service)


def _hosts(traffic: ServiceTraffic) -> tuple[str, ...]:
    return tuple(dict.fromkeys(claim.host for claim in traffic.service.routes))


def _versions(traffic: ServiceTraffic) -> list[str]:
    """Return the versions that have a cluster."""
    return sorted({traffic.stable, *traffic.warm} | ({traffic.canary} if traffic.canary else set()))


# --- clusters and endpoints -------------------------------------------------------------------------------


def _clusters(make: Maker, work: Work) -> dict[str, Table]:
    old = work.old.snapshot if work.old else Snapshot(0, {})
    clusters, endpoints = dict(old.of(CLUSTER)), dict(old.of(ENDPOINT))
    for traffic in work.stale:
        for name, _, _ in _clusters_of(traffic):
            del clusters[name]
            endpoints.pop(name, None)
    for traffic in (work.services[name] for name in work.changed):
        for name, version, compiled in _clusters_of(traffic):
            members = declared(traffic.service, version).endpoints
            clusters[name] = make(CLUSTER, name, compiled(traffic.service, version))
            if members is not None:
                endpoints[name] = make(
                    ENDPOINT, name, placed(name, members), follows=(CLUSTER, name), hollow=not members
                )
    return {CLUSTER: make.table(CLUSTER, clusters), ENDPOINT: make.table(ENDPOINT, endpoints)}


def _clusters_of(traffic: ServiceTraffic) -> Iterator[tuple[str, str, Callable[[Service, str], Cluster]]]:
    """Yield the name of each cluster of a service, its version, and what makes it."""
    service, canary = traffic.service.name, traffic.canary
    for version in _versions(traffic):
        yield cluster_name(service, version), version, cluster
    if traffic.copies is not None and canary is not None:
        yield mirror_cluster_name(service, canary), canary, mirror_cluster


# --- routes and scopes ------------------------------------------------------------------------------------


def _routes(
    make: Maker,
    fleet: Fleet,
    grouped: Mapping[str, tuple[str, ...]],
    services: Mapping[str, ServiceTraffic],
    old: Rendering | None,
) -> dict[str, Table]:
    routes: dict[str, Resource] = {}
    scopes: dict[str, Resource] = {}
    for name, members in grouped.items():
        if (
            old
            and old.groups.get(name) == members
            and all(old.services.get(member) == services[member] for member in members)
        ):
            routes[name] = old.snapshot.of(ROUTE)[name]
        else:
            routes[name] = _route(make, fleet, name, [services[member] for member in members])
        hosts = {host for member in members for host in _hosts(services[member])}
        scopes |= _scopes(make, name, hosts)
    if fleet.transparent:
        needs = frozenset({(CLUSTER, PASSTHROUGH)})
        routes[SCOPE_NONE] = make(ROUTE, SCOPE_NONE, passthrough_hosts(), needs)
        scopes |= _scopes(make, SCOPE_NONE, (SCOPE_NONE,))
    return {SCOPED_ROUTE: make.table(SCOPED_ROUTE, scopes), ROUTE: make.table(ROUTE, routes)}


def _rerouted(
    make: Maker, services: Mapping[str, ServiceTraffic], changed: Sequence[str], old: Rendering
) -> dict[str, Table]:
    """Render the routes of changed services; hosts, and so scopes and listeners, stay."""
    routes = dict(old.snapshot.of(ROUTE))
    for name in {old.home[service] for service in changed}:
        routes[name] = _route(make, old.fleet, name, [services[member] for member in old.groups[name]])
    kept = {type_url: old.snapshot.of(type_url) for type_url in (SCOPED_ROUTE, SECRET, LISTENER)}
    return {**kept, ROUTE: make.table(ROUTE, routes)}


def _route(make: Maker, fleet: Fleet, name: str, traffics: Sequence[ServiceTraffic]) -> Resource:
    compiled = partial(_routes_of, fleet, name)
    parts = parts_of(traffics, compiled, _needs, make.former.of(ROUTE).get(name))
    needs = {ref for part in parts.of.values() for ref in part.needs}
    if fleet.transparent:
        needs.add((CLUSTER, PASSTHROUGH))
    return make(ROUTE, name, compiled(traffics), frozenset(needs), parts=parts)


def _routes_of(fleet: Fleet, name: str, traffics: Sequence[ServiceTraffic]) -> RouteConfiguration:
    message = route_configuration(name, traffics)
    if fleet.transparent:
        for host in message.virtual_hosts:
            host.routes.append(passthrough_route())  # paths that no service claims
    return message


def route_hash(fleet: Fleet, name: str, traffics: Sequence[ServiceTraffic]) -> str:
    """Return the hash in the version of a route configuration, as it would be for services of one group."""
    return body_hash(_routes_of(fleet, name, traffics).SerializeToString(deterministic=True))


def _needs(traffic: ServiceTraffic) -> Iterator[Ref]:
    """Yield the clusters that routes name, and their endpoints."""
    service, canary = traffic.service, traffic.canary
    named = [(cluster_name(service.name, traffic.stable), traffic.stable)]
    if canary is not None and any(split.canary for split in traffic.splits):
        named.append((cluster_name(service.name, canary), canary))
    if canary is not None and traffic.copies is not None:
        named.append((mirror_cluster_name(service.name, canary), canary))
    for name, version in named:
        yield CLUSTER, name
        if service.versions[version].endpoints is not None:
            yield ENDPOINT, name


def _scopes(make: Maker, group: str, hosts: Iterable[str]) -> dict[str, Resource]:
    """Return a scope for each host, and the anchor: a proxy has the routes by it before hosts move there."""
    anchor, route = anchor_name(group), (ROUTE, group)
    needs = frozenset({(SCOPED_ROUTE, anchor), route})
    names = sorted(map(scope_name, hosts))
    found = {name: make(SCOPED_ROUTE, name, _scope(name, group), needs) for name in names}
    found[anchor] = make(SCOPED_ROUTE, anchor, _scope(anchor, group), frozenset({route}))
    return found


def _scope(name: str, group: str) -> ScopedRouteConfiguration:
    key = ScopedRouteConfiguration.Key(fragments=[ScopedRouteConfiguration.Key.Fragment(string_key=name)])
    return ScopedRouteConfiguration(name=name, route_configuration_name=group, key=key)


# --- listeners --------------------------------------------------------------------------------------------


def _listeners(
    make: Maker,
    fleet: Fleet,
    grouped: Mapping[str, tuple[str, ...]],
    services: Mapping[str, ServiceTraffic],
) -> dict[str, Table]:
    scopes = {host: scope_name(host) for traffic in services.values() for host in _hosts(traffic)}
    # The scope of a host is the host: who shares it with whom is none of a listener's business.
    values = scope_values(scopes)
    # New hosts come with their routes, and old routes stay until no listener leads to them.
    none = (SCOPE_NONE,) if fleet.transparent else ()
    needs = frozenset(
        [(SCOPED_ROUTE, scope) for scope in (*scopes.values(), *none)]
        + [(ROUTE, group) for group in (*grouped, *none)]
    )
    demands = Demands.of(*(traffic.service for traffic in services.values()))
    demands = replace(demands, tokens=fleet.tokens)
    return {
        SECRET: {
            document.name: make(SECRET, document.name, secret(document.name, document.tls))
            for document in fleet.listeners
            if document.tls is not None
        },
        LISTENER: {
            document.name: make(LISTENER, document.name, listener(document, values, demands), needs)
            for document in fleet.listeners
        },
    }
