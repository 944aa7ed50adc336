"""When a folder has come to rest: the same whole content in two scans at least a second apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

REST = timedelta(seconds=1)

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
