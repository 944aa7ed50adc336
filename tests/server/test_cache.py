"""What a cache costs: memory that returns, and changes that touch what changed."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from controlplane._pb.endpoint_pb2 import ClusterLoadAssignment
from controlplane._pb.node_pb2 import Node
from controlplane._pb.route_pb2 import RouteConfiguration
from controlplane.server import Cache, from_yaml
from controlplane.xds.delta import DeltaStream
from controlplane.xds.snapshot import Resource
from controlplane.xds.sotw import SotwStream
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE
from controlplane.xds.version import Version
from controlplane.xds.view import Peer

NOW = datetime(2026, 3, 1, tzinfo=UTC)
VARIANTS = {
    "delta": (DeltaStream, DeltaDiscoveryRequest, DeltaDiscoveryResponse),
    "sotw": (SotwStream, DiscoveryRequest, DiscoveryResponse),
}


class Client:
    """A client without sockets, who accepts everything."""

    def __init__(self, variant, group):
        kind, self.request, self.response = VARIANTS[variant]
        self.stream = kind(Peer("127.0.0.1:1"), NOW)
        self.heard = []
        first = self.request(type_url=CLUSTER, node=Node(id=group).SerializeToString())
        self.stream.receive(first.SerializeToString(), NOW)
        self.stream.assign(group)

    def take(self, snapshot):
        self.stream.publish(snapshot)
        while (data := self.stream.next_response(NOW)) is not None:
            self.heard.append(self.response.FromString(data))
            answer = self.request(type_url=CLUSTER, response_nonce=self.heard[-1].nonce)
            self.stream.receive(answer.SerializeToString(), NOW)


def cluster(name, text):
    return Cluster(name=name, alt_stat_name=text * 5000)


def alive(group):
    """How many resources of a group there are, whoever keeps them."""
    gc.collect()
    return sum(isinstance(each, Resource) and each.name.startswith(group) for each in gc.get_objects())


@pytest.mark.parametrize("variant", VARIANTS)
def test_edits_of_a_large_group_do_not_pile_up(variant):
    cache, client = Cache(), Client(variant, "piling")
    cache.replace("piling", {CLUSTER: {f"piling{n}": cluster(f"piling{n}", "a") for n in range(200)}})
    client.take(cache.snapshot("piling"))
    client.take(cache.snapshot("piling"))

    tracemalloc.start()
    for edit in range(40):
        cache.set("piling", CLUSTER, "piling7", cluster("piling7", "bc"[edit % 2] + str(edit)))
        client.take(cache.snapshot("piling"))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert grown < 12 << 20  # a set has 1 MB, which were 40


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_left_of_a_group_that_is_forgotten(variant):
    group = f"gone{variant}"
    cache, client = Cache(), Client(variant, group)
    cache.replace(group, {CLUSTER: {f"{group}{n}": cluster(f"{group}{n}", "a") for n in range(20)}})
    client.take(cache.snapshot(group))
    for edit in range(5):
        cache.set(group, CLUSTER, f"{group}7", cluster(f"{group}7", str(edit)))
        client.take(cache.snapshot(group))
    before = alive(group)
    del client
    cache.clear(group)

    cache.forget(group)

    assert (before >= 20, alive(group)) == (True, 0)


NAMES = "abc"


def eds(name, service):
    config = f"eds_cluster_config: {{service_name: '{service}', eds_config: {{ads: {{}}}}}}"
    return from_yaml(f"[{{'@type': {CLUSTER}, name: {name}, type: EDS, {config}}}]")[CLUSTER][name]


def aggregate(name, *clusters):
    kind = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
    config = f"{{'@type': {kind}, clusters: [{', '.join(clusters)}]}}"
    text = f"name: {name}, lb_policy: CLUSTER_PROVIDED, cluster_type: {{name: x, typed_config: {config}}}"
    return from_yaml(f"[{{'@type': {CLUSTER}, {text}}}]")[CLUSTER][name]


def assignment(name, *, empty):
    made = ClusterLoadAssignment(cluster_name=name)
    if not empty:
        made.endpoints.add().lb_endpoints.add()
    return made


def routes(name, clusters):
    made = RouteConfiguration(name=name)
    table = made.virtual_hosts.add().routes
    for cluster_name in clusters:
        table.add().route.cluster = cluster_name
    return made


def test_an_aggregate_goes_out_after_the_clusters_that_it_lists():
    cache, client = Cache(), Client("delta", "g")
    cache.replace("g", {CLUSTER: {"m": eds("m", "")}})
    client.take(cache.snapshot("g"))
    before = len(client.heard)

    cache.replace("g", {CLUSTER: {"a": aggregate("a", "z"), "m": eds("m", ""), "z": eds("z", "")}})
    client.take(cache.snapshot("g"))

    assert [[each.name for each in heard.resources] for heard in client.heard[before:]] == [["z"], ["a"]]


WORDS = {
    CLUSTER: {
        name: [
            Cluster(name=name),
            eds(name, ""),
            eds(name, "a"),
            aggregate(name, "a", "b"),
            Resource(name, eds(name, "b").SerializeToString(), Version(0, "mine")),
        ]
        for name in NAMES
    },
    ENDPOINT: {name: [assignment(name, empty=empty) for empty in (True, False)] for name in NAMES},
    ROUTE: {name: [routes(name, to) for to in ("", "a", "bc", "abc")] for name in NAMES},
}
BODIES = {url: {name: [None, *bodies] for name, bodies in of.items()} for url, of in WORDS.items()}
CHANGES = st.sampled_from(sorted(WORDS)).flatmap(
    lambda url: st.sampled_from(NAMES).flatmap(
        lambda name: st.tuples(st.just(url), st.just(name), st.sampled_from(BODIES[url][name]))
    )
)


@given(st.lists(st.lists(CHANGES, max_size=6), max_size=6))
def test_changes_lead_to_what_the_whole_would(turns):
    cache, world = Cache(), {url: {} for url in WORDS}
    cache.replace("g", world)
    for changes in turns:
        before = cache.snapshot("g")
        for url, name, body in changes:
            if body is None:
                cache.remove("g", url, name)
                world[url].pop(name, None)
            else:
                cache.set("g", url, name, body)
                world[url][name] = body
        fresh = Cache()
        fresh.replace("g", world)
        after, whole = cache.snapshot("g"), fresh.snapshot("g")

        assert after == whole
        for url in WORDS:
            assert (before.of(url) == after.of(url)) == (before.of(url) is after.of(url))
        cache.replace("g", world)
        assert cache.snapshot("g") is after


def test_a_change_touches_what_it_changes():
    cache = Cache()
    cache.replace(
        "g",
        {
            CLUSTER: {name: eds(name, "") for name in "ab"},
            ENDPOINT: {name: assignment(name, empty=False) for name in "ab"},
            ROUTE: {name: routes(name, name) for name in "ab"},
        },
    )
    old = cache.snapshot("g")

    cache.set("g", ENDPOINT, "a", assignment("a", empty=True))
    edited = cache.snapshot("g")
    cache.set("g", CLUSTER, "a", Cluster(name="a"))
    static = cache.snapshot("g")

    assert (edited.of(CLUSTER) is old.of(CLUSTER), edited.of(ROUTE) is old.of(ROUTE)) == (True, True)
    assert edited.of(ENDPOINT)["b"] is old.of(ENDPOINT)["b"]
    assert static.of(ROUTE)["b"] is old.of(ROUTE)["b"]
    assert static.of(ROUTE)["a"].needs == {(CLUSTER, "a")}
    assert static.of(ENDPOINT)["a"].follows is None


async def test_changes_of_one_turn_of_the_loop_go_out_together():
    cache, seen, gone = Cache(), [], []
    cache.replace("g", {ROUTE: {"r": routes("r", "a")}})
    detach = cache.attach(lambda group, snapshot: seen.append((group, snapshot)), gone.append)

    for number in range(100):
        cache.set("g", CLUSTER, f"c{number}", Cluster(name=f"c{number}"))
    cache.set("h", CLUSTER, "x", Cluster(name="x"))
    cache.set("lost", CLUSTER, "x", Cluster(name="x"))
    cache.forget("lost")
    told = len(seen)
    await asyncio.sleep(0)

    assert (told, [group for group, _ in seen], gone) == (1, ["g", "g", "h"], ["lost"])
    assert seen[1][1] is cache.snapshot("g")
    assert len(seen[1][1].of(CLUSTER)) == 100
    cache.remove("g", ROUTE, "r")
    detach()
    await asyncio.sleep(0)
    assert len(seen) == 3


def test_what_is_removed_from_a_group_that_is_not_known_does_not_empty_its_nodes():
    cache, seen = Cache(), []
    cache.attach(lambda group, snapshot: seen.append(group), lambda group: None)
    cache.set("gone", CLUSTER, "a", Cluster(name="a"))
    cache.forget("gone")
    seen.clear()

    cache.remove("gone", CLUSTER, "a")
    cache.remove("never there", CLUSTER, "a")

    assert (cache.snapshot("gone"), cache.snapshot("never there"), seen) == (None, None, [])


def test_what_one_loop_left_is_published_by_the_next():
    cache, seen = Cache(), []
    group = {"x": Cluster(name="x")}

    async def change(name):
        cache.attach(lambda group, snapshot: seen.append((group, len(snapshot.of(CLUSTER)))), seen.append)
        await asyncio.sleep(0)
        seen.clear()
        cache.set("g", CLUSTER, name, Cluster(name=name))
        if name == "b":
            await asyncio.sleep(0)

    cache.replace("g", {CLUSTER: group})
    for name in "ab":
        asyncio.run(change(name))

    assert ("g", 3) in seen


async def test_a_server_that_raises_keeps_no_other_group_from_it():
    cache, seen, heard = Cache(), [], []

    def publish(group, _snapshot):
        seen.append(group)
        if group == "g":
            raise ValueError("broken")

    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: heard.append(str(context["exception"]))
    )
    cache.attach(publish, seen.append)
    for group in "fgh":
        cache.clear(group)
    for _ in range(3):
        await asyncio.sleep(0)

    assert (seen, heard) == (["f", "g", "h"], ["broken"])
