"""Whether the files of an open store are still those that were opened, whole.

SQLite does not look: what is committed to a file that was removed, replaced or cut meanwhile seems to be
stored, and is gone at the next start.
"""

from __future__ import annotations

from pathlib import Path


class Presence:
    """Remembers files by identity and length; those of an open store in WAL mode never shrink."""

    def __init__(self, path: Path) -> None:
        self._paths = (path, path.with_name(f"{path.name}-wal"))
        self._seen: dict[Path, tuple[int, int, int]] = {}

    def check(self) -> str | None:
        """Return what is wrong, or None; call it before and after each write."""
        for path in self._paths:
            before = self._seen.get(path)
            try:
                found = path.stat()
            except OSError as error:
                if before is None:
                    continue
                return f"{path}: is gone while in use ({error.strerror})"
            now = found.st_dev, found.st_ino, found.st_size
            if before is not None and (now[:2] != before[:2] or now[2] < before[2]):
                what = "was replaced" if now[:2] != before[:2] else f"was cut to {now[2]} bytes"
                return f"{path}: {what} while in use"
            self._seen[path] = now
        return None
