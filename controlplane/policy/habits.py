"""Business metrics that compare users of a whole segment with all others, who have other habits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile

from controlplane.policy.documents import Condition, Match, Policy, Segment, Step
from controlplane.policy.problems import Finding, Path
from controlplane.policy.segments import cohorts
from controlplane.policy.values import PPM


def warnings(policy: Policy, segment: Callable[[str], Segment]) -> Iterator[Finding]:
    """Report comparisons of business metrics at steps in which no users are divided, each once."""
    steps = list(takewhile(lambda placed: _whole(placed[1], segment), enumerate(policy.steps)))
    if not steps:
        return
    names = ", ".join(repr(step.name) for _, step in steps)
    yield from _compared(("conditions",), policy.conditions, f"at {names}")
    for index, step in steps:
        yield from _compared(("steps", index, "conditions"), step.conditions, "here")


def _whole(step: Step, segment: Callable[[str], Segment]) -> bool:
    """Return whether a step gives a segment to the new version as a whole: a cohort is a share of others."""
    if step.segment is None or step.share != PPM:
        return False
    match = step.segment if isinstance(step.segment, Match) else segment(step.segment).match
    return not cohorts(match)


def _compared(path: Path, conditions: tuple[Condition, ...], where: str) -> Iterator[Finding]:
    for index, condition in enumerate(conditions):
        metric = condition.metric
        if metric is not None and metric.compared:
            text = f"compares {metric.name!r} {where} with other users, for nobody of the segment has the old"
            text += " version: where they buy less by habit a good release goes back; write it as a condition"
            yield Finding((*path, index, "metric"), f"{text} of the later steps", "warning")
