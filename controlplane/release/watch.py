"""What a release has gathered so far, folded interval by interval, and how it reads now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache, reduce

from controlplane.evidence import better
from controlplane.evidence import evidence as fold_of
from controlplane.evidence.account import ALPHA, Limits, Metric
from controlplane.evidence.account import Stage as Setting
from controlplane.evidence.better import MetricTest, Result
from controlplane.evidence.blocks import cut
from controlplane.evidence.cluster_stats import AtMost, Retries
from controlplane.evidence.conversions import Conversions, LeastShare, MostShare
from controlplane.evidence.crowd import Crowd
from controlplane.evidence.evidence import Evidence
from controlplane.evidence.flow import Flow
from controlplane.evidence.learned import Learned
from controlplane.evidence.measures import Measured
from controlplane.evidence.observation import Observation
from controlplane.evidence.reach import missed, reach
from controlplane.evidence.reading import rough
from controlplane.evidence.scalars import ScalarLimit, Scalars
from controlplane.evidence.shares import Lately
from controlplane.evidence.split import EXPECTED, LATE, Agreement, check_split
from controlplane.evidence.spoiled import Spoiled
from controlplane.evidence.statuses import Statuses
from controlplane.evidence.sums import Sums
from controlplane.evidence.verdict import Verdict
from controlplane.policy.documents import (
    EVERYONE,
    FOLLOWED,
    UNCOMPARED,
    AgainstBaseline,
    AgainstClientErrors,
    AgainstLatency,
    Condition,
    GrpcStatus,
    Latency,
    MetricCondition,
    PrometheusCondition,
)
from controlplane.policy.grpc_codes import CODES, MEASURE
from controlplane.policy.latency import edge_index
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.stats import EJECTIONS
from controlplane.policy.values import PPM
from controlplane.release import arrivals
from controlplane.release import trial as trials
from controlplane.release.arrivals import ALL, Place, step_split
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
    trial: Trial = field(default_factory=Trial)

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
            "trial": self.trial.to_json(),
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
        found = Evidence.from_json(evidence)
        trial = data.get("trial")
        assert isinstance(trial, Mapping | None)
        return cls(
            found,
            {(proxy, segment): tuple(counts) for proxy, segment, *counts in step},
            {proxy: tuple(counts) for proxy, *counts in whole},
            dict(missed),
            Spoiled.from_json(data.get("spoiled", ())),
            {(proxy, segment): Lately.from_json(lately) for proxy, segment, *lately in split},
            Flow.from_json(flow),
            # What a test had gathered before anything vouched for it stays.
            Trial.from_json(trial) if trial else Trial(found.accounts),
        )


def tests(policy: PinnedPolicy) -> tuple[MetricTest, ...]:
    """Return what an A/B test looks at: every business metric; those with a condition decide."""
    if policy.ends is None:
        return ()
    judged = (*policy.conditions, *policy.steps[-1].conditions)
    decisive = {condition.metric.name for condition in judged if condition.metric}
    return better.metric_tests(policy.metrics, decisive, policy.ends.per_user or 1)


def limits(policy: PinnedPolicy, step: int | None = None) -> Limits:
    """Return what the statistics need of a policy, at one of its steps or in the guard (None)."""
    found = _limits(policy.conditions, policy)
    observed = tuple(m for name in policy.observe for m in _business(MetricCondition(name=name), policy))
    found = replace(found, observed=observed, emergency=policy.emergency)
    if step is None or step >= len(policy.steps):
        return found
    if step + 1 == len(policy.steps):
        found = replace(found, tests=tuple(half for test in tests(policy) for half in test.parts))
    if not policy.steps[step].conditions:
        return found
    own = policy.steps[step]
    return replace(found, step=(own.name, _limits(own.conditions, policy)))


def _limits(conditions: tuple[Condition, ...], policy: PinnedPolicy) -> Limits:
    by = {condition.field: condition for condition in conditions}
    against = [c.latency for c in conditions if isinstance(c.latency, AgainstLatency)]
    percentiles = sorted(c.latency.limit for c in conditions if isinstance(c.latency, Latency))
    edges = [(percentile / 100, edge_index(limit)) for percentile, limit in percentiles]
    least = by["success_rate"].success_rate if "success_rate" in by else None
    most = by["error_rate"].error_rate if "error_rate" in by else None
    volume = by["requests"].requests if "requests" in by else None
    return Limits(
        errors_margin=_margin(by["errors"].errors) if "errors" in by else None,
        client_errors_margin=_margin(by["client_errors"].client_errors) if "client_errors" in by else None,
        latency_margin=_margin(against[0]) if against else None,
        latency=tuple((quantile, edge) for quantile, edge in edges if edge is not None),
        success_rate=least.at_least / PPM if least else None,
        error_rate=most.at_most / PPM if most else None,
        requests=volume.at_least if volume else None,
        grace=tuple((name, c.grace) for c in conditions if c.grace for name in _metrics(c, policy)),
        added=tuple(metric for c in conditions for metric in _added(c, policy)),
    )


def _margin(against: AgainstBaseline | AgainstClientErrors | AgainstLatency | str | None) -> float | None:
    return None if against is None or isinstance(against, str) else against.margin / PPM


def _metrics(condition: Condition, policy: PinnedPolicy) -> tuple[str, ...]:
    """Return the metrics of a condition: slowness is looked for in the body and in the tail."""
    if condition.title == "latency":
        return ("latency", "latency tail")
    return tuple(metric.name for metric in _added(condition, policy)) or (condition.title,)


def _added(condition: Condition, policy: PinnedPolicy) -> tuple[Metric, ...]:
    """Return what a condition beside the default rule is judged by."""
    title = condition.title
    if condition.retries:
        return (Retries(title, condition.retries.at_most / PPM),)
    if condition.ejections:
        return (AtMost(title, EJECTIONS, condition.ejections.at_most),)
    if condition.stat:
        return (AtMost(title, condition.stat.name, condition.stat.at_most),)
    if condition.grpc_status:
        return _statuses(title, condition.grpc_status)
    if condition.metric:
        return _business(condition.metric, policy)
    return _prometheus(title, condition.prometheus) if condition.prometheus else ()


def _statuses(title: str, wanted: GrpcStatus) -> tuple[Metric, ...]:
    counts = frozenset(f"{MEASURE}{CODES[code]}" for code in wanted.codes)
    found = (Statuses(title, counts, wanted.margin / PPM),) if wanted.compared else ()
    if wanted.at_most is None:
        return found
    name = f"{title} limit" if found else title
    return (*found, Statuses(name, counts, limit=wanted.at_most / PPM))


def _business(condition: MetricCondition, policy: PinnedPolicy) -> tuple[Metric, ...]:
    found = next(metric for metric in policy.metrics if metric.name == condition.name)
    title, more = f"metric {found.name}", found.better == "more"
    every = found.every.total_seconds()
    measured = Measured(title, found.name, found.per or "", more, found.pushed, every, found.per_pushed)
    margin = condition.margin / PPM if condition.compared else None
    compared: tuple[Metric, ...] = ()
    if margin is not None:
        test = Sums(title, measured, margin) if found.sum else Conversions(title, measured, margin, 1 / ALPHA)
        compared = (test,)
    limits = (("at least", condition.at_least), ("at most", condition.at_most))
    given = [(which, limit) for which, limit in limits if limit is not None]
    kept = (
        _limit(
            f"{title} {which if len(given) > 1 else 'limit'}",
            replace(measured, more=which == "at least"),
            limit,
            found.sum,
        )
        for which, limit in given
    )
    return (*compared, *kept)


def _limit(name: str, measured: Measured, limit: float, sums: bool) -> Metric:
    """Return what keeps a business metric to a limit: the least if more is better, else the most."""
    if sums:
        return Sums(name, measured, None, limit)
    return (LeastShare if measured.more else MostShare)(name, measured, limit)


def _prometheus(title: str, wanted: PrometheusCondition) -> tuple[Metric, ...]:
    every, found = wanted.every.total_seconds(), []
    if wanted.against:
        apart = max(every, wanted.reach.total_seconds())
        more = wanted.better == "more"
        found.append(Scalars(title, wanted.name, wanted.margin / PPM, more, every, apart))
    limit = wanted.at_least if wanted.at_most is None else wanted.at_most
    if limit is None:
        return tuple(found)
    name = f"{title} limit" if wanted.against else title
    return (*found, ScalarLimit(name, wanted.name, limit, wanted.at_most is not None, every))


def exposure(policy: PinnedPolicy, step: int) -> float:
    """Return the share of requests, in 0..1, that the canary gets at a step.

    How many requests a segment has is not known before its routes exist; a tenth of all is assumed.
    """
    groups = splits(policy, step)
    return max(groups[-1].buckets / BUCKETS, *(SEGMENT * s.buckets / BUCKETS for s in groups))


def setting(state: ReleaseState, *, counting: bool) -> Setting:
    """Return where a release stands, as the statistics need it."""
    at = _at_step(Same(state.policy), state.step)
    return Setting(
        canary=state.to_version,
        stable=state.from_version,
        limits=at.limits,
        elapsed=state.running,
        next_share=at.next_share,
        counting=counting,
        full_segments=at.full_segments,
        judged=state.judged,
        since=state.elapsed,
    )


def whole(state: ReleaseState) -> bool:
    """Return whether nobody is left on the baseline."""
    return EVERYONE in _at_step(Same(state.policy), state.step).full_segments


@dataclass(frozen=True, slots=True)
class _AtStep:
    """What a policy comes to at a step, as in :class:`Setting`."""

    limits: Limits
    next_share: float
    full_segments: frozenset[str]


@lru_cache(maxsize=1024)
def _at_step(same: Same, step: int) -> _AtStep:
    full = frozenset(split.segment for split in splits(same.policy, step) if split.buckets == BUCKETS)
    return _AtStep(limits(same.policy, step), exposure(same.policy, step + 1), full)


def fold(
    watch: Watch,
    learned: Learned,
    observation: Observation,
    state: ReleaseState,
    *,
    settled: bool,
    counting: bool,
) -> Watch:
    """Return the watch after one more interval.

    Args:
        watch: Until then.
        learned: What the baseline's past taught before this interval.
        observation: The interval.
        state: The release as it was during the interval.
        settled: Whether every proxy had the present step in the whole interval.
        counting: Whether the interval counts for promotion.
    """
    step, whole = dict(watch.step), dict(watch.whole)
    for place, counts in _counts(observation, state).items():
        if settled:
            step[place] = _plus(step.get(place, NO_COUNTS), counts)
        if place[1] not in UNCOMPARED:
            whole[place[0]] = _plus(whole.get(place[0], NO_COUNTS), counts)
    split = arrivals.of_late(watch.split, observation, state) if settled else watch.split
    at = setting(state, counting=counting)
    blocks = cut(observation, at.canary, at.stable, at.full_segments)
    evidence = fold_of.fold(watch.evidence, learned, observation, at, blocks)
    spoiled = watch.spoiled.plus(learned, blocks) if state.policy.budget else watch.spoiled
    trial = watch.trial
    if tests := at.limits.tests:
        seconds = (observation.end - observation.start).total_seconds()
        fresh = {p: (c[0], c[2]) for p, c in _counts(observation, state).items() if counting}
        trial = trial if state.judged else Trial()
        trial, evidence = trials.gathered(trial, (watch.evidence, evidence), tests, fresh, seconds)
    found = Watch(evidence, step, whole, watch.missed, spoiled, split, watch.flow, trial)
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
    return replace(watch, missed=missed(watch.missed, observation, versions, acked))


def next_step(watch: Watch) -> Watch:
    """Return the watch at the begin of a step: what spoke for promotion belonged to the step before."""
    evidence = fold_of.next_step(watch.evidence)
    return replace(watch, evidence=evidence, step={}, missed={}, split={}, flow=Flow(), trial=Trial())


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


def vouched(watch: Watch, state: ReleaseState, crowd: Crowd, *, wrong: bool) -> Watch:
    """Return the watch with an A/B test as far as the split vouches for it; ``wrong`` if that is not so."""
    if not (tests := setting(state, counting=False).limits.tests):
        return watch
    shares = {split.segment: split.buckets / BUCKETS for split in splits(state.policy, state.step)}
    divided = {segment: share for segment, share in shares.items() if 0 < share < 1}
    check = Check(wrong, step_split(state).segment, crowd)
    trial, evidence = trials.vouched(watch.trial, watch.evidence, tests, divided, check)
    return replace(watch, trial=trial, evidence=evidence)


def verdicts(watch: Watch, learned: Learned, state: ReleaseState) -> tuple[Verdict, ...]:
    """Return how each condition reads now, the budget, and where no client reaches the canary."""
    at = setting(state, counting=state.stage is Stage.JUDGE)
    shares = {split.segment: split.buckets / BUCKETS for split in splits(state.policy, state.step)}
    unreached = (
        reach(state.to_version, segment, shares.get(segment, 0), calls)
        for segment, calls in sorted(watch.missed.items())
    )
    budget = state.policy.budget
    spent = None if budget is None else watch.spoiled.verdict(budget.failed, learned)
    return (*fold_of.verdicts(watch.evidence, learned, at), *filter(None, (spent, *unreached)))


def heard(watch: Watch, said: Sequence[Verdict]) -> Watch:
    """Return the watch after its verdicts were read."""
    return replace(watch, evidence=fold_of.heard(watch.evidence, said))


def results(watch: Watch, state: ReleaseState) -> tuple[Result, ...]:
    """Return what the A/B test has shown until now; nothing outside of it."""
    if not state.testing or state.stage is not Stage.JUDGE:
        return ()
    sure = replace(watch.evidence, accounts=watch.trial.sure)
    return tuple(better.result(test, sure) for test in tests(state.policy))


def suspicion(readings: tuple[Verdict, ...]) -> float:
    """Return the largest rollback e-value of any condition, scaled so that 100 rolls back."""
    scaled = [1.0]
    for verdict in readings:
        numbers = dict(verdict.numbers)
        if verdict.decisive and numbers.get("threshold"):
            scaled.append(100 * numbers.get("e_value", 0.0) / numbers["threshold"])
    return max(scaled)


@dataclass(frozen=True, slots=True)
class SplitSeen:
    """How the observed split compares with the one asked for, in the present step.

    ``problem`` names a proxy and segment where it disagrees, else ''. ``agrees`` once enough was seen in the
    step's own segment; until then ``missing`` says what is.
    """

    problem: str = ""
    agrees: bool = False
    missing: str = ""


def split_seen(watch: Watch, state: ReleaseState, crowd: Crowd) -> SplitSeen:
    """Compare per proxy and segment, and over all proxies for the segment of the step.

    ``crowd`` says how far heavy users may move a share.

    Source: DESIGN "How a release runs", verify.
    """
    in_force = {split.segment: split for split in splits(state.policy, state.step)}
    whole = sum(row[0] + row[2] for (_, segment), row in watch.step.items() if segment not in UNCOMPARED)
    for (proxy, segment), (all_canary, _, all_baseline, _) in sorted(watch.step.items()):
        lately = watch.split.get((proxy, segment))
        if segment in in_force and lately is not None:
            crowding = crowd.within((all_canary + all_baseline) / whole)
            share = in_force[segment].buckets / BUCKETS
            canary, baseline, *older = lately.row
            verdict = check_split(share, canary, baseline, older=(older[0], older[1]), crowding=crowding)
            if verdict.agreement is Agreement.DISAGREES:
                return SplitSeen(
                    f"{proxy} acknowledged but does not split as asked, segment {segment}: {verdict.reason}"
                )
    split = step_split(state)
    rows = [counts for (_, segment), counts in watch.step.items() if segment == split.segment]
    requests = sum(row[0] + row[2] for row in rows)
    crowding = crowd.within(requests / max(whole, 1))
    canary, baseline, *older = watch.split.get((ALL, split.segment), Lately()).row
    share = split.buckets / BUCKETS
    verdict = check_split(share, canary, baseline, LATE * len(rows), crowding, (older[0], older[1]))
    match verdict.agreement:
        case Agreement.AGREES:
            return SplitSeen(agrees=True)
        case Agreement.DISAGREES:
            return SplitSeen(f"segment {split.segment}: {verdict.reason}")
        case Agreement.TOO_FEW:
            due = _until(share, canary + baseline, state.elapsed)
            return SplitSeen(missing=f"segment {split.segment}: {verdict.reason}{due}{_elsewhere(watch)}")


def _until(share: float, requests: int, since: timedelta) -> str:
    """Say how long it takes until a split can be verified, if requests go on to come as they have."""
    more = EXPECTED / share - requests if share else 0.0
    if more <= 0 or not requests or not since:
        return ""
    return f", {rough(more * since.total_seconds() / requests)} more at the traffic of this step"


def _elsewhere(watch: Watch) -> str:
    """Say how many requests of the step another release decided, and that they count there."""
    rows = (counts for (_, segment), counts in watch.step.items() if segment == FOLLOWED)
    requests = sum(canary + baseline for canary, _, baseline, _ in rows)
    return f"; {requests} more follow another release of the group, and count there" if requests else ""


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
