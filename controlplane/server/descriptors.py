"""Open files of the process: each proxy's connection is one, and most systems allow 1024 unless asked."""

from __future__ import annotations

import asyncio
import errno
import resource
from time import monotonic
from typing import Any, Final

import structlog

log = structlog.get_logger()
ENOUGH: Final = 10_000  # below that it is worth a warning
OTHERS: Final = 50  # files that are no connections: the store, logs, sockets that listen
_OPERATORS: Final = 1000  # connections: more have nothing to do here
_MOST: Final = 1 << 20  # where the system sets no limit
_QUIET: Final = 10.0  # seconds between two lines about the same shortage


def allow_many() -> int:
    """Allow this process as many open files as it may have; return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return soft


def operators_share() -> int:
    """Return how many connections of operators may be open: a tenth; the rest of the files is for proxies."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPERATORS if allowed == resource.RLIM_INFINITY else max(1, min(_OPERATORS, allowed // 10))


def say(limit: int) -> None:
    """Log how many open files are allowed, louder if they are few."""
    if limit < ENOUGH:
        log.warning(
            "few open files are allowed",
            limit=limit,
            proxies=f"about {max(0, limit - OTHERS)} at most",
            do="raise `ulimit -Hn`, or LimitNOFILE of the unit",
        )
    else:
        log.info("open files", limit=limit)


class Shortage:
    """The loop's handler of what nobody caught: a lack of open files is said now and then.

    asyncio reports each connection that it cannot accept, thousands in a second.
    """

    def __init__(self, limit: int) -> None:
        """``limit`` is that of the process."""
        self._limit = limit
        self._said = -_QUIET

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take one report."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif monotonic() - self._said >= _QUIET:
            self._said = monotonic()
            log.error(
                "no more files can be opened, so nobody else can connect",
                limit=self._limit,
                do="raise `ulimit -Hn`, or LimitNOFILE of the unit; each proxy takes one",
            )
