"""A TCP relay that can go mute: the way by which Envoy's statistics stop arriving."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Mapping
from typing import Any


class Relay:
    """Bytes from a port of loopback to another one and back, until it is cut.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._muted = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen and pass on; after a stop at the same port again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Swallow what arrives from now on: connections stay open and nobody is told."""
        self._muted = True

    async def stop(self) -> None:
        """Close everything."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError):
                upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target)
                await asyncio.gather(self._pass(reader, upstream), self._pass(upstream_reader, writer))
        except asyncio.CancelledError:
            pass  # stop() ends it; the streams module would log the cancellation
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not self._muted:
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()


def stats_through(bootstrap: Mapping[str, Any], port: int) -> dict[str, Any]:
    """Return the bootstrap with its statistics sinks sent to another port of loopback.

    Each static cluster that a sink names is copied under a name of its own, so that ADS keeps its way.

    Raises:
        ValueError: If no sink names a static cluster.
    """
    changed = copy.deepcopy(dict(bootstrap))
    clusters = changed["static_resources"]["clusters"]
    by_name = {cluster["name"]: cluster for cluster in clusters}
    added: dict[str, Any] = {}
    for sink in changed.get("stats_sinks", ()):
        service = sink["typed_config"].get("grpc_service", {}).get("envoy_grpc", {})
        name = service.get("cluster_name")
        if name in by_name:
            added[name] = _moved(by_name[name], f"{name}_stats", port)
            service["cluster_name"] = f"{name}_stats"
    if not added:
        raise ValueError("bootstrap: no statistics sink names a static cluster")
    clusters.extend(added.values())
    return changed


def _moved(cluster: Mapping[str, Any], name: str, port: int) -> dict[str, Any]:
    """Return a copy of a static cluster under another name, with one endpoint on loopback."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    assignment = {"cluster_name": name, "endpoints": endpoints}
    return {**copy.deepcopy(dict(cluster)), "name": name, "load_assignment": assignment}
