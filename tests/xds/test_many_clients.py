"""Several clients of one server, in any order of events: each is served as if it were alone.

Streams share what they are sent, what they say and what is known of them. So that the comparison shares no
mistake of that, each client also speaks to a server of its own, in a copy of the library of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta

import apart
import pytest
from events import OWNERS, ROUTES, SHARED, Events
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from controlplane._pb.node_pb2 import Node
from controlplane.app import logs
from controlplane.xds.type_urls import (
    CLUSTER,
    ENDPOINT,
    FULL_STATE,
    KEPT,
    LISTENER,
    PUSH_ORDER,
    ROUTE,
    SCOPED_ROUTE,
)

MOST = 4  # clients
TURNS = 16  # of the loop: more than a request, its answer, a publication and two times of silence take
GROUPS = ("edge", "core", "far")
BY_NAME = {
    CLUSTER: "abcd",
    ENDPOINT: "abcd",
    SCOPED_ROUTE: ("host", "s-r", "s-s", "s-u"),
    ROUTE: "rsuv",
    LISTENER: "l",
}


class Line:
    """A stream's transport, in memory."""

    end = None

    def __init__(self, library):
        self.peer = library.Peer("test")
        self.written = []
        self.done = None
        self.asked = None
        self.status = None

    async def read(self):
        self.asked = asyncio.get_running_loop().create_future()
        return await self.asked

    def write(self, data, done):
        assert self.done is None, "two writes at once"
        self.written.append(data)
        self.done = done

    def finish(self, status, text):
        self.status = (status, text)

    def say(self, data):
        self.asked.set_result(data)

    def take(self):
        """The write is out."""
        done, self.done = self.done, None
        done(None)


def plain(value):
    """A view as a value that can be compared across libraries."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.compare}
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple) else value


def unlike(together, alone, path=""):
    """Yield where two such values differ."""
    if isinstance(together, dict) and isinstance(alone, dict):
        for name in together.keys() | alone.keys():
            yield from unlike(together.get(name), alone.get(name), f"{path}.{name}")
    elif isinstance(together, list) and isinstance(alone, list) and len(together) == len(alone):
        for place, each in enumerate(zip(together, alone, strict=True)):
            yield from unlike(*each, f"{path}[{place}]")
    elif together != alone:
        yield path, together, alone


def served(model):  # noqa: C901 - the complexity of its methods adds up
    """Return the kinds of clients: one like Envoy, one that asks for what it is told to."""

    class Served(model.Client):
        """A client of the common server that says all to a server of its own too, and must hear the same.

        A ``slow`` one does not take what is written.
        """

        def __init__(self, fleet, number, variant, group):
            self.fleet, self.number = fleet, number
            self.group, self.slow, self.tasks = group, False, []
            self.together = self.alone = None
            super().__init__(variant, b"")

        @property
        def id(self):
            return f"proxy-{self.number}"

        def open(self):
            self.node = Node(id=self.id, cluster=self.group).SerializeToString()
            for task in self.tasks:
                task.cancel()
            places = (0, self.number)
            self.lines = [Line(self.fleet.libraries[place]) for place in places]
            loop = self.fleet.loop
            self.tasks = [
                loop.create_task(self.fleet.servers[place].serve(line, self.variant))
                for place, line in zip(places, self.lines, strict=True)
            ]
            self.fleet.act(lambda: None)

        def serve(self):
            if not self.outbox:
                return False
            data = self.outbox.popleft()
            self.fleet.act(lambda: [line.say(data) for line in self.lines])
            self.pump()
            return True

        def pump(self):
            self.collect()
            while not self.slow and self.lines[0].done is not None:
                self.fleet.act(lambda: [line.take() for line in self.lines])
                self.collect()

        def collect(self):
            together, alone = ([self.parse(data) for data in line.written] for line in self.lines)
            if together != alone or self.lines[0].status != self.lines[1].status:
                self.problems.append(f"{self.id} was sent {together}, alone it is sent {alone}")
            if (ended := self.lines[0].status) is not None:
                self.problems.append(f"{self.id} was ended: {ended}")
            for line in self.lines:
                line.written.clear()
            for message in together:
                self.inbox.append(message.SerializeToString())
                self.expect(message)

    class ByName(Served):
        """Asks for everything by name, like gRPC: it is not gated, and follows nothing."""

        def connect(self, order=PUSH_ORDER):
            types = self.types.values()
            for has in types:
                has.names = has.names or []
            if not any(has.asked and has.names for has in types):
                self.types[CLUSTER].names = ["a"]
            super().connect(order)

        def follow(self, url, changed):
            pass

        def check(self, url, has, bodies, removed):
            pass

        def arrived(self, target, view):
            """It has what it asks for of the target, and what the routes use that it alone can drop."""
            kept = (clusters for name, clusters in self.named().items() if name not in target.of(ROUTE))
            used = set().union(*kept)
            for url, has in self.types.items():
                goes = (self.variant == "delta" and url not in KEPT) or url in FULL_STATE
                had = has.bodies.keys() if goes else has.bodies.keys() & target.of(url)
                if url in (CLUSTER, ENDPOINT):
                    had -= used - target.of(url).keys()
                wanted = {n: r.body for n, r in target.of(url).items() if n in has.names}
                assert {n: has.bodies[n] for n in had} == wanted, url

    return Served, ByName


def machine(model, libraries, variants):  # noqa: C901 - the complexity of its rules adds up
    """``libraries`` are that of the common server, and one for each client."""
    like_envoy, by_name = served(model)
    client = st.integers(0, MOST - 1)

    class Machine(Events):
        def __init__(self):
            super().__init__(model.World(routes=dict.fromkeys("rst", (1, ("a",)))))
            self.libraries = libraries
            self.loop = asyncio.new_event_loop()
            self.now = model.NOW
            self.servers = [
                library.XdsServer(
                    lambda node: node.cluster,
                    identifier="t",
                    limits=library.Limits(first_requests=1e9, silence=0),
                    clock=lambda: self.now,
                )
                for library in libraries
            ]
            self.latest = [None] * len(libraries)
            self.targets = {}  # by group, a snapshot for each library
            self.clients = []
            self.reach = GROUPS
            self.kept = []

        # -- what the machine's parts need

        def act(self, step):
            """Do something, and let all servers do what follows."""
            self.now += timedelta(seconds=1)

            async def turns():
                step()
                for _ in range(TURNS):
                    await asyncio.sleep(0)

            self.loop.run_until_complete(turns())

        def publish(self):
            self.render(self.reach)
            self.hand_over()

        def render(self, groups):
            """Make the target of these groups, for each library."""
            self.world.revision += bool(self.world.revision)
            for place, library in enumerate(self.libraries):
                new = library.World(**vars(self.world)).snapshot()
                self.latest[place] = _kept(self.latest[place], new, library.Snapshot)
            self.targets.update(dict.fromkeys(groups, tuple(self.latest)))

        def hand_over(self):
            """Publish all targets at once."""

            def step():
                for group, target in self.targets.items():
                    for server, snapshot in zip(self.servers, target, strict=True):
                        server.publish(group, snapshot)

            self.act(step)
            for each in self.clients:
                each.pump()

        def fresh(self):
            """Contents come back: what a stream had before is not what it has."""
            self.content = self.content % 3 + 1
            return self.content

        def one(self, number):
            return self.clients[number % len(self.clients)]

        # -- rules

        @initialize(ordered=st.booleans(), groups=st.permutations(GROUPS))
        def begin(self, ordered, groups):
            self.world.revision = int(ordered)
            self.publish()
            for variant, group in zip((variants[0], variants[-1]), groups, strict=False):
                self.join(like_envoy, variant, group)

        def join(self, kind, variant, group):
            made = kind(self, len(self.clients) + 1, variant, group)
            self.clients.append(made)

        @precondition(lambda self: len(self.clients) < MOST)
        @rule(
            kind=st.sampled_from((like_envoy, by_name)),
            variant=st.sampled_from(variants),
            group=st.sampled_from(GROUPS),
        )
        def another(self, kind, variant, group):
            self.join(kind, variant, group)

        @rule(route=ROUTES)
        def shift(self, route):
            """What changes most: the weights of a route."""
            self.world.routes = self.world.routes | self.shifted(self.world.routes, route)
            self.publish()

        @rule(routes=st.tuples(ROUTES, ROUTES), number=client, back=st.booleans())
        def part_and_meet(self, routes, number, back):
            """Two groups get a change each, at once; then all get both, or the one and not the other."""
            self.settle_all()
            before = self.world.routes
            groups = (self.one(number).group, self.one(number + 1).group)
            for group, route in zip(groups, routes, strict=True):
                self.world.routes = before | self.shifted(before, route)
                self.render([group])
            self.hand_over()
            self.settle_all()
            self.world.routes = before | self.shifted(before, routes[1])
            if not back:
                self.world.routes |= self.shifted(before, routes[0])
            self.render(GROUPS)
            self.hand_over()

        def shifted(self, routes, route):
            """A route goes one way or back."""
            if route not in routes:
                return {}
            content, clusters = routes[route]
            return {route: (2 if content == 1 else 1, clusters)}

        @rule(groups=st.sets(st.sampled_from(GROUPS)))
        def reach_only(self, groups):
            """Publish to these alone from now on."""
            self.reach = sorted(groups)

        @rule()
        def catch_up(self):
            self.reach = GROUPS
            self.publish()

        @rule(number=client, slow=st.booleans())
        def take_otherwise(self, number, slow):
            self.one(number).slow = slow
            self.one(number).pump()

        @rule(number=client, lazy=st.booleans(), hasty=st.booleans())
        def answer_otherwise(self, number, lazy, hasty):
            each = self.one(number)
            each.lazy, each.hasty = lazy, hasty

        @rule(number=client, url=st.sampled_from(PUSH_ORDER), index=st.integers(0, 3))
        def poison(self, number, url, index):
            target = sorted(self.world.snapshot().of(url).values(), key=lambda r: r.name)
            if index < len(target):
                self.one(number).poison.add(target[index].body)

        @rule(number=client, name=SHARED, owner=OWNERS)
        def poison_part(self, number, name, owner):
            if owner in self.world.shared.get(name, {}):
                self.one(number).poison_parts.add(f"{owner}{self.world.shared[name][owner][0]}")

        @rule(number=client)
        def heal(self, number):
            self.one(number).poison.clear()
            self.one(number).poison_parts.clear()

        @rule(number=client, times=st.integers(1, 6))
        def serve(self, number, times):
            for _ in range(times):
                self.one(number).serve()

        @rule(number=client, times=st.integers(1, 6))
        def step(self, number, times):
            for _ in range(times):
                self.one(number).step()

        @rule(number=client)
        def settle(self, number):
            self.one(number).slow = False
            model.settle(self.one(number))

        @rule()
        def settle_all(self):
            for number in range(len(self.clients)):
                self.settle(number)

        @rule(number=client, url=st.sampled_from(tuple(BY_NAME)), places=st.sets(st.integers(0, 3)))
        def ask(self, number, url, places):
            each = self.one(number)
            if isinstance(each, by_name):
                each.name(url, [name for place, name in enumerate(BY_NAME[url]) if place in places])

        @rule(
            number=client,
            later=st.permutations((SCOPED_ROUTE, ROUTE, LISTENER)),
            group=st.sampled_from(GROUPS),
        )
        def reconnect(self, number, later, group):
            each = self.one(number)
            each.group = group
            each.unlisted |= each.types[CLUSTER].bodies.keys()  # these libraries recall nothing
            each.connect((CLUSTER, ENDPOINT, *later))

        # -- what must hold

        @invariant()
        def nothing_wrong(self):
            problems = [problem for each in self.clients for problem in each.problems]
            assert problems == [], problems

        @invariant()
        def each_is_seen_as_alone(self):
            together = {view.node.id: view for view in self.servers[0].views() if view.node is not None}
            for each in self.clients:
                alone = [view for view in self.servers[each.number].views() if view.node is not None]
                mine = together.get(each.id)
                found = list(unlike(plain(mine), plain(alone[0] if alone else None)))
                assert found == [], (each.id, found)
                if mine is not None:
                    self.kept.append((mine, plain(mine)))

        def teardown(self):
            """Once the world is good again, each client has the target; what was seen is as it was."""
            try:
                self.end()
            finally:
                for each in self.clients:
                    for task in each.tasks:
                        task.cancel()
                self.loop.run_until_complete(
                    asyncio.gather(*(t for c in self.clients for t in c.tasks), return_exceptions=True)
                )
                self.loop.close()

        def end(self):
            for each in self.clients:
                each.poison.clear()
                each.poison_parts.clear()
            self.reach = GROUPS
            self.content = 100
            self.fresh = super().fresh
            self.mend()
            self.settle_all()
            self.nothing_wrong()
            self.each_is_seen_as_alone()
            target = self.libraries[0].World(**vars(self.world)).snapshot()
            views = {view.node.id: view for view in self.servers[0].views()}
            for each in self.clients:
                each.arrived(target, views[each.id])
            for view, before in self.kept:
                assert plain(view) == before
            self.publish()
            assert not any(each.inbox for each in self.clients), "the same content was sent again"

    return Machine


def _kept(old, new, kind):
    """The same objects for the same content, as whoever renders keeps them."""
    if old is None:
        return new
    tables = {}
    for url, table in new.resources.items():
        before = old.of(url)
        same = {name: before[name] if before.get(name) == each else each for name, each in table.items()}
        unchanged = same.keys() == before.keys() and all(before[name] is each for name, each in same.items())
        tables[url] = before if unchanged else same
    return kind(new.revision, tables, new.order)


@pytest.fixture(autouse=True)
def _quiet():
    logs.quiet()


@pytest.fixture(scope="session")
def libraries():
    return [apart.library() for _ in range(1 + MOST)]


@pytest.mark.parametrize("variants", [("delta",), ("sotw",), ("delta", "sotw")], ids="-".join)
def test_each_client_is_served_as_if_it_were_alone(model, libraries, variants):
    run_state_machine_as_test(
        machine(model, libraries, variants),
        settings=settings(
            max_examples=40,  # what else there is to find, `make fuzz` looks for
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.reuse, Phase.generate],  # to shrink a history takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
