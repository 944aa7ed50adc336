"""`make bench`: the xDS server beside a bare grpc.aio echo of the same bytes.

Both run at the same time, each in its own process, and take turns round by round: what disturbs the machine
disturbs both. Figures are medians of the rounds; differences and ratios are medians of the pairs. Single
rounds on a shared machine are apart by far more than what is measured, so it is said between what a median
surely lies.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench import crafted, inside, seam
from bench.http2 import Fleet
from bench.process import Server, raise_limits, server
from bench.report import Table, say, section
from bench.wire import ANSWERS, EVERYTHING, NODE_BYTES, PATHS, ROUTES, first_requests, node
from controlplane.xds.view import Variant

KB = 1000
GOAL_US = 10  # of CPU per push+ACK over the echo
GOAL_STORM = 6.0  # seconds
WARM_UP = 3  # rounds: the first ones grow buffers and arenas


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure: proxies, rounds per size, repetitions of the storm."""

    proxies: tuple[int, ...]
    rounds: int
    pushes: int  # at least, per cell: few proxies get more rounds
    storm: int
    storms: int

    def rounds_of(self, proxies: int) -> int:
        """Return the rounds of one cell."""
        return max(self.rounds, min(200, self.pushes // proxies))


FULL = Plan((100, 1000, 5000), rounds=15, pushes=40_000, storm=5000, storms=3)
QUICK = Plan((100, 1000), rounds=6, pushes=2000, storm=1000, storms=1)


@dataclass(frozen=True, slots=True)
class Side:
    """A server and its proxies."""

    server: Server
    fleet: Fleet


@dataclass(frozen=True, slots=True)
class Round:
    """CPU in us per push+ACK, and ms from publish to the last ACK."""

    cpu: float
    last: float


@dataclass(frozen=True, slots=True)
class Over:
    """CPU in us per push+ACK over the echo, and between what its median lies, 95 % sure."""

    median: float
    low: float
    high: float


def fleet(target: Server, variant: Variant) -> Fleet:
    """Return proxies of a server, none connected yet."""
    return Fleet(target.port, PATHS[variant], ANSWERS[variant])


def once(side: Side, size: int, seconds: float = 60) -> Round:
    """Publish one change, and measure until the server is calm again.

    Raises:
        TimeoutError: If it is not answered in time; it says whether the server was given a CPU.
    """
    proxies = len(side.fleet.connections)
    wanted = side.fleet.received + proxies
    before = side.server.cpu()
    ran, waited = side.server.scheduled()
    at = side.server.publish(size)
    try:
        side.fleet.run(lambda: side.fleet.received >= wanted, seconds)
    except TimeoutError as error:
        had, wanting = side.server.scheduled()
        why = f"the server's event loop ran {had - ran:.1f} s and waited {wanting - waited:.1f} s for a CPU"
        raise TimeoutError(f"{error}; {why}") from None
    last = (time.monotonic_ns() - at) / 1e6
    _calm(side)
    return Round((side.server.cpu() - before) / 1e3 / proxies, last)


def _calm(side: Side) -> None:
    """Serve the proxies until the server has dealt with all that it was sent."""
    used = side.server.cpu()
    for _ in range(100):
        side.fleet.idle(0.01)
        before, used = used, side.server.cpu()
        if used - before < 300_000:
            return


@contextlib.contextmanager
def sides(
    variant: Variant, proxies: int, *, pinned: bool, kind: str = "turnout"
) -> Iterator[tuple[Side, Side, tuple[float, float]]]:
    """Run both servers with that many proxies each; the pair of numbers is KiB of RSS per connected proxy.

    Ours have the five subscriptions of an Envoy, the echo's one, as it knows nothing of types.
    """
    with server(kind, pinned=pinned) as first, server("echo", pinned=pinned) as echo:
        found, memory = [], []
        for target, subscriptions in ((first, EVERYTHING if kind == "turnout" else ROUTES), (echo, ROUTES)):
            target.publish(KB)
            before = target.rss()
            proxy = fleet(target, variant)
            requests = [first_requests(variant, node(i), subscriptions) for i in range(proxies)]
            proxy.connect(requests, answers=len(subscriptions))
            found.append(Side(target, proxy))
            _calm(found[-1])
            memory.append((target.rss() - before) / 1024 / proxies)
        yield found[0], found[1], (memory[0], memory[1])
        for side in found:
            if side.fleet.ended:
                raise SystemExit(f"{side.fleet.ended} streams were ended by the server")
            side.fleet.close()


def pushes(plan: Plan, *, pinned: bool) -> None:
    """Print the cost of one change to many proxies."""
    section("push and ACK of one route, five types subscribed")
    table = Table(
        (
            "proxies",
            "route",
            "variant",
            "",
            "cpu us",
            "of echo",
            "over it",
            "surely",
            "last ACK ms",
            "of echo",
        ),
        widths=(8, 7, 8, 11, 8, 9, 9, 16, 13, 9),
    )
    memory: list[tuple[str, Sequence[float], Sequence[float]]] = []
    found: list[Over] = []
    cells: list[tuple[Variant, int]] = [("delta", n) for n in plan.proxies] + [("sotw", 1000)]
    for variant, proxies in cells:
        with sides(variant, proxies, pinned=pinned) as (ours, echo, connected):
            for size in (KB, 30 * KB):
                pairs = _rounds(ours, echo, size, plan.rounds_of(proxies))
                cell = (proxies, f"{size // KB} KB", variant)
                found.append(_print_rounds(table, cell, "turnout", pairs))
            sent = [next(iter(side.fleet.connections.values())).size for side in (ours, echo)]
            if abs(sent[0] - sent[1]) > 4:  # digits of a nonce or a revision
                raise SystemExit(f"not the same bytes: {sent}")
            whole = [side.server.rss() / 1024 / proxies for side in (ours, echo)]
            memory.append((f"{proxies} {variant}", connected, whole))
    proxies = min(1000, max(plan.proxies))
    with sides("delta", proxies, pinned=pinned, kind="echo") as (again, echo, _):
        pairs = _rounds(again, echo, KB, plan.rounds_of(proxies))
        noise = _print_rounds(table, (proxies, "1 KB", "delta"), "echo again", pairs)
    table.note(f"two equal echoes differed by {abs(noise.median):.1f} us: so much is noise")
    worst = max(over.median for over in found)
    verdict = _verdict(found, abs(noise.median))
    table.note(f"over the echo: at most {worst:.1f} us of CPU per push+ACK; goal {GOAL_US}: {verdict}")
    section("memory, KiB of RSS per proxy")
    table = Table(("proxies", "turnout", "echo", "whole process", "echo"), widths=(14, 10, 10, 15, 10))
    for name, added, total in memory:
        table.row(name, *(f"{v:.1f}" for v in (*added, *total)))


def _verdict(found: Sequence[Over], noise: float) -> str:
    """Say whether the goal is met in all cells, as far as the rounds tell."""
    if missed := sum(over.low > GOAL_US + noise for over in found):
        return f"missed, for sure in {missed} cells"
    above = sum(over.median > GOAL_US for over in found)
    return f"met but for {above} cells, where the rounds do not tell" if above else "met"


def _rounds(ours: Side, echo: Side, size: int, count: int) -> list[tuple[Round, Round]]:
    for side in (ours, echo) * WARM_UP:
        once(side, size)
    return [(once(ours, size), once(echo, size)) for _ in range(count)]


def _print_rounds(
    table: Table, cell: tuple[object, ...], name: str, pairs: Sequence[tuple[Round, Round]]
) -> Over:
    """Print both servers' medians; return how much CPU the first one needs over the echo."""
    mine, its = (_median(pairs, which) for which in (0, 1))
    over = _over([a.cpu - b.cpu for a, b in pairs])
    cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
    last = statistics.median(a.last / b.last for a, b in pairs)
    sure = f"{over.low:+.1f} to {over.high:+.1f}"
    numbers = (
        f"{mine.cpu:.1f}",
        f"x{cpu:.2f}",
        f"{over.median:+.1f}",
        sure,
        f"{mine.last:.1f}",
        f"x{last:.2f}",
    )
    table.row(*cell, name, *numbers)
    table.row("", "", "", "echo", f"{its.cpu:.1f}", "", "", "", f"{its.last:.1f}", "")
    return over


def _over(differences: Sequence[float]) -> Over:
    """Return the median of paired differences, and the ranks between which it lies with 95 %."""
    ordered, n = sorted(differences), len(differences)
    rank = max(0, int((n - 1.96 * n**0.5) / 2) - 1)  # of the binomial distribution
    return Over(statistics.median(ordered), ordered[rank], ordered[n - 1 - rank])


def _median(pairs: Sequence[tuple[Round, Round]], which: int) -> Round:
    mine = [pair[which] for pair in pairs]
    return Round(statistics.median(r.cpu for r in mine), statistics.median(r.last for r in mine))


def storms(plan: Plan, *, pinned: bool) -> None:
    """Print the cost of all proxies returning at once."""
    n = plan.storm
    section(f"reconnect storm: {n} proxies with nodes of {NODE_BYTES // KB} KB, 1 KB of resources each")
    table = Table(("", "all served s", "cpu us each", "refused"), widths=(10, 14, 14, 10))
    medians = []
    for kind in ("turnout", "echo"):
        runs = [_storm(kind, n, pinned=pinned) for _ in range(plan.storms)]
        seconds, cpu = (statistics.median(run[i] for run in runs) for i in (0, 1))
        refused = sum(int(run[2]) for run in runs)
        medians.append((seconds, cpu))
        table.row(kind, f"{seconds:.2f}", f"{cpu:.0f}", refused)
        if kind == "turnout" and n == FULL.storm:
            verdict = "met" if max(run[0] for run in runs) <= GOAL_STORM and not refused else "missed"
            table.note(f"goal {GOAL_STORM:.0f} s and 0 refused: {verdict}")
    (seconds, cpu), (echo_seconds, echo_cpu) = medians
    table.row("ratio", f"x{seconds / echo_seconds:.2f}", f"x{cpu / echo_cpu:.2f}", "")


def _storm(kind: str, proxies: int, *, pinned: bool) -> tuple[float, float, int]:
    """Return seconds, CPU us each, and how many were refused, of proxies that come again after a reset."""
    requests = [first_requests("delta", node(i, NODE_BYTES), ROUTES) for i in range(proxies)]
    with server(kind, pinned=pinned) as target:
        target.publish(KB)
        before = fleet(target, "delta")
        before.connect(requests)
        _calm(Side(target, before))
        before.close()
        again = fleet(target, "delta")
        used = target.cpu()  # to end the old streams is part of a storm
        seconds = again.connect(requests)
        _calm(Side(target, again))
        cpu = (target.cpu() - used) / 1e3 / proxies
        refused = again.ended + proxies - again.received
        again.close()
    return seconds, cpu, refused


def main() -> None:
    """Run all of it, or what is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.xds", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer proxies and rounds: under a minute")
    parser.add_argument(
        "--pinned", action="store_true", help="servers on the first CPU, client on the others"
    )
    parser.add_argument(
        "only", nargs="*", help="inside, seam, crafted, pushes, storm; all of them by default"
    )
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    parts: dict[str, Callable[[], None]] = {
        "inside": lambda: inside.run(quick=options.quick),
        "seam": lambda: seam.run(quick=options.quick),
        "crafted": lambda: crafted.run(quick=options.quick),
        "pushes": lambda: pushes(plan, pinned=options.pinned),
        "storm": lambda: storms(plan, pinned=options.pinned),
    }
    if unknown := set(options.only) - set(parts):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(parts)}")
    raise_limits(2 * max(plan.proxies))
    if options.pinned and len(cpus := os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, cpus - {min(cpus)})
    start = time.monotonic()
    for name, part in parts.items():
        if not options.only or name in options.only:
            part()
    say(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
