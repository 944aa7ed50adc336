"""Long work of the event loop, a part in each of its turns: whoever is served in between hardly waits."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from time import perf_counter
from typing import Final, TypeVar

_MOST: Final = 0.02  # seconds in one turn

T = TypeVar("T")


async def in_turns(steps: Generator[None, None, T]) -> T:
    """Take steps to their end, and return what they came to."""
    began = perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found
        if perf_counter() - began > _MOST:
            await asyncio.sleep(0)
            began = perf_counter()
