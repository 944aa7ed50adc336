"""What is remembered so that streams share it: some bytes at most, and nothing that cannot be made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Final, Generic, TypeVar

from controlplane.xds import snapshot
from controlplane.xds.snapshot import Resource

MOST: Final = 64 << 20  # bytes that one cache keeps alive
_OBJECT: Final = 400  # bytes that a resource takes besides its body and the encoded form of that
_body = attrgetter("body")
_clears: list[Callable[[], None]] = [snapshot.forget]

T = TypeVar("T")


def weight(resources: Iterable[Resource]) -> int:
    """Return about how many bytes these take: each has its body and an encoded form."""
    sizes = list(map(len, map(_body, resources)))
    return 2 * sum(sizes) + _OBJECT * len(sizes)


def on_release(clear: Callable[[], None]) -> None:
    """Have something called that drops what a module remembers."""
    _clears.append(clear)


def release() -> None:
    """Drop all that is remembered of what is served: it is made again when it is needed."""
    for clear in _clears:
        clear()


class IdentityCache(Generic[T]):
    """Results by the identity of their inputs, oldest dropped first.

    An entry keeps its inputs alive, so that no other object can take their identity. Each counts with all
    that it keeps, though most of it is in use elsewhere too: so it is the least that is remembered.
    """

    def __init__(self, size: int, most: int = MOST) -> None:
        """``size`` is how many are remembered, ``most`` how many bytes; the newest one always is."""
        self._size = size
        self._most = most
        self._bytes = 0
        self._entries: dict[tuple[int, ...], tuple[tuple[object, ...], T, int]] = {}
        on_release(self.clear)

    def get(self, inputs: tuple[object, ...], make: Callable[[], T]) -> T:
        """Return what ``make`` returned for these very objects, calling it at most once while remembered."""
        key = tuple(map(id, inputs))
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = inputs, make(), _weigh(inputs)
            self._bytes += entry[2]
            while len(self._entries) > self._size or (self._bytes > self._most and len(self._entries) > 1):
                self._bytes -= self._entries.pop(next(iter(self._entries)))[2]
        return entry[1]

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self._bytes = 0


def _weigh(inputs: tuple[object, ...]) -> int:
    if inputs and isinstance(inputs[0], Resource):
        return weight(each for each in inputs if isinstance(each, Resource))
    return sum(weight(each.values()) for each in inputs if isinstance(each, Mapping))
