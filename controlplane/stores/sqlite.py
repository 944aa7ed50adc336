"""The default store: one SQLite file, WAL, full sync, one writer thread.

Everything that decides or publishes is written in one transaction by `commit`; a process that is killed at
any point finds either all of a change or nothing of it.
"""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from controlplane.failpoints import failpoint
from controlplane.release.ports import (
    Change,
    Memory,
    Record,
    StoreConflictError,
    StoreError,
    Waiting,
    World,
)
from controlplane.release.recording import Recording
from controlplane.stores import rows
from controlplane.stores.ballast import SIZE, Ballast
from controlplane.stores.chain import START
from controlplane.stores.presence import Presence
from controlplane.stores.schema import OUTBOX, SCHEMA, TABLES, TURNS, migrate
from controlplane.stores.upkeep import FILE

T = TypeVar("T")

_ADVICE = "free some room: nothing but a rollback is recorded until then"
_UNWRITABLE = (
    "the disk takes no writes, and the system's log says why: nothing is recorded until then, no rollback"
    " either; docs/operating.md says how to go on from a copy"
)


class SqliteStore:
    """A `Store` in a folder; see the port for what each method promises."""

    def __init__(self, folder: Path, ballast: int = SIZE) -> None:
        self.path = folder / FILE
        self._ballast = Ballast(folder / "ballast", ballast)
        self._presence = Presence(self.path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None
        self._lock: BinaryIO | None = None
        self._world: World | None = None
        self._changed = asyncio.Condition()
        self._closed = False
        self._last = 0  # number of the newest record

    async def open(self) -> SqliteStore:
        """Open or create the file, check it, and return self.

        Raises:
            StoreError: If it is damaged, empty, of a newer schema, in use by another process, or cannot be
                written.
        """
        try:
            self._world = await self._run(self._open)
        except BaseException:
            await self.close()
            raise
        return self

    async def world(self) -> World:  # noqa: D102 (documented by the port, like all below)
        assert self._world is not None, "open() comes first"
        return self._world

    async def memory(self) -> Memory:  # noqa: D102
        return await self._run(lambda: rows.read_memory(self._db))

    async def commit(self, change: Change) -> World:  # noqa: D102
        world, visible = await self._run(lambda: self._commit(change))
        if visible or change.records:
            async with self._changed:
                self._changed.notify_all()
        return world

    async def records(  # noqa: D102
        self, release: str | None = None, limit: int = 100, after: int | None = None
    ) -> tuple[Record, ...]:
        return await self._run(lambda: rows.read_records(self._db, release, limit, after))

    async def appended(self, after: int) -> None:  # noqa: D102
        async with self._changed:
            while self._last <= after and not self._closed:
                await self._changed.wait()

    async def recording(self, release: str, after: int = 0, limit: int = 1000) -> Recording:  # noqa: D102
        return await self._run(lambda: rows.read_recording(self._db, release, after, limit))

    async def waiting(self) -> tuple[Waiting, ...]:  # noqa: D102
        return await self._run(lambda: rows.read_waiting(self._db))

    async def taken(self, id: str) -> None:  # noqa: A002, D102
        await self._run(lambda: self._db.execute("DELETE FROM outbox WHERE id = ?", (id,)))

    async def postponed(self, message: Waiting) -> None:  # noqa: D102
        row = (message.due.isoformat(), message.tries, message.error, message.id)
        query = "UPDATE outbox SET due = ?, tries = ?, error = ? WHERE id = ?"
        await self._run(lambda: self._db.execute(query, row))

    async def changes(self) -> AsyncIterator[World]:  # noqa: D102
        revision = 0
        while True:
            async with self._changed:
                while not self._closed and (await self.world()).revision == revision:
                    await self._changed.wait()
                if self._closed:
                    return
            world = await self.world()
            revision = world.revision
            yield world

    async def close(self) -> None:  # noqa: D102
        if self._closed:
            return
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
        await self._run(self._close)
        self._thread.shutdown(wait=True)

    async def _run(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                return work()
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}{self._advice(error)}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    # Below runs in the store's thread.

    def _open(self) -> World:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self.path.with_suffix(".lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{self.path}: is in use by another process; choose another folder") from None
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}") from error
        try:
            world = self._checked()
            self._ballast.keep()
            self._presence.check()
            return world
        except (KeyError, TypeError, ValueError) as error:
            what = str(error).partition("\n")[0]
            raise StoreError(f"{self.path}: holds what is not understood: {what}; restore a copy") from error

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def _checked(self) -> World:
        fresh = not self.path.exists()
        if not fresh and self.path.stat().st_size == 0:
            # SQLite takes a file of no bytes for a new database; for us it is one that lost everything.
            raise StoreError(f"{self.path}: is empty; restore a copy, or remove the file to start anew")
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._connection = db
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA busy_timeout=2000")
        if fresh:
            self.path.chmod(0o600)
            self._create(db)
        damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise StoreError(f"{self.path}: is damaged: {' '.join(damage.split())}; restore a copy")
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall()) if "meta" in tables else {}
        if "instance" not in meta:
            raise StoreError(f"{self.path}: is not a store of Turnout's; restore a copy")
        if int(meta["schema"]) > SCHEMA:
            has = f"{self.path}: has schema {meta['schema']}, known are those up to {SCHEMA}"
            raise StoreError(f"{has}; use a newer turnout")
        if int(meta["schema"]) < SCHEMA:
            migrate(db, int(meta["schema"]))
        head = db.execute("SELECT value FROM meta WHERE key = 'head'").fetchone()[0]
        self._last = int(head.split()[0])
        return rows.read_world(db)

    @staticmethod
    def _create(db: sqlite3.Connection) -> None:
        db.executescript("BEGIN IMMEDIATE;" + TABLES + OUTBOX + ";" + TURNS)
        # By the time, so that revisions of a store that was lost are lower: they grow more slowly than this.
        first = str(time.time_ns() // 1_000_000)
        meta = {"schema": str(SCHEMA), "revision": first, "began": first, "head": f"0 {START}"}
        db.executemany("INSERT INTO meta VALUES (?, ?)", {"instance": str(uuid.uuid4()), **meta}.items())
        db.execute("COMMIT")

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _commit(self, change: Change) -> tuple[World, bool]:
        before = self._world
        assert before is not None
        if (wrong := self._presence.check()) is not None:
            raise StoreError(f"{wrong}; stop the server and restore a copy")
        if not (change.retreats or self._ballast.keep()):
            raise StoreError(f"{self.path}: the disk is almost full; {_ADVICE}")
        visible = change.visible_after(before)
        releases = tuple(s.model_copy(update={"revision": s.revision + 1}) for s in change.releases)
        after = replace(
            before,
            revision=change.revision_after(before),
            began=before.began if change.above <= before.revision else change.above + 1,
            settled=change.settled_after(before),
            catalog=before.catalog if change.catalog is None else change.catalog,
            generation=before.generation + (change.catalog is not None),
            stable={**before.stable, **change.stable},
            releases={**before.releases, **{state.name: state for state in releases}},
            blackouts={
                key: value
                for key, value in {**before.blackouts, **change.blackouts}.items()
                if value is not None
            },
        )
        try:
            self._write(before, after, change)
        except sqlite3.Error as error:
            # A full disk must not keep traffic on a version that has to go.
            if not (self._full(error) and change.retreats and self._ballast.give_up()):
                raise
            self._write(before, after, change)
        self._presence.check()
        self._world = after
        self._last += len(change.records)
        return after, visible

    def _write(self, before: World, after: World, change: Change) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            self._check(db, before, change)
            rows.write_world(db, before, after, change)
            rows.write_memory(db, change)
            if any(state.ended for state in change.releases) or change.catalog is not None:
                rows.prune(db)
            if change.records:
                failpoint("before-commit")
            db.execute("COMMIT")
            if change.records:
                failpoint("after-commit")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    @staticmethod
    def _check(db: sqlite3.Connection, world: World, change: Change) -> None:
        meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('revision', 'schema')").fetchall())
        if int(meta["schema"]) != SCHEMA:
            raise StoreError(f"schema {meta['schema']} was put in place of {SCHEMA} while in use; restart")
        stored = int(meta["revision"])
        if stored != world.revision:
            raise StoreConflictError(
                f"store is at revision {stored}, not {world.revision}: another process writes to it"
            )
        for state in change.releases:
            row = db.execute("SELECT revision FROM releases WHERE name = ?", (state.name,)).fetchone()
            if (row[0] if row else 0) != state.revision:
                raise StoreConflictError(
                    f"release {state.name!r} was changed by somebody else; read it again"
                )

    def _advice(self, error: sqlite3.Error) -> str:
        if self._full(error):
            return f"; {_ADVICE}"
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
            return f"; {_UNWRITABLE}"
        return "; restore a copy" if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else ""

    def _full(self, error: sqlite3.Error) -> bool:
        """Return whether room is what lacks: a write may fail for other reasons, which no room mends."""
        code = getattr(error, "sqlite_errorcode", None)
        return code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR_WRITE and self._ballast.short)
