"""Lists of users that stand in files of their own: read into the documents, so that the store has them.

A file has one user a line; empty lines and those that begin with ``#`` do not count.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from controlplane.policy.documents import MAX_USERS, TOO_MANY_USERS, Match, Model
from controlplane.policy.problems import Finding, Path, Problem, written
from controlplane.policy.validation import Checked
from controlplane.policy.values import check_identity, shown

SUFFIX = ".txt"
MAX_USERS_BYTES = 2 * 1024 * 1024

Files = Mapping[str, bytes | Problem]


def filled(checked: Checked, files: Files) -> Checked:
    """Return a document with the users of its files, or with what is wrong with those."""
    if checked.document is None:
        return checked
    found: list[Finding] = []

    def read(path: Path, name: str) -> tuple[str, ...]:
        whole = posixpath.normpath(posixpath.join(posixpath.dirname(checked.source.file), name))
        try:
            return _users(name, whole, files.get(whole))
        except ValueError as error:
            found.append(Finding(path, str(error)))
            return ()

    document = _filled(checked.document, (), read)
    if not found:
        return checked if document is checked.document else replace(checked, document=document)
    problems = (checked.source.problem(finding, written(finding.path)) for finding in found)
    return replace(checked, document=None, problems=(*checked.problems, *problems))


def _filled(value: Any, path: Path, read: Callable[[Path, str], tuple[str, ...]]) -> Any:
    """Return the same value if it names no file."""
    if isinstance(value, Match) and value.users_file is not None:
        users = read((*path, "users_file"), value.users_file)
        try:
            return Match(users=users) if users else value
        except ValidationError as error:  # what the list itself may be was checked line by line
            raise AssertionError(error) from error
    if isinstance(value, tuple):
        items = tuple(_filled(item, (*path, place), read) for place, item in enumerate(value))
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if not isinstance(value, Model):
        return value
    changed = dict(_changed(value, path, read))
    return value.model_copy(update=changed) if changed else value


def _changed(
    value: Model, path: Path, read: Callable[[Path, str], tuple[str, ...]]
) -> Iterator[tuple[str, Any]]:
    for name, field in type(value).model_fields.items():
        old = getattr(value, name)
        if isinstance(old, Model | tuple):
            new = _filled(old, (*path, field.alias or name), read)
            if new is not old:
                yield name, new


def _users(name: str, whole: str, content: bytes | Problem | None) -> tuple[str, ...]:
    if content is None:
        raise ValueError(f"{name!r} is not among the files; it was looked for at {whole}")
    if isinstance(content, Problem):
        raise ValueError(str(content))
    if len(content) > MAX_USERS_BYTES:
        raise ValueError(
            f"{name} has more than {MAX_USERS_BYTES} bytes; {TOO_MANY_USERS.format(count='too many')}"
        )
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error
    found: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        user = line.strip()
        if user and not user.startswith("#"):
            try:
                found[check_identity(user)] = None
            except ValueError as error:
                raise ValueError(f"{name}:{number}: {error}") from error
    if not found:
        raise ValueError(f"{name} has no user; one a line is needed")
    if len(found) > MAX_USERS:
        raise ValueError(f"{shown(name)} {TOO_MANY_USERS.format(count=len(found))}")
    return tuple(found)
