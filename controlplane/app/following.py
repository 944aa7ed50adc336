"""A followed folder beside what is in force: neither it nor `apply` undoes the other in silence.

Pure. A folder acts by the files in it that change; where it differs from what is in force, that is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Key
from controlplane.policy.loading import Files, Loaded, load
from controlplane.policy.userfiles import SUFFIX
from controlplane.policy.values import listed


@dataclass(frozen=True, slots=True)
class Followed:
    """A folder as it was last read.

    Attributes:
        folder: Its path.
        loaded: What would be in force if the whole of it was taken.
    """

    folder: Path
    loaded: Loaded

    def differing(self, catalog: Catalog) -> dict[Key, str]:
        """Return where the folder differs from what is in force: ``+``, ``~`` or ``-`` by document."""
        ours, theirs = self.loaded.catalog.digests(), catalog.digests()
        keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        return {key: "+" if key not in theirs else "-" if key not in ours else "~" for key in keys}

    def difference(self, catalog: Catalog) -> str:
        """Say where the folder differs from what is in force, and how that ends; '' if it does not."""
        differing = self.differing(catalog)
        if not differing:
            return ""
        where = (f"{sign}{' '.join(key)} ({self._place(key, catalog)})" for key, sign in differing.items())
        how = f"`turnout apply -f {self.folder} --prune` takes it in; until then only files that change are"
        return f"{self.folder}: differs from what is in force: {listed(where)}; {how}"

    def warnings(self, catalog: Catalog, applied: Iterable[Key]) -> Iterator[str]:
        """Say of documents that were applied what the folder makes of them."""
        differing = self.differing(catalog)
        for key in applied:
            what = " ".join(key)
            if differing.get(key) == "-":
                yield f"{what} is in no file of {self.folder}, which is followed: put it there as well"
            elif key in differing:
                again = "which is followed, and comes back when that file changes: change it there as well"
                yield f"{what} stands otherwise at {self._place(key, catalog)}, {again}"

    def _place(self, key: Key, catalog: Catalog) -> str:
        known = key in self.loaded.catalog.entries
        return self.loaded.place(key, ()) if known else catalog.entries[key].place


@dataclass(frozen=True, slots=True)
class Part:
    """What of a folder is to be taken: some files, and the documents that left them."""

    files: Files
    gone: frozenset[Key] = field(default_factory=frozenset)


def changed(files: Files, before: Files, again: Iterable[str] = ()) -> frozenset[str]:
    """Return the files that changed, with those that name a list that did; and ``again``."""
    names = {name for name in files.keys() | before.keys() if files.get(name) != before.get(name)}
    lists = [Path(name).name.encode() for name in names if name.endswith(SUFFIX)]
    naming = (
        name
        for name, content in files.items()
        if isinstance(content, bytes) and any(one in content for one in lists)
    )
    return frozenset(names).union(again, naming if lists else ())


def part(files: Files, before: Files, names: Iterable[str], last: Catalog) -> Part:
    """Return the files of these names, and the documents that stood in them and stand nowhere any more."""
    chosen = {name for name in names if not name.endswith(SUFFIX)}
    now, was = load(files, last), load(_of(before, chosen), last, keep_absent=True)
    mistaken = {problem.file for problem in now.errors}
    stood = {key for key, source in was.sources.items() if source.file not in mistaken}
    return Part(_of(files, chosen), frozenset(stood - now.sources.keys() - {*now.refused}))


def _of(files: Files, names: set[str]) -> Files:
    return {name: content for name, content in files.items() if name in names or name.endswith(SUFFIX)}
