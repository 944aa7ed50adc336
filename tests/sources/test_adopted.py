"""What Envoy counts of the clusters of adopted listeners, as requests of a service, version and segment."""

from __future__ import annotations

import pytest

from controlplane._pb import otlp_pb2
from controlplane.evidence.observation import Cell
from controlplane.policy.latency import EDGES_MS
from controlplane.sources.cursor import Cursor, delta
from controlplane.sources.envoy import parse_export

CLUSTER = "shop~v2^1~beta"
GROUP = ("shop", "beta", "shop~v2.1")


@pytest.fixture
def export(otlp):
    """Make an export of one cluster's counters: requests done, by class, with 429, and by bucket of time."""

    def make(at, done, classes=(), limited=0, times=None, cluster=CLUSTER):
        message = otlp_pb2.ExportRequest.FromString(otlp.message(at=at))
        metrics = message.resource_metrics[0].scope_metrics[0].metrics

        def points(name, *rows):
            total = metrics.add(name=name).sum
            total.aggregation_temporality = otlp_pb2.TEMPORALITY_CUMULATIVE
            for count, tags in rows:
                total.data_points.add(
                    start_time_unix_nano=otlp.START,
                    time_unix_nano=otlp.START * 1000 + at * otlp.SECOND,
                    as_int=count,
                    attributes=otlp.tags(envoy__cluster_name=cluster, **tags),
                )

        points("cluster.upstream_rq_completed", (done, {}))
        rows = [(count, {"envoy__response_code_class": kind}) for kind, count in dict(classes).items()]
        points("cluster.upstream_rq_xx", *rows)
        points("cluster.upstream_rq", (limited, {"envoy__response_code": "429"}))
        if times is not None:
            histogram = metrics.add(name="cluster.upstream_rq_time").histogram
            histogram.aggregation_temporality = otlp_pb2.TEMPORALITY_CUMULATIVE
            histogram.data_points.add(
                start_time_unix_nano=otlp.START,
                time_unix_nano=otlp.START * 1000 + at * otlp.SECOND,
                attributes=otlp.tags(envoy__cluster_name=cluster),
                count=sum(times),
                bucket_counts=times,
                explicit_bounds=EDGES_MS,
            )
        return parse_export(message.SerializeToString())

    return make


def counted(before, after):
    found = delta(after, Cursor(before))
    assert found is not None
    return found


def test_requests_errors_and_client_errors_are_told_apart(export):
    before = export(1, 10, {"2": 10})
    after = export(2, 110, {"1": 3, "2": 80, "3": 10, "4": 12, "5": 5}, limited=4)

    found = counted(before, after)

    tally = found.tallies["shop", Cell("edge-1", "beta", "v2.1")]
    assert (tally.requests, tally.errors, tally.client_errors, tally.aborted) == (97, 5, 8, 0)
    assert found.doubt is None


def test_what_has_no_time_counts_as_slow(otlp, export):
    before = export(1, 0, {})
    after = export(2, 10, {"2": 8, "5": 2}, times=otlp.buckets(at_5=6, at_400=2))

    [(_, tally)] = counted(before, after).tallies.items()

    slower = dict(zip(EDGES_MS, tally.slower, strict=True))
    assert (slower[5], slower[300], slower[400], slower[EDGES_MS[-1]]) == (4, 4, 2, 2)


def test_a_counter_that_began_again_is_no_good_news(export):
    before = export(1, 1000, {"2": 900, "5": 100})
    after = export(2, 1100, {"2": 5, "5": 1})  # Envoy drops codes, and not the sum, when a cluster changes

    found = counted(before, after)

    assert found.doubt == "94 requests have no outcome"


def test_clusters_without_a_segment_are_left_to_the_logger(export):
    found = export(1, 10, {"2": 10}, cluster="shop~v2")

    assert (found.outcomes, found.ended) == ({}, {})


def test_a_cursor_survives_being_stored(export):
    cursor = Cursor(export(1, 10, {"2": 9, "5": 1}, limited=1))

    assert Cursor.load("edge-1", cursor.dump()) == cursor
