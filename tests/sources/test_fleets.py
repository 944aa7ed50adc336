"""What is worked out once for a whole fleet is what looking at each proxy and service would say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane._pb.lrs_pb2 import ClusterStats, LoadStatsRequest, UpstreamLocalityStats
from controlplane.evidence.observation import Cell, Measure, Observation, Stat
from controlplane.sources.collector import Collector, Link
from controlplane.sources.cursor import Cursor, delta
from controlplane.sources.envoy import parse_export
from controlplane.sources.lrs import Client, LoadReports
from controlplane.xds.view import Peer
from tests.sources import conftest as otlp
from tests.stepping import at_once

FLUSH = timedelta(seconds=5)
EPOCH = datetime.fromtimestamp(otlp.START // 10**6, UTC)
FLEETS = [frozenset(names) for names in (("shop", "cart"), ("shop",), ("pay", "shop"), ("gone",), ())]
SERVICES = {"shop": {"v1", "v2"}, "cart": {"v1"}, "pay": {"v1"}, "idle": {"v1"}}
PROXIES, HOSTS = ("a", "b", "c"), ("10.0.0.1", "10.0.0.2")
LISTS = ("fresh", "late", "silent", "partial", "reporting", "healthy", "measures", "stats")


class Plain:
    """The collector as one would write it: all that is said of a service is looked up for each proxy."""

    def __init__(self):
        self.heard, self.cursors, self.since, self.links = {}, {}, {}, {}

    def receive(self, peer, data, now):
        export = parse_export(data)
        heard = self.heard.setdefault(
            (export.proxy, peer.host),
            {"export": export, "at": now, "clashed": None, "starts": [], "older": None},
        )
        last = heard["export"]
        if export.time < last.time:
            heard["older"] = now
        if export.time > last.time:
            if export.start != last.start:
                if export.overlaps(last) or export.start in heard["starts"]:
                    heard["clashed"] = now
                heard["starts"].append(last.start)
            heard["export"], heard["at"] = export, now

    def observe(self, start, end, links, services):
        self.since = {proxy: self.since.get(proxy, end) for proxy in links}
        known = {proxy: self.count(proxy, link, end) for proxy, link in {**self.links, **links}.items()}
        found = {
            service: self.observation(service, start, end, links, known, versions)
            for service, versions in services.items()
        }
        for (proxy, host), heard in list(self.heard.items()):
            if heard["at"] < end - 3 * FLUSH and not (proxy in links and links[proxy].peer.host == host):
                del self.heard[proxy, host]
        self.links = dict(links)
        self.cursors |= {proxy: cursor for proxy, (_, cursor, _, _) in known.items() if cursor}
        return found

    def count(self, proxy, link, end):
        """Return a proxy's state, its cursor, what it added and its last export."""
        heard, cursor = self.heard.get((proxy, link.peer.host)), self.cursors.get(proxy)
        if heard is None:
            state = "silent" if self.since.get(proxy, end) <= end - 3 * FLUSH else "between"
            return state, cursor, None, None
        export, at = heard["export"], heard["at"]
        if cursor and export.overlaps(cursor.seen):
            heard["clashed"] = at
        if heard["clashed"] is not None and heard["clashed"] > end - 3 * FLUSH:
            return (f"two proxies call themselves {proxy!r}",), Cursor(export), None, export
        heard["clashed"] = None
        added = delta(export, cursor, 12.5e9)
        after = added.cursor if added else cursor
        doubt = added.doubt if added else cursor and cursor.doubt
        went_back = ("its clock went back behind what was counted",)
        if at < end - 3 * FLUSH:
            older = heard["older"] is not None and heard["older"] >= end - 3 * FLUSH
            state = went_back if older else "silent"
        elif cursor and export.time < cursor.seen.time:
            state = went_back
        elif doubt:
            state = (doubt,)
        elif (added and cursor and export.time - cursor.seen.time > 12.5e9) or at < end - 2 * FLUSH:
            state = "late"
        else:
            state = "fresh" if added or at >= end - FLUSH else "between"
        return state, after, added, export

    def observation(self, service, start, end, links, known, versions):
        lists = {name: [] for name in LISTS}
        cells = []
        for proxy, found in known.items():
            link = links.get(proxy) or self.links[proxy]
            if service not in link.services:
                continue
            if found[2]:
                cells += counted(service, versions, found[2])
                lists["measures"] += measured(service, proxy, found[2])
                lists["stats"] += grown(service, proxy, found[2])
            if proxy in links:
                where, *entry = placed(service, proxy, *found[:2])
                lists.get(where, []).extend(entry)
                lists["healthy"] += healthy(service, versions, proxy, found)
                lists["reporting"] += [proxy] if link.reports else []
        told = {name: tuple(sorted(rows)) for name, rows in lists.items()}
        return Observation(service, start, end, tuple(sorted(cells, key=lambda row: row[0])), **told)


def counted(service, versions, added):
    for (of, cell), tally in added.tallies.items():
        if of == service and cell.version in {*versions, ""}:
            yield cell, tally


def measured(service, proxy, added):
    for (series, of, segment, cluster), total in added.measures.items():
        if of == service == cluster.partition("~")[0]:
            yield Measure(Cell(proxy, segment, cluster.partition("~")[2]), series, total)


def grown(service, proxy, added):
    for (cluster, name), count in added.stats.items():
        if count and cluster.split("~")[0] == service:
            yield Stat(proxy, cluster.split("~")[1], name, count)


def placed(service, proxy, state, cursor):
    """Return the list in which a proxy is, and its entry there."""
    gaps = sorted(cursor.bypass.items()) if cursor else ()
    words = [
        f"{gap.missing} requests reached {cluster} past Turnout's routes"
        for cluster, gap in gaps
        if gap.open and cluster.partition("~")[0] == service
    ]
    if words and state in ("fresh", "between", "late"):
        return "partial", (proxy, ", ".join(words))
    return ("partial", (proxy, *state)) if isinstance(state, tuple) else (state, proxy)


def healthy(service, versions, proxy, found):
    state, _, _, export = found
    for version in versions if export and state != "silent" else ():
        if f"{service}~{version}" in export.healthy:
            yield proxy, version, export.healthy[f"{service}~{version}"]


CLUSTERS = st.sampled_from(["shop~v1", "shop~v2", "shop~v3", "cart~v1", "pay~v1", "gone~v1"])
NUMBERS = st.dictionaries(CLUSTERS, st.integers(0, 3) | st.integers(50, 200), max_size=3)
EXPORTS = st.fixed_dictionaries(
    {
        "proxy": st.sampled_from(PROXIES),
        "host": st.sampled_from([HOSTS[0]] * 4 + [HOSTS[1]]),
        "age": st.sampled_from([0, 0, 0, 0, 1, 4, 11]),  # seconds before it arrives
        "start": st.sampled_from([0] * 6 + [3, 14]),
        "requests": NUMBERS,
        "past": NUMBERS,
        "healthy": NUMBERS,
        "retries": NUMBERS,
        "statuses": NUMBERS,
    }
)
LINKS = st.dictionaries(
    st.sampled_from(PROXIES),
    st.builds(
        Link,
        st.sampled_from([Peer(f"{HOSTS[0]}:1")] * 4 + [Peer(f"{HOSTS[1]}:1")]),
        st.sampled_from(FLEETS),
        st.booleans(),
    ),
)
INTERVALS = st.lists(
    st.tuples(LINKS | st.none(), st.lists(EXPORTS, max_size=5), st.sampled_from([5, 5, 5, 5, 11, 30])),
    min_size=1,
    max_size=8,
)


def message(at, *, proxy, start, requests, past, healthy, retries, statuses, **_):
    """Return an export; ``past`` are requests that reached a cluster without our routes."""
    rows = [(cluster.partition("~")[0], "everyone", cluster, "ok", n) for cluster, n in requests.items()]
    codes = [(cluster.partition("~")[0], "everyone", cluster, "5", n) for cluster, n in statuses.items()]
    reached = {cluster: requests.get(cluster, 0) + n for cluster, n in past.items()}
    return otlp.message(
        rows,
        [(*row[:3], [row[4], *otlp.buckets()[1:]]) for row in rows],
        proxy=proxy,
        at=at - start,
        start=otlp.START + start * 10**6,
        reached=reached,
        healthy=healthy,
        retries=retries,
        statuses=codes,
    )


@settings(max_examples=150, deadline=None)
@given(intervals=INTERVALS)
def test_a_fleet_is_told_as_each_of_its_proxies_would_be(intervals):
    collector, plain, links, now = Collector(FLUSH), Plain(), {}, EPOCH + timedelta(seconds=20)
    for changed, exports, seconds in intervals:
        start, now = now, now + timedelta(seconds=seconds)
        links = links if changed is None else changed
        for export in exports:
            at = round((now - EPOCH).total_seconds()) - export["age"]
            for one in (collector, plain):
                one.receive(Peer(f"{export['host']}:9"), message(at, **export), now)

        seen, _ = at_once(collector.counting(start, now, links, SERVICES))
        collector.commit()

        expected = plain.observe(start, now, links, SERVICES)
        bare = {service: replace(each, healthy=()) for service, each in expected.items()}
        assert {service: seen.counts(service) for service in seen} == bare
        assert dict(seen) == expected
        assert seen.counted == {service for service, each in expected.items() if each.cells}


CALLERS = st.dictionaries(
    st.sampled_from(PROXIES),
    st.builds(
        Client,
        st.frozensets(st.sampled_from(HOSTS), min_size=1),
        st.sampled_from([*FLEETS, FLEETS[0] | {"x"}]),
    ),
)
STREAMS = st.sets(st.tuples(st.sampled_from(PROXIES), st.sampled_from(HOSTS)))
CALLS = st.lists(
    st.tuples(
        st.sampled_from(PROXIES),
        st.sampled_from(HOSTS),
        st.dictionaries(CLUSTERS, st.tuples(*[st.integers(0, 9)] * 3), max_size=3),
    ),
    max_size=5,
)


def asking(service, callers, since, opened, end):
    """Return who of those that ask for a service is fresh, and who is silent."""
    mine = {node: client for node, client in callers.items() if service in client.services}
    fresh = {n for n, client in mine.items() if all((n, host) in opened for host in client.origins)}
    return fresh, {node for node in mine.keys() - fresh if since[node] <= end - 3 * FLUSH}


def reported(service, calls, callers, former):
    """Return calls, errors and begun calls, by cell, of those whose stream comes from where they report."""
    found = {}
    for node, host, clusters in calls:
        client = callers.get(node) or former.get(node)
        for cluster, (good, bad, issued) in clusters.items() if client and host in client.origins else ():
            of, _, version = cluster.partition("~")
            if of == service and version in SERVICES.get(of, ()) and good + bad + issued:
                sums = found.setdefault(Cell(node, "everyone", version), [0, 0, 0])
                sums[:] = [sums[0] + good + bad, sums[1] + bad, sums[2] + issued]
    return found


@settings(max_examples=200, deadline=None)
@given(intervals=st.lists(st.tuples(CALLERS, STREAMS, CALLS), min_size=1, max_size=6))
def test_callers_are_told_as_each_of_them_would_be(intervals):
    reports, now, since, former, streams = LoadReports(FLUSH), EPOCH, {}, {}, {}
    for callers, wanted, calls in intervals:
        now += FLUSH
        for who in streams.keys() - wanted:
            streams.pop(who).close()
        for node, host in sorted(wanted | {call[:2] for call in calls}):
            if (node, host) not in streams:
                streams[node, host] = reports.opened(Peer(f"{host}:1"))
                streams[node, host].receive(LoadStatsRequest(node={"id": node}).SerializeToString())
        for node, host, clusters in calls:
            streams[node, host].receive(load(clusters))
        since = {node: since.get(node, now) for node in callers}

        seen = at_once(reports.counting(now - FLUSH, now, callers, SERVICES))
        reports.commit()

        expected = set()
        for service in SERVICES:
            counts = reported(service, calls, callers, former)
            fresh, silent = asking(service, callers, since, streams, now)
            if counts or any(service in client.services for client in callers.values()):
                expected.add(service)
                told = seen[service]
                tallies = {cell: (tally.requests, tally.errors) for cell, tally in told.cells}
                assert tallies == {cell: (n, bad) for cell, (n, bad, _) in counts.items() if n}
                assert dict(told.issued) == {cell: issued for cell, (*_, issued) in counts.items() if issued}
                assert (told.fresh, told.silent) == (tuple(sorted(fresh)), tuple(sorted(silent)))
                assert (service in seen.counted) == bool(tallies)
        assert set(seen) == expected
        former = callers


def load(clusters):
    """Return a report of calls by cluster: good ones, bad ones, and those that began."""
    return LoadStatsRequest(
        cluster_stats=[
            ClusterStats(
                cluster_name=f"{cluster}~everyone",
                upstream_locality_stats=[
                    UpstreamLocalityStats(
                        total_successful_requests=good, total_error_requests=bad, total_issued_requests=issued
                    )
                ],
            )
            for cluster, (good, bad, issued) in clusters.items()
        ]
    ).SerializeToString()
