"""The store's file outside of serving: check it, copy it, put a copy back."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controlplane.release.ports import StoreError
from controlplane.stores.chain import walk
from controlplane.stores.schema import SCHEMA

FILE = "turnout.db"


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check of a store's file found.

    Attributes:
        instance: Its own id, given when it was made.
        schema: Of its tables.
        records: In the log.
        head: Hash of the last record; note it elsewhere to prove later that nothing was rewritten.
        problems: What is wrong, one line each; empty for a sound store.
    """

    instance: str
    schema: int
    records: int
    head: str
    problems: tuple[str, ...]


def verify(path: Path, head: str = "") -> Verified:
    """Check a store's file: its pages and the log's chain of hashes. A running server is not disturbed.

    Args:
        path: The file.
        head: Hash of a record that was noted earlier; it must still be in the log.

    Raises:
        StoreError: If it cannot be read as a store.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise StoreError(f"{path}: there is no store")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            db.execute("BEGIN")  # one consistent view of all that follows
            damage = [row[0] for row in db.execute("PRAGMA quick_check(10)") if row[0] != "ok"]
            meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
            instance, schema = meta["instance"], int(meta["schema"])
            if schema != SCHEMA:
                has = f"{path}: has schema {schema}, this turnout checks {SCHEMA}"
                raise StoreError(f"{has}; open it once with `turnout serve` of this version")
            number, last = meta["head"].split()
            rows = db.execute("SELECT number, body, hash FROM records ORDER BY number")
            chain = walk(rows, (int(number), last))
            known = not head or db.execute("SELECT 1 FROM records WHERE hash = ?", (head,)).fetchone()
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error
    lost = () if known else (f"no record has the hash {head}: the log was rewritten since it was noted",)
    return Verified(instance, schema, chain.records, chain.head, (*damage, *chain.broken, *lost))


def backup(path: Path, target: Path) -> None:
    """Write a copy of a store, also of one that is in use.

    Raises:
        StoreError: If the store cannot be read, or the target exists or cannot be written.
    """
    if target.exists():
        raise StoreError(f"{target}: exists already; choose another name")
    if not path.is_file():
        raise StoreError(f"{path}: there is no store")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            db.execute("VACUUM INTO ?", (str(target),))
        target.chmod(0o600)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{target}: {error}") from error


def restore(copy: Path, folder: Path) -> Path | None:
    """Put a copy in place of a folder's store, and return where the old one went, if there was one.

    Raises:
        StoreError: If the copy is not sound, or a server has the store open; then nothing was changed.
    """
    found = verify(copy)
    if found.problems:
        raise StoreError(f"{copy}: is not sound: {'; '.join(found.problems)}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with path.with_suffix(".lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{path}: is in use; stop the server first") from None
        aside = None
        if path.exists():
            aside = path.with_name(f"turnout-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db")
            for suffix in ("", "-wal", "-shm"):
                old = path.with_name(path.name + suffix)
                if old.exists():
                    old.rename(aside.with_name(aside.name + suffix))
        shutil.copyfile(copy, path)
        path.chmod(0o600)
    return aside
