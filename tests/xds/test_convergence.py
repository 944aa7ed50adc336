"""Both variants against a model of a client, in any order of events."""

from __future__ import annotations

import pytest
from calling import caller
from events import OWNERS, SHARED, Events
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from controlplane.xds import sets
from controlplane.xds.memory import release
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, PUSH_ORDER, ROUTE


def machine(model, variant, kind=None):  # noqa: C901 - the complexity of its rules adds up
    class Machine(Events):
        def __init__(self):
            super().__init__(model.World())
            self.client = (kind or model.Client)(variant)
            self.at_once = True
            self.publish()

        def publish(self):
            self.world.revision += 1
            self.client.publish(self.world.snapshot(), at_once=self.at_once)

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

        @rule(order=st.permutations(PUSH_ORDER), elsewhere=st.booleans())
        def reconnect(self, order, elsewhere):
            """To the same process, which knows what it sent, or to another one."""
            if kind is None:
                order = (CLUSTER, ENDPOINT, *(url for url in order if url not in (CLUSTER, ENDPOINT)))
            if elsewhere:
                release()
                sets._sets.clear()
                self.client.unlisted |= self.client.types[CLUSTER].bodies.keys()
            self.client.connect(order)
            self.client.stream.publish(self.world.snapshot())

        @invariant()
        def nothing_wrong(self):
            assert self.client.problems == [], self.client.problems

        def teardown(self):
            """Once the world is good again, the client has exactly the target, and we know it."""
            self.client.poison.clear()
            self.client.poison_parts.clear()
            self.mend()
            model.settle(self.client)
            assert self.client.problems == [], self.client.problems
            self.client.arrived(self.world.snapshot(), self.client.stream.view())

    return Machine


def run(machine, examples):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("variant", ["sotw", "delta"])
def test_client_converges_and_never_sees_a_broken_reference(model, variant):
    run(machine(model, variant), 150)


@pytest.mark.parametrize("variant", ["sotw", "delta"])
def test_client_by_name_converges_and_never_loses_what_its_routes_use(model, variant):
    run(machine(model, variant, caller(model)), 100)


def test_a_cluster_stays_while_routes_that_went_meanwhile_are_led_to(model):
    """Nothing takes routes from a client that names them: first goes what leads there, then their cluster."""
    state = machine(model, "delta")()
    state.change_part(cluster="a", name="u", owner="x")
    state.change_endpoints(hollow=True, name="a")
    state.settle()
    state.change_part(cluster="a", name="u", owner="y")
    state.reconnect(elsewhere=False, order=PUSH_ORDER)
    state.settle()

    state.remove_cluster(name="a")

    state.teardown()


def test_what_a_client_had_and_comes_to_refuse_is_not_sent_to_it_again(model):
    """It left out the answer to a version in between, so what it is on now is not known."""
    state = machine(model, "sotw", caller(model))()
    state.change_part(cluster="b", name="u", owner="z")
    state.change_route(clusters={"a", "c", "d"}, name="t")
    for serve, step in ((6, 3), (2, 1)):
        state.serve(times=serve)
        state.step(times=step)
    state.change_kind(name="d", static=False)
    state.poison(index=2, url=ROUTE)
    state.answer_otherwise(hasty=True, lazy=True)
    state.change_part(cluster="d", name="u", owner="y")
    state.remove_cluster(name="d")

    state.settle()

    state.nothing_wrong()


def test_a_cluster_stays_with_who_comes_back_and_refuses_the_new_version_of_it(model):
    """This process knows what it sent to the client, so it lists that."""
    state = machine(model, "sotw", caller(model))()
    state.settle()
    state.change_kind(name="a", static=False)
    state.change_route(clusters={"b"}, name="s")
    state.reconnect(
        elsewhere=False, order=(ROUTE, CLUSTER, *(u for u in PUSH_ORDER if u not in (ROUTE, CLUSTER)))
    )
    state.poison(index=0, url=CLUSTER)

    state.settle()

    state.nothing_wrong()
