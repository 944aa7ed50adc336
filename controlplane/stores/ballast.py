"""Room kept for bad times: a full disk must not keep a rollback from being recorded.

Not even a DELETE works in SQLite on a full disk. So a file of zeros lies beside the store, and is given up
when a change that takes traffic away finds no room.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

SIZE = 8 * 1024 * 1024
_BLOCK = b"\0" * 65_536


class Ballast:
    """The file of zeros."""

    def __init__(self, path: Path, size: int = SIZE) -> None:
        self._path, self._size = path, size

    @property
    def whole(self) -> bool:
        """True if the room is kept."""
        try:
            return self._path.stat().st_size == self._size
        except OSError:
            return False

    def keep(self) -> None:
        """Make the file unless it is there; a disk that has no room for it has none, and `whole` says so."""
        if self.whole:
            return
        try:
            # Really written: a sparse file keeps no room.
            with self._path.open("wb") as file:
                for start in range(0, self._size, len(_BLOCK)):
                    file.write(_BLOCK[: self._size - start])
        except OSError:
            self.give_up()

    def give_up(self) -> bool:
        """Free the room; returns whether there was any."""
        existed = self._path.exists()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        return existed
