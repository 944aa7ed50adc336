"""A whole installation on loopback: `turnout serve` as a process of its own, real Envoys, service, users."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from datetime import timedelta

import httpx
import pytest

from controlplane.demo.client import Pool
from controlplane.demo.envoys import Envoy, find_envoy
from controlplane.demo.load import Load
from controlplane.demo.ports import free_ports
from controlplane.demo.sample import INJECTED, VERSION, SampleProcess
from controlplane.demo.users import population
from controlplane.resources.bootstrap import bootstrap
from tests.forks import Command, Life
from tests.waiting import PATIENCE

FLEET = """\
kind: Fleet
name: {name}
nodes: {{cluster: {name}}}
listeners:
  - {{name: http, address: "127.0.0.1:{port}", kind: edge}}
"""
SERVICE = """\
kind: Service
name: shop
fleets: [{fleets}]
routes:
  - {{host: shop.example.com}}
user:
  from: [{{header: x-user-id}}, {{cookie: uid}}]
  otherwise: baseline
initial: v1
versions:
  v1: {{endpoints: ["127.0.0.1:{v1}"]}}
  v2: {{endpoints: ["127.0.0.1:{v2}"]}}
"""
POLICY = """\
kind: Policy
name: quick
steps:
{steps}
conditions:
  - errors: off
  - client_errors: off
  - latency: off
  - success_rate: {{at_least: 90%}}
guard: {{for: {guard}, hold_back: {hold_back}}}
"""
RELEASE = """\
kind: Release
name: shop-v2
service: shop
from: v1
to: v2
policy: quick
start: auto
"""
SLOW = ("ticks are slow", "the store is slow")  # of a busy machine, and for a minute


class Site:
    """The installation. What a test starts through it is gone when the test ends.

    Attributes:
        folder: For the store, and the files of the Envoys.
        interval: Of ticks and statistics, as operators write it.
        ports: Of the listeners, by fleet; the Envoys of one fleet share one.
        endpoints: Where the sample service answers: as its v1, and as its v2.
        envoys: By node id.
        load: The users, while they come.
        life: The control plane, of which there may have been others before.
    """

    def __init__(self, folder, interval):
        self.folder = folder
        self.interval = interval
        self.ports = {}
        self.envoys = {}
        self.load = None
        self.xds, self.http, *self.endpoints = free_ports(4)
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.http}",
            timeout=PATIENCE,
            verify=False,
            limits=httpx.Limits(keepalive_expiry=1),  # long before the server closes what rests
        )
        self.sample = SampleProcess(tuple(self.endpoints))
        self.life = None

    # --- control plane ---

    async def serve(self, *options):
        """Start the control plane and wait until it is ready."""
        await self.begin(*options)

        async def up():
            assert self.life.status is None, self.log
            return await self.up()

        await self.until(up)

    async def begin(self, *options, failpoint=""):
        """Start the control plane, which may be armed to be killed at a place; it is not ready yet."""
        self.life = Life(self.command(*options), self.folder / "serve.log", failpoint)
        await self.life.start()

    async def serve_here(self, environment=None):
        """Start the control plane where the test is, and wait until it is ready."""
        self.life = Command(self.command(), self.folder / "serve.log", environment)
        await self.life.start()
        await self.until(self.up)

    def command(self, *options):
        """Return the arguments of the control plane's command."""
        return (
            "serve", f"--data={self.folder / 'data'}", f"--xds=127.0.0.1:{self.xds}",
            f"--http=127.0.0.1:{self.http}", f"--interval={self.interval}", *options,
        )  # fmt: skip

    async def up(self):
        """Return whether the control plane is ready."""
        try:
            return (await self.client.get("/readyz")).is_success
        except httpx.TransportError:
            return False

    async def kill(self):
        """End the control plane as a crash would."""
        self.life.kill()
        await self.life.ended(PATIENCE)

    @property
    def log(self):
        """What the control plane said."""
        return (self.folder / "serve.log").read_text()

    async def get(self, path):
        answer = await self.client.get(path)
        assert answer.is_success, answer.text
        return answer.json()

    async def post(self, path, **body):
        answer = await self.client.post(path, json={"actor": "tester", **body})
        assert answer.is_success, answer.text
        return answer.json()

    async def apply(self, *documents):
        """Give documents to the control plane; it must take them as they are."""
        applied = await self.post("/v1/documents", files={"test.yaml": "---\n".join(documents)})
        assert applied["problems"] == []

    async def release(self):
        return await self.get("/v1/releases/shop-v2")

    async def act(self, action, release="shop-v2"):
        return await self.post(f"/v1/releases/{release}/{action}")

    async def actions(self):
        """Return (step, action) of every record of the release that moved it, in order."""
        records = await self.get("/v1/records?release=shop-v2&limit=10000")
        return [(r["step"], r["action"]) for r in records if r["action"] != "hold"]

    async def until(self, condition, within=PATIENCE):
        """Return the first true answer of ``condition``; what it last said is told if none comes in time."""
        answer = None
        try:
            async with asyncio.timeout(within):
                while not (answer := await condition()):  # noqa: ASYNC110 - it asks another process
                    await asyncio.sleep(0.1)  # to ask takes the CPU of both
                return answer
        except TimeoutError:
            raise AssertionError(f"{answer!r} after {within} s\n{await self._state()}") from None

    async def released(self, *, within=PATIENCE, **wanted):
        """Return the release once its fields are as wanted."""

        async def there():
            shown = await self.release()
            return shown if all(shown[key] == value for key, value in wanted.items()) else None

        return await self.until(there, within)

    async def synced(self):
        """Wait until every proxy has acknowledged all that it is to have."""

        async def all_are():
            return {proxy["state"] for proxy in await self.get("/v1/proxies")} == {"synced"}

        await self.until(all_are)

    async def problems(self):
        """Return what is wrong, but for that the machine is busy."""
        return [each for each in await self.get("/v1/problems") if not each.startswith(SLOW)]

    async def refusing(self):
        """Return the first proxy that refuses something, once one does."""

        async def refuses():
            return next((p for p in await self.get("/v1/proxies") if p["state"] == "nacked"), None)

        return await self.until(refuses)

    async def shared(self, port, requests):
        """Wait until both versions answer some of these requests."""

        async def both():
            return set(await self.ask(port, requests)) == {"v1", "v2"}

        await self.until(both)

    async def _state(self):
        with contextlib.suppress(httpx.HTTPError, AssertionError):
            shown, proxies = await self.release(), await self.get("/v1/proxies")
            return json.dumps([shown, proxies], indent=1)
        return self.log

    # --- documents ---

    def world(self, *fleets):
        """Return the documents of fleets and service."""
        self.ports |= dict(zip(fleets, free_ports(len(fleets)), strict=True))
        v1, v2 = self.endpoints
        service = SERVICE.format(fleets=", ".join(fleets), v1=v1, v2=v2)
        return [*(FLEET.format(name=name, port=port) for name, port in self.ports.items()), service]

    @staticmethod
    def order(*steps, guard="1s", hold_back="5%"):
        """Return the documents of a policy with these steps before the last, and of a release by it."""
        ladder = "\n".join(f"  - {{{step}}}" for step in (*steps, "name: all, everyone: 100%"))
        return [POLICY.format(steps=ladder, guard=guard, hold_back=hold_back), RELEASE]

    # --- data plane ---

    def bootstrap(self, node, fleet="edge", **more):
        flush = re.fullmatch(r"([0-9]+)(ms|s)", self.interval)
        seconds = int(flush[1]) / (1000 if flush[2] == "ms" else 1)
        addresses = [f"127.0.0.1:{self.xds}"]
        return bootstrap(
            node, fleet, addresses, flush=timedelta(seconds=seconds), admin="127.0.0.1:0", **more
        )

    async def start(self, **bootstraps):
        """Start an Envoy for each bootstrap, by node id with _ for -; return when they take requests."""
        await asyncio.gather(*(envoy.ready(PATIENCE) for envoy in await self.launch(**bootstraps)))

    async def launch(self, **bootstraps):
        """Start an Envoy for each bootstrap, as `start` does, and do not wait for it."""
        new = {name.replace("_", "-"): text for name, text in bootstraps.items()}
        for node, text in new.items():
            self.envoys[node] = Envoy(find_envoy(), node, text, self.folder)
        await asyncio.gather(*(self.envoys[node].start() for node in new))
        return [self.envoys[node] for node in new]

    async def stats(self, node, wanted):
        """Return an Envoy's counters and gauges whose names match, by name."""
        text = (await self.envoys[node].admin(f"/stats?filter={wanted}")).decode()
        pairs = (line.rpartition(": ")[::2] for line in text.splitlines())
        return {name: int(value) for name, value in pairs if value.isdigit()}

    async def reached(self, node, version):
        """Return how many requests an Envoy has sent to a version, those that are not answered yet too."""
        name = f"cluster.shop~{version}.upstream_rq_total"
        return (await self.stats(node, f"^{name}$")).get(name, 0)

    async def come(self, rps, *ports, seed=0):
        """Let users come at a steady rate."""
        self.load = Load(population(seed=seed), ports or tuple(self.ports.values()), rps, seed=seed)
        await self.load.start()

    async def answered(self, requests):
        """Wait until the users have so many more answers."""
        before = self.load.counts().requests

        async def enough():
            return self.load.counts().requests >= before + requests

        await self.until(enough)

    async def leave(self):
        """Wait for the last answers; return what the users saw."""
        await self.load.stop()
        return self.load.counts()

    @staticmethod
    async def ask(port, requests):
        """Send requests (bytes) over one port, some at a time; return the version that answered each."""
        pool, turn = Pool(port), asyncio.Semaphore(16)

        async def one(request):
            done = asyncio.get_running_loop().create_future()
            async with turn:
                # Whoever asks may be cancelled before the answer comes.
                pool.send(request, lambda answer: done.done() or done.set_result(answer))
                answer = await asyncio.wait_for(done, PATIENCE)
            assert answer.status == 200 or answer.header(INJECTED), answer
            return answer.header(VERSION)

        try:
            return await asyncio.gather(*map(one, requests))
        finally:
            pool.close()

    # --- life ---

    async def __aenter__(self):
        await self.sample.start()
        return self

    async def __aexit__(self, *_):
        if self.load:
            await self.load.stop()
        await asyncio.gather(*(envoy.stop() for envoy in self.envoys.values()))
        if self.life and self.life.status is None:
            self.life.terminate()
            await self.life.ended(PATIENCE)
        await self.sample.stop()
        await self.client.aclose()


@pytest.fixture
async def site(tmp_path, request):
    """The installation with its service, and nothing else started; parametrize the interval indirectly."""
    async with Site(tmp_path, getattr(request, "param", "500ms")) as site:
        yield site
