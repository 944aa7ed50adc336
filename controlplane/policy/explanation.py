"""What pydantic found wrong with a document, in our words and with the path that the operator wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from controlplane.policy.documents import Model
from controlplane.policy.fields import (
    CLAIM_PATTERN,
    COOKIE_PATTERN,
    FILE_PATTERN,
    HEADER_PATTERN,
    METHOD_PATTERN,
    PATH_PATTERN,
    QUERY_PATTERN,
    USERS_FILE_PATTERN,
)
from controlplane.policy.problems import Finding, Path, meant, written
from controlplane.policy.values import NAME_PATTERN, shown
from controlplane.policy.yaml_source import Value

_PATTERNS = {
    CLAIM_PATTERN: "the name of a claim: letters, digits, '-' and '_', with '.' between nested ones",
    COOKIE_PATTERN: "a cookie name: letters, digits, '-', '_' and '.'",
    FILE_PATTERN: "a whole path of a file, such as '/etc/turnout/tls.crt'",
    HEADER_PATTERN: "a header name: lower-case letters, digits and '-'",
    METHOD_PATTERN: "a method: capitals, such as GET",
    NAME_PATTERN: "a name: lower-case letters, digits, '-', '_' and '.', a letter or digit first and last",
    PATH_PATTERN: "a path prefix: '/' first, without spaces, '?' and '#'",
    QUERY_PATTERN: "the name of a query parameter: letters, digits, '-', '_', '.' and '~'",
    USERS_FILE_PATTERN: "a file of users: a path from the document's folder on, such as 'users/beta.txt'",
}
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "mapping_type": "a mapping",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}


def explain(model: type[BaseModel], value: dict[str, Value], error: ValidationError) -> list[Finding]:
    """Return every finding of pydantic, in the order of the document's fields."""
    details = error.errors(include_url=False, include_input=True)
    return [finding for detail in details if (finding := _finding(model, value, detail))]


def told(model: type[BaseModel], value: Any, error: ValidationError, whole: str) -> str:
    """Return the findings in one line, for what came by other ways than a file; ``whole`` is called so."""
    known = value if isinstance(value, dict) else {}
    found = explain(model, known, error)
    return "; ".join(f"{written(each.path) or whole}: {each.text}" for each in found)


def _finding(model: type[BaseModel], value: dict[str, Value], detail: ErrorDetails) -> Finding | None:
    kind, loc, given, context = detail["type"], detail["loc"], detail["input"], detail.get("ctx", {})
    path, found = _written_path(value, loc)
    if kind == "too_short" and isinstance(found, list | dict) and len(found) >= context["min_length"]:
        return None  # it is short only because its items are wrong, which they say themselves
    text = _text(kind, given, context, " or a mapping" if loc[-1:] == ("(off)",) else "")
    if kind in ("model_type", "model_attributes_type"):
        text += f"; known: {', '.join(fields(model_at(model, loc)))}"
    match kind:
        case "missing":
            return Finding((*path, str(loc[-1])), text)
        case "extra_forbidden":
            known = fields(model_at(model, loc[:-1]))
            word = str(path[-1])
            advice = _elsewhere(model, value, loc, word) or _other_kind(loc, word) or meant(word, known)
            text = f"unknown field; known: {', '.join(known)}{advice}"
            return Finding(path, text, at_key=True)
        case _:
            return Finding(path, text, at_key=loc[-1:] == ("[key]",))


def _text(kind: str, given: Any, context: Mapping[str, Any], also: str) -> str:
    match kind:
        case "value_error":
            text = str(context["error"])
        case "missing":
            text = "missing; it is required"
        case "string_type" if isinstance(given, bool | int | float):
            text = f"{shown(given)} is not text; write it in quotes"
        case "string_pattern_mismatch":
            text = f"{shown(given)} is not {_PATTERNS[context['pattern']]}"
        case "string_too_long":
            text = f"has {len(given)} characters; at most {context['max_length']} are allowed"
        case "too_short" | "string_too_short":
            text = f"is empty; at least {context['min_length']} is needed"
        case "literal_error":
            allowed = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
            close = meant(given, allowed) if isinstance(given, str) else ""
            text = f"{shown(given)} is not allowed; allowed: {', '.join(allowed)}{also}{close}"
        case "greater_than_equal":
            text = f"{shown(given)} is too small; at least {context['ge']} is needed"
        case "less_than_equal":
            text = f"{shown(given)} is too large; at most {context['le']} is allowed"
        case _:
            text = f"{_kind(given)} stands where {_EXPECTED.get(kind, 'something else')} belongs"
    return text


def _kind(given: Any) -> str:
    match given:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return shown(given)


def _written_path(value: Value, loc: tuple[int | str, ...]) -> tuple[Path, Value]:
    """Return the part of pydantic's location that the operator wrote, and the value there.

    Names of alternatives, which pydantic puts in between, are left out.
    """
    path: list[int | str] = []
    for part in loc:
        inner = (
            value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        )
        if part in inner:
            value = inner[part]  # type: ignore[index]
            path.append(part)
    return tuple(path), value


def fields(model: type[BaseModel]) -> list[str]:
    """Return the names of a model's fields as operators write them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model of the part at ``loc``, which may name alternatives in brackets."""
    names = iter(loc)
    annotation: Any = model
    for name in names:
        if isinstance(name, int):
            continue
        if name.startswith("("):
            model = _inner(_alternative(annotation, name)) or model
            continue
        field = next(f for n, f in model.model_fields.items() if name in (f.alias, n))
        annotation = field.rebuild_annotation()
        model = _inner(annotation) or model
        if _is_mapping(field.annotation):
            next(names, None)  # a key that the operator chose
    return model


def _alternative(annotation: Any, tag: str) -> Any:
    """Return the part of an annotation that bears a tag, or None."""
    if any(isinstance(mark, Tag) and mark.tag == tag for mark in getattr(annotation, "__metadata__", ())):
        return annotation
    return next((found for part in get_args(annotation) if (found := _alternative(part, tag))), None)


def _inner(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part))), None)


def _elsewhere(model: type[BaseModel], value: Value, loc: tuple[int | str, ...], word: str) -> str:
    """Return where a field belongs that is one level too deep, or not deep enough; '' if it is neither."""
    here = model_at(model, loc[:-1])
    for end in range(len(loc) - 2, -1, -1):
        if str(loc[end]).startswith("("):
            continue  # an alternative of one part
        if (outer := model_at(model, loc[:end])) is not here:
            if word not in fields(outer):
                break
            _, given = _written_path(value, loc[:end])
            beside = next(part for part in loc[end:] if isinstance(given, dict) and part in given)
            return f"; {word!r} stands beside {beside!r}, not inside of it"
    _, given = _written_path(value, loc[:-1])
    inside = [
        field.alias or name
        for name, field in here.model_fields.items()
        if any(word in fields(inner) for inner in _models(field.rebuild_annotation()))
    ]
    written = [name for name in inside if isinstance(given, dict) and name in given] or inside
    return f"; {word!r} stands inside of {' or '.join(map(repr, written))}" if 1 <= len(written) <= 4 else ""


def _other_kind(loc: tuple[int | str, ...], word: str) -> str:
    """Return which condition a field belongs to that was written into one of another kind; or ''."""
    kind = next((part for part in reversed(loc[:-1]) if not str(part).startswith("(")), None)
    match kind, word:
        case "latency", "p50" | "p90" | "p95" | "p99":
            return "; a limit is an entry of its own in the list"
        case "errors", "at_most":
            return "; a limit is `error_rate: {at_most: 1%}`"
        case "success_rate" | "error_rate", "against" | "margin":
            return "; with the baseline `errors: {against: baseline, margin: 25%}` compares"
    return ""


def _models(annotation: Any) -> Iterator[type[Model]]:
    """Yield all models that a value of this type may be."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is Mapping
