"""How an A/B test ends: what it has shown, in words, and what keeps it from a promotion. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import timedelta

from controlplane.evidence.better import Result
from controlplane.evidence.verdict import Outcome
from controlplane.policy.values import format_duration
from controlplane.release import overdue
from controlplane.release.failure import unsafe
from controlplane.release.seen import Decision, Seen
from controlplane.release.state import NOTHING, Action, ReleaseState
from controlplane.release.way_back import way_back

ASKED = "test-over"  # code of a test that is over and waits for a person
UNPROVED = "better-unproved"  # of one that is over and better, and waits for what a promotion still lacks
SUSPICIOUS = 10.0  # e-value of harm from which nothing advances, whatever else has passed


def return_all(state: ReleaseState, seen: Seen, code: str, reason: str) -> Decision:
    """Return the end at which everyone returns, or an alarm if the old version has nowhere to take them."""
    if way_back(state, seen.where).nowhere:
        return unsafe(state, seen, reason)
    return Decision(Action.END, code, reason)


def ask(state: ReleaseState, reason: str) -> Decision:
    """Return the question to a person; until the answer the split stays and is judged on."""
    name = state.name
    how = f"`turnout advance {name}` gives it to everyone, under guard; `turnout promote {name}` at once;"
    return Decision(None, ASKED, f"{reason}; {how} `turnout end {name}` returns everyone", counts=True)


def without_data(seen: Seen) -> Decision | None:
    """Return the hold of a test while no data comes for a condition; None if it does.

    What is only observed counts where nothing else is tested.
    """
    decides = any(result.decides for result in seen.results)
    return overdue.without_data(v for v in seen.verdicts if v.decisive or not decides)


def promotion(state: ReleaseState, seen: Seen, over: str, waited: timedelta) -> Decision | None:
    """Return what becomes of a test that is over instead of a promotion; None if nothing is in its way.

    Where no metric is better everyone returns. What is better waits for data that does not come as long as
    the policy says, and for what else has not passed for a time.

    Args:
        state: The release.
        seen: What was seen.
        over: What the test has shown, in words.
        waited: Time of judging since it was over.
    """
    rule = state.policy.when_unsure
    better = any(result.decides and result.said == "better" for result in seen.results)
    held, lacks = without_data(seen), "; ".join(_unproved(seen))
    if better and held is not None:
        silent = state.held_for + seen.elapsed if state.hold == overdue.NO_DATA else NOTHING
        if rule.do != "rollback" or silent < rule.after:
            return held
    elif better and lacks and waited < rule.after:
        until = f"waits for up to {format_duration(rule.after)} (when_unsure): {lacks}"
        return Decision(None, UNPROVED, f"{until}; {over}", counts=True)
    missing = lacks if better else "; ".join(filter(None, ("no metric is shown to be better", lacks)))
    return return_all(state, seen, "not-better", f"not promoted, {missing}; {over}") if missing else None


def _unproved(seen: Seen) -> Iterator[str]:
    if seen.suspicion >= SUSPICIOUS:
        yield f"suspicious: e-value of harm {seen.suspicion:.3g}"
    yield from (v.reason for v in seen.verdicts if v.decisive and v.outcome is not Outcome.PASS)


def summary(results: Iterable[Result]) -> str:
    """Return what a test has shown of each metric."""
    return "; ".join(f"{r.metric}: {describe(r)}" for r in results) or "no business metric was tested"


def describe(result: Result) -> str:
    """Return what a test has shown of one metric: what it comes to, and the numbers."""
    observed = "" if result.decides else ", only observed"
    if not (result.canary_n or result.baseline_n):
        return f"nothing counted yet{observed}"
    change = "" if result.change is None else f" ({result.change:+.2%}, {between(result)})"
    seen = f"canary {result.canary:.4g} of {result.canary_n:.0f}"
    seen += f", baseline {result.baseline:.4g} of {result.baseline_n:.0f}"
    e_values = f"e-values {result.better:.3g} for better, {result.worse:.3g} for worse"
    return f"{result.said}{change}, {seen}, {e_values}, {result.threshold:g} would show it{observed}"


def between(result: Result) -> str:
    """Return between which bounds the difference lies, in words."""
    bounds = ((result.low, "above"), (result.high, "below"))
    known = [f"{word} {bound:+.1%}" for bound, word in bounds if bound is not None]
    return "surely " + " and ".join(known) if known else "too early for bounds"


def figures(results: Iterable[Result]) -> list[dict[str, object]]:
    """Return what a test has shown as plain values."""
    return [asdict(result) | {"said": result.said, "change": result.change} for result in results]


def lasted(judged: timedelta) -> str:
    """Return how long a test has run, in whole seconds."""
    return format_duration(judged - judged % timedelta(seconds=1))
