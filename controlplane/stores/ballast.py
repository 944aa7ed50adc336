"""Room kept for bad times: a full disk must not keep a rollback from being recorded.

Not even a DELETE works in SQLite on a full disk. So a file of zeros lies beside the store, and is given up
when a change that takes traffic away finds no room. Until it can be made again, nothing else is written.
"""

from __future__ import annotations

import contextlib
import shutil
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

    @property
    def short(self) -> bool:
        """True if there is no room for another one."""
        try:
            return shutil.disk_usage(self._path.parent).free < self._size
        except OSError:
            return False

    def keep(self) -> bool:
        """Make the file unless it is there; returns whether the room is kept."""
        if self.whole:
            return True
        try:
            if self.short:
                return False
            # Really written: a sparse file keeps no room.
            with self._path.open("wb") as file:
                for start in range(0, self._size, len(_BLOCK)):
                    file.write(_BLOCK[: self._size - start])
        except OSError:
            self.give_up()
        return self.whole

    def give_up(self) -> bool:
        """Free the room; returns whether there was any."""
        existed = self._path.exists()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        return existed
