"""Up to where a proxy has been counted, and what an export adds to that.

Exports are cumulative, so one that is lost, late or sent twice changes nothing: the next has it all. A series
begins again at zero when Envoy restarts or frees it, each on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Self, TypeVar

from controlplane.evidence.observation import Cell, Tally
from controlplane.evidence.once import once
from controlplane.policy.latency import EDGES_MS
from controlplane.sources.envoy import (
    CLUSTER_CLASSES,
    LIMITED,
    MAX_SERIES,
    VERSIONED,
    Export,
    Group,
    Measured,
    Outcome,
)

QUIET = 12  # exports with traffic and no further loss after which a gap is closed

_NO_COUNTS = (0,) * (len(EDGES_MS) + 1)
_COLUMNS = {  # of requests, errors, client errors, aborts: those that a class counts in
    "ok": (0,),
    "limited": (0,),
    "bad": (0, 1),
    "c4": (0, 2),
    "abort": (3,),
    "2xx": (0,),
    "3xx": (0,),
    "4xx": (0, 2),
    "5xx": (0, 1),
}
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Gap:
    """How far two counts of the same requests are apart, summed over exports.

    They are read a moment apart, so the gap of a sound pair stays near zero, and that of a lost series grows.
    Once it exceeds its slack it is open, until the lagging count has caught up, or QUIET exports with traffic
    have not widened it.

    Attributes:
        missing: Requests that the first count has and the second has not.
        widest: Largest absolute value of ``missing`` while open.
        quiet: Exports with traffic since then.
        open: Whether the counts cannot be trusted.
    """

    missing: int = 0
    widest: int = 0
    quiet: int = 0
    open: bool = False

    def after(self, expected: int, counted: int, slack: int, *, catches_up: bool = True) -> Gap:
        """Return the gap after one more export; ``catches_up``: nothing but a lag closes it by itself."""
        missing = self.missing + expected - counted
        width = abs(missing)
        if width <= slack and (catches_up or not self.open):
            return Gap(missing)
        if width > self.widest:
            return Gap(missing, width, 0, open=True)
        quiet = self.quiet + (expected > 0)
        return Gap() if quiet >= QUIET else Gap(missing, self.widest, quiet, open=True)


@dataclass(frozen=True)  # no slots: what each interval asks of a proxy that is quiet is worked out once
class Cursor:
    """Up to where a proxy has been counted.

    Attributes:
        seen: Its last counted export.
        outcome: Requests that its listeners ended against those with an outcome.
        latency: Requests with an outcome against those with a latency; groups without a gap are left out.
        bypass: Requests that reached a cluster against those that our routes sent there, without the clusters
            that no others reached. A proxy whose owner has routes in front acknowledges ours all the same.
    """

    seen: Export
    outcome: Gap = Gap()
    latency: Mapping[Group, Gap] = field(default_factory=dict)
    bypass: Mapping[str, Gap] = field(default_factory=dict)

    @property
    def doubt(self) -> str | None:
        """Why the counts up to here cannot be trusted, or None."""
        if self.outcome.open:
            many = self.outcome.missing
            return f"{many} requests have no outcome" if many > 0 else f"{-many} outcomes have no request"
        if lost := sorted(group for group, gap in self.latency.items() if gap.open):
            return f"latencies and requests differ in {', '.join('/'.join(group) for group in lost[:3])}"
        return None

    @once
    def bypassed(self) -> Mapping[str, str]:
        """Why the counts of a service are not all of its traffic, by service."""
        found: dict[str, list[str]] = {}
        for cluster, gap in sorted(self.bypass.items()):
            if gap.open:
                words = f"{gap.missing} requests reached {cluster} past Turnout's routes"
                found.setdefault(cluster.partition(VERSIONED)[0], []).append(words)
        return {service: ", ".join(words) for service, words in found.items()}

    def dump(self) -> dict[str, Any]:
        """Return it in JSON's types, sorted."""
        seen = self.seen
        return {
            "start": seen.start,
            "time": seen.time,
            "outcomes": [[*key, count] for key, count in sorted(seen.outcomes.items())],
            "latencies": [[*key, list(counts)] for key, counts in sorted(seen.latencies.items())],
            "ended": dict(sorted(seen.ended.items())),
            "reached": dict(sorted(seen.reached.items())),
            "failed": [[*key, count] for key, count in sorted(seen.failed.items())],
            "measures": [[*key, count] for key, count in sorted(seen.measures.items())],
            "stats": [[*key, count] for key, count in sorted(seen.stats.items())],
            "gap": _dump_gap(self.outcome),
            "gaps": [[*key, _dump_gap(gap)] for key, gap in sorted(self.latency.items())],
            "bypass": {cluster: _dump_gap(gap) for cluster, gap in sorted(self.bypass.items())},
        }

    @classmethod
    def load(cls, proxy: str, data: Mapping[str, Any]) -> Self:
        """Read what ``dump`` returned."""
        seen = Export(
            proxy,
            data["start"],
            data["time"],
            {(a, b, c, kind): count for a, b, c, kind, count in data["outcomes"]},
            {(a, b, c): tuple(counts) for a, b, c, counts in data["latencies"]},
            dict(data["ended"]),
            reached=dict(data["reached"]),
            failed={(a, b, c): count for a, b, c, count in data.get("failed", ())},
            measures={(a, b, c, d): count for a, b, c, d, count in data.get("measures", ())},
            stats={(a, b): count for a, b, count in data.get("stats", ())},
        )
        latency = {(a, b, c): _load_gap(gap) for a, b, c, gap in data["gaps"]}
        bypass = {cluster: _load_gap(gap) for cluster, gap in data["bypass"].items()}
        return cls(seen, _load_gap(data["gap"]), latency, bypass)


@dataclass(frozen=True, slots=True)
class Delta:
    """What an export adds to a cursor.

    Attributes:
        tallies: Counts by service and cell; the version is empty where Envoy chose no cluster.
        cursor: The next cursor.
        doubt: Why the counts are partial, or None.
        measures: By how much sums of headers grew.
        stats: By how much counters of clusters grew.
    """

    tallies: Mapping[tuple[str, Cell], Tally]
    cursor: Cursor
    doubt: str | None = None
    measures: Mapping[Measured, int] = field(default_factory=dict)
    stats: Mapping[tuple[str, str], int] = field(default_factory=dict)


def delta(export: Export, cursor: Cursor | None, young: float = 0.0) -> Delta | None:
    """Count what is new in an export; None if it is older than the cursor or the same.

    Without a cursor nothing is counted: when it happened, and who has counted it already, is unknown. But a
    process that is not older than ``young`` nanoseconds has all its counts from now, and one without any
    counter has none.
    """
    if cursor is None:
        if export.start and export.time - export.start > young:
            return Delta({}, Cursor(_counted(export)), "its first export: counted from here on")
        cursor = Cursor(Export(export.proxy, 0, 0))
    if export.time <= cursor.seen.time:
        return None
    restarted = export.restarted(cursor.seen)
    before = Export(export.proxy, 0, 0) if restarted else cursor.seen
    outcomes = _increases(export.outcomes, before.outcomes)
    latencies = {
        group: _added(counts, before.latencies.get(group, _NO_COUNTS))
        for group, counts in export.latencies.items()
    }
    failed = _increases(export.failed, before.failed)
    ended = sum(_increases(export.ended, before.ended).values())
    gaps = Cursor(before) if restarted else cursor  # another process has no gaps yet
    reached = _increases(export.reached, before.reached)
    after = Cursor(
        _merged(export, before),
        # Measured at 34 000 requests/s and two exports a second: apart by at most 1.
        gaps.outcome.after(ended, _ends(outcomes), 5 + ended // 1000),
        _latency_gaps(gaps.latency, outcomes, latencies),
        _bypass_gaps(gaps.bypass, reached, _sent(outcomes, failed), export.active),
    )
    doubts = (
        "restarted: its last counts are lost" if restarted else None,
        export.flaw,
        f"more than {MAX_SERIES} series" if export.cut else None,
        after.doubt,
    )
    tallies = _tallies(export.proxy, outcomes, latencies, failed)
    doubt = next((doubt for doubt in doubts if doubt), None)
    measures = _increases(export.measures, before.measures)
    return Delta(tallies, after, doubt, measures, _increases(export.stats, before.stats))


def _counted(export: Export) -> Export:
    """Return what later exports are compared with."""
    return replace(export, active=0, healthy={}, flaw=None, cut=False)


def _increases(new: Mapping[_K, int], old: Mapping[_K, int]) -> dict[_K, int]:
    """Return by how much each series grew; one that shrank began again at zero."""
    return {key: value - was if value >= (was := old.get(key, 0)) else value for key, value in new.items()}


def _added(new: tuple[int, ...], old: tuple[int, ...]) -> tuple[int, ...]:
    grown = tuple(a - b for a, b in zip(new, old, strict=True))
    return new if min(grown) < 0 else grown


def _merged(export: Export, before: Export) -> Export:
    """Return the export as the next cursor holds it.

    A series that is absent was freed and begins again at zero. Where the export was cut it may be only left
    out: then it is kept, so that it is not counted twice when it shows up again.
    """
    if not export.cut:
        return _counted(export)
    return replace(
        _counted(export),
        outcomes=_kept(export.outcomes, before.outcomes),
        latencies=_kept(export.latencies, before.latencies),
        reached=_kept(export.reached, before.reached),
        failed=_kept(export.failed, before.failed),
        measures=_kept(export.measures, before.measures),
        stats=_kept(export.stats, before.stats),
    )


def _kept(new: Mapping[_K, _V], old: Mapping[_K, _V]) -> dict[_K, _V]:
    room = max(0, MAX_SERIES - len(new))
    absent = [(key, value) for key, value in old.items() if key not in new]
    return {**new, **dict(absent[:room])}


def _latency_gaps(
    gaps: Mapping[Group, Gap], outcomes: Mapping[Outcome, int], latencies: Mapping[Group, tuple[int, ...]]
) -> dict[Group, Gap]:
    expected = dict.fromkeys((*gaps, *latencies), 0)
    aborted: dict[Group, int] = {}
    unsampled = _unsampled(outcomes)
    for (service, segment, cluster, kind), count in outcomes.items():
        group = (service, segment, cluster)
        counts = aborted if kind == "abort" else expected
        counts[group] = counts.get(group, 0) + count
    # Measured at 34 000 requests/s and two exports a second: histograms lag by up to 10 requests.
    after = {}
    for group, count in expected.items():
        if group in unsampled:
            continue  # what has no sample counts as slow
        sampled, gap = sum(latencies.get(group, ())), gaps.get(group)
        sampled -= min(aborted.get(group, 0), max(0, sampled - count))  # aborts may have a latency or none
        if gap is not None or sampled != count:
            after[group] = (gap or Gap()).after(count, sampled, 10 + count // 500)
    return {group: gap for group, gap in after.items() if gap != Gap()}


def _sent(outcomes: Mapping[Outcome, int], failed: Mapping[Group, int]) -> dict[str, int]:
    """Return how many attempts our routes made on each cluster at most: failed ones, and the last of each."""
    sent: dict[str, int] = {}
    for (_, _, cluster, _), count in outcomes.items():
        sent[cluster] = sent.get(cluster, 0) + count
    for (_, _, cluster), count in failed.items():
        sent[cluster] = sent.get(cluster, 0) + count
    return sent


def _bypass_gaps(
    gaps: Mapping[str, Gap], reached: Mapping[str, int], sent: Mapping[str, int], active: int
) -> dict[str, Gap]:
    """Return how many requests reached each cluster that our routes did not send there.

    Only a surplus says so: of those that we send, some find no host or no connection. Those that have not
    ended have reached their cluster and have no outcome yet.
    """
    after = {}
    for cluster in {*gaps, *reached}:
        gap, count = gaps.get(cluster, Gap()), reached.get(cluster, 0)
        ours = min(sent.get(cluster, 0), gap.missing + count)
        # Counters and gauges are read a moment apart; a leak adds up all the same.
        # What found no connection would close it, and is no proof that all requests are ours again.
        after[cluster] = gap.after(count, ours, 10 + count // 200 + active, catches_up=False)
    return {cluster: gap for cluster, gap in after.items() if gap != Gap()}


def _tallies(
    proxy: str,
    outcomes: Mapping[Outcome, int],
    latencies: Mapping[Group, tuple[int, ...]],
    failed: Mapping[Group, int],
) -> dict[tuple[str, Cell], Tally]:
    """Return requests by service and cell; failed attempts that a later one hid are failed requests too.

    A request that fails in the end has a failed attempt, its last, or none where no endpoint was to be had.
    So failed attempts beyond the failed requests are those after which another was made, maybe on another
    version: with them the worse of both counts is judged.
    """
    found: dict[Group, list[int]] = {}
    unsampled = _unsampled(outcomes)
    for (service, segment, cluster, kind), count in outcomes.items():
        if kind == LIMITED:
            continue
        if count:
            counts = found.setdefault((service, segment, cluster), [0, 0, 0, 0])
            for column in _COLUMNS[kind]:
                counts[column] += count
    for group, count in failed.items():
        counts = found.get(group, [0, 0, 0, 0])
        if (hidden := count - counts[1]) > 0:
            found[group] = [counts[0] + hidden, counts[1] + hidden, counts[2], counts[3]]
    tallies = {}
    for (service, segment, cluster), (requests, errors, client_errors, aborted) in found.items():
        owner, _, version = cluster.partition("~")
        if owner in {service, ""}:
            group = (service, segment, cluster)
            blamed = max(0, client_errors - outcomes.get((*group, LIMITED), 0))
            slower = (_not_faster if group in unsampled else _slower)(
                latencies.get(group, _NO_COUNTS), requests
            )
            tally = Tally(requests, errors, blamed, aborted, slower)
            tallies[service, Cell(proxy, segment, version)] = tally
    return tallies


def _ends(outcomes: Mapping[Outcome, int]) -> int:
    """Return how many requests ended; those with 429 from a cluster's own counters are in their class too."""
    return sum(count for (*_, kind), count in outcomes.items() if kind != LIMITED)


def _unsampled(outcomes: Mapping[Outcome, int]) -> set[Group]:
    """Return the groups that clusters count: no time is taken there of a request that got no answer."""
    return {(a, b, c) for a, b, c, kind in outcomes if kind in CLUSTER_CLASSES}


def _not_faster(counts: tuple[int, ...], requests: int) -> tuple[int, ...]:
    """Return how many are not known to have taken at most each edge."""
    faster = accumulate(counts[:-1])
    return tuple(max(0, requests - count) for count in faster)


def _slower(counts: tuple[int, ...], requests: int) -> tuple[int, ...]:
    """Return how many took longer than each edge.

    Histograms lag a moment behind counters, and a late latency may find fewer requests than it had: never
    more are slow than there are requests.
    """
    left = sum(counts)
    return tuple(min(left := left - count, requests) for count in counts[:-1])


def _dump_gap(gap: Gap) -> list[int]:
    return [gap.missing, gap.widest, gap.quiet, int(gap.open)]


def _load_gap(data: list[int]) -> Gap:
    missing, widest, quiet, opened = data
    return Gap(missing, widest, quiet, bool(opened))
