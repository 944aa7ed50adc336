"""The demo itself: control plane, proxies, service and users together, one release, shown live."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controlplane.app.plane import Plane
from controlplane.app.serving import Settings, serving
from controlplane.demo.documents import FLEET, RELEASE, SERVICE, Pace, documents
from controlplane.demo.fault import Fault
from controlplane.demo.report import Facts, Outcome, Reason
from controlplane.demo.status import DecisionStatus, DemoStatus, Mark, ProofStatus, ProxyStatus, StepStatus
from controlplane.demo.view import View
from controlplane.demo.world import World
from controlplane.release.ports import Record
from controlplane.resources.bootstrap import bootstrap
from controlplane.web.asked import Documents
from controlplane.web.shown import ReleaseShown

ACTOR = "demo"
REFRESH = 0.25  # seconds
WARM_UP = 2.0  # seconds of baseline traffic before the release starts
INTERVALS: dict[Pace, timedelta] = {"fast": timedelta(seconds=1), "real": timedelta(seconds=5)}
_ENDS: dict[str, Outcome] = {"promoted": "promoted", "rolled_back": "rolled_back"}
_MARKS: dict[str, Mark] = {"done": "done", "current": "now", "todo": "todo", "skipped": "todo"}
_METRICS = {"success rate": "errors"}  # a condition is a rule about a metric; others begin with the metric
_MARKED_VERDICTS = {"pass": "pass", "fail": "fail", "not yet": "not yet"}


@dataclass(frozen=True, slots=True)
class Options:
    """What to show: see `turnout demo --help`."""

    fault: Fault = field(default_factory=Fault)
    rps: float = 200
    proxies: int = 2
    pace: Pace = "fast"
    seconds: float = 300
    seed: int = 0


async def run(options: Options, view: View, stop: asyncio.Event | None = None) -> Facts:
    """Run the demo to its end, or until ``stop``, and return what happened.

    Raises:
        EnvoyError: If there is no Envoy, or one does not come up.
        ServeError: If the control plane cannot start.
    """
    with tempfile.TemporaryDirectory(prefix="turnout-demo-") as name:
        folder = Path(name)
        world = World(folder, options.fault, options.rps, options.seed)
        interval = INTERVALS[options.pace]
        settings = Settings(folder / "data", xds="127.0.0.1:0", http="127.0.0.1:0", interval=interval)
        async with world, serving(settings) as server:
            text = documents(world.listener, world.endpoints, options.pace)
            before, _, _ = text.rpartition("---\n")
            await _apply(server.plane, before)
            bootstraps = {
                f"{FLEET}-{number + 1}": bootstrap(
                    f"{FLEET}-{number + 1}",
                    FLEET,
                    [f"127.0.0.1:{server.xds_port}"],
                    flush=interval,
                    admin="127.0.0.1:0",
                )
                for number in range(options.proxies)
            }
            await world.start_proxies(bootstraps, server.xds_port)
            await world.load.start()
            await asyncio.sleep(WARM_UP)
            await _apply(server.plane, text)
            return await _watch(options, view, world, server.plane, stop or asyncio.Event())


async def _apply(plane: Plane, text: str) -> None:
    applied = await plane.apply(Documents(files={"demo.yaml": text}, actor=ACTOR))
    if applied.problems:
        raise AssertionError(f"the demo's own documents are wrong: {applied.problems}")


async def _watch(options: Options, view: View, world: World, plane: Plane, stop: asyncio.Event) -> Facts:
    began = time.monotonic()
    judged = placed = None
    with view:
        while True:
            shown = plane.release(RELEASE)
            judged = shown if shown.verdicts or judged is None else judged
            placed = shown if shown.proxies or placed is None else placed
            records = await plane.records(RELEASE, 200)
            await world.enter(shown.phase)
            late = time.monotonic() - began >= options.seconds
            over = shown.phase in _ENDS or late or stop.is_set()
            if over:
                # What the users still have under way belongs to the story, too.
                await world.load.stop()
            facts = _facts(shown, records, world)
            picture = _with_evidence(shown, judged, placed)
            view.show(_status(options, picture, records, world, facts if over else None))
            if over:
                return facts
            await asyncio.sleep(REFRESH)


def _with_evidence(shown: ReleaseShown, judged: ReleaseShown, placed: ReleaseShown) -> ReleaseShown:
    """Keep what the decision was made of, and where it was, in the picture after the release has ended."""
    return shown.model_copy(
        update={
            "verdicts": shown.verdicts or judged.verdicts,
            "suspicion": shown.suspicion if shown.verdicts else judged.suspicion,
            "proxies": shown.proxies or placed.proxies,
        }
    )


def _facts(shown: ReleaseShown, records: tuple[Record, ...], world: World) -> Facts:
    outcome = _ENDS.get(shown.phase, "undecided")
    started = shown.started_at or shown.created_at
    rollback = next((r for r in records if r.action == "rollback"), None)
    decisive = {"promoted": "promote", "rolled_back": "rollback"}.get(outcome)
    deciding = next((r for r in reversed(records) if r.action == decisive), None)
    if deciding is not None and outcome == "promoted":
        reason = Reason("", "", deciding.reason)
    elif deciding is not None:
        condition, _, segment = str(deciding.numbers.get("code", "")).partition("/")
        reason = Reason(_METRICS.get(condition, condition.partition(" ")[0]), segment, deciding.reason)
    else:
        reason = Reason("", "", shown.because)
    decided = rollback.at if rollback else None
    return Facts(
        outcome=outcome,
        reason=reason,
        started=started,
        ended=shown.ended_at or datetime.now(UTC),
        harmed=world.harmed(),
        decided=decided,
        load=world.load.counts(),
        moved_back=world.moved_back(decided),
        proxies=len(world.envoys),
        envoy_version=world.envoy_version,
        steps=tuple(
            step.name for step in shown.steps if shown.started_at and step.state not in ("todo", "skipped")
        ),
    )


def _status(
    options: Options, shown: ReleaseShown, records: tuple[Record, ...], world: World, facts: Facts | None
) -> DemoStatus:
    started = shown.started_at or shown.created_at
    failed = shown.phase in ("rolling_back", "rolled_back")
    seconds = ((shown.ended_at or datetime.now(UTC)) - started).total_seconds()
    return DemoStatus(
        service=SERVICE,
        release=shown.name,
        from_=shown.from_version,
        to=shown.to_version,
        phase=shown.phase.replace("_", " "),
        seconds=max(0.0, seconds),
        fault=str(options.fault),
        activity=_activity(shown),
        steps=_steps(shown, failed=failed),
        proxies=_proxies(shown),
        harm=shown.suspicion,
        harm_limit=100.0,
        proofs=tuple(
            ProofStatus(v.metric, _verdict(v.outcome), _proof(v.outcome, v.numbers), v.reason)
            for v in shown.verdicts
        ),
        load=world.load.counts(),
        moved_back=facts.moved_back if facts else world.moved_back(None) if not failed else 0,
        decisions=tuple(
            DecisionStatus((r.at - started).total_seconds(), r.action, r.reason)
            for r in records[-5:]
            if r.at >= started
        ),
        conclusion=_conclusion(facts) if facts else (),
    )


def _steps(shown: ReleaseShown, *, failed: bool) -> tuple[StepStatus, ...]:
    """Return the ladder; a release that failed in the guard failed on its last step."""
    marks = [_MARKS[step.state] for step in shown.steps]
    reached = [number for number, mark in enumerate(marks) if mark != "todo"]
    if failed and reached:
        marks[reached[-1]] = "failed"
    return tuple(
        StepStatus(s.name, s.segment, s.share, mark) for s, mark in zip(shown.steps, marks, strict=True)
    )


def _activity(shown: ReleaseShown) -> str:
    if shown.phase in ("progressing", "guarding"):
        return f"{shown.stage}: {shown.because}"
    return shown.because


def _proxies(shown: ReleaseShown) -> tuple[ProxyStatus, ...]:
    return tuple(
        ProxyStatus(
            name=p.proxy,
            asked=round(p.asked * 1e6),
            acked=round(p.asked * 1e6) if p.acked else None,
            observed=None if p.observed is None else round(p.observed * 1e6),
            requests=p.canary_requests + p.baseline_requests,
            errors=p.canary_errors + p.baseline_errors,
            note=p.problem,
        )
        for p in shown.proxies
    )


def _verdict(outcome: str):  # type: ignore[no-untyped-def]
    return _MARKED_VERDICTS[outcome]


def _proof(outcome: str, numbers: dict[str, float]) -> float:
    if outcome == "pass":
        return 1.0
    needed = numbers.get("needed", 0.0)
    return min(1.0, max(0.0, numbers.get("promotion", 0.0) / needed)) if needed else 0.0


def _conclusion(facts: Facts) -> tuple[str, ...]:
    load = facts.load
    head = {
        "promoted": "promoted: v2 is stable",
        "rolled_back": "rolled back: v1 has every request again",
        "undecided": "undecided: not one more step, and no rollback",
    }[facts.outcome]
    seconds = (facts.ended - facts.started).total_seconds()
    failed = f"{load.failed:,} failed, {load.unexplained:,} of them unexplained"
    lost = f"{facts.moved_back or 'nobody'} lost the canary while shares grew"
    return (
        head,
        f"why     {facts.reason.rule}",
        f"took    {seconds:.0f} s, steps entered: {', '.join(facts.steps) or 'none'}",
        f"users   {load.requests:,} requests, {load.canary:,} of them to the canary; {failed}; {lost}",
    )
