"""How an A/B test ends: what it has shown, in words, and what keeps it from a promotion. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import timedelta

from controlplane.evidence.better import Result
from controlplane.evidence.verdict import Outcome
from controlplane.policy.values import format_duration
from controlplane.release.failure import unsafe
from controlplane.release.seen import Decision, Seen
from controlplane.release.state import Action, ReleaseState
from controlplane.release.way_back import way_back

ASKED = "test-over"  # code of a test that is over and waits for a person
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


def missing(seen: Seen) -> str:
    """Return what a promotion lacks: a metric that is shown better, and every condition passed; or ''."""
    return "; ".join(_missing(seen))


def _missing(seen: Seen) -> Iterator[str]:
    if not any(result.decides and result.said == "better" for result in seen.results):
        yield "no metric is shown to be better"
    if seen.suspicion >= SUSPICIOUS:
        yield f"suspicious: e-value of harm {seen.suspicion:.3g}"
    yield from (v.reason for v in seen.verdicts if v.decisive and v.outcome is not Outcome.PASS)


def summary(results: Iterable[Result]) -> str:
    """Return what a test has shown of each metric."""
    return "; ".join(f"{r.metric}: {describe(r)}" for r in results) or "no business metric was tested"


def describe(result: Result) -> str:
    """Return what a test has shown of one metric: what it comes to, and the numbers."""
    change = "" if result.change is None else f" ({result.change:+.2%}, {between(result)})"
    seen = f"canary {result.canary:.4g} of {result.canary_n:.0f}"
    seen += f", baseline {result.baseline:.4g} of {result.baseline_n:.0f}"
    e_values = f"e-values {result.better:.3g} for better, {result.worse:.3g} for worse"
    observed = "" if result.decides else ", only observed"
    return f"{result.said}{change}, {seen}, {e_values}, {result.threshold:g} would show it{observed}"


def between(result: Result) -> str:
    """Return between which bounds the difference lies, in words."""
    bounds = ((result.low, "above"), (result.high, "below"))
    known = [f"{word} {bound:+.1%}" for bound, word in bounds if bound is not None]
    return "surely " + " and ".join(known) if known else "nothing is sure of it"


def figures(results: Iterable[Result]) -> list[dict[str, object]]:
    """Return what a test has shown as plain values."""
    return [asdict(result) | {"said": result.said, "change": result.change} for result in results]


def lasted(judged: timedelta) -> str:
    """Return how long a test has run, in whole seconds."""
    return format_duration(judged - judged % timedelta(seconds=1))
