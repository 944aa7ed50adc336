"""How gRPC's threads wake the event loop: what they have done is taken in together, not one by one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

_ALL = 4096  # bytes: more than fit into such a pair of sockets, some 280 writes of one byte


class _Bell(socket.socket):
    """The end of gRPC's pair of sockets that the event loop reads."""

    __slots__ = ()

    def recv(self, _size: int, _flags: int = 0) -> bytes:
        """Read all there is, whatever was asked for; nothing if another thread's loop has read it."""
        try:
            return super().recv(_ALL)
        except BlockingIOError:
            return b""


@contextlib.contextmanager
def together(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have gRPC, which binds itself to the loop meanwhile, read at once all that it is woken by.

    For each operation that is over, its thread notes that and writes a byte; the loop reads one, and takes in
    all that is noted. So for each there is a turn of the loop, most of them for nothing; and of a push to
    thousands the thread soon waits for room for its bytes, what is over stays as it is, and the collector of
    garbage looks through all of it. A program that bound gRPC before, by a channel, has it as it was.
    """
    add_reader = loop.add_reader

    def add(bell: Any, callback: Callable[..., object], *args: Any) -> None:
        if type(bell) is socket.socket:
            bell.__class__ = _Bell
        add_reader(bell, callback, *args)

    try:
        loop.add_reader = add  # type: ignore[assignment, method-assign]
    except AttributeError:  # a loop that is not Python's own
        yield
        return
    try:
        yield
    finally:
        del loop.add_reader
