"""Which share of the requests is usual, and how many events are not: for numbers, or for arrays of them.

Source: docs/decision-rule.md, "What the past teaches".
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Number = TypeVar("Number", float, Array)

PRIOR = 0.5, 50  # events, and requests, that are added to those of the past: 1 % without history
RECENT_PRIOR = 5.0  # events at the usual share, added to those of the last half minute
FAR = 4  # times what is usual
MORE_LATELY, MORE = 10, 20  # events beyond that, in the last half minute and in a short window


def share(events: Number, requests: Number) -> Number:
    """Return the long-run share of requests that are counted, in 0..1; 1 % without history."""
    return (events + PRIOR[0]) / (requests + PRIOR[1])


def share_now(events: Number, requests: Number, usual: Number) -> Number:
    """Return the share of the last half minute; with few requests, the ``usual`` one."""
    return (events + RECENT_PRIOR) / (requests + RECENT_PRIOR / usual)


def most(requests: Number, usual: Number, more: int) -> Number:
    """Return the number of events above which so many requests have unusually many; ``more`` is as above."""
    return FAR * usual * requests + more
