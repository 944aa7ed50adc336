"""Requests that another service of the group has decided: its side of the group's release is theirs here too.

A service tells its endpoints in a header which version of which service they are, and they pass it on with
the calls that they make. A service of the same group that is told in the same header follows it: who came by
the new version there gets the new one here, who came by the old one the old one, whatever its own shares are.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.policy.capabilities import Feature, ignored
from controlplane.policy.cohorts import ALL
from controlplane.policy.documents import FOLLOWED, Fleet, HeaderMatch, Match, Service
from controlplane.release.ports import World
from controlplane.release.splits import Split
from controlplane.release.state import Phase, ReleaseState


def told(service: str, version: str) -> str:
    """Return what endpoints are told: a version alone would not say whose; neither name has a ``=``."""
    return f"{service}={version}"


def followed(world: World, service: Service, fleet: Fleet) -> tuple[Split, ...]:
    """Return the splits of requests that are decided already, to stand before all others.

    They follow while both releases have traffic, and only to a canary that may have some: one that waits or
    goes back has none, and none leads to a version that has no endpoints. A request that is told both sides
    gets the old version.
    """
    header, state = service.version_header, world.of_service(service.name)
    if header is None or state is None or not _may_follow(service, state):
        return ()
    if all(ignored(kind, Feature.FOLLOW) for kind in fleet.kinds):
        return ()
    leads = sorted(_leads(world, state, header), key=lambda lead: lead.service)
    return (
        *(decided(header, told(lead.service, lead.from_version), canary=False) for lead in leads),
        *(decided(header, told(lead.service, lead.to_version), canary=True) for lead in leads),
    )


def _may_follow(service: Service, state: ReleaseState) -> bool:
    canary = service.versions.get(state.to_version)
    placed = canary is not None and canary.endpoints != ()
    return bool(state.group) and placed and state.phase in (Phase.PROGRESSING, Phase.GUARDING)


def _leads(world: World, state: ReleaseState, header: str) -> Iterator[ReleaseState]:
    """Yield the other releases of the group that have traffic, of services that tell it in this header."""
    for other in world.active.values():
        document = world.catalog.get("Service", other.service)
        same = (other.group, other.attempt) == (state.group, state.attempt)
        tells = isinstance(document, Service) and document.version_header == header
        if same and tells and other.service != state.service:
            yield other


def decided(header: str, value: str, *, canary: bool) -> Split:
    """Return the split of requests that say this in the header: all of them go to one version."""
    # No document may choose by a header of Turnout's own, which this one may be.
    found = HeaderMatch.model_construct(name=header, equals=value)
    return Split(FOLLOWED, Match(header=found), ALL if canary else ())
