"""Whether requests come at all, against what is usual in the step.

Evidence is a sum: without requests it stays as it is, however long ago they came. Source:
docs/decision-rule.md, "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 30.0  # seconds without a request that say nothing, whatever is usual
FEW = 3.0  # intervals of which the same holds
TIMES = 5.0  # gaps longer than so many usual ones are rare: one in a hundred, where requests come by chance
MEMORY = 20  # gaps


@dataclass(frozen=True, slots=True)
class Flow:
    """How requests have come since every proxy had the step.

    Attributes:
        gaps: How many were learned from, at most MEMORY.
        usual: Mean seconds from one interval with requests to the next.
        idle: Seconds since the last one.
        wanting: Seconds for which requests must still come until they flow again, after a time without.
    """

    gaps: int = 0
    usual: float = 0.0
    idle: float = 0.0
    wanting: float = 0.0

    def longest(self, seconds: float) -> float:
        """Return how long no request may come, where an interval has so many seconds."""
        return max(LEAST, FEW * seconds + TIMES * max(0.0, self.usual - seconds))

    def after(self, seconds: float, requests: int) -> Flow:
        """Return the flow after one more interval."""
        idle, longest = self.idle + seconds, self.longest(seconds)
        if idle > longest and not requests:
            return Flow(self.gaps, self.usual, idle, longest)
        wanting = max(0.0, self.wanting - seconds)
        if not requests:
            return Flow(self.gaps, self.usual, idle, wanting)
        gaps = min(self.gaps + 1, MEMORY)
        # A time without requests must not make the next one usual at once.
        usual = self.usual + (min(idle, longest) - self.usual) / gaps
        return Flow(gaps, usual, 0.0, wanting)

    def to_json(self) -> list[float]:
        """Return plain values; nothing is lost."""
        return [self.gaps, self.usual, self.idle, self.wanting]

    @classmethod
    def from_json(cls, data: Sequence[float]) -> Flow:
        """Return what :meth:`to_json` was made from."""
        gaps, usual, idle, wanting = data
        return cls(int(gaps), usual, idle, wanting)
