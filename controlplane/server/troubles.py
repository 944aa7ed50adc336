"""What is refused at the ports and ends nothing: who asks why something is missing must find it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

import structlog

log = structlog.get_logger()
LASTS: Final = 600.0  # seconds that one is shown after it was last seen
_MOST: Final = 100  # that are kept; the oldest goes


class Troubles:
    """Remembers what was refused, and to whom, for a while; each is logged when it begins. For any thread.

    Attributes:
        counts: How often each kind of thing was refused since the start.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int, str]] = {}
        self._watched: list[Callable[[], Iterable[str]]] = []

    def watch(self, lasting: Callable[[], Iterable[str]]) -> None:
        """Show too whatever this returns, for as long as it does."""
        self._watched.append(lasting)

    def add(self, what: str, whose: str, why: str) -> None:
        """Say that something of somebody was refused."""
        self.counts[what] += 1
        now, key = self._clock(), (what, whose)
        at, times, _ = self._seen.pop(key, (-LASTS, 0, ""))
        times = times + 1 if now - at < LASTS else 1
        if times == 1:
            log.warning("refused", what=what, whose=whose, why=why)
        if len(self._seen) >= _MOST:
            self._seen.pop(next(iter(self._seen)), None)
        self._seen[key] = now, times, why

    def clear(self, what: str, whose: str) -> None:
        """Say that it is well again."""
        self._seen.pop((what, whose), None)

    def current(self) -> tuple[str, ...]:
        """Return what is wrong, and what was refused lately, for people."""
        lasting = [text for watched in self._watched for text in watched()]
        now, seen = self._clock(), sorted(self._seen.items())
        refused = (
            f"{what} {whose}: refused{f' {times} times' if times > 1 else ''}: {why}"
            for (what, whose), (at, times, why) in seen
            if now - at < LASTS
        )
        return (*lasting, *refused)
