"""One YAML document to a document that is right in itself, or to all that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from controlplane.policy.checks import check
from controlplane.policy.documents import KINDS, Document, Key, Model
from controlplane.policy.explanation import explain
from controlplane.policy.problems import Finding, Path, Problem, meant, written
from controlplane.policy.values import shown
from controlplane.policy.yaml_source import Source, Value

MAX_PROBLEMS = 100  # shown of one document

_NO_VALUE = "has no value; write one or leave the key out"


@dataclass(frozen=True, slots=True)
class Checked:
    """What one YAML document turned out to be.

    Attributes:
        document: None if it has errors.
        key: Its kind and name as far as they can be read, even if it has errors; else None.
    """

    source: Source
    document: Document | None
    key: Key | None
    problems: tuple[Problem, ...]


def validate(source: Source) -> Checked:
    """Check one document alone; what it refers to is not looked at."""
    raw = source.value
    form = [*source.findings, *(Finding(path, _NO_VALUE) for path in _nulls(raw))]
    if not isinstance(raw, dict):
        form.append(Finding((), "a document is a mapping with a kind"))
        return Checked(source, None, None, _problems(source, form, []))
    kind, name = raw.get("kind"), raw.get("name")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None or not isinstance(kind, str):
        form.append(Finding(("kind",), _kind_text(raw, source)))
        return Checked(source, None, None, _problems(source, form, []))
    document, content = _document(model, raw)
    if any(finding.level == "error" for finding in form + content):
        document = None
    key = (kind, name) if isinstance(name, str) else None
    return Checked(source, document, key, _problems(source, form, content))


def _document(model: type[Model], raw: dict[str, Value]) -> tuple[Document | None, list[Finding]]:
    found = check(model, raw)
    try:
        return model.model_validate(raw, by_alias=True, by_name=False), found  # type: ignore[return-value]
    except ValidationError as error:
        return None, explain(model, raw, error) + found


def _kind_text(raw: dict[str, Value], source: Source) -> str:
    known = f"known: {', '.join(KINDS)}"
    if "kind" not in raw:
        return f"missing; {known}"
    word = source.text(("kind",)) or raw["kind"]
    return f"unknown kind {shown(word)}; {known}{meant(str(word), KINDS)}"


def _nulls(value: Value, path: Path = ()) -> Iterator[Path]:
    if value is None:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in parts:
        yield from _nulls(inner, (*path, part))


def _problems(source: Source, form: list[Finding], content: list[Finding]) -> tuple[Problem, ...]:
    """Return the problems in the order of the file: one error for each part, and not too many.

    What is wrong with the form of a part makes noise of whatever its content, or the part around it, seems to
    lack.
    """
    told = {path for finding in form for path in (finding.path[:-1], finding.path)} if form else set()
    kept = list({finding.path: finding for finding in reversed(form)}.values())
    for finding in content:
        if finding.level == "warning" or finding.path not in told:
            kept.append(finding)
            told.add(finding.path)
    problems = sorted(source.problem(finding, written(finding.path)) for finding in kept)
    if len(problems) > MAX_PROBLEMS:
        more = f"and {len(problems) - MAX_PROBLEMS} more problems"
        problems[MAX_PROBLEMS:] = [Problem(source.file, *source.where(()), "", more)]
    return tuple(problems)
