"""Whether calls get to the canary at all, where those that do not are in no count.

A gRPC client reports a call once it has found an endpoint. Seen with grpcio 1.85 and a port on which nobody
listens: half of all calls ended UNAVAILABLE, and the reports had the canary's cluster with every count zero,
issued calls and drops too. Source: docs/decision-rule.md, "Nobody reaches the canary".
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from controlplane.evidence.observation import Observation
from controlplane.evidence.split import EXPECTED
from controlplane.evidence.verdict import Outcome, Said, Verdict


def missed(
    before: Mapping[str, int], observation: Observation, versions: tuple[str, str], clients: AbstractSet[str]
) -> Mapping[str, int]:
    """Return the calls that began on the baseline, by segment, since one last began on the canary.

    Calls that end say nothing: streams may have begun under another split.

    Args:
        before: The same until this interval.
        observation: The interval.
        versions: Canary and baseline.
        clients: Those that surely split as asked.
    """
    if not observation.issued:
        return before
    canary, baseline = versions
    after, reached = dict(before), set()
    for cell, calls in observation.issued:
        if cell.version == canary:
            reached.add(cell.segment)
        elif cell.version == baseline and cell.proxy in clients:
            after[cell.segment] = after.get(cell.segment, 0) + calls
    return {segment: calls for segment, calls in after.items() if segment not in reached}


def reach(canary: str, segment: str, share: float, calls: int) -> Verdict | None:
    """Return FAIL if calls were due to the canary and none arrived, else None.

    Each call draws its version by itself: ``calls`` in a row that miss a canary with ``share`` in 0..1 have a
    chance of ``(1 - share) ** calls``, at most ``exp(-EXPECTED)`` where this fails.
    """
    due = share * calls
    if due < EXPECTED:
        return None
    reason = (
        f"no client reaches {canary}: none of {due:.0f} calls that were due arrived, segment {segment}; "
        "calls that find no endpoint are in no report"
    )
    said = Said(reason, (("due", due), ("baseline_calls", float(calls))))
    return Verdict("reach", segment, Outcome.FAIL, said)
