"""The process: one event loop with the xDS port, the HTTP API, the tick, the publisher and the folder."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import grpc.aio
import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from controlplane.app.hooking import Hooking
from controlplane.app.importing import Importer
from controlplane.app.lateness import Lateness
from controlplane.app.metrics import CertificateMetrics, Metrics
from controlplane.app.outbox import Outbox
from controlplane.app.plane import Plane
from controlplane.app.publish import Publisher
from controlplane.app.statistics import StreamStatistics
from controlplane.app.tick import Loop
from controlplane.server import options
from controlplane.server.accepting import ended, make
from controlplane.server.ads import services, stop
from controlplane.server.certificates import Certificates
from controlplane.server.descriptors import operators_share
from controlplane.server.garbage import collect_seldom
from controlplane.server.intake import Intake
from controlplane.server.limits import Limits
from controlplane.server.lrs import LoadReporting
from controlplane.server.options import BindError, bind, loopback
from controlplane.server.tls import TlsError, TlsFiles, refuse_stranger
from controlplane.server.troubles import Troubles
from controlplane.sources.collector import Collector
from controlplane.sources.dns import Resolver
from controlplane.sources.lrs import LoadReports
from controlplane.sources.prometheus import Prometheus
from controlplane.sources.pushed import Pushed
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.access import Access
from controlplane.web.api import Api
from controlplane.web.connections import Listener, Punctual
from controlplane.web.operators import Operators, OperatorsError

log = structlog.get_logger()
RENEW = 5.0  # seconds between two looks at the certificates
DRAIN = 1.0  # seconds over which streams are ended, so that proxies do not return all at once


class ServeError(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to serve.

    Attributes:
        data: Folder of the store.
        policies: Folder of documents to follow; None takes documents by `apply` alone.
        xds: Address of the gRPC port, ``host:port``; port 0 asks for a free one.
        http: Address of the HTTP API.
        interval: Of the proxies' statistics, and so of the tick.
        tls: Certificates of the gRPC port; None serves it in plain text.
        insecure: Whether plain text, and HTTP without operators, may be reachable by other machines.
        require_identity: Whether a node must have its id in its certificate.
        limits: Of the streams.
        prometheus: Address of the one that policies query.
        operators: File of who may use the HTTP API; None lets in everyone who reaches it.
        http_tls: Certificate of the HTTP API; None serves it in plain text.
        name: What this server calls itself in its responses; by default its host.
    """

    data: Path
    policies: Path | None = None
    xds: str = "127.0.0.1:18000"
    http: str = "127.0.0.1:18080"
    interval: timedelta = timedelta(seconds=5)
    tls: TlsFiles | None = None
    insecure: bool = False
    require_identity: bool = False
    limits: Limits = field(default_factory=Limits)
    prometheus: str | None = None
    operators: Path | None = None
    http_tls: TlsFiles | None = None
    name: str = field(default_factory=socket.gethostname)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is up.

    Attributes:
        plane: The control plane behind the API.
        xds_port: Where proxies connect.
        http_port: Where operators do.
        tasks: The loops.
    """

    plane: Plane
    xds_port: int
    http_port: int
    tasks: tuple[asyncio.Task[None], ...]

    async def failure(self) -> str:
        """Wait until one of the loops ends, which none ever should, and say how it did."""
        done, _ = await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        task = done.pop()
        return f"{task.get_name()} ended: {'cancelled' if task.cancelled() else task.exception()!r}"


class _Web(uvicorn.Server):
    """Uvicorn without its signal handlers: the command owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Running]:
    """Run everything inside the context; on leaving, stop deciding first, then let the proxies go.

    Raises:
        ServeError: If a port is busy, or its certificates cannot be used.
        StoreError: If the store cannot be used.
    """
    async with contextlib.AsyncExitStack() as leaving:
        access = _access(settings)
        http = leaving.enter_context(_listen(settings.http))
        store = await SqliteStore(settings.data).open()
        leaving.push_async_callback(store.close)
        resolver = Resolver()
        publisher = Publisher(
            store,
            refusal=refuse_stranger if settings.require_identity else lambda _node, _peer: None,
            limits=settings.limits,
            resolver=resolver,
            identifier=settings.name,
        )
        collector = Collector(settings.interval, publisher.listens)
        reports = LoadReports(settings.interval, publisher.present)
        prometheus, pushed = Prometheus(settings.prometheus), Pushed()
        statistics = StreamStatistics(publisher.server, collector, reports, prometheus, pushed)
        loop = Loop(store, statistics, publisher, settings.interval)
        collector.restore(await loop.restore())
        outbox = Outbox(store)
        plane = Plane(store, loop, publisher, collector, outbox=outbox, pushed=pushed)
        plane.answers_queries = settings.prometheus is not None
        many = f"{http.most} are open at --http, as many as may be; the oldest are ended"
        http.refused = lambda host: plane.troubles.add("connections of", host, many)
        certificates: list[Certificates] = []
        registry = CollectorRegistry()
        registry.register(Metrics(plane))
        registry.register(lateness := Lateness())
        registry.register(CertificateMetrics(certificates))

        intake = Intake(lambda peer, data: collector.receive(peer, data, datetime.now(UTC)), plane.troubles)
        loads = LoadReporting(
            settings.interval,
            reports.opened,
            settings.limits.streams_per_peer,
            plane.troubles,
            settings.limits.write_timeout,
        )
        server = make({**services(publisher.server), **intake.services(), **loads.services()})
        xds_port = _bind(server, settings, certificates, plane.troubles)
        # Nothing is answered before the state is loaded: from here on it is, and the first snapshot is there.
        publisher.publish(await store.world())
        collect_seldom()
        await server.start()
        leaving.push_async_callback(stop, server, publisher.server, DRAIN)
        leaving.callback(loads.stop)  # before that: nothing else would end them

        web = _Web(_web_config(Api(plane, registry, access).app, settings.http_tls))
        if settings.http_tls is not None:
            certificates.append(_http_certificates(settings.http_tls, web.config, plane.troubles))
        tasks = [
            asyncio.create_task(ended(server), name="xds"),
            asyncio.create_task(lateness.run(), name="lateness"),
            asyncio.create_task(publisher.run(), name="publish"),
            asyncio.create_task(publisher.resolve(), name="addresses"),
            asyncio.create_task(resolver.run(), name="names"),
            asyncio.create_task(loop.run(), name="tick"),
            asyncio.create_task(prometheus.run(), name="prometheus"),
            asyncio.create_task(outbox.run(), name="outbox"),
            asyncio.create_task(Hooking(store, loop).run(), name="hooks"),
            asyncio.create_task(web.serve(sockets=[http]), name="http"),
        ]
        if certificates:
            tasks.append(asyncio.create_task(_renew(certificates), name="certificates"))
        if settings.policies is not None:
            tasks.append(asyncio.create_task(Importer(settings.policies, plane).run(), name="policy folder"))
        leaving.push_async_callback(_end, web, tasks)
        leaving.callback(plane.leave)
        http_port = http.getsockname()[1]
        running = Running(plane, xds_port, http_port, tuple(tasks))
        await _ready(running, web)
        log.info("serving", xds=xds_port, http=http_port, data=str(settings.data))
        yield running


def _web_config(app: Starlette, tls: TlsFiles | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=Punctual,
        log_config=None,
        lifespan="off",
        access_log=False,
        backlog=128,  # out of open files, asyncio tries so many times a second
        timeout_graceful_shutdown=5,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    try:
        if tls is not None:
            tls.read()
        config.load()
    except (TlsError, OSError) as error:
        raise ServeError(f"TLS of --http: {error}") from error
    return config


def _http_certificates(tls: TlsFiles, config: uvicorn.Config, troubles: Troubles) -> Certificates:
    assert config.ssl is not None
    take = partial(config.ssl.load_cert_chain, tls.certificate, tls.key)
    try:
        return Certificates(tls, "--http", troubles, take)
    except TlsError as error:
        raise ServeError(f"TLS of --http: {error}") from error


async def _renew(certificates: Sequence[Certificates]) -> None:
    """Look at the files also while nobody connects, so that what is wrong is logged in time."""
    while True:
        await asyncio.sleep(RENEW)
        for port in certificates:
            port.problems()


def _access(settings: Settings) -> Access:
    host, _ = split_address(settings.http)
    local = loopback(host)
    safe = settings.operators is not None and settings.http_tls is not None
    if not (local or safe or settings.insecure):
        raise ServeError(
            f"--http {settings.http}: others could reach it; give --operators, --http-cert and --http-key, "
            "or let everyone in with --insecure"
        )
    try:
        return Access(Operators(settings.operators) if settings.operators else None, local)
    except OperatorsError as error:
        raise ServeError(f"--operators: {error}") from error


async def _ready(running: Running, web: uvicorn.Server) -> None:
    while not (running.plane.ready and web.started):
        if any(task.done() for task in running.tasks):
            raise ServeError(await running.failure())
        await asyncio.sleep(0.01)


async def _end(web: uvicorn.Server, tasks: list[asyncio.Task[None]]) -> None:
    web.should_exit = True
    for task in tasks:
        if task.get_name() != "http":  # it ends by itself, after the requests that it is answering
            task.cancel()
    await asyncio.wait(tasks, timeout=5)


def _bind(
    server: grpc.aio.Server, settings: Settings, certificates: list[Certificates], troubles: Troubles
) -> int:
    host, port = split_address(settings.xds)
    if settings.tls is None and not (settings.insecure or loopback(host)):
        raise ServeError(
            f"--xds {settings.xds}: others could reach it in plain text; "
            "give --tls-cert and --tls-key, or allow it with --insecure"
        )
    try:
        credentials = None
        if settings.tls is not None:
            certificates.append(Certificates(settings.tls, "--xds", troubles))
            credentials = certificates[-1].credentials()
        return bind(server, host, port, credentials, insecure=settings.insecure)
    except TlsError as error:
        raise ServeError(f"TLS of --xds: {error}") from error
    except BindError as error:
        raise ServeError(f"{error}; choose another with --xds") from error


def split_address(address: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
        ServeError: If it is not ``host:port``.
    """
    try:
        return options.split_address(address)
    except BindError as error:
        raise ServeError(str(error)) from error


def _listen(address: str) -> Listener:
    host, port = split_address(address)
    listener = Listener(socket.AF_INET6 if ":" in host else socket.AF_INET, operators_share())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        why = (error.strerror or str(error)).lower()
        raise ServeError(f"cannot listen on {address}: {why}; choose another with --http") from error
    return listener
