"""`turnout simulate`: what a policy would do, before it is let near users."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice, product
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from controlplane.cli.client import CommandError, Output, check_output, console, parsed
from controlplane.cli.documents import read_files
from controlplane.cli.processes import end_with_parent
from controlplane.cli.simulated import Row, show
from controlplane.policy.values import format_duration, parse_duration, parse_share

if TYPE_CHECKING:
    from controlplane.policy.catalog import Catalog
    from controlplane.policy.documents import BusinessMetric, Condition, Policy, Service
    from controlplane.policy.pinned import PinnedPolicy
    from controlplane.simulation.business import Business
    from controlplane.simulation.faults import Fault
    from controlplane.simulation.loop import Ended
    from controlplane.simulation.traffic import Model

OUTSIDE = ("grpc_status", "retries", "ejections", "stat", "prometheus")  # what traffic alone does not tell
SHARE, AMOUNT = 0.02, 1000.0  # of requests that have a business metric, and what it is worth, if not said
USUAL_FAULTS = ("none", "errors=10%")
# How long a release may take, if that is not said. What takes longer than FAR is not for 5 s intervals.
LONGEST, MARGIN, FAR = timedelta(hours=2), timedelta(hours=1), timedelta(hours=12)
COARSE = timedelta(minutes=1)  # the interval for these
AHEAD = 32  # pieces of work for each process that are worked on, or done, ahead of what is waited for

# So many seeds a process works on at once: with more it would hardly be quicker. The last pieces of work have
# fewer, so that no process works long after the others.
BESIDE, FEWEST = 9, 3

# New objects after which Python looks for cyclic garbage: more than a piece of work makes in an interval. By
# default (700) that took an eighth of the CPU, and none was found.
SELDOM = 200_000

Work = TypeVar("Work")
Result = TypeVar("Result")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)


def simulate(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Files with the policy, its segments, and for metrics its service and fleet."),
    ],
    policy: Annotated[str, typer.Option(help="Which policy, if there are several.")] = "",
    rps: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="Requests per second of the whole service.")
    ] = 100,
    errors: Annotated[str, typer.Option(help="Usual share of errors.")] = "0.5%",
    client_errors: Annotated[str, typer.Option(help="Usual share of client errors (4xx).")] = "2%",
    latency: Annotated[
        float, typer.Option(min=0.01, max=10_000, help="Median latency of most requests, in ms.")
    ] = 40,
    noise: Annotated[
        str,
        typer.Option(help="iid, mod, harsh; of other families switching, users; or these two with -harsh."),
    ] = "mod",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="errors=10%, latency=x2@5m, crash, ... (a wrong one lists all); again for a row of its own,"
            " with + for several at once. none and errors=10% if not said."
        ),
    ] = None,
    releases: Annotated[int, typer.Option(min=1, max=100_000, help="How many, of each fault.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same figures.")] = 0,
    proxies: Annotated[int, typer.Option(min=1, max=64, help="How many Envoys.")] = 3,
    segment: Annotated[
        list[str] | None, typer.Option(help="NAME=SHARE of the requests; a tenth if not said.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=SHARE of the requests that have it, of a sum NAME=SHARExAMOUNT; 2%x1000 if not said."
        ),
    ] = None,
    users: Annotated[
        int, typer.Option(min=0, max=100_000, help="Who buy again and again; 0: each request is another's.")
    ] = 0,
    habit: Annotated[
        float, typer.Option(min=0, max=3, help="How much users differ in it: deviation of the logarithm.")
    ] = 1.0,
    service: Annotated[str, typer.Option(help="Whose metrics, if several have those of the policy.")] = "",
    interval: Annotated[str, typer.Option(help="How often statistics come.")] = "5s",
    history: Annotated[str, typer.Option(help="How long the stable version was watched before.")] = "30m",
    day: Annotated[float, typer.Option(min=0, max=0.9, help="Amplitude of the day's cycle.")] = 0.0,
    longest: Annotated[
        str,
        typer.Option(
            help="After which a release counts as undecided; 2h, or what the policy takes and an hour more."
        ),
    ] = "",
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 for one per core.")] = 0,
    output: Output = "text",
) -> None:
    """Run a policy many times on simulated traffic: false rollbacks, misses, times, harm."""
    from controlplane.simulation.families import FAMILIES
    from controlplane.simulation.faults import Fault
    from controlplane.simulation.traffic import Model

    as_json = check_output(output)
    began = time.monotonic()
    document, catalog = policy_of(paths, policy)
    pinned, counted = _pinned(document, catalog, service)
    if noise not in FAMILIES:
        raise CommandError(f"--noise: {noise!r} is not known; known: {', '.join(FAMILIES)}", 2)
    try:
        cells = {text: Fault.several(text) for text in fault or USUAL_FAULTS}
        model = Model(
            rps=rps,
            errors=parsed("--errors", parse_share, errors) / 1e6,
            noise=noise,
            proxies=tuple(0.85**i for i in range(proxies)),
            segments=_segments(segment or [], _names(pinned)),
            interval=parsed("--interval", parse_duration, interval).total_seconds(),
            history=parsed("--history", parse_duration, history).total_seconds(),
            day=day,
            longest=_longest(document, longest, interval).total_seconds(),
            metrics=_metrics(metric or [], counted),
            latency=latency,
            client_errors=parsed("--client-errors", parse_share, client_errors) / 1e6,
            users=users,
            habit=habit,
        )
    except ValueError as error:
        raise CommandError(str(error), 2) from None
    _check_times(model)
    named = [fault for faults in cells.values() for fault in faults]
    _check_known("segment", {f.segment for f in named}, _names(pinned))
    _check_known("proxy", {f.proxy for f in named}, model.names)
    modelled = tuple(each.name for each in model.metrics)
    _check_known("metric", {f.metric for f in named}, modelled)
    if not modelled and any(f.kind == "metric" for f in named):
        raise CommandError("--fault: the policy judges no metric of a service that is in the files", 2)
    if users and not modelled:
        raise CommandError("--users: the policy judges no metric of a service that is in the files", 2)
    found = _measure(_Seeds(pinned, model, tuple(cells.values())), range(seed, seed + releases), jobs)
    rows = {
        text: Row(faults, seed, ended) for (text, faults), ended in zip(cells.items(), found, strict=True)
    }
    if as_json:
        head = {"policy": pinned.name, "seed": seed, "model": asdict(model)}
        console.json(head | {"faults": {name: row.plain() for name, row in rows.items()}})
    else:
        show(pinned, model, rows)
    took = f"{releases * len(found)} releases in {time.monotonic() - began:.0f} s"
    typer.echo(f"{took} on {_processes(jobs, releases)} processes", err=as_json)


def policy_of(paths: Sequence[Path], name: str) -> tuple[Policy, Catalog]:
    """Return the policy of that name in the files, '' for the only one, and all that is in them.

    Raises:
        CommandError: If there is a mistake in the files, or no such policy.
    """
    from controlplane.policy.loading import load

    loaded = load(read_files(list(paths)))
    if loaded.errors:
        raise CommandError("\n".join(str(problem) for problem in loaded.errors))
    policies = {policy.name: policy for policy in loaded.catalog.policies()}
    known = ", ".join(sorted(policies)) or "none"
    if not name and len(policies) != 1:
        raise CommandError(f"--policy: say which policy; there are: {known}", 2)
    if name and name not in policies:
        raise CommandError(f"--policy: no policy is named {name!r}; known: {known}", 2)
    return policies[name or known], loaded.catalog


def _pinned(policy: Policy, catalog: Catalog, name: str) -> tuple[PinnedPolicy, Mapping[str, BusinessMetric]]:
    """Return the policy as it is simulated, and the metrics of the service that it judges."""
    from controlplane.policy.pinning import only, pin

    service = _service(policy, catalog, name)
    counted = service.metrics if service else {}

    def told(condition: Condition) -> bool:
        if condition.metric:
            return condition.metric.name in counted
        return condition.given not in OUTSIDE

    kept, left_out = only(policy, told, counted.__contains__)
    if left_out:
        typer.echo(f"not simulated, and taken as passed: {', '.join(left_out)}", err=True)
    if any(title.startswith("metric ") for title in left_out):
        typer.echo(
            "metrics are simulated if the file of the Service that counts them is given too, with its Fleet",
            err=True,
        )
    # The model has no users in a hold-out.
    alone = service.model_copy(update={"hold_out": None}) if service else None
    pinned = pin(kept, catalog, service=alone)
    names = {metric.name for metric in pinned.metrics} | {metric.per for metric in pinned.metrics}
    return pinned, {name: metric for name, metric in counted.items() if name in names}


def _service(policy: Policy, catalog: Catalog, name: str) -> Service | None:
    """Return the service that has the metrics of a policy; None if none is asked for, or none has them.

    Raises:
        CommandError: If there are several, or not the one that was named.
    """
    from controlplane.policy.pinning import metrics

    wanted = set(metrics(policy))
    services = {s.name: s for s in catalog.services() if wanted and wanted <= set(s.metrics)}
    known = ", ".join(sorted(services)) or "none"
    if name and name not in services:
        raise CommandError(
            f"--service: no service {name!r} has the metrics of the policy; those that have: {known}", 2
        )
    if not name and len(services) > 1:
        raise CommandError(f"--service: say which service; there are: {known}", 2)
    return services.get(name or known)


def _metrics(given: list[str], counted: Mapping[str, BusinessMetric]) -> tuple[Business, ...]:
    """Return the metrics as they are drawn; one that another is divided by comes before it."""
    from controlplane.simulation.business import Business

    said: dict[str, tuple[float, float]] = {}
    for text in given:
        name, _, value = text.partition("=")
        part, sign, worth = value.partition("x")
        if name not in counted:
            known = ", ".join(counted) or "none"
            raise ValueError(f"--metric: the policy judges no metric {name!r}; it judges: {known}")
        if sign and not (counted[name].sum and re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", worth)):
            raise ValueError(f"--metric: {text!r}: an amount is a number, and only of a sum")
        said[name] = parsed("--metric", parse_share, part) / 1e6, float(worth or AMOUNT)
    ordered = sorted(counted.items(), key=lambda item: item[1].per is not None)
    found = []
    for name, metric in ordered:
        share, mean = said.get(name, (SHARE, AMOUNT))
        amount, every = mean if metric.sum else None, metric.rhythm.total_seconds()
        more = metric.better == "more"
        found.append(Business(name, share, amount, more, metric.per or "", not metric.header, every))
    return tuple(found)


def _longest(policy: Policy, given: str, interval: str) -> timedelta:
    """Return how long a release may take, and say so where that is too short for a good one to end."""
    from controlplane.policy.times import shortest

    least = shortest(policy)
    longest = max(LONGEST, least + MARGIN) if least <= FAR else LONGEST
    if given:
        longest = parsed("--longest", parse_duration, given)
    if longest <= least:
        takes, advice = format_duration(least), f"--longest {format_duration(least + MARGIN)}"
        if least > FAR and parse_duration(interval) < COARSE:
            advice += f" --interval {format_duration(COARSE)}"
        said = f"policy {policy.name!r} takes {takes} at least, so no release ends as promoted"
        typer.echo(f"{said} within {format_duration(longest)}: {advice}", err=True)
    return longest


def _check_times(model: Model) -> None:
    """Refuse what cannot be simulated.

    Raises:
        CommandError: If something cannot.
    """
    if not 0.5 <= model.interval <= 60:
        raise CommandError("--interval: is not between 500ms and 1m", 2)
    if model.longest < model.interval:
        raise CommandError("--longest: is less than one --interval", 2)


def _segments(given: list[str], known: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, share = text.partition("=")
        if name not in known:
            names = ", ".join(known) or "none"
            raise ValueError(f"--segment: no step of the policy is for segment {name!r}; there are: {names}")
        found[name] = parsed("--segment", parse_share, share) / 1e6
    if sum(found.values()) > 0.9:
        raise ValueError("--segment: the segments have more than 90% of the requests together")
    return found


def _names(policy: PinnedPolicy) -> tuple[str, ...]:
    from controlplane.simulation.loop import segments

    return tuple(segments(policy, {}))


def _check_known(what: str, named: set[str | None], known: tuple[str, ...]) -> None:
    """Refuse a fault of what is not there.

    Raises:
        CommandError: If one is not.
    """
    if unknown := named - {None, *known}:
        names = ", ".join(known) or "none"
        raise CommandError(f"--fault: there is no {what} {min(map(str, unknown))!r}; there are: {names}", 2)


@dataclass(frozen=True, slots=True)
class _Seeds:
    """Releases that differ by what is wrong; those of one seed have the same past, which is drawn once."""

    policy: PinnedPolicy
    model: Model
    faults: tuple[tuple[Fault, ...], ...]

    def run(self, seeds: Sequence[int]) -> list[tuple[Ended, ...]]:
        """Return by seed how its releases ended."""
        from controlplane.simulation.loop import before, releases

        eves = before(self.policy, self.model, seeds)
        ended = iter(releases(self.policy, self.model, product(eves, self.faults)))
        return [tuple(islice(ended, len(self.faults))) for _ in seeds]


def _measure(releases: _Seeds, seeds: range, jobs: int) -> list[tuple[Ended, ...]]:
    """Return for each kind of what is wrong how its releases ended, in the order of the seeds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    kinds = len(releases.faults)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("releases", total=kinds * len(seeds))
        found = []
        for ended in run_all(releases.run, shared(seeds, jobs), jobs):
            found += ended
            progress.advance(task, kinds * len(ended))
    return list(zip(*found, strict=True))


def shared(seeds: range, jobs: int) -> list[range]:
    """Return the seeds in pieces of work, the last ones small, so that all processes end at about a time."""
    processes, pieces = _processes(jobs, len(seeds)), []
    while seeds:
        half, whole = ceil(len(seeds) / processes / 2), ceil(len(seeds) / processes)
        size = min(BESIDE, max(half, min(FEWEST, whole)))
        pieces.append(seeds[:size])
        seeds = seeds[size:]
    return pieces


def _processes(jobs: int, pieces: int) -> int:
    """Return how many processes work; 0 jobs are as many as there are cores."""
    return min(jobs or os.cpu_count() or 1, pieces)


def run_all(run: Callable[[Work], Result], pieces: Sequence[Work], jobs: int) -> Iterator[Result]:
    """Yield what becomes of each piece of work, in order, worked out by several processes."""
    jobs = _processes(jobs, len(pieces))
    if jobs == 1:
        yield from map(run, pieces)
        return
    workers = ProcessPoolExecutor(jobs, initializer=_end_with, initargs=(os.getpid(),))
    with _interruptible() as interrupts, workers as pool:
        try:
            asked: deque[Future[Result]] = deque()  # by `map` all would be at once, and cancelled in the end
            for piece in pieces:
                if interrupts:  # it came before there was a worker
                    raise KeyboardInterrupt
                asked.append(pool.submit(run, piece))
                if len(asked) > AHEAD * jobs:
                    yield asked.popleft().result()
            while asked:
                yield asked.popleft().result()
        except BaseException:  # nobody waits for what is left
            _end_workers()
            raise


@contextmanager
def _interruptible() -> Iterator[Sequence[int]]:
    """End the workers at an interrupt, which is raised once their pool has noticed; yield those that came.

    Raised wherever it comes, it could leave a lock of the pool taken, and the pool would never end.
    """
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        if came:  # whoever repeats it does not want to wait
            raise KeyboardInterrupt
        came.append(number)
        _end_workers()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield came
    except BrokenProcessPool:
        if came:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _end_workers() -> None:
    for worker in multiprocessing.active_children():
        worker.terminate()


def _end_with(parent: int) -> None:
    """Let a worker end when its parent does, and leave a terminal's interrupt to the parent."""
    gc.freeze()  # what is loaded stays, and is not looked through for garbage again and again
    gc.set_threshold(SELDOM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)
