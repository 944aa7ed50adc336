"""Proxies that are ahead of this store: their streams end again and again, and they are told throughout."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from controlplane.xds.view import StreamView

AHEAD = "has seen newer versions than this store has"
LASTS = 60.0  # seconds that one is told after its last stream; Envoy's longest pause before the next is 30
NODES = 10_000  # the oldest go first


class Behind:
    """The last streams that ended while their clients were ahead, by fleet and node id.

    One counts as if it were there until its node is served again, or a minute has passed.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._of: dict[tuple[str | None, str], tuple[StreamView, float]] = {}

    def note(self, view: StreamView) -> None:
        """Take a stream that has ended."""
        if view.node is None:
            return
        who = view.group, view.node.id
        if view.behind:
            self._of.pop(who, None)
            if len(self._of) >= NODES:
                del self._of[next(iter(self._of))]
            self._of[who] = view, self._clock()
        elif _served(view):
            self._of.pop(who, None)

    def beside(self, views: tuple[StreamView, ...]) -> tuple[StreamView, ...]:
        """Return the open streams, and after them those that are over and still count."""
        if not self._of:
            return views
        since = self._clock() - LASTS
        self._of = {who: each for who, each in self._of.items() if each[1] > since}
        there = {(v.group, v.node.id) for v in views if v.node is not None and (v.behind or _served(v))}
        return (*views, *(view for who, (view, _) in self._of.items() if who not in there))


def _served(view: StreamView) -> bool:
    return any(each.acked_at is not None for each in view.types)
