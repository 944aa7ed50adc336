"""What the kernel says of the CPU that a thread was given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCHEDSTAT = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True, slots=True)
class Given:
    """Seconds of a thread: how long it ran, and how long it could have run but waited for a CPU."""

    ran: float
    waited: float

    def since(self, before: Given) -> Given:
        """Return what came on top."""
        return Given(self.ran - before.ran, self.waited - before.waited)


def given() -> Given | None:
    """Return the times of this thread so far; None where the system does not say.

    Source: the kernel's Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat".
    """
    try:
        ran, waited, _ = SCHEDSTAT.read_text(encoding="ascii").split()
        return Given(int(ran) / 1e9, int(waited) / 1e9)
    except (OSError, ValueError):
        return None
