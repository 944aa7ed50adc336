"""What happens before a byte leaves: the protocol library, rendering, start, decisions."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.http2 import Fleet
from bench.report import Table, section
from bench.wire import PATHS, ack_delta, ack_sotw, first_requests, node, route
from controlplane.app import logs
from controlplane.app.plane import Plane
from controlplane.app.serving import Running, Settings, serving
from controlplane.demo.ports import free_ports
from controlplane.policy.documents import EVERYONE
from controlplane.policy.documents import Fleet as FleetDocument
from controlplane.policy.loading import load
from controlplane.release.traffic import ServiceTraffic, Split, traffic
from controlplane.resources.names import group_name
from controlplane.resources.rendering import Rendering, render
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Switch
from controlplane.xds.delta import DeltaStream
from controlplane.xds.snapshot import Snapshot
from controlplane.xds.sotw import SotwStream
from controlplane.xds.stream import Stream
from controlplane.xds.type_urls import CLUSTER, PUSH_ORDER, ROUTE
from controlplane.xds.view import Peer, Variant

SERVICES = 1000
FLEET = (
    "kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners: [{name: http, address: '127.0.0.1:8080'}]\n"
)
SERVICE = """\
kind: Service
name: s{0:04}
fleets: [edge]
routes: [{{host: s{0:04}.example.com}}]
user: {{from: [{{cookie: uid}}]}}
initial: v1
versions:
  v1: {{endpoints: ["10.1.0.1:80", "10.1.0.2:80"]}}
  v2: {{endpoints: ["10.2.0.1:80"]}}
"""


def run(*, quick: bool) -> None:
    """Print all of it."""
    rounds = 50 if quick else 1000
    section("the protocol library alone, one change, us per stream (median)")
    table = Table(
        ("resources", "variant", "push", "ACK", "sum", "once per change"),
        widths=(10, 8, 10, 10, 10, 17),
    )
    variants: tuple[Variant, ...] = ("delta", "sotw")
    for count in (1, SERVICES):
        for variant in variants:
            *steps, once = library(variant, count, rounds)
            table.row(count, variant, *(f"{step:.1f}" for step in (*steps, sum(steps), once)))
    section(f"{SERVICES} services")
    table = Table(("", "ms", "goal"), widths=(58, 10, 10))
    first, change, size = rendering(20)
    table.row("render all of them", f"{first:.0f}", "")
    table.row(f"render one weight change, {size} B to send", f"{change:.2f}", "")
    with tempfile.TemporaryDirectory() as folder:
        for what, milliseconds, goal in asyncio.run(_starts(Path(folder), 5 if quick else 30)):
            table.row(what, f"{milliseconds:.1f}", goal)


def library(variant: Variant, count: int, rounds: int) -> tuple[float, ...]:
    """Return us to push a change of one of ``count`` routes of 1 KB, and to take the ACK.

    The third number is what the first stream pays more: what is found once per change and kept for all.
    """
    names = tuple(f"r{number:04}" for number in range(count))
    routes = {name: replace(route(1000, number), name=name) for number, name in enumerate(names)}
    now, revision = datetime.now(UTC), 10_000
    snapshot = Snapshot(revision, {ROUTE: routes}, PUSH_ORDER)
    streams = [_subscribed(variant, names, snapshot) for _ in range(4)]
    others: list[tuple[float, float]] = []
    firsts: list[float] = []
    for number in range(rounds):
        revision += 1
        name = names[number % count]
        routes = {**routes, name: replace(route(1000, revision), name=name)}
        snapshot = Snapshot(revision, {ROUTE: routes}, PUSH_ORDER)
        times = [_change(stream, variant, names, snapshot, now) for stream in streams]
        firsts.append(sum(times[0]))
        others += times[1:]
    steps = [statistics.median(times[i] for times in others) * 1e6 for i in range(2)]
    return (*steps, statistics.median(firsts) * 1e6 - sum(steps))


def _subscribed(variant: Variant, names: tuple[str, ...], snapshot: Snapshot) -> Stream:
    now = datetime.now(UTC)
    stream: Stream = (DeltaStream if variant == "delta" else SotwStream)(
        Peer("bench"), now, identifier="turnout"
    )
    stream.receive(first_requests(variant, node(1), ((ROUTE, names),))[0], now)
    _change(stream, variant, names, snapshot, now)
    return stream


def _change(
    stream: Stream, variant: Variant, names: tuple[str, ...], snapshot: Snapshot, now: datetime
) -> tuple[float, float]:
    start = time.perf_counter()
    data = stream.push(snapshot, now) or stream.next_response(now)
    pushed = time.perf_counter() - start
    assert data is not None
    ack = ack_delta(data) if variant == "delta" else ack_sotw(data, names)
    before = time.perf_counter()
    stream.receive(ack, now)
    return pushed, time.perf_counter() - before


def documents() -> dict[str, bytes]:
    """Return a folder of a fleet and many services, one file each."""
    services = {f"s{number:04}.yaml": SERVICE.format(number).encode() for number in range(SERVICES)}
    return {"fleet.yaml": FLEET.encode(), **services}


def rendering(rounds: int) -> tuple[float, float, int]:
    """Return ms to render everything, ms to render one changed weight, and the bytes that changed."""
    loaded = load(documents())
    assert not loaded.errors, loaded.errors[0]
    catalog = loaded.catalog
    fleet: FleetDocument = catalog.fleets()[0]
    services = {s.name: traffic(s, s.initial, None, catalog.anonymous(s)) for s in catalog.services()}
    changing = "s0500"
    start = time.perf_counter()
    last = render(fleet, tuple(services.values()), 1)
    first = (time.perf_counter() - start) * 1e3

    def released(canary: int) -> ServiceTraffic:
        splits = (Split(EVERYONE, None, ((0, canary),)),)
        return replace(services[changing], canary="v2", release="s-v2", salt="s-v2.1", splits=splits, warm=())

    taken, size = [], 0
    for revision in range(2, rounds + 2):
        services[changing] = released(revision * 10)
        start = time.perf_counter()
        new = render(fleet, tuple(services.values()), revision, last)
        taken.append((time.perf_counter() - start) * 1e3)
        size, last = _changed(last, new), new
    return first, statistics.median(taken), size


def _changed(old: Rendering, new: Rendering) -> int:
    tables = ((new.snapshot.of(url), old.snapshot.of(url)) for url in new.snapshot.resources)
    return sum(len(r.body) for now, before in tables for n, r in now.items() if before.get(n) is not r)


class Probe(threading.Thread):
    """One proxy that connects as soon as it can and notes when each response arrived (``perf_counter``)."""

    def __init__(self, port: int, subscription: tuple[str, tuple[str, ...]]) -> None:
        super().__init__(daemon=True)
        self.arrived: list[float] = []
        self._port = port
        self._first = first_requests("delta", node(1), (subscription,))
        self._over = threading.Event()

    def run(self) -> None:
        """Connect, try again while refused, then answer until stopped."""
        while not self._over.is_set():
            proxy = Fleet(self._port, PATHS["delta"], self._answer)
            proxy.open(self._first)
            while not self._over.is_set() and not proxy.ended:
                proxy.idle(0.002)
            proxy.close()

    def _answer(self, data: bytes) -> bytes:
        self.arrived.append(time.perf_counter())
        return ack_delta(data)

    async def until(self, count: int, seconds: float = 30) -> float:
        """Return when the ``count``-th response arrived."""
        async with asyncio.timeout(seconds):
            while len(self.arrived) < count:  # noqa: ASYNC110 (another thread appends)
                await asyncio.sleep(0.002)
        return self.arrived[count - 1]

    def stop(self) -> None:
        """Close the connection."""
        self._over.set()
        self.join()


async def _starts(folder: Path, changes: int) -> list[tuple[str, float, str]]:
    """Return what was measured on a whole control plane, in ms, with its goal."""
    logs.configure("error")
    policies, data = folder / "policies", folder / "store"
    policies.mkdir()
    for name, content in documents().items():
        (policies / name).write_bytes(content)
    taken: list[float] = []
    committed: list[float] = []
    with_times(Plane, "take", taken, after=False)
    with_times(SqliteStore, "commit", committed, after=True)
    every = timedelta(minutes=1)  # no tick meanwhile: nothing is released by itself

    port = free_ports(1)[0]
    settings = Settings(data, policies, f"127.0.0.1:{port}", "127.0.0.1:0", every)
    async with _Proxy(port, (CLUSTER, ())) as probe, serving(settings):
        from_files = await probe.until(1) - taken[0]
    port = free_ports(1)[0]
    settings = Settings(data, None, f"127.0.0.1:{port}", "127.0.0.1:0", every)
    async with _Proxy(port, (CLUSTER, ())) as probe:
        start = time.perf_counter()
        async with serving(settings):
            from_store = await probe.until(1) - start
    port = free_ports(1)[0]
    settings = Settings(data, None, f"127.0.0.1:{port}", "127.0.0.1:0", every)
    async with (
        _Proxy(port, (ROUTE, (group_name("s0500", ["s0500.example.com"]),))) as probe,
        serving(settings) as running,
    ):
        await probe.until(1)
        whole, sent = await _decisions(running, probe, committed, changes)
    return [
        ("files, from the scan that finds them at rest to the first byte", from_files * 1e3, "< 2000"),
        ("start from the store (imports apart) to the first byte", from_store * 1e3, "< 2000"),
        ("decision stored -> first byte at the proxy (median)", sent * 1e3, "< 2"),
        ("operator's switch, with its commit -> first byte (median)", whole * 1e3, ""),
    ]


async def _decisions(
    running: Running, probe: Probe, committed: list[float], changes: int
) -> tuple[float, float]:
    """Return the medians of seconds from an order, and from its commit, to the first byte of its route."""
    whole, sent = [], []
    for number in range(changes):
        version = ("v2", "v1")[number % 2]
        start = time.perf_counter()
        await running.plane.switch("s0500", Switch(version=version, actor="bench", reason="measure"))
        arrived = await probe.until(number + 2)
        whole.append(arrived - start)
        sent.append(arrived - committed[-1])
    return statistics.median(whole), statistics.median(sent)


class _Proxy:
    """A probe for the time of a context."""

    def __init__(self, port: int, subscription: tuple[str, tuple[str, ...]]) -> None:
        self._probe = Probe(port, subscription)

    async def __aenter__(self) -> Probe:
        self._probe.start()
        return self._probe

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._probe.stop)


def with_times(owner: type, name: str, times: list[float], *, after: bool) -> None:
    """Have a coroutine method note when it began, or when it had returned."""
    inner: Callable[..., Any] = getattr(owner, name)

    async def timed(*args: Any, **options: Any) -> Any:
        if not after:
            times.append(time.perf_counter())
        result = await inner(*args, **options)
        if after:
            times.append(time.perf_counter())
        return result

    setattr(owner, name, timed)


if __name__ == "__main__":
    run(quick=False)
