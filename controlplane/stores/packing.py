"""Observations and moments as compact text: JSON lists, numbers instead of field names."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from controlplane.evidence.observation import Cell, Measure, Observation, Reading, Stat, Tally, Users
from controlplane.release.seen import Moment

_MOMENT: TypeAdapter[Moment] = TypeAdapter(Moment)
_EACH = ("at", "elapsed", "first")  # what differs from interval to interval


def pack_observation(observation: Observation) -> str:
    """Return the observation as JSON; `unpack_observation` is its inverse."""
    cells = [
        [c.proxy, c.segment, c.version, t.requests, t.errors, t.client_errors, t.aborted, t.slower]
        for c, t in observation.cells
    ]
    issued = [[cell.proxy, cell.segment, cell.version, calls] for cell, calls in observation.issued]
    o = observation
    besides = {
        "measures": [_measure(m) for m in o.measures],
        "stats": [[s.proxy, s.version, s.name, s.count] for s in o.stats],
        "reporting": o.reporting,
        "readings": [[r.name, r.canary, r.baseline, r.problem, r.age] for r in o.readings],
        "late": o.late,
    }
    told = (o.fresh, o.silent, o.partial, issued, o.healthy)
    body = [o.service, o.start.isoformat(), o.end.isoformat(), cells, *told]
    return json.dumps([*body, {name: rows for name, rows in besides.items() if rows}], separators=(",", ":"))


def _measure(m: Measure) -> list[object]:
    row = [m.cell.proxy, m.cell.segment, m.cell.version, m.metric, m.total, m.n, m.among, m.age]
    return row if m.users is None else [*row, m.users]


def _unpacked(p: str, s: str, v: str, *rest: Any) -> Measure:
    """Return a measure; rows of before users were added up have none of them."""
    return Measure(Cell(p, s, v), *rest[:5], *(Users(*users) for users in rest[5:]))


def unpack_observation(text: str) -> Observation:
    """Return the observation that `pack_observation` packed."""
    service, start, end, cells, fresh, silent, partial, *more = json.loads(text)
    besides = more[2] if len(more) > 2 else {}
    return Observation(
        service,
        datetime.fromisoformat(start),
        datetime.fromisoformat(end),
        tuple((Cell(p, s, v), Tally(n, k, c, a, tuple(slower))) for p, s, v, n, k, c, a, slower in cells),
        tuple(fresh),
        tuple(silent),
        tuple((proxy, why) for proxy, why in partial),
        # Rows of before there were gRPC clients have none.
        tuple((Cell(p, s, v), n) for p, s, v, n in more[0]) if more else (),
        # Rows of before endpoints were counted have those of which none was healthy, without a number.
        tuple((proxy, version, *(count or (0,))) for proxy, version, *count in more[1])
        if len(more) > 1
        else (),
        tuple(_unpacked(*row) for row in besides.get("measures", ())),
        tuple(Stat(*row) for row in besides.get("stats", ())),
        tuple(besides.get("reporting", ())),
        tuple(Reading(*row) for row in besides.get("readings", ())),
        tuple(besides.get("late", ())),
    )


def pack_moment(moment: Moment) -> tuple[str, str]:
    """Return what is new in each interval, and what seldom changes, both as JSON."""
    plain: dict[str, Any] = _MOMENT.dump_python(replace(moment, observation=None), mode="json", by_alias=True)
    del plain["observation"]
    each = [plain.pop(name) for name in _EACH]
    seen = None if moment.observation is None else pack_observation(moment.observation)
    return json.dumps([*each, seen], separators=(",", ":")), json.dumps(plain, separators=(",", ":"))


def unpack_moment(body: str, around: str) -> Moment:
    """Return the moment that `pack_moment` packed."""
    *each, seen = json.loads(body)
    moment = _MOMENT.validate_python(json.loads(around) | dict(zip(_EACH, each, strict=True)))
    return replace(moment, observation=None if seen is None else unpack_observation(seen))
