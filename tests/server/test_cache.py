"""What a cache costs: memory that returns, and changes that touch what changed."""

from __future__ import annotations

import gc
import tracemalloc
from datetime import UTC, datetime

import pytest

from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from controlplane._pb.node_pb2 import Node
from controlplane.server import Cache
from controlplane.xds.delta import DeltaStream
from controlplane.xds.snapshot import Resource
from controlplane.xds.sotw import SotwStream
from controlplane.xds.type_urls import CLUSTER
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
        first = self.request(type_url=CLUSTER, node=Node(id=group).SerializeToString())
        self.stream.receive(first.SerializeToString(), NOW)
        self.stream.assign(group)

    def take(self, snapshot):
        self.stream.publish(snapshot)
        while (data := self.stream.next_response(NOW)) is not None:
            nonce = self.response.FromString(data).nonce
            self.stream.receive(self.request(type_url=CLUSTER, response_nonce=nonce).SerializeToString(), NOW)


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
