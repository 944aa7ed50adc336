"""Where the versions of services answer: what documents say, and the addresses of names that we resolve."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Service
from controlplane.policy.fitness import places
from controlplane.release.ports import World
from controlplane.release.traffic import Endpoints, Resolved, ServiceTraffic, endpoints
from controlplane.sources.dns import Resolver


class Whereabouts:
    """Follows the names of services on grpc fleets; those of others are resolved by their proxies."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._catalog: Catalog | None = None
        self._names: Mapping[str, Mapping[str, str]] = {}  # service -> version -> name

    def follow(self, catalog: Catalog) -> None:
        """Take the names of these documents, and drop all others."""
        if catalog is self._catalog:
            return
        self._catalog = catalog
        called = ((service, _names(service)) for service in catalog.services())
        self._names = {s.name: names for s, names in called if names and _resolved_here(s, catalog)}
        self._resolver.want(name for names in self._names.values() for name in names.values())

    def changes(self) -> AsyncIterator[None]:
        """Yield after addresses changed, for one reader."""
        return self._resolver.changes()

    def located(self, traffics: Mapping[str, ServiceTraffic]) -> Mapping[str, ServiceTraffic]:
        """Return the traffics with the addresses of their names, as far as they are known."""
        found = {
            service: replace(traffics[service], resolved=self._addresses(names))
            for service, names in self._names.items()
            if service in traffics
        }
        return {**traffics, **found} if found else traffics

    def endpoints(self, world: World, service: str) -> Endpoints:
        """Return where each version of a service answers."""
        document = world.catalog.get("Service", service)
        if not isinstance(document, Service):
            return Endpoints()
        here = _resolved_here(document, world.catalog)
        return endpoints(document, self._resolver.answers if here else None)

    def problems(self) -> tuple[str, ...]:
        """Return which names are not resolved now, and why."""
        return tuple(
            f"service {service}: version {version}: {name!r} is not resolved: {answer.problem}"
            + (f"; its last addresses stay: {', '.join(answer.addresses)}" if answer.addresses else "")
            for service, names in self._names.items()
            for version, name in sorted(names.items())
            if (answer := self._resolver.answers.get(name, Resolved())).problem
        )

    def _addresses(self, names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        answers = self._resolver.answers
        known = {version: answers.get(name, Resolved()).addresses for version, name in names.items()}
        return {version: addresses for version, addresses in known.items() if addresses}


def _names(service: Service) -> dict[str, str]:
    return {name: version.dns for name, version in service.versions.items() if version.dns is not None}


def _resolved_here(service: Service, catalog: Catalog) -> bool:
    return any(kind == "grpc" for _, _, kind in places(service, catalog.get))
