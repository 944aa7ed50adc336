"""The publisher: reads the store, renders, pushes. It decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import structlog

from controlplane.app.adoption import InQuestion, in_question, proven, questioned
from controlplane.app.behind import Behind
from controlplane.app.membership import Member, member
from controlplane.app.propagation import Relevant, merge, propagation, refusals, unacked
from controlplane.app.remembered import Remembered
from controlplane.app.renderable import Fitting
from controlplane.app.strays import Had, elsewhere
from controlplane.app.treatment import Treatment
from controlplane.app.whereabouts import Whereabouts
from controlplane.policy.documents import Fleet, Service
from controlplane.policy.envoy_versions import lacks
from controlplane.policy.fitness import unfit
from controlplane.policy.values import listed
from controlplane.release.ports import Store, World
from controlplane.release.seen import Propagation
from controlplane.release.state import Phase
from controlplane.release.traffic import Endpoints, ServiceTraffic
from controlplane.resources.adopting import render_adopted
from controlplane.resources.grpc_rendering import render_calls
from controlplane.resources.names import cluster_name, scope_name
from controlplane.resources.rendering import Rendering, render, renewed
from controlplane.server.callbacks import Callbacks
from controlplane.server.limits import Limits
from controlplane.server.streams import Refusal, XdsServer
from controlplane.sources.collector import origin
from controlplane.sources.dns import Resolver
from controlplane.xds.messages import Node
from controlplane.xds.view import StreamView

log = structlog.get_logger()
MANY = 100  # services: to render them takes 10 ms


class Publisher:
    """Keeps each fleet's snapshot equal to what the store says, and knows who has it.

    Attributes:
        revision: Store revision of what is published; 0 before anything is.
        problems: Services that cannot be rendered, with the reason; what they had stays in force.
        whereabouts: Where the versions of services answer.
    """

    def __init__(
        self,
        store: Store,
        *,
        refusal: Refusal = lambda _node, _peer: None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        resolver: Resolver | None = None,
        identifier: str = "",
    ) -> None:
        self.server = XdsServer(
            self._group_of,
            refusal=refusal,
            callbacks=Callbacks(connected=self._connected, ended=self._ended),
            identifier=identifier,
            limits=limits,
        )
        self.server.alone.aloof = self._aloof
        self.revision = 0
        self.problems: dict[str, str] = {}
        self.whereabouts = Whereabouts(resolver or Resolver())
        self._store = store
        self._fleets: tuple[Fleet, ...] = ()
        self._renderings: dict[str, Rendering] = {}
        self._expected: Mapping[str, Rendering] = {}
        self._treatment = Treatment()
        self._remembered = Remembered()
        self._behind = Behind()
        self._open: Counter[tuple[str, str]] = Counter()  # streams by node id and origin
        self._proofs: dict[tuple[str, str, str], str] = {}
        self._world: World | None = None
        self._lacking: dict[tuple[str, tuple[int, int, int] | None], tuple[str, ...]] = {}  # in this world

    def listens(self, prefix: str) -> bool:
        """Return whether statistics of this prefix come from a listener of ours."""
        ours = (fleet for fleet in self._fleets if not fleet.adopted)
        return any(listener.name == prefix for fleet in ours for listener in fleet.listeners)

    def views(self) -> tuple[StreamView, ...]:
        """Return all streams, and those that ended a moment ago because their clients are ahead."""
        return self._behind.beside(self.server.views())

    async def run(self) -> None:
        """Publish after each change of the store, until cancelled."""
        async for world in self._store.changes():
            self._try(world)

    async def resolve(self) -> None:
        """Publish after each change of the addresses behind names, until cancelled."""
        async for _ in self.whereabouts.changes():
            if self._world is not None:
                self._try(self._world)

    def _try(self, world: World) -> None:
        try:
            self.publish(world)
        except Exception:
            # A bug must not end the process: proxies keep what they have, releases wait for the ACKs.
            log.exception("not published", revision=world.revision)

    def publish(self, world: World) -> None:
        """Render what changed and hand it to the streams."""
        self._world = world
        self._lacking.clear()
        self._proofs.clear()
        self.whereabouts.follow(world.catalog)
        problems: dict[str, str] = {}
        for fleet in world.catalog.fleets():
            rendering, wrong = self._rendered(world, fleet)
            problems |= wrong
            if rendering is not None:
                self._renderings[fleet.name] = rendering
                self.server.publish(fleet.name, replace(rendering.snapshot, began=world.began))
        for service, why in problems.items():
            if self.problems.get(service) != why:
                log.error("service not rendered as it should be", service=service, error=why)
        self.problems, self._expected = problems, {}
        if world.catalog.fleets() != self._fleets:
            self._fleets = world.catalog.fleets()
            self.server.regroup()
        self.revision = world.revision

    def rehearsal(self) -> Rehearsal:
        """Return what tries to render worlds that are not there yet; publishes nothing."""
        return Rehearsal(self._renderings)

    def expect(self, rehearsal: Rehearsal) -> None:
        """Take what was tried for the next world: what is the same there need not be rendered again.

        To render what a thousand services have takes so long that a rollback behind it would be late.
        """
        self._expected = rehearsal.tried

    def propagation(self, world: World, service: str) -> Propagation:
        """Return who has what the service should look like in a world."""
        document = world.catalog.get("Service", service)
        if not isinstance(document, Service):
            return Propagation()
        views = self.views()
        held = [(view.node.id, self.member(view)) for view in views if view.node and view.group is None]
        parts = []
        for name in document.fleets:
            if service in self.problems:
                refusal = ("turnout", f"to render it: {self.problems[service]}")
                parts.append(Propagation(nacked=(refusal,)))
                continue
            rendering = self._renderings.get(name)
            mine = [view for view in views if view.group == name]
            if rendering is None or self.revision < world.revision:
                # Not published yet: whatever the proxies acknowledged, it was something older.
                parts.append(unacked(mine))
                continue
            fleet = world.catalog.fleet(name)
            relevant, past = _relevant(rendering, fleet, service), self._remembered.of(name)
            parts.append(propagation(mine, relevant, fleet.propagate, past))
            # It may go on serving what it once was given, so it is waited for like one that refuses.
            unserved = tuple((proxy, place.problem) for proxy, place in held if name in place.fleets)
            limits = fleet.propagate
            parts.append(Propagation(unserved=unserved, at_least=limits.at_least, within=limits.within))
        strangers = [view for view in views if view.group not in document.fleets]
        return elsewhere(merge(parts), strangers, service, Had(world.had(service), self._unknown))

    def _unknown(self, view: StreamView) -> str:
        return self.member(view).problem

    def in_question(self, world: World) -> InQuestion:
        """Return the services that proxies have from another store, and that nobody adopted yet."""
        return self.questioned(self.views(), world)

    def questioned(self, views: Iterable[StreamView], world: World) -> InQuestion:
        """Return the same of some views."""
        return in_question(views, self._renderings, world.settled, self._proven)

    def endpoints(self, world: World, service: str) -> Endpoints:
        """Return where each version of a service answers."""
        return self.whereabouts.endpoints(world, service)

    def member(self, view: StreamView) -> Member:
        """Return where the node of a stream belongs."""
        return member(view.node or Node("?"), self._fleets)

    def refused(self, view: StreamView) -> tuple[str, ...]:
        """Return all that a proxy refuses now, with its words."""
        return tuple(refusals(view))

    def lacks(self, view: StreamView) -> tuple[str, ...]:
        """Return what services ask of a proxy that its Envoy is too old for, and is served without."""
        if self._world is None or view.node is None or view.group is None:
            return ()
        found = self._lacking.get((view.group, view.node.version))
        if found is None:
            services = (each for each in self._world.catalog.services() if view.group in each.fleets)
            grpc = self._world.catalog.fleet(view.group).grpc
            found = () if grpc else lacks(services, view.node.version)
            self._lacking[view.group, view.node.version] = found
        return found

    def _rendered(self, world: World, fleet: Fleet) -> tuple[Rendering | None, dict[str, str]]:
        wanted = self._treatment.of(world, fleet)
        if fleet.grpc:
            wanted = self.whereabouts.located(wanted)
        last, made = self._renderings.get(fleet.name), self._expected.get(fleet.name)
        if (
            made is not None
            and _many(wanted, last)
            and (made.fleet, made.services) == (fleet, wanted)
            and not _unfit(world, wanted, fleet)
        ):
            return renewed(made, wanted, world.revision, last), {}
        return _rendered(world, fleet, wanted, last)

    def present(self, node: str, source: str) -> bool:
        """Return whether a node with this id has a stream of this origin."""
        return (node, source) in self._open

    def _connected(self, view: StreamView) -> None:
        assert view.node is not None
        self._open[view.node.id, origin(view.peer)] += 1

    def _ended(self, view: StreamView) -> None:
        assert view.node is not None
        who = view.node.id, origin(view.peer)
        self._open[who] -= 1
        if not self._open[who]:
            del self._open[who]
        self._behind.note(view)
        rendering = self._renderings.get(view.group or "")
        if rendering is not None:
            self._remembered.note(view, rendering.snapshot)

    def _aloof(self, view: StreamView) -> str:
        assert self._world is not None
        assert view.group is not None
        found = sorted(questioned(view, self._renderings[view.group], self._world.settled))
        return f"has {listed(found)} from another store: see `turnout store init`" if found else ""

    def _proven(self, rendering: Rendering, service: str, content: str) -> str:
        # Many proxies have the same, and it is asked for often: the routes are made once for each.
        key = rendering.fleet.name, service, content
        if key not in self._proofs:
            self._proofs[key] = proven(rendering, service, content)
        return self._proofs[key]

    def _group_of(self, node: Node) -> str | None:
        return member(node, self._fleets).group


class Rehearsal:
    """Renders worlds that might be, each after the first only where it differs. For one thread at a time."""

    def __init__(self, published: Mapping[str, Rendering]) -> None:
        """``published`` has the fleets as they are published, at any time."""
        self._published = published
        self._tried: dict[str, Rendering] = {}
        self._treatment = Treatment()

    @property
    def tried(self) -> Mapping[str, Rendering]:
        """The last rendering of each fleet of which all could be rendered."""
        return dict(self._tried)

    def unrenderable(self, world: World) -> dict[str, str]:
        """Return the services of a world that could not be rendered, with the reason."""
        found: dict[str, str] = {}
        for fleet in world.catalog.fleets():
            found |= self._fleet(world, fleet)
        return found

    def _fleet(self, world: World, fleet: Fleet) -> dict[str, str]:
        traffics = self._treatment.of(world, fleet)
        tried = self._tried.pop(fleet.name, None)
        if tried is not None:
            rendering, wrong = _rendered(world, fleet, traffics, tried)
            if rendering is not None and not wrong:
                self._tried[fleet.name] = rendering
                return {}
        # What is in the way, and what stays, goes by what is published.
        rendering, wrong = _rendered(world, fleet, traffics, self._published.get(fleet.name))
        if rendering is not None and not wrong:
            self._tried[fleet.name] = rendering
        return wrong


def _many(wanted: Mapping[str, ServiceTraffic], last: Rendering | None) -> bool:
    """Return whether so many services changed that it is quicker to look through all resources of a fleet."""
    before = last.services if last is not None else {}
    return sum(before.get(name) is not traffic for name, traffic in wanted.items()) > MANY


def _rendered(
    world: World, fleet: Fleet, traffics: Mapping[str, ServiceTraffic], last: Rendering | None
) -> tuple[Rendering | None, dict[str, str]]:
    """Render a fleet; services that cannot be are left as they were, and named with the reason."""
    wanted = tuple(traffics.values())
    compiler = render_calls if fleet.grpc else render_adopted if fleet.adopted else render
    problems = _unfit(world, traffics, fleet)
    try:
        if not problems:
            return compiler(fleet, wanted, world.revision, last), {}
    except ValueError:
        pass
    fitting = Fitting(lambda services, last: compiler(fleet, services, world.revision, last), last)
    # Releases in the order of their begin, as they had their places before a restart.
    begun = sorted(world.active.values(), key=lambda state: (state.created_at, state.name))
    order = dict.fromkeys([*(s.service for s in begun if s.service in traffics), *traffics])
    fitting.fit({name: traffics[name] for name in order}, problems)
    return fitting.rendering, fitting.problems


def _relevant(rendering: Rendering, fleet: Fleet, service: str) -> Relevant:
    if fleet.grpc:
        return Relevant.of_calls(rendering.snapshot, service)
    if fleet.adopted:
        return Relevant.of_adopted(rendering.snapshot, service)
    traffic = rendering.services.get(service)
    if traffic is None:
        return Relevant.of(rendering.snapshot, service, (), "", ())
    clusters = [cluster_name(service, version) for version in traffic.service.versions]
    scopes = {scope_name(claim.host) for claim in traffic.service.routes}
    return Relevant.of(rendering.snapshot, service, clusters, rendering.home[service], sorted(scopes))


def _unfit(world: World, wanted: Mapping[str, ServiceTraffic], fleet: Fleet) -> dict[str, str]:
    """Return services whose release moves shares by a policy that does not fit the fleet, and why not."""
    found = {}
    for name, state in world.active.items():
        if name in wanted and state.phase in (Phase.PROGRESSING, Phase.GUARDING):
            for kind in fleet.kinds:
                if why := unfit(state.policy, kind, fleet):
                    found[name] = f"policy {state.policy.name!r} does not fit {kind} fleets: {why}"
    return found
