"""Who may use the HTTP API: a file of names, roles and the hashes of their tokens."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import AfterValidator, Field, ValidationError

from controlplane.policy.documents import Model
from controlplane.policy.explanation import explain
from controlplane.policy.fields import Name
from controlplane.policy.problems import Finding, written
from controlplane.policy.roles import Role
from controlplane.policy.values import shown
from controlplane.policy.yaml_source import read

log = structlog.get_logger(__name__)

_Stamp = tuple[int, int, int]


class OperatorsError(Exception):
    """The file of operators cannot be used; the text says where and why."""


def _is_digest(text: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise ValueError("is not what `turnout token` prints: sha256: and 64 of 0-9a-f")
    return text


def _is_spoken(name: str) -> str:
    if not name or name != name.strip() or len(name) > 64 or not name.isprintable():
        raise ValueError(f"{shown(name)} is not a name: up to 64 characters, no space around them")
    return name


class Operator(Model):
    """Someone with a token; without ``services`` the role holds for all of them."""

    name: Annotated[str, AfterValidator(_is_spoken)]
    role: Role
    services: tuple[Name, ...] = ()
    token: Annotated[str, AfterValidator(_is_digest)]


class _File(Model):
    operators: Annotated[tuple[Operator, ...], Field(min_length=1)]


def new_token() -> tuple[str, str]:
    """Return a token and what the file keeps of it.

    A token has 256 bits of chance, so that one round of SHA-256 is as good as a slow hash is for a password.
    """
    token = f"turnout_{secrets.token_urlsafe(32)}"
    return token, _digest(token)


def _digest(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def enrol(path: Path, name: str, role: Role, services: Sequence[str], digest: str) -> None:
    """Add a line for someone to a file; readable by its owner alone if it is new.

    Raises:
        OperatorsError: If the file would be wrong with it; then it is as it was.
    """
    scope = f", services: [{', '.join(services)}]" if services else ""
    line = f"  - {{name: {json.dumps(name)}, role: {role}{scope}, token: {json.dumps(digest)}}}\n"
    try:
        before = path.read_text() if path.exists() else "operators:\n"
        text = before + ("" if before.endswith("\n") else "\n") + line
        parse(str(path), text.encode())
        new = path.with_name(f".{path.name}.new")
        new.touch(0o600)
        new.write_text(text)
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    except OSError as error:
        raise OperatorsError(f"{path}: {(error.strerror or str(error)).lower()}") from error


class Operators:
    """The file as it is now; if it becomes wrong while it is in use, the last good one counts."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            OperatorsError: If it cannot be used.
        """
        self._path = path
        self._stamp = _stamp(path)
        self._known = _read(path)

    def of(self, token: str) -> Operator | None:
        """Return whose token it is."""
        self._follow()
        return self._known.get(_digest(token))

    def _follow(self) -> None:
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._known = _read(self._path)
            log.info("operators read again", file=str(self._path), operators=len(self._known))
        except OperatorsError as error:
            log.error("operators not read, those of before count", error=str(error))


def _stamp(path: Path) -> _Stamp:
    try:
        stat = path.stat()
    except OSError as error:
        raise OperatorsError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _read(path: Path) -> dict[str, Operator]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OperatorsError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    found = parse(str(path), data)
    return {each.token: each for each in found}


def parse(file: str, data: bytes) -> tuple[Operator, ...]:
    """Return the operators of a file.

    Raises:
        OperatorsError: If anything is wrong with it, each mistake on a line of its own.
    """
    sources, problems = read(file, data)
    if problems:
        raise OperatorsError("\n".join(map(str, problems)))
    operators: tuple[Operator, ...] = ()
    source = sources[0]
    value = source.value if isinstance(source.value, dict) else {}
    findings = list(source.findings)
    if len(sources) > 1 or not value:
        findings.append(Finding((), "is not one mapping with a list of `operators`"))
    else:
        try:
            operators = _File.model_validate(value).operators
        except ValidationError as error:
            findings += explain(_File, value, error)
    findings += _twice(operators)
    if findings:
        raise OperatorsError("\n".join(str(source.problem(f, written(f.path))) for f in findings))
    return operators


def _twice(operators: Sequence[Operator]) -> Iterator[Finding]:
    for field in ("name", "token"):
        values = [getattr(each, field) for each in operators]
        for number, given in enumerate(values):
            if (first := values.index(given)) < number:
                what = f"{given!r} stands" if field == "name" else "stands"
                yield Finding(("operators", number, field), f"{what} twice, first in operators[{first}]")
