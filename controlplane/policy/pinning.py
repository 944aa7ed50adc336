"""A policy and the segments that it names, as they are now, made into the form that a release keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from controlplane.policy.documents import EVERYONE, AgainstBaseline, Match, Policy, Segment, Step
from controlplane.policy.pinned import PinnedPolicy, PinnedStep


class Segments(Protocol):
    """Where segments are found by name."""

    def segment(self, name: str) -> Segment:
        """Return the segment.

        Raises:
            KeyError: If there is none of that name.
        """


def pin(policy: Policy, catalog: Segments) -> PinnedPolicy:
    """Resolve the names in a policy; an inline segment is named after its step.

    Raises:
        KeyError: If a segment is not in the catalog; an accepted policy never does that.
    """
    conditions = policy.conditions
    errors = next((c.errors for c in conditions if c.errors), AgainstBaseline())
    return PinnedPolicy(
        name=policy.name,
        steps=tuple(_steps(policy.steps, catalog)),
        errors=None if errors == "off" else errors,
        latency=tuple(sorted(c.latency.limit for c in conditions if c.latency)),
        success_rate=next((c.success_rate.at_least for c in conditions if c.success_rate), None),
        when_unsure=policy.when_unsure,
        on_failure=policy.on_failure,
        guard=policy.guard,
        deadline=policy.deadline,
        on_timeout=policy.on_timeout,
        windows=policy.windows,
    )


def _steps(steps: tuple[Step, ...], catalog: Segments) -> Iterator[PinnedStep]:
    for step in steps:
        match, segment, share = None, EVERYONE, step.everyone
        if isinstance(step.segment, Match):
            match, segment, share = step.segment, step.name, step.share
        elif step.segment is not None:
            match, segment, share = catalog.segment(step.segment).match, step.segment, step.share
        own = {"name": step.name, "segment": segment, "match": match, "share": share, "for": step.for_}
        gates = {"within": step.within, "approve": step.approve}
        yield PinnedStep.model_validate(own | gates)
