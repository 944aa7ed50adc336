"""Exports as Envoy's OpenTelemetry sink writes them."""

from __future__ import annotations

import pytest

from controlplane._pb import otlp_pb2
from controlplane.policy.latency import EDGES_MS

START = 1_795_544_000_006_484  # Envoy 1.40 writes microseconds here
SECOND = 10**9


def tags(**values):
    return [
        otlp_pb2.KeyValue(key=key.replace("__", "."), value=otlp_pb2.AnyValue(string_value=value))
        for key, value in values.items()
    ]


def buckets(**slow):
    """Counts per bucket: ``at_400=3`` is three requests of more than 300 and up to 400 ms; ``beyond=1``."""
    counts = [0] * (len(EDGES_MS) + 1)
    for edge, count in slow.items():
        counts[-1 if edge == "beyond" else EDGES_MS.index(int(edge.removeprefix("at_")))] += count
    return counts


def message(
    rq=(),
    t=(),
    *,
    proxy="edge-1",
    at=1,
    start=START,
    ended=None,
    active=0,
    listener="ingress",
    temporality=2,
    reached=None,
    failed=(),
    statuses=(),
    healthy=None,
    retries=None,
):
    """Encode an export.

    Args:
        rq: Rows of service, segment, cluster, class, count.
        t: Rows of service, segment, cluster, counts per bucket.
        proxy: Node id.
        at: Seconds between ``start`` and the export.
        start: Begin of the process, microseconds.
        ended: Ended requests; by default what ``rq`` has.
        active: Requests in flight.
        listener: Its stat prefix.
        temporality: 2 is cumulative.
        reached: Requests that were passed on, by cluster.
        healthy: Healthy endpoints, by cluster.
        retries: Attempts that were made again, by cluster.
        failed: Rows of service, segment, cluster, failed attempts.
        statuses: Rows of service, segment, cluster, gRPC status, calls.
    """
    begin, now = start, start * 1000 + at * SECOND
    metrics = [
        otlp_pb2.Metric(
            name="cluster.membership_healthy",
            gauge=otlp_pb2.Gauge(
                data_points=[
                    otlp_pb2.Number(
                        time_unix_nano=now, attributes=tags(envoy__cluster_name=cluster), as_int=count
                    )
                    for cluster, count in (healthy or {"turnout": 1}).items()
                ]
            ),
        )
    ]
    if rq:
        points = [
            otlp_pb2.Number(
                start_time_unix_nano=begin,
                time_unix_nano=now,
                attributes=tags(service=service, segment=segment, cluster=cluster, **{"class": kind}),
                **({"as_int": count} if isinstance(count, int) else {"as_double": count}),
            )
            for service, segment, cluster, kind, count in rq
        ]
        data = otlp_pb2.Sum(data_points=points, aggregation_temporality=temporality, is_monotonic=True)
        metrics.append(otlp_pb2.Metric(name="turnout.rq", sum=data))
    total = sum(row[4] for row in rq) if ended is None else ended
    if total > 0:
        prefix = tags(envoy__http_conn_manager_prefix=listener)
        point = otlp_pb2.Number(
            start_time_unix_nano=begin, time_unix_nano=now, attributes=prefix, as_int=total + active
        )
        data = otlp_pb2.Sum(data_points=[point], aggregation_temporality=temporality, is_monotonic=True)
        metrics.append(otlp_pb2.Metric(name="http.downstream_rq_total", sum=data))
        gauge = otlp_pb2.Number(time_unix_nano=now, attributes=prefix, as_int=active)
        metrics.append(
            otlp_pb2.Metric(name="http.downstream_rq_active", gauge=otlp_pb2.Gauge(data_points=[gauge]))
        )
    by_cluster = (("upstream_rq_total", reached), ("upstream_rq_retry", retries))
    for counter, counts in ((name, found) for name, found in by_cluster if found):
        points = [
            otlp_pb2.Number(
                start_time_unix_nano=begin,
                time_unix_nano=now,
                attributes=tags(envoy__cluster_name=cluster),
                as_int=count,
            )
            for cluster, count in counts.items()
        ]
        data = otlp_pb2.Sum(data_points=points, aggregation_temporality=temporality, is_monotonic=True)
        metrics.append(otlp_pb2.Metric(name=f"cluster.{counter}", sum=data))
    if failed:
        points = [
            otlp_pb2.Number(
                start_time_unix_nano=begin,
                time_unix_nano=now,
                attributes=tags(service=service, segment=segment, cluster=cluster),
                as_int=count,
            )
            for service, segment, cluster, count in failed
        ]
        data = otlp_pb2.Sum(data_points=points, aggregation_temporality=temporality, is_monotonic=True)
        metrics.append(otlp_pb2.Metric(name="turnout.failed", sum=data))
    if statuses:
        points = [
            otlp_pb2.Number(
                start_time_unix_nano=begin,
                time_unix_nano=now,
                attributes=tags(service=service, segment=segment, cluster=cluster, status=status),
                as_int=count,
            )
            for service, segment, cluster, status, count in statuses
        ]
        data = otlp_pb2.Sum(data_points=points, aggregation_temporality=temporality, is_monotonic=True)
        metrics.append(otlp_pb2.Metric(name="turnout.grpc", sum=data))
    if t:
        points = [
            otlp_pb2.Distribution(
                start_time_unix_nano=begin,
                time_unix_nano=now,
                count=sum(counts),
                bucket_counts=counts,
                explicit_bounds=EDGES_MS,
                attributes=tags(service=service, segment=segment, cluster=cluster),
            )
            for service, segment, cluster, counts in t
        ]
        data = otlp_pb2.Histogram(data_points=points, aggregation_temporality=temporality)
        metrics.append(otlp_pb2.Metric(name="turnout.t", histogram=data))
    return request(proxy, metrics)


def request(proxy, metrics):
    resource = otlp_pb2.Resource(attributes=tags(service__instance__id=proxy) if proxy is not None else [])
    part = otlp_pb2.ResourceMetrics(resource=resource, scope_metrics=[otlp_pb2.ScopeMetrics(metrics=metrics)])
    return otlp_pb2.ExportRequest(resource_metrics=[part]).SerializeToString()


def traffic(count, *, cluster="shop~v1", kind="ok", segment="everyone", edge="at_10", **options):
    """Encode an export of one group of requests, with a latency for each."""
    return message(
        [("shop", segment, cluster, kind, count)],
        [("shop", segment, cluster, buckets(**{edge: count}))] if count and kind != "abort" else (),
        **options,
    )


@pytest.fixture
def otlp():
    from types import SimpleNamespace

    return SimpleNamespace(
        tags=tags,
        START=START,
        SECOND=SECOND,
        buckets=buckets,
        message=message,
        request=request,
        traffic=traffic,
    )
