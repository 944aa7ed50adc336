"""A policy and the segments that it names, as they are now, made into the form that a release keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from controlplane.policy.capabilities import Feature, Kind, refusal
from controlplane.policy.documents import (
    EVERYONE,
    HOLD_OUT,
    AgainstBaseline,
    AgainstClientErrors,
    AgainstLatency,
    BusinessMetric,
    Condition,
    Conduct,
    Match,
    Policy,
    Segment,
    Service,
    Step,
)
from controlplane.policy.pinned import PinnedMetric, PinnedMirror, PinnedPolicy, PinnedSegment, PinnedStep

# What is judged unless it is switched off, in the order in which verdicts are shown.
BY_ITSELF = (
    Condition(errors=AgainstBaseline()),
    Condition(client_errors=AgainstClientErrors()),
    Condition(latency=AgainstLatency()),
)


class Segments(Protocol):
    """Where segments are found by name."""

    def segment(self, name: str) -> Segment:
        """Return the segment.

        Raises:
            KeyError: If there is none of that name.
        """


MEASURED = {
    "client_errors": Feature.CLIENT_ERRORS,
    "ejections": Feature.CLUSTER_STATS,
    "grpc_status": Feature.GRPC_STATUS,
    "latency": Feature.LATENCY,
    "retries": Feature.CLUSTER_STATS,
    "stat": Feature.CLUSTER_STATS,
}


def metrics(policy: Policy) -> tuple[str, ...]:
    """Return the names of the business metrics that a policy judges or shows."""
    every = (*policy.conditions, *(c for step in policy.steps for c in step.conditions))
    judged = (condition.metric.name for condition in every if condition.metric)
    return tuple(dict.fromkeys((*judged, *policy.observe)))


def only(
    policy: Policy, told: Callable[[Condition], bool], shown: Callable[[str], bool]
) -> tuple[Policy, tuple[str, ...]]:
    """Return a policy without what nothing is told of, and the titles of what was left out.

    Args:
        policy: The document.
        told: Whether anything is told of a condition.
        shown: Whether anything is told of a business metric that is observed.
    """

    def kept(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
        return tuple(filter(told, conditions))

    every = (*policy.conditions, *(c for step in policy.steps for c in step.conditions))
    unseen = (f"metric {name}" for name in policy.observe if not shown(name))
    left_out = (*(c.title for c in every if not told(c)), *unseen)
    steps = tuple(step.model_copy(update={"conditions": kept(step.conditions)}) for step in policy.steps)
    observe = tuple(filter(shown, policy.observe))
    update = {"conditions": kept(policy.conditions), "steps": steps, "observe": observe}
    return policy.model_copy(update=update), tuple(dict.fromkeys(left_out))


def pin(
    policy: Policy,
    catalog: Segments,
    kinds: Iterable[Kind] = (),
    service: Service | None = None,
    earlier: PinnedPolicy | None = None,
) -> PinnedPolicy:
    """Resolve the names in a policy; an inline segment is named after its step.

    Args:
        policy: The document.
        catalog: Where its segments are.
        kinds: Of the listeners that take part. What they do not report is not judged by itself.
        service: Whose hold-out and metrics are taken; one in place is called ``hold-out``.
        earlier: What the release had until now: its hold-out, users and metrics stay as they were.

    Raises:
        KeyError: If a segment or a metric is not there; an accepted policy never does that.
    """
    known = {} if service is None else {name: _metric(name, service.metrics) for name in service.metrics}
    if earlier is not None:
        known |= {metric.name: metric for metric in earlier.metrics}
    written = {condition.title: condition for condition in policy.conditions}
    missing = {field for field, feature in MEASURED.items() if any(refusal(kind, feature) for kind in kinds)}
    defaults = [
        written.pop(condition.title, condition)
        for condition in BY_ITSELF
        if condition.title in written or condition.given not in missing
    ]
    return PinnedPolicy(
        name=policy.name,
        steps=tuple(_steps(policy.steps, catalog)),
        conditions=tuple(c for c in (*defaults, *written.values()) if not c.off),
        metrics=tuple(known[name] for name in metrics(policy)),
        hold_out=tuple(_held_out(service, catalog)) if earlier is None else earlier.hold_out,
        user=(service.user if service is not None else None) if earlier is None else earlier.user,
        **{field: getattr(policy, field) for field in Conduct.model_fields},
    )


def _held_out(service: Service | None, catalog: Segments) -> Iterator[PinnedSegment]:
    match service.hold_out if service is not None else None:
        case None:
            return
        case str(name):
            yield PinnedSegment(name=name, match=catalog.segment(name).match)
        case found:
            yield PinnedSegment(name=HOLD_OUT, match=found)


def _metric(name: str, metrics: Mapping[str, BusinessMetric]) -> PinnedMetric:
    metric = metrics[name]
    per = metrics.get(metric.per or "")
    return PinnedMetric(
        name=name,
        better=metric.better,
        sum=metric.sum,
        pushed=metric.header is None,
        per=metric.per,
        per_pushed=per is not None and per.header is None,
        every=metric.rhythm,
    )


def _steps(steps: tuple[Step, ...], catalog: Segments) -> Iterator[PinnedStep]:
    for step in steps:
        match, segment, share = None, EVERYONE, step.everyone
        if isinstance(step.segment, Match):
            match, segment, share = step.segment, step.name, step.share
        elif step.segment is not None:
            match, segment, share = catalog.segment(step.segment).match, step.segment, step.share
        own = {"name": step.name, "segment": segment, "match": match, "share": share, "for": step.for_}
        gates: dict[str, object] = {
            "within": step.within,
            "approve": step.approve,
            "conditions": step.conditions,
        }
        gates |= {"on_failure": step.on_failure, "irreversible": step.irreversible}
        gates["mirror"] = _mirror(step, catalog)
        excluded = (PinnedSegment(name=name, match=catalog.segment(name).match) for name in step.exclude)
        gates["exclude"] = tuple(excluded)
        yield PinnedStep.model_validate(own | gates)


def _mirror(step: Step, catalog: Segments) -> PinnedMirror | None:
    if step.mirror is None:
        return None
    chosen = step.mirror.segment
    match = catalog.segment(chosen).match if isinstance(chosen, str) else chosen
    return PinnedMirror(match=match, share=step.mirror.share)
