"""How long who looks keeps the event loop from others: a scrape, proxies and problems, with many streams.

Documents, streams and the HTTP API are real; sockets there are none.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from contextlib import AsyncExitStack
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from bench.fleet import FLEET, INTERVAL, SERVICE, longest
from bench.seam import Proxy
from bench.wire import Asks, ack_delta
from controlplane.app import logs
from controlplane.app.metrics import Metrics
from controlplane.app.plane import Plane
from controlplane.app.publish import Publisher
from controlplane.app.statistics import StreamStatistics
from controlplane.app.tick import Loop
from controlplane.server.garbage import collect_seldom
from controlplane.server.limits import Limits
from controlplane.sources.collector import Collector
from controlplane.sources.lrs import LoadReports
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.api import Api
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE

PATHS = ("/metrics", "/v1/proxies", "/v1/problems")
_ack = lru_cache(maxsize=64)(ack_delta)


class _Site:
    """A control plane in this process with streams that answer when they are told to."""

    def __init__(self, store: SqliteStore, services: int, streams: int) -> None:
        self.publisher, collector = Publisher(store, limits=Limits(first_requests=1e9)), Collector(INTERVAL)
        statistics = StreamStatistics(self.publisher.server, collector, LoadReports(INTERVAL))
        self.loop = Loop(store, statistics, self.publisher, INTERVAL)
        self.plane = Plane(store, self.loop, self.publisher, collector)
        registry = CollectorRegistry()
        registry.register(Metrics(self.plane))
        transport = httpx.ASGITransport(Api(self.plane, registry).app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        names = tuple(f"m{number}" for number in range(services))
        asks: Asks = (
            (CLUSTER, ()),
            (ENDPOINT, tuple(f"{name}~{version}" for name in names for version in ("v1", "v2"))),
            (SCOPED_ROUTE, ()),
            (ROUTE, names),
            (LISTENER, ()),
        )
        self.proxies = [Proxy("delta", number, asks) for number in range(streams)]
        self._services = services

    async def documents(self, version: int = 1) -> None:
        files = {f"m{number}.yaml": SERVICE % (number, number) for number in range(self._services)}
        files["m0.yaml"] = files["m0.yaml"].replace("127.0.0.1:1]", f"127.0.0.1:{version}]")
        files["edge.yaml"] = FLEET
        applied = await self.plane.take({name: text.encode() for name, text in files.items()}, "bench")
        if applied.problems or not applied.accepted:
            raise RuntimeError(str(applied.problems[:3]))
        self.publisher.publish(self.plane.world)

    async def answered(self) -> None:
        """Let every stream take all that comes."""
        idle = 0
        while idle < 20:
            idle += 1
            for each in self.proxies:
                each.take()
                if each.sent and each.free:
                    each.answer(_ack(each.sent.pop(0)))
                    idle = 0
            await asyncio.sleep(0)

    async def get(self, path: str) -> None:
        (await self.client.get(path)).raise_for_status()


async def _look(site: _Site, path: str) -> dict[str, float]:
    """Return the milliseconds of the loop's CPU that an answer takes, and of its longest turn."""
    began = time.thread_time()
    await site.get(path)
    took = (time.thread_time() - began) * 1000
    return {"cpu_ms": round(took, 1), "longest_turn_ms": round(await longest(site.get(path)), 1)}


async def _measured(services: int, streams: int) -> dict[str, Any]:
    async with AsyncExitStack() as leaving:
        folder = leaving.enter_context(TemporaryDirectory())
        store = await SqliteStore(Path(folder)).open()
        leaving.push_async_callback(store.close)
        site = _Site(store, services, streams)
        await site.loop.restore()
        await site.documents()
        tasks = [asyncio.create_task(site.publisher.server.serve(each, "delta")) for each in site.proxies]
        await site.answered()
        gc.collect()
        found: dict[str, Any] = {"services": services, "streams": streams}
        found["all acknowledged"] = {path: await _look(site, path) for path in PATHS}
        # Of each stream another view has to be made, as after every change.
        for number, path in enumerate(PATHS, 2):
            await site.documents(number)
            await asyncio.sleep(0.1)
            found.setdefault("none has answered", {})[path] = {
                "longest_turn_ms": round(await longest(site.get(path)), 1)
            }
            await site.answered()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found


def main() -> None:
    """Print what was found as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--services", type=int, default=100)
    args = parser.parse_args()
    logs.configure("error")
    collect_seldom()  # as the server does
    print(json.dumps(asyncio.run(_measured(args.services, args.streams))))  # noqa: T201


if __name__ == "__main__":
    main()
