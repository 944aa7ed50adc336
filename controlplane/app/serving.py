"""The process: one event loop with the xDS port, the HTTP API, the tick, the publisher and the folder."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from controlplane.app.importing import Importer
from controlplane.app.metrics import Metrics
from controlplane.app.plane import Plane
from controlplane.app.publish import EnvoyStatistics, Publisher
from controlplane.app.tick import Loop
from controlplane.server.ads import handlers
from controlplane.server.intake import Intake
from controlplane.server.options import SERVER_OPTIONS, BindError, bind
from controlplane.sources.collector import Collector
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.api import Api

log = structlog.get_logger()
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
    """

    data: Path
    policies: Path | None = None
    xds: str = "127.0.0.1:18000"
    http: str = "127.0.0.1:18080"
    interval: timedelta = timedelta(seconds=5)


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

    async def failed(self) -> None:
        """Return when one of the loops has ended: none ever should, so whoever serves must stop."""
        await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Running]:
    """Run everything inside the context; on leaving, stop deciding first, then let the proxies go.

    Raises:
        ServeError: If a port is busy.
        StoreError: If the store cannot be used.
    """
    http = _listen(settings.http)
    store = await SqliteStore(settings.data).open()
    publisher = Publisher(store)
    collector = Collector(settings.interval, publisher.listens)
    loop = Loop(store, EnvoyStatistics(publisher.server, collector), publisher, settings.interval)
    collector.restore(await loop.restore())
    plane = Plane(store, loop, publisher, collector)
    registry = CollectorRegistry()
    registry.register(Metrics(plane))

    grpc_server = grpc.aio.server(options=SERVER_OPTIONS)
    intake = Intake(lambda peer, data: collector.receive(peer, data, datetime.now(UTC)))
    grpc_server.add_generic_rpc_handlers((*handlers(publisher.server), intake.handler()))
    try:
        host, port = split_address(settings.xds)
        xds_port = bind(grpc_server, host, port)
    except BindError as error:
        http.close()
        await store.close()
        raise ServeError(f"{error}; choose another with --xds") from error
    # Nothing is answered before the state is loaded: the store is open, so the first snapshot comes at once.
    publisher.publish(await store.world())
    await grpc_server.start()
    web = uvicorn.Server(
        uvicorn.Config(Api(plane, registry).app, log_config=None, lifespan="off", access_log=False)
    )
    web.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # the command owns the signals
    loops = [publisher.run(), loop.run(), web.serve(sockets=[http])]
    if settings.policies is not None:
        loops.append(Importer(settings.policies, plane).run())
    tasks = [asyncio.create_task(each) for each in loops]
    try:
        await _ready(plane, web, tasks)
        http_port = http.getsockname()[1]
        log.info("serving", xds=xds_port, http=http_port, data=str(settings.data))
        yield Running(plane, xds_port, http_port, tuple(tasks))
    finally:
        await _stop(publisher, grpc_server, web, tasks)
        await store.close()


async def _ready(plane: Plane, web: uvicorn.Server, tasks: list[asyncio.Task[None]]) -> None:
    while not (plane.ready and web.started):
        done = [task for task in tasks if task.done()]
        for task in done:
            task.result()
        await asyncio.sleep(0.01)


async def _stop(
    publisher: Publisher, server: grpc.aio.Server, web: uvicorn.Server, tasks: list[asyncio.Task[None]]
) -> None:
    web.should_exit = True
    for task in tasks:
        if task.get_coro() is not None and getattr(task.get_coro(), "__name__", "") != "serve":
            task.cancel()
    await publisher.server.drain(DRAIN if publisher.server.views() else 0)
    await server.stop(grace=DRAIN)
    await asyncio.wait(tasks, timeout=5)
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            log.error("stopped by a failure", error=repr(error))


def split_address(address: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
        ServeError: If it is not ``host:port``.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ServeError(f"{address!r} is not an address; write 'host:port'")
    return host.strip("[]"), int(port)


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        why = (error.strerror or str(error)).lower()
        raise ServeError(f"cannot listen on {address}: {why}; choose another with --http") from error
    return listener
