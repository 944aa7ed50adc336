"""What a decision says of conditions: each by its name and in few words, the figures of one alone. Pure.

All figures are in the record's numbers, condition by condition.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.evidence.verdict import Verdict


def lacks(unproved: Sequence[Verdict]) -> str:
    """Return what keeps a step from its proof; one condition alone is told with its figures."""
    if len(unproved) == 1:
        return unproved[0].named(unproved[0].told)
    return "; ".join(verdict.named(verdict.brief or verdict.reason) for verdict in unproved)


def causes(unproved: Sequence[Verdict]) -> str:
    """Return the same without anything that changes with each interval."""
    return ", ".join(f"{v.metric} ({v.cause})" if v.cause else v.metric for v in unproved)


def proof(verdicts: Sequence[Verdict]) -> str:
    """Return what has passed; what a policy only observes has not."""
    judged = [verdict for verdict in verdicts if verdict.decisive]
    if not judged:
        return "no conditions"
    if len(judged) == 1:
        return judged[0].named(judged[0].told)
    return f"all {len(judged)} conditions passed ({', '.join(verdict.metric for verdict in judged)})"


def loudest(verdicts: Sequence[Verdict]) -> str:
    """Return the condition that says most of a fault."""
    return max((v for v in verdicts if v.decisive), key=lambda verdict: verdict.loudness).metric
