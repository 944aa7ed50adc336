"""A simulated service under release: users, noise and faults, and the loop that the evidence drives.

Noise is ``iid`` (independent errors), ``mod`` or ``harsh`` (drift of both versions, drift of each version in
each cell, errors in clusters, unequal proxies). Run as a program it prints a table of measured figures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import erfc, exp, log, sqrt

import numpy as np

from controlplane.evidence import (
    Cell,
    Evidence,
    Learned,
    Limits,
    Observation,
    Outcome,
    Stage,
    Tally,
    Verdict,
    fold,
    learn,
    next_step,
    verdicts,
)
from controlplane.policy.latency import EDGES_MS

START = datetime(2026, 1, 1, tzinfo=UTC)
STABLE, CANARY = "v1", "v2"


@dataclass(frozen=True)
class Noise:
    arrivals: float = 0.0
    errors_shared: float = 0.0
    latency_shared: float = 0.0
    errors_own: float = 0.0
    latency_own: float = 0.0
    cluster: float = 1.0
    spill: float = 0.0
    proxies: float = 0.0


NOISE = {
    "iid": Noise(),
    "mod": Noise(0.15, 0.3, 0.10, 0.3, 0.02, 2.0, 0.0, 0.2),
    "harsh": Noise(0.30, 0.5, 0.20, 0.5, 0.05, 5.0, 0.4, 0.4),
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with the canary (``both`` with both versions) from ``begins`` seconds after the start."""

    errors: float = 0.0
    ratio: float = 1.0
    slower: float = 1.0
    segment: str | None = None
    both: bool = False
    begins: float = 0.0
    ends: float = 1e9

    def hits(self, segment: str, version: str, second: float) -> bool:
        return (
            self.begins <= second < self.ends
            and (self.both or version == CANARY)
            and self.segment in (None, segment)
        )


GOOD = Fault()
LADDER = (
    {"beta": 0.5, "everyone": 0.0},
    {"beta": 0.5, "everyone": 0.05},
    {"beta": 0.5, "everyone": 0.10},
    {"beta": 0.5, "everyone": 0.25},
    {"beta": 0.5, "everyone": 0.50},
    {"beta": 0.98, "everyone": 0.98},
)


USUAL = Limits(latency=((0.99, EDGES_MS.index(400)),), success_rate=0.99)


@dataclass(frozen=True)
class World:
    rps: float = 200.0
    base: float = 0.002
    noise: str = "iid"
    proxies: tuple[float, ...] = (0.55, 0.45)
    segments: Mapping[str, float] = field(default_factory=lambda: {"beta": 0.1, "everyone": 0.9})
    interval: float = 1.0
    history: float = 20.0
    ladder: tuple[Mapping[str, float], ...] = LADDER
    full: frozenset[str] = frozenset()
    limits: Limits = USUAL
    settle: float = 3.0  # seconds of propagation and verification at the begin of a step
    least: float = 5.0  # seconds of judging per step
    guard: float = 20.0
    longest: float = 900.0


@lru_cache(maxsize=4096)
def buckets(scale: float) -> np.ndarray:
    """Return the probabilities of the histogram's buckets when all is ``scale`` times as slow."""
    slow = [0.97 * _beyond(edge / scale, 40) + 0.03 * _beyond(edge / scale, 220) for edge in EDGES_MS]
    return -np.diff(np.array([1.0, *slow, 0.0]))


def _beyond(ms: float, median: float) -> float:
    return erfc((log(ms) - log(median)) / 0.6 / sqrt(2)) / 2


class Traffic:
    """Draws one observation after another."""

    def __init__(self, world: World, fault: Fault, seed: int) -> None:
        self.world, self.fault, self.noise = world, fault, NOISE[world.noise]
        self.rng = np.random.default_rng(seed)
        self.cells = [
            (p, s, v) for p in range(len(world.proxies)) for s in world.segments for v in (STABLE, CANARY)
        ]
        n = len(self.cells)
        self.proxy_errors = np.exp(self.rng.normal(0, self.noise.proxies, len(world.proxies)))
        self.arrivals, self.shared_e, self.shared_l = self.rng.normal(0, 1, 3)
        self.own_e, self.own_l = self.rng.normal(0, 1, n), self.rng.normal(0, 1, n)
        self.spilled = np.zeros(n, dtype=int)
        self.second = -world.history

    def _ar(self, old, tau):
        a = exp(-self.world.interval / tau)
        return a * old + sqrt(1 - a * a) * self.rng.normal(0, 1, np.shape(old))

    def step(self, shares: Mapping[str, float]) -> tuple[Observation, int]:
        """Return the next interval and how many requests the fault spoiled in it."""
        world, noise, rng = self.world, self.noise, self.rng
        if noise.arrivals:
            self.arrivals, self.shared_e = self._ar(self.arrivals, 60), self._ar(self.shared_e, 60)
            self.shared_l = self._ar(self.shared_l, 60)
            self.own_e, self.own_l = self._ar(self.own_e, 30), self._ar(self.own_l, 30)
        rate = world.rps * world.interval * exp(noise.arrivals * self.arrivals - noise.arrivals**2 / 2)
        tallies, spoiled = [], 0
        for i, (proxy, segment, version) in enumerate(self.cells):
            share = shares.get(segment, 0.0) if version == CANARY else 1 - shares.get(segment, 0.0)
            n = int(rng.poisson(rate * world.proxies[proxy] * world.segments[segment] * share))
            hit = self.fault.hits(segment, version, self.second)
            p = world.base * self.proxy_errors[proxy]
            p *= exp(noise.errors_shared * self.shared_e - noise.errors_shared**2 / 2)
            p *= exp(noise.errors_own * self.own_e[i] - noise.errors_own**2 / 2)
            p *= self.fault.ratio if hit else 1.0
            k = min(n, self._clustered(i, n * min(p, 1)))
            extra = int(rng.binomial(n - k, self.fault.errors)) if hit and self.fault.errors else 0
            spoiled += extra if version == CANARY else 0
            scale = exp(noise.latency_shared * self.shared_l + noise.latency_own * self.own_l[i])
            scale *= self.fault.slower if hit else 1.0
            counts = rng.multinomial(n, buckets(round(scale, 3)))
            slower = tuple(int(x) for x in n - np.cumsum(counts)[:-1])
            if n:
                tallies.append((Cell(f"p{proxy}", segment, version), Tally(n, k + extra, slower=slower)))
        begin = START + timedelta(seconds=self.second)
        self.second += world.interval
        fresh = tuple(f"p{i}" for i in range(len(world.proxies)))
        end = START + timedelta(seconds=self.second)
        return Observation("shop", begin, end, tuple(sorted(tallies, key=lambda t: t[0])), fresh), spoiled

    def _clustered(self, i: int, mean: float) -> int:
        clusters = int(self.rng.poisson(mean / self.noise.cluster))
        size = int(self.rng.geometric(1 / self.noise.cluster, clusters).sum()) if clusters else 0
        later = int(self.rng.binomial(size, self.noise.spill)) if self.noise.spill else 0
        out = size - later + int(self.spilled[i])
        self.spilled[i] = later
        return out


@dataclass(frozen=True)
class Ended:
    outcome: str
    seconds: float
    verdict: Verdict | None
    spoiled: int
    steps: tuple[float, ...]  # seconds at which each step was passed
    last: tuple[Verdict, ...]


def overall(world: World, shares: Mapping[str, float]) -> float:
    return sum(part * shares.get(segment, 0.0) for segment, part in world.segments.items())


def past(traffic: Traffic) -> Learned:
    """Return what the time before the release taught."""
    learned = Learned()
    while traffic.second < 0:
        learned = learn(learned, traffic.step({})[0], STABLE)
    return learned


def folded(known: Learned, observation: Observation, times: int, at: Stage) -> Evidence:
    """Return the evidence after so many intervals that are alike."""
    evidence = Evidence()
    for _ in range(times):
        evidence = fold(evidence, known, observation, at)
    return evidence


def release(world: World, fault: Fault = GOOD, seed: int = 0) -> Ended:
    """Run one release to its end."""
    traffic = Traffic(world, fault, seed)
    learned = past(traffic)
    evidence, step, begun, spoiled, passed = Evidence(), 0, 0.0, 0, []
    found: tuple[Verdict, ...] = ()
    while traffic.second < world.longest:
        shares = world.ladder[step]
        following = world.ladder[min(step + 1, len(world.ladder) - 1)]
        observation, bad = traffic.step(shares)
        spoiled += bad
        judging = traffic.second - begun - world.settle
        stage = Stage(
            CANARY,
            STABLE,
            world.limits,
            timedelta(seconds=traffic.second),
            overall(world, following),
            judging > 0,
            world.full,
        )
        evidence = fold(evidence, learned, observation, stage)
        learned = learn(learned, observation, STABLE)
        found = verdicts(evidence, learned, stage)
        failed = [v for v in found if v.outcome is Outcome.FAIL]
        if failed:
            return Ended("rolled back", traffic.second, failed[0], spoiled, tuple(passed), found)
        least = world.least if step + 1 < len(world.ladder) else world.guard
        if judging >= least and all(v.outcome is Outcome.PASS for v in found):
            passed.append(traffic.second)
            if step + 1 == len(world.ladder):
                return Ended("promoted", traffic.second, None, spoiled, tuple(passed), found)
            evidence, step, begun = next_step(evidence), step + 1, traffic.second
    return Ended("undecided", traffic.second, None, spoiled, tuple(passed), found)


def summary(name: str, world: World, fault: Fault, seeds: range) -> str:
    """Run a cell of the table and return its line."""
    began = time.process_time()
    ends = [release(world, fault, seed) for seed in seeds]
    back = [e for e in ends if e.outcome == "rolled back"]
    done = [e.seconds for e in ends if e.outcome == "promoted"]
    found = sorted(e.seconds - fault.begins for e in back)
    times = f"{np.median(found):.0f}/{np.percentile(found, 95):.0f} s" if found else "-"
    good = f"{np.median(done):.0f}/{np.percentile(done, 95):.0f} s" if done else "-"
    why = {}
    for e in back:
        key = f"{e.verdict.metric}@{e.verdict.segment}"
        why[key] = why.get(key, 0) + 1
    paced = [np.diff((0, *e.steps)) for e in ends if e.outcome == "promoted"]
    if paced:
        good += " steps " + "/".join(f"{x:.0f}" for x in np.median(paced, axis=0))
    stuck = {}
    for e in ends:
        if e.outcome == "undecided":
            for v in e.last:
                if v.outcome is not Outcome.PASS:
                    stuck[f"{len(e.steps)}:{v.metric}"] = stuck.get(f"{len(e.steps)}:{v.metric}", 0) + 1
    spoiled = np.mean([e.spoiled for e in ends])
    cost = time.process_time() - began
    return (
        f"{name:34s} n={len(ends)} back {len(back)} ({times}) promoted {len(done)} ({good}) "
        f"undecided {len(ends) - len(back) - len(done)} spoiled {spoiled:.1f} "
        f"{why or ''} {stuck or ''} [{cost:.0f}s]"
    )


CELLS = {
    "A/A": GOOD,
    "errors 10%": Fault(errors=0.10),
    "errors 100%": Fault(errors=1.0),
    "errors +0.5 pp": Fault(errors=0.005),
    "errors x5": Fault(ratio=5.0),
    "errors 10% from 60 s": Fault(errors=0.10, begins=60),
    "beta errors 50%": Fault(errors=0.5, segment="beta"),
    "latency x2": Fault(slower=2.0),
    "latency x4": Fault(slower=4.0),
    "both 10%": Fault(errors=0.10, both=True),
    "outage 90 s": Fault(errors=0.20, slower=2.0, both=True, begins=30, ends=120),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noise", default="iid", choices=sorted(NOISE))
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--history", type=float, default=20.0)
    parser.add_argument("--longest", type=float, default=300.0)
    parser.add_argument("--first", type=int, default=0, help="step to begin with")
    parser.add_argument("--rps", type=float, default=200.0)
    parser.add_argument("--base", type=float, default=0.002)
    parser.add_argument("--harm", type=float, default=0.0025)
    parser.add_argument("--relative", action="store_true", help="latency against the baseline too")
    parser.add_argument("--alone", action="store_true", help="no segments, and no absolute limits")
    parser.add_argument("cells", nargs="*", default=list(CELLS))
    args = parser.parse_args()
    world = World(
        noise=args.noise,
        interval=args.interval,
        history=args.history,
        longest=args.longest,
        ladder=LADDER[args.first :],
    )
    world = replace(world, limits=replace(world.limits, harm=args.harm), rps=args.rps, base=args.base)
    if args.relative:
        world = replace(world, limits=replace(world.limits, latency_margin=0.1))
    if args.alone:
        ladder = tuple({"everyone": x} for x in (0.05, 0.10, 0.25, 0.50, 0.98))[args.first :]
        limits = Limits(harm=args.harm, latency_margin=0.1)
        world = replace(world, limits=limits, segments={"everyone": 1.0}, ladder=ladder)
    for cell in args.cells:
        seeds = range(args.seed, args.seed + args.n)
        print(summary(f"{args.noise} {cell}", world, CELLS[cell], seeds), flush=True)  # noqa: T201
