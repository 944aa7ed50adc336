"""A release whose old version is not well itself: comparing with it tells nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.evidence.verdict import Verdict
from controlplane.release.seen import Decision

BASELINE = "baseline"


def baseline(verdicts: Iterable[Verdict]) -> Decision | None:
    """Return the hold while one of these conditions cannot be judged for what the baseline is; else None."""
    found = [verdict for verdict in verdicts if verdict.decisive and verdict.baseline]
    if not found:
        return None
    what = "; ".join(verdict.named(verdict.baseline) for verdict in found)
    reason = f"comparing tells nothing while the old version is not well itself: {what}"
    return Decision(None, BASELINE, reason, counts=True, cause=", ".join(v.metric for v in found))
