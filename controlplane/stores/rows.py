"""What stands in which table of the SQLite store; transactions are the caller's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from controlplane.policy.catalog import Catalog
from controlplane.release.ports import Change, Declared, Json, Memory, Record, Waiting, World
from controlplane.release.recording import Origin, Recorded, Recording
from controlplane.release.state import ReleaseState
from controlplane.stores.chain import link
from controlplane.stores.packing import pack_moment, unpack_moment

KEEP_TURNS = timedelta(days=30)  # of releases that have ended
KEEP_GENERATIONS = 100  # of documents

_RECORDS = "SELECT number, body FROM records WHERE (? IS NULL OR release = ?) AND number > ? "
_NEWEST = _RECORDS + "ORDER BY number DESC LIMIT ?"
_AFTER = _RECORDS + "ORDER BY number LIMIT ?"
_ENDED = "SELECT name FROM releases WHERE json_extract(state, '$.ended_at')"
_GOING = (
    "SELECT name || '#' || json_extract(state, '$.attempt') FROM releases"
    " WHERE json_extract(state, '$.ended_at') IS NULL"
)
_FORGET_EVIDENCE = f"DELETE FROM evidence WHERE release NOT IN ({_GOING})"  # noqa: S608 - constants
_FORGET_TURNS = f"DELETE FROM turns WHERE release IN ({_ENDED} < ?)"  # noqa: S608 - constants
_FORGET_ORIGINS = f"DELETE FROM origins WHERE release IN ({_ENDED} < ?)"  # noqa: S608 - constants
_AROUND = "SELECT around FROM turns WHERE release = ? AND around != '' ORDER BY number DESC LIMIT 1"
_AROUND_UNTIL = (
    "SELECT around FROM turns WHERE release = ? AND around != '' AND number <= ? ORDER BY number DESC LIMIT 1"
)
_TURNS = (
    "SELECT number, body, around, state FROM turns WHERE release = ? AND number > ? ORDER BY number LIMIT ?"
)
_FORGET_DOCUMENTS = "DELETE FROM documents WHERE generation <= (SELECT max(generation) FROM documents) - ?"


def read_world(db: sqlite3.Connection) -> World:
    """Return what publishing and deciding start from."""
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    newest = db.execute("SELECT generation, body FROM documents ORDER BY generation DESC LIMIT 1").fetchone()
    releases = [ReleaseState.model_validate_json(row[0]) for row in db.execute("SELECT state FROM releases")]
    return World(
        revision=int(meta["revision"]),
        catalog=Catalog.from_json(newest[1]) if newest else Catalog(),
        generation=newest[0] if newest else 0,
        stable=dict(db.execute("SELECT name, stable FROM services").fetchall()),
        releases={release.name: release for release in releases},
        blackouts=_read_blackouts(meta.get("blackouts", "[]")),
        # Older stores have neither: they counted from 1, and nothing is older than that.
        began=int(meta.get("began", 0)),
        settled=frozenset(json.loads(meta.get("settled", "[]"))),
    )


def read_memory(db: sqlite3.Connection) -> Memory:
    """Return what the tick remembers between intervals."""

    def table(query: str) -> Mapping[str, Json]:
        return {key: json.loads(body) for key, body in db.execute(query)}

    return Memory(
        evidence=table("SELECT release, body FROM evidence"),
        learned=table("SELECT service, body FROM learned"),
        cursors=table("SELECT proxy, body FROM cursors"),
    )


def read_records(
    db: sqlite3.Connection, release: str | None, limit: int, after: int | None
) -> tuple[Record, ...]:
    """Return the newest records, or the first ones after a number; oldest first."""
    query = _NEWEST if after is None else _AFTER
    rows = db.execute(query, (release, release, after or 0, limit)).fetchall()
    return tuple(
        Record.model_validate_json(body).model_copy(update={"number": number})
        for number, body in sorted(rows)
    )


def read_waiting(db: sqlite3.Connection) -> tuple[Waiting, ...]:
    """Return the messages that nobody has taken yet, those that are due first ahead."""
    rows = db.execute("SELECT * FROM outbox ORDER BY due LIMIT 1000")
    return tuple(
        Waiting(
            own,
            url,
            json.loads(body),
            datetime.fromisoformat(since),
            datetime.fromisoformat(due),
            tries,
            error,
        )
        for own, url, body, since, due, tries, error in rows
    )


def read_recording(db: sqlite3.Connection, release: str, after: int, limit: int) -> Recording:
    """Return a part of what a release was decided from."""
    row = db.execute("SELECT state, learned FROM origins WHERE release = ?", (release,)).fetchone()
    origin = Origin(ReleaseState.model_validate_json(row[0]), json.loads(row[1])) if row else None
    before = db.execute(_AROUND_UNTIL, (release, after)).fetchone()
    around, turns, last = before[0] if before else "", [], 0
    for number, body, changed, state in db.execute(_TURNS, (release, after, limit)):
        around, last = changed or around, number
        given = ReleaseState.model_validate_json(state) if state else None
        turns.append(Recorded(unpack_moment(body, around), given))
    return Recording(origin, tuple(turns), last)


def write_world(db: sqlite3.Connection, before: World, after: World, change: Change) -> None:
    """Write documents, stable versions and releases."""
    if after.revision != before.revision:
        db.execute("UPDATE meta SET value = ? WHERE key = 'revision'", (str(after.revision),))
    if (after.began, after.settled) != (before.began, before.settled):
        era = {"began": str(after.began), "settled": json.dumps(sorted(after.settled))}
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", era.items())
    if change.catalog is not None:
        row = (after.generation, datetime.now(UTC).isoformat(), change.catalog.to_json())
        db.execute("INSERT INTO documents VALUES (?, ?, ?)", row)
    if change.blackouts:
        body = json.dumps([d.model_dump(mode="json", by_alias=True) for d in after.blackouts.values()])
        db.execute("INSERT OR REPLACE INTO meta VALUES ('blackouts', ?)", (body,))
    db.executemany("INSERT OR REPLACE INTO services VALUES (?, ?)", change.stable.items())
    states = [after.releases[state.name] for state in change.releases]
    db.executemany(
        "INSERT OR REPLACE INTO releases VALUES (?, ?, ?)",
        [(state.name, state.revision, state.model_dump_json(by_alias=True)) for state in states],
    )


def write_memory(db: sqlite3.Connection, change: Change) -> None:
    """Write records, messages, evidence, cursors and what was seen."""
    numbers = _append(db, change.records)
    instance = db.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()[0]
    for position, message in enumerate(change.messages):
        # By the record that it tells: the same in every attempt, and never of another store.
        own = f"{instance}/{numbers[message.record]}/{position}"
        at = change.records[message.record].at.isoformat()
        row = (own, message.url, json.dumps(message.body), at, at, 0, "")
        db.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    for query, rows in (
        ("INSERT OR REPLACE INTO evidence VALUES (?, ?)", change.evidence),
        ("INSERT OR REPLACE INTO learned VALUES (?, ?)", change.learned),
        (
            "INSERT OR REPLACE INTO cursors VALUES (?, ?)",
            {k: v for k, v in change.cursors.items() if v is not None},
        ),
    ):
        db.executemany(query, [(key, json.dumps(body)) for key, body in rows.items()])
    db.executemany(
        "DELETE FROM cursors WHERE proxy = ?", [(k,) for k, v in change.cursors.items() if v is None]
    )
    _write_turns(db, change)


def prune(db: sqlite3.Connection) -> None:
    """Forget what nothing reads any more: whenever a release ends or documents come, which is seldom."""
    long_ago = (datetime.now(UTC) - KEEP_TURNS).isoformat()
    db.execute(_FORGET_EVIDENCE)
    for query, value in (
        (_FORGET_TURNS, long_ago),
        (_FORGET_ORIGINS, long_ago),
        (_FORGET_DOCUMENTS, KEEP_GENERATIONS),
    ):
        db.execute(query, (value,))


def _append(db: sqlite3.Connection, records: tuple[Record, ...]) -> list[int]:
    """Write records at the end of the chain; returns their numbers."""
    if not records:
        return []
    noted = db.execute("SELECT value FROM meta WHERE key = 'head'").fetchone()[0]
    number, before = int(noted.split()[0]), noted.split()[1]
    first = number + 1
    for record in records:
        body, number = record.model_dump_json(exclude={"number"}), number + 1
        before = link(before, number, body)
        db.execute("INSERT INTO records VALUES (?, ?, ?, ?)", (number, record.release, body, before))
    db.execute("UPDATE meta SET value = ? WHERE key = 'head'", (f"{number} {before}",))
    return list(range(first, number + 1))


def _write_turns(db: sqlite3.Connection, change: Change) -> None:
    for release, origin in change.origins.items():
        db.execute("DELETE FROM turns WHERE release = ?", (release,))
        begun = (release, origin.state.model_dump_json(by_alias=True), json.dumps(origin.learned))
        db.execute("INSERT OR REPLACE INTO origins VALUES (?, ?, ?)", begun)
    for release, recorded in change.turns:
        body, around = pack_moment(recorded.moment)
        last = db.execute(_AROUND, (release,)).fetchone()
        state = recorded.state.model_dump_json(by_alias=True) if recorded.state else ""
        row = (release, body, "" if last and last[0] == around else around, state)
        db.execute("INSERT INTO turns (release, body, around, state) VALUES (?, ?, ?, ?)", row)


def _read_blackouts(text: str) -> dict[str, Declared]:
    found = (Declared.model_validate(body) for body in json.loads(text))
    return {declared.id: declared for declared in found}
