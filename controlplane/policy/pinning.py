"""A policy and the segments that it names, as they are now, made into the form that a release keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from controlplane.policy.capabilities import Feature, Kind, refusal
from controlplane.policy.documents import (
    EVERYONE,
    HOLD_OUT,
    AgainstBaseline,
    AgainstClientErrors,
    AgainstLatency,
    Condition,
    Match,
    Policy,
    Segment,
    Service,
    Step,
)
from controlplane.policy.pinned import PinnedMirror, PinnedPolicy, PinnedSegment, PinnedStep

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


MEASURED = {"client_errors": Feature.CLIENT_ERRORS, "latency": Feature.LATENCY}


def pin(
    policy: Policy, catalog: Segments, kinds: Iterable[Kind] = (), service: Service | None = None
) -> PinnedPolicy:
    """Resolve the names in a policy; an inline segment is named after its step.

    Args:
        policy: The document.
        catalog: Where its segments are.
        kinds: Of the listeners that take part. What they do not report is not judged by itself.
        service: Whose hold-out is taken; one in place is called ``hold-out``.

    Raises:
        KeyError: If a segment is not in the catalog; an accepted policy never does that.
    """
    written = {condition.title: condition for condition in policy.conditions}
    missing = {field for field, feature in MEASURED.items() if any(refusal(kind, feature) for kind in kinds)}
    defaults = [
        written.pop(condition.title, condition)
        for condition in BY_ITSELF
        if condition.title in written or condition.field not in missing
    ]
    return PinnedPolicy(
        name=policy.name,
        steps=tuple(_steps(policy.steps, catalog)),
        conditions=tuple(c for c in (*defaults, *written.values()) if not c.off),
        when_unsure=policy.when_unsure,
        budget=policy.budget,
        on_failure=policy.on_failure,
        guard=policy.guard,
        deadline=policy.deadline,
        on_timeout=policy.on_timeout,
        on_failed_dependency=policy.on_failed_dependency,
        windows=policy.windows,
        hooks=policy.hooks,
        notify=policy.notify,
        hold_out=tuple(_held_out(service, catalog)),
    )


def _held_out(service: Service | None, catalog: Segments) -> Iterator[PinnedSegment]:
    match service.hold_out if service is not None else None:
        case None:
            return
        case str(name):
            yield PinnedSegment(name=name, match=catalog.segment(name).match)
        case found:
            yield PinnedSegment(name=HOLD_OUT, match=found)


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
        gates |= {"on_failure": step.on_failure, "mirror": _mirror(step, catalog)}
        excluded = (PinnedSegment(name=name, match=catalog.segment(name).match) for name in step.exclude)
        gates["exclude"] = tuple(excluded)
        yield PinnedStep.model_validate(own | gates)


def _mirror(step: Step, catalog: Segments) -> PinnedMirror | None:
    if step.mirror is None:
        return None
    chosen = step.mirror.segment
    match = catalog.segment(chosen).match if isinstance(chosen, str) else chosen
    return PinnedMirror(match=match, share=step.mirror.share)
