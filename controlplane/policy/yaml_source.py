"""YAML text to plain values with positions, safe for text from anywhere.

PyYAML's composing code recurses in C and takes the process down on deep nesting, so it is never used: the
parser's events, which do not recurse, are put together here within fixed limits. Scalars follow YAML 1.2's
core schema without octal and hexadecimal numbers: ``no`` is a word, ``22:30`` is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from controlplane.policy.problems import Finding, Path, Problem
from controlplane.policy.values import shown

MAX_BYTES = 256 * 1024  # bytes of one file
MAX_DEPTH = 32
MAX_NODES = 20_000  # of one file

Scalar = None | bool | int | float | str
Value = Scalar | list["Value"] | dict[str, "Value"]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # not in YAML
_CONSTANTS: dict[str, Scalar] = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{f"{sign}.{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(slots=True)
class _Node:
    """A value and where it stands; ``keys`` says where each key of a mapping stands."""

    line: int
    column: int
    value: Value
    text: str = ""  # of a scalar, as written
    children: dict[str | int, _Node] = field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """One YAML document of a file: its value, what is wrong with its form, and where its parts stand."""

    file: str
    value: Value
    findings: tuple[Finding, ...]
    _root: _Node

    def where(self, path: Path, at_key: bool = False) -> tuple[int, int]:
        """Return line and column, from 1, of the part at ``path``, or of the nearest part around it."""
        node, place = self._root, (self._root.line, self._root.column)
        for part in path:
            if part not in node.children:
                break
            key, node = node.keys.get(str(part)), node.children[part]
            place = key if at_key and key else (node.line, node.column)
        return place

    def text(self, path: Path) -> str:
        """Return a scalar as it was written; empty for anything else."""
        node: _Node | None = self._root
        for part in path:
            node = node.children.get(part) if node else None
        return node.text if node else ""

    def problem(self, finding: Finding, path: str) -> Problem:
        """Give a finding its place; ``path`` is how it is shown."""
        line, column = finding.place or self.where(finding.path, finding.at_key)
        return Problem(self.file, line, column, path, finding.text, finding.level)


class _RefusedError(Exception):
    """The file cannot be read, or not any further."""

    def __init__(self, place: tuple[int, int], text: str) -> None:
        super().__init__(text)
        self.place = place
        self.text = text


def read(file: str, data: bytes) -> tuple[tuple[Source, ...], tuple[Problem, ...]]:
    """Return the documents of a file, and why it cannot be read; one of the two is empty."""
    try:
        sources = tuple(_Composer(file).sources(_text(data)))
        if sources:
            return sources, ()
        place, text = (1, 1), "empty: no document"
    except _RefusedError as error:
        place, text = error.place, error.text
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        text = f"not YAML: {error.problem or error.context}"
    return (), (Problem(file, *place, "", text),)


def _text(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _RefusedError((1, 1), f"is too large; a file has at most {MAX_BYTES // 1024} KB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        byte = f"{data[error.start]:#04x}"
        raise _RefusedError(_end(before), f"not UTF-8: byte {byte}; files are UTF-8") from error
    if found := _CONTROL.search(text):
        raise _RefusedError(_end(text[: found.start()]), f"has the character {found[0]!a}; files are text")
    return text


def _end(text: str) -> tuple[int, int]:
    """Return the place right after ``text``."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    assert mark is not None
    return mark.line + 1, mark.column + 1


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence that is being read; a mapping without ``key`` waits for one."""

    node: _Node
    path: Path
    key: str | None = None


class _Composer:
    """Puts the parser's events together: open mappings and sequences are a list, not a call stack."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._nodes = 0
        self._open: list[_Frame] = []
        self._findings: list[Finding] = []
        self._root: _Node | None = None

    def sources(self, text: str) -> Iterator[Source]:
        """Yield the documents; those without content are left out."""
        for event in yaml.parse(text, Loader=_LOADER):
            match event:
                case yaml.DocumentStartEvent():
                    self._findings, self._root = [], None
                    if event.version or event.tags:
                        raise _RefusedError(
                            _place(event), "directives such as %YAML and %TAG are not allowed"
                        )
                case yaml.DocumentEndEvent():
                    if self._root and not (self._root.value is None and not self._findings):
                        yield Source(self._file, self._root.value, tuple(self._findings), self._root)
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    self._open.pop()
                case yaml.NodeEvent():
                    self._add(event)

    def _add(self, event: yaml.NodeEvent) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _RefusedError(_place(event), f"has more than {MAX_NODES} values")
        frame = self._open[-1] if self._open else None
        if frame and isinstance(frame.node.value, dict) and frame.key is None:
            self._key(frame, event)
            return
        node = _Node(*_place(event), None)
        if isinstance(event, yaml.ScalarEvent):
            node.text = event.value
            node.value = event.value if event.style else _resolve(event.value)
        elif isinstance(event, yaml.CollectionStartEvent):
            node.value = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        path = self._attach(frame, node)
        if isinstance(event, yaml.AliasEvent):
            alias = shown(f"*{event.anchor}")
            self._findings.append(Finding(path, f"alias {alias} is not allowed; write it out"))
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            self._findings.append(Finding(path, f"tag {shown(event.tag)} is not allowed"))
        if isinstance(event, yaml.CollectionStartEvent):
            if len(self._open) == MAX_DEPTH:
                raise _RefusedError(_place(event), f"is nested deeper than {MAX_DEPTH} levels")
            self._open.append(_Frame(node, path))

    def _key(self, frame: _Frame, event: yaml.NodeEvent) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise _RefusedError(_place(event), "a key must be a word")
        place = _place(event)
        first = frame.node.keys.setdefault(event.value, place)
        if first != place:
            text = f"stands twice in one mapping; first at {first[0]}:{first[1]}"
            self._findings.append(Finding((*frame.path, event.value), text, place=place))
        frame.key = event.value

    def _attach(self, frame: _Frame | None, node: _Node) -> Path:
        """Put ``node`` where it belongs; of two equal keys the first is kept."""
        if frame is None:
            self._root = node
            return ()
        value = frame.node.value
        if isinstance(value, list):
            part: str | int = len(value)
            value.append(node.value)
        else:
            assert isinstance(value, dict)
            part, frame.key = frame.key or "", None
            value.setdefault(str(part), node.value)
        frame.node.children.setdefault(part, node)
        return (*frame.path, part)


def _resolve(text: str) -> Scalar:
    """Return what a plain scalar means. Integers of more than 18 digits stay text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= 18 else text
    return float(text) if len(text) <= 40 and _FLOAT.fullmatch(text) else text
