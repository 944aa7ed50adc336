"""Times of a policy that contradict each other: what could never pass, be promoted or act."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from controlplane.policy.documents import Condition, Ends, Guard, Policy, Step, WhenUnsure
from controlplane.policy.problems import Finding, Path
from controlplane.policy.values import format_duration, parse_duration

SOON = timedelta(minutes=1)  # in which a step is hardly ever proved
Placed = tuple[Path, Condition]  # where a condition stands: one of the policy, or of a step


def check(
    raw: Mapping[str, object],
    steps: Sequence[Step | None],
    conditions: Sequence[Placed],
    guard: Guard | None,
    ends: Ends | None,
) -> Iterator[Finding]:
    """Report the times that contradict each other.

    Args:
        raw: The policy as it is written.
        steps: None for one that could not be read.
        conditions: Those that could be read.
        guard: Its guard, None if it could not be read.
        ends: Its end, if it is a test.
    """
    yield from _graces(steps, conditions)
    late = _duration(raw.get("deadline"))
    if late is not None and guard is not None and None not in steps:
        yield from _deadline(late, [step for step in steps if step], conditions, guard, ends)
    yield from _unsure(raw.get("when_unsure"), late, steps)


def _graces(steps: Sequence[Step | None], conditions: Sequence[Placed]) -> Iterator[Finding]:
    timed = [(at, step.name, step.within) for at, step in enumerate(steps) if step and step.within]
    for path, condition in conditions:
        early = ((name, within) for at, name, within in timed if _holds(path, at))
        found = next(((name, within) for name, within in early if condition.grace >= within), None)
        if found is not None and not condition.off:
            name, within = found
            text = f"is not over before step {name!r} must have passed (`within: {format_duration(within)}`)"
            yield Finding((*path, "grace"), f"{text}; it never could")


def _holds(path: Path, step: int | None) -> bool:
    """Return whether the condition at a place holds at a step, or in the guard (None)."""
    return path[0] == "conditions" or path[1] == step


def _deadline(
    late: timedelta,
    steps: Sequence[Step],
    conditions: Sequence[Placed],
    guard: Guard,
    ends: Ends | None,
) -> Iterator[Finding]:
    if ends is not None and late <= ends.after:
        return  # which is reported elsewhere
    total = least(steps, conditions, guard, ends)
    what = "steps and its test" if ends is not None else "steps"
    if ends is None or ends.do != "report":
        what += " and its guard"
    if late <= total:
        text = f"is over before anything could be promoted: its {what} take {format_duration(total)} at least"
        yield Finding(("deadline",), f"{text} (`for`, `grace`)")


def least(steps: Sequence[Step], conditions: Sequence[Placed], guard: Guard, ends: Ends | None) -> timedelta:
    """Return the least time that a release takes to its end, by what is judged for how long."""

    def judged(step: int | None, for_: timedelta) -> timedelta:
        return max(for_, *(c.grace for path, c in conditions if _holds(path, step)), timedelta(0))

    total = sum((judged(index, step.for_) for index, step in enumerate(steps)), timedelta(0))
    if ends is not None:
        total += ends.after
    return total if ends is not None and ends.do == "report" else total + judged(None, guard.for_)


def shortest(policy: Policy) -> timedelta:
    """Return the same of a policy."""
    placed: list[Placed] = [(("conditions", at), c) for at, c in enumerate(policy.conditions)]
    for number, step in enumerate(policy.steps):
        placed += [(("steps", number, "conditions", at), c) for at, c in enumerate(step.conditions)]
    return least(policy.steps, placed, policy.guard, policy.ends)


def _unsure(raw: object, late: timedelta | None, steps: Sequence[Step | None]) -> Iterator[Finding]:
    if not isinstance(raw, Mapping) or raw.get("do") not in ("advance", "rollback"):
        return
    after = _duration(raw.get("after", format_duration(WhenUnsure().after)))
    path: Path = ("when_unsure", "after") if "after" in raw else ("when_unsure",)
    if after is None:
        return
    if after < SOON:
        what = "steps go on" if raw["do"] == "advance" else "good releases go back"
        text = f"is over before there can be proof: {what} without any; proof takes minutes, 20m is usual"
        yield Finding(path, text, "warning" if after else "error")
        return
    if late is not None and late <= after:
        text = f"is not over before the deadline, {format_duration(late)}, so it never acts"
        yield Finding(path, text, "warning")
        return
    early = [step.name for step in steps if step and step.within is not None and step.within <= after]
    if early:
        text = f"is not over before {', '.join(map(repr, early))} must have passed (`within`)"
        yield Finding(path, f"{text}, so it does not act there", "warning")


def _duration(value: object) -> timedelta | None:
    try:
        return parse_duration(value) if isinstance(value, str) else None
    except ValueError:
        return None  # which is reported elsewhere
