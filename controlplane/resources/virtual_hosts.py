"""The virtual hosts of a route configuration: the claims of several services, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from controlplane._pb.route_pb2 import RouteConfiguration
from controlplane.policy.documents import Claim
from controlplane.policy.overrides import merge
from controlplane.release.traffic import ServiceTraffic
from controlplane.resources.handling import handle
from controlplane.resources.names import SCOPE_HEADER, SOURCE_HEADER
from controlplane.resources.routes import service_routes


def route_configuration(name: str, traffics: Sequence[ServiceTraffic]) -> RouteConfiguration:
    """Return one virtual host per different set of claims, so that hosts that are treated alike are one."""
    claims: dict[str, dict[str, tuple[ServiceTraffic, Claim]]] = {}
    for traffic in traffics:
        for claim in traffic.service.routes:
            other, _ = claims.setdefault(claim.host, {}).setdefault(claim.path, (traffic, claim))
            if other is not traffic:
                first, second = other.service.name, traffic.service.name
                raise ValueError(f"services {first!r} and {second!r} both claim {claim.host}{claim.path}")
    message = RouteConfiguration(name=name, request_headers_to_remove=[SCOPE_HEADER, SOURCE_HEADER])
    for hosts in _alike(claims):
        virtual_host = message.virtual_hosts.add(name=hosts[0], domains=hosts)
        if raw := _raw_virtual_host(hosts[0], [traffic for traffic, _ in claims[hosts[0]].values()]):
            merge(virtual_host, "virtual_host", raw)
        for path in sorted(claims[hosts[0]], key=lambda path: (-len(path), path)):
            traffic, claim = claims[hosts[0]][path]
            for route in service_routes(traffic, path):
                handle(route.route, traffic.service, claim)
                if traffic.service.envoy.route:
                    merge(route, "route", traffic.service.envoy.route)
                virtual_host.routes.append(route)
    return message


def _alike(claims: Mapping[str, Mapping[str, tuple[ServiceTraffic, Claim]]]) -> Iterable[list[str]]:
    """Return hosts, sorted, those of the same claims together."""
    if len(claims) == 1:
        return [list(claims)]
    alike: dict[tuple[tuple[str, Claim], ...], list[str]] = {}
    for host in sorted(claims):
        found = [claims[host][path] for path in sorted(claims[host])]
        key = tuple((t.service.name, claim.model_copy(update={"host": ""})) for t, claim in found)
        alike.setdefault(key, []).append(host)
    return alike.values()


def _raw_virtual_host(host: str, traffics: Sequence[ServiceTraffic]) -> str | None:
    """Return the raw fields of a virtual host; of the services that share it, one may have some."""
    given = {t.service.name: t.service.envoy.virtual_host for t in traffics if t.service.envoy.virtual_host}
    if len(set(given.values())) > 1:
        raise ValueError(
            f"services {' and '.join(sorted(given))} share host {host}, with other raw fields each"
        )
    return next(iter(given.values()), None)
