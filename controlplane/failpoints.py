"""Places where a process can be killed, to see that a restart loses nothing; inert unless it was armed.

A passing of the armed place is counted, and at the last one the process gets SIGKILL: no handler runs, and
nothing is flushed. Only `turnout serve` arms one, by the variable ``TURNOUT_FAILPOINT``.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "TURNOUT_FAILPOINT"

# In the order in which a decision passes them. Those from ``after-evaluate`` to ``after-commit`` are passed
# only if there is something to record: most intervals come to no decision.
POINTS = {
    "before-read": "an interval begins: nothing was read yet",
    "after-evaluate": "decided, not written",
    "before-commit": "written, the transaction is not committed",
    "after-commit": "committed, nobody knows yet",
    "after-push": "a proxy was sent a response",
    "hook": "another system was asked and answered, the answer is not stored",
    "notification": "somebody was told, and it is not noted that they were",
}


class _Armed:
    """The one place at which this process ends."""

    name = ""
    left = 0


def arm(text: str) -> None:
    """Choose the place: ``NAME``, ``NAME:COUNT`` for its COUNT-th passing, or an empty text for none.

    Raises:
        ValueError: If there is no such place, or the count is not a number from 1.
    """
    name, _, count = text.partition(":")
    if text and name not in POINTS:
        raise ValueError(f"{name!r} is not a failpoint; known: {', '.join(POINTS)}")
    if not (count or "1").isdecimal() or not int(count or "1"):
        raise ValueError(f"{count!r} is not a count of passings, 1 or more")
    _Armed.name, _Armed.left = name, int(count or "1")


def failpoint(name: str) -> None:
    """Pass a place."""
    if _Armed.name == name:
        _Armed.left -= 1
        if not _Armed.left:
            os.kill(os.getpid(), signal.SIGKILL)
