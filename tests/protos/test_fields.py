"""Our subset of Envoy's API against envoy-data-plane, which has all of it: numbers, types and enum values."""

from __future__ import annotations

import enum
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

import controlplane._pb as generated

OURS = "turnout."
TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}
# The same on the wire, declared otherwise by us: a node is read once per stream, an error need not be UTF-8.
BYTES_FOR = {
    ("envoy.service.discovery.v3.DiscoveryRequest", "node"): "message",
    ("envoy.service.discovery.v3.DeltaDiscoveryRequest", "node"): "message",
    ("google.rpc.Status", "message"): "string",
}
# Nested by us, of another name there.
ELSEWHERE = {
    "envoy.config.core.v3.BuildVersion.SemanticVersion": "envoy.type.v3.SemanticVersion",
    "envoy.config.core.v3.Node.Where": "envoy.config.core.v3.Locality",
    "envoy.service.discovery.v3.ControlPlane": "envoy.config.core.v3.ControlPlane",
    "envoy.service.load_stats.v3.ClusterStats": "envoy.config.endpoint.v3.ClusterStats",
    "envoy.service.load_stats.v3.LoadStatsRequest.Sender": "envoy.config.core.v3.Node",
    "envoy.service.load_stats.v3.UpstreamLocalityStats": "envoy.config.endpoint.v3.UpstreamLocalityStats",
}
NOT_THERE = "turnout.opentelemetry."  # the metrics protocol is not part of envoy-data-plane


def files() -> Iterator[FileDescriptor]:
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"controlplane._pb.{module.name}").DESCRIPTOR


def nested(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for inner in message.nested_types:
        if not inner.GetOptions().map_entry:
            yield from nested(inner)


def full_name(descriptor: Any) -> str:
    name = descriptor.full_name.removeprefix(OURS)
    return ELSEWHERE.get(name, name)


def theirs(descriptor: Descriptor | EnumDescriptor) -> Any:
    name = full_name(descriptor)
    package = descriptor.file.package.removeprefix(OURS)
    while not name.startswith(f"{package}."):
        package = name.rpartition(".")[0]
    module = importlib.import_module(f"envoy_data_plane.{package}")
    return getattr(module, name.removeprefix(f"{package}.").replace(".", ""))


ALL = [message for file in files() for top in file.message_types_by_name.values() for message in nested(top)]
MESSAGES = [message for message in ALL if not message.full_name.startswith(NOT_THERE)]
ENUMS = [
    found
    for file in files()
    if not file.package.startswith(NOT_THERE.rstrip("."))
    for found in (
        *file.enum_types_by_name.values(),
        *(e for m in ALL if m.file is file for e in m.enum_types),
    )
]


def test_there_is_something_to_compare():
    assert len(MESSAGES) > 50
    assert len(ENUMS) > 5


@pytest.mark.parametrize("message", MESSAGES, ids=full_name)
def test_fields_are_those_of_envoy(message: Descriptor):
    known = {
        name.rstrip("_"): field.metadata["betterproto"]
        for name, field in theirs(message).__dataclass_fields__.items()
    }
    for field in message.fields:
        meta = known[field.name]
        kind = BYTES_FOR.get((full_name(message), field.name), TYPES[field.type])
        entry = field.message_type is not None and field.message_type.GetOptions().map_entry
        assert meta.number == field.number, field.full_name
        assert meta.proto_type == ("map" if entry else kind), field.full_name
        if entry:
            found = tuple(TYPES[part.type] for part in field.message_type.fields)
            assert tuple(part.proto_type for part in meta.map_meta) == found, field.full_name
        else:
            assert meta.repeated is field.is_repeated, field.full_name
        oneof = field.containing_oneof
        assert meta.group == (oneof.name if oneof else None), field.full_name


@pytest.mark.parametrize("found", ENUMS, ids=full_name)
def test_enum_values_are_those_of_envoy(found: EnumDescriptor):
    known: type[enum.IntEnum] = theirs(found)
    names = {name.upper(): value.value for name, value in known.__members__.items()}

    for value in found.values:
        assert names[value.name.upper()] == value.number, value.name
