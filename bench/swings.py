"""How far two equal versions swing against each other, beside what was learned of it from the past.

Run as ``python -m bench.swings [--noise users] [--seeds 8]``. Both versions have half of the requests. For
windows of 30 s the events of the canary are compared with its part of both versions' events, in all blocks
together: square of the difference over its variance, were requests independent. 1 says that they are. Beside
it stands `Learned.swing`, by which the rule divides its evidence.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from bench.report import Table
from controlplane.evidence.figures import LONG
from controlplane.evidence.table import ERRORS, SLOWER
from controlplane.policy.latency import EDGES_MS
from controlplane.simulation.families import FAMILIES
from controlplane.simulation.loop import past
from controlplane.simulation.traffic import CANARY, Model, Traffic

EVENTS = {"errors": ERRORS, "> 75 ms": SLOWER + EDGES_MS.index(75), "> 400 ms": SLOWER + EDGES_MS.index(400)}
WINDOWS = 60
HALF = {"everyone": ("everyone", 0.5)}


def swings(noise: str, seeds: int) -> Iterator[tuple[str, float, float]]:
    """Yield for each kind of event what was seen between the versions, and what was learned."""
    seen, known = defaultdict(list), defaultdict(list)
    for seed in range(seeds):
        traffic = Traffic(Model(noise=noise, segments={"some": 0.1}), (), seed)
        learned = past(traffic)
        for name, counter in EVENTS.items():
            known[name].append(learned.swing(counter))
        for _ in range(WINDOWS):
            for name, swing in window(traffic):
                seen[name].append(swing)
    for name in EVENTS:
        yield name, float(np.mean(seen[name])), float(np.mean(known[name]))


def window(traffic: Traffic) -> Iterator[tuple[str, float]]:
    """Yield how far the versions were apart in the next 30 s, by kind of event."""
    table: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros((2, 1 + len(EVENTS))))
    for _ in range(round(LONG / traffic.model.interval)):
        for cell, tally in traffic.step(HALF)[0].cells:
            late = (tally.slower[EVENTS[name] - SLOWER] for name in list(EVENTS)[1:])
            row = table[cell.proxy, cell.segment][int(cell.version == CANARY)]
            row += (tally.requests, tally.errors, *late)
    blocks = np.array(list(table.values()))
    for i, name in enumerate(EVENTS, 1):
        requests, events = blocks[:, :, 0].sum(axis=1), blocks[:, :, i].sum(axis=1)
        part = blocks[:, 1, 0] / requests
        variance = (events * part * (1 - part) * (1 - events / requests)).sum()
        if variance > 0:
            yield name, float((blocks[:, 1, i] - events * part).sum() ** 2 / variance)


def main() -> None:
    """Print a row for each noise and kind of event."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--noise", action="append", choices=list(FAMILIES))
    parser.add_argument("--seeds", type=int, default=8)
    args = parser.parse_args()
    table = Table(("noise", "events", "between versions", "learned"), widths=(18, 10, 18, 10))
    for noise in args.noise or FAMILIES:
        for name, seen, known in swings(noise, args.seeds):
            table.row(noise, name, f"{seen:.2f}", f"{known:.2f}")


if __name__ == "__main__":
    main()
