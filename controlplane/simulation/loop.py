"""One release on simulated traffic: the same turn as the running loop's, driven by drawn observations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Literal, Protocol

from controlplane.evidence.better import Said
from controlplane.evidence.learned import Learned, learn
from controlplane.evidence.observation import Observation
from controlplane.evidence.verdict import Outcome as Answer
from controlplane.policy.documents import EVERYONE
from controlplane.policy.pinned import PinnedPolicy
from controlplane.release.ending import ASKED
from controlplane.release.eras import era
from controlplane.release.outcomes import Failure
from controlplane.release.seen import Moment, Propagation
from controlplane.release.state import Action, Phase, ReleaseState
from controlplane.release.traffic import BUCKETS, splits
from controlplane.release.turn import Progress, Turn, turn
from controlplane.simulation.faults import Fault
from controlplane.simulation.traffic import CANARY, STABLE, START, Harm, Model, Traffic

SEGMENT = 0.1  # of the requests, for a segment of which the model says nothing

Outcome = Literal["promoted", "rolled back", "ended", "undecided"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a simulated release ended.

    Attributes:
        outcome: What became of it.
        seconds: From its start to the decision that ended it.
        whole: Seconds until the last step began, None if it never did.
        harm: What faults did to the canary's requests until then.
        where: Step in which it ended.
        metric: What decided a rollback, or what held it last.
        reason: The last decision's.
        guarding: Seconds until the guard began, None if it never did.
        failure: What kind of failure the last decision followed; '' if none.
        reached: By segment, seconds until the canary had requests of it.
        shown: What an A/B test has shown at last: by metric what it is said to be, and since which second.
    """

    outcome: Outcome
    seconds: float
    whole: float | None
    harm: Harm
    where: str
    metric: str
    reason: str
    guarding: float | None = None
    failure: str = ""
    reached: Mapping[str, float] = field(default_factory=dict)
    shown: Mapping[str, tuple[Said, float]] = field(default_factory=dict)

    @property
    def by_clock(self) -> bool:
        """True if it was rolled back for want of time or of proof, not because of what was seen."""
        return self.outcome == "rolled back" and self.failure in (Failure.LATE, Failure.UNSURE)


@dataclass(frozen=True, slots=True)
class Instant:
    """One interval of a simulated release: when it ended, what was seen and done, the harm until then.

    ``shares`` are those of the interval itself, by segment.
    """

    second: float
    observation: Observation
    turn: Turn
    harm: Harm
    learned: Learned
    shares: Mapping[str, tuple[str, float]]


def segments(policy: PinnedPolicy, shares: Mapping[str, float]) -> dict[str, float]:
    """Return the share of requests of each segment of a policy; what ``shares`` does not say is a tenth."""
    named = {s.segment for s in policy.steps if s.match is not None and s.match.cohort is None}
    found = {name: shares.get(name, SEGMENT) for name in sorted(named)}
    whole = sum(found.values())
    return {name: share * min(1.0, 0.9 / whole) for name, share in found.items()}


def order(policy: PinnedPolicy) -> ReleaseState:
    """Return a release that is about to start; the calendar is open, and nobody is asked."""
    steps = tuple(step.model_copy(update={"approve": None}) for step in policy.steps)
    alone = {"steps": steps, "windows": (), "hooks": (), "point_of_no_return": None}
    policy = policy.model_copy(update=alone)
    return ReleaseState(
        name="simulated",
        attempt=1,
        service="shop",
        from_version=STABLE,
        to_version=CANARY,
        policy=policy,
        salt="simulated",
        created_at=START,
    )


class Source(Protocol):
    """Where intervals come from: `Traffic` draws them, a bench takes them from a recording."""

    second: float

    def step(
        self, shares: Mapping[str, tuple[str, float]], guarding: float | None = None, era: str = ""
    ) -> tuple[Observation, Harm]:
        """Return the next interval, as `Traffic` does."""
        ...


def past(traffic: Source) -> Learned:
    """Return what the time before the release taught."""
    learned = Learned()
    while traffic.second < 0:
        learned = learn(learned, traffic.step({})[0], STABLE)
    return learned


@dataclass(frozen=True, slots=True)
class Eve:
    """A service just before a release starts: its traffic, and what the past taught."""

    traffic: Traffic
    learned: Learned


def eve(model: Model, seed: int) -> Eve:
    """Return a service after the model's history, in which nothing is wrong."""
    traffic = Traffic(model, (), seed)
    return Eve(traffic, past(traffic))


def before(policy: PinnedPolicy, model: Model, seed: int) -> Eve:
    """Return the eve of a release by a policy: its segments have requests, and so have the model's."""
    # A segment that a fault names has requests of its own even if no step is for it.
    groups = dict(model.segments) | segments(policy, model.segments)
    return eve(replace(model, segments=groups), seed)


def watch(
    policy: PinnedPolicy, model: Model, faults: tuple[Fault, ...], seed: int | Eve
) -> Iterator[Instant]:
    """Yield a release's intervals until it ends, or the model's longest time is over.

    Args:
        policy: By which it is released.
        model: The service.
        faults: What is wrong from the start on; each says when.
        seed: Of the history and all that follows; or the eve of a service with the segments of the model and
            the policy, whose history is not drawn again.
    """
    found = seed if isinstance(seed, Eve) else before(policy, model, seed)
    traffic = found.traffic.beset(faults)
    yield from follow(policy, traffic, model.names, model.interval, model.longest, found.learned)


def follow(
    policy: PinnedPolicy,
    traffic: Source,
    proxies: tuple[str, ...],
    interval: float,
    longest: float,
    learned: Learned | None = None,
) -> Iterator[Instant]:
    """Yield a release's intervals, of so many seconds, until it ends, or the longest time is over.

    Without ``learned`` the traffic's past is gone through first.
    """
    learned = past(traffic) if learned is None else learned
    moment = partial(
        Moment,
        settle=timedelta(seconds=2 * interval),
        propagation=Propagation(live=proxies, acked=proxies),
        endpoints={STABLE: ("10.0.0.1:80",), CANARY: ("10.0.0.2:80",)},
        stable=STABLE,
    )
    progress = turn(Progress(order(policy)), learned, moment(START, timedelta(0))).after
    guarding, whole = None, Harm()
    while traffic.second < longest:
        state = progress.state
        shares = _shares(state)
        observation, harm = traffic.step(shares, guarding, era(state if state.active else None))
        whole += harm
        elapsed = observation.end - observation.start
        took = turn(progress, learned, moment(observation.end, elapsed, observation))
        yield Instant(traffic.second, observation, took, whole, learned, shares)
        learned, progress = learn(learned, observation, STABLE), took.after
        if took.decision.action is Action.GUARD:
            guarding = traffic.second
        if progress.state.ended or _failed(took) or took.decision.code == ASKED:
            return


def release(policy: PinnedPolicy, model: Model, faults: tuple[Fault, ...], seed: int | Eve) -> Ended:
    """Run one release to its end; the arguments are those of `watch`."""
    return end(policy, watch(policy, model, faults, seed))


def end(policy: PinnedPolicy, instants: Iterator[Instant]) -> Ended:
    """Return how a release ended."""
    whole = guarding = last = None
    final = len(policy.steps) - 1
    named = (*segments(policy, {}), EVERYONE)
    reached: dict[str, float] = {}
    shown: dict[str, tuple[Said, float]] = {}
    for instant in instants:
        begin = last.second if last else 0.0
        if last is None or instant.shares != last.shares:
            for segment in _reached(named, instant.shares):
                reached.setdefault(segment, begin)
        last = instant
        state = last.turn.after.state
        if whole is None and state.phase is Phase.PROGRESSING and state.step == final:
            whole = last.second
        if last.turn.decision.action is Action.GUARD:
            guarding = last.second
        for result in state.result:
            before = shown.get(result.metric)
            if before is None or before[0] != result.said:
                shown[result.metric] = result.said, last.second
    assert last is not None, "the model's longest time is less than an interval"
    state, decision = last.turn.after.state, last.turn.decision
    where = policy.steps[state.step].name if state.step <= final else "guard"
    failure = str(decision.failure or "")
    return Ended(
        _outcome(last.turn),
        last.second,
        whole,
        last.harm,
        where,
        _cause(last.turn),
        decision.reason,
        guarding,
        failure,
        reached,
        shown,
    )


def _reached(named: tuple[str, ...], shares: Mapping[str, tuple[str, float]]) -> Iterator[str]:
    """Yield the segments of which the canary has requests; one that no step is for is part of everyone."""
    usual = shares.get(EVERYONE, (EVERYONE, 0.0))
    return (segment for segment in named if shares.get(segment, usual)[1])


def _outcome(last: Turn) -> Outcome:
    """Return what became of a release; where an A/B test asks a person, it is over."""
    phase = last.after.state.phase
    if phase is Phase.PROMOTED:
        return "promoted"
    if phase is Phase.ENDED or last.decision.code == ASKED:
        return "ended"
    return "rolled back" if _failed(last) else "undecided"


def _cause(took: Turn) -> str:
    """Return what decided, or holds; where a failure freezes or holds it is the condition that failed."""
    code = took.decision.code
    failed = (f"{v.metric}/{v.segment}" for v in took.after.verdicts if v.outcome is Answer.FAIL)
    return next(failed, code) if code == "failed" else code


def _failed(took: Turn) -> bool:
    """Return whether a condition failed, whatever the policy does then: roll back, freeze or hold."""
    return took.after.state.phase is Phase.ROLLING_BACK or took.decision.code == "failed"


def _shares(state: ReleaseState) -> Mapping[str, tuple[str, float]]:
    if state.phase not in (Phase.PROGRESSING, Phase.GUARDING):
        return {}
    return {
        split.segment: (split.segment, split.buckets / BUCKETS) for split in splits(state.policy, state.step)
    } or {EVERYONE: (EVERYONE, 0.0)}
