"""What an emergency policy may say, and what an order under one must.

An emergency passes windows and blackouts, and may replace a version that is broken. So its limits count only
when the canary is worse than the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from controlplane.policy.documents import Condition, Document, Policy, Release
from controlplane.policy.problems import Finding, Path

# Limits that are counted on both versions.
COMPARED = ("latency", "success_rate", "error_rate", "grpc_status", "retries")
NEEDS_REASON = "is an emergency, so the order needs a reason"


def check(raw: Mapping[str, object], conditions: Sequence[tuple[Path, Condition]]) -> Iterator[Finding]:
    """Report what an emergency policy cannot be held to, and what it passes all the same."""
    if raw.get("emergency") is not True:
        return
    for path, condition in conditions:
        if condition.absolute and condition.given not in COMPARED:
            text = f"{condition.title} limits the canary alone; limits of an emergency count only when it is"
            known = ", ".join(COMPARED)
            yield Finding(path, f"{text} worse than the baseline: {known}, and comparisons")
    if raw.get("point_of_no_return") is not None:
        text = "an emergency passes the calendar and is judged against a version that may be broken;"
        text += " what cannot be undone is left to an ordinary release"
        yield Finding(("point_of_no_return",), text, at_key=True)
    if raw.get("windows"):
        yield Finding(("windows",), "an emergency passes them", "warning")
    guard = raw.get("guard")
    if isinstance(guard, dict) and "keep_endpoints" in guard:
        text = "too few endpoints of the old version are shown, but an emergency goes on without them"
        yield Finding(("guard", "keep_endpoints"), text, "warning")


def findings(document: Document, find: Callable[[str, str], Document | None]) -> Iterator[Finding]:
    """Report an order under an emergency policy that does not say why."""
    if not isinstance(document, Release) or document.reason:
        return
    policy = find("Policy", document.policy)
    if isinstance(policy, Policy) and policy.emergency:
        yield Finding(("policy",), f"{policy.name!r} {NEEDS_REASON}: add `reason:`")
