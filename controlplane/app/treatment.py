"""How the services of each fleet are treated, worked out again only where something changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.policy.documents import Fleet, Service
from controlplane.release.following import followed
from controlplane.release.ports import World
from controlplane.release.traffic import ServiceTraffic, identified, traffic


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found last, and in which world."""

    world: World
    traffics: Mapping[str, ServiceTraffic]


class Treatment:
    """The traffic of each fleet's services, by name; what is treated as before stays the same object."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def of(self, world: World, fleet: Fleet) -> Mapping[str, ServiceTraffic]:
        """Return how each of the fleet's services is treated in a world."""
        known = self._known.get(fleet.name)
        before = known.traffics if known is not None else {}
        if known is not None and known.world.catalog is world.catalog:
            changed = _differing(known.world, world).intersection(before)
            new = _treated(world, fleet, map(world.catalog.service, changed), before)
            traffics: Mapping[str, ServiceTraffic] = {**before, **new} if new else before
        else:
            mine = (service for service in world.catalog.services() if fleet.name in service.fleets)
            traffics = _treated(world, fleet, mine, before)
        self._known[fleet.name] = _Known(world, traffics)
        return traffics


def _differing(old: World, new: World) -> set[str]:
    """Return the services whose stable version or active release differs, or that of another of its group."""
    found = {name for name, stable in new.stable.items() if old.stable.get(name) != stable}
    found.update(old.stable.keys() - new.stable.keys())
    groups: set[str] = set()
    for name in old.active.keys() | new.active.keys():
        was, now = old.active.get(name), new.active.get(name)
        if was is not now:
            found.add(name)
            groups.update(state.group for state in (was, now) if state is not None and state.group)
    found.update(name for name, state in new.active.items() if state.group in groups)
    return found


def _treated(
    world: World, fleet: Fleet, services: Iterable[Service], before: Mapping[str, ServiceTraffic]
) -> dict[str, ServiceTraffic]:
    found = {}
    for service in services:
        name = service.name
        state = world.of_service(name)
        served = identified(service, state)
        new = traffic(
            served,
            world.stable.get(name, service.initial),
            state,
            world.catalog.anonymous(served),
            followed(world, service, fleet),
        )
        old = before.get(name)
        found[name] = old if old is not None and old == new else new
    return found
