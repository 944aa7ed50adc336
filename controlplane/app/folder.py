"""The policy folder: read whole, taken when it has come to rest, never acted on half-written."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from controlplane.policy.problems import Problem
from controlplane.policy.userfiles import MAX_USERS_BYTES, SUFFIX
from controlplane.policy.yaml_source import MAX_BYTES

SUFFIXES = (".yaml", ".yml")
LISTS = (SUFFIX,)  # of users, which documents name
MAX_FILES = 2000


class FolderError(Exception):
    """The folder cannot be read; what is in force stays."""


def read_folder(folder: Path) -> Mapping[str, bytes | Problem]:
    """Return the content of every YAML file below a folder, and of lists of users, by its path.

    Regular files only: a pipe would block, a device would never end. For a file that cannot be read there is
    the reason. A file over the size limit is returned
    cut just above it, which the parser refuses by its size. Hidden folders are left out: Kubernetes keeps the
    files of a ConfigMap in one and links to them from outside.

    Raises:
        FolderError: If it is not there or cannot be read; a folder that vanished deletes nothing.
    """
    try:
        paths = sorted(p for p in _walk(folder) if p.suffix in SUFFIXES + LISTS)
        if len(paths) > MAX_FILES:
            raise FolderError(f"{folder}: has more than {MAX_FILES} files; split it")
        found = {str(path): _content(path) for path in paths}
        if not any(path.suffix in SUFFIXES for path in paths):
            return {}
        return {name: content for name, content in found.items() if content is not None}
    except OSError as error:
        raise FolderError(f"{folder}: cannot be read: {error.strerror}") from error


def read_file(path: Path) -> bytes:
    """Return the content of one file, cut like those of a folder.

    Raises:
        FolderError: If it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FolderError(f"{path}: is not a regular file")
        return _read(path)
    except OSError as error:
        raise FolderError(f"{path}: cannot be read: {error.strerror}") from error


def _walk(folder: Path) -> list[Path]:
    found = []
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            found += _walk(path)
        else:
            found.append(path)
    return found


def _content(path: Path) -> bytes | Problem | None:
    try:
        return _read(path) if stat.S_ISREG(path.stat().st_mode) else None
    except OSError as error:
        return Problem(str(path), 1, 1, "", f"cannot be read: {error.strerror}")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read((MAX_USERS_BYTES if path.suffix in LISTS else MAX_BYTES) + 1)
