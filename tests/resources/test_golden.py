"""Golden files: readable output of an input. ``pytest tests/resources --update-golden`` writes them anew."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import betterproto2
import pytest
import yaml
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from controlplane.policy.documents import Fleet, Match, Service
from controlplane.release.following import decided
from controlplane.release.traffic import Copies, ServiceTraffic, Split
from controlplane.resources import readable as forms
from controlplane.resources.adopting import render_adopted
from controlplane.resources.grpc_rendering import render_calls
from controlplane.resources.rendering import render
from controlplane.xds.snapshot import Snapshot

FOLDER = Path(__file__).parents[1] / "golden"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml"))


def rendered(case: str) -> Snapshot:
    given = yaml.safe_load((FOLDER / f"{case}.in.yaml").read_text())
    fleet = Fleet.model_validate(given["fleet"])
    compiler = render_calls if fleet.grpc else render_adopted if fleet.adopted else render
    return compiler(fleet, [_traffic(entry) for entry in given["traffic"]], 7).snapshot


def _traffic(entry: dict[str, Any]) -> ServiceTraffic:
    splits = tuple(
        Split(
            split["segment"],
            Match.model_validate(split["match"]) if "match" in split else None,
            tuple((start, end) for start, end in split.get("canary", ())),
            split.get("anonymous"),
        )
        for split in entry["splits"]
    )
    return ServiceTraffic(
        Service.model_validate(entry["service"]),
        entry["stable"],
        entry.get("canary"),
        entry.get("release"),
        entry.get("salt", ""),
        tuple(decided(**each) for each in entry.get("followed", ())) + splits,
        entry["anonymous"],
        tuple(entry.get("warm", ())),
        copies=_copies(entry.get("copies")),
    )


def _copies(given: Any) -> Copies | None:
    match = Match.model_validate(given["match"]) if given and "match" in given else None
    return Copies(match, given["share"]) if given else None


def shown(snapshot: Snapshot) -> str:
    found = []
    for url in snapshot.order:
        for name, resource in snapshot.of(url).items():
            entry = {"name": name, "version": str(resource.version)}
            if resource.needs:
                entry["needs"] = sorted(" ".join(ref) for ref in resource.needs)
            if resource.follows:
                entry["follows"] = " ".join(resource.follows)
            if resource.hollow:
                entry["hollow"] = True
            found.append(entry | {"resource": forms.readable(url, resource.body)})
    return yaml.safe_dump(found, sort_keys=False, width=200, allow_unicode=True)


@pytest.mark.parametrize("case", CASES)
def test_resources_are_those_of_the_golden_file(case: str, request: pytest.FixtureRequest):
    golden = FOLDER / f"{case}.out.yaml"
    text = shown(rendered(case))
    if request.config.getoption("--update-golden", default=False):
        golden.write_text(text)

    assert text == golden.read_text()


@pytest.mark.parametrize("case", CASES)
def test_envoys_complete_api_reads_the_same(case: str):
    snapshot = rendered(case)

    messages = 0
    for url in snapshot.order:
        for resource in snapshot.of(url).values():
            for name, body in unpacked(url.rpartition("/")[2], resource.body):
                compare(name, body)
                messages += 1

    assert messages >= 10


def compare(name: str, body: bytes) -> None:
    ours, theirs = our_type(name).FromString(body), their_type(name).parse(body)
    assert list(unknown(theirs)) == []
    assert our_type(name).FromString(bytes(theirs)) == ours


def our_type(name: str) -> type[Message]:
    return forms.message_type(name)


def their_type(name: str) -> type[betterproto2.Message]:
    package, _, short = name.rpartition(".")
    return getattr(importlib.import_module(f"envoy_data_plane.{package}"), short)


def unpacked(name: str, body: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, body
    yield from _packed_in(our_type(name).FromString(body))


def _packed_in(message: Message) -> Iterator[tuple[str, bytes]]:
    if isinstance(message, AnyMessage):
        yield from unpacked(message.type_url.rpartition("/")[2], message.value)
        return
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else (value,):
                yield from _packed_in(inner)


def unknown(message: Any) -> Iterator[bytes]:
    if message._unknown_fields:
        yield message._unknown_fields
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        for inner in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
        ):
            if isinstance(inner, betterproto2.Message):
                yield from unknown(inner)
