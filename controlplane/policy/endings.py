"""What a policy that ends may say: its last step is an A/B test, after which everyone returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from controlplane.policy.documents import Condition, Ends, Step
from controlplane.policy.problems import Finding, Path
from controlplane.policy.values import PPM, format_duration, parse_duration

_ONCE = "or 1 if each metric counts a user once or is pushed with `users`"


def check(
    raw: Mapping[str, object],
    ends: Ends,
    steps: Sequence[Step | None],
    conditions: Sequence[Condition | None],
) -> Iterator[Finding]:
    """Report what does not go with an end.

    Args:
        raw: The policy as it is written.
        ends: Its end.
        steps: None for one that could not be read.
        conditions: The policy's, the same.
    """
    yield from _steps(steps)
    if "point_of_no_return" in raw:
        text = "comes after the guard, but at the end of a test (`ends`) everyone may return"
        yield Finding(("point_of_no_return",), f"{text}; not allowed in one", at_key=True)
    if ends.do == "report" and "guard" in raw:
        text = "watches what everyone gets, but `ends.do: report` gives nobody more"
        yield Finding(("guard",), f"{text}; allowed with ask and promote_if_better", at_key=True)
    late = raw.get("deadline")
    if isinstance(late, str) and _no_longer(late, ends):
        text = f"is over before the test, which lasts {format_duration(ends.after)} (`ends.after`)"
        yield Finding(("deadline",), text)
    if None not in conditions and None not in steps:
        yield from _tested(raw, ends, steps, conditions)


def _steps(steps: Sequence[Step | None]) -> Iterator[Finding]:
    for index, step in enumerate(steps):
        if step and step.irreversible:
            text = "is irreversible, but at the end of a test (`ends`) everyone returns"
            yield Finding(("steps", index, "irreversible"), text)
    last = steps[-1] if steps else None
    if last is None:
        return
    path: Path = ("steps", len(steps) - 1)
    for field, given in (("for", bool(last.for_)), ("within", last.within is not None)):
        if given:
            yield Finding((*path, field), "the last step is the test, and lasts as long as `ends.after` says")
    if PPM in (last.share, last.everyone):
        text = "the last step is the test; with 100% nobody is left on the old version to compare with"
        yield Finding((*path, "share" if last.everyone is None else "everyone"), text)


def _no_longer(late: str, ends: Ends) -> bool:
    try:
        return parse_duration(late) <= ends.after
    except ValueError:
        return False  # which is reported elsewhere


def _tested(
    raw: Mapping[str, object],
    ends: Ends,
    steps: Sequence[Step | None],
    conditions: Sequence[Condition | None],
) -> Iterator[Finding]:
    last = steps[-1].conditions if steps and steps[-1] else ()
    decisive = any(condition and condition.metric for condition in (*conditions, *last))
    if ends.do == "promote_if_better" and not decisive:
        text = "promote_if_better needs a business metric that can be better: a condition `metric`,"
        yield Finding(("ends", "do"), f"{text} of the policy or of the last step")
    elif ends.per_user is None and (decisive or raw.get("observe")):
        text = "takes every event for another user's: say how many one user makes (`ends.per_user`),"
        yield Finding(("ends",), f"{text} {_ONCE}", "warning", at_key=True)
