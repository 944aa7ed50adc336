"""Load reports of gRPC clients: deltas that count once, and what is known when none come."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest

from controlplane._pb.lrs_pb2 import ClusterStats, LoadStatsRequest, UpstreamLocalityStats
from controlplane.evidence.observation import Cell
from controlplane.sources.lrs import MAX_ENTRIES, Client, LoadReports
from controlplane.xds.view import Peer
from tests.stepping import at_once

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
INTERVAL = timedelta(seconds=5)
HERE, THERE = Peer("10.0.0.1:4711"), Peer("10.0.0.2:4711")
SERVICES = {"shop": {"v1", "v2"}}
CALLER = {"a": Client(frozenset({"10.0.0.1"}), frozenset({"shop"}))}


def report(*clusters, node="a"):
    """Return a message; clusters are (name, good, bad, dropped), split over two localities."""
    stats = [
        ClusterStats(
            cluster_name=name,
            upstream_locality_stats=[
                UpstreamLocalityStats(total_successful_requests=good, total_error_requests=0),
                UpstreamLocalityStats(total_successful_requests=0, total_error_requests=bad),
            ],
            total_dropped_requests=dropped,
        )
        for name, good, bad, dropped in clusters
    ]
    return LoadStatsRequest(
        node=LoadStatsRequest.Sender(id=node) if node else None, cluster_stats=stats
    ).SerializeToString()


@pytest.fixture
def reports():
    return LoadReports(INTERVAL)


@pytest.fixture
def stream(reports):
    made = reports.opened(HERE)
    made.receive(report())
    return made


def seen(reports, after=1, connected=CALLER, services=SERVICES):
    now = T0 + after * INTERVAL
    return at_once(reports.counting(now - INTERVAL, now, connected, services))


def counts(observation):
    return {(c.proxy, c.segment, c.version): (t.requests, t.errors) for c, t in observation.cells}


def test_calls_are_counted_by_version_and_segment_and_drops_are_errors(reports, stream):
    stream.receive(report(("shop~v1~everyone", 90, 1, 0), ("shop~v2~beta", 5, 2, 3), node=""))

    found = seen(reports)["shop"]

    assert counts(found) == {("a", "beta", "v2"): (10, 5), ("a", "everyone", "v1"): (91, 1)}
    assert [cell for cell, _ in found.cells] == sorted(cell for cell, _ in found.cells)
    assert (found.fresh, found.silent, found.partial) == (("a",), (), ())


def test_calls_that_began_are_told_apart_from_those_that_ended(reports, stream):
    place = UpstreamLocalityStats(total_issued_requests=4)
    stats = ClusterStats(cluster_name="shop~v2~everyone", upstream_locality_stats=[place])
    idle = ClusterStats(cluster_name="shop~v1~everyone", upstream_locality_stats=[UpstreamLocalityStats()])
    stream.receive(LoadStatsRequest(cluster_stats=[stats, idle]).SerializeToString())

    first = seen(reports)["shop"]
    reports.commit()

    assert first.cells == ()
    assert first.issued == ((Cell("a", "everyone", "v2"), 4),)
    assert seen(reports, 2)["shop"].issued == ()


def test_counts_leave_by_commit_and_only_those_that_were_observed(reports, stream):
    stream.receive(report(("shop~v1~everyone", 10, 0, 0)))
    first = seen(reports)["shop"]
    again = seen(reports, 2)["shop"]
    stream.receive(report(("shop~v1~everyone", 7, 1, 0)))

    reports.commit()
    rest = seen(reports, 3)["shop"]
    reports.commit()

    key = ("a", "everyone", "v1")
    assert counts(first)[key] == counts(again)[key] == (10, 0)
    assert counts(rest)[key] == (8, 1)
    assert seen(reports, 4)["shop"].cells == ()


def test_what_arrives_while_it_is_counted_counts_in_the_next_interval(reports, stream):
    stream.receive(report(("shop~v1~everyone", 10, 0, 0)))
    steps = reports.counting(T0, T0 + INTERVAL, CALLER, SERVICES)
    next(steps)
    stream.receive(report(("shop~v1~everyone", 7, 1, 0), ("shop~v2~everyone", 1, 0, 0)))

    first = at_once(steps)["shop"]
    reports.commit()

    assert counts(first) == {("a", "everyone", "v1"): (10, 0)}
    found = {("a", "everyone", "v1"): (8, 1), ("a", "everyone", "v2"): (1, 0)}
    assert counts(seen(reports, 2)["shop"]) == found


def test_a_call_without_a_latency_counts_as_slow(reports, stream):
    stream.receive(report(("shop~v1~everyone", 9, 1, 0)))

    [(_, tally)] = seen(reports)["shop"].cells

    assert set(tally.slower) == {10}


def test_processes_that_share_a_node_id_add_up(reports, stream):
    other = reports.opened(HERE)
    stream.receive(report(("shop~v1~everyone", 1, 0, 0)))
    other.receive(report(("shop~v1~everyone", 2, 0, 0)))

    assert counts(seen(reports)["shop"]) == {("a", "everyone", "v1"): (3, 0)}


def test_reports_from_elsewhere_than_the_ads_stream_do_not_count(reports):
    stranger = reports.opened(THERE)
    stranger.receive(report(("shop~v1~everyone", 1000, 0, 0)))

    found = seen(reports)["shop"]
    reports.commit()

    assert found.cells == ()
    assert found.fresh == ()
    both = {"a": Client(frozenset({"10.0.0.2"}), frozenset({"shop"}))}
    assert seen(reports, 2, both)["shop"].cells == ()  # nor later


def test_what_a_client_reported_before_it_left_counts_once(reports, stream):
    seen(reports)
    reports.commit()
    stream.receive(report(("shop~v1~everyone", 4, 0, 0)))
    stream.close()

    left = seen(reports, 2, {})["shop"]
    reports.commit()

    assert counts(left) == {("a", "everyone", "v1"): (4, 0)}
    assert left.fresh == left.silent == ()
    assert seen(reports, 3, {}) == {}


def test_a_client_that_opens_no_stream_is_late_and_then_silent(reports):
    states = []
    for after in range(1, 6):
        found = seen(reports, after)["shop"]
        reports.commit()
        states.append((found.fresh, found.silent))

    assert states == [((), ())] * 3 + [((), ("a",))] * 2


def test_a_client_whose_stream_ended_is_silent(reports, stream):
    for after in range(1, 5):
        seen(reports, after)
        reports.commit()
    stream.close()

    assert seen(reports, 5)["shop"].silent == ("a",)


def test_a_client_that_asks_for_another_service_is_not_waited_for(reports):
    other = {"b": Client(frozenset({"10.0.0.1"}), frozenset({"cart"}))}

    assert seen(reports, 9, other, SERVICES | {"cart": {"v1"}}).keys() == {"cart"}


def test_clusters_and_versions_that_are_not_ours_are_dropped(reports, stream):
    names = ("shop~v1", "shop~v9~everyone", "cart~v1~everyone", "other", "a~b~c~d")
    stream.receive(report(*((name, 5, 5, 0) for name in names)))

    assert seen(reports)["shop"].cells == ()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff", "not a LoadStatsRequest"),
        (b"\0" * ((1 << 20) + 1), "at most 1048576 are allowed"),
        (report(node=""), "no node id"),
        (report(node="x" * 513), "longer than 512 characters"),
        (report(node="\x1b[2J"), "cannot be printed"),
    ],
)
def test_what_cannot_be_used_is_refused(reports, data, reason):
    with pytest.raises(ValueError, match=reason):
        reports.opened(HERE).receive(data)

    assert seen(reports)["shop"].fresh == ()


STRANGE = "reported before it had an xDS stream, beside more strangers than are counted"


def test_hostile_reports_take_bounded_memory(reports, stream):
    for why in (
        STRANGE,
        "reports more clusters than are counted",
    ):  # before it is known whose they are, and after
        for part in range(5):
            stream.receive(report(*((f"shop~v1~s{part}-{n}", 1, 0, 0) for n in range(5000))))
        stream.receive(report(("shop~v2~everyone", (1 << 63), 0, 0)))

        found = seen(reports)["shop"]
        assert len(found.cells) == 2000
        assert found.partial == (("a", why),)
        assert Cell("a", "everyone", "v2") not in dict(found.cells)
        reports.commit()
    assert seen(reports)["shop"].partial == ()


def test_what_is_ignored_while_an_observation_is_stored_is_told_by_the_next_one(reports, stream):
    seen(reports)
    for part in range(5):
        stream.receive(report(*((f"shop~v1~s{part}-{n}", 1, 0, 0) for n in range(500))))
    reports.commit()

    assert seen(reports)["shop"].partial == (("a", STRANGE),)


@pytest.mark.parametrize("known", [True, False])
def test_clients_of_a_large_fleet_count_from_their_first_report_on(known):
    """After a start nobody was observed yet; all of these are behind one address."""
    reports = LoadReports(INTERVAL, lambda node, origin: known and (node, origin) in open_streams)
    open_streams = {(f"c{n}", "10.0.0.1") for n in range(1500)}
    for node, _ in sorted(open_streams):
        reports.opened(HERE).receive(
            report(("shop~v1~everyone", 9, 1, 0), ("shop~v2~everyone", 3, 0, 0), node=node)
        )

    connected = {node: Client(frozenset({origin}), frozenset({"shop"})) for node, origin in open_streams}
    found = seen(reports, connected=connected)["shop"]

    told = {why for _, why in found.partial}
    if known:
        assert sum(tally.requests for _, tally in found.cells) == 1500 * 13
        assert told == set()
    else:
        assert len(found.cells) == 2000
        assert len(found.partial) == 500
        assert told == {STRANGE}


def test_reports_of_strangers_take_no_room_from_those_of_clients(reports, stream):
    seen(reports)
    reports.commit()
    for where in ("10.0.0.9:1", "10.0.0.8:1"):
        other = reports.opened(Peer(where))
        for part in range(4):
            names = (f"shop~v1~s{part}-{n}" for n in range(5000))
            other.receive(report(*((name, 1, 0, 0) for name in names), node="a"))
    stream.receive(report(("shop~v2~everyone", 0, 500, 0)))

    found = seen(reports)["shop"]

    assert [(cell.version, tally.requests, tally.errors) for cell, tally in found.cells] == [("v2", 500, 500)]
    assert (found.fresh, found.partial) == (("a",), ())


@pytest.mark.parametrize(
    "stats",
    [
        [ClusterStats()] * (MAX_ENTRIES + 1),
        [ClusterStats(upstream_locality_stats=[UpstreamLocalityStats()] * (MAX_ENTRIES // 2))] * 3,
    ],
)
def test_a_report_of_very_many_entries_is_refused_and_counts_nothing(reports, stats):
    first = ClusterStats(
        cluster_name="shop~v1~everyone",
        upstream_locality_stats=[UpstreamLocalityStats(total_successful_requests=5)],
    )
    data = LoadStatsRequest(node=LoadStatsRequest.Sender(id="a"), cluster_stats=[first, *stats])

    with pytest.raises(ValueError, match=f"more than {MAX_ENTRIES} clusters and localities"):
        reports.opened(HERE).receive(data.SerializeToString())

    (found,) = at_once(reports.counting(T0, T0 + INTERVAL, CALLER, SERVICES)).values()
    assert found.cells == ()


def steps(do):
    """Count what the interpreter does meanwhile: as good as the time, and the same everywhere."""
    count = 0

    def note(frame, event, _arg):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        do()
    finally:
        sys.settrace(before)
    return count


def test_a_stream_that_ends_costs_the_same_however_many_others_there_are():
    def cost(count):
        reports = LoadReports(INTERVAL)
        streams = [reports.opened(HERE) for _ in range(count)]
        for number, stream in enumerate(streams):
            stream.receive(report(node=f"client-{number}"))
        return steps(streams[0].close)

    assert 0 < cost(200) <= cost(2)
