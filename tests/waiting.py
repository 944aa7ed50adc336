"""Waiting for what another task, thread or process does: for the condition itself, and with patience."""

from __future__ import annotations

import asyncio
import time

# Seconds for what takes a moment. The machine may be busy with others, or stand still for a while; a test
# that is well pays nothing for it.
PATIENCE = 120.0


async def until(condition, within=PATIENCE):
    """Return the first true answer of ``condition``; the loop goes on meanwhile."""
    deadline = asyncio.get_running_loop().time() + within
    while not (met := condition()):
        assert asyncio.get_running_loop().time() < deadline, f"{met!r} after {within:g} s"
        await asyncio.sleep(0.005)
    return met


def until_blocking(condition, within=PATIENCE):
    """Return the first true answer of ``condition``, where there is no loop."""
    deadline = time.monotonic() + within
    while not (met := condition()):
        assert time.monotonic() < deadline, f"{met!r} after {within:g} s"
        time.sleep(0.05)
    return met
