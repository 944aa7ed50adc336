"""What one message can cost that was made to cost much: the loop must not stand still for 100 ms."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial

from bench.report import Table, section
from controlplane._pb import otlp_pb2
from controlplane._pb.lrs_pb2 import ClusterStats, LoadStatsRequest, UpstreamLocalityStats
from controlplane.server.intake import MAX_BYTES
from controlplane.sources.envoy import (
    INSTANCE,
    MAX_POINTS,
    MAX_SERIES,
    MAX_TAGS,
    parse_export,
)
from controlplane.sources.lrs import MAX_ENTRIES, LoadReports
from controlplane.xds.view import Peer

GOAL_MS = 100
KB = 1000


def run(*, quick: bool) -> None:
    """Print the CPU of taking each in, the median of some."""
    section("one crafted message of statistics, ms of CPU")
    table = Table(("", "KB", "ms", "goal"), widths=(58, 8, 8, 8))
    times = 3 if quick else 7
    stream = LoadReports().opened(Peer("127.0.0.1:1"))
    for take, messages in ((parse_export, _exports()), (stream.receive, _loads())):
        for what, data in messages.items():
            table.row(what, len(data) // KB, f"{_cost(partial(take, data), times):.1f}", f"< {GOAL_MS}")


def _cost(take: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        began = time.thread_time()
        with contextlib.suppress(ValueError):  # to be refused has its price too
            take()
        found.append((time.thread_time() - began) * 1000)
    return sorted(found)[times // 2]


def _exports() -> dict[str, bytes]:
    tag = otlp_pb2.KeyValue()
    return {
        "export: resource attributes, all that fit": _export([], [tag] * (MAX_BYTES // 2 - 100)),
        "export: one point with 1.5 million attributes": _export([_metric(1, 1_500_000)]),
        "export: as many attributes as are read": _export([_metric(1000, MAX_TAGS // 1000)]),
        "export: as many points as are read": _export([_metric(MAX_POINTS, 0)]),
        "export: as many series as are kept": _export([_metric(MAX_SERIES, 7)]),
        "export: as many metrics as are read": _export([_metric(1, 3)] * MAX_SERIES),
    }


def _metric(points: int, tags: int) -> otlp_pb2.Metric:
    point = otlp_pb2.Number(
        as_int=1, time_unix_nano=1, start_time_unix_nano=1, attributes=[otlp_pb2.KeyValue()] * tags
    )
    data = otlp_pb2.Sum(data_points=[point] * points, aggregation_temporality=otlp_pb2.TEMPORALITY_CUMULATIVE)
    return otlp_pb2.Metric(name="turnout.rq", sum=data)


def _export(metrics: list[otlp_pb2.Metric], tags: list[otlp_pb2.KeyValue] | None = None) -> bytes:
    who = otlp_pb2.KeyValue(key=INSTANCE, value=otlp_pb2.AnyValue(string_value="proxy"))
    part = otlp_pb2.ResourceMetrics(
        resource=otlp_pb2.Resource(attributes=[who, *(tags or [])]),
        scope_metrics=[otlp_pb2.ScopeMetrics(metrics=metrics)],
    )
    return otlp_pb2.ExportRequest(resource_metrics=[part]).SerializeToString()


def _loads() -> dict[str, bytes]:
    def report(stats: list[ClusterStats]) -> bytes:
        sender = LoadStatsRequest.Sender(id="client")
        return LoadStatsRequest(node=sender, cluster_stats=stats).SerializeToString()

    one = [UpstreamLocalityStats(total_successful_requests=1)]
    named = [
        ClusterStats(cluster_name=f"s~v~{number}", upstream_locality_stats=one)
        for number in range(MAX_ENTRIES // 2)
    ]
    return {
        "load report: 500 000 empty clusters": report([ClusterStats()] * 500_000),
        "load report: as many clusters as are counted": report(named),
    }
