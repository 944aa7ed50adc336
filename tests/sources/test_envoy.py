from __future__ import annotations

import math

import pytest

from controlplane._pb import otlp_pb2
from controlplane.sources import envoy
from controlplane.sources.envoy import MalformedError, parse_export


def test_an_export_gives_outcomes_latencies_and_ended_requests(otlp):
    data = otlp.message(
        [("shop", "beta", "shop~v2", "bad", 3), ("", "", "", "ok", 1)],
        [("shop", "beta", "shop~v2", otlp.buckets(at_400=2, beyond=1))],
        active=7,
    )

    export = parse_export(data)

    assert export.proxy == "edge-1"
    assert export.outcomes == {("shop", "beta", "shop~v2", "bad"): 3, ("", "", "", "ok"): 1}
    assert export.latencies == {("shop", "beta", "shop~v2"): tuple(otlp.buckets(at_400=2, beyond=1))}
    assert export.ended == {"ingress": 4}
    assert (export.flaw, export.cut) == (None, False)


def test_calls_are_read_by_their_grpc_status_and_what_is_none_is_not(otlp):
    place = ("shop", "beta", "shop~v2")
    rows = [(*place, "0", 40), (*place, "7", 3), (*place, "-1", 9), (*place, "17", 1), (*place, "", 1)]

    export = parse_export(otlp.message(statuses=rows))

    assert export.measures == {("grpc:0", *place): 40, ("grpc:7", *place): 3}
    assert export.flaw is None


@pytest.mark.parametrize("unit", [1, 1000])
def test_the_start_is_in_nanoseconds_though_envoy_writes_microseconds(otlp, unit):
    data = otlp.traffic(1)
    message = otlp_pb2.ExportRequest.FromString(data)
    for metric in message.resource_metrics[0].scope_metrics[0].metrics:
        for point in (*metric.sum.data_points, *metric.histogram.data_points):
            point.start_time_unix_nano = otlp.START * unit

    export = parse_export(message.SerializeToString())

    assert export.start == otlp.START * 1000
    assert export.time - export.start == otlp.SECOND


def test_a_proxy_without_traffic_has_a_time_and_no_start(otlp):
    export = parse_export(otlp.message(at=3))

    assert (export.start, export.time) == (0, otlp.START * 1000 + 3 * otlp.SECOND)


def test_requests_of_other_listeners_do_not_count(otlp):
    data = otlp.traffic(2, listener="admin")

    assert parse_export(data, lambda prefix: prefix == "ingress").ended == {}


def test_requests_that_reached_the_clusters_of_services_are_read(otlp):
    reached = {"shop~v1": 5, "shop~v2": 2, "turnout": 9}

    assert parse_export(otlp.message(reached=reached)).reached == {"shop~v1": 5, "shop~v2": 2}


def test_a_version_with_a_dot_is_read_whole_though_envoy_cuts_its_name(otlp):
    message = otlp_pb2.ExportRequest.FromString(otlp.message(reached={"shop~2": 5}))
    for metric in message.resource_metrics[0].scope_metrics[0].metrics:
        metric.name = metric.name.replace("cluster.upstream_rq_total", "cluster.4.0.upstream_rq_total")

    assert parse_export(message.SerializeToString()).reached == {"shop~2.4.0": 5}


def test_only_requests_in_flight_on_our_listeners_are_active(otlp):
    data = otlp.traffic(2, active=7)

    assert parse_export(data, lambda prefix: prefix == "ingress").active == 7
    assert parse_export(data, lambda prefix: prefix == "http").active == 0


def test_an_empty_class_is_an_abort(otlp):
    assert parse_export(otlp.traffic(2, kind="")).outcomes == {("shop", "everyone", "shop~v1", "abort"): 2}


@pytest.mark.parametrize("count", [-1, math.nan, math.inf, -math.inf, 1.5])
def test_a_counter_that_is_no_count_is_left_out_and_named(otlp, count):
    data = otlp.message(
        [("shop", "everyone", "shop~v1", "ok", count), ("shop", "beta", "shop~v1", "ok", 1)], ended=1
    )

    export = parse_export(data)

    assert export.outcomes == {("shop", "beta", "shop~v1", "ok"): 1}
    assert export.flaw == "a counter is not a whole number from 0"


@pytest.mark.parametrize(("kind", "kept"), [("ok", True), ("abort", False), ("", False)])
def test_latencies_of_aborts_are_left_out_if_told_apart(otlp, kind, kept):
    message = otlp_pb2.ExportRequest.FromString(otlp.traffic(1))
    (point,) = message.resource_metrics[0].scope_metrics[0].metrics[-1].histogram.data_points
    point.attributes.add(key="class", value=otlp_pb2.AnyValue(string_value=kind))

    assert bool(parse_export(message.SerializeToString()).latencies) is kept


def test_an_unknown_class_is_named(otlp):
    assert parse_export(otlp.traffic(2, kind="fine")).flaw == "unknown outcome class 'fine'"


@pytest.mark.parametrize(
    ("bounds", "counts", "count"),
    [([1.0, 2.0], [1, 2, 3], 6), ([math.nan] * 18, [0] * 19, 0), (None, [1] * 18, 18), (None, [1] * 19, 20)],
)
def test_foreign_latency_buckets_are_left_out_and_named(otlp, bounds, counts, count):
    message = otlp_pb2.ExportRequest.FromString(otlp.traffic(1))
    (point,) = message.resource_metrics[0].scope_metrics[0].metrics[-1].histogram.data_points
    point.bucket_counts[:] = counts
    point.explicit_bounds[:] = bounds or point.explicit_bounds[:]
    point.count = count

    export = parse_export(message.SerializeToString())

    assert not export.latencies
    assert export.flaw is not None
    assert export.flaw.startswith("latency buckets")


def test_series_beyond_the_cap_are_cut(otlp, monkeypatch):
    monkeypatch.setattr(envoy, "MAX_SERIES", 5)
    rows = [("shop", f"segment{n}", "shop~v1", "ok", 1) for n in range(7)]

    assert len(parse_export(otlp.message(rows[:5])).outcomes) == 5
    assert not parse_export(otlp.message(rows[:5])).cut
    assert len(parse_export(otlp.message(rows)).outcomes) == 5
    assert parse_export(otlp.message(rows)).cut
    assert parse_export(otlp.message(reached={f"shop~v{n}": 1 for n in range(6)})).cut


def test_an_export_that_cannot_be_used_is_refused(otlp):
    two = otlp.traffic(1) + otlp.traffic(1, proxy="edge-2")  # concatenated messages are one merged message

    for data, problem in (
        (b"\xff\xff", "not an OpenTelemetry"),
        (b"", "0 values"),
        (otlp.traffic(1, proxy=None), "0 values"),
        (otlp.traffic(1, proxy=""), "1 values"),
        (two, "2 values"),
        (otlp.traffic(1, temporality=1), "not cumulative"),
        (otlp.request("edge-1", []), "no point"),
        (b"\n\0" * 100_000, "more than 16 resources or scopes"),
        (otlp.request("edge-1", [otlp_pb2.Metric()] * 30_000), "more than 20000 metrics"),
    ):
        with pytest.raises(MalformedError, match=problem):
            parse_export(data)


@pytest.mark.parametrize("name", ["shop~v2", "shop~2.4.0", "web.shop~2.4.0"])
def test_counters_of_a_version_with_dots_are_its_own(otlp, name):
    message = otlp_pb2.ExportRequest.FromString(otlp.message())
    metrics = message.resource_metrics[0].scope_metrics[0].metrics
    head, _, rest = name.partition(".")  # as Envoy cuts the names of its counters
    middle = f".{rest}" if rest else ""
    time = otlp.START * 1000 + otlp.SECOND
    for stat, count in (("upstream_rq_retry", 3), ("outlier_detection.ejections_enforced_total", 1)):
        total = metrics.add(name=f"cluster{middle}.{stat}").sum
        total.aggregation_temporality = otlp_pb2.TEMPORALITY_CUMULATIVE
        total.data_points.add(
            time_unix_nano=time, as_int=count, attributes=otlp.tags(envoy__cluster_name=head)
        )
    gauge = metrics.add(name=f"cluster{middle}.membership_healthy").gauge
    gauge.data_points.add(time_unix_nano=time, as_int=0, attributes=otlp.tags(envoy__cluster_name=head))

    export = parse_export(message.SerializeToString())

    assert export.healthy == {name: 0}
    assert export.stats == {
        (name, "upstream_rq_retry"): 3,
        (name, "outlier_detection.ejections_enforced_total"): 1,
    }


def test_the_worst_cluster_of_an_owners_version_says_how_it_is_and_copies_say_nothing(otlp):
    owned = parse_export(otlp.message(healthy={"shop~1^0~mixed~2": 0, "shop~1^0~everyone": 2}))
    ours = parse_export(otlp.message(healthy={"shop~v2": 2, "shop~v2~mirror": 0}))

    assert owned.healthy == {"shop~1.0": 0}
    assert ours.healthy == {"shop~v2": 2}


@pytest.mark.parametrize(
    ("points", "tags", "text"),
    [
        (envoy.MAX_POINTS + 1, 0, "100000 points"),
        (1000, envoy.MAX_TAGS // 1000 + 1, "150000 attributes"),
    ],
)
def test_an_export_of_very_many_points_or_attributes_is_refused(otlp, points, tags, text):
    message = otlp_pb2.ExportRequest.FromString(otlp.traffic(5))
    empty = otlp_pb2.Number(attributes=[otlp_pb2.KeyValue()] * tags)
    metric = otlp_pb2.Metric(name="other", sum=otlp_pb2.Sum(data_points=[empty] * points))
    message.resource_metrics[0].scope_metrics[0].metrics.append(metric)

    with pytest.raises(MalformedError, match=f"has more than {text}"):
        parse_export(message.SerializeToString())


def test_an_export_of_very_many_resource_attributes_is_refused(otlp):
    message = otlp_pb2.ExportRequest.FromString(otlp.traffic(5))
    message.resource_metrics[0].resource.attributes.extend([otlp_pb2.KeyValue()] * 1000)

    with pytest.raises(MalformedError, match="more than 1000 resource attributes"):
        parse_export(message.SerializeToString())
