"""Who is left as it is: clients that have resources of another store, and who comes new to their group."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from controlplane.server.sessions import Session, who
from controlplane.xds.view import StreamView

log = structlog.get_logger(__name__)

WAITS = "has nothing yet and waits: proxies of its fleet have resources of another store"


class Alone:
    """The sessions that are left alone.

    Attributes:
        sessions: Those whose clients have resources of another store.
        aloof: Says why such a client is left alone, or ''; by default none is. While one is, clients of its
            group that have nothing wait.
    """

    def __init__(self, freed: Callable[[str], None]) -> None:
        """``freed`` is called with a group when one of its clients is left alone no more."""
        self.sessions: dict[Session, None] = {}
        self.aloof: Callable[[StreamView], str] = lambda _view: ""
        self._freed = freed

    def reason(self, session: Session, *, strange: bool) -> str:
        """Return why a client is left alone now, or ''; ``strange`` if it has resources of another store."""
        stream = session.stream
        foreign = strange and not stream.behind
        why = self.aloof(stream.view()) if foreign else ""
        if why:
            if session not in self.sessions:
                log.warning("proxy left alone", reason=why, **who(session))
                self.sessions[session] = None
            return why
        self.release(session)
        if foreign:
            stream.trust()
        waits = stream.fresh and any(other.stream.group == stream.group for other in self.sessions)
        return WAITS if waits else ""

    def release(self, session: Session) -> None:
        """Leave a client alone no more; who waited for it gets a turn."""
        group = session.stream.group
        if session in self.sessions and group is not None:
            del self.sessions[session]
            self._freed(group)
