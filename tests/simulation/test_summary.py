"""The figures of many simulated releases, by releases whose figures are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.simulation.loop import Ended, Harm
from controlplane.simulation.summary import Times, percentile, summarise


def release(outcome, seconds, failed=0.0):
    return Ended(outcome, seconds, None, Harm(failed=failed, slow=failed / 2), "ten", "errors", "because")


@pytest.mark.parametrize(
    ("count", "part", "value"), [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 2), (20, 0.95, 19), (21, 0.95, 20)]
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(count, part, value):
    assert percentile(range(1, count + 1), part) == value


def test_times_and_harm_are_those_of_the_releases():
    """Twenty were rolled back after 10 s, 20 s, ... and harmed as many requests, and one was not."""
    ended = [release("rolled back", 10.0 * n, failed=10.0 * n) for n in range(1, 21)]
    promoted = replace(release("promoted", 600.0), whole=400.0)

    found = summarise([*ended, promoted], bad=True, begins=5.0)

    assert found.detected == Times(20, 95.0, 185.0)
    assert (found.whole, found.done) == (Times(1, 400.0, 400.0), Times(1, 600.0, 600.0))
    assert (found.failed, found.slow) == (100.0, 50.0)  # on average of all 21, whatever became of them
    assert found.failed_p95 == 190.0
    assert (found.rolled_back.share, found.promoted.share) == (20 / 21, 1 / 21)
    assert found.where == {"promoted in ten": 1, "rolled back in ten": 20}
