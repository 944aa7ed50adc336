"""Slowness where the baseline is hardly ever past any edge: of its latency nothing else is seen.

Source: docs/decision-rule.md, "Rollback evidence: latency".
"""

from __future__ import annotations

import numpy as np

from controlplane.evidence.account import Interval
from controlplane.evidence.edges import Beyond
from controlplane.evidence.table import SLOWER
from controlplane.policy.latency import EDGES_MS

RAREST = 0.0015  # share of requests past an edge that is taken for the baseline's where it is less
ALTERNATIVES = (
    4.0,
    8.0,
    20.0,
    60.0,
    200.0,
    600.0,
)  # multiples of what is tolerated; as many as of other edges
SPELL = 15.0  # seconds that a pause, or an ill host, is taken to last


def gains(interval: Interval, usual: float, slower: float) -> dict[str, list[float]]:
    """Return what an interval adds, by the label of the edge that is looked at; nothing if there is none.

    Args:
        interval: What came.
        usual: Times as slow as is tolerated of a canary that is warm.
        slower: Times as slow as is tolerated now.
    """
    beyond = interval.learned.beyond_now
    shares = beyond.shares[0].tolist()
    first = next((at for at, share in enumerate(shares) if share < RAREST), len(EDGES_MS))
    # What is slower by a factor than what is not seen is past no edge that is farther by that factor.
    known = (at for at in range(first, len(EDGES_MS)) if EDGES_MS[at] >= EDGES_MS[first] * slower / usual)
    edge = next(known, None)
    return {} if edge is None else {str(EDGES_MS[edge]): _gain(interval, beyond, edge, slower)}


def _gain(interval: Interval, beyond: Beyond, edge: int, slower: float) -> list[float]:
    """Return the lesser of the evidence against the share that is taken and against the baseline, cut.

    How slow requests cluster cannot be learned where there are none. A Poisson ratio that is cut here gains
    nothing on average, whatever the clusters in an interval, while the mean is at most the share.
    """
    canary, baseline = interval.blocks.own
    counter = SLOWER + edge
    requests, slow, events = canary[:, 0], canary[:, counter], canary[:, counter] + baseline[:, counter]
    null = float(beyond.ratio(np.array([0]), np.array([edge]), slower)[0])
    share = max(RAREST, null * float(beyond.shares[0, edge]))
    times = np.maximum(1.01, np.minimum(np.array(ALTERNATIVES), 0.95 / share))
    # Between two edges that are far apart a little slowness is many times as often: it is in the share.
    logs, odds = np.log(times), min(null, slower) * (requests / baseline[:, 0])[:, None]
    above = slow.sum() * logs - (times - 1) * share * requests.sum()
    worse = slow.sum() * logs + (events[:, None] * (np.log1p(odds) - np.log1p(odds * times))).sum(axis=0)
    least = np.minimum(np.minimum(above, worse), np.log((times - 1) / logs))
    found: list[float] = (least * min(1.0, interval.seconds / SPELL)).tolist()
    return found
