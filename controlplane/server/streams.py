"""The streams in service: one write each at a time, the newest target wins, nobody waits for anybody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from time import monotonic

import structlog

from controlplane.failpoints import failpoint
from controlplane.server.admission import Admission, Quota, Silent
from controlplane.server.alone import Alone
from controlplane.server.callbacks import Callbacks, tell, trace
from controlplane.server.limits import Limits
from controlplane.server.sessions import Counts, Session, who
from controlplane.server.share import Share
from controlplane.server.sparing import Sparing
from controlplane.server.transport import Transport
from controlplane.server.turns import Turns
from controlplane.server.watchdog import Watchdog
from controlplane.xds.delta import DeltaStream
from controlplane.xds.messages import Node, ProtocolError
from controlplane.xds.snapshot import Snapshot
from controlplane.xds.sotw import SotwStream
from controlplane.xds.stream import Stream
from controlplane.xds.view import Peer, Received, StreamView, Variant

log = structlog.get_logger(__name__)

GroupOf = Callable[[Node], str | None]
Refusal = Callable[[Node, Peer], str | None]

_NOW = partial(datetime.now, UTC)
_ANEW = ProtocolError("UNAVAILABLE", "an operator asked to begin anew")
_STOPPING = ProtocolError("UNAVAILABLE", "the server is stopping")
_FAILED = ProtocolError("INTERNAL", "the server failed at this stream; its log says how")
_SMALL = 2048  # bytes of an ACK that is taken in at once: no need to look at the clock
_LONG = 0.01  # seconds of taking in one request, after which its stream has to pause
_PAUSE = 4  # times as long


class XdsServer:
    """Serves snapshots to streams, by group.

    Args:
        group_of: Names the group of a node, or None for an unknown one, which is held unanswered and listed.
        refusal: Says why a node may not be served to a peer (its certificate does not own the name), or None.
        callbacks: Called at events of single streams.
        identifier: Name of this replica, in each response.
        clock: The time, in UTC.

    Attributes:
        counts: What happened since the start.
        alone: Who is left alone; ``alone.aloof`` says why.
        ahead: The highest revision that a client had and that was not reached yet.
    """

    def __init__(
        self,
        group_of: GroupOf,
        *,
        refusal: Refusal = lambda _node, _peer: None,
        callbacks: Callbacks = Callbacks(),  # noqa: B008 - frozen
        identifier: str = "",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        clock: Callable[[], datetime] = _NOW,
    ) -> None:
        self._group_of = group_of
        self._refusal = refusal
        self._callbacks = callbacks
        self._identifier = identifier
        self._limits = limits
        self._clock = clock
        self._snapshots: dict[str | None, Snapshot] = {}  # of a node without a group there is none
        self._sessions: dict[Session, None] = {}
        self._members: dict[str, dict[Session, None]] = {}  # by group
        self._after_write = self._written  # one object for all streams
        self._turns = Turns(self._advance_all)
        self._newcomers = Turns(self._assign_all)
        self._admission = Admission(limits.first_requests, monotonic)
        self._share = Share()
        self._sparing = Sparing()
        self._quota = Quota(limits.streams_per_peer)
        self._silent: Silent[Session] = Silent(limits.silent_per_peer)
        self._stopping = False
        self.counts = Counts()
        self.alone = Alone(self._advance_group)
        self.ahead = 0
        self._watchdog = Watchdog(self._sessions.keys(), self.counts, limits.write_timeout)

    # -- for the application

    def publish(self, group: str, snapshot: Snapshot) -> None:
        """Set a group's target and let its streams send at once; an older revision is ignored."""
        present = self._snapshots.get(group)
        if present is not None and snapshot.revision < present.revision:
            revisions = {"revision": snapshot.revision, "present": present.revision}
            log.warning("older snapshot ignored", group=group, **revisions)
            return
        self._snapshots[group] = snapshot
        # Each stream is given it when its turn comes: to touch them all twice would cost more.
        self._advance_group(group)

    def withdraw(self, group: str) -> None:
        """Forget a group's target: whoever is there keeps what it has, whoever comes is held unanswered."""
        self._snapshots.pop(group, None)

    def regroup(self) -> None:
        """Have the group of each node asked for again: after a change of fleets, or of who may be served."""
        self._newcomers.add_all(self._sessions)

    def resend(self, node: str) -> int:
        """End a node's streams, so that it comes back and is sent what it has not; returns how many."""
        mine = [s for s in self._sessions if s.stream.node is not None and s.stream.node.id == node]
        for session in mine:
            self._close(session, _ANEW)
        return len(mine)

    def snapshot(self, group: str) -> Snapshot | None:
        """Return a group's target."""
        return self._snapshots.get(group)

    def views(self) -> tuple[StreamView, ...]:
        """Return all streams, oldest first."""
        return tuple(map(self._seen, self._sessions))

    def looking(self) -> Generator[None, None, None]:
        """Make the views of all streams, one in each step; each is kept until its stream changes."""
        for session in tuple(self._sessions):
            if not session.ended:
                self._seen(session)
                yield

    def _seen(self, session: Session) -> StreamView:
        self._renew(session.stream)
        view = session.stream.view()
        return replace(view, due=True) if session in self._turns else view

    async def drain(self, seconds: float) -> None:
        """End all streams, at random over some seconds, so that the proxies do not reconnect all at once.

        From here on no new one is taken in.
        """
        self._stopping = True
        sessions = list(self._sessions)
        random.shuffle(sessions)
        for session in sessions:
            self._close(session, _STOPPING)
            await asyncio.sleep(random.uniform(0, 2 * seconds / len(sessions)))  # noqa: S311 - jitter

    # -- for the transport

    async def serve(self, transport: Transport, variant: Variant, type_url: str | None = None) -> None:
        """Serve one stream until it ends; ``type_url`` is implied by a per-type service."""
        self.counts.streams += 1
        if self._stopping:
            self.counts.closed[_STOPPING.status] += 1
            log.warning("stream refused", error=_STOPPING.text, peer=transport.peer.address)
            transport.finish(_STOPPING.status, _STOPPING.text)
            return
        session = self._opened(transport, variant, type_url)
        try:
            await self._serve(session)
        finally:
            if session.counted:
                self._quota.leave(transport.peer)

    def _opened(self, transport: Transport, variant: Variant, type_url: str | None) -> Session:
        kind = SotwStream if variant == "sotw" else DeltaStream
        stream = kind(transport.peer, self._clock(), type_url=type_url, identifier=self._identifier)
        over = asyncio.get_running_loop().create_future()
        return Session(stream, transport, over, self._after_write)

    async def _serve(self, session: Session) -> None:
        stream = session.stream
        self._sessions[session] = None
        if (oldest := self._silent.enter(stream.peer, session)) is not None:
            most = self._limits.silent_per_peer
            reason = f"you have {most} streams that have said nothing, this one for longest"
            self._close(oldest, ProtocolError("RESOURCE_EXHAUSTED", reason))
        self._watchdog.start()
        reader = asyncio.create_task(self._read(session))
        reader.add_done_callback(partial(self._read_all, session))
        try:
            await session.over
        except Exception as error:  # noqa: BLE001 - it ends this stream, and the client need not know how
            log.error("stream failed", error=repr(error), stack=trace(error), **who(session))
            error.__traceback__ = None  # it may hold the request, in a cycle with the session
            self._finish(session, _FAILED)
        finally:
            session.ended = True
            reader.cancel()
            self._silent.leave(stream.peer, session)
            if session.late is not None:
                session.late.cancel()
            del self._sessions[session]
            if stream.group is not None:
                self._forget(session, stream.group)
                self.alone.release(session)
            if not self._sessions:
                self._watchdog.stop()
            if session.counted:
                log.info("stream ended", **who(session))
            if stream.group is not None and self._callbacks.ended is not None:
                tell(self._callbacks.ended, stream.view())
        if session.writing_since is not None:
            session.out = asyncio.get_running_loop().create_future()
            await session.out  # gRPC takes no status while a message is on its way

    def _forget(self, session: Session, group: str) -> None:
        members = self._members[group]
        del members[session]
        if not members:  # groups come and go: by default each node of an embedded server is one
            del self._members[group]

    async def _read(self, session: Session) -> None:
        """Take requests until the client closes its side."""
        stream, read, end = session.stream, session.transport.read, session.transport.end
        while session.closing is None and (data := await read()) is not end:
            small = len(data) <= _SMALL
            if stream.node is None:
                if not self._counts(session):
                    return
                await self._admission.admit(stream.peer)
            elif small and self._share.room():
                self._take(session, data)
                continue
            elif small and self._settle(session, data):
                continue
            spent = await self._share.take(stream.peer, partial(self._take, session, data))
            if spent > _LONG and not small:
                # Whoever sends what takes long to read must not have the loop to itself.
                await asyncio.sleep(_PAUSE * spent)

    def _counts(self, session: Session) -> bool:
        """Count a stream among its peer's once it has said something; end it if there are too many."""
        if not session.counted:
            peer = session.stream.peer
            self._silent.leave(peer, session)
            session.counted = self._quota.enter(peer)
            if not session.counted:
                text = f"you have {self._limits.streams_per_peer} streams already"
                self._close(session, ProtocolError("RESOURCE_EXHAUSTED", text))
        return session.counted

    def _settle(self, session: Session, data: bytes) -> bool:
        """Take in the ACK of a client at rest, if this is one: it is quick, and thousands come at once."""
        received = session.stream.settle(data, self._clock())
        if received is None:
            return False
        if self._callbacks.acked is not None:
            self._tell(session, received)
        if session.stream.due:  # most ask for nothing
            self._turns.add(session)
        return True

    def _take(self, session: Session, data: bytes) -> None:
        """Take in one request, and send what may be sent because of it."""
        stream = session.stream
        first = stream.node is None
        try:
            received = stream.receive(data, self._clock())
            if first:
                self._assign(session)
            if not received.acked or self._callbacks.acked is not None:
                self._tell(session, received)
            if stream.due:
                self._advance(session)
        except ProtocolError as error:
            # Not the error itself: its traceback holds the request, in a cycle with the session.
            self._close(session, ProtocolError(error.status, error.text))
        except Exception as error:  # noqa: BLE001 - a bug, or of whoever embeds us: it ends this stream
            session.fail(error)

    def _tell(self, session: Session, received: Received) -> None:
        """Count, log and report what a request was."""
        stream, type_url, nack = session.stream, received.type_url, received.nack
        if nack is not None:
            self.counts.nacks += 1
            what = {"type_url": type_url, "version": str(nack.version or "of several"), "error": nack.message}
            self._sparing.warn("response refused", stream.peer, **what, **who(session))
            if self._callbacks.nacked is not None:
                tell(self._callbacks.nacked, stream.view(), type_url, nack)
        if received.acked and self._callbacks.acked is not None:
            tell(self._callbacks.acked, stream.view(), type_url)
        if received.first and stream.snapshot is not None and not stream.snapshot.serves(type_url):
            self.counts.unserved += 1
            log.info("type not served", type_url=type_url, **who(session))

    def _assign_all(self, sessions: Iterator[Session]) -> None:
        for session in sessions:
            if session.stream.node is None or session.ended:
                continue
            try:
                self._assign(session)
            except Exception as error:  # noqa: BLE001 - of whoever embeds us: it ends this stream, and no other
                session.fail(error)

    def _assign(self, session: Session) -> None:
        """Give a stream the target of its node's group, or end it if its peer may not have it."""
        stream = session.stream
        assert stream.node is not None
        reason = self._refusal(stream.node, stream.peer)
        if reason is not None:
            self._close(session, ProtocolError("PERMISSION_DENIED", reason))
            return
        group = self._group_of(stream.node)
        if not isinstance(group, str | None):
            raise TypeError(f"group_of returned {group!r}; it must return a str or None")
        if stream.group is not None and group != stream.group:
            # What the client has belongs to another group: it starts anew.
            reason = f"the group changed from {stream.group!r} to {group!r}"
            self._close(session, ProtocolError("UNAVAILABLE", reason))
            return
        if group is None:
            log.warning("unknown node held", **who(session))
            return
        if stream.group is None:
            stream.assign(group)
            self._members.setdefault(group, {})[session] = None
            log.info("stream started", group=group, **who(session))
            if self._callbacks.connected is not None:
                tell(self._callbacks.connected, stream.view())
        self._renew(stream)
        self._turns.add(session)

    def _advance_group(self, group: str) -> None:
        self._turns.add_all(self._members.get(group, ()))

    def _renew(self, stream: Stream) -> None:
        """Give a stream the newest target of its group, if it has not got it yet."""
        target = self._snapshots.get(stream.group)
        if target is not stream.snapshot and target is not None:
            stream.publish(target)

    def _advance(self, session: Session) -> None:
        """Send what may be sent next, or end the stream; nothing happens while a write is under way.

        Called whenever that may have become possible: after a request, a publication, a write.
        """
        data = self._respond(session, self._clock())
        if data is not None:
            self._write(session, data)

    def _advance_all(self, sessions: Iterator[Session]) -> None:
        """Advance some streams: one kind of work for all of them after the other is cheaper than by turns."""
        now = self._clock()
        ready = [(session, data) for session in sessions if (data := self._respond(session, now)) is not None]
        for session, data in ready:
            self._write(session, data)

    def _respond(self, session: Session, now: datetime) -> bytes | None:
        """Return what has to be written now, if anything; it counts as being written."""
        if session.writing_since is not None:
            self._renew(session.stream)
            return None
        if session.ended:
            return None
        try:
            if session.closing is not None:
                self._finish(session, session.closing)
                session.fail(None)
            elif (data := self._next(session, now)) is not None:
                session.writing_since = monotonic()
                return data
            elif session.half_closed:
                session.fail(None)
            else:
                self._wait_for_us(session)
        except Exception as error:  # noqa: BLE001 - a bug ends this stream, by its handler, and no other one
            session.fail(error)
        return None

    def _write(self, session: Session, data: bytes) -> None:
        try:
            session.transport.write(data, session.written)
        except Exception as error:  # noqa: BLE001 - the same
            session.writing_since = None
            session.fail(error)

    def _next(self, session: Session, now: datetime) -> bytes | None:
        """Return what may be sent now: nothing to whom another store serves, and who waits for those."""
        stream = session.stream
        target = self._snapshots.get(stream.group)
        if target is not stream.snapshot and target is not None:
            if stream.alone or self.alone.sessions:
                stream.publish(target)
            elif (data := stream.push(target, now)) is not None:
                return data
        strange = bool(stream.strange)
        if stream.group is not None and (strange or stream.alone or self.alone.sessions):
            stream.leave(self.alone.reason(session, strange=strange))
            if stream.alone:
                return None
        return stream.next_response(now)

    def _written(self, session: Session, error: BaseException | None) -> None:
        session.writing_since = None
        if error is not None:
            session.fail(error)
        if session.ended:
            if session.out is not None and not session.out.done():
                session.out.set_result(None)
            return
        failpoint("after-push")
        stream = session.stream
        if stream.due or stream.hesitant or session.leaving or session.late is not None:  # most are the last
            self._turns.add(session)

    def _read_all(self, session: Session, reader: asyncio.Task[None]) -> None:
        """The client has closed its side, or its reader has failed."""
        error = asyncio.CancelledError() if reader.cancelled() else reader.exception()
        if error is not None:
            session.fail(error)
            return
        session.half_closed = True
        self._advance(session)

    def _wait_for_us(self, session: Session) -> None:
        """Close a stream whose client stays ahead of this replica for too long; hear out who may say more."""
        stream, limits = session.stream, self._limits
        if not (stream.behind or stream.hesitant):
            if session.late is not None:
                session.late.cancel()
                session.late = None
        elif session.late is None:
            self.ahead = max(self.ahead, stream.ahead if stream.behind else 0)
            wait, what = limits.silence, self._hear_out
            if stream.behind:
                wait, what = limits.behind_timeout, self._give_up
            session.late = asyncio.get_running_loop().call_later(wait, what, session)

    def _hear_out(self, session: Session) -> None:
        session.late = None
        session.stream.hear_out()
        self._turns.add(session)

    def _give_up(self, session: Session) -> None:
        """Close a stream whose client is still ahead; one that is served may be slow to take it in."""
        session.late = None
        self._renew(session.stream)  # its turn may come after this
        if session.stream.behind:
            reason = "this replica is behind the client's version; another one may be ahead"
            self._close(session, ProtocolError("UNAVAILABLE", reason))
        else:
            self._advance(session)

    def _close(self, session: Session, reason: ProtocolError) -> None:
        """End a stream with this status, once what is being written is out."""
        session.closing = session.closing or reason
        self._advance(session)

    def _finish(self, session: Session, reason: ProtocolError) -> None:
        self.counts.closed[reason.status] += 1
        fields = {"status": reason.status, "error": reason.text}
        self._sparing.warn("stream closed", session.stream.peer, **fields, **who(session))
        session.transport.finish(reason.status, reason.text)
