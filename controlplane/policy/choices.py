"""What documents say of segments that they name: things that only the segment itself can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from controlplane.policy.cohorts import MAX_CONDITIONS, conditions
from controlplane.policy.documents import Document, Match, Policy, Segment, Service
from controlplane.policy.problems import Finding
from controlplane.policy.segments import cohorts

Find = Callable[[str, str], Document | None]  # by kind and name


def findings(document: Document, find: Find) -> Iterator[Finding]:
    """Yield the errors of a service or a policy; a segment that is not there is reported elsewhere."""
    match document:
        case Service():
            held = _match(document.hold_out, find)
            if held is not None and cohorts(held):
                text = (
                    "has a cohort; its users differ from release to release, so it holds nobody out for good:"
                    " name users by a header, a cookie or a list, or give the policy a `guard.hold_back`"
                )
                yield Finding(("hold_out",), text)
        case Policy():
            named = [choice for step in document.steps for choice in (step.segment, *step.exclude)]
            found = [match for choice in named if (match := _match(choice, find)) is not None]
            if (count := conditions(found)) > MAX_CONDITIONS:
                text = (
                    f"have {count} different conditions beside cohorts; at most {MAX_CONDITIONS} are allowed,"
                    " because each combination of them is a group of its own"
                )
                yield Finding(("steps",), text)
        case _:
            return


def _match(choice: str | Match | None, find: Find) -> Match | None:
    if not isinstance(choice, str):
        return choice
    segment = find("Segment", choice)
    return segment.match if isinstance(segment, Segment) else None
