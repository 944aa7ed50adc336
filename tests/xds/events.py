"""What may happen to a world, as rules for state machines; no test."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

NAMES = st.sampled_from("abcd")
ROUTES = st.sampled_from("rst")
SHARED = st.sampled_from("uv")
OWNERS = st.sampled_from("xyz")


class Events(RuleBasedStateMachine):
    """Changes of ``world``; each has a new content and is published by ``publish``."""

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.content = 1

    def publish(self):
        raise NotImplementedError

    def drop_empty(self):
        self.world.shared = {name: owners for name, owners in self.world.shared.items() if owners}

    def fresh(self):
        self.content += 1
        return self.content

    @rule(name=NAMES)
    def change_cluster(self, name):
        self.world.clusters[name] = self.fresh()
        self.publish()

    @rule(name=NAMES, static=st.booleans())
    def change_kind(self, name, static):
        (self.world.static.add if static else self.world.static.discard)(name)
        self.change_cluster(name)

    @rule(name=NAMES)
    def remove_cluster(self, name):
        self.world.clusters.pop(name, None)
        kept = {r: (v, tuple(c for c in cs if c != name)) for r, (v, cs) in self.world.routes.items()}
        self.world.routes = kept
        for owners in self.world.shared.values():
            for owner in [owner for owner, (_, cluster) in owners.items() if cluster == name]:
                del owners[owner]
        self.drop_empty()
        self.publish()

    @rule(name=NAMES, other=NAMES)
    def swap_cluster(self, name, other):
        """All goes from one to another, which was there or was not, and the one is gone."""
        world = self.world
        if name == other or world.clusters.pop(name, None) is None:
            return
        world.clusters[other] = self.fresh()
        for route, (_, clusters) in world.routes.items():
            if name in clusters:
                world.routes[route] = (self.content, tuple(sorted({*clusters, other} - {name})))
        for owners in world.shared.values():
            for owner, (_, cluster) in owners.items():
                if cluster == name:
                    owners[owner] = (self.content, other)
        self.publish()

    @rule(name=NAMES, hollow=st.booleans())
    def change_endpoints(self, name, hollow):
        self.world.endpoints[name] = self.fresh()
        (self.world.hollow.add if hollow else self.world.hollow.discard)(name)
        self.publish()

    @rule(name=ROUTES, clusters=st.sets(NAMES, max_size=3))
    def change_route(self, name, clusters):
        known = tuple(sorted(c for c in clusters if c in self.world.clusters))
        self.world.routes[name] = (self.fresh(), known)
        self.publish()

    @rule(name=ROUTES)
    def remove_route(self, name):
        if len(self.world.routes) > 1:
            self.world.routes.pop(name, None)
            self.publish()

    @rule(name=st.one_of(ROUTES, SHARED))
    def move_host(self, name):
        self.world.host = name
        self.publish()

    @rule(name=SHARED, owner=OWNERS, cluster=NAMES)
    def change_part(self, name, owner, cluster):
        if cluster in self.world.clusters:
            for owners in self.world.shared.values():
                owners.pop(owner, None)
            self.world.shared.setdefault(name, {})[owner] = (self.fresh(), cluster)
            self.drop_empty()
            self.publish()

    @rule(name=SHARED, owner=OWNERS)
    def remove_part(self, name, owner):
        if self.world.shared.get(name, {}).pop(owner, None):
            self.drop_empty()
            self.publish()

    def mend(self):
        """Make everything anew, and of use."""
        world = self.world
        world.hollow.clear()
        for name in world.clusters:
            world.clusters[name] = self.fresh()
            world.endpoints[name] = self.content
        world.routes = {n: (self.fresh(), cs) for n, (_, cs) in world.routes.items()}
        world.shared = {
            n: {o: (self.fresh(), c) for o, (_, c) in owners.items()} for n, owners in world.shared.items()
        }
        world.salt = self.fresh()
        self.publish()
