"""Every store, empty, with values to put in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Segment
from controlplane.policy.pinned import PinnedPolicy, PinnedStep
from controlplane.release.ports import Change, Record
from controlplane.release.recording import Origin, Recorded
from controlplane.release.seen import Moment, Propagation
from controlplane.release.state import ReleaseState
from controlplane.stores.sqlite import SqliteStore

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
STORES = {"sqlite": SqliteStore}  # each made from a folder, each opened by `open()`


def release(name="r", revision=0, **over):
    policy = PinnedPolicy(name="careful", steps=(PinnedStep(name="all", share="100%", for_="1m30s"),))
    base = {"attempt": 1, "service": "shop", "from_version": "v1", "to_version": "v2", "salt": "r.1"}
    return ReleaseState(name=name, policy=policy, created_at=T0, revision=revision, **(base | over))


def record(release="r", reason="because", **over):
    return Record(
        at=T0, kind="decision", release=release, service="shop", action="hold", reason=reason, **over
    )


def segment(name):
    match = {"cookie": {"name": name, "present": True}}
    return Segment.model_validate({"kind": "Segment", "name": name, "match": match})


def observation(**over):
    cells = (
        (Cell("edge-1", "everyone", "v1"), Tally(10, 1, 2, 3)),
        (Cell("edge-2", "staff", "v2"), Tally(7)),
    )
    base = {"cells": cells, "fresh": ("edge-1",), "silent": ("edge-2",), "partial": (("edge-3", "no sum"),)}
    base |= {"issued": ((Cell("caller-1", "everyone", "v1"), 4),), "late": ("edge-4",)}
    return Observation("shop", T0, T0 + timedelta(seconds=5, milliseconds=1), **(base | over))


def origin():
    return Origin(release(), {"rate": 0.25})


def recorded(**over):
    propagation = Propagation(("a",), (), (("b", "bad"),), within=timedelta(seconds=9))
    rest = {"endpoints": {"v1": ("10.0.0.1:80",)}, "busy": "q", "stable": "v1", "propagation": propagation}
    moment = Moment(T0, timedelta(seconds=5), observation(), first=True, settle=timedelta(seconds=10), **rest)
    return Recorded(replace(moment, **over), release())


def everything():
    """Return a change with a part of each kind."""
    return Change(
        releases=(release(judged=timedelta(seconds=1.5)),),
        stable={"shop": "v1"},
        catalog=Catalog.of(segment("staff")),
        records=(record(numbers={"acked": 2, "verdicts": [{"e_value": 1.5}]}), record("", "documents")),
        evidence={"r#1": {"minute": 3}},
        learned={"shop": {"rate": 0.1}},
        cursors={"edge-1": {"start": 5}, "edge-2": {"start": 6}},
        origins={"r": origin()},
        turns=(("r", recorded()),),
    )


@pytest.fixture(params=sorted(STORES))
async def opened(request, tmp_path):
    """Open the store in a folder, again and again; what is left open is closed."""
    made = []

    async def open_(folder=tmp_path):
        made.append(STORES[request.param](folder))
        return await made[-1].open()

    yield open_
    for store in made:
        await store.close()


@pytest.fixture
def make():
    return SimpleNamespace(
        origin=origin,
        recorded=recorded,
        release=release,
        record=record,
        segment=segment,
        observation=observation,
        everything=everything,
    )
