"""When a folder has come to rest: the same whole content in two scans at least a second apart.

A copy that was stopped half-way comes to rest, too. Most beginnings of a document are refused, but some are a
document without its last fields. So a file that is only the beginning of what it was is not taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controlplane.policy.loading import Files
from controlplane.policy.problems import Problem

REST = timedelta(seconds=1)
CUT = (
    "is only the beginning of what it was, as if half-written; what is in force stays. "
    "If it is meant, end it with a comment"
)

Scan = Mapping[str, str]  # hash of the content by path


@dataclass(frozen=True, slots=True)
class Settling:
    """What the scans so far say.

    Attributes:
        content: The newest scan, None before the first.
        since: When its content was first seen, by a clock that never goes back.
        taken: The content that was last handed on.
    """

    content: tuple[tuple[str, str], ...] | None = None
    since: datetime | None = None
    taken: tuple[tuple[str, str], ...] | None = None

    def scanned(self, scan: Scan, now: datetime) -> tuple[Settling, bool]:
        """Take a scan; True, once for each content, when the folder should be taken as it is now."""
        content = tuple(sorted(scan.items()))
        if content != self.content or self.since is None or now < self.since:
            return replace(self, content=content, since=now), False
        if content == self.taken or now - self.since < REST:
            return self, False
        return replace(self, taken=content), True


def whole(files: Files, before: Files) -> Files:
    """Return the files, with a problem for each that is only the beginning of what it was before."""

    def checked(name: str, content: bytes | Problem) -> bytes | Problem:
        was = before.get(name)
        if isinstance(content, Problem) or not isinstance(was, bytes):
            return content
        cut = was.startswith(content) and was.rstrip() != content.rstrip()
        return Problem(name, content.count(b"\n") + 1, 1, "", CUT) if cut else content

    return {name: checked(name, content) for name, content in files.items()}
