"""Write Envoy's complete API as descriptors, made from envoy-data-plane, or check what is committed.

Overrides in documents are checked against them, without a codec that takes seconds for hostile input, and
without two seconds of imports. `controlplane/policy/envoy_api.binpb.xz` is the result.
"""

from __future__ import annotations

import enum
import importlib
import lzma
import pkgutil
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import envoy_data_plane
from envoy_data_plane.message_pool import default_message_pool
from google.protobuf import (
    any_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf import descriptor_pb2 as d

TARGET = Path(__file__).parent.parent / "controlplane" / "policy" / "envoy_api.binpb.xz"
KNOWN = {
    message: module.DESCRIPTOR.name
    for module in (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
    for message in (*module.DESCRIPTOR.message_types_by_name, *module.DESCRIPTOR.enum_types_by_name)
}
F = d.FieldDescriptorProto


def modules() -> Iterator[types.ModuleType]:
    """Yield all modules of envoy-data-plane, one for each package of the API."""
    for found in pkgutil.walk_packages(envoy_data_plane.__path__, "envoy_data_plane."):
        yield importlib.import_module(found.name)


def package(kind: type) -> str:
    """Return the package that a class is of."""
    return kind.__module__.removeprefix("envoy_data_plane.")


def name_of(kind: type) -> str:
    """Return the full name of a message or an enum.

    What an enum is nested in is not known, and its values must not meet those of another: so each is nested
    in a message of its own. Names of enums are not on the wire.
    """
    url = default_message_pool.type_to_url.get(kind)
    if url or package(kind) == "google.protobuf":
        return url.rpartition("/")[2] if url else f"google.protobuf.{kind.__name__}"
    return f"{package(kind)}.Of{kind.__name__}.{kind.__name__}"


def plain(hint: Any) -> Any:
    """Return the class in a list or an option."""
    if typing.get_origin(hint) is list:
        return plain(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return plain(next(part for part in typing.get_args(hint) if part is not type(None)))
    return hint


class Maker:
    """Turns classes into descriptors, and notes what each top-level message needs."""

    def __init__(self) -> None:
        self.tops: dict[str, d.DescriptorProto] = {}
        self.needs: dict[str, set[str]] = {}

    def add(self, kind: type) -> None:
        """Take in a message."""
        full = name_of(kind)
        within = full.removeprefix(f"{package(kind)}.").split(".")
        here: Any = None
        for depth, part in enumerate(within):
            if depth == 0:
                here = self.tops.setdefault(f"{package(kind)}.{part}", d.DescriptorProto(name=part))
            else:
                here = next((n for n in here.nested_type if n.name == part), None) or here.nested_type.add(
                    name=part
                )
        self._fill(here, kind, f"{package(kind)}.{within[0]}", full)

    def _fill(self, message: d.DescriptorProto, kind: type, top: str, full: str) -> None:
        hints = typing.get_type_hints(kind)
        groups: dict[str, int] = {}
        for name, field in kind.__dataclass_fields__.items():  # type: ignore[attr-defined]
            meta = field.metadata["betterproto"]
            made = message.field.add(name=name.rstrip("_"), number=meta.number)
            made.label = F.LABEL_REPEATED if meta.repeated or meta.proto_type == "map" else F.LABEL_OPTIONAL
            if meta.group:
                if meta.group not in groups:
                    groups[meta.group] = len(groups)
                    message.oneof_decl.add(name=meta.group)
                made.oneof_index = groups[meta.group]
            if meta.proto_type == "map":
                self._map(message, made, meta, hints[name], top, full)
            else:
                self._type(made, meta, plain(hints[name]), top)

    def _map(self, message: Any, made: F, meta: Any, hint: Any, top: str, full: str) -> None:
        entry = message.nested_type.add(name="".join(p.capitalize() for p in made.name.split("_")) + "Entry")
        entry.options.map_entry = True
        for label, part, inner in zip(("key", "value"), meta.map_meta, typing.get_args(hint), strict=True):
            field = entry.field.add(name=label, number=part.number, label=F.LABEL_OPTIONAL)
            self._type(field, part, plain(inner), top)
        made.type, made.type_name = F.TYPE_MESSAGE, f".{full}.{entry.name}"

    def _type(self, made: F, meta: Any, hint: Any, top: str) -> None:
        made.type = F.Type.Value(f"TYPE_{meta.proto_type.upper()}")
        if meta.proto_type not in ("message", "enum"):
            return
        kind = meta.unwrap() if meta.unwrap else hint
        if meta.proto_type == "enum":
            self._enum(kind)
        full = name_of(kind)
        made.type_name = f".{full}"
        self.needs.setdefault(top, set()).add(full)

    def _enum(self, kind: type[enum.IntEnum]) -> None:
        full, renamed = name_of(kind), kind.betterproto_value_to_renamed_proto_names()  # type: ignore[attr-defined]
        holder = full.rpartition(".")[0]
        if holder in self.tops or full.startswith("google.protobuf."):
            return
        within = self.tops[holder] = d.DescriptorProto(name=holder.rpartition(".")[2])
        made = within.enum_type.add(name=full.rpartition(".")[2])
        for name, value in sorted(kind.__members__.items(), key=lambda m: (m[1].value != 0, m[1].value)):
            made.value.add(name=renamed.get(value.value, name), number=value.value)
        made.options.allow_alias = len({v.number for v in made.value}) < len(made.value)


def components(needs: dict[str, set[str]]) -> list[list[str]]:
    """Return messages in groups that need each other, each after what it needs (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(needs.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(sorted(stack[at:]))
            del stack[at:]

    sys.setrecursionlimit(10_000)
    for node in sorted(needs):
        if node not in index:
            visit(node)
    return found


def descriptors() -> d.FileDescriptorSet:
    """Return one file for each group of messages."""
    maker = Maker()
    for module in modules():
        name = module.__name__.removeprefix("envoy_data_plane.")
        if name.startswith("google.protobuf") or name == "message_pool":
            continue
        for kind in vars(module).values():
            if (
                isinstance(kind, type)
                and kind.__module__ == module.__name__
                and kind in default_message_pool.type_to_url
            ):
                maker.add(kind)
    tops = set(maker.tops)

    def owner(full: str) -> str | None:
        """Return the top-level message that something is in; None for those that protobuf itself has."""
        parts = full.split(".")
        if full.startswith("google.protobuf.") and parts[2] in KNOWN:
            return None
        found = (".".join(parts[:n]) for n in range(1, len(parts) + 1) if ".".join(parts[:n]) in tops)
        return next(found)

    needs = {top: {o for full in maker.needs.get(top, ()) if (o := owner(full))} for top in tops}
    files, home = d.FileDescriptorSet(), dict[str, str]()
    for number, group in enumerate(components(needs)):
        file = files.file.add(name=f"{number}", syntax="proto3", package=group[0].rpartition(".")[0])
        home |= dict.fromkeys(group, file.name)
        within = {home[other] for top in group for other in needs[top]} - {file.name}
        known = {
            KNOWN[full.split(".")[2]]
            for top in group
            for full in maker.needs.get(top, ())
            if owner(full) is None
        }
        file.dependency.extend(sorted(within | known))
        for top in group:
            file.message_type.append(maker.tops[top])
    return files


def main() -> None:
    """Write, or with --check compare."""
    body = descriptors().SerializeToString(deterministic=True)
    if "--check" not in sys.argv:
        TARGET.write_bytes(lzma.compress(body, preset=9))
    elif lzma.decompress(TARGET.read_bytes()) != body:
        sys.exit(f"{TARGET.name} is not what envoy-data-plane has; run scripts/api.py")


if __name__ == "__main__":
    main()
