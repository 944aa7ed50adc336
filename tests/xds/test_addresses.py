"""Listeners of a client that lets no two of them have one address, as Envoy does, in any order of events."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from talk import Talk

from controlplane.xds.type_urls import LISTENER

NAMES = st.sampled_from("abcd")
ADDRESSES = st.integers(0, 4)


class Proxy:
    """A client of listeners: takes away first, then each in turn, and keeps what is good of a response."""

    def __init__(self, model, variant):
        self.model, self.variant = model, variant
        self.has = {}  # name: body
        self.versions = {}
        self.version = ""
        self.poison = set()

    def connect(self):
        self.talk = Talk(self.model, self.variant)
        self.inbox = deque()
        if self.variant == "sotw":
            brought = {"version_info": self.version}
        else:
            brought = {"initial_resource_versions": self.versions}
        self.talk.ask(LISTENER, **brought)

    def publish(self, snapshot):
        self.talk.stream.publish(snapshot)
        self.listen()

    def listen(self):
        while (data := self.talk.stream.next_response(self.model.NOW)) is not None:
            self.inbox.append(self.talk.response.FromString(data))

    def step(self):
        """Take one response and answer it."""
        if not self.inbox:
            return False
        message = self.inbox.popleft()
        coming = self._coming(message)
        gone = self.has.keys() - coming if self.variant == "sotw" else message.removed_resources
        for name in list(gone):
            self.has.pop(name, None)
            self.versions.pop(name, None)
        bad = []
        for name, (body, version) in coming.items():
            taken = {address(other) for n, other in self.has.items() if n != name}
            if body != self.has.get(name) and (body in self.poison or address(body) in taken):
                bad.append(name)
            else:
                self.has[name], self.versions[name] = body, version
        if not bad and self.variant == "sotw":
            self.version = message.version_info
        error = ", ".join(f"{name}: has duplicate address" for name in bad)
        request = self.talk.request(type_url=LISTENER, response_nonce=message.nonce)
        if error:
            request.error_detail.message = error.encode()
        self.talk.stream.receive(request.SerializeToString(), self.model.NOW)
        self.listen()
        return True

    def _coming(self, message):
        if self.variant == "sotw":
            return {r.value.split(b"=")[0].decode(): (r.value, "") for r in message.resources}
        return {r.name: (r.resource.value, r.version) for r in message.resources}

    def rest(self):
        for _ in range(200):
            if not self.step():
                return
        raise AssertionError("no rest: what is refused is tried again without an end")


def address(body):
    return body.split(b"=")[1].split(b".")[0]


def machine(model, variant):  # noqa: C901 - the complexity of its rules adds up
    class Machine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.target = {"a": (0, 0)}  # name: address, content
            self.revision = 1
            self.proxy = Proxy(model, variant)
            self.proxy.connect()
            self.publish()

        def resources(self):
            return [
                model.resource(name, f"{place}.{content}", revision=self.revision)
                for name, (place, content) in self.target.items()
            ]

        def snapshot(self):
            return model.snapshot(self.revision, (LISTENER, *self.resources()))

        def publish(self):
            self.revision += 1
            self.proxy.publish(self.snapshot())

        def free(self, place):
            return all(place != other for other, _ in self.target.values())

        @rule(name=NAMES, place=ADDRESSES)
        def put(self, name, place):
            if self.free(place):
                self.target[name] = (place, self.revision)
                self.publish()

        @rule(name=NAMES)
        def change(self, name):
            if name in self.target:
                self.target[name] = (self.target[name][0], self.revision)
                self.publish()

        @rule(name=NAMES)
        def remove(self, name):
            if self.target.pop(name, None):
                self.publish()

        @rule(name=NAMES, other=NAMES)
        def rename(self, name, other):
            if name in self.target and other not in self.target:
                self.target[other] = self.target.pop(name)
                self.publish()

        @rule(name=NAMES, other=NAMES, place=ADDRESSES)
        def hand_over(self, name, other, place):
            if name in self.target and other != name and self.free(place):
                self.target[other] = (self.target[name][0], self.revision)
                self.target[name] = (place, self.revision)
                self.publish()

        @rule(name=NAMES)
        def poison(self, name):
            if name in self.target:
                self.target[name] = (self.target[name][0], self.revision)
                self.proxy.poison.update(r.body for r in self.resources() if r.name == name)
                self.publish()

        @rule(times=st.integers(1, 4))
        def step(self, times):
            for _ in range(times):
                self.proxy.step()

        @rule()
        def rest(self):
            """At rest nothing waits for an address that is free, and nothing is there that should go."""
            self.proxy.rest()
            has = self.proxy.has
            assert has.keys() <= self.target.keys()
            for resource in self.resources():
                if resource.body not in self.proxy.poison and has.get(resource.name) != resource.body:
                    taken = {address(body) for name, body in has.items() if name != resource.name}
                    assert address(resource.body) in taken, (resource, has)

        @rule()
        def reconnect(self):
            self.proxy.connect()
            self.proxy.publish(self.snapshot())

        def teardown(self):
            """Once each has an address that nobody had, the client has exactly the target, and we know it."""
            self.target = {name: (10 + n, self.revision) for n, name in enumerate(self.target)}
            self.publish()
            self.proxy.rest()
            wanted = {resource.name: resource for resource in self.resources()}
            assert self.proxy.has == {name: resource.body for name, resource in wanted.items()}
            view = self.proxy.talk.view(LISTENER)
            assert dict(view.acked) == {name: resource.version for name, resource in wanted.items()}
            assert not view.nacks

    return Machine


@pytest.mark.parametrize("variant", ["sotw", "delta"])
def test_no_listener_waits_for_an_address_that_is_free_and_refusals_end(model, variant):
    run_state_machine_as_test(
        machine(model, variant),
        settings=settings(
            max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_what_may_be_in_use_of_two_refused_versions_is_made_known_again(model):
    """``a`` gives its address to ``c`` and is refused twice: the client may have either version of before."""
    state = machine(model, "sotw")()
    state.put(name="b", place=3)
    state.poison(name="b")
    state.put(name="a", place=1)
    state.put(name="c", place=2)
    state.rest()
    state.hand_over(name="a", other="c", place=0)
    state.reconnect()

    state.poison(name="a")

    state.rest()
    state.teardown()
