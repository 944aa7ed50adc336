"""Streams whose client takes nothing: they are ended, and keep nobody's memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from time import monotonic

import structlog

from controlplane.server.processor import Given, given
from controlplane.server.sessions import Counts, Session, who
from controlplane.xds.messages import ProtocolError

log = structlog.get_logger(__name__)
_NOTICED = 0.1  # seconds: less is usual


class Watchdog:
    """Looks for writes that take too long, while there are streams: a timer for each would cost more."""

    def __init__(self, sessions: Collection[Session], counts: Counts, most: float) -> None:
        """``most`` is how many seconds a write may take."""
        self._sessions = sessions
        self._counts = counts
        self._most = most
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on, if it does not yet."""
        if self._task is None:
            self._task = asyncio.create_task(self._look())

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look(self) -> None:
        step, patient = self._most / 10, 0.0
        while True:
            began, before = monotonic(), given()
            await asyncio.sleep(step)
            now = monotonic()
            late, waited = now - began - step, _waited(before, given())
            if late > max(step / 2, _NOTICED) or waited > max(step / 4, _NOTICED):
                # We were late ourselves, and so was every write: no client is at fault for that.
                patient = now + self._most
            elif now > patient:
                for session in self._sessions:
                    if session.writing_since is not None and session.writing_since < now - self._most:
                        self._end(session)

    def _end(self, session: Session) -> None:
        """Let go of a stream, once; its client is told as soon as it has read what is being written.

        To cancel its handler would tell nobody: gRPC keeps such a stream open, and its client waits on it.
        """
        if session.ended:
            return
        reason = ProtocolError("UNAVAILABLE", f"a write took more than {self._most:g} s")
        self._counts.closed[reason.status] += 1
        log.warning("stuck stream let go", seconds=self._most, **who(session))
        session.transport.finish(reason.status, reason.text)
        session.fail(None)


def _waited(before: Given | None, after: Given | None) -> float:
    """Return the seconds that this thread had work but no CPU; 0 where the system does not say."""
    return after.since(before).waited if before is not None and after is not None else 0.0
