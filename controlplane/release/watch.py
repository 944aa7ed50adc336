"""What a release has gathered so far, folded interval by interval, and how it reads now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache, reduce

from controlplane.evidence import better
from controlplane.evidence import evidence as fold_of
from controlplane.evidence.account import Interval, Limits
from controlplane.evidence.account import Stage as Setting
from controlplane.evidence.better import Result
from controlplane.evidence.evidence import Evidence
from controlplane.evidence.flow import Flow
from controlplane.evidence.learned import Learned
from controlplane.evidence.observation import Observation
from controlplane.evidence.reach import missed, reach
from controlplane.evidence.reading import alone, rough
from controlplane.evidence.shares import Lately
from controlplane.evidence.spoiled import Spoiled
from controlplane.evidence.verdict import Verdict
from controlplane.policy.documents import (
    EVERYONE,
    UNCOMPARED,
)
from controlplane.policy.pinned import PinnedPolicy
from controlplane.release import arrivals
from controlplane.release import trial as trials
from controlplane.release.arrivals import ALL, Place
from controlplane.release.conditions import limits, tests
from controlplane.release.memo import Same
from controlplane.release.state import Phase, ReleaseState, Stage
from controlplane.release.traffic import BUCKETS, splits
from controlplane.release.trial import Check, Trial

SEGMENT = 0.1  # assumed share of a segment among all requests

Counts = tuple[int, int, int, int]  # canary requests, errors, baseline requests, errors
NO_COUNTS: Counts = (0, 0, 0, 0)
GONE = ""  # in the place of a proxy: all that are not there any more


@dataclass(frozen=True, slots=True)
class Watch:
    """A release's evidence.

    Attributes:
        evidence: Of the whole release, and of the step.
        step: Requests by proxy and segment since every proxy had the present step, of proxies that are there.
        whole: The same by proxy since the release began, all segments but the anonymous one; those that are
            gone are one, GONE.
        split: By proxy and segment, the requests of late by which the split is judged; those of ALL proxies
            for the segment by which the step shows.
        flow: How requests of the canary come in that segment.
        since: When the last interval with one of them ended, or when they began to be counted in the step.
        unvisited: Seconds for which no request of the service has come in the step, of any version.
        missed: Baseline calls of gRPC clients by segment, in the present step, since one reached the canary.
        spoiled: What the release cost until now.
        trial: What of an A/B test is certain.
    """

    evidence: Evidence = field(default_factory=Evidence)
    step: Mapping[Place, Counts] = field(default_factory=dict)
    whole: Mapping[str, Counts] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    spoiled: Spoiled = field(default_factory=Spoiled)
    split: Mapping[Place, Lately] = field(default_factory=dict)
    flow: Flow = field(default_factory=Flow)
    unvisited: float = 0.0
    trial: Trial = field(default_factory=Trial)
    since: datetime | None = None

    def to_json(self) -> dict[str, object]:
        """Return plain values; nothing is lost."""
        return {
            "evidence": self.evidence.to_json(),
            "step": [[*place, *counts] for place, counts in sorted(self.step.items())],
            "whole": [[proxy, *counts] for proxy, counts in sorted(self.whole.items())],
            "missed": dict(sorted(self.missed.items())),
            "spoiled": self.spoiled.to_json(),
            "split": [[*place, *lately.to_json()] for place, lately in sorted(self.split.items())],
            "flow": self.flow.to_json(),
            "unvisited": self.unvisited,
            "trial": self.trial.to_json(),
            "since": self.since.isoformat() if self.since else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Watch:
        """Return what `to_json` was called on."""
        step, whole, evidence = data["step"], data["whole"], data["evidence"]
        assert isinstance(step, list)
        assert isinstance(whole, list)
        assert isinstance(evidence, Mapping)
        missed = data.get("missed", {})
        assert isinstance(missed, Mapping)
        # Stores of before these two were kept: what comes from now on counts.
        split, flow = data.get("split", []), data.get("flow", (0, 0.0, 0.0, 0.0))
        assert isinstance(split, list)
        assert isinstance(flow, list | tuple)
        unvisited = data.get("unvisited", 0.0)
        assert isinstance(unvisited, float | int)
        found = Evidence.from_json(evidence)
        trial, since = data.get("trial"), data.get("since")
        assert isinstance(trial, Mapping | None)
        return cls(
            found,
            {(proxy, segment): tuple(counts) for proxy, segment, *counts in step},
            {proxy: tuple(counts) for proxy, *counts in whole},
            dict(missed),
            Spoiled.from_json(data.get("spoiled", ())),
            {(proxy, segment): Lately.from_json(lately) for proxy, segment, *lately in split},
            Flow.from_json(flow),
            float(unvisited),
            # What a test had gathered before anything vouched for it stays.
            Trial.from_json(trial) if trial else Trial(found.accounts),
            datetime.fromisoformat(str(since)) if since else None,
        )


def exposure(policy: PinnedPolicy, step: int) -> float:
    """Return the share of requests, in 0..1, that the canary gets at a step.

    How many requests a segment has is not known before its routes exist; a tenth of all is assumed.
    """
    groups = splits(policy, step)
    return max(groups[-1].buckets / BUCKETS, *(SEGMENT * s.buckets / BUCKETS for s in groups))


def setting(state: ReleaseState, *, counting: bool) -> Setting:
    """Return where a release stands, as the statistics need it."""
    at = _at(state)
    return Setting(
        canary=state.to_version,
        stable=state.from_version,
        limits=at.limits,
        elapsed=state.running,
        next_share=at.next_share,
        counting=counting,
        full_segments=at.full_segments,
        divided=at.divided,
        judged=state.judged,
        since=state.elapsed,
    )


def whole(state: ReleaseState) -> bool:
    """Return whether a release's step leaves nobody on the baseline."""
    in_progress = state.phase in (Phase.PROGRESSING, Phase.GUARDING)
    return in_progress and EVERYONE in _at(state).full_segments


@dataclass(frozen=True, slots=True)
class _AtStep:
    """What a policy comes to at a step, as in :class:`Setting`."""

    limits: Limits
    next_share: float
    full_segments: frozenset[str]
    divided: bool


def _at(state: ReleaseState) -> _AtStep:
    return _at_step(Same(state.policy), state.step)


@lru_cache(maxsize=1024)
def _at_step(same: Same, step: int) -> _AtStep:
    current = splits(same.policy, step)
    full = frozenset(split.segment for split in current if split.buckets == BUCKETS)
    divided = any(0 < split.buckets < BUCKETS for split in current)
    return _AtStep(limits(same.policy, step), exposure(same.policy, step + 1), full, divided)


def ready(
    watch: Watch, learned: Learned, observation: Observation, state: ReleaseState, *, counting: bool
) -> Interval:
    """Return an interval that is ready to be folded.

    Args:
        watch: Until then.
        learned: What the baseline's past taught before this interval.
        observation: The interval.
        state: The release as it was during the interval.
        counting: Whether the interval counts for promotion.
    """
    return fold_of.ready(watch.evidence, learned, observation, setting(state, counting=counting))


def fold(watch: Watch, interval: Interval, state: ReleaseState, *, settled: bool) -> Watch:
    """Return the watch after one more interval.

    Args:
        watch: Until then.
        interval: That is ready.
        state: The release as it was during the interval.
        settled: Whether every proxy had the present step in the whole interval.
    """
    observation = interval.observation
    step, whole = dict(watch.step), dict(watch.whole)
    for place, counts in _counts(observation, state).items():
        if settled:
            step[place] = _plus(step.get(place, NO_COUNTS), counts)
        if place[1] not in UNCOMPARED:
            whole[place[0]] = _plus(whole.get(place[0], NO_COUNTS), counts)
    split, since = watch.split, watch.since
    if settled:
        split = arrivals.of_late(split, observation, state)
        since = arrivals.since(since, watch.flow, observation, state)
    evidence = fold_of.folded(watch.evidence, interval)
    spoiled = watch.spoiled
    if state.policy.budget:
        spoiled = spoiled.plus(interval.learned, interval.blocks, alone=alone(interval.stage))
    trial, at = watch.trial, interval.stage
    if tests := at.limits.tests:
        fresh = {p: (c[0], c[2]) for p, c in _counts(observation, state).items() if at.counting}
        trial = trial if state.judged else trials.BEGUN
        trial, evidence = trials.gathered(trial, (watch.evidence, evidence), tests, fresh, interval.seconds)
    flow = watch.flow, watch.unvisited
    found = Watch(evidence, step, whole, watch.missed, spoiled, split, *flow, trial, since)
    return _without_gone(found, state)


def _without_gone(watch: Watch, state: ReleaseState) -> Watch:
    """Return the watch with proxies that left the gate set as one: their names would add up for ever."""
    there = {proxy for proxy, _ in state.gate}
    if not there or (watch.whole.keys() <= {*there, GONE} and all(proxy in there for proxy, _ in watch.step)):
        return watch
    whole = {proxy: counts for proxy, counts in watch.whole.items() if proxy in there}
    gone = [counts for proxy, counts in watch.whole.items() if proxy not in there]
    if gone:
        whole[GONE] = reduce(_plus, gone)
    return replace(
        watch,
        whole=whole,
        step={place: counts for place, counts in watch.step.items() if place[0] in there},
        split={place: lately for place, lately in watch.split.items() if place[0] in {*there, ALL}},
    )


def served(observation: Observation | None, state: ReleaseState) -> bool:
    """Return whether an interval has requests of the canary that are compared."""
    return observation is not None and any(
        tally.requests
        for cell, tally in observation.cells
        if cell.version == state.to_version and cell.segment not in UNCOMPARED
    )


def follow(watch: Watch, observation: Observation, state: ReleaseState, acked: AbstractSet[str]) -> Watch:
    """Return the watch with what of a settled interval shows whether clients reach the canary.

    ``acked`` are the proxies that have the present step.
    """
    versions = state.to_version, state.from_version
    after = missed(watch.missed, observation, versions, acked)
    return watch if after == watch.missed else replace(watch, missed=after)


def visited(watch: Watch, observation: Observation, state: ReleaseState) -> Watch:
    """Return the watch with whether requests came, after a settled interval with all statistics."""
    flow = arrivals.flowed(watch.flow, observation, state)
    unvisited = arrivals.unvisited(watch.unvisited, observation)
    if (flow, unvisited) == (watch.flow, watch.unvisited):
        return watch
    return replace(watch, flow=flow, unvisited=unvisited)


def deserted(watch: Watch, learned: Learned, state: ReleaseState, interval: timedelta) -> str:
    """Return for how long no request of the service has come, of any version; '' while that is usual."""
    if not watch.unvisited:
        return ""
    usual = Flow(usual=learned.gap(watch.unvisited))
    if watch.unvisited <= usual.longest(interval.total_seconds()):
        return ""
    return f"no request of {state.service} has come for {rough(watch.unvisited)}, of no version"


def next_step(watch: Watch) -> Watch:
    """Return the watch at the begin of a step: what spoke for promotion belonged to the step before."""
    evidence = fold_of.next_step(watch.evidence)
    return Watch(evidence, whole=watch.whole, spoiled=watch.spoiled)


def stepped_back(watch: Watch) -> Watch:
    """Return the watch after a step back: all evidence begins anew, what was spoiled stays spoiled."""
    return Watch(spoiled=watch.spoiled)


def acted(watch: Watch, before: ReleaseState, after: ReleaseState) -> Watch:
    """Return the watch after a person's act: another step has begun, or the same one with new evidence."""
    if not after.may_go_on or after.phase is Phase.WAITING:
        return watch
    if (after.phase, after.step) != (before.phase, before.step):
        return next_step(watch) if before.active else Watch()
    return Watch() if after.begun > before.begun else watch


def unproved(watch: Watch) -> Watch:
    """Return the watch without what spoke for promotion: where the split is wrong, requests prove nothing."""
    return replace(watch, evidence=fold_of.next_step(watch.evidence))


def vouched(watch: Watch, state: ReleaseState, check: Check, shares: Mapping[str, float]) -> Watch:
    """Return the watch with an A/B test as far as the split vouches for it.

    ``shares`` are the canary's by segment, in 0..1, as requests came.
    """
    if not (tests := _at(state).limits.tests):
        return watch
    divided = {segment: share for segment, share in shares.items() if 0 < share < 1}
    trial, evidence = trials.vouched(watch.trial, watch.evidence, tests, divided, check)
    return replace(watch, trial=trial, evidence=evidence)


def apart(watch: Watch, state: ReleaseState) -> bool:
    """Return whether users may be told of who had other versions: after a time of a wrong split in a test."""
    return trials.apart(watch.trial, _at(state).limits.tests)


def verdicts(watch: Watch, learned: Learned, state: ReleaseState) -> tuple[Verdict, ...]:
    """Return how each condition reads now, and the budget."""
    at = setting(state, counting=state.stage is Stage.JUDGE)
    found = fold_of.verdicts(watch.evidence, learned, at)
    budget = state.policy.budget
    spent = None if budget is None else watch.spoiled.verdict(budget.failed, learned)
    return found if spent is None else (*found, spent)


def unreached(
    state: ReleaseState, missed: Mapping[str, int], shares: Mapping[str, float]
) -> tuple[Verdict, ...]:
    """Return where no client reaches the canary; ``shares`` are the canary's by segment, in 0..1."""
    found = (
        reach(state.to_version, segment, shares.get(segment, 0), calls)
        for segment, calls in sorted(missed.items())
    )
    return tuple(filter(None, found))


def heard(watch: Watch, said: Sequence[Verdict]) -> Watch:
    """Return the watch after its verdicts were read."""
    evidence = fold_of.heard(watch.evidence, said)
    return watch if evidence is watch.evidence else replace(watch, evidence=evidence)


def results(watch: Watch, state: ReleaseState) -> tuple[Result, ...]:
    """Return what the A/B test has shown until now; nothing outside of it."""
    if not state.testing or state.stage is not Stage.JUDGE:
        return ()
    sure = replace(watch.evidence, accounts=watch.trial.sure)
    return tuple(better.result(test, sure) for test in tests(state.policy))


def suspicion(readings: tuple[Verdict, ...]) -> float:
    """Return the largest rollback e-value of any condition, scaled so that 100 rolls back."""
    heard = (verdict for verdict in readings if verdict.decisive and not verdict.quiet)
    return max([1.0, *(100 * verdict.loudness for verdict in heard)])


def _counts(observation: Observation, state: ReleaseState) -> dict[Place, list[int]]:
    """Return the counts of an interval."""
    found: dict[Place, list[int]] = {}
    column = {state.from_version: 2, state.to_version: 0}
    for cell, tally in observation.cells:
        at = column.get(cell.version)
        if at is not None:
            row = found.setdefault((cell.proxy, cell.segment), [0, 0, 0, 0])
            row[at] += tally.requests
            row[at + 1] += tally.errors
    return found


def _plus(a: Counts, b: Sequence[int]) -> Counts:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])
