"""At what pace pushed values come: what a few of them add up to, not what fell in the last half minute."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from math import ceil

from controlplane.evidence.reading import rough

KEPT = 0.7  # weight that the past keeps with each push: about three count


@dataclass(frozen=True, slots=True)
class Pace:
    """How a version's pushes come.

    Attributes:
        pushes: Decayed number.
        n: What they were divided by, decayed.
        seconds: Between them, decayed.
        since: Seconds since the last one.
    """

    pushes: float = 0.0
    n: float = 0.0
    seconds: float = 0.0
    since: float = 0.0

    def after(self, seconds: float, n: float, every: float) -> Pace:
        """Return the pace after an interval in which ``n`` came; the first push took ``every`` seconds."""
        since = self.since + seconds
        if not n:
            return Pace(self.pushes, self.n, self.seconds, since)
        apart = since if self.pushes else every
        return Pace(self.pushes * KEPT + 1, self.n * KEPT + n, self.seconds * KEPT + apart)

    @property
    def state(self) -> tuple[float, ...]:
        """It as an account keeps it."""
        return astuple(self)

    def period(self, every: float) -> float:
        """Return the seconds from one push to the next."""
        return self.seconds / self.pushes if self.pushes else every

    def needed(self, more: float) -> float:
        """Return how many pushes have ``more``, one at least."""
        return max(1, ceil(more * self.pushes / self.n)) if self.n else 1


def told(pushes: float, seconds: float) -> str:
    """Say how much is still to come."""
    each = "push" if pushes == 1 else "pushes"
    return f"{pushes:.0f} more {each} of each version, {rough(seconds)}"
