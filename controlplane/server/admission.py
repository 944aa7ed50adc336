"""Admission of first requests at a rate: a storm of reconnects must not stall the streams in service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Admission:
    """Lets through ``rate`` per second, after a burst of a tenth of a second; the rest wait, in order.

    ``clock`` returns seconds, never going back.
    """

    rate: float
    clock: Callable[[], float]
    _next: float = field(default=0.0, init=False)

    def delay(self) -> float:
        """Take the next turn; return the seconds to wait for it."""
        now = self.clock()
        self._next = max(self._next, now - 0.1) + 1 / self.rate
        return max(0.0, self._next - now)

    async def admit(self) -> None:
        """Wait for a turn."""
        delay = self.delay()
        if delay > 0:
            await asyncio.sleep(delay)
