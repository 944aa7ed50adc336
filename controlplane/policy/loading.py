"""Files to the next catalog: what is right is taken, what is wrong leaves its last good version in force.

The unit is a document with what it refers to. A document with a mistake is refused, and so is a new or
changed one that refers to it; everything else is taken. A refused document stays as it was last accepted,
together with what it refers to. A document that is gone is removed, unless its file has a mistake: the
mistake may be in its name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from controlplane.policy import choices, emergencies, habits, limits, orders, settings, userfiles
from controlplane.policy.catalog import Catalog, Entry, references
from controlplane.policy.documents import Document, Fleet, Key, Match, Policy, Release, Segment, Service
from controlplane.policy.fitness import findings as misfits
from controlplane.policy.fitness import warnings as misfit_warnings
from controlplane.policy.groups import findings as group_findings
from controlplane.policy.nodes import overlap
from controlplane.policy.problems import Finding, Path, Problem, meant, written
from controlplane.policy.segments import forgeable
from controlplane.policy.validation import Checked, validate
from controlplane.policy.yaml_source import Source, read

Files = Mapping[str, bytes | Problem]  # content by path, or why a file cannot be read


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of the files.

    Attributes:
        catalog: What is in force now.
        problems: Errors and warnings, by file and place.
        refused: Kind and name of documents that were refused, as far as they can be read; sorted.
        sources: The documents that were taken from the files, as they stand there.
    """

    catalog: Catalog
    problems: tuple[Problem, ...]
    refused: tuple[Key, ...]
    sources: Mapping[Key, Source] = field(default_factory=dict)

    def place(self, key: Key, path: Path) -> str:
        """Return where a part of a document stands: in these files, or where it was last read from."""
        source = self.sources.get(key)
        if source is None:
            return self.catalog.entries[key].place
        line, column = source.where(path, at_key=True)
        return f"{source.file}:{line}:{column}"

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that are not warnings."""
        return tuple(problem for problem in self.problems if problem.level == "error")


def load(
    files: Files,
    last_good: Catalog | None = None,
    *,
    keep_absent: bool = False,
    gone: Set[Key] = frozenset(),
    ordered: orders.Ordered | None = None,
) -> Loaded:
    """Return the catalog of ``files``.

    Args:
        files: All files of the folder, or those that were handed in.
        last_good: What is in force so far.
        keep_absent: True if a document that is not in ``files`` stays.
        gone: Those that do not all the same, unless others name them.
        ordered: The releases that the store knows, each with its service; None without a store.
    """
    intake = _Intake(last_good or Catalog(), ordered)
    documents: dict[Key, list[Checked]] = defaultdict(list)
    for file in sorted(files):
        for one in () if file.endswith(userfiles.SUFFIX) else intake.read(file, files):
            if one.key:
                documents[one.key].append(one)
    for key, same in documents.items():
        intake.take(key, same)
    intake.keep(documents.keys() | gone, keep_absent=keep_absent)
    return intake.resolve()


class _Intake:
    """Documents on their way into a catalog: ``fresh`` from the files, ``kept`` from the last good one.

    Of the kept, ``standing`` are as good as fresh; ``unsure`` were read from a file that has a mistake now.
    """

    def __init__(self, last: Catalog, ordered: orders.Ordered | None) -> None:
        self.last = last
        self.ordered = ordered
        self.groups = orders.Groups()
        self.fresh: dict[Key, tuple[Checked, Entry]] = {}
        self.kept: dict[Key, Entry] = {}
        self.standing: set[Key] = set()
        self.unsure: set[Key] = set()
        self.refused: set[Key] = set()
        self.problems: list[Problem] = []
        self._mistaken: set[str] = set()  # files: nothing that was read from them is removed

    def read(self, file: str, files: Files) -> list[Checked]:
        """Return the documents of a file, each checked alone."""
        content = files[file]
        sources, problems = read(file, content) if isinstance(content, bytes) else ((), (content,))
        checked = [userfiles.filled(validate(source), files) for source in sources]
        self.problems += problems
        if problems or not all(one.document for one in checked):
            self._mistaken.add(file)
        if problems:
            self.groups.unread.append((file, content))
        for one in checked:
            self.problems += one.problems
            if one.key is None:
                self.groups.refuse(one.source.value, None)
        return checked

    def keep(self, found: Set[Key], *, keep_absent: bool) -> None:
        """Keep documents that were not found, where that does not mean that they are gone."""
        for key, entry in self.last.entries.items():
            mistaken = entry.file in self._mistaken
            if key in found or not (keep_absent or mistaken):
                continue
            self.kept[key] = entry
            (self.unsure if mistaken else self.standing).add(key)
            if mistaken:
                self.groups.refuse(entry.document, key[1], f"cannot be read; {entry.file} has a mistake")

    def take(self, key: Key, same: list[Checked]) -> None:
        """Take in the documents of one kind and name: fresh is one that stands alone and has no errors."""
        for checked in same if len(same) > 1 else ():
            other = next(o for o in same if o is not checked)
            line, column = other.source.where(("name",))
            text = f"{key[0]} {key[1]!r} stands twice; also at {other.source.file}:{line}:{column}"
            self._report(checked, Finding(("name",), text))
        checked = same[0]
        if len(same) == 1 and checked.document:
            self.fresh[key] = checked, Entry(checked.document, checked.source.file, *checked.source.where(()))
        else:
            self._refuse(key)
            for one in same:
                self.groups.refuse(one.source.value, key[1])

    def resolve(self) -> Loaded:
        """Refuse what does not fit together until the rest does, and return it."""
        self._keep_named()
        while wrong := [*self._broken()] or [*self._clashes()]:
            for key, finding in wrong:
                if key in self.fresh:
                    self._report(self.fresh[key][0], finding)
            for key, _ in wrong:
                self._refuse(key)
        catalog = Catalog.of(*self._current().values())
        for checked, entry in self.fresh.values():
            for finding in _warnings(entry.document, catalog):
                self._report(checked, finding)
            if self.ordered is None and isinstance(entry.document, Release):
                for finding in orders.warnings(entry.document, (r.name for r in catalog.releases())):
                    self._report(checked, finding)
        sources = {key: checked.source for key, (checked, _) in self.fresh.items()}
        return Loaded(catalog, tuple(sorted(set(self.problems))), tuple(sorted(self.refused)), sources)

    def _current(self) -> dict[Key, Entry]:
        return self.kept | {key: entry for key, (_, entry) in self.fresh.items()}

    def _report(self, checked: Checked, finding: Finding) -> None:
        self.problems.append(checked.source.problem(finding, written(finding.path)))

    def _refuse(self, key: Key) -> None:
        self.refused.add(key)
        _, fresh = self.fresh.pop(key, (None, None))
        for entry in (fresh, self.last.entries.get(key)):
            if entry is not None:
                self.groups.refuse(entry.document, key[1])
        if key in self.last.entries:
            self.kept[key] = self.last.entries[key]
            self._keep_named()

    def _keep_named(self) -> None:
        """Keep what kept documents refer to, so that every name in the catalog leads somewhere."""
        waiting = list(self.kept.values())
        while waiting:
            for reference in references(waiting.pop().document):
                key = reference.key
                if key in self.last.entries and key not in self.fresh and key not in self.kept:
                    self.kept[key] = self.last.entries[key]
                    waiting.append(self.kept[key])

    def _broken(self) -> Iterator[tuple[Key, Finding]]:
        """Yield fresh documents that name what is not there, or what is refused."""
        current = self._current()
        documents = {key: entry.document for key, entry in current.items()}

        def find(kind: str, name: str) -> Document | None:
            entry = current.get((kind, name))
            return entry.document if entry else None

        for key, (_, entry) in self.fresh.items():
            changed = key not in self.last.entries or self.last.entries[key].document != entry.document
            for reference in references(entry.document):
                named = reference.key
                if named in self.fresh or named in self.standing or (named in current and not changed):
                    continue
                text = self._unsound(named) or _unknown(*named, current)
                yield key, Finding(reference.path, text)
            sound = self._unsound if changed else _sound
            told = orders.findings(entry.document, find, self.ordered, sound)
            yield from ((key, finding) for finding in (*told, *self._apart(entry.document, changed)))
            yield from ((key, finding) for finding in _version_findings(entry.document, current))
            yield from ((key, finding) for finding in choices.findings(entry.document, find))
            yield from ((key, finding) for finding in emergencies.findings(entry.document, find))
            yield from ((key, finding) for finding in group_findings(entry.document, documents))
            yield from ((key, finding) for finding in settings.mirror_findings(entry.document, find))
            yield from ((key, finding) for finding in misfits(entry.document, find))

    def _apart(self, document: Document, changed: bool) -> Iterator[Finding]:
        return self.groups.findings(document) if changed else iter(())

    def _unsound(self, key: Key) -> str:
        """Return why nothing new may refer to a document: it is refused, or cannot be read; or ''."""
        if key in self.refused:
            return f"{key[0]} {key[1]!r} is refused"
        if key in self.unsure:
            return f"{key[0]} {key[1]!r} cannot be read; {self.last.entries[key].file} has a mistake"
        return ""

    def _clashes(self) -> Iterator[tuple[Key, Finding]]:
        """Yield fresh documents that take what another has: a claim of a service, the nodes of a fleet."""
        owners: dict[tuple[str, str, str], list[tuple[Key, Path]]] = defaultdict(list)
        current = self._current()
        for key, entry in current.items():
            for claim, path in _claims(entry.document):
                owners[claim].append((key, path))
        for claim, claimants in owners.items():
            for key, path in claimants:
                other = next((other for other, _ in claimants if other != key), None)
                if other and key in self.fresh:
                    whose = f"{other[0]} {other[1]!r} too, {self._whereabouts(other)}"
                    yield key, Finding(path, f"{_claim_text(claim)} {whose}")
        for key, finding in settings.raw_clashes({key: entry.document for key, entry in current.items()}):
            if key in self.fresh:
                yield key, finding
        yield from self._overlaps(current)

    def _whereabouts(self, key: Key) -> str:
        """Say where a document is, or why it is in force without being in a file."""
        if key in self.fresh or key in self.standing | self.unsure | self.refused:
            return f"at {self._current()[key].place}"
        return "which no file has any more and which stays while other documents name it"

    def _overlaps(self, current: Mapping[Key, Entry]) -> Iterator[tuple[Key, Finding]]:
        """Yield fresh fleets with a node that belongs to another one too."""
        fleets = [
            (key, entry.document) for key, entry in current.items() if isinstance(entry.document, Fleet)
        ]
        for key, fleet in fleets:
            for other, rival in fleets if key in self.fresh else ():
                if other != key and overlap(fleet.nodes, rival.nodes):
                    text = f"Fleet {rival.name!r} has such nodes too, at {current[other].place}"
                    yield key, Finding(("nodes",), f"{text}; a node belongs to one fleet")
                    break


def _sound(key: Key) -> str:
    _ = key
    return ""


def _unknown(kind: str, name: str, current: Mapping[Key, Entry]) -> str:
    known = [n for k, n in sorted(current) if k == kind and n != name]
    listed = f"; known: {', '.join(known)}{meant(name, known)}" if known else f"; there is no {kind} at all"
    return f"no {kind} is named {name!r}{listed}"


def _version_findings(document: Document, current: Mapping[Key, Entry]) -> Iterator[Finding]:
    entry = current.get(("Service", document.service)) if isinstance(document, Release) else None
    if not isinstance(document, Release) or not entry or not isinstance(entry.document, Service):
        return
    versions = entry.document.versions
    for end, version in (("from", document.from_), ("to", document.to)):
        if version not in versions:
            known = ", ".join(versions)
            yield Finding((end,), f"{version!r} is not a version of {document.service!r}; known: {known}")


def _claims(document: Document) -> Iterator[tuple[tuple[str, str, str], Path]]:
    if isinstance(document, Service):
        for fleet in document.fleets:
            for index, claim in enumerate(document.routes):
                yield (fleet, claim.host, claim.path), ("routes", index)


def _claim_text(claim: tuple[str, str, str]) -> str:
    fleet, host, path = claim
    return f"{host}{path} on fleet {fleet!r} is claimed by"


def _warnings(document: Document, catalog: Catalog) -> Iterator[Finding]:
    match document:
        case Service():
            if any(not catalog.fleet(name).grpc for name in document.fleets):
                yield from _identity_warnings(document, catalog)
            yield from misfit_warnings(document, catalog.get)
            yield from settings.warnings(document, catalog.anonymous(document))
        case Segment():
            yield from _header_warnings(("match",), document.match, catalog)
        case Policy():
            for index, step in enumerate(document.steps):
                if isinstance(step.segment, Match):
                    yield from _header_warnings(("steps", index, "segment"), step.segment, catalog)
            yield from limits.warnings(document, catalog.services())
            yield from habits.warnings(document, catalog.segment)
        case Fleet():
            yield from _overlap_warnings(document, catalog)
        case Release():
            return


def _overlap_warnings(fleet: Fleet, catalog: Catalog) -> Iterator[Finding]:
    for other in catalog.fleets():
        if other.name != fleet.name and overlap(fleet.nodes, other.nodes) is None:
            text = f"a node that {other.name!r} has too would be refused; give both the same fields"
            yield Finding(("nodes",), text, "warning")


def _identity_warnings(service: Service, catalog: Catalog) -> Iterator[Finding]:
    otherwise = catalog.anonymous(service)
    if otherwise == "baseline" and not service.user.from_:
        text = "is empty and `otherwise: baseline` keeps everyone there; shares of everyone move nobody"
        yield Finding(("user", "from"), text, "warning")
    elif otherwise == "random" and not service.user.otherwise:
        text = "requests without identity get a version at random, each anew; `baseline` spares them"
        yield Finding(("user", "otherwise"), text, "warning")


def _header_warnings(path: Path, match: Match, catalog: Catalog) -> Iterator[Finding]:
    edges = [fleet.name for fleet in catalog.fleets() if any(x.kind == "edge" for x in fleet.listeners)]
    if edges and (names := sorted(set(forgeable(match)))):
        text = f"anyone may send {', '.join(names)} to edge fleet {edges[0]!r}, and choose the version by it"
        yield Finding(path, text, "warning")
