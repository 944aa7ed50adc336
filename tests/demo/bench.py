"""Print what the demo's parts cost, and why the sample service has a process of its own.

Run: python tests/demo/bench.py
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from controlplane.demo.envoys import Envoy, find_envoy
from controlplane.demo.load import Load
from controlplane.demo.ports import free_ports
from controlplane.demo.sample import Sample, SampleProcess
from controlplane.demo.users import population

SECONDS = 6
RPS = 400


async def pauses() -> None:
    """Block the loop as a busy control plane would: 60 ms of work twice a second."""
    while True:
        await asyncio.sleep(0.44)
        until = time.perf_counter() + 0.06
        while time.perf_counter() < until:
            pass


async def slower(envoy: Envoy) -> dict[float, float]:
    """Return by edge in ms the share of the requests that Envoy saw take longer."""
    text = await envoy.admin("/stats?format=json&histogram_buckets=cumulative&filter=v1.upstream_rq_time$")
    found = json.loads(text)["stats"][-1]["histograms"]
    buckets = next(iter(found.values()))["buckets"] if isinstance(found, dict) else found[0]["buckets"]
    total = buckets[-1]["cumulative"]
    return {
        b["upper_bound"]: round(1 - b["cumulative"] / total, 4)
        for b in buckets
        if 10 <= b["upper_bound"] <= 75
    }


async def figures(folder: Path, apart: bool, paused: bool) -> None:
    """Run a load over one Envoy against v1, from this process, with the service in it or apart."""
    listener, v1, v2 = free_ports(3)
    text = (Path(__file__).parent / "edge.yaml").read_text()
    for word, value in {
        "LISTENER": listener,
        "V1_PORT": v1,
        "V2_PORT": v2,
        "SHARE": 0,
        "REST": 10_000,
    }.items():
        text = re.sub(rf"\b{word}\b(?! in)", str(value), text)
    inside, outside, envoy = (
        Sample("v1", v1),
        SampleProcess((v1, v2)),
        Envoy(find_envoy(), "edge-1", text, folder),
    )
    await (outside.start() if apart else inside.start())
    await envoy.start()
    await envoy.ready()
    load = Load(population(), (listener,), RPS)
    cpu, theirs = time.process_time(), (await outside.served()).cpu if apart else 0.0
    blocker = asyncio.create_task(pauses()) if paused else None
    await load.start()
    await asyncio.sleep(SECONDS)
    if blocker:
        blocker.cancel()
    await load.stop()
    counts, mine = load.counts(), time.process_time() - cpu
    theirs = (await outside.served()).cpu - theirs if apart else 0.0
    await asyncio.sleep(0.6)  # Envoy merges its histograms each 0.5 s
    each = [f"{seconds / counts.requests * 1e6:.0f} µs" for seconds in (mine, theirs)]
    sys.stdout.write(
        f"service {'apart' if apart else 'inside'}, pauses {paused}, {counts.requests} requests\n"
        f"  CPU per request: here {each[0]}, in the service's process {each[1]}\n"
        f"  share that Envoy saw take longer than (ms): {await slower(envoy)}\n"
    )
    await envoy.stop()
    if apart:
        await outside.stop()
    else:
        inside.stop()


async def main() -> None:
    """Compare the four combinations."""
    with tempfile.TemporaryDirectory() as folder:
        for apart in (False, True):
            for paused in (False, True):
                await figures(Path(folder), apart, paused)


asyncio.run(main())
