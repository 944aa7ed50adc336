"""Another system's document, read so that nothing in it is lost silently.

Every part that a translator looks into is remembered, and whatever it does not take is listed at the end as
having no equivalent. A field that is taken must therefore become something, or be noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite

Json = Mapping[str, object]
Documents = Mapping[tuple[str, str], Json]  # by kind and name
NO_EQUIVALENT = "has no equivalent"
WIDER = "has no equivalent, and the match would be wider without it, so the match was left out"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was not carried over as it was.

    Attributes:
        where: The document and the path in it: ``Canary/podinfo: spec.analysis.threshold``.
        what: The value, in short.
        why: What became of it, and what to do.
        lost: The document and path of all that it speaks for: nothing below it was carried over. '' if it
            is a remark only.
    """

    where: str
    what: str
    why: str
    lost: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.why}"


@dataclass(slots=True)
class Notes:
    """Collects notes in the order in which they turn up."""

    found: list[Note] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)  # all that were read

    def add(self, where: str, value: object, why: str = NO_EQUIVALENT, lost: str = "") -> None:
        """Note something about a value; ``lost`` as in `Note`."""
        note = Note(where, _short(value), why, lost)
        if note not in self.found:
            self.found.append(note)

    def finish(self) -> None:
        """Note all that no reader took."""
        for part in self.parts:
            part.finish()


class Part:
    """A mapping of a foreign document that remembers what was taken from it."""

    def __init__(self, where: str, data: object, notes: Notes) -> None:
        self.where = where
        self._notes = notes
        self._data: dict[str, object] = {}
        notes.parts.append(self)
        if isinstance(data, Mapping):
            self._data = {str(key): value for key, value in data.items()}
        elif data is not None:
            notes.add(where, data, "is not a mapping and was left out", where)

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def fields(self) -> tuple[str, ...]:
        """Return the fields that nobody has taken yet."""
        return tuple(self._data)

    def path(self, key: str) -> str:
        """Return where a field is."""
        return f"{self.where}.{key}" if not self.where.endswith(":") else f"{self.where} {key}"

    def filled(self, fill: Callable[[str], str]) -> Part:
        """Return this with every text in it filled in, and read that instead."""
        data = _filled(dict(self._data), fill)
        self._data.clear()
        return Part(self.where, data, self._notes)

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
            self._notes.add(self.path(key), value, "is not a list and was left out", self.path(key))
        return [Part(f"{self.path(key)}[{i}]", item, self._notes) for i, item in enumerate(items)]

    def words(self, key: str) -> list[str]:
        """Return a list of words or numbers as texts; notes entries that are neither."""
        value = self.take(key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        for i, item in enumerate(items):
            if item is None or isinstance(item, (Mapping, list)):
                where = f"{self.path(key)}[{i}]"
                self._notes.add(where, item, "is not a word and was left out", where)
        return [str(item) for item in items if item is not None and not isinstance(item, (Mapping, list))]

    def drop(self, key: str, why: str) -> None:
        """Note that a field, if it is there, was not carried over, and why."""
        if key in self._data:
            self._notes.add(self.path(key), self.take(key), why, self.path(key))

    def lose(self, key: str, value: object, why: str) -> None:
        """Note that a field that was taken was not carried over after all."""
        self._notes.add(self.path(key), value, why, self.path(key))

    def hide(self, key: str, why: str) -> None:
        """Note that a field was not carried over, without its value: it may be a secret."""
        if self.take(key) is not None:
            self._notes.add(self.path(key), key, why, self.path(key))

    def leave(self, key: str, value: object, why: str) -> None:
        """Note that nothing of this mapping was carried over, for what one of its fields is."""
        self._data.clear()
        self._notes.add(self.path(key), value, why, self.where)

    def note(self, key: str, value: object, why: str) -> None:
        """Note something about a field that was taken."""
        self._notes.add(self.path(key), value, why)

    def kept_whole(self, *inner: Part) -> bool:
        """Return whether this match and its parts were taken whole; if not, leave it: it would be wider."""
        for part in (self, *inner):
            for key in part.fields():
                where, value = part.path(key), part.take(key)
                for each in (self, *inner):
                    each._data.clear()
                self._notes.add(where, value, WIDER, self.where)
                return False
        return True

    def finish(self) -> None:
        """Note all that nobody took."""
        for key in list(self._data):
            for where, value in _leaves(self.path(key), self.take(key)):
                self._notes.add(where, value, lost=where)


def opened(kind: str, name: str, body: Json, notes: Notes) -> tuple[Part, Part]:
    """Return ``metadata`` and ``spec`` of an object of Kubernetes; the rest of it says who it is."""
    whole = Part(f"{kind}/{name}:", body, notes)
    for key in ("apiVersion", "kind"):
        whole.take(key)
    whole.drop("status", "is what was, not what is wanted")
    metadata = whole.part("metadata")
    metadata.take("name")
    return metadata, whole.part("spec")


def _filled(value: object, fill: Callable[[str], str]) -> object:
    if isinstance(value, Mapping):
        return {key: _filled(inner, fill) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, fill) for inner in value]
    return fill(value) if isinstance(value, str) else value


def _leaves(where: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{where}.{key}", inner)
    else:
        yield where, value


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
