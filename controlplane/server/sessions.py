"""A stream in service, and what became of all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from controlplane.server.transport import Transport
from controlplane.xds.messages import ProtocolError
from controlplane.xds.stream import Stream


@dataclass(slots=True)
class Counts:
    """What happened since the start.

    Attributes:
        streams: Streams that were opened.
        nacks: Responses that were refused.
        unserved: Types that were asked for and that nobody serves; once per stream.
        closed: Streams that were ended with an error by this server, by gRPC status.
    """

    streams: int = 0
    nacks: int = 0
    unserved: int = 0
    closed: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class Session:
    """One stream in service.

    ``advance`` is called when a write is over, with what went wrong, if anything; one function for all.
    """

    stream: Stream
    transport: Transport
    over: asyncio.Future[None]
    advance: Callable[[Session, BaseException | None], None]
    ended: bool = False  # nothing is sent any more
    closing: ProtocolError | None = None
    counted: bool = False  # among its peer's streams, since its first message
    half_closed: bool = False  # by the client: it will not ask for anything any more
    writing_since: float | None = None  # monotonic; None if nothing is being written
    late: asyncio.TimerHandle | None = None  # while the client is ahead of us, or may say more
    out: asyncio.Future[None] | None = None  # where it ended in the middle of a write: done when that is over

    def written(self, error: BaseException | None) -> None:
        """What was being written is out, or failed."""
        self.advance(self, error)

    @property
    def leaving(self) -> bool:
        """True if the stream ends once it has nothing more to write."""
        return self.half_closed or self.closing is not None

    def fail(self, error: BaseException | None) -> None:
        """Let the handler end: with an error, or well."""
        self.ended = True
        if self.over.done():
            return
        if error is None:
            self.over.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            self.over.cancel()
        else:
            self.over.set_exception(error)


def who(session: Session) -> dict[str, str]:
    """Return whose stream it is, for the log."""
    node = session.stream.node
    peer = session.stream.peer
    who = {"node": node.id if node is not None else "", "peer": peer.address}
    return who | {"identity": peer.identities[0]} if peer.identities else who
