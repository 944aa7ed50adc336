"""Settings of services on a real Envoy: what reaches the endpoints, what users see, what is judged."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections import Counter

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from controlplane.demo.ports import free_ports
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy]

SERVICE = """\
kind: Service
name: {name}
fleets: [edge]
routes: [{{host: {name}.test{claim}}}]
user: {{from: [{{header: x-user-id}}], otherwise: baseline}}
initial: v1
versions: {{v1: {{endpoints: [{endpoints}]}}}}
{settings}
"""


class Endpoint:
    """A server that says which it is and what it was sent; without health it fails only its checks."""

    def __init__(self, name):
        self.name = name
        self.healthy = True
        self.checked = 0
        self.copies = 0

    async def start(self, context=None):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ")[1]
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                if headers.get("upgrade") == "websocket":
                    writer.write(b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
                    writer.write(await reader.read(100))
                    continue
                code = 200
                self.copies += headers.get("x-turnout-mirror") == "true"
                if path == "/healthz":
                    self.checked += 1
                    code = 200 if self.healthy else 503
                told = headers.get("x-turnout-version", "-")
                body = " ".join((self.name, path, headers["host"], told))
                writer.write(f"HTTP/1.1 {code} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()

    def close(self):
        self._server.close()


class Http2Endpoint:
    """A server that speaks HTTP/2 only and says which it is; `/held` is answered once it is let go."""

    def __init__(self, name):
        self.name = name
        self.code = 200
        self.held = asyncio.Event()
        self.go = asyncio.Event()

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        talk = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        talk.initiate_connection()
        while data := await reader.read(65536):
            for event in talk.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    if (b":path", b"/held") in event.headers:
                        self.held.set()
                        await self.go.wait()
                    talk.send_headers(event.stream_id, [(":status", str(self.code))])
                    talk.send_data(event.stream_id, self.name.encode(), end_stream=True)
            writer.write(talk.data_to_send())
        writer.close()

    def close(self):
        self.go.set()
        self._server.close()


@pytest.fixture
async def endpoints():
    started = [await Endpoint(name).start() for name in ("a", "b")]
    yield started
    for endpoint in started:
        endpoint.close()


@pytest.fixture
def certificates(tmp_path):
    """A CA of its own, and a certificate that it signed for `shop.internal`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path / "tls"
    folder.mkdir()
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    ca = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca"]
    leaf = ["-keyout", "leaf.key", "-out", "leaf.crt", "-subj", "/CN=x", "-CA", "ca.crt", "-CAkey", "ca.key"]
    name = ["-addext", "subjectAltName=DNS:shop.internal"]
    for arguments in (ca, [*leaf, *name]):
        subprocess.run([*make, *arguments], cwd=folder, check=True, capture_output=True)
    return folder


def service(name, *ports, claim="", **settings):
    listed = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    lines = "\n".join(f"{key}: {value}" for key, value in settings.items())
    return SERVICE.format(name=name, endpoints=listed, claim=claim, settings=lines)


class Users:
    """Asks the proxy for services by host."""

    def __init__(self, port):
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    async def get(self, host, path="/", **headers):
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return await self._client.get(path, headers={"host": f"{host}.test", **named})


async def running(site, *services):
    await site.serve()
    fleet, _ = site.world("edge")
    await site.apply(fleet, *services)
    await site.start(edge_1=site.bootstrap("edge-1"))
    users = Users(site.ports["edge"])

    async def served():
        names = [one.split("\n")[1].removeprefix("name: ") for one in services]
        return 404 not in [(await users.get(name, "/old")).status_code for name in names]

    await site.until(served)
    return users


async def test_what_a_service_asks_for_is_what_its_requests_get(site, endpoints):
    a, b = endpoints
    (nobody,) = free_ports(1)
    users = await running(
        site,
        service("tried", a.port, nobody, retries="{attempts: 2}"),
        service("told", a.port, version_header="x-turnout-version", explain_header="x-debug"),
        service("plain", a.port),
        service("moved", a.port, claim=", path: /old, rewrite: {path: /, host: new.test}"),
        service("affine", a.port, b.port, balance="ring_hash"),
        service("checked", a.port, b.port, health="{path: /healthz, every: 100ms}"),
        service("sockets", a.port, claim=", websockets: true"),
        service("closed", a.port, claim=", websockets: false"),
    )

    # one endpoint of two is dead, and nobody notices
    assert {(await users.get("tried")).status_code for _ in range(20)} == {200}

    # the version is told, not believed, and shown to who asks
    told = await users.get("told", x_turnout_version="spoof")
    asked = await users.get("told", x_debug="1")
    assert told.text.split() == ["a", "/", "told.test", "told=v1"]
    assert "x-turnout-version" not in told.headers
    assert asked.headers["x-turnout-version"] == "v1"
    assert (await users.get("plain", x_turnout_version="spoof")).text.split()[-1] == "-"

    moved = await users.get("moved", "/old/x?y=1")
    assert moved.text.split() == ["a", "/x?y=1", "new.test", "-"]

    # a user keeps an endpoint, and not all keep the same one
    seen = {
        n: {(await users.get("affine", x_user_id=n)).text[0] for _ in range(3)} for n in map(str, range(30))
    }
    assert {len(names) for names in seen.values()} == {1}
    assert set().union(*seen.values()) == {"a", "b"}

    # an endpoint that fails its checks gets nothing more
    b.healthy = False

    async def ejected():
        return (await site.stats("edge-1", "^cluster.checked~v1.membership_healthy$")).popitem()[1] == 1

    async def only_a():  # Envoy's workers follow what it has counted
        return Counter([(await users.get("checked")).text[0] for _ in range(20)]) == {"a": 20}

    await site.until(ejected)
    await site.until(only_a)
    assert b.checked > 3

    assert await upgraded(site, "sockets") == (b"HTTP/1.1 101 Switching Protocols", b"hello")
    assert (await upgraded(site, "closed"))[0] == b"HTTP/1.1 403 Forbidden"


async def test_http2_endpoints_in_zones_within_limits_and_without_those_that_fail(site):
    a, b = [await Http2Endpoint(name).start() for name in ("a", "b")]
    zones = (
        f'[{{address: "127.0.0.1:{a.port}", zone: x}}, {{address: "127.0.0.1:{b.port}", zone: y, weight: 2}}]'
    )
    settings = {"protocol": "http2", "balance": "random", "outliers": "{consecutive_5xx: 3}"}
    both = service("both", **settings, limits="{connections: 4, pending: 4, requests: 4}")
    users = await running(
        site,
        both.replace("endpoints: []", f"endpoints: {zones}"),
        service("one", a.port, protocol="http2", limits="{requests: 1}"),
    )
    await site.synced()
    [proxy] = await site.get("/v1/proxies")
    seen = Counter([(await users.get("both")).text for _ in range(150)])

    # beyond the limit a request fails at once, and what is under way goes on
    held = asyncio.create_task(users.get("one", "/held"))
    await asyncio.wait_for(a.held.wait(), PATIENCE)
    beyond = await users.get("one")
    a.go.set()
    within = await held

    # an endpoint that fails often enough gets nothing more
    b.code = 500

    async def ejected():
        await users.get("both")
        found = await site.stats("edge-1", "^cluster.both~v1.outlier_detection.ejections_active$")
        return sum(found.values()) == 1

    async def only_a():
        return Counter([(await users.get("both")).text for _ in range(20)]) == {"a": 20}

    await site.until(ejected)
    await site.until(only_a)
    a.close()
    b.close()

    assert (proxy["state"], proxy["problems"]) == ("synced", [])
    assert set(seen) == {"a", "b"}
    assert seen["b"] > seen["a"]
    assert (beyond.status_code, within.status_code) == (503, 200)


async def test_a_name_is_resolved_by_the_proxy_and_followed_to_another_port(site, endpoints):
    a, b = endpoints

    def at(port):
        return (
            service("named").replace("endpoints: []", f'dns: "localhost:{port}"') + "retries: {attempts: 2}\n"
        )

    users = await running(site, at(a.port))
    first = {(await users.get("named")).text[0] for _ in range(10)}
    await site.apply(at(b.port))

    async def moved():
        return (await users.get("named")).text[0] == "b"

    await site.until(moved)

    assert first == {"a"}


async def upgraded(site, host):
    """Open a websocket; return the status line, and what comes back of what is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.ports["edge"])
    lines = ("GET / HTTP/1.1", f"host: {host}.test", "connection: upgrade", "upgrade: websocket")
    writer.write(
        "\r\n".join((*lines, "sec-websocket-version: 13", "sec-websocket-key: eA==", "", "")).encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    back = b""
    if b" 101 " in head:
        writer.write(b"hello")
        back = await reader.readexactly(5)
    writer.close()
    return head.split(b"\r\n")[0], back


async def test_tls_to_endpoints_asks_for_the_name(site, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "leaf.crt", certificates / "leaf.key")
    asked = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    secret = await Endpoint("s").start(context)
    ca = certificates / "ca.crt"
    users = await running(
        site,
        service("right", secret.port, upstream_tls=f"{{ca: {ca}, name: shop.internal}}"),
        service("wrong", secret.port, upstream_tls=f"{{ca: {ca}, name: other.internal}}"),
    )

    right, wrong = await users.get("right"), await users.get("wrong")
    secret.close()

    assert right.text.split()[0] == "s"
    assert wrong.status_code == 503
    assert {"shop.internal", "other.internal"} == set(asked)


async def test_a_version_without_a_healthy_endpoint_gets_nobody(site, endpoints):
    _, canary = endpoints
    canary.healthy = False
    await site.serve()
    fleet, shop = site.world("edge")
    shop = shop.replace("  v2:", '  "2.0":')  # Envoy takes a cluster's name to end at its first dot
    v2 = shop.rindex("127.0.0.1:")
    checked = shop[:v2] + f'127.0.0.1:{canary.port}"]}}\n' + "health: {path: /healthz, every: 100ms}\n"
    await site.apply(fleet, checked)
    await site.start(edge_1=site.bootstrap("edge-1"))

    async def known():
        return (await site.stats("edge-1", "^cluster.shop~2.0.health_check.failure$")).popitem()[1] > 3

    async def exports():
        name = "^cluster.turnout.upstream_rq_total$"
        return (await site.stats("edge-1", name)).popitem()[1]

    await site.until(known)
    # What Envoy knows, the control plane knows after the next export that ended.
    before = await exports()

    async def told():
        return await exports() >= before + 2

    await site.until(told)
    policy, release = site.order("name: half, everyone: 50%, for: 10m")
    await site.apply(policy, release.replace("to: v2", 'to: "2.0"'))
    waits = await site.released(hold="no-endpoints")
    canary.healthy = True
    await site.released(phase="progressing", step="half")

    assert waits["phase"] == "waiting"
    assert "2.0 has no endpoints that are healthy, says edge-1" in waits["because"]


async def test_raw_fields_are_merged_and_filters_come_before_the_router(site, endpoints):
    mutation = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
    added = "{response_mutations: [{append: {header: {key: x-%s, value: '1'}}}]}"
    raw = """
      cluster: {max_requests_per_connection: 1}
      virtual_host: {response_headers_to_add: [{header: {key: x-host, value: "1"}}]}
      route: {response_headers_to_add: [{header: {key: x-route, value: "1"}}]}"""
    filters = f'[{{name: own, typed_config: {{"@type": {mutation}, mutations: {added % "filter"}}}}}]'
    await site.serve()
    fleet, _ = site.world("edge")
    manager = f"envoy: {{connection_manager: {{server_name: own, http_filters: {filters}}}}}"
    fleet = fleet.replace("kind: edge}", f"kind: edge, {manager}}}")
    await site.apply(fleet, service("raw", endpoints[0].port, envoy=raw))
    await site.start(edge_1=site.bootstrap("edge-1"))
    users = Users(site.ports["edge"])

    async def served():
        return (await users.get("raw")).status_code == 200

    await site.until(served)
    answer = await users.get("raw")
    reused = await site.stats("edge-1", "^cluster.raw~v1.upstream_cx_max_requests$")

    assert [answer.headers[name] for name in ("x-host", "x-route", "x-filter", "server")] == [
        "1",
        "1",
        "1",
        "own",
    ]
    assert sum(reused.values()) > 0


async def test_copies_are_counted_apart_and_marked(site, endpoints):
    _, canary = endpoints
    await site.serve()
    fleet, shop = site.world("edge")
    v2 = shop.rindex("127.0.0.1:")
    await site.apply(fleet, shop[:v2] + f'127.0.0.1:{canary.port}"]}}\n')
    await site.start(edge_1=site.bootstrap("edge-1"))
    await site.come(200)
    await site.apply(*site.order("name: few, everyone: 0.01%, mirror: {share: 50%}, for: 10m"))

    async def copied():
        found = await site.stats("edge-1", "^cluster.shop~v2~mirror.upstream_rq_completed$")
        return sum(found.values()) > 100

    await site.until(copied)
    shown = await site.released(stage="verify", hold="verify")  # and not stale: copies are no bypass
    seen = await site.leave()

    assert canary.copies > 100
    assert shown["canary_requests"] < 10
    assert seen.unexplained == 0, seen.examples


async def test_a_canary_whose_failures_are_hidden_by_the_other_version_is_rolled_back(site):
    await site.serve()
    fleet, shop = site.world("edge")
    (nobody,) = free_ports(1)
    v2 = shop.rindex("127.0.0.1:")
    broken = shop[:v2] + f'127.0.0.1:{nobody}"]}}\n' + "retries: {other_version: true}\n"
    await site.apply(fleet, broken)
    await site.start(edge_1=site.bootstrap("edge-1"))
    await site.come(200)
    policy, release = site.order("name: half, everyone: 50%, for: 10m")
    await site.apply(policy.replace("errors: off", "errors: {against: baseline}"), release)

    await site.released(phase="rolled_back")
    seen = await site.leave()
    records = await site.get("/v1/records?release=shop-v2&limit=1000")
    [back] = [record for record in records if record["action"] == "rollback"]

    assert back["numbers"]["code"] in ("errors/everyone", "success rate/everyone"), back["reason"]
    assert seen.unexplained == 0, seen.examples
    assert await site.reached("edge-1", "v2") == 0
