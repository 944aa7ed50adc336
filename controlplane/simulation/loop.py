"""One release on simulated traffic: the same turn as the running loop's, driven by drawn observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Literal, Protocol

from controlplane.evidence.better import Said
from controlplane.evidence.learned import Learned, learn_all
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
from controlplane.release.turn import Progress, Turn, Turning, together, turn, turning
from controlplane.release.watch import whole
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
    return _pasts((traffic,))[0]


def _pasts(services: Sequence[Source]) -> list[Learned]:
    """Return what the same time of several services taught, which is learned at once."""
    learned = [Learned() for _ in services]
    while services[0].second < 0:
        seen = [traffic.step({})[0] for traffic in services]
        learned = learn_all(learned, seen, [STABLE] * len(services), [False] * len(services))
    return learned


@dataclass(frozen=True, slots=True)
class Eve:
    """A service just before a release starts: its traffic, and what the past taught."""

    traffic: Traffic
    learned: Learned


def eve(model: Model, seed: int) -> Eve:
    """Return a service after the model's history, in which nothing is wrong."""
    return _eves(model, (seed,))[0]


def _eves(model: Model, seeds: Sequence[int]) -> list[Eve]:
    services = [Traffic(model, (), seed) for seed in seeds]
    return [Eve(*each) for each in zip(services, _pasts(services), strict=True)]


def before(policy: PinnedPolicy, model: Model, seeds: Sequence[int]) -> list[Eve]:
    """Return the eves of releases by a policy: its segments have requests, and so have the model's."""
    # A segment that a fault names has requests of its own even if no step is for it.
    groups = dict(model.segments) | segments(policy, model.segments)
    return _eves(replace(model, segments=groups), seeds)


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
    for _, instant in along((course(policy, model, faults, seed),)):
        yield instant


def course(policy: PinnedPolicy, model: Model, faults: tuple[Fault, ...], seed: int | Eve) -> Course:
    """Return a release that begins; the arguments are those of `watch`."""
    found = seed if isinstance(seed, Eve) else before(policy, model, (seed,))[0]
    traffic = found.traffic.beset(faults)
    return Course(policy, traffic, found.learned, model.names, model.interval, model.longest)


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
    for _, instant in along((Course(policy, traffic, learned, proxies, interval, longest),)):
        yield instant


class Course:
    """A release on its way: each interval is drawn, then what the turn came to is taken.

    Attributes:
        learned: What the past taught until now.
        observation: The interval that was drawn last.
        over: Whether it has ended, or the longest time is over.
    """

    observation: Observation

    def __init__(
        self,
        policy: PinnedPolicy,
        traffic: Source,
        learned: Learned,
        proxies: tuple[str, ...],
        interval: float,
        longest: float,
    ) -> None:
        """Begin a release; what is not said here is as in `follow`."""
        self.learned, self._traffic, self._longest = learned, traffic, longest
        self._moment = partial(
            Moment,
            settle=timedelta(seconds=2 * interval),
            propagation=Propagation(live=proxies, acked=proxies),
            endpoints={STABLE: ("10.0.0.1:80",), CANARY: ("10.0.0.2:80",)},
            stable=STABLE,
        )
        first = self._moment(START, timedelta(0))
        self._progress = turn(Progress(order(policy)), learned, first).after
        self._guarding: float | None = None
        self._shares: Mapping[str, tuple[str, float]] = {}
        self._harm = Harm()
        self.over = traffic.second >= longest

    @property
    def left(self) -> bool:
        """Whether nobody was left on the stable version in the interval that was drawn last."""
        return whole(self._progress.state)

    def draw(self) -> Turning:
        """Draw the next interval, and return the turn that it leads to."""
        state = self._progress.state
        self._shares = _shares(state)
        place = era(state if state.active else None)
        self.observation, harm = self._traffic.step(self._shares, self._guarding, place)
        self._harm += harm
        elapsed = self.observation.end - self.observation.start
        seen = self._moment(self.observation.end, elapsed, self.observation)
        return turning(self._progress, self.learned, seen)

    def take(self, took: Turn, learned: Learned) -> Instant:
        """Return the interval, with what its turn came to; ``learned`` is what it taught."""
        second = self._traffic.second
        instant = Instant(second, self.observation, took, self._harm, self.learned, self._shares)
        self.learned, self._progress = learned, took.after
        if took.decision.action is Action.GUARD:
            self._guarding = second
        ended = took.after.state.ended or _failed(took) or took.decision.code == ASKED
        self.over = ended or second >= self._longest
        return instant


def along(courses: Sequence[Course]) -> Iterator[tuple[int, Instant]]:
    """Yield the intervals of releases beside each other, with the place of each.

    Each is what it is alone; but what is worked out for many at once costs little more than for one.
    """
    while going := [(at, course) for at, course in enumerate(courses) if not course.over]:
        took = together([course.draw() for _, course in going])
        pasts, seen = [each.learned for _, each in going], [each.observation for _, each in going]
        left = [course.left for _, course in going]
        taught = learn_all(pasts, seen, [STABLE] * len(going), left)
        for (at, course), each, learned in zip(going, took, taught, strict=True):
            yield at, course.take(each, learned)


def release(policy: PinnedPolicy, model: Model, faults: tuple[Fault, ...], seed: int | Eve) -> Ended:
    """Run one release to its end; the arguments are those of `watch`."""
    return releases(policy, model, ((seed, faults),))[0]


def releases(
    policy: PinnedPolicy, model: Model, wanted: Iterable[tuple[int | Eve, tuple[Fault, ...]]]
) -> list[Ended]:
    """Run releases to their ends, beside each other; of each its seed or eve, and its faults."""
    courses = [course(policy, model, faults, seed) for seed, faults in wanted]
    records = [_Record(policy) for _ in courses]
    for at, instant in along(courses):
        records[at].add(instant)
    return [record.ended() for record in records]


def end(policy: PinnedPolicy, instants: Iterator[Instant]) -> Ended:
    """Return how a release ended."""
    record = _Record(policy)
    for instant in instants:
        record.add(instant)
    return record.ended()


class _Record:
    """What is told of a release in the end, gathered interval by interval."""

    def __init__(self, policy: PinnedPolicy) -> None:
        self._policy = policy
        self._named = (*segments(policy, {}), EVERYONE)
        self._last: Instant | None = None
        self._whole: float | None = None
        self._guarding: float | None = None
        self._reached: dict[str, float] = {}
        self._shown: dict[str, tuple[Said, float]] = {}

    def add(self, instant: Instant) -> None:
        """Take in an interval."""
        last, self._last = self._last, instant
        if last is None or instant.shares != last.shares:
            for segment in _reached(self._named, instant.shares):
                self._reached.setdefault(segment, last.second if last else 0.0)
        state = instant.turn.after.state
        if self._whole is None and state.phase is Phase.PROGRESSING and state.step == self._final:
            self._whole = instant.second
        if instant.turn.decision.action is Action.GUARD:
            self._guarding = instant.second
        for result in state.result:
            before = self._shown.get(result.metric)
            if before is None or before[0] != result.said:
                self._shown[result.metric] = result.said, instant.second

    @property
    def _final(self) -> int:
        return len(self._policy.steps) - 1

    def ended(self) -> Ended:
        """Return how the release ended."""
        last = self._last
        assert last is not None, "the model's longest time is less than an interval"
        state, decision = last.turn.after.state, last.turn.decision
        return Ended(
            _outcome(last.turn),
            last.second,
            self._whole,
            last.harm,
            self._policy.steps[state.step].name if state.step <= self._final else "guard",
            _cause(last.turn),
            decision.reason,
            self._guarding,
            str(decision.failure or ""),
            self._reached,
            self._shown,
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
