"""Evidence of single segments beside that of all requests: what is wrong with few users drowns in the many.

Source: docs/decision-rule.md, "Rollback evidence".
"""

from __future__ import annotations

from controlplane.evidence.account import NO_COUNTS, Account
from controlplane.evidence.likelihood import log_mean_exp, log_mixture

SEGMENT = "segment:"  # begin of the label of a segment's process
LIMIT_WEIGHT = 0.2  # of the segments together, where a limit is judged


def loudness(account: Account) -> dict[str, float]:
    """Return the evidence of a fault by segment, as logarithms."""
    return {
        label.removeprefix(SEGMENT): log_mean_exp(account.processes[label])
        for label in sorted(account.processes)
        if label.startswith(SEGMENT)
    }


def joined(account: Account, process: str) -> float:
    """Return the logarithm of the evidence that a limit is broken, by all requests or in one segment."""
    if process not in account.processes:
        return 0.0
    whole, loud = log_mean_exp(account.processes[process]), loudness(account)
    segments = log_mean_exp(list(loud.values())) if loud else whole
    return log_mixture(((1 - LIMIT_WEIGHT, whole), (LIMIT_WEIGHT, segments)))


def shown(account: Account, segment: str) -> float | None:
    """Return a segment's share of events on the baseline since the release began; None if it had none."""
    _, _, requests, events = account.whole.get(segment, NO_COUNTS)
    return events / requests if requests else None
