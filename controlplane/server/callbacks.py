"""What an embedding program is told of single streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import iscoroutinefunction
from traceback import format_exception

import structlog

from controlplane.xds.view import Nack, StreamView

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What to call when something happens on a stream, in the event loop; it must return at once.

    One that raises is logged, and changes nothing for the client.

    Attributes:
        connected: A stream has said which node it serves, and may have it.
        acked: A client accepted a response of this type.
        nacked: A client refused one.
        ended: A stream is over of which ``connected`` was told.
    """

    connected: Callable[[StreamView], None] | None = None
    acked: Callable[[StreamView, str], None] | None = None
    nacked: Callable[[StreamView, str, Nack], None] | None = None
    ended: Callable[[StreamView], None] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            at_once(getattr(self, field.name), field.name)


def at_once(function: object, name: str) -> None:
    """Refuse a coroutine function, which nobody would await.

    Raises:
        TypeError: If it is one.
    """
    if iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise TypeError(f"{name} is a coroutine function; give one that returns at once")


def tell(callback: Callable[..., None], *what: object) -> None:
    """Call a callback; if it raises, that is logged."""
    try:
        callback(*what)
    except Exception as error:  # noqa: BLE001 - it is the program's, and the client must not feel it
        name = getattr(callback, "__qualname__", repr(callback))
        log.error("a callback raised", callback=name, error=repr(error), stack=trace(error))


def trace(error: BaseException) -> str:
    """Return where an error comes from, for the log.

    Unless it is configured, structlog draws each frame with its variables: for a second, in which the loop
    does nothing else.
    """
    return "".join(format_exception(error))
