"""What is fuzzed. A target takes a seeded source of chance and raises whatever it should not have raised."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.mutate import mutate
from bench.wire import EVERYTHING, NODE_BYTES, first_requests, node, snapshots
from controlplane._pb import lrs_pb2, otlp_pb2
from controlplane._pb.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from controlplane.policy.loading import load
from controlplane.policy.yaml_source import read
from controlplane.resources.names import segment_cluster_name
from controlplane.server.limits import Limits
from controlplane.server.streams import XdsServer
from controlplane.server.transport import Written
from controlplane.sources.collector import Collector, Link
from controlplane.sources.envoy import LATENCIES, OUTCOMES, STARTED
from controlplane.sources.lrs import Client, LoadReports
from controlplane.xds.messages import ProtocolError, Request, parse_node, parse_request
from controlplane.xds.type_urls import ROUTE
from controlplane.xds.view import Peer, Variant

Target = Callable[[Random], None]
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
VARIANTS: Final[tuple[Variant, ...]] = ("delta", "sotw")
_MESSAGES: Final[dict[Variant, type[Request]]] = {"delta": DeltaDiscoveryRequest, "sotw": DiscoveryRequest}
_TYPES: Final = (*(url for url, _ in EVERYTHING), "type.googleapis.com/x.Y", "", "nonsense")
_NODES: Final = (node(1), node(2, NODE_BYTES), node(3))
_NAMES: Final = ("*", "checkout", "checkout~v1", "checkout~v2", "", "x" * 300, "other", "é")


class _Client:
    """A transport without a socket: it gives what the random client sends, and counts what it gets."""

    def __init__(self, random: Random, variant: Variant, publish: Callable[[], None]) -> None:
        self.peer = Peer("127.0.0.1:1")
        self._random, self._variant, self._publish = random, variant, publish
        self._left = random.randint(1, 12)
        self._pending = first_requests(variant, node(random.randrange(3)), EVERYTHING[: random.randint(1, 5)])
        self._answers = 0

    end = None

    async def read(self) -> bytes | None:
        """Return the next request, mutated or not; a publication may come before it."""
        await asyncio.sleep(0)
        if self._left == 0:
            return None
        self._left -= 1
        if self._random.random() < 0.3:
            self._publish()
            await asyncio.sleep(0)
        data = self._pending.pop(0) if self._pending else self._request()
        corpus = (data, *_SEEDS[self._variant])
        return mutate(self._random, data, corpus) if self._random.random() < 0.4 else data

    def write(self, data: bytes, done: Written) -> None:
        """Take a response, at once or soon; at most three times as many as could be due."""
        self._answers += 1
        if self._answers > 1000:
            raise RuntimeError("a stream sends without end")
        if self._random.random() < 0.5:
            done(None)
        else:
            asyncio.get_running_loop().call_soon(done, None)

    def finish(self, status: str, text: str) -> None:
        """The stream ends with a status."""

    def _request(self) -> bytes:
        random = self._random
        fields: Any = {
            "type_url": random.choice(_TYPES),
            "response_nonce": random.choice(("", *map(str, range(1, 9)))),
        }
        message = _MESSAGES[self._variant](**fields)
        names = random.sample(_NAMES, random.randint(0, 4))
        if random.random() < 0.2:
            message.error_detail.message = random.choice((b"no", b"\xff\xfe", b"x" * 5000))
        if isinstance(message, DiscoveryRequest):
            message.resource_names.extend(names)
            message.version_info = random.choice(("", "1001.abc", "99999.abc", "x", "1.", "²1.a"))
        else:
            message.resource_names_subscribe.extend(names)
            message.resource_names_unsubscribe.extend(random.sample(_NAMES, random.randint(0, 2)))
            for name in random.sample(_NAMES, random.randint(0, 2)):
                message.initial_resource_versions[name] = random.choice(("1001.abc", "0.", "", "9" * 30))
        data: bytes = message.SerializeToString()
        return data


_SEEDS: Final = {variant: tuple(first_requests(variant, node(1), EVERYTHING)) for variant in VARIANTS}


def stream(variant: Variant) -> Target:
    """Return a target: a whole stream of the server, from its first request to its end."""
    loop = asyncio.new_event_loop()

    def target(random: Random) -> None:
        sequence = snapshots()
        server = XdsServer(lambda n: n.cluster or None, limits=Limits(first_requests=1e9, behind_timeout=0.0))

        def publish() -> None:
            snapshot = sequence.next(random.randint(4, 100))
            if random.random() < 0.3:  # a service goes
                snapshot = type(snapshot)(
                    snapshot.revision,
                    {u: t for u, t in snapshot.resources.items() if u != ROUTE},
                    snapshot.order,
                )
            server.publish("edge", snapshot)

        async def life() -> None:
            publish()
            await server.serve(_Client(random, variant, publish), variant)

        loop.run_until_complete(life())
        if server.views():
            raise RuntimeError("the stream ended and is still listed")

    return target


def requests(random: Random) -> None:
    """The decoder of requests, and of the node."""
    variant = random.choice(VARIANTS)
    corpus = _SEEDS[variant]
    data = mutate(random, random.choice(corpus), corpus)
    with contextlib.suppress(ProtocolError):
        parse_node(parse_request(_MESSAGES[variant], data).node)


def nodes(random: Random) -> None:
    """The decoder of the node alone, with an Envoy's full one among the seeds."""
    with contextlib.suppress(ProtocolError):
        parse_node(mutate(random, random.choice(_NODES), _NODES))


def exports() -> Target:
    """Return a target: the decoder of statistics, and the counting of what it let through."""
    corpus = tuple(_export(at) for at in range(1, 4))
    collector = Collector(timedelta(seconds=5))
    links = {"edge-1": Link(Peer("127.0.0.1:1"), frozenset({"checkout"}))}

    def target(random: Random) -> None:
        nonlocal collector
        try:
            data = mutate(random, random.choice(corpus), corpus)
            collector.receive(Peer("127.0.0.1:2"), data, NOW)
        except ValueError:  # the intake answers INVALID_ARGUMENT
            return
        end, services = NOW + timedelta(seconds=5), {"checkout": {"v1", "v2"}}
        for _ in collector.counting(NOW, end, links, services):
            pass
        if random.random() < 0.5:
            collector.commit()
        if random.random() < 0.02:
            collector = Collector(timedelta(seconds=5))

    return target


def _export(at: int) -> bytes:
    def tags(**values: str) -> list[otlp_pb2.KeyValue]:
        return [
            otlp_pb2.KeyValue(key=key.replace("__", "."), value=otlp_pb2.AnyValue(string_value=value))
            for key, value in values.items()
        ]

    times: Any = {
        "start_time_unix_nano": 1_795_544_000_006_484,
        "time_unix_nano": 1_795_544_000_006_484_000 + at * 10**9,
    }
    owner = {"service": "checkout", "segment": "everyone", "cluster": "checkout~v1"}
    rows = [
        otlp_pb2.Number(**times, as_int=10 * at, attributes=tags(**owner, **{"class": kind}))
        for kind in ("ok", "error", "client_error")
    ]
    slow = otlp_pb2.Distribution(**times, count=10 * at, bucket_counts=[at] * 10, attributes=tags(**owner))
    total = otlp_pb2.Number(**times, as_int=30 * at, attributes=tags(envoy__http_conn_manager_prefix="http"))
    cumulative: Any = {"aggregation_temporality": otlp_pb2.TEMPORALITY_CUMULATIVE}
    metrics = (
        otlp_pb2.Metric(
            name=OUTCOMES,
            sum=otlp_pb2.Sum(data_points=rows, **cumulative),
        ),
        otlp_pb2.Metric(
            name=LATENCIES,
            histogram=otlp_pb2.Histogram(data_points=[slow], **cumulative),
        ),
        otlp_pb2.Metric(
            name=STARTED,
            sum=otlp_pb2.Sum(data_points=[total], **cumulative),
        ),
    )
    resource = otlp_pb2.Resource(attributes=tags(service__instance__id="edge-1"))
    part = otlp_pb2.ResourceMetrics(resource=resource, scope_metrics=[otlp_pb2.ScopeMetrics(metrics=metrics)])
    return otlp_pb2.ExportRequest(resource_metrics=[part]).SerializeToString()


def reports() -> Target:
    """Return a target: the decoder of gRPC clients' load reports, and the counting of what it let through."""
    places = [lrs_pb2.UpstreamLocalityStats(total_successful_requests=90, total_error_requests=10)]
    clusters = [
        lrs_pb2.ClusterStats(
            cluster_name=segment_cluster_name("checkout", version, "everyone"),
            upstream_locality_stats=places,
            total_dropped_requests=3,
        )
        for version in ("v1", "v2")
    ]
    sender = lrs_pb2.LoadStatsRequest.Sender(id="client-1")
    corpus = (
        lrs_pb2.LoadStatsRequest(node=sender, cluster_stats=clusters).SerializeToString(),
        lrs_pb2.LoadStatsRequest(cluster_stats=clusters[:1]).SerializeToString(),
    )
    peer = Peer("127.0.0.1:1")
    connected = {"client-1": Client(frozenset({"127.0.0.1"}), frozenset({"checkout"}))}

    def target(random: Random) -> None:
        loads = LoadReports(timedelta(seconds=5))
        taker = loads.opened(peer)
        try:
            for data in (corpus[0], *(mutate(random, random.choice(corpus), corpus) for _ in range(3))):
                taker.receive(data)
        except ValueError:  # the service answers INVALID_ARGUMENT
            pass
        for _ in loads.counting(NOW, NOW + timedelta(seconds=5), connected, {"checkout": {"v1", "v2"}}):
            pass
        loads.commit()
        taker.close()

    return target


def policies(folder: Path) -> dict[str, bytes]:
    """Return the example documents: the seeds of what operators write."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.yaml"))}


def yaml(seeds: dict[str, bytes]) -> Target:
    """Return a target: the reader of YAML."""
    corpus = tuple(seeds.values())

    def target(random: Random) -> None:
        read("fuzz.yaml", mutate(random, random.choice(corpus), corpus))

    return target


def documents(seeds: dict[str, bytes]) -> Target:
    """Return a target: a whole folder with one mutated file, up to the catalog."""
    corpus, names = tuple(seeds.values()), tuple(seeds)
    good = load(seeds).catalog

    def target(random: Random) -> None:
        name = random.choice(names)
        loaded = load({**seeds, name: mutate(random, seeds[name], corpus)}, good)
        for problem in loaded.problems:
            str(problem)
        type(good).from_json(loaded.catalog.to_json())

    return target


def targets(folder: Path) -> dict[str, Target]:
    """Return all targets by name."""
    gc.collect()
    seeds = policies(folder)
    return {
        "stream-delta": stream("delta"),
        "stream-sotw": stream("sotw"),
        "request": requests,
        "node": nodes,
        "export": exports(),
        "load-report": reports(),
        "yaml": yaml(seeds),
        "documents": documents(seeds),
    }
