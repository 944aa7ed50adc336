"""A store in place of one that was lost: what proxies have from that one, and what an operator says of it.

Resources that a proxy has from another store, and that differ from ours, put the services that they belong to
in question; until each of them is adopted, the proxy is left alone. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from controlplane.app.ordering import service_named
from controlplane.app.records import record_of
from controlplane.app.switching import end, undone
from controlplane.policy.values import listed
from controlplane.release.ports import Change, Record, World
from controlplane.release.state import RETURNING, Phase, ReleaseState
from controlplane.release.traffic import Endpoints, traffic
from controlplane.resources.names import SCOPE_NONE, anchored, cluster_version, group_first
from controlplane.resources.rendering import Rendering, route_hash
from controlplane.web.asked import Adopt
from controlplane.web.port import RefusedError
from controlplane.xds.conversation import WILDCARD
from controlplane.xds.snapshot import Resource
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE
from controlplane.xds.version import Version
from controlplane.xds.view import StreamView
from controlplane.xds.wire import set_hash

ADOPTED = "what is stable was said in place of a store that was lost"


@dataclass(frozen=True, slots=True)
class Question:
    """A service that proxies have from another store.

    Attributes:
        proxies: Which ones, sorted.
        had: The version that all its requests get at all of them, as the content of their routes proves; ''
            if it does not, as while a release was running.
    """

    proxies: tuple[str, ...]
    had: str = ""


InQuestion = Mapping[str, Question]  # by service
Proof = Callable[[Rendering, str, str], str]


def questioned(view: StreamView, rendering: Rendering, settled: frozenset[str]) -> frozenset[str]:
    """Return the services that a proxy has from another store, as far as they are in question.

    Clusters and routes tell whose they are. What belongs to the whole fleet, or to nobody that we know, puts
    all services of the proxy in question.
    """
    found: set[str] = set()
    for type_url, name in view.strange:
        found |= _owners(type_url, name, rendering) or _all(view, rendering)
    return frozenset(found - settled)


def _owners(type_url: str, name: str, rendering: Rendering) -> frozenset[str]:
    if type_url in (CLUSTER, ENDPOINT) and (known := cluster_version(name)):
        return frozenset({known[0]})
    fleet = rendering.fleet
    if type_url == SCOPED_ROUTE and not fleet.grpc and not fleet.adopted:
        group = anchored(name)
        return _of_scope(name, rendering) if group is None else _owners(ROUTE, group, rendering)
    if type_url not in ((ROUTE, LISTENER) if fleet.grpc else (ROUTE,)):
        return frozenset()
    # A group has the name of its first service, so one that is not there any more still says whose it was.
    former = () if fleet.adopted or name in (SCOPE_NONE, WILDCARD) else (group_first(name),)
    return frozenset(rendering.groups.get(name, former))


def _of_scope(name: str, rendering: Rendering) -> frozenset[str]:
    """Return the services that share the routes to which a scope leads; nobody if we do not have it."""
    scope = rendering.snapshot.of(SCOPED_ROUTE).get(name)
    needs = scope.needs if scope is not None else ()
    led_to = (route for type_url, route in needs if type_url == ROUTE)
    return frozenset(member for route in led_to for member in rendering.groups.get(route, ()))


def _all(view: StreamView, rendering: Rendering) -> frozenset[str]:
    """Return all services that a proxy has: those of its clusters, or the fleet's if it did not tell them."""
    clusters = view.of(CLUSTER)
    known = map(cluster_version, clusters.acked if clusters is not None else ())
    return frozenset(found[0] for found in known if found) or frozenset(rendering.services)


def proven(rendering: Rendering, service: str, content: str) -> str:
    """Return the version to which routes of this content lead all requests of a service, or ''.

    Routes are a function of documents and versions, so whoever renders the same has the same. That takes the
    same documents, and services on the same hosts that are as we have them. Of a state-of-the-world client
    the content is its last response's, which may have had these routes alone.
    """
    fleet, own = rendering.fleet, rendering.services.get(service)
    if own is None or fleet.grpc or fleet.adopted:
        return ""
    home = rendering.home[service]
    members = [rendering.services[name] for name in rendering.groups[home]]
    for version in sorted(own.service.versions):
        alone = traffic(own.service, version, None, own.anonymous)
        found = route_hash(fleet, home, [alone if each is own else each for each in members])
        if content in (found, set_hash({home: Resource(home, b"", Version(0, found))})):
            return version
    return ""


def in_question(
    views: Iterable[StreamView],
    renderings: Mapping[str, Rendering],
    settled: frozenset[str],
    proof: Proof = proven,
) -> InQuestion:
    """Return the services in question; ``proof`` is asked what routes prove."""
    proxies: dict[str, set[str]] = {}
    had: dict[str, set[str]] = {}
    for view in views:
        rendering = renderings.get(view.group or "")
        if not view.strange or rendering is None or view.node is None:
            continue
        for service in questioned(view, rendering, settled):
            proxies.setdefault(service, set()).add(view.node.id)
            content = _content(view, rendering.home.get(service, ""))
            had.setdefault(service, set()).add(proof(rendering, service, content))
    return {
        service: Question(tuple(sorted(found)), had[service].pop() if len(had[service]) == 1 else "")
        for service, found in sorted(proxies.items())
    }


def _content(view: StreamView, route: str) -> str:
    """Return the hash in the version of a route configuration that a proxy has."""
    routes = view.of(ROUTE)
    version = routes.acked.get(route) if routes is not None else None
    return version.hash if version is not None else ""


def problems(found: InQuestion, world: World) -> Iterator[str]:
    """Say of each service in question who has it, and what ends that."""
    known = {service.name: service for service in world.catalog.services()}
    for service, question in found.items():
        text = f"service {service}: left alone, {listed(question.proxies)} got it from another store"
        text += f", by which all have {question.had}; " if question.had else "; "
        if service in known:
            versions = ", ".join(sorted(known[service].versions))
            adopt = f"`turnout store init --adopt {service}={question.had or 'VERSION'}`"
            text += f"{adopt} says what is stable, of {versions}"
        else:
            text += f"no document has it: apply it, or take it away by `turnout store init --gone {service}`"
        yield text


@dataclass(frozen=True, slots=True)
class Newness:
    """What adopting starts from.

    Attributes:
        world: As it is.
        found: The services in question.
        endpoints: Where the services to adopt answer.
        ahead: The highest revision that proxies have seen, of this store or another.
        now: UTC.
    """

    world: World
    found: InQuestion
    endpoints: Mapping[str, Endpoints]
    ahead: int
    now: datetime


def adopt(new: Newness, wanted: Adopt) -> Change:
    """Return the change by which versions are stable and proxies are not left alone for them any more.

    No release starts by it: those that wait do so until somebody starts them.

    Raises:
        RefusedError: If a service or version is not known, answers nowhere, or nothing is in question.
    """
    if wrong := [*_wrong(new, wanted)]:
        raise RefusedError(wrong[0][0], "; ".join(text for _, text in wrong))
    world = new.world
    releases: tuple[ReleaseState, ...] = ()
    moved: tuple[Record, ...] = ()
    for service, version in sorted(wanted.adopt.items()):
        ended = tuple(_ended(new, service, version, wanted))
        releases += (*_kept(new, service), *ended)
        moved += tuple(
            _record(new, state, version, wanted)
            for state in ended
            if state.undone or not new.world.releases[state.name].ended
        )
    chosen = (*sorted(wanted.adopt.items()), *((name, "") for name in wanted.gone))
    return Change(
        releases=releases,
        stable=dict(wanted.adopt),
        settled=frozenset(name for name, _ in chosen),
        above=new.ahead if new.ahead > world.revision else 0,
        records=(
            *moved,
            *(
                Record(
                    at=new.now,
                    kind="action",
                    service=service,
                    action="adopt",
                    actor=wanted.actor,
                    reason=_reason(new, service, version, wanted),
                )
                for service, version in chosen
            ),
        ),
    )


def _wrong(new: Newness, wanted: Adopt) -> Iterator[tuple[int, str]]:
    """Yield why something cannot be adopted, each with its HTTP status."""
    if not wanted.adopt and not wanted.gone:
        there = "; ".join(problems(new.found, new.world)) or "nothing is left alone"
        yield 400, f"adopt: neither `adopt` nor `gone` names a service; {there}"
    for service, version in sorted(wanted.adopt.items()):
        try:
            _check(new, service, version)
        except RefusedError as error:
            yield error.status, str(error)
    for service in wanted.gone:
        if new.world.catalog.get("Service", service) is not None:
            yield 409, f"service {service!r} has a document; adopt one of its versions"
        elif service not in new.found:
            yield 404, f"no proxy has a service {service!r} from another store"


def _check(new: Newness, service: str, version: str) -> None:
    document, endpoints = service_named(new.world, service), new.endpoints[service]
    if version not in document.versions:
        known = ", ".join(sorted(document.versions))
        raise RefusedError(404, f"service {service!r} has no version {version!r}; known: {known}")
    if not endpoints.places[version]:
        raise RefusedError(409, f"{version} of {service!r} {endpoints.lack(version)}")
    going = new.world.of_service(service)
    if service not in new.found and (service in new.world.settled or not new.world.began):
        stable = new.world.stable[service]
        how = f"what is stable of {service!r} is known: {stable}; `turnout switch` changes it"
        raise RefusedError(409, how)
    if going is not None and going.past and version != going.to_version:
        raise RefusedError(409, f"release {going.name!r} is past {going.past}; `turnout switch` goes back")


def _kept(new: Newness, service: str) -> Iterator[ReleaseState]:
    """Yield the service's releases that wait as they are afterwards: none starts by itself."""
    for state in new.world.releases.values():
        if state.service == service and state.phase is Phase.WAITING and state.start == "auto":
            yield state.model_copy(update={"start": "manual", "holding": ADOPTED})


def _ended(new: Newness, service: str, version: str, wanted: Adopt) -> Iterator[ReleaseState]:
    """Yield the service's releases that do not stand as they were: none goes on, nor is still promoted."""
    why = f"adopted by {wanted.actor}: {_reason(new, service, version, wanted)}"
    yield from undone(new.world, service, version, why, new.now)
    going = new.world.of_service(service)
    if going is not None and going.phase not in RETURNING:
        yield end(going, version, why, new.now, wanted.actor)


def _record(new: Newness, after: ReleaseState, version: str, wanted: Adopt) -> Record:
    """Return the record of a release that an adoption ended, took back, or undid."""
    before = new.world.releases[after.name]
    action = "undo" if after.phase is before.phase else "promote"
    action = "rollback" if after.phase in RETURNING else action
    reason = f"adopted: {_reason(new, after.service, version, wanted)}"
    return record_of(before, action, wanted.actor, reason, new.now)


def _reason(new: Newness, service: str, version: str, wanted: Adopt) -> str:
    text = f"{version} is what is stable" if version else f"{service} is gone"
    if question := new.found.get(service):
        text += f"; {listed(question.proxies)} had {question.had or 'it'} from another store"
    return f"{text}: {wanted.reason}" if wanted.reason else text
