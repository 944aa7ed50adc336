"""Another system's document, read so that nothing in it is lost silently.

Whatever a translator does not take is listed at the end as having no equivalent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite

Json = Mapping[str, object]
NO_EQUIVALENT = "has no equivalent"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was not carried over as it was.

    Attributes:
        where: The document and the path in it: ``Canary/podinfo: spec.analysis.threshold``.
        what: The value, in short.
        why: What became of it, and what to do.
    """

    where: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.why}"


@dataclass(slots=True)
class Notes:
    """Collects notes in the order in which they turn up."""

    found: list[Note] = field(default_factory=list)

    def add(self, where: str, value: object, why: str = NO_EQUIVALENT) -> None:
        """Note that a value was not carried over."""
        note = Note(where, _short(value), why)
        if note not in self.found:
            self.found.append(note)


class Part:
    """A mapping of a foreign document that remembers what was taken from it."""

    def __init__(self, where: str, data: object, notes: Notes) -> None:
        self.where = where
        self._notes = notes
        self._data: dict[str, object] = {}
        if isinstance(data, Mapping):
            self._data = {str(key): value for key, value in data.items()}
        elif data is not None:
            notes.add(where, data, "is not a mapping and was left out")

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def fields(self) -> tuple[str, ...]:
        """Return the fields that nobody has taken yet."""
        return tuple(self._data)

    def path(self, key: str) -> str:
        """Return where a field is."""
        return f"{self.where}.{key}" if not self.where.endswith(":") else f"{self.where} {key}"

    def take(self, key: str) -> object:
        """Return a value and count it as taken; None if there is none."""
        return self._data.pop(key, None)

    def text(self, key: str) -> str:
        """Return a word or a number as text; '' if there is none."""
        value = self._data.get(key)
        if value is None or isinstance(value, (Mapping, list)):
            return ""
        return str(self.take(key)).strip()

    def number(self, key: str) -> float | None:
        """Return a number, also one that is written as text; None if there is none."""
        value = self._data.get(key)
        try:
            found = float(str(value).strip().removesuffix("%"))
        except ValueError:
            return None
        if not isfinite(found):
            return None
        self.take(key)
        return found

    def part(self, key: str) -> Part:
        """Return a mapping; an empty one if there is none."""
        return Part(self.path(key), self.take(key), self._notes)

    def parts(self, key: str) -> list[Part]:
        """Return a list of mappings."""
        value = self.take(key)
        items = value if isinstance(value, list) else []
        if value is not None and not isinstance(value, list):
            self._notes.add(self.path(key), value, "is not a list and was left out")
        return [Part(f"{self.path(key)}[{i}]", item, self._notes) for i, item in enumerate(items)]

    def drop(self, key: str, why: str) -> None:
        """Note that a field, if it is there, was not carried over, and why."""
        if key in self._data:
            self._notes.add(self.path(key), self.take(key), why)

    def note(self, key: str, value: object, why: str) -> None:
        """Note something about a field that was taken."""
        self._notes.add(self.path(key), value, why)

    def finish(self) -> None:
        """Note all that nobody took."""
        for key in list(self._data):
            for where, value in _leaves(self.path(key), self.take(key)):
                self._notes.add(where, value)


def _leaves(where: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{where}.{key}", inner)
    else:
        yield where, value


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
