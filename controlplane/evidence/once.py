"""What a value is asked for several times and works out once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Owner = TypeVar("Owner")
Found = TypeVar("Found")


class once(Generic[Owner, Found]):  # noqa: N801 (reads as a decorator)
    """A property that is worked out when it is first asked for, and kept.

    `functools.cached_property` is the same, but before Python 3.12 it takes a lock, which costs as much as
    most of what is kept here. Two threads may both work it out; they find the same.
    """

    def __init__(self, find: Callable[[Owner], Found]) -> None:
        self._find = find
        self.__doc__ = find.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, owner: None, kind: type) -> once[Owner, Found]: ...

    @overload
    def __get__(self, owner: Owner, kind: type) -> Found: ...

    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return self
        found = owner.__dict__[self._name] = self._find(owner)
        return found

    def keep(self, owner: Owner, found: Found) -> None:
        """Keep what is known without working it out."""
        owner.__dict__[self._name] = found
