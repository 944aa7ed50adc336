"""Observations as compact text: one JSON list each, numbers instead of field names."""

from __future__ import annotations

import json
from datetime import datetime

from controlplane.evidence.observation import Cell, Observation, Tally


def pack_observation(observation: Observation) -> str:
    """Return the observation as JSON; `unpack_observation` is its inverse."""
    cells = [
        [c.proxy, c.segment, c.version, t.requests, t.errors, t.client_errors, t.aborted, t.slower]
        for c, t in observation.cells
    ]
    o = observation
    return json.dumps(
        [o.service, o.start.isoformat(), o.end.isoformat(), cells, o.fresh, o.silent, o.partial, o.callers],
        separators=(",", ":"),
    )


def unpack_observation(text: str) -> Observation:
    """Return the observation that `pack_observation` packed."""
    service, start, end, cells, fresh, silent, partial, *more = json.loads(text)
    return Observation(
        service,
        datetime.fromisoformat(start),
        datetime.fromisoformat(end),
        tuple((Cell(p, s, v), Tally(n, k, c, a, tuple(slower))) for p, s, v, n, k, c, a, slower in cells),
        tuple(fresh),
        tuple(silent),
        tuple((proxy, why) for proxy, why in partial),
        tuple(more[0]) if more else (),  # rows of before there were gRPC clients have none
    )
