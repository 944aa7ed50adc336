"""Which test runs when, on which of several processes: those that wait beside those that compute.

Tests with real processes mostly wait. Many at once leave the processors idle, and a busy machine hurts them
most. So tests stand in a row, those that wait in front and the others behind them, and the processes take
them from both ends, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController


def row(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return tests in the order of the row, the long ones at its ends: what is taken last is short."""
    return sorted(items, key=_place)


def _place(item: pytest.Item) -> int:
    marks = {mark.name for mark in item.iter_markers()}
    if marks & {"envoy", "waits"}:
        return 0 if "long" in marks else 1
    return 3 if "long" in marks else 2


class BothEnds(LoadScopeScheduling):
    """Every second process is given tests from the end of the row, each as soon as one of its own is done."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid

    def _assign_work_unit(self, node: WorkerController) -> None:
        if self.nodes.index(node) % 2:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
