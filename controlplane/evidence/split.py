"""Whether the split that Envoy counts is the one that was asked for.

Users are hashed but requests are counted, and a few heavy users move the share far: only what is plainly
wrong disagrees. Source: docs/decision-rule.md, "Split check".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FACTOR = 4.0
EXPECTED = 50  # requests that a side must have been due before its share is judged
LATE = 3  # requests of one proxy that began before it had the step and ended long after: streams, uploads


class Agreement(StrEnum):
    """How the counted split compares with the desired one."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    TOO_FEW = "too few"


@dataclass(frozen=True, slots=True)
class SplitVerdict:
    """The answer and one line for operators."""

    agreement: Agreement
    reason: str


def check_split(share: float, canary: int, baseline: int, late: int = LATE) -> SplitVerdict:
    """Compare the requests of both versions in one segment with the canary's desired share.

    Args:
        share: Desired, in 0..1, as the segment's buckets give it: a hold-back makes it less than 1.
        canary: Requests of the canary that began after every proxy had the step.
        baseline: The same of the baseline.
        late: How many may have begun before, on the side that should have none.
    """
    requests = canary + baseline
    if share <= 0 and canary > late:
        return SplitVerdict(Agreement.DISAGREES, f"{canary} canary requests where none should be")
    if share >= 1 and baseline > late:
        return SplitVerdict(Agreement.DISAGREES, f"{baseline} baseline requests where none should be")
    if not requests:
        return SplitVerdict(Agreement.TOO_FEW, "no requests")
    seen = f"{canary} of {requests} requests went to the canary, {share:.4%} should"
    for part, got in ((share, canary), (1 - share, baseline)):
        due = part * requests
        if due >= EXPECTED and not due / FACTOR <= got <= due * FACTOR:
            return SplitVerdict(Agreement.DISAGREES, seen)
    if 0 < share < 1 and share * requests < EXPECTED:
        return SplitVerdict(Agreement.TOO_FEW, f"{seen}; {EXPECTED} canary requests must be due")
    return SplitVerdict(Agreement.AGREES, seen)
