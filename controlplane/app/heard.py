"""What proxies last said of the endpoints of services, where it is said of those that documents have now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from controlplane.evidence.observation import Observation
from controlplane.policy.catalog import Catalog
from controlplane.release.health import alive
from controlplane.release.traffic import Endpoints

Places = Mapping[str, tuple[str, ...]]


class Heard:
    """Keeps the last observations, and since when each version has the endpoints that it has.

    Of endpoints that have just changed proxies say something only after a while: until then what they said of
    the ones before keeps nobody from going back. Growth waits for it all the same.
    """

    def __init__(self, settle: timedelta) -> None:
        """Believe what is said of endpoints that are older than ``settle``."""
        self._settle = settle.total_seconds()
        self._observed: Mapping[str, Observation] = {}
        self._catalog: Catalog | None = None
        self._places: Mapping[str, Places] = {}
        self._changed: dict[tuple[str, str], float] = {}

    def take(
        self,
        observed: Mapping[str, Observation],
        catalog: Catalog,
        places: Callable[[str], Places],
        monotonic: float,
    ) -> None:
        """Take what a tick saw, and the places that it saw it of."""
        self._observed = observed
        if catalog is not self._catalog:
            found = {service.name: places(service.name) for service in catalog.services()}
            for service, now in found.items():
                before = self._places.get(service, now)
                changed = (version for version in now if now[version] != before.get(version))
                self._changed |= dict.fromkeys(((service, version) for version in changed), monotonic)
            self._catalog, self._places = catalog, found
        old = [key for key, at in self._changed.items() if monotonic - at >= self._settle]
        for key in old:
            del self._changed[key]

    def of(self, service: str, where: Endpoints, growing: str = "") -> Observation | None:
        """Return the last observation of a service, without what is said of endpoints that are gone."""
        seen, known = self._observed.get(service), self._places.get(service, {})
        moved = {
            version
            for version, there in where.places.items()
            if version != growing and ((service, version) in self._changed or known.get(version) != there)
        }
        if seen is None or not moved:
            return seen
        return replace(seen, healthy=tuple(row for row in seen.healthy if row[1] not in moved))

    def alive(self, service: str, where: Endpoints, growing: str = "") -> Endpoints:
        """Return the endpoints of a service that can take requests; see `release.health`."""
        return alive(where, self.of(service, where, growing), growing)
