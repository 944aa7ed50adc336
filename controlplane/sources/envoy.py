"""Envoy's own counters, as its OpenTelemetry sink pushes them: what one export says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from controlplane._pb import otlp_pb2
from controlplane.policy.grpc_codes import MEASURE
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.stats import CLUSTER_STATS
from controlplane.resources.names import cluster_of, segment_cluster

MAX_SERIES = 20_000  # per proxy; as many are about 4 MiB, and take 60 ms to read
MAX_SCOPES = 16  # Envoy sends one
# What 4 MiB of an Envoy's statistics cannot have: reading more points and tags takes too long at a time. A
# small export need not be looked through for them.
MAX_RESOURCE_TAGS = 1000
MAX_POINTS = 100_000
MAX_TAGS = 150_000
_SMALL = 128 << 10  # bytes
INSTANCE = "service.instance.id"
OUTCOMES = "turnout.rq"
LATENCIES = "turnout.t"
FAILED = "turnout.failed"
STATUSES = "turnout.grpc"
STATUS = re.compile("[0-9]|1[0-6]")
HEALTHY = "membership_healthy"
STARTED = "http.downstream_rq_total"
ACTIVE = "http.downstream_rq_active"
LISTENER = "envoy.http_conn_manager_prefix"
# Envoy takes a cluster's name to end at its first dot, and leaves the rest in the name of the counter.
REACHED = re.compile(r"cluster\.(?:(?P<rest>.+)\.)?upstream_rq_total")
CLUSTER = "envoy.cluster_name"
MEASURES = tuple(f"turnout.{kind}." for kind in "ns")  # counted and summed headers
BESIDES = re.compile(
    rf"cluster\.(?:(?P<rest>.+)\.)?(?P<stat>{'|'.join(map(re.escape, (HEALTHY, *CLUSTER_STATS)))})"
)
VERSIONED = "~"  # clusters of services are named service~version; what follows a second one is no request's
CLASSES = frozenset({"ok", "c4", "limited", "bad", "abort"})

# What Envoy counts of the clusters of adopted listeners, which have a segment in their names, and no logger.
DONE = "cluster.upstream_rq_completed"
BY_CLASS = "cluster.upstream_rq_xx"
BY_CODE = "cluster.upstream_rq"
TOOK = "cluster.upstream_rq_time"
CODE_CLASS = "envoy.response_code_class"
CODE = "envoy.response_code"
LIMITED = "429"  # in the class 4xx too
CLUSTER_CLASSES = frozenset({"2xx", "3xx", "4xx", "5xx", LIMITED})

Group = tuple[str, str, str]  # service, segment, cluster; empty where a request had none
Measured = tuple[str, str, str, str]  # the same and, first, the series
Outcome = tuple[str, str, str, str]  # the same and the class

_EDGES = [float(edge) for edge in EDGES_MS]


class MalformedError(ValueError):
    """An export that cannot be read, or is not what the bootstrap asks Envoy for."""


@dataclass(frozen=True, slots=True)
class Export:
    """What one proxy counted since it started.

    Attributes:
        proxy: Its node id.
        start: Begin of its process, nanoseconds since 1970 by its own clock; 0 while it has no counter.
        time: When it exported, likewise.
        outcomes: Ended requests.
        latencies: Requests per bucket of EDGES_MS, the last one beyond all edges.
            Those with a class of client aborts are left out.
        ended: Requests that ended, per listener (its stat prefix), counted apart from ``outcomes``.
        active: Requests that have not ended, of the same listeners.
        reached: Requests that were passed on to each cluster of a service, whoever sent them there. Not those
            it completed: Envoy counts an early hint among them, as if it were an answer.
        failed: Attempts that failed, of services with retries, the last one of a request among them.
        healthy: Endpoints of each cluster of a service that pass their checks and are no outliers.
        measures: Sums by series (``n.HEADER``, ``s.HEADER``, or ``grpc:CODE``) and group.
        stats: Counters of clusters of a service, by cluster and name.
        flaw: What could not be read of it, or None.
        cut: Whether series beyond MAX_SERIES were left out.
    """

    proxy: str
    start: int
    time: int
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    latencies: Mapping[Group, tuple[int, ...]] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)
    active: int = 0
    reached: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[Group, int] = field(default_factory=dict)
    healthy: Mapping[str, int] = field(default_factory=dict)
    measures: Mapping[Measured, int] = field(default_factory=dict)
    stats: Mapping[tuple[str, str], int] = field(default_factory=dict)
    flaw: str | None = None
    cut: bool = False

    def restarted(self, earlier: Export) -> bool:
        """Return whether it comes from another process than ``earlier``."""
        return self.start != earlier.start and 0 not in {self.start, earlier.start}

    def overlaps(self, earlier: Export) -> bool:
        """Return whether it comes from another process, one that already ran when ``earlier`` was sent."""
        return self.restarted(earlier) and self.start < earlier.time


def parse_export(data: bytes, listens: Callable[[str], bool] = lambda prefix: True) -> Export:
    """Read an OpenTelemetry ``ExportMetricsServiceRequest``.

    Args:
        data: The message.
        listens: Whether a listener's stat prefix is ours; requests of others have no outcome.

    Raises:
        MalformedError: If it is no such message, names no proxy or several, has no point with a time, or is
            not cumulative.

    Source: OpenTelemetry protocol, metrics data model.
    """
    try:
        message = otlp_pb2.ExportRequest.FromString(data)
    except DecodeError as error:
        raise MalformedError("not an OpenTelemetry metrics export") from error
    proxy = _proxy(message.resource_metrics)
    scopes = [scope for part in message.resource_metrics for scope in part.scope_metrics]
    if sum(len(scope.metrics) for scope in scopes) > MAX_SERIES:
        raise MalformedError(f"the export of {proxy!r} has more than {MAX_SERIES} metrics")
    if len(data) > _SMALL:
        _check_size(proxy, [metric for scope in scopes for metric in scope.metrics])
    reader = _Reader()
    for scope in scopes:
        for metric in scope.metrics:
            reader.read(metric)
    if not reader.time:
        raise MalformedError(f"the export of {proxy!r} has no point with a time")
    clusters = _counted(reader.healthy)
    counted = {cluster for own in clusters.values() for cluster in own}
    return Export(
        proxy,
        # Envoy 1.40 puts microseconds into this field of nanoseconds, but not into the time.
        reader.start * 1000 if reader.start < 10**17 else reader.start,
        reader.time,
        reader.outcomes,
        reader.latencies,
        {name: count - reader.active.get(name, 0) for name, count in reader.started.items() if listens(name)}
        | reader.done,
        sum(count for name, count in reader.active.items() if listens(name)),
        {name: count for name, count in reader.reached.items() if name.count(VERSIONED) == 1},
        reader.failed,
        {version: min(map(reader.healthy.__getitem__, own)) for version, own in clusters.items()},
        reader.measures,
        {key: count for key, count in reader.stats.items() if key[0] in counted},
        reader.flaw,
        reader.cut,
    )


def _proxy(parts: Sequence[otlp_pb2.ResourceMetrics]) -> str:
    if len(parts) > MAX_SCOPES or sum(len(part.scope_metrics) for part in parts) > MAX_SCOPES:
        raise MalformedError(f"the export has more than {MAX_SCOPES} resources or scopes")
    if sum(len(part.resource.attributes) for part in parts) > MAX_RESOURCE_TAGS:
        raise MalformedError(f"the export has more than {MAX_RESOURCE_TAGS} resource attributes")
    names = {
        tag.value.string_value for part in parts for tag in part.resource.attributes if tag.key == INSTANCE
    }
    if len(names) != 1 or "" in names:
        raise MalformedError(
            f"the export has {len(names)} values of {INSTANCE}, one that is not empty is allowed"
        )
    return str(names.pop())


def _check_size(proxy: str, metrics: Sequence[otlp_pb2.Metric]) -> None:
    kinds = ((metric, metric.WhichOneof("data")) for metric in metrics)
    points = [getattr(metric, kind).data_points for metric, kind in kinds if kind]
    tags = 0
    if sum(map(len, points)) <= MAX_POINTS:
        tags = sum(len(point.attributes) for some in points for point in some)
        if tags <= MAX_TAGS:
            return
    most = f"{MAX_TAGS} attributes" if tags else f"{MAX_POINTS} points"
    raise MalformedError(f"the export of {proxy!r} has more than {most}")


class _Reader:
    """Collects the points of one message."""

    def __init__(self) -> None:
        self.start = self.time = 0
        self.outcomes: dict[Outcome, int] = {}
        self.latencies: dict[Group, tuple[int, ...]] = {}
        self.started: dict[str, int] = {}
        self.active: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        self.failed: dict[Group, int] = {}
        self.done: dict[str, int] = {}
        self.healthy: dict[str, int] = {}
        self.measures: dict[Measured, int] = {}
        self.stats: dict[tuple[str, str], int] = {}
        self.flaw: str | None = None
        self.cut = False
        self._points = 0

    def read(self, metric: otlp_pb2.Metric) -> None:
        name = metric.name
        if name == OUTCOMES:
            self._cumulative(metric.sum)
            self._read_outcomes(metric.sum.data_points)
        elif name == LATENCIES:
            self._cumulative(metric.histogram)
            self._read_latencies(metric.histogram.data_points)
        elif name == STARTED:
            self._cumulative(metric.sum)
            self._read_owners(metric.sum.data_points, LISTENER, self.started)
        elif name == ACTIVE:
            self._read_owners(metric.gauge.data_points, LISTENER, self.active)
        elif found := REACHED.fullmatch(name):
            self._cumulative(metric.sum)
            rest = f".{found['rest']}" if found["rest"] else ""
            self._read_owners(metric.sum.data_points, CLUSTER, self.reached, rest)
        elif name in {DONE, BY_CLASS, BY_CODE}:
            self._cumulative(metric.sum)
            self._read_codes(name, metric.sum.data_points)
        elif name == TOOK:
            self._cumulative(metric.histogram)
            self._read_times(metric.histogram.data_points)
        elif name in {FAILED, STATUSES} or name.startswith(MEASURES):
            self._cumulative(metric.sum)
            self._read_besides(name, metric.sum.data_points)
        elif found := BESIDES.fullmatch(name):
            self._read_clusters(metric, found["stat"], f".{found['rest']}" if found["rest"] else "")
        else:
            self._tell_time(metric)

    def _tell_time(self, metric: otlp_pb2.Metric) -> None:
        if not self.time and (kind := metric.WhichOneof("data")):
            # A proxy without any traffic has only other points to tell the time by.
            self.time = max((point.time_unix_nano for point in getattr(metric, kind).data_points), default=0)

    def _cumulative(self, data: otlp_pb2.Sum | otlp_pb2.Histogram) -> None:
        if data.aggregation_temporality != otlp_pb2.TEMPORALITY_CUMULATIVE:
            raise MalformedError("the counters are not cumulative, see stats_sinks in the bootstrap")
        for point in data.data_points[:1]:  # the sink gives all points of an export the same times
            self.start, self.time = point.start_time_unix_nano, point.time_unix_nano

    def _full(self) -> bool:
        self.cut = self.cut or self._points >= MAX_SERIES
        self._points += 1
        return self.cut

    def _read_outcomes(self, points: Iterable[otlp_pb2.Number]) -> None:
        for point in points:
            if self._full():
                return
            tags = {tag.key: tag.value.string_value for tag in point.attributes}
            # An expression over the response code of a request that never had one leaves its tag empty.
            kind = tags.get("class") or "abort"
            if kind not in CLASSES:
                self.flaw = f"unknown outcome class {kind[:20]!r}"
            elif not point.HasField("as_int") or point.as_int < 0:
                self.flaw = "a counter is not a whole number from 0"
            else:
                key = (tags.get("service", ""), tags.get("segment", ""), tags.get("cluster", ""), kind)
                self.outcomes[key] = self.outcomes.get(key, 0) + point.as_int

    def _tagged(self, points: Iterable[otlp_pb2.Number]) -> Iterator[tuple[Group, int]]:
        """Yield service, segment and cluster of each counter, and what it counts."""
        for point in points:
            if self._full():
                return
            tags = {tag.key: tag.value.string_value for tag in point.attributes}
            if not point.HasField("as_int") or point.as_int < 0:
                self.flaw = "a counter is not a whole number from 0"
            else:
                yield (
                    (tags.get("service", ""), tags.get("segment", ""), tags.get("cluster", "")),
                    point.as_int,
                )

    def _read_besides(self, name: str, points: Iterable[otlp_pb2.Number]) -> None:
        """Read what is counted besides requests: attempts, gRPC statuses, business metrics."""
        if name == FAILED:
            for key, count in self._tagged(points):
                self.failed[key] = self.failed.get(key, 0) + count
        elif name == STATUSES:
            self._read_statuses(points)
        else:
            series = name.partition(".")[2]
            for key, count in self._tagged(points):
                self.measures[series, *key] = self.measures.get((series, *key), 0) + count

    def _read_statuses(self, points: Iterable[otlp_pb2.Number]) -> None:
        """Read how many calls ended with each gRPC status; what is none has no code."""
        for point in points:
            status = next((tag.value.string_value for tag in point.attributes if tag.key == "status"), "")
            for key, count in self._tagged([point]):
                if STATUS.fullmatch(status):
                    self.measures[f"{MEASURE}{status}", *key] = count

    def _read_clusters(self, metric: otlp_pb2.Metric, stat: str, rest: str) -> None:
        """Read one gauge or counter of clusters; ``rest`` of their names stands in the metric's."""
        if stat == HEALTHY:
            self._tell_time(metric)
            points = metric.gauge.data_points
        else:
            self._cumulative(metric.sum)
            points = metric.sum.data_points
        found: dict[str, int] = {}
        self._read_owners(points, CLUSTER, found, rest)
        for name, count in found.items():
            if stat == HEALTHY:
                self.healthy[cluster_of(name)] = count
            else:
                self.stats[cluster_of(name), stat] = count

    def _read_latencies(self, points: Iterable[otlp_pb2.Distribution]) -> None:
        for point in points:
            if self._full():
                return
            tags = {tag.key: tag.value.string_value for tag in point.attributes}
            if tags.get("class", "ok") in {"abort", ""}:
                continue
            key = (tags.get("service", ""), tags.get("segment", ""), tags.get("cluster", ""))
            self._read_buckets(key, point)

    def _read_buckets(self, group: Group, point: otlp_pb2.Distribution) -> None:
        counts = tuple(point.bucket_counts)
        if point.explicit_bounds != _EDGES or len(counts) != len(_EDGES) + 1:
            self.flaw = "latency buckets are not those of the bootstrap"
        elif sum(counts) != point.count:
            self.flaw = "latency buckets do not add up"
        else:
            self.latencies[group] = counts

    def _read_times(self, points: Iterable[otlp_pb2.Distribution]) -> None:
        for point in points:
            tags = {tag.key: tag.value.string_value for tag in point.attributes}
            group = _group(tags.get(CLUSTER, ""))
            if group is not None and not self._full():
                self._read_buckets(group, point)

    def _read_codes(self, name: str, points: Iterable[otlp_pb2.Number]) -> None:
        """Read how the requests of clusters ended; informational answers are no end and are left out."""
        for point in points:
            tags = {tag.key: tag.value.string_value for tag in point.attributes}
            cluster, group = tags.get(CLUSTER, ""), _group(tags.get(CLUSTER, ""))
            if group is None or self._full():
                continue
            if not point.HasField("as_int") or point.as_int < 0:
                self.flaw = "a counter is not a whole number from 0"
                continue
            kind = {BY_CLASS: f"{tags.get(CODE_CLASS)}xx", BY_CODE: tags.get(CODE, "")}.get(name)
            if kind is None:
                self.done[cluster] = self.done.get(cluster, 0) + point.as_int
            elif kind == "1xx":
                self.done[cluster] = self.done.get(cluster, 0) - point.as_int
            elif kind in CLUSTER_CLASSES:
                self.outcomes[(*group, kind)] = point.as_int

    def _read_owners(
        self, points: Iterable[otlp_pb2.Number], key: str, found: dict[str, int], rest: str = ""
    ) -> None:
        for point in points:
            if len(found) >= MAX_SERIES:
                self.cut = True
                return
            for tag in point.attributes:
                if tag.key == key and point.as_int >= 0:
                    found[tag.value.string_value + rest] = point.as_int


def _counted(clusters: Iterable[str]) -> dict[str, list[str]]:
    """Return the clusters that get the requests of each version: its own, or those of its segments.

    Segments have clusters on adopted listeners. What has more parts beside one of the version's own gets
    copies, which are nobody's requests.
    """
    found: dict[str, list[str]] = {}
    for cluster in sorted(clusters, key=lambda name: name.count(VERSIONED)):
        parts = cluster.split(VERSIONED, 2)
        version = VERSIONED.join(parts[:2])
        if len(parts) == 2 or (len(parts) == 3 and version not in found.get(version, ())):
            found.setdefault(version, []).append(cluster)
    return found


def _group(stat: str) -> Group | None:
    """Return whose requests a cluster of an adopted listener takes, None for other clusters."""
    whose = segment_cluster(cluster_of(stat))
    if whose is None:
        return None
    service, version, segment = whose
    return service, segment, f"{service}{VERSIONED}{version}"
