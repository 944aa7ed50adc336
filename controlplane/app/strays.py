"""Proxies that had a service and are not of its fleets any more, while they are connected. Pure.

An edited Fleet or Service takes proxies out of a fleet. What they have they go on serving, until they have
replaced it by what their new fleet has; a proxy of no fleet does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace

from controlplane.app.membership import Member, member
from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Service
from controlplane.policy.values import listed
from controlplane.release.ports import World
from controlplane.release.seen import Propagation
from controlplane.resources.names import cluster_version
from controlplane.xds.type_urls import CLUSTER, ENDPOINT
from controlplane.xds.view import StreamView


@dataclass(frozen=True, slots=True)
class Had:
    """The proxies that may serve a release of a service, and why one is held without an answer."""

    proxies: Set[str]
    problem: Callable[[StreamView], str]


def elsewhere(found: Propagation, views: Iterable[StreamView], service: str, had: Had) -> Propagation:
    """Return a propagation with those that had the service; ``views`` are of none of its fleets."""
    unserved, left = dict(found.unserved), set[str]()
    for view in views:
        if view.node is None or view.node.id not in had.proxies:
            continue
        proxy = view.node.id
        if view.group is None:
            unserved.setdefault(proxy, had.problem(view))
        elif _replaced(view, service):
            left.add(proxy)
        else:
            now = f"is of fleet {view.group!r} now, and has not replaced {service!r} yet"
            unserved.setdefault(proxy, now)
    if unserved.keys() == dict(found.unserved).keys() and not left:
        return found
    gone = tuple(sorted(left - unserved.keys() - {*found.live}))
    return replace(found, unserved=tuple(sorted(unserved.items())), left=gone)


def _replaced(view: StreamView, service: str) -> bool:
    """Return whether a proxy has all of another fleet, and no cluster of the service any more."""
    clusters = view.of(CLUSTER)
    if view.behind or view.alone or clusters is None or not (clusters.acked or clusters.acked_at):
        return False
    if any(each.waiting_since is not None or each.gated or each.nacks for each in view.types):
        return False
    names = (name for url in (CLUSTER, ENDPOINT) if (each := view.of(url)) is not None for name in each.acked)
    return all((known := cluster_version(name)) is None or known[0] != service for name in names)


def leaving(views: Iterable[StreamView], world: World, after: Catalog) -> Iterator[str]:
    """Yield a warning for each fleet out of which documents take proxies while a release runs there.

    Who comes into another fleet of the release's service gets what that one says at once, so nothing is lost.

    Args:
        views: The streams as they are, before the documents are taken in.
        world: As it is.
        after: What the documents will say.
    """
    fleets = after.fleets()
    if fleets == world.catalog.fleets():
        return
    leave: dict[str, dict[str, Member]] = {}
    for view in views:
        if view.node is None or view.group is None:
            continue
        place = member(view.node, fleets)
        if place.group != view.group:
            leave.setdefault(view.group, {})[view.node.id] = place
    for fleet, proxies in sorted(leave.items()):
        running, without = set[str](), dict[str, str]()
        for state in world.active.values():
            if fleet not in _fleets_of(world.catalog, state.service):
                continue
            having = _fleets_of(after, state.service)
            lost = {n: _why(place) for n, place in proxies.items() if place.group not in having}
            if lost:
                running.add(state.name)
                without |= lost
        if running:
            yield _warning(fleet, without, sorted(running))


def _fleets_of(catalog: Catalog, service: str) -> tuple[str, ...]:
    document = catalog.get("Service", service)
    return document.fleets if isinstance(document, Service) else ()


def _why(place: Member) -> str:
    return place.problem or f"is of fleet {place.group!r} then"


def _warning(fleet: str, proxies: dict[str, str], running: list[str]) -> str:
    names = sorted(proxies)
    are = "is connected and leaves" if len(names) == 1 else "are connected and leave"
    what = f"release{'s' if len(running) > 1 else ''} {', '.join(running)}"
    return (
        f"Fleet {fleet!r}: {listed(names)} {are} it ({proxies[names[0]]}), and {what} in progress there:"
        " what a proxy has it goes on serving, also after a rollback, until a fleet has it again or it stops"
    )
