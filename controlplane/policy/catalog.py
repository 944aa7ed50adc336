"""The accepted documents: one immutable generation, from which everything else is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Literal, Self, TypeVar

from controlplane.policy.documents import (
    KINDS,
    Document,
    Fleet,
    Key,
    Match,
    Policy,
    Release,
    Segment,
    Service,
)
from controlplane.policy.problems import Path

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Entry:
    """A document and where it was read."""

    document: Document
    file: str = ""
    line: int = 1
    column: int = 1

    @property
    def key(self) -> Key:
        """Its kind and name."""
        return self.document.kind, self.document.name

    @property
    def place(self) -> str:
        """Where it was read, as ``file:line:column``."""
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Accepted documents by kind and name; every document that one of them names is here too."""

    entries: Mapping[Key, Entry] = field(default_factory=lambda: MappingProxyType({}))
    # What was asked of it before: it never changes.
    _kinds: dict[type, tuple[Any, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _hashes: dict[Key, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _texts: dict[Key, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, *entries: Entry | Document) -> Self:
        """Return a catalog of these documents; of two with one kind and name the last counts."""
        known = {e.key: e for e in (x if isinstance(x, Entry) else Entry(x) for x in entries)}
        return cls(MappingProxyType({key: known[key] for key in sorted(known)}))

    def get(self, kind: str, name: str) -> Document | None:
        """Return a document, or None."""
        entry = self.entries.get((kind, name))
        return entry.document if entry else None

    def fleet(self, name: str) -> Fleet:
        """Return a fleet, or raise ``KeyError``."""
        return self._one(Fleet, name)

    def policy(self, name: str) -> Policy:
        """Return a policy, or raise ``KeyError``."""
        return self._one(Policy, name)

    def release(self, name: str) -> Release:
        """Return a release, or raise ``KeyError``."""
        return self._one(Release, name)

    def segment(self, name: str) -> Segment:
        """Return a segment, or raise ``KeyError``."""
        return self._one(Segment, name)

    def service(self, name: str) -> Service:
        """Return a service, or raise ``KeyError``."""
        return self._one(Service, name)

    def fleets(self) -> tuple[Fleet, ...]:
        """Return all fleets, by name."""
        return self._all(Fleet)

    def policies(self) -> tuple[Policy, ...]:
        """Return all policies, by name."""
        return self._all(Policy)

    def releases(self) -> tuple[Release, ...]:
        """Return all releases, by name."""
        return self._all(Release)

    def segments(self) -> tuple[Segment, ...]:
        """Return all segments, by name."""
        return self._all(Segment)

    def services(self) -> tuple[Service, ...]:
        """Return all services, by name."""
        return self._all(Service)

    def anonymous(self, service: Service) -> Literal["generate", "random", "baseline"]:
        """Return what happens to requests without identity; the default is by the kinds of listeners."""
        if service.user.otherwise:
            return service.user.otherwise
        kinds = {listener.kind for name in service.fleets for listener in self.fleet(name).listeners}
        return "generate" if kinds - {"grpc"} == {"edge"} else "random"

    def digests(self) -> dict[Key, str]:
        """Return a hash of each document's content; its place in a file does not count."""
        if not self._hashes:
            self._hashes.update(
                {key: sha256(text.encode()).hexdigest() for key, text in self._canonical().items()}
            )
        return dict(self._hashes)

    def to_json(self) -> str:
        """Return the catalog as it is stored; equal catalogs give equal text."""
        texts = self._canonical()
        rows = (
            f'{{"file":{json.dumps(e.file)},"line":{e.line},"column":{e.column},"document":{texts[key]}}}'
            for key, e in self.entries.items()
        )
        return f'{{"documents":[{",".join(rows)}]}}'

    def _canonical(self) -> Mapping[Key, str]:
        """Return the text of each document: what was compared beside the loop is stored without delay."""
        if not self._texts:
            self._texts.update({key: canonical(entry.document) for key, entry in self.entries.items()})
        return self._texts

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return a stored catalog.

        Raises:
            ValueError: If it is not one, or was stored by a version that knows more fields.
        """
        rows = json.loads(text)["documents"]
        return cls.of(*(Entry(_document(r["document"]), r["file"], r["line"], r["column"]) for r in rows))

    def _one(self, kind: type[D], name: str) -> D:
        document = self.entries[kind.__name__, name].document
        assert isinstance(document, kind)
        return document

    def _all(self, kind: type[D]) -> tuple[D, ...]:
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = tuple(
                e.document for e in self.entries.values() if isinstance(e.document, kind)
            )
        return found


def canonical(document: Document) -> str:
    """Return a document as JSON with sorted keys, defaults written out and unset fields left out."""
    plain = document.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def _document(plain: dict[str, object]) -> Document:
    model = KINDS[str(plain["kind"])]
    return model.model_validate(plain, by_alias=True, by_name=False)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Reference:
    """That a document names another, at ``path``."""

    path: Path
    kind: str
    name: str

    @property
    def key(self) -> Key:
        """Kind and name of the other."""
        return self.kind, self.name


def references(document: Document) -> Iterator[Reference]:
    """Yield the documents that one needs; releases that it names may have none, see `policy.orders`."""
    match document:
        case Service():
            for index, name in enumerate(document.fleets):
                yield Reference(("fleets", index), "Fleet", name)
            if isinstance(document.hold_out, str):
                yield Reference(("hold_out",), "Segment", document.hold_out)
        case Policy():
            yield from _segments(document)
        case Release():
            yield Reference(("service",), "Service", document.service)
            yield Reference(("policy",), "Policy", document.policy)
        case Fleet() | Segment():
            return


def _segments(policy: Policy) -> Iterator[Reference]:
    for index, step in enumerate(policy.steps):
        if step.segment is not None and not isinstance(step.segment, Match):
            yield Reference(("steps", index, "segment"), "Segment", step.segment)
        if step.mirror is not None and isinstance(step.mirror.segment, str):
            yield Reference(("steps", index, "mirror", "segment"), "Segment", step.mirror.segment)
        for place, name in enumerate(step.exclude):
            yield Reference(("steps", index, "exclude", place), "Segment", name)
