"""The evidence of a release: a fold over observations, from which verdicts are read.

The same observations give the same evidence, folded in one go or from a stored copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

from controlplane.evidence.account import ALPHA, EMPTY, Account, Beside, Interval, Limits, Metric, Stage, keep
from controlplane.evidence.blocks import cut
from controlplane.evidence.ceiling import Ceiling
from controlplane.evidence.compared import Asked
from controlplane.evidence.comparison import Comparison
from controlplane.evidence.learned import Learned
from controlplane.evidence.measures import CLOCK
from controlplane.evidence.observation import Observation
from controlplane.evidence.reading import timed
from controlplane.evidence.scalars import unjudged
from controlplane.evidence.slowdown import Slowdown
from controlplane.evidence.slowed import PARTS
from controlplane.evidence.table import CLIENT_ERRORS, ERRORS, SLOWER
from controlplane.evidence.verdict import Outcome, Said, Verdict
from controlplane.evidence.volume import Volume
from controlplane.policy.documents import EVERYONE
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.values import format_duration


class _Make(Protocol):
    def __call__(self, *, threshold: float) -> Metric: ...


def _comparisons(limits: Limits) -> tuple[Metric, ...]:
    """Return what is compared with the baseline; together they share the chance ALPHA of a false alarm."""
    weighed: list[tuple[float, _Make]] = []
    margins = (ERRORS, limits.errors_margin), (CLIENT_ERRORS, limits.client_errors_margin)
    compared = tuple(Asked(counter, margin) for counter, margin in margins if margin is not None)
    for each in compared:
        name, weight = ("errors", 4) if each.counter == ERRORS else ("client errors", 1)
        weighed.append((weight, partial(Comparison, name, *each, beside=compared)))
    if (margin := limits.latency_margin) is not None:
        weighed += ((0.5, partial(Slowdown, part.name, margin, part=part)) for part in PARTS)
    whole = sum(weight for weight, _ in weighed)
    return tuple(make(threshold=whole / weight / ALPHA) for weight, make in weighed)


def _latencies(limits: Limits) -> tuple[Ceiling, ...]:
    return tuple(
        Ceiling(
            f"latency p{quantile * 100:g}",
            SLOWER + edge,
            1 - quantile,
            1 / ALPHA,
            f"took longer than {EDGES_MS[edge]} ms",
        )
        for quantile, edge in limits.latency
    )


def _shares(limits: Limits) -> tuple[Ceiling, ...]:
    """Return the limits on the share of requests that fail."""
    least, most = limits.success_rate, limits.error_rate
    allowed = (("success rate", None if least is None else 1 - least), ("error rate", most))
    return tuple(
        Ceiling(name, ERRORS, max(share, 1e-6), 1 / ALPHA, "failed")
        for name, share in allowed
        if share is not None
    )


def _ceilings(limits: Limits) -> tuple[Metric, ...]:
    found = (*_latencies(limits), *_shares(limits))
    return tuple(replace(ceiling, beside=tuple(each.limit for each in found)) for ceiling in found)


def _volume(limits: Limits) -> tuple[Metric, ...]:
    return () if limits.requests is None else (Volume("requests", limits.requests),)


METRICS: tuple[Callable[[Limits], tuple[Metric, ...]], ...] = (_comparisons, _ceilings, _volume)


@lru_cache(maxsize=1024)
def metrics(limits: Limits) -> tuple[Metric, ...]:
    """Return what a release with these limits is judged by; the step's own metrics bear its name."""
    found = (*(metric for kind in METRICS for metric in kind(limits)), *limits.added)
    found += tuple(replace(metric, name=f"{metric.name} (observed)") for metric in limits.observed)  # type: ignore[type-var]
    if limits.step is None:
        return found
    step, own = limits.step
    return (*found, *(replace(metric, name=f"{metric.name} at {step}") for metric in metrics(own)))  # type: ignore[type-var]


@lru_cache(maxsize=1024)
def graces(limits: Limits) -> Mapping[str, timedelta]:
    """Return by metric how long a step is there before the metric is judged."""
    if limits.step is None:
        return dict(limits.grace)
    step, own = limits.step
    return dict(limits.grace) | {f"{name} at {step}": grace for name, grace in own.grace}


class _Judged(NamedTuple):
    """A metric, its grace, and whether it is only observed."""

    metric: Metric
    grace: timedelta | None
    observed: bool


@lru_cache(maxsize=1024)
def _judged(limits: Limits) -> tuple[_Judged, ...]:
    grace, mark = graces(limits), " (observed)"
    return tuple(_Judged(each, grace.get(each.name), each.name.endswith(mark)) for each in metrics(limits))


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a release has gathered. The default is a release that has seen nothing.

    Attributes:
        minute: Since it began, at the last fold.
        accounts: By metric.
        begun: Minute of the release in which it began, with the release or anew; faults are looked for from
            each minute after that on.
    """

    minute: int = 0
    accounts: Mapping[str, Account] = field(default_factory=dict)
    begun: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values; nothing is lost."""
        accounts = {name: self.accounts[name].to_json() for name in sorted(self.accounts)}
        return {"minute": self.minute, "accounts": accounts, "begun": self.begun}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evidence:
        """Return the evidence of :meth:`to_json`."""
        accounts = {name: Account.from_json(a) for name, a in data["accounts"].items()}
        return cls(data["minute"], accounts, data.get("begun", 0))


def fold(evidence: Evidence, learned: Learned, observation: Observation, stage: Stage) -> Evidence:
    """Return the evidence after one more interval; the arguments are those of `ready`, and the evidence."""
    interval = ready(evidence, learned, observation, stage)
    work_out((interval,))
    return folded(evidence, interval)


def ready(evidence: Evidence, learned: Learned, observation: Observation, stage: Stage) -> Interval:
    """Return an interval that is ready to be folded.

    Args:
        evidence: Until then.
        learned: From what is past: the observation itself is learned after it was folded.
        observation: The interval. A silent or late proxy, or one whose counters do not add up, keeps it from
            counting for promotion.
        stage: Where the release stood in the interval.
    """
    minute = int(stage.elapsed.total_seconds() // 60)
    begun = evidence.begun if evidence.accounts else minute
    return Interval(
        blocks=cut(observation, stage.canary, stage.stable, stage.full_segments),
        learned=learned,
        stage=stage,
        seconds=(observation.end - observation.start).total_seconds(),
        minute=max(evidence.minute, minute - begun),
        counting=stage.counting and not (observation.silent or observation.late or observation.partial),
        observation=observation,
        begun=begun,
    )


def work_out(intervals: Sequence[Interval]) -> None:
    """Work out what is asked of intervals, in tables for all of them; what each comes to stays the same.

    One that asks two questions of a kind, as for a step with limits of its own, is in a second table for the
    second.
    """
    asking: dict[tuple[Any, int], list[tuple[int, Any]]] = {}
    for at, interval in enumerate(intervals):
        for find, number, key in _asked(interval.stage.limits):
            asking.setdefault((find, number), []).append((at, key))
    tables: dict[tuple[int, ...], Beside] = {}
    for (find, _), asked in asking.items():
        places, keys = zip(*asked, strict=True)
        if places not in tables:
            tables[places] = Beside([intervals[at] for at in places])
        keep(tables[places], find, keys)


class _Question(NamedTuple):
    """What metrics ask of an interval: how that is found, which of its kind it is, from 0 on, and its key."""

    find: Any
    number: int
    key: Any


@lru_cache(maxsize=1024)
def _asked(limits: Limits) -> tuple[_Question, ...]:
    """Return what the metrics of a release with these limits ask of an interval, each once."""
    asks = (getattr(metric, "asks", None) for metric in metrics(limits))
    times, found = Counter[Any](), []
    for find, key in dict.fromkeys(ask for ask in asks if ask):
        found.append(_Question(find, times[find], key))
        times[find] += 1
    return tuple(found)


def folded(evidence: Evidence, interval: Interval) -> Evidence:
    """Return the evidence after an interval that is ready."""
    stage, now = interval.stage, interval.minute
    accounts, grace = {}, graces(stage.limits)
    for metric in (*metrics(stage.limits), *stage.limits.tests):
        account = evidence.accounts.get(metric.name, EMPTY)
        if now > evidence.minute:
            # A fault may begin at any minute, also in one in which no window closes.
            account = account.restarted(evidence.minute, now)
        # In its grace a metric is not judged: neither for the canary nor against it.
        wait = grace.get(metric.name)
        judged = wait is None or stage.since >= wait
        folded = metric.fold(account, interval) if judged else unjudged(account, interval.seconds)
        accounts[metric.name] = folded
    return Evidence(now, accounts, interval.begun)


def next_step(evidence: Evidence) -> Evidence:
    """Return the evidence for the next step: promotion starts anew, what speaks for a rollback stays."""
    return replace(evidence, accounts={name: a.next_step() for name, a in evidence.accounts.items()})


def heard(evidence: Evidence, said: Iterable[Verdict]) -> Evidence:
    """Return the evidence after it was read: where it says nothing of a fault, what shows one begins anew."""
    calm = {}
    for verdict in said:
        if not verdict.quiet and (verdict.e_value is None or verdict.e_value > 1):
            continue
        account = evidence.accounts.get(verdict.metric)
        # What lies in a window that is not full is not in the evidence yet.
        if account and account.rise and CLOCK not in account.state:
            calm[verdict.metric] = account.calm()
    return Evidence(evidence.minute, {**evidence.accounts, **calm}, evidence.begun) if calm else evidence


def _graced(verdict: Verdict, grace: timedelta) -> Said:
    """Return what a verdict says, with what its counts leave out."""
    without = f"{verdict.metric} leaves out the first {format_duration(grace)} of each step, its grace"
    note = f"{verdict.note}; {without}" if verdict.note else without
    return replace(verdict.said, note=note)


def verdicts(evidence: Evidence, learned: Learned, stage: Stage) -> tuple[Verdict, ...]:
    """Return what each metric says, after each fold: evidence of a fault may fall again."""
    found = []
    for metric, wait, observed in _judged(stage.limits):
        account = evidence.accounts.get(metric.name, EMPTY)
        if wait is not None and stage.since < wait:
            left = (wait - stage.since).total_seconds()
            reason = f"{metric.name}: in grace for another {left:.0f} s"
            found.append(Verdict(metric.name, EVERYONE, Outcome.NOT_YET, Said(reason), lacking=True))
        else:
            verdict = timed(metric.verdict(account, learned, stage), account)
            if wait:
                verdict = verdict.saying(partial(_graced, verdict, wait))
            found.append(replace(verdict, decisive=False) if observed else verdict)
    return tuple(found)
