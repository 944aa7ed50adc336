"""A server over real grpc.aio on loopback, and clients that speak bytes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest
import structlog

from controlplane._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from controlplane._pb.node_pb2 import Node
from controlplane.server.accepting import make
from controlplane.server.ads import services
from controlplane.server.certificates import Certificates
from controlplane.server.options import bind
from controlplane.server.streams import XdsServer
from controlplane.server.troubles import Troubles
from controlplane.xds.snapshot import Resource, Snapshot, content_hash
from controlplane.xds.type_urls import PUSH_ORDER
from controlplane.xds.version import Version
from tests.waiting import PATIENCE, until

sys.path.insert(0, str(Path(__file__).parent))  # for real_envoy.py, which is no test

ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"


def resource(name, body=b"1", revision=1):
    return Resource(name, body, Version(revision, content_hash((body,))))


def snapshot(revision, type_url, *resources):
    return Snapshot(revision, {type_url: {r.name: r for r in resources}}, PUSH_ORDER)


class Call:
    """One stream of a client."""

    def __init__(self, channel, path, node="proxy-1"):
        self.channel = channel
        self.delta = "/Delta" in path
        self.call = channel.stream_stream(path)()
        self.node = Node(id=node, cluster="edge").SerializeToString()

    async def ask(self, type_url="", **fields):
        kind = DeltaDiscoveryRequest if self.delta else DiscoveryRequest
        message = kind(type_url=type_url, node=self.node, **fields)
        self.node = b""
        await self.call.write(message.SerializeToString())

    async def hear(self, seconds=PATIENCE):
        data = await asyncio.wait_for(self.call.read(), seconds)
        assert data is not grpc.aio.EOF, (await self.call.code(), await self.call.details())
        return (DeltaDiscoveryResponse if self.delta else DiscoveryResponse).FromString(data)

    async def end(self, seconds=PATIENCE):
        async def drained():
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            return await self.call.code(), await self.call.details()

        return await asyncio.wait_for(drained(), seconds)


@pytest.fixture
async def serve():
    """Start servers and clients; end them after the test."""
    started, channels = [], []

    async def start(group_of=lambda node: node.cluster, tls=None, **options):
        xds = XdsServer(group_of, **options)
        server = make(services(xds))
        port = bind(
            server, "127.0.0.1", 0, Certificates(tls, "here", Troubles()).credentials() if tls else None
        )
        await server.start()
        started.append(server)

        def connect(
            method=f"/{ADS}/StreamAggregatedResources", node="proxy-1", credentials=None, **client_options
        ):
            # A pool of its own: else gRPC would lend one connection to all channels of a test.
            client_options.setdefault("grpc.use_local_subchannel_pool", 1)
            at, with_options = f"127.0.0.1:{port}", tuple(client_options.items())
            channel = (
                grpc.aio.secure_channel(at, credentials, options=with_options)
                if credentials
                else grpc.aio.insecure_channel(at, options=with_options)
            )
            channels.append(channel)
            return Call(channel, method, node)

        return SimpleNamespace(xds=xds, server=server, port=port, connect=connect)

    yield start
    for channel in channels:
        await channel.close()
    for server in started:
        await server.stop(0)


@pytest.fixture
def say(capsys):
    """Print a figure past pytest's capture."""

    def line(text):
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return line


EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A certificate authority, and what it signs, as files made by openssl."""

    def __init__(self, folder, name, signed=()):
        self.folder, self.name = folder, name
        self.cert, self._key = signed or self._make(name, "-addext", "basicConstraints=critical,CA:TRUE")

    def sign(self, name, *alternatives):
        """Return certificate and key for some subject alternative names, like ``DNS:edge-1``."""
        extra = ("-addext", f"subjectAltName={','.join(alternatives)}") if alternatives else ()
        return self._make(name, "-CA", self.cert, "-CAkey", self._key, *extra)

    def below(self, name, begins, ends, *, called=""):
        """Return an authority that this one has signed; ``called`` is its name in certificates."""
        signed = self.dated(name, begins, ends, authority=True, by=self, called=called)
        return Authority(self.folder, name, signed)

    def dated(self, name, begins, ends, *alternatives, authority=False, by=None, called=""):
        """Return certificate and key of that validity; an authority if asked for: its own, or ``by`` this."""
        cert, key = self.folder / f"{self.name}-{name}.crt", self.folder / f"{self.name}-{name}.key"
        request, config = self.folder / f"{name}.csr", self.folder / "ca.cnf"
        (self.folder / "ca.index").write_text("")
        config.write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={self.folder / 'ca.index'}\nnew_certs_dir={self.folder}\n"
            "default_md=sha256\npolicy=any\ncopy_extensions=copy\nunique_subject=no\nrand_serial=yes\n"
            "[any]\ncommonName=supplied\n"
        )
        names = ("-addext", f"subjectAltName={','.join(alternatives)}") if alternatives else ()
        rights = ("-addext", "basicConstraints=critical,CA:TRUE") if authority else ()
        command = [
            "openssl",
            "req",
            "-new",
            *EC,
            "-subj",
            f"/CN={called or name}",
            "-out",
            request,
            "-keyout",
            key,
        ]
        subprocess.run([*command, *names, *rights], check=True, capture_output=True)
        own = authority and by is None
        by = ("-selfsign", "-keyfile", key) if own else ("-cert", self.cert, "-keyfile", self._key)
        dates = ("-startdate", f"{begins:%Y%m%d%H%M%SZ}", "-enddate", f"{ends:%Y%m%d%H%M%SZ}")
        sign = ["openssl", "ca", "-batch", "-notext", "-config", config, "-in", request]
        subprocess.run([*sign, "-out", cert, *by, *dates], check=True, capture_output=True)
        return cert, key

    def client(self, name, *alternatives):
        """Return the credentials of a client that has such a certificate and trusts this authority."""
        cert, key = self.sign(name, *alternatives)
        parts = (self.cert, key, cert)
        return grpc.ssl_channel_credentials(*(part.read_bytes() for part in parts))

    def _make(self, name, *arguments):
        cert, key = self.folder / f"{self.name}-{name}.crt", self.folder / f"{self.name}-{name}.key"
        command = [
            "openssl",
            "req",
            "-x509",
            *EC,
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-out",
            cert,
            "-keyout",
            key,
            *arguments,
        ]
        subprocess.run(command, check=True, capture_output=True)
        return cert, key


@pytest.fixture
def authority(tmp_path):
    """Make certificate authorities, by name."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return lambda name: Authority(tmp_path, name)


@pytest.fixture
def kit():
    return SimpleNamespace(resource=resource, snapshot=snapshot, until=until, Call=Call, ADS=ADS)


@pytest.fixture
def unconfigured():
    """Logs as a program has them that embeds the server and configures none; other tests configure some."""
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**before)
