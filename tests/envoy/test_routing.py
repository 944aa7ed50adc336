"""The rendered resources in a real Envoy: who gets which version, which hosts are known, what is counted."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import subprocess
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import httpx
import pytest

import envoy
from controlplane.demo.ports import free_ports
from controlplane.policy.documents import Fleet, Match, Service
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.segments import Request
from controlplane.release.splits import splits
from controlplane.release.traffic import BUCKETS, ServiceTraffic, Split
from controlplane.resources.bootstrap import bootstrap
from controlplane.resources.buckets import pick
from controlplane.resources.readable import readable
from controlplane.resources.rendering import render
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy]
BINARY = Path(envoy.__file__).parent / "_bin" / "envoy"
Answer = tuple[int, str, Mapping[str, str]]


class Upstream:
    """A server that answers with its own name, or as the request asks for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*filter(None, self._open), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[asyncio.current_task()] = writer
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = head.decode("latin-1").lower()
                if "x-do: hang" in headers:
                    await reader.read(1)
                elif "x-do: reset" in headers:
                    writer.transport.abort()
                elif "x-do: break" in headers or "x-do: stall" in headers:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                    await writer.drain()
                    await asyncio.sleep(0.1)
                    if "x-do: stall" in headers:
                        await reader.read(1)
                    writer.transport.abort()
                else:
                    self._answer(writer, headers)
                await writer.drain()
        writer.close()

    def _answer(self, writer: asyncio.StreamWriter, headers: str) -> None:
        wanted = re.search(r"x-code: (\d+)", headers)
        grpc = re.search(r"x-grpc: (\d+)", headers)
        extra = f"content-type: application/grpc\r\ngrpc-status: {grpc[1]}\r\n" if grpc else ""
        fresh = re.search(r"x-turnout-fresh-user: (\S+)", headers)
        extra += f"x-saw: {fresh[1] if fresh else ''}\r\n"
        body = self.name
        code = wanted[1] if wanted else "200"
        writer.write(f"HTTP/1.1 {code} X\r\n{extra}content-length: {len(body)}\r\n\r\n{body}".encode())


class Client:
    """One connection to the proxy, opened again when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(
        self,
        path: str = "/",
        headers: Sequence[tuple[str, str]] = (),
        host: str = "shop.test",
        method: str = "GET",
    ) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        found = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if ": " in line)
        try:
            body = await reader.readexactly(int(found.get("content-length", 0)))
        except asyncio.IncompleteReadError:
            body = b""
        if found.get("connection") == "close" or (not body and found.get("content-length") != "0"):
            self.close()
        return int(head.split()[1]), body.decode(), found

    async def leave(self, headers: Sequence[tuple[str, str]], host: str) -> None:
        """Send a request and go away without waiting for the answer."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.get(headers=headers, host=host), 0.2)
        self.close()

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
        self._streams = None


@dataclass
class Proxy:
    """A running Envoy that reads the resources from files."""

    folder: Path
    port: int
    admin: int
    process: subprocess.Popen[bytes]
    fleet: Fleet
    revision: int = 0
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(self.port)

    async def push(self, services: Sequence[ServiceTraffic]) -> None:
        """Write the resources and wait until the proxy serves them."""
        self.revision += 1
        write_files(self.folder, self.fleet, services, self.revision)
        await until(self._applied)

    async def ask(self, path: str) -> str:
        """Return what the admin port answers."""
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{self.admin}{path}")).raise_for_status().text

    async def _applied(self) -> bool:
        return f': "{self.revision}"' in await self.ask(
            "/stats?filter=scoped_rds.scopes.version_text&type=All"
        )

    async def counted(self) -> Counter[tuple[str, str, str]]:
        """Return requests by segment, cluster and class."""
        text = await self.ask("/stats?filter=^turnout[.]rq")
        found: Counter[tuple[str, str, str]] = Counter()
        for line in text.splitlines():
            name, _, value = line.rpartition(": ")
            tags = re.search(r"segment\.(.*?)\.cluster\.(.*?)\.class\.(.*)$", name)
            if tags:
                found[tags[1], tags[2], tags[3]] += int(value)
        return found


async def until(condition: Callable[[], Any], within: float = PATIENCE) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while True:
        with suppress(ConnectionError, asyncio.IncompleteReadError, httpx.HTTPError):
            if await condition():
                return
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true"
        await asyncio.sleep(0.05)


def write_files(folder: Path, fleet: Fleet, services: Sequence[ServiceTraffic], revision: int) -> None:
    """Write the resources as files; what comes over ADS otherwise is put in place or read from a file."""
    snapshot = render(fleet, services, revision).snapshot
    found = {
        url: {name: readable(url, resource.body) for name, resource in snapshot.of(url).items()}
        for url in snapshot.order
    }
    for name, cluster in found[CLUSTER].items():
        if cluster.pop("eds_cluster_config", None):
            cluster["type"] = "STATIC"
            cluster["load_assignment"] = found[ENDPOINT][name]
            del cluster["load_assignment"]["@type"]
    for scope in found[SCOPED_ROUTE].values():
        scope["route_configuration"] = found[ROUTE][scope.pop("route_configuration_name")]
        scope["route_configuration"].pop("@type", None)  # several scopes lead to one
    for listener in found[LISTENER].values():
        routes = listener["filter_chains"][0]["filters"][0]["typed_config"]["scoped_routes"]
        routes["scoped_rds"]["scoped_rds_config_source"] = source(folder, "scopes")
    for url, file in ((CLUSTER, "clusters"), (SCOPED_ROUTE, "scopes"), (LISTENER, "listeners")):
        text = json.dumps({"version_info": str(revision), "resources": list(found[url].values())})
        (folder / "next").write_text(text)
        (folder / "next").rename(folder / f"{file}.json")


def source(folder: Path, file: str) -> dict[str, Any]:
    path = {"path": str(folder / f"{file}.json"), "watched_directory": {"path": str(folder)}}
    return {"path_config_source": path, "resource_api_version": "V3"}


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    started: list[subprocess.Popen[bytes]] = []

    async def start(services: Sequence[ServiceTraffic], kind: str = "edge", **fields: Any) -> Proxy:
        port, admin = free_ports(2)
        fleet = Fleet.model_validate(
            {
                "kind": "Fleet",
                "name": "edge",
                "nodes": {"cluster": "edge"},
                "listeners": [{"name": "http", "address": f"127.0.0.1:{port}", "kind": kind}],
                **fields,
            }
        )
        config = bootstrap("n1", "edge", ["127.0.0.1:1"], admin=f"127.0.0.1:{admin}")
        config["dynamic_resources"] = {
            "cds_config": source(tmp_path, "clusters"),
            "lds_config": source(tmp_path, "listeners"),
        }
        config["stats_flush_interval"] = "0.1s"
        (tmp_path / "bootstrap.json").write_text(json.dumps(config))
        write_files(tmp_path, fleet, services, 0)
        arguments = ["-c", str(tmp_path / "bootstrap.json"), "--concurrency", "1", "-l", "warning"]
        log = (tmp_path / "log").open("wb")
        process = subprocess.Popen([BINARY, *arguments, "--disable-hot-restart"], stdout=log, stderr=log)  # noqa: ASYNC220
        started.append(process)
        found = Proxy(tmp_path, port, admin, process, fleet)
        try:
            await until(lambda: ready(found))
        except AssertionError:
            pytest.fail((tmp_path / "log").read_text()[-3000:])
        return found

    async def ready(found: Proxy) -> bool:
        assert found.process.poll() is None
        await found.ask("/ready")
        return (await Client(found.port).get(host="ready.test"))[0] == 404

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
async def ports() -> AsyncIterator[tuple[int, int]]:
    upstreams = [Upstream("v1"), Upstream("v2")]
    yield tuple([await upstream.start() for upstream in upstreams])
    for upstream in upstreams:
        await upstream.stop()


def service(ports: Sequence[int], name: str = "checkout", **fields: Any) -> Service:
    document = {
        "kind": "Service",
        "name": name,
        "fleets": ["edge"],
        "routes": [{"host": "shop.test"}],
        "user": {"from": [{"header": "x-user-id"}, {"cookie": "uid"}]},
        "initial": "v1",
        "versions": {f"v{i + 1}": {"endpoints": [f"127.0.0.1:{port}"]} for i, port in enumerate(ports)},
        **fields,
    }
    return Service.model_validate(document)


def match(**tree: Any) -> Match:
    return Match.model_validate(tree)


BETA = match(cookie={"name": "beta", "equals": "1"})
EU = match(
    any=[
        {"header": {"name": "x-region", "prefix": "eu-"}},
        {"not": {"header": {"name": "x-app", "regex": ".*"}}},
    ]
)


def traffic(
    document: Service, everyone: int, beta: int = 5000, eu: int = 3000, anonymous: Any = "baseline"
) -> ServiceTraffic:
    splits = [
        Split("beta", BETA, ((0, beta),)),
        Split("eu", EU, ((0, eu),)),
        Split("everyone", None, ((0, everyone),)),
    ]
    splits[:2] = sorted(splits[:2], key=lambda split: -split.buckets)
    return ServiceTraffic(document, "v1", "v2", "r1", "r1-salt\\1", tuple(splits), anonymous)


def users(count: int) -> list[tuple[tuple[str, str], ...]]:
    found = []
    for i in range(count):
        cookies = [
            f"a{i}=b",
            *(["beta=1"] if i % 3 == 0 else []),
            *([f"uid=user-{i}"] if i % 2 else []),
            "z=9",
        ]
        headers = [("cookie", "; ".join(cookies))]
        headers += [("x-user-id", f"user-{i}")] if i % 4 == 0 else []
        headers += [("x-region", "eu-1" if i % 5 == 0 else "us-1")] if i % 7 else []
        headers += [("x-app", "")] if i % 11 else []
        found.append(tuple(headers))
    return found


async def test_every_user_gets_the_version_that_was_foretold(proxy, ports):
    document = service(ports)
    first = traffic(document, 500)
    running = await proxy([first])
    requests = users(300)

    seen = []
    for state in (first, traffic(document, 2000, beta=8000)):
        await running.push([state])
        before = await running.counted()
        answers = [(await running.client.get(headers=headers))[1] for headers in requests]
        picks = [pick(state, Request(headers=headers)) for headers in requests]
        assert answers == [found.version for found in picks]
        counted = {
            (segment, cluster.partition("~")[2]): count
            for (segment, cluster, _), count in (await running.counted() - before).items()
        }
        assert counted == Counter((found.segment, found.version) for found in picks)
        seen.append(answers)

    assert all(new == "v2" for old, new in zip(*seen, strict=True) if old == "v2")
    assert {found.segment for found in picks} == {"anonymous", "beta", "eu", "everyone"}


CONDITIONS = [
    *(
        {kind: {"name": "seg", **condition}}
        for kind in ("header", "cookie")
        for condition in (
            {"equals": "beta"},
            {"prefix": "be"},
            {"suffix": "ta"},
            {"contains": "et"},
            {"contains": "a b"},
            {"present": True},
            {"present": False},
            {"range": {"from": -5, "to": 1200}},
            {"regex": ".*"},
            {"regex": "(?i)beta"},
            {"regex": r"\W+|\d{2}"},
            {"regex": "[^a]*x?"},
        )
    ),
    {"all": [{"header": {"name": "seg", "present": True}}, {"cookie": {"name": "seg", "prefix": "b"}}]},
]
SEGMENT_VALUES = [
    "beta",
    "BETA",
    "be",
    "",
    "a b",
    "-5",
    "+7",
    "1199",
    "1200",
    "007",
    "x",
    "a=b",
    "-=-",
    "\u00e9",
]
SEGMENT_REQUESTS = [
    (),
    (("cookie", "other=1"),),
    *((("seg", value),) for value in SEGMENT_VALUES),
    *((("cookie", f"a=1; seg={value};z=2; xseg=beta"),) for value in SEGMENT_VALUES),
    (("seg", "x"), ("seg", "beta")),
    (("seg", "beta"), ("cookie", "seg=b; seg=beta")),
]


def both_ways(ports, conditions):
    """Return the conditions with their opposites, and a service for each, whose segment gets the canary."""
    trees = [tree for condition in conditions for tree in (condition, {"not": condition})]
    everyone = Split("everyone", None, ())
    states = [
        ServiceTraffic(
            service(ports, f"s{i}", routes=[{"host": "shop.test", "path": f"/s{i}"}], user={}),
            "v1",
            "v2",
            "r1",
            "s",
            (Split("in", match(**tree), ((0, BUCKETS),)), everyone),
            "random",
        )
        for i, tree in enumerate(trees)
    ]
    return trees, states


async def test_conditions_and_their_opposites_mean_in_envoy_what_they_mean_to_us(proxy, ports):
    trees, states = both_ways(ports, CONDITIONS)
    running = await proxy(states)

    wrong = []
    for i, tree in enumerate(trees):
        for headers in SEGMENT_REQUESTS:
            _, version, _ = await running.client.get(f"/s{i}", headers=headers)
            if version != pick(states[i], Request(headers=headers)).version:
                wrong.append((tree, headers, version))
    assert wrong == []


BROWSERS = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
    "Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0",
]
TARGETS = [
    *(
        {"query": {"name": "seg", **condition}}
        for condition in (
            {"equals": "beta"},
            {"prefix": "be"},
            {"suffix": "ta"},
            {"contains": "%20"},
            {"present": True},
            {"present": False},
            {"range": {"from": -5, "to": 1200}},
            {"regex": ".*"},
            {"regex": "[^a]*x?"},
        )
    ),
    {"path": {"suffix": "/a.b"}},
    {"path": {"contains": "a"}},
    {"path": {"regex": ".*[.].?"}},
    {"method": "POST"},
    {"host": "shop.test"},
    {"host": "*.test"},
    *({"user_agent": name} for name in ("Chrome", "Edge", "Firefox", "Safari")),
    *({"source": source} for source in ("127.0.0.1", "10.1.0.0/16", "2001:db8:0:1::/64")),
]
TARGET_REQUESTS = [
    *(
        Request("GET", "shop.test", path)
        for path in (
            "", "/a.b", "/a.b/", "/x//y", "?seg", "?seg=", "?seg=beta", "?a=1&seg=beta&b=2",
            "?seg=x&seg=beta", "?xseg=beta", "?seg=be%74a", "?seg=a%20b",
            "?seg=1199", "?seg=-5", "?seg=a=x", "?SEG=beta",
            "/seg=beta?a", "?a?seg=beta", "?a&&seg=beta", "?seg=/a.b",
        )
    ),
    Request("POST", "SHOP.test:80", "/a"),
    Request("OPTIONS", "Shop.Test", "/a"),
    *(Request("GET", "shop.test", "", (("user-agent", agent),)) for agent in BROWSERS),
    Request("GET", "shop.test", "", (("user-agent", BROWSERS[0]), ("user-agent", BROWSERS[1]))),
    *(
        Request("GET", "shop.test", "", (("x-forwarded-for", lines),))
        for lines in (
            "10.1.2.3", "10.1.2.3, 192.0.2.7", "192.0.2.7,10.1.2.3", "2001:db8:0:1::7", "2001:DB8:0:1::7",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["edge", "local"])
async def test_what_a_request_asks_for_means_in_envoy_what_it_means_to_us(proxy, ports, kind):
    trees, states = both_ways(ports, TARGETS)
    running = await proxy(states, kind)

    def seen(request: Request, i: int) -> Request:
        """Return the request as the router has it: slashes merged, the address as the listener takes it."""
        told = "".join(request.header("x-forwarded-for")).rpartition(",")[2].strip()
        path = f"/s{i}{request.path}".replace("//", "/")
        return replace(request, path=path, source=told if told and kind == "local" else "127.0.0.1")

    wrong = []
    for i, tree in enumerate(trees):
        for request in TARGET_REQUESTS:
            _, version, _ = await running.client.get(
                f"/s{i}{request.path}", request.headers, request.host, request.method
            )
            if version != pick(states[i], seen(request, i)).version:
                wrong.append((tree, request, version))
    assert wrong == []


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def token(key: bytes = b"secret" * 8, **claims: Any) -> str:
    head = {"alg": "HS256", "typ": "JWT"}
    body = {"iss": "https://id.test", "aud": "shop", "exp": 4_000_000_000, **claims}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (head, body))
    return f"{signed}.{encoded(hmac.digest(key, signed.encode(), 'sha256'))}"


async def test_claims_of_verified_tokens_choose_and_nothing_else_does(proxy, ports, tmp_path):
    keys = {"keys": [{"kty": "oct", "alg": "HS256", "k": encoded(b"secret" * 8)}]}
    (tmp_path / "jwks.json").write_text(json.dumps(keys))
    tokens = {
        "issuer": "https://id.test",
        "audiences": ["shop"],
        "jwks_file": str(tmp_path / "jwks.json"),
        "claims": ["sub", "plan", "org.unit_id", "staff"],
    }
    splits = (
        Split("pro", match(claim={"name": "plan", "equals": "pro"}), ((0, BUCKETS),)),
        Split("unit", match(claim={"name": "org.unit_id", "range": {"from": 1, "to": 10}}), ((0, BUCKETS),)),
        Split("staff", match(claim={"name": "staff", "equals": "true"}), ((0, BUCKETS),)),
        Split("none", match(**{"not": {"claim": {"name": "sub", "present": True}}}), ()),
        Split("everyone", None, ((0, 5000),)),
    )
    document = service(ports, user={"from": [{"claim": "sub"}]})
    state = ServiceTraffic(document, "v1", "v2", "r1", "s", splits, "baseline")
    running = await proxy([state], tokens=tokens)

    async def version(*headers: tuple[str, str]) -> str:
        return (await running.client.get(headers=headers))[1]

    def bearer(given: str) -> tuple[str, str]:
        return "authorization", f"Bearer {given}"

    assert await version(bearer(token(plan="pro"))) == "v2"
    assert await version(bearer(token(org={"unit_id": 9}))) == "v2"
    assert await version(bearer(token(org={"unit_id": 10}))) == "v1"
    assert await version(bearer(token(staff=True))) == "v2"
    for user in map(str, range(20)):
        request = Request(claims=(("sub", user),))
        assert await version(bearer(token(sub=user))) == pick(state, request).version
    for wrong in (
        (),
        (bearer(token(b"other" * 8, plan="pro")),),
        (bearer(token(plan="pro", iss="https://evil.test")),),
        (bearer(token(plan="pro", aud="other")),),
        (bearer(token(plan="pro", exp=1)),),
        (bearer(token(plan=["pro"])),),
        (("x-turnout-claim-plan", "pro"),),
        (("x-turnout-claim-plan", "pro"), bearer(token(b"other" * 8, sub="a"))),
        (("x-turnout-claim-plan", "pro"), bearer(token(plan="free"))),
    ):
        assert await version(*wrong) == "v1", wrong


LEAVES = (
    {"header": {"name": "x-a", "prefix": "eu"}},
    {"header": {"name": "x-a", "regex": ".*"}},
    {"cookie": {"name": "beta", "equals": "1"}},
    {"query": {"name": "q", "present": True}},
    {"method": "POST"},
    {"host": "*.test"},
    {"user_agent": "Safari"},
    {"source": "127.0.0.0/8"},
    {"users": [f"user-{number}" for number in range(0, 90, 4)]},
    {"cohort": {"from": "20%", "to": "60%"}},
    {"cohort": {"to": "35%"}},
)


def random_tree(draw: Random, depth: int = 2) -> dict[str, Any]:
    kind = draw.choice(["leaf", "not", "all", "any"]) if depth else "leaf"
    if kind == "leaf":
        return draw.choice(LEAVES)
    if kind == "not":
        return {"not": random_tree(draw, depth - 1)}
    return {kind: [random_tree(draw, depth - 1) for _ in range(2)]}


def random_policy(draw: Random) -> PinnedPolicy:
    trees = {f"s{number}": random_tree(draw) for number in range(3)}
    steps = [
        {
            "name": f"n{name}",
            "segment": name,
            "match": tree,
            "share": draw.choice([100, 2500, 5000, 10_000]) * 100,
        }
        for name, tree in trees.items()
    ]
    steps.append({"name": "all", "share": draw.choice([100, 3000]) * 100})
    if draw.random() < 0.5:
        kept = {"name": "kept", "match": random_tree(draw, 1)}
        steps = [step | {"exclude": [kept]} for step in steps]
    return PinnedPolicy.model_validate({"name": "p", "steps": steps, "guard": {"hold_back": "2%"}})


def random_request(draw: Random, number: int) -> Request:
    headers = [("x-user-id", f"user-{draw.randrange(90)}")] if draw.random() < 0.7 else []
    cookies = [f"uid=user-{draw.randrange(90)}"] if draw.random() < 0.5 else []
    cookies += ["beta=1"] if draw.random() < 0.5 else []
    headers += [("cookie", "; ".join(cookies))] if cookies else []
    headers += [("x-a", draw.choice(["eu-1", "us", ""]))] if draw.random() < 0.6 else []
    headers += [("user-agent", draw.choice(BROWSERS))]
    path = f"/s{number}{draw.choice(['', '?q', '?p=1'])}"
    method = draw.choice(["GET", "POST"])
    return Request(method, "shop.test", path, tuple(headers), source="127.0.0.1")


async def test_random_trees_shares_and_exclusions_get_the_version_that_was_foretold(proxy, ports):
    draw = Random(7)
    states = []
    for number in range(60):
        policy = random_policy(draw)
        document = service(ports, f"s{number}", routes=[{"host": "shop.test", "path": f"/s{number}"}])
        found = splits(policy, draw.randrange(len(policy.steps)))
        states.append(ServiceTraffic(document, "v1", "v2", "r1", f"salt-{number}", found, "baseline"))
    running = await proxy(states)

    wrong, versions = [], Counter()
    for number, state in enumerate(states):
        for request in [random_request(draw, number) for _ in range(40)]:
            _, version, _ = await running.client.get(
                request.path, request.headers, request.host, request.method
            )
            versions[version] += 1
            if version != pick(state, request).version:
                wrong.append((state.splits, request, version))
    assert wrong == []
    assert min(versions["v1"], versions["v2"]) > 500


async def test_a_list_of_ten_thousand_users_is_exact(proxy, ports):
    draw = Random(1)
    users = sorted(str(UUID(int=draw.getrandbits(128))) for _ in range(10_000))
    listed, others = users[::2], users[1::2]
    tree = match(all=[{"users": listed}, {"not": {"users": listed[:3]}}])
    splits = (Split("listed", tree, ((0, 10_000),)), Split("everyone", None, ()))
    wide = (Split("listed", match(users=users), ((0, 10_000),)), Split("everyone", None, ()))
    cookie = {"user": {"from": [{"cookie": "uid"}]}}
    states = [
        ServiceTraffic(service(ports), "v1", "v2", "r1", "s", splits, "random"),
        ServiceTraffic(
            service(ports, "cookie", routes=[{"host": "cookie.test"}], **cookie),
            "v1", "v2", "r1", "s", wide, "random",
        ),
    ]  # fmt: skip
    running = await proxy(states)

    for user in (*listed[:5], *listed[-1:], *draw.sample(listed, 20), *others[:3], *draw.sample(others, 20)):
        for headers in (
            (("x-user-id", user),),
            (("cookie", f"a=b; uid={user}"),),
            (("x-user-id", "x"), ("cookie", f"uid={user}")),
            (("x-user-id", f"{user}x"),),
        ):
            version = (await running.client.get(headers=headers))[1]
            assert version == pick(states[0], Request(headers=headers)).version, headers
    for user in (users[0], users[-1], "x"):
        _, version, _ = await running.client.get(host="cookie.test", headers=[("cookie", f"uid={user}")])
        assert version == ("v1" if user == "x" else "v2")


async def test_thousands_of_hosts_find_their_services(proxy, ports):
    everyone = (Split("everyone", None, ()),)
    states = [
        ServiceTraffic(
            service(ports, f"s{i}", routes=[{"host": f"s{i}.test"}, {"host": f"www.s{i}.test"}], user={}),
            "v1" if i % 2 else "v2",
            None,
            None,
            "s",
            everyone,
            "random",
        )
        for i in range(1000)
    ]
    long = "-".join(["0123456789"] * 14) + ".test"
    odd = [long, f"*.{long}", f"*.{long[-59:]}", *("a" * length for length in range(1, 60))]
    routes = [{"host": host} for host in odd]
    states.append(
        ServiceTraffic(service(ports, "odd", routes=routes), "v2", None, None, "s", everyone, "random")
    )
    running = await proxy(states)

    for i in range(0, 1000, 37):
        for host in (f"s{i}.test", f"www.s{i}.test:80", f"S{i}.Test"):
            assert (await running.client.get(host=host))[1] == states[i].stable, host
    for host in (long, long.upper(), f"b.{long}", f"B.{long[-59:]}", "a" * 59, "A" * 42):
        assert (await running.client.get(host=host))[1] == "v2", host
    for host in ("s1000.test", "a" * 60, "A" * 60):
        assert (await running.client.get(host=host))[0] == 404, host


async def test_a_generated_identity_keeps_its_version(proxy, ports):
    state = traffic(service(ports, user={}), 3000, eu=3000, anonymous="generate")
    running = await proxy([state])

    versions = Counter()
    for _ in range(60):
        _, version, headers = await running.client.get(headers=[("x-turnout-fresh-user", "mine")])
        given = headers["set-cookie"]
        user = given.partition("=")[2].partition(";")[0]
        assert len(user) > 20
        request = (("cookie", f"turnout-user={user}"),)
        _, again, later = await running.client.get(headers=request)
        assert version == again == pick(state, Request(headers=request)).version
        assert "set-cookie" not in later
        versions[version] += 1

    assert set(versions) == {"v1", "v2"}


async def test_hosts_and_paths_lead_to_their_services(proxy, ports):
    claims = {
        "exact": [{"host": "shop.test"}],
        "deep": [{"host": "shop.test", "path": "/checkout"}, {"host": "www.shop.test"}],
        "wild": [{"host": "*.shop.test"}],
        "wilder": [{"host": "*.api.shop.test"}],
    }
    found = [
        ServiceTraffic(
            service(ports, name, routes=routes, user={}),
            "v1",
            None,
            None,
            "s",
            (Split("everyone", None, ()),),
            "random",
        )
        for name, routes in claims.items()
    ]
    running = await proxy(found, "local")

    async def owner(host: str, path: str = "/") -> str | int:
        before = await running.counted()
        code, _, _ = await running.client.get(path, host=host, headers=[("x-turnout-scope", "exact")])
        [(_, cluster, _)] = await running.counted() - before
        return cluster.partition("~")[0] if code == 200 else code

    expected = {
        "shop.test": "exact",
        "SHOP.test": "exact",
        "Shop.Test:8080": "exact",
        "shop.test:8080": "exact",
        "www.shop.test": "deep",
        "a.shop.test": "wild",
        "A.b.Shop.test:1": "wild",
        "v1.api.shop.test": "wilder",
        "ashop.test": 404,
        "other": 404,
        "127.0.0.1": 404,
    }
    assert {host: await owner(host) for host in expected} == expected
    paths = {
        "/checkout": "deep",
        "/checkout/": "deep",
        "/checkout/a": "deep",
        "/checkout?a=b": "deep",
        "/checkouts": "exact",
        "/a/checkout": "exact",
    }
    assert {path: await owner("shop.test", path) for path in paths} == paths


async def test_every_outcome_is_counted_in_its_class(proxy, ports):
    empty = {"v1": {"endpoints": []}}
    dead = {"v1": {"endpoints": [f"127.0.0.1:{free_ports(1)[0]}"]}}
    everyone = (Split("everyone", None, ()),)
    documents = [
        service(ports, user={"from": [{"header": "x-user-id"}]}, timeout="2s"),
        service(ports, "empty", routes=[{"host": "empty.test"}], versions=empty),
        service(ports, "dead", routes=[{"host": "dead.test"}], versions=dead),
        service(ports, "slow", routes=[{"host": "slow.test"}], timeout="1m"),
    ]
    running = await proxy([ServiceTraffic(d, "v1", None, None, "s", everyone, "random") for d in documents])
    cases = {
        "ok": [[("x-code", "200")], [("x-code", "302")], [("x-grpc", "0")]],
        "c4": [[("x-code", "404")], [("x-grpc", "5")]],
        "limited": [[("x-code", "429")], [("x-grpc", "8")]],
        "bad": [
            [("x-code", "500")],
            [("x-grpc", "14")],
            [("x-do", "hang")],
            [("x-do", "reset")],
            [("x-do", "break")],
            [("x-do", "stall")],
        ],
    }

    for kind, requests in cases.items():
        for headers in requests:
            before = await running.counted()
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await asyncio.wait_for(running.client.get(headers=[*headers, ("x-user-id", "u")]), PATIENCE)
            running.client.close()
            await until(grown(running, before))
            new = await running.counted() - before
            assert dict(new) == {("everyone", "checkout~v1", kind): 1}, headers
    for name in ("empty", "dead"):
        before = await running.counted()
        assert (await running.client.get(host=f"{name}.test"))[0] == 503
        await until(grown(running, before))
        assert dict(await running.counted() - before) == {("anonymous", f"{name}~v1", "bad"): 1}
    for until_when in ("hang", "stall"):
        before = await running.counted()
        await running.client.leave([("x-do", until_when)], "slow.test")
        await until(grown(running, before))
        assert dict(await running.counted() - before) == {("anonymous", "slow~v1", "abort"): 1}, until_when


async def test_durations_are_counted_in_the_buckets_of_the_limits(proxy, ports):
    state = ServiceTraffic(
        service(ports, timeout="1200ms"), "v1", None, None, "s", (Split("everyone", None, ()),), "random"
    )
    running = await proxy([state])
    await running.client.get()
    await running.client.get(headers=[("x-do", "hang")])

    async def buckets() -> dict[float, int]:
        query = "format=json&histogram_buckets=disjoint&filter=^turnout[.]t[.]service[.]checkout"
        stats = json.loads(await running.ask(f"/stats?{query}"))["stats"]
        found = next((entry["histograms"][0] for entry in stats if entry.get("histograms")), {"buckets": ()})
        return {bucket["upper_bound"]: bucket["cumulative"] for bucket in found["buckets"]}

    await until(lambda: _sums_up(buckets, 2))
    found = await buckets()
    assert tuple(found) == EDGES_MS
    assert sum(count for edge, count in found.items() if edge > 1000) == 1


async def _sums_up(buckets: Callable[[], Any], count: int) -> bool:
    return sum((await buckets()).values()) == count


def grown(running: Proxy, before: Counter[tuple[str, str, str]]) -> Callable[[], Any]:
    async def condition() -> bool:
        return bool(await running.counted() - before)

    return condition
