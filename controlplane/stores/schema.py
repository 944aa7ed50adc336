"""The tables of the SQLite store, and the steps from each older schema to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

from controlplane.stores.chain import START, link

SCHEMA = 5

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (generation INTEGER PRIMARY KEY, accepted_at TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE services (name TEXT PRIMARY KEY, stable TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE releases (name TEXT PRIMARY KEY, revision INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE evidence (release TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE learned (service TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cursors (proxy TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    number INTEGER PRIMARY KEY AUTOINCREMENT, release TEXT NOT NULL, body TEXT NOT NULL, hash TEXT NOT NULL
);
CREATE INDEX records_of ON records (release, number);
"""
OUTBOX = """
CREATE TABLE outbox (
    id TEXT PRIMARY KEY, url TEXT NOT NULL, body TEXT NOT NULL, since TEXT NOT NULL, due TEXT NOT NULL,
    tries INTEGER NOT NULL, error TEXT NOT NULL
) WITHOUT ROWID
"""
TURNS = """
CREATE TABLE origins (release TEXT PRIMARY KEY, state TEXT NOT NULL, learned TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE turns (
    number INTEGER PRIMARY KEY, release TEXT NOT NULL,
    body TEXT NOT NULL, around TEXT NOT NULL, state TEXT NOT NULL
);
CREATE INDEX turns_of ON turns (release, number);
CREATE INDEX turns_around ON turns (release, number) WHERE around != '';
"""


def migrate(db: sqlite3.Connection, schema: int) -> None:
    """Bring an older store up to SCHEMA, all of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for number in range(schema, SCHEMA):
            _STEPS[number](db)
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(SCHEMA),))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _chain_records(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE records ADD COLUMN hash TEXT NOT NULL DEFAULT ''")
    before, last = START, 0
    for number, body in db.execute("SELECT number, body FROM records ORDER BY number").fetchall():
        before, last = link(before, number, body), number
        db.execute("UPDATE records SET hash = ? WHERE number = ?", (before, number))
    db.execute("INSERT INTO meta VALUES ('head', ?)", (f"{last} {before}",))


def _add_outbox(db: sqlite3.Connection) -> None:
    db.execute(OUTBOX)


def _record_turns(db: sqlite3.Connection) -> None:
    # What was kept before does not say how the release stood, so nothing can be decided again from it.
    db.execute("DROP TABLE observations")
    for statement in TURNS.split(";")[:-1]:
        db.execute(statement)


def _key_by_attempt(db: sqlite3.Connection) -> None:
    attempt = "(SELECT json_extract(state, '$.attempt') FROM releases WHERE name = release)"
    known = "release IN (SELECT name FROM releases)"
    db.execute(f"UPDATE evidence SET release = release || '#' || {attempt} WHERE {known}")  # noqa: S608


_STEPS: Mapping[int, Callable[[sqlite3.Connection], None]] = {
    1: _chain_records,
    2: _add_outbox,
    3: _record_turns,
    4: _key_by_attempt,
}
