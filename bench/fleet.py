"""What a whole tick takes of the event loop: many services, many proxies, with and without releases.

Everything is real but the streams: documents are taken, orders given, exports received, ticks stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from controlplane._pb import otlp_pb2
from controlplane.app import logs
from controlplane.app.plane import Plane
from controlplane.app.publish import Publisher
from controlplane.app.statistics import StreamStatistics
from controlplane.app.tick import Loop
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.stats import REPORTS, REPORTS_KEY
from controlplane.release.ports import World
from controlplane.release.seen import Propagation
from controlplane.release.traffic import Endpoints
from controlplane.server.garbage import collect_seldom
from controlplane.sources.collector import Collector
from controlplane.sources.lrs import LoadReports
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Order
from controlplane.xds.messages import Node
from controlplane.xds.view import Peer, StreamView

START = datetime(2026, 1, 1, tzinfo=UTC)
INTERVAL = timedelta(seconds=5)
HEALTHY = 100  # services of whose endpoints a proxy says something
FLEET = "kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners:\n  - {name: i, address: 127.0.0.1:1}\n"
SERVICE = """kind: Service
name: m%d
routes: [{host: m%d.example.com}]
fleets: [edge]
user: {from: [{cookie: uid}]}
versions: {v1: {endpoints: [127.0.0.1:1]}, v2: {endpoints: [127.0.0.1:2]}}
initial: v1
"""
POLICY = """kind: Policy
name: p
steps:
  - {name: ten, everyone: 10%, for: 30m}
  - {name: all, everyone: 100%}
conditions: [{success_rate: {at_least: 99%}}, {latency: {p99: 400ms}}]
"""


@dataclass(frozen=True)
class _Proxies:
    """Streams that have acknowledged everything."""

    names: tuple[str, ...]
    publisher: Publisher

    def views(self) -> tuple[StreamView, ...]:
        return tuple(
            StreamView(
                peer=Peer(f"10.0.{number // 250}.{number % 250}:1"),
                variant="delta",
                since=START,
                node=Node(name, "edge", {REPORTS_KEY: REPORTS}),
                group="edge",
                revision=1,
                behind=False,
                types=(),
            )
            for number, name in enumerate(self.names)
        )

    def looking(self) -> Iterator[None]:
        return iter(())

    def propagation(self, world: World, service: str) -> Propagation:
        return Propagation(self.names, self.names)

    def endpoints(self, world: World, service: str) -> Endpoints:
        return self.publisher.endpoints(world, service)


def export(number: int, services: int, tick: int, *, counts: bool) -> bytes:
    """Return what a proxy pushes: endpoints of some services, and requests of one if any are counted."""
    at, begin = int((START + tick * INTERVAL).timestamp() * 1e9) - 10**9, int(START.timestamp() * 1e9)
    request = otlp_pb2.ExportRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.instance.id").value.string_value = f"n{number}"
    metrics = resource.scope_metrics.add().metrics
    healthy = metrics.add(name="cluster.membership_healthy").gauge
    for each in range(number, number + min(HEALTHY, services)):
        point = healthy.data_points.add(as_int=1, time_unix_nano=at)
        name = point.attributes.add(key="envoy.cluster_name")
        name.value.string_value = f"m{each % services}~v1"
    if not counts:
        return request.SerializeToString()
    outcomes, latencies = metrics.add(name="turnout.rq"), metrics.add(name="turnout.t")
    for metric in (outcomes.sum, latencies.histogram):
        metric.aggregation_temporality = otlp_pb2.TEMPORALITY_CUMULATIVE
    for version, share in (("v1", 90), ("v2", 10)):
        service, many = f"m{number % services}", share * tick
        places = {"service": service, "segment": "everyone", "cluster": f"{service}~{version}"}
        point = outcomes.sum.data_points.add(as_int=many, start_time_unix_nano=begin, time_unix_nano=at)
        for key, value in (*places.items(), ("class", "ok")):
            point.attributes.add(key=key).value.string_value = value
        bars = latencies.histogram.data_points.add(
            count=many, start_time_unix_nano=begin, time_unix_nano=at,
            explicit_bounds=[float(edge) for edge in EDGES_MS],
            bucket_counts=[many, *[0] * len(EDGES_MS)],
        )  # fmt: skip
        for key, value in places.items():
            bars.attributes.add(key=key).value.string_value = value
    ended = metrics.add(name="http.downstream_rq_total").sum
    ended.aggregation_temporality = otlp_pb2.TEMPORALITY_CUMULATIVE
    total = ended.data_points.add(as_int=100 * tick, start_time_unix_nano=begin, time_unix_nano=at)
    total.attributes.add(key="envoy.http_conn_manager_prefix").value.string_value = "i"
    return request.SerializeToString()


class _Site:
    """A control plane in this process, and its clock."""

    def __init__(self, store: SqliteStore, services: int, proxies: int) -> None:
        self.services, self.proxies, self.number = services, proxies, 0
        publisher, self.collector = Publisher(store), Collector(INTERVAL)
        streams = _Proxies(tuple(f"n{number}" for number in range(proxies)), publisher)
        statistics = StreamStatistics(streams, self.collector, LoadReports(INTERVAL))  # type: ignore[arg-type]
        self.loop = Loop(store, statistics, streams, INTERVAL)
        self.plane = Plane(store, self.loop, publisher, self.collector, lambda: self.now)

    @property
    def now(self) -> datetime:
        return START + self.number * INTERVAL

    async def documents(self) -> None:
        await self.loop.restore()
        files = {f"m{number}.yaml": SERVICE % (number, number) for number in range(self.services)}
        files["edge.yaml"] = FLEET + "---\n" + POLICY
        applied = await self.plane.take({name: text.encode() for name, text in files.items()}, "bench")
        if applied.problems:
            raise RuntimeError(str(applied.problems[:3]))

    async def order(self, releases: int) -> None:
        for number in range(releases):
            await self.plane.order(Order(service=f"m{number}", to="v2", policy="p", actor="bench"))

    async def arrive(self, *, counts: bool) -> None:
        """Let an interval pass, in which each proxy pushes."""
        self.number += 1
        for number in range(self.proxies):
            data = export(number, self.services, self.number, counts=counts)
            self.collector.receive(Peer(f"10.0.{number // 250}.{number % 250}:2"), data, self.now)

    async def tick(self) -> None:
        """Observe, decide and save."""
        await self.loop.tick(self.now, self.number * INTERVAL.total_seconds())


async def _took(ticking: Coroutine[Any, Any, None]) -> float:
    """Return the milliseconds of the loop's CPU that a tick takes."""
    began = time.thread_time()
    await ticking
    return (time.thread_time() - began) * 1000


async def longest(ticking: Coroutine[Any, Any, None]) -> float:
    """Return the milliseconds of the longest turn of the loop in a tick: others wait for so long."""
    task, most = asyncio.ensure_future(ticking), 0.0
    while not task.done():
        began = time.thread_time()
        await asyncio.sleep(0)
        most = max(most, time.thread_time() - began)
    await task
    return most * 1000


async def _case(site: _Site, rounds: int, *, counts: bool) -> dict[str, float]:
    took, turns = [], []
    for _ in range(rounds + 1):
        await site.arrive(counts=counts)
        took.append(await _took(site.tick()))
        await site.arrive(counts=counts)
        turns.append(await longest(site.tick()))
    # The first of a kind meets what later ones know.
    return {"cpu_ms_median": round(median(took[1:]), 1), "longest_turn_ms": round(max(turns[1:]), 1)}


async def _measured(services: int, proxies: int, releases: int, rounds: int) -> dict[str, Any]:
    async with AsyncExitStack() as leaving:
        folder = leaving.enter_context(TemporaryDirectory())
        store = await SqliteStore(Path(folder)).open()
        leaving.push_async_callback(store.close)
        site = _Site(store, services, proxies)
        await site.documents()
        found: dict[str, Any] = {"services": services, "proxies": proxies}
        found["nothing counted"] = await _case(site, rounds, counts=False)
        found["each service counted"] = await _case(site, rounds, counts=True)
        await site.order(releases)
        found[f"and {releases} releases"] = await _case(site, rounds, counts=True)
        return found


def fleet(services: int, proxies: int, releases: int, rounds: int = 2) -> dict[str, Any]:
    """Return what ticks take, by what there is to do in them, and how long others wait at most."""
    logs.configure("error")
    collect_seldom()  # as the server does
    return asyncio.run(_measured(services, proxies, releases, rounds))
