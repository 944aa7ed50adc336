"""Between which bounds the difference of an A/B test lies: what its own tests reject, turned round.

Source: docs/decision-rule.md, "A/B tests".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import log

from controlplane.evidence.account import EMPTY, Account, Interval
from controlplane.evidence.conversions import Conversions
from controlplane.evidence.likelihood import log_mean_exp
from controlplane.evidence.measures import WINDOW, gathered
from controlplane.evidence.sums import WINDOW as LONG_WINDOW
from controlplane.evidence.sums import Sums

_CHANGES = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5)
# Differences that are tested, as parts of the baseline: bounds are among them, rounded away from each other.
CHANGES = (*(-change for change in reversed(_CHANGES)), 0.0, *_CHANGES)
ABOVE, BELOW = "above", "below"


@dataclass(frozen=True, slots=True)
class Difference:
    """Tests of one metric against each of the differences, in both directions, on the same windows.

    Attributes:
        name: How its account is called.
        falls: The test that finds fewer on the canary than tolerated, with a margin of 0.
        rises: The same for more than tolerated.
    """

    name: str
    falls: Conversions | Sums
    rises: Conversions | Sums

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        least = LONG_WINDOW if isinstance(self.falls, Sums) else WINDOW
        account, seen, _ = gathered(account, interval, self.falls.measured, least)
        if seen is None:
            return account
        whole, processes = interval.stage.full_segments, dict(account.processes)
        for label, test in self._tests():
            if gain := test.gains(account, seen, whole):
                processes[label] = interval.moved(account, label, gain)
        learned = self.falls.learned(account, seen, whole)
        # Neither counts nor a proof are read here.
        return EMPTY._replace(processes=processes, state=dict(account.state) | learned)

    def _tests(self) -> Iterator[tuple[str, Conversions | Sums]]:
        for change in CHANGES:
            ratio = 1 + change
            above = change if isinstance(self.rises, Sums) else 1 - 1 / ratio
            yield f"{ABOVE}{change:g}", replace(self.rises, margin=above)
            yield f"{BELOW}{change:g}", replace(self.falls, margin=-change)


def bounds(account: Account, threshold: float) -> tuple[float | None, float | None]:
    """Return the least and the greatest difference that was not rejected; None where all are left.

    Args:
        account: Of a `Difference`.
        threshold: e-value from which on a difference is rejected.
    """

    def rejected(change: float, above: bool) -> bool:
        process = account.processes.get(f"{ABOVE if above else BELOW}{change:g}")
        return process is not None and log_mean_exp(process) >= log(threshold)

    return left(rejected)


def left(rejected: Callable[[float, bool], bool]) -> tuple[float | None, float | None]:
    """Return the least and the greatest difference that was not rejected.

    Args:
        rejected: Whether the true difference is shown to be above one that is tested, or below it.
    """
    low = high = None
    for change in CHANGES:
        if not rejected(change, True):
            break
        low = change
    for change in reversed(CHANGES):
        if not rejected(change, False):
            break
        high = change
    return low, high
