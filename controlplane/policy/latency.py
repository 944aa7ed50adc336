"""The bucket edges of latency histograms, set in every bootstrap; latency limits lie on them."""

from __future__ import annotations

from datetime import timedelta

EDGES_MS: tuple[int, ...] = (
    5, 10, 25, 50, 75, 100, 150, 200, 250, 300, 400, 500, 750, 1000, 2000, 5000, 10_000, 30_000,
)  # fmt: skip


def edge_index(limit: timedelta) -> int | None:
    """Return the position of ``limit`` in EDGES_MS, or None if it lies between edges."""
    ms = limit / timedelta(milliseconds=1)
    return EDGES_MS.index(int(ms)) if ms in EDGES_MS else None
