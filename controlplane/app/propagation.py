"""Which proxies have acknowledged what a service should look like now. Pure: views and a snapshot in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from controlplane.policy.documents import Propagate
from controlplane.release.seen import Propagation
from controlplane.resources.names import group_first
from controlplane.xds.mixtures import alike
from controlplane.xds.snapshot import Resource, Snapshot
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE, SECRET, Ref
from controlplane.xds.version import Version
from controlplane.xds.view import Nack, StreamView, TypeView

CONFIGURED = (CLUSTER, ROUTE, LISTENER)  # a proxy that asks for none of these is not ours to wait for


@dataclass(frozen=True, slots=True)
class Relevant:
    """The resources that a service's traffic rests on, in one fleet.

    Of a resource that services share, the ``service``'s part counts.
    ``listener`` is the one that gRPC clients of the service ask for; None for proxies, which have them all.
    """

    service: str
    resources: tuple[tuple[str, Resource], ...]
    listener: str | None = None

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        service: str,
        clusters: Iterable[str],
        route: str,
        scopes: Iterable[str],
    ) -> Relevant:
        """Return a service's clusters and endpoints, its route and scopes, and the fleet's listeners.

        They are given by name: nothing here grows with the number of the fleet's services.
        """
        refs = [(type_url, name) for name in clusters for type_url in (CLUSTER, ENDPOINT)]
        refs += [(ROUTE, route), *((SCOPED_ROUTE, scope) for scope in scopes)]
        refs += [(type_url, name) for type_url in (SECRET, LISTENER) for name in snapshot.of(type_url)]
        found = ((type_url, snapshot.of(type_url).get(name)) for type_url, name in refs)
        known = ((type_url, resource) for type_url, resource in found if resource is not None)
        return cls(service, tuple(known))

    @classmethod
    def of_adopted(cls, snapshot: Snapshot, service: str) -> Relevant:
        """Return the service's clusters and endpoints, and all routes, for listeners of an owner."""
        mine = f"{service}~"
        named = (
            (type_url, resource)
            for type_url in (CLUSTER, ENDPOINT)
            for name, resource in snapshot.of(type_url).items()
            if name.startswith(mine)
        )
        routes = ((ROUTE, resource) for resource in snapshot.of(ROUTE).values())
        return cls(service, (*named, *routes))

    @classmethod
    def of_calls(cls, snapshot: Snapshot, service: str) -> Relevant:
        """Return the service's listener and route, and what they name, for a fleet of gRPC clients."""
        route = snapshot.of(ROUTE).get(service)
        if route is None:
            return cls(service, (), service)
        refs = ((LISTENER, service), (ROUTE, service), *sorted(route.needs))
        named = ((type_url, snapshot.of(type_url)[name]) for type_url, name in refs)
        return cls(service, tuple(named), service)


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal on a stream that is over, and the version that was its target then."""

    target: Version
    nack: Nack


Past = Mapping[str, Mapping[Ref, Refused]]  # by node id


def propagation(
    views: Iterable[StreamView],
    relevant: Relevant,
    limits: Propagate,
    past: Past = MappingProxyType({}),
) -> Propagation:
    """Return who has acknowledged the relevant resources and who refused one.

    ``views`` are those of one fleet. A proxy with several streams has acknowledged when all of
    them have. What it refused in the ``past`` it refuses until it has answered that anew.
    """
    behind: set[str] = set()
    live: set[str] = set()
    alone: set[str] = set()
    nacked: dict[str, str] = {}
    for view in views:
        if view.node is None or not any(view.of(type_url) for type_url in CONFIGURED):
            continue
        if relevant.listener is not None and not _asks(view, LISTENER, relevant.listener):
            continue
        proxy = view.node.id
        live.add(proxy)
        if view.alone:
            alone.add(proxy)
        if not _acked(view, relevant):
            behind.add(proxy)
        for refusal in (*refusals(view, relevant), *_before(past.get(proxy, {}), relevant, view)):
            nacked.setdefault(proxy, refusal)
    gone = ((proxy, *_before(found, relevant)) for proxy, found in past.items() if proxy not in live)
    return Propagation(
        live=tuple(sorted(live)),
        acked=tuple(sorted(live - behind)),
        nacked=tuple(sorted(nacked.items())),
        alone=tuple(sorted(alone)),
        refused=tuple(sorted((proxy, why[0]) for proxy, *why in gone if why)),
        at_least=limits.at_least,
        within=limits.within,
    )


def unacked(views: Iterable[StreamView]) -> Propagation:
    """Return who is there, and who is left alone, while nothing can have been acknowledged yet."""
    named = [(view.node.id, view) for view in views if view.node is not None]
    return Propagation(
        live=tuple(sorted({proxy for proxy, _ in named})),
        alone=tuple(sorted({proxy for proxy, view in named if view.alone})),
    )


def refusals(view: StreamView, relevant: Relevant | None = None) -> Iterator[str]:
    """Yield what a proxy refuses now, and why: all of it, or what is relevant."""
    names = None if relevant is None else {(type_url, r.name) for type_url, r in relevant.resources}
    for asked in view.types:
        for name, nack in asked.nacks.items():
            if relevant is not None and nack.owners and relevant.service not in nack.owners:
                continue
            if names is None or (asked.type_url, name) in names:
                yield _words(asked.type_url, name, nack)


def _words(type_url: str, name: str, nack: Nack) -> str:
    others = nack.owners - {group_first(name)}
    whose = f" (the part of {' or '.join(sorted(nack.owners))})" if others else ""
    return f"{type_url.rpartition('.')[2]} {name!r}{whose}: {nack.message}"


def _before(
    found: Mapping[Ref, Refused], relevant: Relevant, view: StreamView | None = None
) -> Iterator[str]:
    """Yield what was refused of what is relevant now, unless the present stream has answered it."""
    for type_url, resource in relevant.resources if found else ():
        ref = type_url, resource.name
        before = found.get(ref)
        if before is None or before.target != resource.version:
            continue
        if before.nack.owners and relevant.service not in before.nack.owners:
            continue
        if view is None or not answered(view, ref, resource.version):
            yield _words(type_url, resource.name, before.nack)


def answered(view: StreamView, ref: Ref, version: Version) -> bool:
    """Return whether a stream's client has accepted this version of a resource, or refuses one now."""
    asked = view.of(ref[0])
    return asked is not None and (asked.acked.get(ref[1]) == version or ref[1] in asked.nacks)


def _acked(view: StreamView, relevant: Relevant) -> bool:
    for type_url, resource in relevant.resources:
        asked = view.of(type_url)
        # A proxy fetches endpoints, routes and scopes only once something names them; what it never asks for
        # cannot be missing there, but routes and clusters it must have.
        # A gRPC client asks for all that its route names, and for nothing else.
        wanted = _asks(view, type_url, resource.name)
        if not wanted and (relevant.listener is not None or type_url in (ROUTE, CLUSTER)):
            return False
        if wanted and asked is not None and not _has(asked, resource, relevant.service):
            return False
    return True


def _has(asked: TypeView, resource: Resource, service: str) -> bool:
    """Return whether a proxy has accepted a resource, or one in which the service's part is the same."""
    if asked.acked.get(resource.name) == resource.version:
        return True
    accepted = asked.partial.get(resource.name)
    return accepted is not None and alike(accepted, resource, service)


def _asks(view: StreamView, type_url: str, name: str) -> bool:
    asked = view.of(type_url)
    return asked is not None and (asked.wildcard or name in asked.names)


def merge(parts: Iterable[Propagation]) -> Propagation:
    """Return the propagation over several fleets."""
    parts = tuple(parts)
    return Propagation(
        live=tuple(sorted({proxy for part in parts for proxy in part.live})),
        acked=tuple(sorted({proxy for part in parts for proxy in part.acked})),
        nacked=tuple(sorted({item for part in parts for item in part.nacked})),
        alone=tuple(sorted({proxy for part in parts for proxy in part.alone})),
        unserved=tuple(sorted({item for part in parts for item in part.unserved})),
        refused=tuple(sorted({item for part in parts for item in part.refused})),
        at_least=max((part.at_least for part in parts), default=1_000_000),
        within=min((part.within for part in parts), default=timedelta(seconds=30)),
    )
