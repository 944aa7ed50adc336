from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.evidence.observation import Cell
from controlplane.sources import collector as module
from controlplane.sources.collector import FORGET_AFTER, Collector, Link, origin
from controlplane.sources.envoy import MalformedError
from controlplane.xds.view import Peer
from tests.stepping import at_once

FLUSH = timedelta(seconds=5)
HERE, THERE = Peer("10.0.0.1:4711"), Peer("10.0.0.2:4711")
SERVICES = {"shop": {"v1", "v2"}}
V1 = Cell("edge-1", "everyone", "v1")


class World:
    """A collector, a clock that goes on by one flush interval per observation, and the open streams."""

    def __init__(self, otlp):
        self.collector = Collector(FLUSH)
        self.epoch = datetime.fromtimestamp(otlp.START // 10**6, UTC)
        self.now = self.epoch
        self.connected = {"edge-1": Link(Peer("10.0.0.1:9"), frozenset({"shop"}))}
        self.cursors = {}

    @property
    def at(self):
        """Seconds since the process of the default exports began."""
        return round((self.now - self.epoch).total_seconds())

    def receive(self, data, peer=HERE):
        self.collector.receive(peer, data, self.now)

    def observe(self, *, commit=True, services=SERVICES):
        start, self.now = self.now, self.now + FLUSH
        seen, moved = at_once(self.collector.counting(start, self.now, self.connected, services))
        if commit:
            self.cursors = json.loads(json.dumps({**self.cursors, **moved}))
            self.cursors = {proxy: cursor for proxy, cursor in self.cursors.items() if cursor is not None}
            self.collector.commit()
        return seen["shop"]

    def restart(self):
        self.collector = Collector(FLUSH)
        self.collector.restore(self.cursors)


@pytest.fixture
def world(otlp):
    return World(otlp)


@pytest.fixture
def counting(world, otlp):
    """A world whose proxy has been counted up to 100 requests."""
    world.receive(otlp.traffic(100, at=1))
    world.observe()
    return world


def requests(seen):
    return {cell: tally.requests for cell, tally in seen.cells}


def test_the_first_export_of_a_proxy_that_ran_before_is_partial_and_counts_nothing(world, otlp):
    world.receive(otlp.traffic(100, at=13))

    seen = world.observe()

    assert (seen.cells, seen.fresh) == ((), ())
    assert seen.partial == (("edge-1", "its first export: counted from here on"),)


@pytest.mark.parametrize("age", [1, 12])
def test_the_first_export_of_a_proxy_that_has_just_started_counts_whole(world, otlp, age):
    world.receive(otlp.traffic(100, at=age))

    seen = world.observe()

    assert (requests(seen), seen.fresh, seen.partial) == ({V1: 100}, ("edge-1",), ())


def test_the_first_export_of_a_proxy_without_any_counter_is_fresh(world, otlp):
    world.receive(otlp.message(at=900, start=0))

    assert (world.observe().fresh, world.observe().partial) == (("edge-1",), ())


def test_a_proxy_that_joins_leaves_the_statistics_of_others_whole(counting, otlp):
    counting.connected["edge-2"] = Link(THERE, frozenset({"shop"}))
    counting.receive(otlp.traffic(130, at=6))
    counting.receive(otlp.traffic(7, proxy="edge-2", at=2, start=otlp.START + 4 * 10**6), THERE)

    seen = counting.observe()

    assert requests(seen) == {V1: 30, Cell("edge-2", "everyone", "v1"): 7}
    assert (seen.fresh, seen.partial) == (("edge-1", "edge-2"), ())


def test_growth_is_counted_once_and_the_proxy_is_fresh(counting, otlp):
    counting.receive(otlp.traffic(130, at=6))

    first, second = counting.observe(), counting.observe()

    assert requests(first) == {V1: 30}
    assert (first.fresh, first.silent, first.partial) == (("edge-1",), (), ())
    assert (first.start, first.end) == (counting.epoch + FLUSH, counting.epoch + 2 * FLUSH)
    assert requests(second) == {}


def test_healthy_endpoints_of_versions_are_told_while_the_proxy_exports(counting, otlp):
    def healthy(v2):
        return {"shop~v1": 1, "shop~v2": v2, "shop~v2~mirror": 0, "other~v2": 0}

    counting.receive(otlp.traffic(200, at=counting.at + 3, healthy=healthy(0)))
    sick = [counting.observe(), counting.observe()]
    counting.receive(otlp.traffic(300, at=counting.at + 3, healthy=healthy(1)))

    assert [seen.healthy for seen in sick] == [(("edge-1", "v1", 1), ("edge-1", "v2", 0))] * 2
    assert counting.observe().healthy == (("edge-1", "v1", 1), ("edge-1", "v2", 1))


def test_counters_of_copies_are_no_evidence_of_a_version(counting, otlp):
    def export(at, count):
        both = {"shop~v2": count, "shop~v2~mirror": 90 * count}
        return otlp.traffic(100 + at, at=at, healthy=dict.fromkeys(both, 1), retries=both)

    counting.receive(export(counting.at + 1, 1))
    counting.observe()
    counting.receive(export(counting.at + 1, 3))

    assert [(stat.version, stat.count) for stat in counting.observe().stats] == [("v2", 2)]


def test_a_bypass_makes_a_proxy_partial_for_the_bypassed_service_alone(counting, otlp):
    counting.connected = {"edge-1": Link(HERE, frozenset({"shop", "cart"}))}
    counting.receive(otlp.traffic(130, at=6, reached={"shop~v1": 30, "cart~v1": 99}))

    start, end = counting.now, counting.now + FLUSH
    services = {**SERVICES, "cart": {"v1"}}
    seen, _ = at_once(counting.collector.counting(start, end, counting.connected, services))

    assert (seen["shop"].fresh, seen["shop"].partial) == (("edge-1",), ())
    assert requests(seen["shop"]) == {V1: 30}
    assert seen["cart"].fresh == ()
    assert seen["cart"].partial == (("edge-1", "99 requests reached cart~v1 past Turnout's routes"),)


def test_a_bypass_stays_told_while_exports_are_late(counting, otlp):
    counting.receive(otlp.traffic(130, at=6, reached={"shop~v1": 99}))
    seen = [counting.observe() for _ in range(2)]

    assert [each.partial for each in seen] == [
        (("edge-1", "69 requests reached shop~v1 past Turnout's routes"),)
    ] * 2


def test_a_proxy_without_traffic_is_fresh(counting, otlp):
    counting.receive(otlp.traffic(100, at=6))

    assert counting.observe().fresh == ("edge-1",)


def test_a_proxy_between_two_exports_is_neither_fresh_nor_late_and_then_late_and_then_silent(counting):
    seen = [counting.observe() for _ in range(3)]

    assert [(s.fresh, s.late, s.silent, s.partial) for s in seen] == [
        ((), (), (), ()),
        ((), ("edge-1",), (), ()),
        ((), (), ("edge-1",), ()),
    ]


@pytest.mark.parametrize(("at", "late"), [(11, ()), (16, ("edge-1",))])
def test_an_export_that_has_the_counts_of_a_longer_time_than_one_that_was_lost_is_late(
    counting, otlp, at, late
):
    """The last one was at 1 s; what it counts may be from before a step began."""
    while counting.now < counting.epoch + timedelta(seconds=at - 1):
        counting.observe()
    counting.receive(otlp.traffic(150, at=at))

    seen = counting.observe()

    assert (requests(seen), seen.late, bool(seen.fresh)) == ({V1: 50}, late, not late)
    counting.receive(otlp.traffic(160, at=at + 5))
    assert counting.observe().fresh == ("edge-1",)


def test_a_proxy_is_silent_after_three_flush_intervals_until_it_exports_again(counting, otlp):
    silent = [counting.observe().silent for _ in range(4)]
    counting.receive(otlp.traffic(150, at=30))
    seen = counting.observe()

    assert silent == [(), (), ("edge-1",), ("edge-1",)]
    assert (requests(seen), seen.silent, seen.late) == ({V1: 50}, (), ("edge-1",))


def test_a_clock_that_went_back_does_not_hide_that_a_proxy_is_silent(counting):
    counting.now -= timedelta(hours=2)

    assert [counting.observe().silent for _ in range(6)][-1] == ("edge-1",)


def test_a_proxy_that_never_exports_becomes_silent(world):
    assert [world.observe().silent for _ in range(5)] == [(), (), (), ("edge-1",), ("edge-1",)]


def test_a_repeated_export_does_not_keep_a_proxy_from_being_silent(counting, otlp):
    silent = []
    for _ in range(4):
        counting.receive(otlp.traffic(100, at=1))
        silent.append(counting.observe().silent)

    assert silent[-1] == ("edge-1",)
    assert counting.collector.ignored == 4


def test_without_commit_the_same_is_counted_again(counting, otlp):
    counting.receive(otlp.traffic(130, at=6))

    failed = counting.observe(commit=False)
    counting.receive(otlp.traffic(140, at=11))
    stored = counting.observe()

    assert requests(failed) == {V1: 30}
    assert requests(stored) == {V1: 40}


def test_a_restart_of_the_control_plane_loses_nothing_and_counts_nothing_twice(counting, otlp):
    counting.receive(otlp.traffic(130, at=6))
    counting.observe()
    counting.restart()
    counting.receive(otlp.traffic(170, at=60))

    assert requests(counting.observe()) == {V1: 40}


def test_a_replayed_export_after_a_restart_is_not_fresh(counting, otlp):
    counting.receive(otlp.traffic(130, at=6))
    counting.observe()
    counting.restart()
    counting.receive(otlp.traffic(100, at=1))

    seen = counting.observe()

    assert (seen.cells, seen.fresh) == ((), ())
    assert seen.partial == (("edge-1", "its clock went back behind what was counted"),)


def test_a_proxy_whose_clock_was_set_back_is_not_silent(counting, otlp):
    """What it exports is older than what is known of it, until its clock has caught up."""
    counting.receive(otlp.traffic(130, at=600))
    counting.observe()
    for number in range(1, 6):
        counting.receive(otlp.traffic(130 + number, at=number))
        seen = counting.observe()
    counting.receive(otlp.traffic(140, at=605))
    caught_up = counting.observe()

    assert (seen.cells, seen.silent) == ((), ())
    assert seen.partial == (("edge-1", "its clock went back behind what was counted"),)
    assert requests(caught_up) == {V1: 10}


def test_a_gap_stays_partial_between_exports(counting, otlp):
    counting.receive(otlp.traffic(130, at=6, ended=200))

    first, second = counting.observe(), counting.observe()

    assert first.partial == second.partial == (("edge-1", "70 requests have no outcome"),)


def test_only_the_services_and_versions_that_a_proxy_is_given_count(world, otlp):
    def export(n, at):
        rows = [
            ("shop", "everyone", "shop~v1", "ok", n),
            ("shop", "everyone", "shop~v9", "ok", n),
            ("shop", "everyone", "cart~v1", "ok", n),
            ("cart", "everyone", "cart~v1", "ok", n),
            ("cart", "everyone", "", "bad", n),
        ]
        return otlp.message(rows, at=at)

    world.receive(export(1, 1))
    world.observe(services={"shop": {"v1"}, "cart": {"v1"}})
    world.receive(export(2, 6))
    seen, _ = at_once(
        world.collector.counting(
            world.now, world.now + FLUSH, world.connected, {"shop": {"v1"}, "cart": {"v1"}}
        )
    )

    assert requests(seen["shop"]) == {V1: 1}
    assert (seen["cart"].cells, seen["cart"].fresh) == ((), ())


def test_a_service_that_nobody_knows_does_not_count(counting, otlp):
    counting.connected = {"edge-1": Link(HERE, frozenset({"shop", "gone"}))}
    counting.receive(otlp.message([("gone", "everyone", "", "bad", 5)], at=6))

    assert counting.observe().cells == ()


def test_an_exporter_without_a_stream_is_quarantined_and_named(counting, otlp):
    counting.receive(otlp.traffic(900, at=6, proxy="ghost"))

    seen = counting.observe()

    assert counting.collector.uncounted["ghost"] == "exports from 10.0.0.1 without an ADS stream"
    assert seen.cells == ()


def test_why_the_counts_of_a_proxy_do_not_count_is_known_while_that_is_so(counting, otlp):
    said = []
    for heard in (True, False, False, False, False, False, True, True):
        if heard:
            counting.receive(otlp.traffic(100 + counting.at, at=counting.at))
        counting.observe()
        said.append(dict(counting.collector.uncounted))

    late, silent = {"edge-1": "late"}, [{"edge-1": f"silent for {n}s"} for n in (20, 25, 30)]
    assert said == [{}, {}, late, *silent, late, {}]


def test_a_proxy_that_never_exported_is_silent_since_it_connected(counting):
    counting.connected = {"edge-2": Link(HERE, frozenset({"shop"}))}
    for _ in range(5):
        counting.observe()

    assert counting.collector.uncounted == {"edge-2": "silent for 20s"}


def test_an_exporter_from_another_host_cannot_speak_for_a_proxy(counting, otlp):
    counting.receive(otlp.traffic(130, at=6))
    counting.receive(otlp.traffic(10**9, at=7), peer=THERE)

    seen = counting.observe()

    assert requests(seen) == {V1: 30}
    reason = "exports from 10.0.0.2, but its ADS stream comes from 10.0.0.1"
    assert counting.collector.uncounted == {"edge-1": reason}


def test_a_certificate_of_another_name_cannot_speak_for_a_proxy(counting, otlp):
    counting.connected = {"edge-1": Link(Peer("10.0.0.1:9", ("edge-1",)), frozenset({"shop"}))}
    counting.receive(otlp.traffic(130, at=6), peer=Peer("10.0.0.1:9", ("edge-2",)))

    assert counting.observe().cells == ()
    assert counting.collector.uncounted


def test_two_processes_of_one_name_are_quarantined_until_one_is_left(counting, otlp):
    older = otlp.START - 600 * 10**6  # has run for 10 minutes more
    clash = (("edge-1", "two proxies call themselves 'edge-1'"),)

    counting.receive(otlp.traffic(5000, at=603, start=older))
    first = counting.observe()
    counting.receive(otlp.traffic(140, at=8))
    second = counting.observe()
    assert counting.collector.uncounted == dict(clash)
    later = []
    for n in range(5):
        counting.receive(otlp.traffic(150 + n, at=counting.at))
        later.append(counting.observe())

    assert first.partial == second.partial == clash
    assert [bool(seen.partial) for seen in later] == [True, False, False, False, False]
    assert [requests(seen) for seen in later] == [{}, {V1: 1}, {V1: 1}, {V1: 1}, {V1: 1}]
    assert counting.collector.uncounted == {}


def test_a_process_that_began_after_the_other_is_found_out_when_the_other_exports_again(counting, otlp):
    younger = otlp.START + 3 * 10**6

    counting.receive(otlp.traffic(7, at=1, start=younger))
    counting.receive(otlp.traffic(101, at=6))

    assert counting.observe().partial == (("edge-1", "two proxies call themselves 'edge-1'"),)


def test_an_idle_process_of_the_same_name_is_found_out(counting, otlp):
    counting.receive(otlp.message(at=6))
    counting.receive(otlp.traffic(101, at=7))

    assert counting.observe().partial == (("edge-1", "two proxies call themselves 'edge-1'"),)


def test_a_second_process_is_found_out_across_a_restart_of_the_control_plane(counting, otlp):
    counting.restart()
    counting.receive(otlp.traffic(5000, at=603, start=otlp.START - 600 * 10**6))

    assert counting.observe().partial == (("edge-1", "two proxies call themselves 'edge-1'"),)


def test_a_restarted_proxy_is_not_taken_for_two(counting, otlp):
    counting.receive(otlp.traffic(7, at=1, start=otlp.START + 3 * 10**6))

    seen = counting.observe()

    assert requests(seen) == {V1: 7}
    assert seen.partial == (("edge-1", "restarted: its last counts are lost"),)
    assert counting.collector.uncounted == dict(seen.partial)


def test_what_a_proxy_counted_before_it_left_still_counts(counting, otlp):
    counting.receive(otlp.traffic(130, at=6))
    counting.connected = {}

    first = counting.observe()
    counting.receive(otlp.traffic(150, at=11))
    second = counting.observe()

    assert (requests(first), first.fresh) == ({V1: 30}, ())
    assert counting.collector.uncounted
    assert requests(second) == {}


def test_the_cursor_of_a_proxy_that_is_gone_is_deleted(counting):
    counting.connected = {}
    counting.observe()
    assert counting.cursors

    counting.now += FORGET_AFTER
    counting.observe()

    assert not counting.cursors


def test_exporters_are_bounded(world, otlp, monkeypatch):
    monkeypatch.setattr(module, "MAX_EXPORTERS", 2)
    for name in ("a", "b", "a"):
        world.receive(otlp.traffic(1, proxy=name))

    with pytest.raises(MalformedError, match="more than 2"):
        world.receive(otlp.traffic(1, proxy="c"))

    for _ in range(4):
        world.observe()
    world.receive(otlp.traffic(1, proxy="c"))


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        (Peer("10.0.0.1:4711"), "10.0.0.1"),
        (Peer("[::1]:4711"), "::1"),
        (Peer("unix"), "unix"),
        (Peer("10.0.0.1:4711", ("spiffe://fleet/edge-1", "edge-1")), "10.0.0.1 spiffe://fleet/edge-1 edge-1"),
    ],
)
def test_the_origin_of_a_peer_has_no_port(peer, host):
    assert origin(peer) == host
