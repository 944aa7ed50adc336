"""What Release documents say of other releases, which need no document: `after`, `supersedes` and groups.

A release that a command ordered, or whose file was removed after it had ended, is known to the store alone. A
group is taken as a whole: its members go step by step together, so that none may go without another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from controlplane.policy.documents import Document, Key, Release
from controlplane.policy.problems import Finding, Path, Problem, meant

Ordered = Mapping[str, str]  # releases that the store knows, each with its service


@dataclass(slots=True)
class Groups:
    """The groups of which a member is refused, each with which and why; and files that nobody can read."""

    broken: dict[str, str] = field(default_factory=dict)
    unread: list[tuple[str, bytes | Problem]] = field(default_factory=list)

    def refuse(self, document: object, name: object, why: str = "is refused") -> None:
        """Note that an order was refused: a document, or what could be read of one."""
        group = document.get("group") if isinstance(document, dict) else getattr(document, "group", None)
        if isinstance(group, str):
            self.broken.setdefault(group, f"{name!r} {why}" if isinstance(name, str) else f"one {why}")

    def findings(self, document: Document) -> Iterator[Finding]:
        """Yield why an order that is new or edited must wait for others of its group."""
        if not isinstance(document, Release) or document.group is None:
            return
        group = document.group
        why = self.broken.get(group)
        for file, content in self.unread:
            if why is None and (isinstance(content, Problem) or group.encode() in content):
                why = f"{file} cannot be read and may have one of it"
        if why is not None:
            yield Finding(("group",), f"group {group!r} is taken as a whole, and {why}")


def named(release: Release) -> Iterator[tuple[Path, str]]:
    """Yield the releases that one names, and where."""
    for index, after in enumerate(release.after):
        yield ("after", index, "release"), after.release
    if release.supersedes is not None and release.supersedes != release.name:
        yield ("supersedes",), release.supersedes


def findings(
    release: Document,
    find: Callable[[str, str], Document | None],
    ordered: Ordered | None,
    sound: Callable[[Key], str],
) -> Iterator[Finding]:
    """Yield what is wrong with the releases that one names.

    Args:
        release: The document; other kinds name none.
        find: Documents that would be in force, by kind and name.
        ordered: What the store knows; None if there is no store, and a name without a document may be right.
        sound: Why a document must not be referred to, or ''.
    """
    for path, name in named(release) if isinstance(release, Release) else ():
        document = find("Release", name)
        service = document.service if isinstance(document, Release) else (ordered or {}).get(name)
        if why := sound(("Release", name)):
            yield Finding(path, why)
        elif service is None and ordered is not None:
            known = sorted(ordered)
            listed = f"; known: {', '.join(known)}{meant(name, known)}" if known else "; none was ordered yet"
            yield Finding(path, f"no release {name!r} is in the documents, nor was one ordered{listed}")
        elif path == ("supersedes",) and service not in (None, getattr(release, "service", "")):
            text = f"{name!r} is a release of {service!r}; one takes the place of another of its own service"
            yield Finding(path, text)


def warnings(release: Release, names: Iterable[str]) -> Iterator[Finding]:
    """Yield which releases have no document, where it is not known what the store has."""
    known = sorted(set(names) - {release.name})
    for path, name in named(release):
        if name not in known:
            text = f"no Release document is named {name!r}{meant(name, known)}"
            yield Finding(path, f"{text}; a server that has ordered none refuses this", "warning")
