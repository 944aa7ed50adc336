"""Streams whose client takes nothing: they are cut off, and keep nobody's memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from time import monotonic

import structlog

from controlplane.server.sessions import Counts, Session, who

log = structlog.get_logger(__name__)


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
        while True:
            await asyncio.sleep(self._most / 10)
            late = monotonic() - self._most
            for session in self._sessions:
                if session.writing_since is not None and session.writing_since < late:
                    self._cut(session)

    def _cut(self, session: Session) -> None:
        """Cancel a handler, once: a status could not be sent either, so only that lets go of the stream."""
        handler, session.handler = session.handler, None
        if handler is not None:
            self._counts.closed["CANCELLED"] += 1
            log.warning("stuck stream cancelled", seconds=self._most, **who(session))
            handler.cancel()
