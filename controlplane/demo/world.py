"""All of the demo but the control plane: service, users, load, Envoys and the fault."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controlplane.demo.documents import TIMEOUT_SECONDS
from controlplane.demo.envoys import Envoy, envoy_version, find_envoy
from controlplane.demo.fault import Fault
from controlplane.demo.load import Load
from controlplane.demo.ports import free_ports
from controlplane.demo.relay import Relay, stats_through
from controlplane.demo.sample import SampleProcess
from controlplane.demo.users import population


class World:
    """The demo's world; as an async context manager it leaves no process behind.

    Attributes:
        listener: The port that all proxies share.
        endpoints: The ports of v1 and v2.
        sample: The service.
        load: The users.
        envoys: The proxies, once started.
        envoy_version: Of the binary, once entered.
        fault_at: Time of the loop since which the fault is there, None before.
    """

    def __init__(
        self,
        folder: Path,
        fault: Fault,
        rps: float = 400,
        seed: int = 0,
        service: str = "controlplane.demo.sample",
    ) -> None:
        """Choose ports and users; ``folder`` takes the files of the Envoys, ``service`` is a module.

        Raises:
            EnvoyError: If there is no Envoy.
        """
        self.listener, *endpoints = free_ports(3)
        self.endpoints = (endpoints[0], endpoints[1])
        self.sample = SampleProcess(self.endpoints, seed, service)
        timeout = timedelta(seconds=TIMEOUT_SECONDS)
        self.load = Load(population(seed=seed), (self.listener,), rps, timeout, seed=seed)
        self.envoys: list[Envoy] = []
        self.envoy_version = ""
        self.fault_at: float | None = None
        self._binary = find_envoy()
        self._folder = folder
        self._fault = fault
        self._relay: Relay | None = None

    async def __aenter__(self) -> Self:
        self.envoy_version = await envoy_version(self._binary)
        await self.sample.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.load.stop()
        await asyncio.gather(*(envoy.stop() for envoy in self.envoys))
        if self._relay:
            await self._relay.stop()
        await self.sample.stop()

    async def start_proxies(
        self, bootstraps: Mapping[str, Mapping[str, Any]], control_plane: int, within: float = 20.0
    ) -> None:
        """Start one Envoy per node id and bootstrap, and return when all take requests.

        The control plane must be there, on the port ``control_plane``, with the documents in force.

        Raises:
            EnvoyError: If one is not ready in time (seconds).
        """
        if self._fault.kind == "silent":
            self._relay = Relay(control_plane)
            await self._relay.start()
            bootstraps = {node: stats_through(each, self._relay.port) for node, each in bootstraps.items()}
        self.envoys = [Envoy(self._binary, node, each, self._folder) for node, each in bootstraps.items()]
        await asyncio.gather(*(envoy.start() for envoy in self.envoys))
        await asyncio.gather(*(envoy.ready(within) for envoy in self.envoys))

    async def enter(self, phase: str) -> None:
        """Let the fault come if the release's phase brings it; call it whenever the phase was read."""
        if self.fault_at is not None or not self._fault.present(phase):
            return
        self.load.fault = self._fault  # first: what follows is explained
        self.fault_at = asyncio.get_running_loop().time()
        if self._relay:
            self._relay.cut()
        await self.sample.inject(self._fault)

    def harmed(self) -> datetime | None:
        """Return since when the fault was there and the canary had requests; without a fault, the latter."""
        if self.load.first_canary_at is None:
            return None
        since = max(self.load.first_canary_at, self.fault_at or 0.0)
        ago = asyncio.get_running_loop().time() - since
        return datetime.now(UTC) - timedelta(seconds=ago)

    def moved_back(self, rollback: datetime | None) -> int:
        """Count users who lost the canary before the rollback was decided, None if none was."""
        if rollback is None:
            return self.load.moved_back()
        ago = (datetime.now(UTC) - rollback).total_seconds()
        return self.load.moved_back(before=asyncio.get_running_loop().time() - ago)
