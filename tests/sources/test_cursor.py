from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.evidence.observation import Cell, Tally
from controlplane.policy.latency import EDGES_MS
from controlplane.sources import cursor as cursors
from controlplane.sources.cursor import QUIET, Cursor, Gap, delta
from controlplane.sources.envoy import Export, parse_export

V1 = ("shop", Cell("edge-1", "everyone", "v1"))


def count(*messages, cursor=None):
    """Fold exports; return the sum of the tallies and the last delta."""
    total, last = {}, None
    for data in messages:
        added = delta(parse_export(data), cursor)
        if added is not None:
            last, cursor = added, added.cursor
            for key, tally in added.tallies.items():
                total[key] = total.get(key, Tally()) + tally
    return total, last


def test_the_first_export_only_sets_the_cursor(otlp):
    total, last = count(otlp.traffic(1000))

    assert total == {}
    assert last.doubt == "its first export: counted from here on"


@pytest.mark.parametrize(("young", "requests"), [(9.0, 0), (10.0, 1000)])
def test_the_first_export_of_a_process_that_is_young_counts_whole(otlp, young, requests):
    first = delta(parse_export(otlp.traffic(1000, at=10)), None, young * otlp.SECOND)

    assert first is not None
    assert sum(tally.requests for tally in first.tallies.values()) == requests
    assert bool(first.doubt) is not bool(requests)
    later = delta(parse_export(otlp.traffic(1030, at=15)), first.cursor)
    assert later is not None
    assert later.tallies[V1].requests == 30


def test_growth_is_counted_by_class_and_latency(otlp):
    def export(at, *, factor):
        rows = [
            ("shop", "everyone", "shop~v1", kind, n * factor)
            for kind, n in (("ok", 1), ("c4", 2), ("limited", 3), ("bad", 4), ("abort", 5))
        ]
        return otlp.message(
            rows,
            [
                (
                    "shop",
                    "everyone",
                    "shop~v1",
                    otlp.buckets(at_5=6 * factor, at_400=3 * factor, beyond=factor),
                )
            ],
            at=at,
        )

    total, last = count(export(1, factor=1), export(2, factor=3))

    slower = tuple(8 if edge < 400 else 2 for edge in EDGES_MS)
    assert total == {V1: Tally(requests=20, errors=8, client_errors=4, aborted=10, slower=slower)}
    assert last.doubt is None


@pytest.mark.parametrize(
    ("failed", "requests", "errors"),
    [
        (0, 100, 4),  # no endpoint was to be had: nothing was attempted
        (4, 100, 4),  # the last attempts of the requests that failed
        (10, 106, 10),  # six more, each followed by one that did better
    ],
)
def test_attempts_that_a_later_one_hid_are_failed_requests_too(otlp, failed, requests, errors):
    def export(at):
        rows = [("shop", "everyone", "shop~v1", kind, n * at) for kind, n in (("ok", 96), ("bad", 4))]
        return otlp.message(rows, at=at, failed=[("shop", "everyone", "shop~v1", failed * at)])

    total, _ = count(export(1), export(2))

    assert (total[V1].requests, total[V1].errors) == (requests, errors)


def test_a_version_that_only_failed_attempts_were_made_on_is_judged_by_them(otlp):
    def export(at):
        rows = [("shop", "everyone", "shop~v1", "ok", 100 * at)]
        failed = [("shop", "everyone", "shop~v2", 5 * at)]
        return otlp.message(rows, at=at, failed=failed, reached={"shop~v1": 100 * at, "shop~v2": 5 * at})

    total, last = count(*map(export, range(1, 30)))

    v2 = total["shop", Cell("edge-1", "everyone", "v2")]
    assert (v2.requests, v2.errors) == (140, 140)
    assert (total[V1].requests, total[V1].errors) == (2800, 0)
    assert last.cursor.bypassed.get("shop") is None


def test_lost_exports_lose_nothing(otlp):
    total, _ = count(otlp.traffic(10, at=1), otlp.traffic(900, at=500))

    assert total[V1].requests == 890


def test_duplicates_and_late_exports_are_ignored(otlp):
    first, second, third = (otlp.traffic(10 * n, at=n) for n in (1, 2, 3))

    total, _ = count(first, third, second, third, first, otlp.traffic(5, at=3))

    assert total[V1].requests == 20


def test_a_restart_counts_whole_and_is_partial(otlp):
    total, last = count(otlp.traffic(10, at=1), otlp.traffic(12, at=1, start=otlp.START + 9_000_000))

    assert total[V1].requests == 12
    assert last.doubt == "restarted: its last counts are lost"


def test_a_restart_before_any_traffic_is_none_for_the_counts_after_it(otlp):
    second = otlp.START + 9_000_000
    total, _ = count(
        otlp.traffic(10, at=1), otlp.message(start=second, at=1), otlp.traffic(12, at=2, start=second)
    )

    assert total[V1].requests == 12


def test_one_series_that_shrinks_counts_whole_and_the_others_do_not(otlp):
    def export(ok, bad, at):
        rows = [("shop", "everyone", "shop~v1", "ok", ok), ("shop", "everyone", "shop~v1", "bad", bad)]
        return otlp.message(rows, at=at, ended=100 + at)

    total, _ = count(export(100, 50, 1), export(110, 4, 2))

    assert (total[V1].requests, total[V1].errors) == (14, 4)


def test_a_latency_bucket_that_shrinks_counts_the_histogram_whole(otlp):
    def export(at, **slow):
        counts = otlp.buckets(**slow)
        return otlp.message(
            [("shop", "everyone", "shop~v1", "ok", 10 * at)], [("shop", "everyone", "shop~v1", counts)], at=at
        )

    total, _ = count(export(1, at_5=10), export(2, at_400=11))

    assert total[V1].slower[0] == 10  # 11, but never more than there were requests


def test_a_freed_series_begins_again_at_zero(otlp):
    other = [("shop", "beta", "shop~v1", "ok", 1)]
    total, _ = count(
        otlp.message([*other, ("shop", "everyone", "shop~v1", "ok", 5)], at=1),
        otlp.message(other, at=2),
        otlp.message([*other, ("shop", "everyone", "shop~v1", "ok", 7)], at=3),
    )

    assert total[V1].requests == 7


def test_a_series_that_was_cut_is_not_counted_twice(otlp):
    full = parse_export(otlp.message([("shop", name, "shop~v1", "ok", 5) for name in ("a", "b")], at=1))
    cut = replace(parse_export(otlp.message([("shop", "a", "shop~v1", "ok", 6)], at=2)), cut=True)
    again = parse_export(otlp.message([("shop", name, "shop~v1", "ok", 7) for name in ("a", "b")], at=3))

    second = delta(cut, Cursor(full))
    third = delta(again, second.cursor)

    assert second.doubt == f"more than {cursors.MAX_SERIES} series"
    assert {cell.segment: tally.requests for (_, cell), tally in third.tallies.items()} == {"a": 1, "b": 2}


def test_a_cursor_stays_bounded_when_the_series_change(monkeypatch):
    monkeypatch.setattr(cursors, "MAX_SERIES", 4)
    cursor = None
    for n in range(10):
        outcomes = {("shop", f"{n}.{k}", "shop~v1", "ok"): 1 for k in range(3)}
        cursor = delta(Export("edge-1", 1, n + 1, outcomes, cut=True), cursor).cursor

    assert len(cursor.seen.outcomes) <= 4


def test_a_cluster_of_another_service_does_not_count(otlp):
    total, _ = count(otlp.traffic(1, cluster="cart~v1", at=1), otlp.traffic(9, cluster="cart~v1", at=2))

    assert total == {}


def test_a_request_without_cluster_has_no_version(otlp):
    total, _ = count(
        otlp.traffic(1, cluster="", kind="bad", at=1), otlp.traffic(3, cluster="", kind="bad", at=2)
    )

    assert total[("shop", Cell("edge-1", "everyone", ""))].errors == 2


def leak(otlp, steps, *, lost, requests=100):
    """Fold exports in each of which some requests have no outcome; return the doubts."""
    cursor, doubts, ended, counted = None, [], 0, 0
    for at, missing in enumerate([0, *[lost] * steps] if isinstance(lost, int) else [0, *lost], start=1):
        ended += requests
        counted += requests - missing
        added = delta(parse_export(otlp.traffic(counted, at=at, ended=ended)), cursor)
        cursor = added.cursor
        doubts.append(added.doubt)
    return doubts[1:]


def test_lost_outcomes_are_partial_at_once(otlp):
    assert leak(otlp, 1, lost=20) == ["20 requests have no outcome"]


def test_surplus_outcomes_are_partial(otlp):
    assert leak(otlp, 1, lost=-20) == ["20 outcomes have no request"]


def test_a_slow_leak_adds_up_and_stays_open(otlp):
    doubts = leak(otlp, 40, lost=1)

    assert doubts[:5] == [None] * 5
    assert all(doubts[5:])


def test_counts_read_a_moment_apart_are_no_gap(otlp):
    assert leak(otlp, 0, lost=[3, -3, 4, -4, 0, 5, -5]) == [None] * 7


def test_a_single_loss_is_forgiven_after_quiet_exports_with_traffic(otlp):
    doubts = leak(otlp, 0, lost=[20, *[0] * QUIET])

    assert all(doubts[:QUIET])
    assert doubts[QUIET] is None


def test_a_count_that_lagged_and_caught_up_is_complete_again(otlp):
    """A busy machine reads histograms and counters further apart; then nothing is lost."""
    assert leak(otlp, 0, lost=[80, -78, 0]) == ["80 requests have no outcome", None, None]


def test_a_bypass_is_not_over_because_requests_found_no_connection(otlp):
    found = witness(otlp, (100, 200, 0), (200, 100, 0), (100, 100, 0))

    assert all(found)


def test_without_traffic_a_gap_stays_open(otlp):
    first, loss = otlp.traffic(100, at=1), otlp.traffic(150, at=2, ended=200)
    _, last = count(first, loss, *(otlp.traffic(150, at=3 + n, ended=200) for n in range(3 * QUIET)))

    assert last.doubt == "50 requests have no outcome"


def test_long_responses_are_no_gap(otlp):
    _, last = count(otlp.traffic(10, at=1), otlp.traffic(20, at=2, active=500))

    assert last.doubt is None


def test_a_missing_histogram_is_partial_though_others_are_complete(otlp):
    def export(n, at):
        rows = [
            ("shop", "everyone", "shop~v1", "ok", 1000 * n),
            ("shop", "everyone", "shop~v2", "ok", 20 * n),
        ]
        return otlp.message(rows, [("shop", "everyone", "shop~v1", otlp.buckets(at_5=1000 * n))], at=at)

    _, last = count(export(1, 1), export(2, 2))

    assert last.doubt == "latencies and requests differ in shop/everyone/shop~v2"


@pytest.mark.parametrize("sampled", [0, 900])
def test_aborts_need_no_latency_but_may_have_one(otlp, sampled):
    latencies = [("shop", "everyone", "shop~v1", otlp.buckets(at_5=sampled))]
    second = otlp.message([("shop", "everyone", "shop~v1", "abort", 901)], latencies, at=2)

    _, last = count(otlp.traffic(1, kind="abort", at=1), second)

    assert last.doubt is None


def witness(otlp, *exports):
    """Fold exports of (sent, reached, in flight), each since the one before; return what was bypassed."""
    cursor, found, sent, reached = None, [], 0, 0
    for at, (more, passed, active) in enumerate([(100, 100, 0), *exports], start=1):
        sent, reached = sent + more, reached + passed
        data = otlp.traffic(sent, at=at, active=active, reached={"shop~v1": reached})
        added = delta(parse_export(data), cursor)
        cursor = added.cursor
        assert added.doubt is None or at == 1
        found.append(cursor.bypassed.get("shop"))
    return found[1:]


def test_requests_that_reached_a_cluster_past_our_routes_are_told(otlp):
    assert witness(otlp, (100, 412, 0)) == ["312 requests reached shop~v1 past Turnout's routes"]


def test_a_proxy_whose_traffic_all_passes_by_is_told(otlp):
    assert witness(otlp, (0, 11, 0), (0, 11, 0))[-1] == "22 requests reached shop~v1 past Turnout's routes"


def test_a_small_stream_past_our_routes_adds_up(otlp):
    found = witness(otlp, *[(100, 101, 0)] * 30)

    assert found[:10] == [None] * 10
    assert all(found[10:])


def test_requests_that_found_no_connection_are_no_bypass_and_hide_none(otlp):
    found = witness(otlp, *[(100, 20, 0)] * 5, (100, 120, 0))

    assert found == [None] * 5 + ["20 requests reached shop~v1 past Turnout's routes"]


def test_requests_in_flight_are_no_bypass(otlp):
    assert witness(otlp, (0, 500, 500), (0, 0, 500), (499, 0, 1), (1, 0, 0)) == [None] * 4


def test_counts_of_routes_and_clusters_read_a_moment_apart_are_no_bypass(otlp):
    assert witness(otlp, *[(96, 100, 0), (104, 100, 0), (100, 96, 0), (100, 104, 0)] * 20) == [None] * 80


def test_a_bypass_is_over_after_quiet_exports_with_traffic(otlp):
    found = witness(otlp, (100, 200, 0), *[(100, 100, 0)] * QUIET)

    assert all(found[:QUIET])
    assert found[QUIET] is None


def test_a_bypass_of_one_service_is_none_of_another(otlp):
    second = otlp.message(at=2, ended=1, reached={"shop~v2": 60, "cart~v1": 70})
    _, last = count(otlp.message(ended=1), second)

    assert last.cursor.bypassed.get("shop") == "60 requests reached shop~v2 past Turnout's routes"
    assert last.cursor.bypassed.get("cart") == "70 requests reached cart~v1 past Turnout's routes"
    assert last.cursor.bypassed.get("pay") is None
    assert last.doubt is None


def test_what_was_passed_by_before_the_first_export_is_not_told(otlp):
    _, last = count(otlp.message(at=1, ended=1, reached={"shop~v1": 900}))

    assert last.cursor.bypassed.get("shop") is None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 50), st.integers(0, 300)), min_size=1),
    st.integers(0, 10),
)
def test_our_own_requests_are_never_a_bypass(steps, foreign):
    """Steps: requests that begin, those of them without connection, and how many may stay in flight."""
    cursor = Cursor(Export("edge-1", 1, 1))
    passed, ended, active = foreign, 0, 0

    for time, (begun, failing, kept) in enumerate(steps, start=2):
        lost = min(begun, failing)
        ended += active + begun - min(kept, active + begun - lost)
        active = min(kept, active + begun - lost)
        passed += begun - lost
        outcomes = {("shop", "everyone", "shop~v1", "ok"): ended} if ended else {}
        export = Export("edge-1", 1, time, outcomes, {}, {"a": ended}, active, {"shop~v1": passed})
        cursor = delta(export, cursor).cursor
        assert cursor.bypassed.get("shop") is None


def test_a_flaw_is_told_with_the_counts(otlp):
    total, last = count(otlp.traffic(1, at=1), otlp.traffic(3, kind="fine", at=2, ended=1))

    assert last.doubt == "unknown outcome class 'fine'"
    assert total == {}


def test_a_cursor_survives_json(otlp):
    _, last = count(
        otlp.traffic(100, at=1),
        otlp.traffic(150, at=2, ended=200),
        otlp.traffic(160, at=3, ended=209, active=4, reached={"shop~v1": 99}),
    )
    assert last.cursor.bypass
    stored = json.loads(json.dumps(last.cursor.dump()))

    assert Cursor.load("edge-1", stored) == last.cursor


def test_a_process_overlaps_an_earlier_one_only_if_it_already_ran_then():
    old = Export("edge-1", start=100, time=200)

    assert Export("edge-1", start=150, time=300).overlaps(old)
    assert Export("edge-1", start=50, time=300).overlaps(old)
    assert not Export("edge-1", start=201, time=300).overlaps(old)
    assert not Export("edge-1", start=100, time=300).overlaps(old)
    assert not Export("edge-1", start=0, time=300).overlaps(old)


SERIES = [("everyone", "v1"), ("everyone", "v2"), ("beta", "v2")]
KINDS = ("ok", "c4", "limited", "bad", "abort")
STEP = st.one_of(
    st.tuples(
        st.just("count"),
        st.sampled_from(SERIES),
        st.sampled_from(KINDS),
        st.integers(0, 18),
        st.integers(1, 50),
    ),
    st.tuples(st.just("free"), st.sampled_from(SERIES)),
    st.tuples(st.sampled_from(["export", "lose", "restart", "again", "late"])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=60))
def test_deltas_add_up_to_what_happened_whatever_is_lost_or_reset(steps):  # noqa: C901 one branch per step
    """Resets lose what was not yet exported, as they do in Envoy: so one comes right after an export here."""
    time, start = 10, 1
    rq, t, truth, seen, sent = {}, {}, {}, {}, []
    cursor = Cursor(Export("edge-1", start, time))

    def take(export):
        nonlocal cursor
        added = delta(export, cursor)
        if added is not None:
            cursor = added.cursor
            for key, tally in added.tallies.items():
                assert (
                    min(tally.requests, tally.errors, tally.client_errors, tally.aborted, *tally.slower) >= 0
                )
                seen[key] = seen.get(key, Tally()) + tally

    def flush():
        nonlocal time
        time += 1
        sent.append(Export("edge-1", start, time, dict(rq), dict(t), {"ingress": sum(rq.values())}))
        take(sent[-1])

    for step in steps:
        match step:
            case ("count", (segment, version), kind, bucket, n):
                group = ("shop", segment, f"shop~{version}")
                rq[*group, kind] = rq.get((*group, kind), 0) + n
                slower = (0,) * len(EDGES_MS)
                if kind != "abort":
                    counts = list(t.get(group, (0,) * 19))
                    counts[bucket] += n
                    t[group] = tuple(counts)
                    slower = tuple(n if edge < bucket else 0 for edge in range(18))
                tally = Tally(
                    n if kind != "abort" else 0,
                    n if kind == "bad" else 0,
                    n if kind == "c4" else 0,
                    n if kind == "abort" else 0,
                    slower,
                )
                key = ("shop", Cell("edge-1", segment, version))
                truth[key] = truth.get(key, Tally()) + tally
            case ("free", (segment, version)):
                flush()
                group = ("shop", segment, f"shop~{version}")
                rq = {key: value for key, value in rq.items() if key[:3] != group}
                t.pop(group, None)
                flush()
            case ("export",):
                flush()
            case ("lose",):
                time += 1
            case ("restart",):
                flush()
                rq, t, start = {}, {}, time + 1
                time += 2
            case ("again",) if sent:
                take(sent[-1])
            case ("late",) if sent:
                take(sent[0])
    flush()

    assert seen == truth


@pytest.mark.parametrize("seconds", [1, 3600])
def test_counts_are_bounded_by_nothing_but_the_proxy(otlp, seconds):
    total, _ = count(otlp.traffic(0, at=1), otlp.traffic(2**62, at=1 + seconds))

    assert total[V1].requests == 2**62


def test_another_process_starts_without_the_gaps_of_the_last():
    seen = Export("edge-1", 1, 100, {("shop", "everyone", "shop~v1", "ok"): 10}, {}, {"http": 90})
    cursor = Cursor(seen, outcome=Gap(80, 80, 0, open=True))
    again = Export("edge-1", 200, 300, {("shop", "everyone", "shop~v1", "ok"): 5}, {}, {"http": 5})

    added = delta(again, cursor)

    assert added.cursor.outcome == Gap()
