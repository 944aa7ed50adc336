"""The seam between a stream and its socket, and its binding to grpc.aio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import unquote

import grpc
import grpc.aio

from controlplane.server.x509 import certificates
from controlplane.xds.validity import Validity
from controlplane.xds.view import Peer

# Names that a client certificate proves, strongest first. A common name counts where there is no other.
_IDENTITY_KEYS = ("peer_spiffe_id", "x509_subject_alternative_name")
_COMMON_NAME = "x509_common_name"
_CERTIFICATE = "x509_pem_cert"


# gRPC fails to write where the call is over, and its handler is told of that only a little later.
LEFT = "the client has left"
Written = Callable[[BaseException | None], None]
_CONTEXT = copy_context()  # of what is done when a write is over: else each would have one of its own


class Transport(Protocol):
    """One bidirectional stream of messages. One reader, one writer.

    ``read`` is a property, so that it may be another object's own: a coroutine around that costs as much as
    a whole ACK.
    """

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""

    @property
    def read(self) -> Callable[[], Awaitable[Any]]:
        """What returns the next message, or ``end`` when the client has closed its side."""

    @property
    def end(self) -> object:
        """What ``read`` returns after the last message."""

    def write(self, data: bytes, done: Written) -> None:
        """Begin to send one message; no other may be begun before ``done`` was called.

        ``done`` is called with None once the message was taken over for sending, or with what went wrong,
        possibly before this returns; a CancelledError says that the client has left.
        """

    def finish(self, status: str, text: str) -> None:
        """Set the gRPC status with which the stream ends when its handler returns."""


class GrpcTransport:
    """A stream of grpc.aio."""

    __slots__ = ("_context", "_done", "_write", "_writing", "end", "peer", "read")

    def __init__(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self.peer = peer_of(context, dated=True)
        self.read: Callable[[], Awaitable[Any]] = context.read
        self.end: object = grpc.aio.EOF
        self._context = context
        self._write: Callable[[bytes], Coroutine[Any, None, None]] = context.write
        self._writing: Coroutine[Any, None, None] | None = None
        self._done: Written | None = None

    def write(self, data: bytes, done: Written) -> None:
        """Begin to send one message."""
        self._writing, self._done = self._write(data), done
        self._step()

    def _step(self, _awaited: object = None) -> None:
        """Run the write to its next future, or to its end; a task for each write would cost more."""
        assert self._writing is not None
        try:
            awaited = self._writing.send(None)
        except StopIteration:
            self._end(None)
        except grpc.aio.InternalError:
            self._end(asyncio.CancelledError(LEFT))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, its owner is told
            self._end(error)
        else:
            awaited.add_done_callback(self._step, context=_CONTEXT)

    def _end(self, error: BaseException | None) -> None:
        done, self._done, self._writing = self._done, None, None  # kept, it would be a cycle
        assert done is not None
        done(error)

    def finish(self, status: str, text: str) -> None:
        """Set the final status."""
        self._context.set_code(grpc.StatusCode[status])
        self._context.set_details(text)


async def delivered(writing: Awaitable[None]) -> None:
    """Wait for a write; that the client leaves meanwhile ends the handler like any end of its call."""
    try:
        await writing
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError(LEFT) from error


def peer_of(context: grpc.aio.ServicerContext[Any, Any], *, dated: bool = False) -> Peer:
    """Return the peer of a call: ``address:port`` and what its certificate proves.

    Only if it is ``dated`` is the certificate read, for how long it is valid: 60 us, so not for each message.
    """
    address = unquote(context.peer()).removeprefix("ipv4:").removeprefix("ipv6:")
    proven = context.auth_context()
    names = [name for key in _IDENTITY_KEYS for name in proven.get(key, ())]
    names = names or list(proven.get(_COMMON_NAME, ()))
    texts = (n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names)
    own = proven.get(_CERTIFICATE, ()) if dated else ()
    return Peer(address, tuple(dict.fromkeys(texts)), _valid(bytes(own[0])) if own else None)


@lru_cache(maxsize=256)  # of a client's streams each type may have its own
def _valid(pem: bytes) -> Validity | None:
    try:
        return certificates(pem)[0].valid
    except ValueError:  # the handshake has taken it all the same
        return None
