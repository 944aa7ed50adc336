"""What proxies should do with the requests of each service: the input of the resource compiler.

Shares are ranges of user buckets; a user's bucket is ``xxh64(salt + ":" + identity, seed 0) % BUCKETS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from controlplane.policy.cohorts import BUCKETS, Span
from controlplane.policy.documents import EVERYONE, Match, Service
from controlplane.policy.pinned import PinnedPolicy
from controlplane.release.splits import Split, in_force, splits
from controlplane.release.state import Phase, ReleaseState

__all__ = [
    "BUCKETS",
    "Endpoints",
    "Resolved",
    "ServiceTraffic",
    "Span",
    "Split",
    "endpoints",
    "identified",
    "in_force",
    "splits",
    "traffic",
]


@dataclass(frozen=True, slots=True)
class Copies:
    """Requests of which the canary gets copies: those that match (None: all), in parts per million."""

    match: Match | None
    share: int


@dataclass(frozen=True, slots=True)
class ServiceTraffic:
    """One service as proxies should treat it.

    Attributes:
        service: The document: claims, identity sources, versions with endpoints, timeout.
        stable: The version of the baseline.
        canary: The version that is being released, or None; it stays warm (has a cluster) even at share 0.
        release: Name of the release, or None.
        salt: Salt of the user hash, one per release group.
        splits: First match wins; the last has ``match=None``. Largest share first.
        anonymous: What happens to requests without identity where a split is neither none nor all.
        warm: Versions that keep a cluster without being stable or canary.
        resolved: Addresses of versions that are names, for clients that do not resolve them themselves; a
            version that is not there has none that are known.
        copies: What is mirrored to the canary, or None.
    """

    service: Service
    stable: str
    canary: str | None
    release: str | None
    salt: str
    splits: tuple[Split, ...]
    anonymous: Literal["generate", "random", "baseline"]
    warm: tuple[str, ...] = ()
    resolved: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    copies: Copies | None = None

    def at_rest(self) -> ServiceTraffic:
        """Return the service as it is without a release: the stable version serves everyone."""
        rest = traffic(self.service, self.stable, None, self.anonymous)
        return replace(rest, resolved=self.resolved)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What is known of a name: its last good addresses, and why it has no newer ones; '' if it has."""

    addresses: tuple[str, ...] = ()
    problem: str = ""


def identified(service: Service, release: ReleaseState | None) -> Service:
    """Return a service by which users are who they were when its release was ordered, until that has ended.

    By another identity they would move. A release of before that was kept goes by the document.
    """
    if release is None or not release.active or release.policy.user is None:
        return service
    return service.model_copy(update={"user": release.policy.user})


def traffic(
    service: Service,
    stable: str,
    release: ReleaseState | None,
    anonymous: Literal["generate", "random", "baseline"],
    followed: tuple[Split, ...] = (),
) -> ServiceTraffic:
    """Return how a service is treated now: ``release`` is the one in progress, or None.

    ``followed`` are the splits of requests that other releases of its group have decided.

    Every declared version keeps its cluster, so that a rollback or a switch is one route change.
    """
    live = release if release is not None and release.active else None
    canary = live.to_version if live else None
    step = live.step if live and live.phase in (Phase.PROGRESSING, Phase.GUARDING) else -1
    return ServiceTraffic(
        service=service,
        stable=stable,
        canary=canary,
        release=live.name if live else None,
        salt=live.salt if live else service.name,
        splits=(*followed, *splits(live.policy, step)) if live else (Split(EVERYONE, None, ()),),
        anonymous=anonymous,
        warm=tuple(sorted(set(service.versions) - {stable, canary})),
        copies=_copies(live.policy, step) if live else None,
    )


def _copies(policy: PinnedPolicy, step: int) -> Copies | None:
    """Return what is mirrored at a step, and at no other."""
    mirror = policy.steps[step].mirror if 0 <= step < len(policy.steps) else None
    return Copies(mirror.match, mirror.share) if mirror else None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the versions of a service answer.

    Attributes:
        places: By version: addresses, or a name, behind which addresses come and go.
        missing: Why a version has none, as the end of that sentence, where there is more to say.
        hosts: How many endpoints of a version answer, where more is known of that than its places; None where
            the place is a name of which nothing is known.
    """

    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, int | None] = field(default_factory=dict)

    def there(self, version: str) -> tuple[str, ...]:
        """Return the places of a version; empty if it may be given no requests."""
        return self.places.get(version, ())

    def count(self, version: str) -> int | None:
        """Return how many endpoints a version has, None if that is not known."""
        return self.hosts.get(version, len(self.there(version))) if self.there(version) else 0

    def lack(self, version: str) -> str:
        """Say that a version has no endpoints, or that the service does not have it."""
        if version not in self.places and version not in self.missing:
            return "is not declared any more"
        return f"has no endpoints{self.missing.get(version, '')}"


def endpoints(service: Service, names: Mapping[str, Resolved] | None = None) -> Endpoints:
    """Return where each version answers.

    ``names`` has what is known of names, where we resolve them: one without an address is nowhere.
    """
    places: dict[str, tuple[str, ...]] = {}
    missing: dict[str, str] = {}
    hosts: dict[str, int | None] = {}
    for name, version in service.versions.items():
        places[name] = tuple(endpoint.address for endpoint in version.endpoints or ())
        if version.dns is None:
            continue
        known = None if names is None else names.get(version.dns, Resolved())
        if known is None or known.addresses:
            places[name] = (version.dns,)
            hosts[name] = None if known is None else len(known.addresses)
        else:
            why = known.problem or "it was not looked up yet"
            missing[name] = f": {version.dns!r} is not resolved: {why}"
    return Endpoints(places, missing, hosts)
