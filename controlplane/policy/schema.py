"""The JSON Schema of all documents, for editors."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from controlplane.policy.documents import Document
from controlplane.policy.values import SHARE_PATTERN, format_duration, format_share

_TITLE = "Turnout documents"


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        """Write durations as operators do."""
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def schema() -> dict[str, Any]:
    """Return one schema for documents of every kind; an unset field is left out, never null."""
    adapter: TypeAdapter[Document] = TypeAdapter(Annotated[Document, Field(discriminator="kind")])
    found = adapter.json_schema(by_alias=True, schema_generator=_Generator)
    plain = _without_null(found)
    kinds = plain.pop("oneOf")
    plain.pop("discriminator")
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": _TITLE, "anyOf": kinds, **plain}


def _without_null(node: Any) -> Any:
    """Return the schema without the null that stands for a field that is not set, and without titles."""
    if isinstance(node, list):
        return [_without_null(part) for part in node]
    if not isinstance(node, dict):
        return node
    parts = {
        key: {name: _without_null(inner) for name, inner in part.items()}
        if key in ("properties", "$defs")
        else _without_null(part)
        for key, part in node.items()
        if not (key == "title" and isinstance(part, str)) and not (key == "default" and part is None)
    }
    default = node.get("default")
    if isinstance(default, dict):
        parts["default"] = {field: value for field, value in default.items() if value is not None}
    if node.get("pattern") == SHARE_PATTERN and isinstance(default, int):
        parts["default"] = format_share(default)
    choices = [choice for choice in parts.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del parts["anyOf"]
        return {**choices[0], **parts}
    return parts | ({"anyOf": choices} if choices else {})
