"""Both variants against a model of a client, in any order of events."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE, SCOPED_ROUTE

NAMES = st.sampled_from("abcd")
ROUTES = st.sampled_from("rst")
SHARED = st.sampled_from("uv")
OWNERS = st.sampled_from("xyz")


def machine(model, variant):  # noqa: C901 - the complexity of its rules adds up
    class Machine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.world = model.World()
            self.client = model.Client(variant)
            self.content = 1
            self.at_once = True
            self.publish()

        def publish(self):
            self.world.revision += 1
            self.client.publish(self.world.snapshot(), at_once=self.at_once)

        def drop_empty(self):
            self.world.shared = {name: owners for name, owners in self.world.shared.items() if owners}

        def fresh(self):
            self.content += 1
            return self.content

        @rule(name=NAMES)
        def change_cluster(self, name):
            self.world.clusters[name] = self.fresh()
            self.publish()

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

        @rule(url=st.sampled_from(PUSH_ORDER), index=st.integers(0, 3))
        def poison(self, url, index):
            target = sorted(self.world.snapshot().of(url).values(), key=lambda r: r.name)
            if index < len(target):
                self.client.poison.add(target[index].body)

        @rule(at_once=st.booleans())
        def publish_otherwise(self, at_once):
            self.at_once = at_once

        @rule(name=SHARED, owner=OWNERS)
        def poison_part(self, name, owner):
            if owner in self.world.shared.get(name, {}):
                self.client.poison_parts.add(f"{owner}{self.world.shared[name][owner][0]}")

        @rule(lazy=st.booleans(), hasty=st.booleans())
        def answer_otherwise(self, lazy, hasty):
            self.client.lazy, self.client.hasty = lazy, hasty

        @rule(times=st.integers(1, 6))
        def serve(self, times):
            for _ in range(times):
                self.client.serve()

        @rule(times=st.integers(1, 6))
        def step(self, times):
            for _ in range(times):
                self.client.step()

        @rule()
        def settle(self):
            """At rest, no part of a route waits for what another part needs."""
            model.settle(self.client)
            has, target = self.client.types, self.world.snapshot()
            for name, owners in self.world.shared.items():
                body = has[ROUTE].bodies.get(name)
                spoiled = any(each.startswith(f"{name}=".encode()) for each in self.client.poison)
                if name not in has[ROUTE].known or spoiled:
                    continue
                parts = model.owned(body)
                for owner, (content, cluster) in owners.items():
                    if all(
                        has[url].bodies.get(cluster) == target.of(url)[cluster].body
                        for url in (CLUSTER, ENDPOINT)
                    ):
                        useful = not target.of(ENDPOINT)[cluster].hollow
                        liked = f"{owner}{content}" not in self.client.poison_parts
                        assert not (useful and liked) or f"{owner}{content}" in parts, (owner, body, owners)

        @rule(later=st.permutations((SCOPED_ROUTE, ROUTE, LISTENER)))
        def reconnect(self, later):
            self.client.connect((CLUSTER, ENDPOINT, *later))
            self.client.stream.publish(self.world.snapshot())

        @invariant()
        def nothing_wrong(self):
            assert self.client.problems == [], self.client.problems

        def teardown(self):
            """Once the world is good again, the client has exactly the target, and we know it."""
            self.client.poison.clear()
            self.client.poison_parts.clear()
            self.world.hollow.clear()
            for name in self.world.clusters:
                self.world.clusters[name] = self.fresh()
                self.world.endpoints[name] = self.content
            self.world.routes = {n: (self.fresh(), cs) for n, (_, cs) in self.world.routes.items()}
            self.world.shared = {
                n: {o: (self.fresh(), c) for o, (_, c) in owners.items()}
                for n, owners in self.world.shared.items()
            }
            self.world.salt = self.fresh()
            self.publish()
            model.settle(self.client)
            assert self.client.problems == [], self.client.problems
            target = self.world.snapshot()
            for url, has in self.client.types.items():
                wanted = {n: r for n, r in target.of(url).items() if has.names is None or n in has.names}
                assert has.bodies == {n: r.body for n, r in wanted.items()}, url
                if has.asked:
                    view = self.client.stream.view().of(url)
                    assert dict(view.acked) == {n: r.version for n, r in wanted.items()}, url
                    assert dict(view.sent) == dict(view.acked)
                    assert not view.gated
                    assert view.waiting_since is None

    return Machine


@pytest.mark.parametrize("variant", ["sotw", "delta"])
def test_client_converges_and_never_sees_a_broken_reference(model, variant):
    run_state_machine_as_test(
        machine(model, variant),
        settings=settings(
            max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
