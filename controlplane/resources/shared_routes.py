"""The parts of a route configuration: one for each service whose hosts it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from google.protobuf.message import Message

from controlplane.release.traffic import ServiceTraffic
from controlplane.resources.names import scope_name
from controlplane.xds.parts import Part, Parts
from controlplane.xds.snapshot import Resource
from controlplane.xds.type_urls import Ref

Compile = Callable[[Sequence[ServiceTraffic]], Message]
Needs = Callable[[ServiceTraffic], Iterable[Ref]]


def parts_of(
    services: Iterable[ServiceTraffic], compiled: Compile, needs: Needs, former: Resource | None
) -> Parts:
    """Return a part for each service; ``compiled`` makes a route configuration of several of them.

    A part of ``former`` that is made of the same is taken from there.
    """

    def join(parts: tuple[Part, ...]) -> bytes:
        return compiled([part.source for part in parts]).SerializeToString(deterministic=True)

    known = former.parts.of if former is not None and former.parts is not None else {}
    found = {}
    for each in services:
        part = known.get(each.service.name)
        found[each.service.name] = part if part and part.source is each else _part(each, needs)
    return Parts(found, join)


def _part(given: ServiceTraffic, needs: Needs) -> Part:
    least, name = None, given.service.name
    claims = frozenset((scope_name(claim.host), claim.path) for claim in given.service.routes)
    if given.canary is not None:
        # Whoever is without the canary is at the stable version.
        steady = given.at_rest()
        least = Part(name, frozenset(needs(steady)), steady, offers=claims)
    return Part(name, frozenset(needs(given)), given, least, claims)
