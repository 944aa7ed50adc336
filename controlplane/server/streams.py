"""The streams in service: one writer each, the newest target wins, nobody waits for anybody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from controlplane.server.admission import Admission
from controlplane.server.transport import Transport
from controlplane.xds.delta import DeltaStream
from controlplane.xds.messages import Node, ProtocolError
from controlplane.xds.snapshot import Snapshot
from controlplane.xds.sotw import SotwStream
from controlplane.xds.stream import Stream
from controlplane.xds.view import Nack, Peer, StreamView, Variant

log = structlog.get_logger(__name__)

GroupOf = Callable[[Node], str | None]
Refusal = Callable[[Node, Peer], str | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Rates and deadlines of the streams.

    Attributes:
        first_requests: Streams admitted per second.
        write_timeout: Seconds that one write may take before the stream counts as stuck.
        behind_timeout: Seconds that a client which is ahead of this replica waits for it.
    """

    first_requests: float = 2000.0
    write_timeout: float = 10.0
    behind_timeout: float = 5.0


@dataclass(slots=True, eq=False)
class Session:
    """One stream in service."""

    stream: Stream
    transport: Transport
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    closing: ProtocolError | None = None

    def close(self, reason: ProtocolError) -> None:
        """Have the writer end the stream with this status."""
        self.closing = self.closing or reason
        self.wake.set()


class XdsServer:
    """Serves snapshots to streams, by group.

    Args:
        group_of: Names the group of a node, or None for an unknown one, which is held unanswered and listed.
        refusal: Says why a node may not be served to a peer (its certificate does not own the name), or None.
        changed: Called whenever a view may have changed; must return at once.
        identifier: Name of this replica, in each response.
        clock: The time, in UTC.
    """

    def __init__(
        self,
        group_of: GroupOf,
        *,
        refusal: Refusal = lambda _node, _peer: None,
        changed: Callable[[], None] = lambda: None,
        identifier: str = "",
        limits: Limits = Limits(),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._group_of = group_of
        self._refusal = refusal
        self._changed = changed
        self._identifier = identifier
        self._limits = limits
        self._clock = clock
        self._snapshots: dict[str, Snapshot] = {}
        self._sessions: dict[Session, None] = {}
        self._admission: Admission | None = None

    # -- for the application

    def publish(self, group: str, snapshot: Snapshot) -> None:
        """Set a group's target and wake its writers at once; a revision older than the present is ignored."""
        present = self._snapshots.get(group)
        if present is not None and snapshot.revision < present.revision:
            revisions = {"revision": snapshot.revision, "present": present.revision}
            log.warning("older snapshot ignored", group=group, **revisions)
            return
        self._snapshots[group] = snapshot
        for session in self._sessions:
            if session.stream.group == group:
                session.stream.publish(snapshot)
                session.wake.set()

    def regroup(self) -> None:
        """Ask again for the group of each node: after a change of fleets, or of who may be served."""
        for session in list(self._sessions):
            if session.stream.node is not None:
                self._assign(session)

    def snapshot(self, group: str) -> Snapshot | None:
        """Return a group's target."""
        return self._snapshots.get(group)

    def views(self) -> tuple[StreamView, ...]:
        """Return all streams, oldest first."""
        return tuple(session.stream.view() for session in self._sessions)

    async def drain(self, seconds: float) -> None:
        """End all streams, spread over some seconds, so that the proxies do not reconnect all at once."""
        sessions = list(self._sessions)
        random.shuffle(sessions)
        for session in sessions:
            session.close(ProtocolError("UNAVAILABLE", "the server is stopping"))
            await asyncio.sleep(seconds / len(sessions))

    # -- for the transport

    async def serve(self, transport: Transport, variant: Variant, type_url: str | None = None) -> None:
        """Serve one stream until it ends; ``type_url`` is implied by a per-type service."""
        kind = SotwStream if variant == "sotw" else DeltaStream
        stream = kind(transport.peer, self._clock(), type_url=type_url, identifier=self._identifier)
        session = Session(stream, transport)
        self._sessions[session] = None
        reader = asyncio.create_task(self._read(session))
        reader.add_done_callback(lambda _: session.wake.set())
        try:
            await self._write(session, reader)
        finally:
            reader.cancel()
            del self._sessions[session]
            log.info("stream ended", **_who(session))
            self._changed()

    async def _read(self, session: Session) -> None:
        """Take requests until the client closes its side."""
        stream = session.stream
        while (data := await session.transport.read()) is not None:
            first = stream.node is None
            if first:
                await self._admit()
            try:
                received = stream.receive(data, self._clock())
            except ProtocolError as error:
                session.close(error)
                return
            if first:
                self._assign(session)
            if received.nack is not None:
                self._warn(session, received.type_url, received.nack)
            log.debug("request received", type_url=received.type_url, nonce=received.nonce)
            session.wake.set()

    def _warn(self, session: Session, type_url: str, nack: Nack) -> None:
        version = str(nack.version) if nack.version is not None else "of several"
        log.warning(
            "response refused", type_url=type_url, version=version, error=nack.message, **_who(session)
        )

    async def _admit(self) -> None:
        if self._admission is None:
            self._admission = Admission(self._limits.first_requests, asyncio.get_running_loop().time)
        await self._admission.admit()

    def _assign(self, session: Session) -> None:
        """Give a stream the target of its node's group, or end it if its peer may not have it."""
        stream = session.stream
        assert stream.node is not None
        reason = self._refusal(stream.node, stream.peer)
        if reason is not None:
            session.close(ProtocolError("PERMISSION_DENIED", reason))
            return
        group = self._group_of(stream.node)
        if stream.group is not None and group != stream.group:
            # What the client has belongs to another group: it starts anew.
            reason = f"the group changed from {stream.group!r} to {group!r}"
            session.close(ProtocolError("UNAVAILABLE", reason))
            return
        if group is None:
            log.warning("unknown node held", **_who(session))
            return
        if stream.group is None:
            stream.assign(group)
            log.info("stream started", group=group, **_who(session))
        snapshot = self._snapshots.get(group)
        if snapshot is not None and stream.snapshot is not snapshot:
            stream.publish(snapshot)
            session.wake.set()

    async def _write(self, session: Session, reader: asyncio.Task[None]) -> None:
        """Send what may be sent, whenever something changed, until the stream is over."""
        stream, late = session.stream, None
        while True:
            session.wake.clear()
            if session.closing is not None:
                self._finish(session, session.closing)
                return
            while session.closing is None and (data := stream.next_response(self._clock())) is not None:
                await self._send(session, data)
            self._changed()
            if reader.done():
                reader.result()
                if session.closing is None:
                    return
                continue
            if not stream.behind:
                late = None
                await session.wake.wait()
                continue
            loop = asyncio.get_running_loop()
            late = late or loop.time() + self._limits.behind_timeout
            try:
                async with asyncio.timeout_at(late):
                    await session.wake.wait()
            except TimeoutError:
                reason = "this replica is behind the client's version; another one may be ahead"
                session.close(ProtocolError("UNAVAILABLE", reason))

    async def _send(self, session: Session, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._limits.write_timeout):
                await session.transport.write(data)
        except TimeoutError as error:
            log.warning("stuck stream cancelled", seconds=self._limits.write_timeout, **_who(session))
            # A status could not be sent either: only a cancelled handler lets go of the stream.
            raise asyncio.CancelledError from error

    def _finish(self, session: Session, reason: ProtocolError) -> None:
        log.warning("stream closed", status=reason.status, error=reason.text, **_who(session))
        session.transport.finish(reason.status, reason.text)


def _who(session: Session) -> dict[str, str]:
    node = session.stream.node
    return {"node": node.id if node is not None else "", "peer": session.stream.peer.address}
