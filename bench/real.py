"""Releases on real Envoys, with a noisy service behind them, beside the same releases simulated.

    python -m bench.real runs [--runs 4] [--fault none --fault errors=10%] [--save DIR]
    python -m bench.real record FILE [--minutes 20]
    python -m bench.real again FILE [--releases 300]

``runs`` runs releases one after the other and prints how they ended, how long it took, and the same from the
simulator. ``record`` lets Envoys log the requests of one version; ``again`` draws good releases from such a
log (see bench/recorded.py). Everything is on loopback and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path

from bench.cells import policy as standard
from bench.recorded import FORMAT, Log, Replayed
from bench.report import Table, say
from controlplane.app.logs import quiet
from controlplane.app.plane import Plane
from controlplane.app.serving import Running, Settings, serving
from controlplane.cli.simulate import run_all
from controlplane.demo.documents import FLEET, RELEASE, documents
from controlplane.demo.fault import Fault
from controlplane.demo.load import LoadCounts
from controlplane.demo.users import ANONYMOUS_SHARE, BETA_EVERY
from controlplane.demo.world import World
from controlplane.policy.loading import load
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.pinning import pin
from controlplane.release.recording import RECORDING, Recorded, Recording
from controlplane.release.replay import replay
from controlplane.resources.bootstrap import bootstrap
from controlplane.simulation.faults import Fault as Simulated
from controlplane.simulation.loop import Ended, end, follow, release
from controlplane.simulation.summary import Rate, summarise
from controlplane.simulation.traffic import Model
from controlplane.simulation.users import Users
from controlplane.web.asked import Documents

FAULTS = ("none", "errors=10%", "errors=100%", "latency=x2", "errors=50%@segment=beta")
PROXIES, RPS, INTERVAL = 2, 200.0, 1.0
WARM_UP = 40.0  # seconds of the stable version before the release
LONGEST = 420.0  # seconds after which a release is given up
ERRORS = 0.008  # the noisy service's, measured; for the simulation
ALIKE = Users(  # what bench.noisy does, as far as the simulator can
    volume=0.1, limit=0.01, own=0, broken=0.007, breakage=(6, 7), retry=0, hosts=1, apart=0, incident=90,
    severity=(6, 50), lasts=0.5, collects=20, wander=(0, 0.4, 0), regime=1e9, outage=1e9, campaign=1e9,
    unequal=0,
)  # fmt: skip
LADDER = """\
kind: Policy
name: demo
steps:
  - {name: beta, segment: {cookie: {name: beta, equals: "1"}}, share: 50%, for: 5s}
  - {name: five, everyone: 5%, for: 5s}
  - {name: ten, everyone: 10%, for: 5s}
  - {name: quarter, everyone: 25%, for: 5s}
  - {name: half, everyone: 50%, for: 5s}
  - {name: all, everyone: 100%}
conditions: []
guard: {for: 10s, hold_back: 2%}
"""


@dataclass(frozen=True, slots=True)
class Real:
    """How a release on real Envoys ended; times in seconds, ``detected`` from the fault's first request on.

    Attributes:
        turns: How many were recorded.
        same: Whether deciding the recording again gave the same decisions.
        load: The machine's load average of the last minute, at the end.
        skipped: Requests that were due and not sent: the load generator could not keep up.
    """

    fault: str
    seed: int
    outcome: str
    seconds: float
    detected: float | None
    reason: str
    requests: int
    failed: int
    unexplained: int
    skipped: int
    turns: int
    same: bool
    load: float


@cache
def ladder() -> PinnedPolicy:
    """Return the policy of the runs."""
    loaded = load({"policy.yaml": LADDER.encode()})
    assert not loaded.errors, loaded.errors
    return pin(loaded.catalog.policies()[0], loaded.catalog)


@asynccontextmanager
async def site(
    fault: Fault, seed: int, rps: float, log: Path | None = None
) -> AsyncIterator[tuple[World, Running, str]]:
    """Run a control plane, Envoys, a noisy service and users; yield world, server and the documents."""
    with tempfile.TemporaryDirectory(prefix="turnout-real-") as name:
        folder, flush = Path(name), timedelta(seconds=INTERVAL)
        world = World(folder, fault, rps, seed, service="bench.noisy")
        settings = Settings(folder / "data", xds="127.0.0.1:0", http="127.0.0.1:0", interval=flush)
        async with world, serving(settings) as server:
            parts = documents(world.listener, world.endpoints).split("---\n")
            fleet, service, _, order = parts
            text = "---\n".join((_logging(fleet, log) if log else fleet, service, LADDER, order))
            await _apply(server.plane, text.rpartition("---\n")[0])
            names = [f"{FLEET}-{number + 1}" for number in range(PROXIES)]
            ports = [f"127.0.0.1:{server.xds_port}"]
            strap = partial(bootstrap, cluster=FLEET, control_planes=ports, flush=flush, admin="127.0.0.1:0")
            await world.start_proxies({name: strap(name) for name in names}, server.xds_port)
            await world.load.start()
            yield world, server, text


def _logging(fleet: str, log: Path) -> str:
    line = {"text_format_source": {"inline_string": FORMAT}}
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    logger = {
        "name": "envoy.access_loggers.file",
        "typed_config": {"@type": kind, "path": str(log), "log_format": line},
    }
    raw = json.dumps({"connection_manager": {"access_log": [logger]}})
    return fleet.replace("kind: edge}", f"kind: edge, envoy: {raw}}}")


async def _apply(plane: Plane, text: str) -> None:
    applied = await plane.apply(Documents(files={"real.yaml": text}, actor="bench"))
    assert not applied.problems, applied.problems


async def run(fault: str, seed: int) -> tuple[Real, Recording]:
    """Run one release to its end."""
    async with site(Fault.parse(fault), seed, RPS) as (world, server, text):
        await asyncio.sleep(WARM_UP)
        await _apply(server.plane, text)
        began = time.monotonic()
        while True:
            shown = server.plane.release(RELEASE)
            await world.enter(shown.phase)
            if shown.phase in ("promoted", "rolled_back") or time.monotonic() - began > LONGEST:
                break
            await asyncio.sleep(0.1)
        records = await server.plane.records(RELEASE, 1000)
        recording = await _recording(server)
        assert recording.origin is not None  # it has begun
        harmed, counts = world.harmed(), world.load.counts()
    back = next((r for r in records if r.action == "rollback"), None)
    taken = [r for t in replay(recording.origin, recording.turns) for r in t.turn.records]
    same = {(r.at, r.action) for r in taken} <= {(r.at, r.action) for r in records}
    found = Real(
        fault, seed, shown.phase if shown.phase in ("promoted", "rolled_back") else "undecided",
        round(time.monotonic() - began, 1),
        round((back.at - harmed).total_seconds(), 1) if back and harmed else None,
        back.reason if back else shown.because,
        counts.requests, counts.failed, counts.unexplained, counts.skipped,
        len(recording.turns), same, round(os.getloadavg()[0], 1),
    )  # fmt: skip
    return found, recording


async def _recording(server: Running) -> Recording:
    turns: list[Recorded] = []
    last = 0
    while True:
        page = await server.plane.recording(RELEASE, last, 500)
        turns.extend(page.turns)
        if len(page.turns) < 500:
            return Recording(page.origin, tuple(turns), page.last)
        last = page.last


@dataclass(frozen=True)
class _Same:
    """The same release in the simulator."""

    fault: str
    noise: str | Users

    def run(self, seed: int) -> Ended:
        beta = (1 - ANONYMOUS_SHARE) / BETA_EVERY
        model = Model(
            rps=RPS, errors=ERRORS, noise=self.noise, proxies=(1.0,) * PROXIES, segments={"beta": beta},
            interval=INTERVAL, history=WARM_UP, longest=LONGEST,
        )  # fmt: skip
        return release(ladder(), model, (Simulated.parse(self.fault),), seed)


def runs(faults: Sequence[str], count: int, simulated: int, save: Path | None) -> None:
    """Run releases on real Envoys and print them beside simulated ones."""
    every = []
    table = Table(
        ("fault", "real", "seconds", "simulated, mod", "and as noisy", "load"), widths=(26, 14, 18, 24, 24, 8)
    )
    for fault in faults:
        found = []
        for seed in range(1, count + 1):
            real, recording = asyncio.run(run(fault, seed))
            found.append(real)
            if save:
                _keep(save, real, recording)
        table.row(*_beside(fault, found, simulated))
        every += found
    n = sum(r.unexplained for r in every), sum(r.requests for r in every), sum(r.skipped for r in every)
    say(f"{n[0]} of {n[1]} requests failed for no known reason, {n[2]} were not sent in time")
    say(f"decided again as recorded: {sum(r.same for r in every)} of {len(every)}")


def _keep(folder: Path, real: Real, recording: Recording) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(re.findall(r"[a-z0-9]+", real.fault))
    (folder / f"{name}-{real.seed}.json.gz").write_bytes(gzip.compress(RECORDING.dump_json(recording)))
    with (folder / "runs.jsonl").open("a") as out:
        out.write(json.dumps(asdict(real)) + "\n")


def _beside(fault: str, found: Sequence[Real], simulated: int) -> Iterator[str]:
    """Yield a row: how many ended as they should, after how many seconds, and what the simulator says."""
    bad = Simulated.parse(fault).bad
    ended = "rolled_back" if bad else "promoted"
    right = [r for r in found if r.outcome == ended]
    times = sorted((r.detected or 0.0) if bad else r.seconds for r in right)
    yield fault
    yield f"{len(right)}/{len(found)} {'back' if bad else 'promoted'}"
    yield " ".join(f"{t:.0f}" for t in times)
    for noise in ("mod", ALIKE):
        s = summarise(list(run_all(_Same(fault, noise).run, range(simulated), 1)), bad=bad, begins=0.0)
        took, share = (s.detected, s.rolled_back.share) if bad else (s.done, s.promoted.share)
        yield f"{100 * share:.0f} %: {took.median:.0f}, p95 {took.p95:.0f}" if took else "none"
    yield f"{min(r.load for r in found):.0f}-{max(r.load for r in found):.0f}"


async def _logged(log: Path, minutes: float, rps: float) -> LoadCounts:
    async with site(Fault(), 1, rps, log) as (world, _, _):
        await asyncio.sleep(60 * minutes)
        await world.load.stop()
        await asyncio.sleep(2)  # Envoy writes its log each second
        return world.load.counts()


def record(path: Path, minutes: float, rps: float) -> None:
    """Let Envoys log the requests of one version, and keep them packed."""
    with tempfile.TemporaryDirectory(prefix="turnout-log-") as folder:
        log = Path(folder) / "requests.log"
        counts = asyncio.run(_logged(log, minutes, rps))
        path.write_bytes(gzip.compress(log.read_bytes()))
    found = Log.read(path)
    say(
        f"{len(found.ends)} requests in {found.seconds:.0f} s by {len(found.names)} proxies, of "
        f"{len(found.ids) - 1} users; {100 * found.failed.mean():.2f} % failed; the load sent "
        f"{counts.requests} and left out {counts.skipped}; load average {os.getloadavg()[0]:.1f}"
    )


@dataclass(frozen=True)
class _Again:
    """Good releases from a log, under the policy of the runs or the standard one."""

    log: Log
    standard: bool

    def run(self, seed: int) -> Ended:
        policy = standard("Turnout", "5%") if self.standard else ladder()
        interval, history, longest = (5.0, 600.0, 3600.0) if self.standard else (INTERVAL, 60.0, LONGEST)
        source = Replayed(self.log, interval, history, seed)
        return end(policy, follow(policy, source, self.log.names, interval, longest))


def again(path: Path, releases: int, jobs: int) -> None:
    """Draw good releases from a log and count false rollbacks."""
    log = Log.read(path)
    for usual in (False, True):
        s = summarise(list(run_all(_Again(log, usual).run, range(releases), jobs)), bad=False, begins=0.0)
        name = "standard ladder from 5 %, 5 s" if usual else "ladder of the runs, 1 s"
        took = f", in {s.done.median:.0f} s" if s.done else ""
        say(
            f"{name}: {releases} releases, rolled back {_rate(s.rolled_back)}, "
            f"undecided {_rate(s.undecided)}, promoted {_rate(s.promoted)}{took}"
        )
        for where, count in s.where.items():
            say(f"  {count:5d} {where}")


def _rate(rate: Rate) -> str:
    return f"{100 * rate.share:.3g} % ({100 * rate.low:.3g} to {100 * rate.high:.3g})"


def main() -> None:
    """Do what the first argument says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("runs")
    one.add_argument("--runs", type=int, default=4, help="releases on real Envoys for each fault")
    one.add_argument("--fault", action="append", help=f"again for several; {', '.join(FAULTS)} if not said")
    one.add_argument("--simulated", type=int, default=100, help="simulated releases for each fault")
    one.add_argument("--save", type=Path, help="keep what was recorded in this folder")
    two = parts.add_parser("record")
    two.add_argument("file", type=Path, help="ends with .gz")
    two.add_argument("--minutes", type=float, default=20)
    two.add_argument("--rps", type=float, default=100)
    three = parts.add_parser("again")
    three.add_argument("file", type=Path)
    three.add_argument("--releases", type=int, default=300)
    three.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    quiet()
    match args.part:
        case "runs":
            runs(args.fault or FAULTS, args.runs, args.simulated, args.save)
        case "record":
            record(args.file, args.minutes, args.rps)
        case _:
            again(args.file, args.releases, args.jobs)


if __name__ == "__main__":
    main()
