"""What shows slowness: counts past all edges since its evidence began to rise.

Evidence is gathered at several edges, and only in the end it is known which of them carries it. Shown are the
counts at that one: at another a canary may look as fast as the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import add

from controlplane.evidence.account import Account, Counts, Interval
from controlplane.evidence.likelihood import log_mean_exp
from controlplane.evidence.table import SLOWER
from controlplane.policy.latency import EDGES_MS

LABEL = "rise of "  # with this and a segment begins what its requests were past, in an account's state
_WIDTH = 1 + len(EDGES_MS)  # of each version: requests, and those past each edge


def gathered(account: Account, interval: Interval) -> Account:
    """Return the account with what the interval adds; with it alone where nothing has risen before."""
    kept = account.state
    if not account.rise:
        kept = {label: row for label, row in kept.items() if not label.startswith(LABEL)}
    rows = {}
    for segment, (canary, baseline) in interval.blocks.sums.items():
        row = (canary[0], *canary[SLOWER:], baseline[0], *baseline[SLOWER:])
        before = kept.get(LABEL + segment)
        rows[LABEL + segment] = tuple(map(add, before, row)) if before else row
    return account._replace(state={**kept, **rows})


def shown(account: Account, label: str) -> Account:
    """Return the account whose rise is counted at the edge that has most evidence.

    ``label`` names that edge in its state. One of an older store, of which it is not known, stays as it is.
    """
    if not account.processes:
        return account
    loudest = max(sorted(account.processes), key=lambda name: log_mean_exp(account.processes[name]))
    edge = EDGES_MS.index(int(loudest))
    rise = {segment: _counts(account.state, segment, edge) for segment in account.rise}
    if any(rise[segment][0] != counts[0] for segment, counts in account.rise.items()):
        return account
    return account._replace(rise=rise, state={**account.state, label: (float(edge),)})


def _counts(state: Mapping[str, tuple[float, ...]], segment: str, edge: int) -> Counts:
    row = state.get(LABEL + segment, (0.0,) * 2 * _WIDTH)
    return row[0], row[1 + edge], row[_WIDTH], row[_WIDTH + 1 + edge]
