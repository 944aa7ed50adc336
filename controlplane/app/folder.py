"""The policy folder: read whole, taken when it has come to rest, never acted on half-written."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from controlplane.policy.yaml_source import MAX_BYTES

SUFFIXES = (".yaml", ".yml")
MAX_FILES = 2000


class FolderError(Exception):
    """The folder cannot be read; what is in force stays."""


def read_folder(folder: Path) -> Mapping[str, bytes]:
    """Return the content of every YAML file below a folder, by its path as operators write it.

    Regular files only: a pipe would block, a device would never end. A file over the size limit is returned
    cut just above it, which the parser refuses by its size. Hidden folders are left out: Kubernetes keeps the
    files of a ConfigMap in one and links to them from outside.

    Raises:
        FolderError: If it is not there or cannot be read; a folder that vanished deletes nothing.
    """
    try:
        paths = sorted(p for p in _walk(folder) if p.suffix in SUFFIXES)
        if len(paths) > MAX_FILES:
            raise FolderError(f"{folder}: has more than {MAX_FILES} files; split it")
        return {str(path): _read(path) for path in paths}
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
        elif stat.S_ISREG(path.stat().st_mode):
            found.append(path)
    return found


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
