"""Ports of loopback that nobody else is given: not by another process, and not to an outgoing connection."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path

# Below the range that Linux takes the ports of outgoing connections from: none of those can take one.
_PORTS = range(12_000, 32_000)
_given: set[int] = set()


def free_ports(count: int) -> tuple[int, ...]:
    """Return ports of loopback that are free now, all different, and this process's for as long as it lives.

    Whoever asks here in another process of this user gets others, also before these are bound.
    """
    free: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(free) == count:
            break
        if port in _given or not _lock(port):
            continue
        _given.add(port)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
    if len(free) < count:
        raise OSError(f"{count} free ports wanted on 127.0.0.1, {len(free)} found")
    return tuple(free)


def _lock(port: int) -> bool:
    """Take a port from other processes, unless one of them has it; the system gives it back when we end."""
    try:
        fcntl.lockf(_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):
        return False
    return True


@functools.cache
def _file() -> int:
    """Return the open file of which one byte is locked for each port.

    It must not be opened twice: to close it once would give back all.
    """
    path = Path(tempfile.gettempdir()) / f"turnout-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
