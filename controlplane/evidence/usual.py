"""Which share of the requests is usual, and how many events are not: for numbers, or for arrays of them.

Source: docs/decision-rule.md, "What the past teaches".
"""

from __future__ import annotations

from typing import TypeVar

from controlplane.evidence.dispersion import Array

Number = TypeVar("Number", float, Array)

PRIOR = 0.5, 50  # events, and requests, that are added to those of the past: 1 % without history
RECENT_PRIOR = 5.0  # events at the usual share, added to those of the last half minute
FAR, AT_LEAST = 4, 10  # times what is usual, and so many more, which chance does not explain


def share(events: Number, requests: Number) -> Number:
    """Return the long-run share of requests that are counted, in 0..1."""
    return (events + PRIOR[0]) / (requests + PRIOR[1])


def share_now(events: Number, requests: Number, usual: Number) -> Number:
    """Return the share of the last half minute; with few requests, the ``usual`` one."""
    return (events + RECENT_PRIOR) / (requests + RECENT_PRIOR / usual)


def most(requests: Number, usual: Number) -> Number:
    """Return the number of events above which so many requests have unusually many."""
    return FAR * usual * requests + AT_LEAST
