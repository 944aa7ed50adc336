"""Proxies that are ahead of this store: their streams end again and again, and they are told throughout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from controlplane.xds.view import StreamView

AHEAD = "has seen newer versions than this store has"
LASTS = 60.0  # seconds that one is told after its last stream; Envoy's longest pause before the next is 30
NODES = 10_000  # the oldest go first


class Behind:
    """The last streams that ended while their clients were ahead, by fleet and node id.

    One counts as if it were there until its node answers again, or a minute has passed.
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
        elif _answered(view):
            self._of.pop(who, None)

    def beside(self, views: tuple[StreamView, ...]) -> tuple[StreamView, ...]:
        """Return the open streams, and after them those that are over and still count.

        A proxy that is back is there once: as ahead, until it is known how its new stream is with it.
        """
        if not self._of:
            return views
        since = self._clock() - LASTS
        self._of = {who: each for who, each in self._of.items() if each[1] > since}
        back = {view.node.id for view in views if view.node is not None}
        over = (view for (_, node), (view, _) in self._of.items() if node not in back)
        return (*map(self._still, views), *over)

    def _still(self, view: StreamView) -> StreamView:
        """Return a stream as its client was when its last one ended, if nothing else is known of it yet."""
        last = self._of.get((view.group, view.node.id)) if view.node is not None else None
        if last is None or view.behind or view.alone or _answered(view):
            return view
        return replace(view, behind=True, strange=last[0].strange)


def _answered(view: StreamView) -> bool:
    return any(each.acked_at is not None or each.nacks for each in view.types)
