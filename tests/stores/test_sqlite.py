"""The file: damage is refused in words, nothing damaged starts as new, and only one process writes."""

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from controlplane.release.ports import Change, Record, StoreConflictError, StoreError
from controlplane.release.state import Phase
from controlplane.stores.sqlite import SqliteStore
from controlplane.stores.upkeep import backup, restore, verify
from tests.stores.conftest import T0


async def refused(folder, words):
    with pytest.raises(StoreError, match=words) as error:
        await SqliteStore(folder).open()
    assert str(folder / "turnout.db") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
async def file(tmp_path, make):
    """A store that holds something, closed."""
    store = await SqliteStore(tmp_path).open()
    await store.commit(make.everything())
    await store.commit(Change(records=tuple(make.record(reason=f"{n}" * 500) for n in range(50))))
    await store.close()
    return tmp_path / "turnout.db"


async def test_an_empty_file_is_one_that_lost_everything_not_a_new_one(file):
    file.write_bytes(b"")

    await refused(file.parent, "is empty; restore a copy")

    assert file.stat().st_size == 0


@pytest.mark.parametrize("damage", [b"\0" * 100, b"not a database at all, sorry" * 10])
async def test_a_garbage_header_is_refused(file, damage):
    data = file.read_bytes()
    file.write_bytes(damage + data[len(damage) :])

    await refused(file.parent, "not a database|malformed")

    assert file.read_bytes() == damage + data[len(damage) :]


@pytest.mark.parametrize("keep", [0.3, 0.7])
async def test_a_truncated_file_is_refused(file, keep):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])

    await refused(file.parent, "damaged|malformed")


async def test_a_damaged_page_is_refused(file):
    data = bytearray(file.read_bytes())
    data[8192:12288] = b"\xff" * 4096
    file.write_bytes(data)

    await refused(file.parent, "damaged|malformed")


async def test_evidence_of_schema_4_gets_its_attempt(file):
    with sqlite3.connect(file) as db:
        db.execute("UPDATE meta SET value = '4' WHERE key = 'schema'")
        db.execute("UPDATE evidence SET release = 'r'")
    store = await SqliteStore(file.parent).open()

    memory = await store.memory()
    await store.close()

    assert memory.evidence == {"r#1": {"minute": 3}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE meta SET value = '99' WHERE key = 'schema'", "has schema 99, .*; use a newer turnout"),
        ("UPDATE meta SET value = 'x' WHERE key = 'schema'", "not understood"),
        ("DELETE FROM meta WHERE key = 'instance'", "not a store of Turnout's"),
        ("DELETE FROM meta WHERE key = 'schema'", "not understood"),
        ("DROP TABLE meta", "not a store of Turnout's"),
        ("UPDATE releases SET state = '{}'", "not understood"),
        ("UPDATE documents SET body = '[]'", "not understood"),
    ],
)
async def test_a_file_of_somebody_else_or_of_the_future_is_refused(file, change, words):
    with sqlite3.connect(file) as db:
        db.execute(change)
    db.close()

    await refused(file.parent, words)


async def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "plain").write_text("a file")

    with pytest.raises(StoreError, match="plain"):
        await SqliteStore(tmp_path / "plain" / "data").open()


async def test_the_file_is_for_its_owner_alone(file):
    assert file.stat().st_mode & 0o077 == 0


# --- a second process -------------------------------------------------------------------------------------


def other(code, *arguments):
    """Start Python with some code; it says a word when it has got so far."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


HOLD = """
import asyncio, sys
from pathlib import Path
from controlplane.stores.sqlite import SqliteStore

async def main():
    store = await SqliteStore(Path(sys.argv[1])).open()
    print("open", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


async def test_a_store_that_another_process_has_open_is_refused_and_free_again_when_it_is_killed(file):
    process = other(HOLD, file.parent)
    assert process.stdout.readline() == "open\n"

    await refused(file.parent, "is in use by another process")
    process.kill()
    process.communicate()
    store = await SqliteStore(file.parent).open()

    assert (await store.world()).stable == {"shop": "v1"}
    await store.close()


async def test_the_same_process_opens_it_only_once(file):
    store = await SqliteStore(file.parent).open()

    await refused(file.parent, "is in use by another process")

    assert (await store.commit(Change(stable={"shop": "v2"}))).stable == {"shop": "v2"}
    await store.close()


async def test_a_writer_that_does_not_know_the_lock_is_noticed_and_not_overwritten(file, make):
    store = await SqliteStore(file.parent).open()
    with sqlite3.connect(file) as db:
        db.execute("UPDATE meta SET value = value + 1 WHERE key = 'revision'")
        db.execute("UPDATE services SET stable = 'v9'")
    db.close()

    with pytest.raises(StoreConflictError, match="another process writes to it"):
        await store.commit(Change(stable={"shop": "v2"}, records=(make.record(),)))

    await store.close()
    again = await SqliteStore(file.parent).open()
    assert (await again.world()).stable == {"shop": "v9"}
    await again.close()


async def test_a_database_that_somebody_locks_is_an_error_and_works_again_afterwards(file):
    store = await SqliteStore(file.parent).open()
    locker = sqlite3.connect(file, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreError, match="locked"):
        await store.commit(Change(stable={"shop": "v2"}))
    still = await store.world()
    locker.execute("ROLLBACK")
    locker.close()
    after = await store.commit(Change(stable={"shop": "v2"}))

    assert still.stable == {"shop": "v1"}
    assert after.stable == {"shop": "v2"}
    await store.close()


WRITE = """
import asyncio, sys
from pathlib import Path
from controlplane.release.ports import Change
from controlplane.stores.sqlite import SqliteStore

async def main():
    store = await SqliteStore(Path(sys.argv[1])).open()
    n = 0
    while True:
        n += 1
        await store.commit(Change(stable={"shop": f"v{n}"}, cursors={"a": {"n": n}}, learned={"s": {"n": n}}))
        print(n, flush=True)

asyncio.run(main())
"""


async def test_what_was_committed_survives_a_kill_whole(tmp_path):
    for _ in range(3):
        process = other(WRITE, tmp_path)
        told = [process.stdout.readline() for _ in range(20)]
        process.kill()
        rest = process.stdout.read()  # not communicate(), which skips what readline() has buffered
        process.wait()
        last = int((told + rest.split())[-1])

        store = await SqliteStore(tmp_path).open()
        world, memory = await store.world(), await store.memory()
        await store.close()

        n = memory.cursors["a"]["n"]
        assert n in (last, last + 1)
        assert world.stable == {"shop": f"v{n}"}
        assert memory.learned == {"s": {"n": n}}


async def test_a_cancelled_commit_happened_or_did_not(file):
    store = await SqliteStore(file.parent).open()
    task = asyncio.ensure_future(store.commit(Change(stable={"shop": "v2"}, cursors={"a": {"n": 2}})))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await store.commit(Change(learned={"s": {}}))
    world, memory = await store.world(), await store.memory()

    assert (world.stable["shop"] == "v2") is ("a" in json.loads(json.dumps(memory.cursors)))
    await store.close()


# --- the log ----------------------------------------------------------------------------------------------


async def test_a_sound_store_is_verified_and_its_head_can_be_noted(file):
    found = verify(file)

    assert (found.records, found.problems) == (52, ())
    assert verify(file, found.head).problems == ()
    assert "the log was rewritten" in verify(file, "0" * 64).problems[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE records SET body = replace(body, '111', '222') WHERE number = 4", ["record 4: was changed"]),
        (
            "UPDATE records SET hash = 'x' WHERE number = 4",
            ["record 4: was changed", "record 5: was changed"],
        ),
        ("DELETE FROM records WHERE number IN (7, 8, 9)", ["record 7 to 9: missing"]),
        ("DELETE FROM records WHERE number = 7", ["record 7: missing"]),
        (
            "DELETE FROM records WHERE number = 52",
            ["the log ends with record 51, but record 52 was written last"],
        ),
        (
            "INSERT INTO records VALUES (53, 'r', '{}', 'x')",
            ["record 53: was changed", "the log ends with record 53"],
        ),
    ],
)
async def test_a_log_that_was_touched_is_found_out(file, change, words):
    with sqlite3.connect(file) as db:
        db.execute(change)
    db.close()

    problems = verify(file).problems

    assert len(problems) == len(words)
    assert all(problem.startswith(word) for problem, word in zip(problems, words, strict=True))


async def test_a_store_is_verified_and_copied_while_it_is_in_use(tmp_path, make):
    store = await SqliteStore(tmp_path / "a").open()
    try:
        await store.commit(make.everything())

        assert verify(store.path).problems == ()
        backup(store.path, tmp_path / "copy.db")
        await store.commit(Change(records=(make.record(),)))
        with pytest.raises(StoreError, match="is in use; stop the server first"):
            restore(tmp_path / "copy.db", tmp_path / "a")
    finally:
        await store.close()

    aside = restore(tmp_path / "copy.db", tmp_path / "a")

    assert verify(tmp_path / "a" / "turnout.db").records == 2
    assert verify(aside).records == 3
    again = await SqliteStore(tmp_path / "a").open()
    assert (await again.world()).releases["r"].service == "shop"
    await again.close()


async def test_a_damaged_copy_is_not_restored(file, tmp_path):
    backup(file, tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as db:
        db.execute("DELETE FROM records WHERE number = 3")
    db.close()

    with pytest.raises(StoreError, match="is not sound: record 3: missing"):
        restore(tmp_path / "copy.db", file.parent)

    assert verify(file).problems == ()


async def test_a_store_of_schema_1_is_brought_up_to_date(file):
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE old AS SELECT number, release, body FROM records")
        db.execute("DROP TABLE records")
        db.execute(
            "CREATE TABLE records "
            "(number INTEGER PRIMARY KEY AUTOINCREMENT, release TEXT NOT NULL, body TEXT NOT NULL)"
        )
        db.execute("INSERT INTO records SELECT number, release, body FROM old")
        db.execute("DROP TABLE old")
        db.execute("DROP TABLE outbox")
        db.execute("DROP TABLE turns")
        db.execute("DROP TABLE origins")
        db.execute(
            "CREATE TABLE observations "
            "(number INTEGER PRIMARY KEY, release TEXT NOT NULL, body TEXT NOT NULL)"
        )
        db.execute("DELETE FROM meta WHERE key = 'head'")
        db.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
    db.close()

    store = await SqliteStore(file.parent).open()
    await store.commit(Change(records=(Record(at=T0, kind="action", action="x", reason="y"),)))
    await store.close()

    assert verify(file).problems == ()
    assert verify(file).records == 53


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 3 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_stops_steps_but_not_a_rollback(small_disk, make):
    async def fill():
        while True:
            await store.commit(Change(records=(make.record(reason="x" * 20_000),)))

    store = await SqliteStore(small_disk, ballast=1024 * 1024).open()
    (small_disk / "other").write_bytes(bytes(1200 * 1024))
    try:
        await store.commit(Change(releases=(make.release(phase="progressing"),)))
        with pytest.raises(StoreError, match="full; free some room: nothing but a rollback"):
            await fill()
        state = (await store.world()).releases["r"]
        reason = make.record(reason="x" * 20_000)

        with pytest.raises(StoreError, match="full"):
            await store.commit(Change(releases=(state,), records=(reason,)))
        back = state.model_copy(update={"phase": Phase.ROLLING_BACK})
        world = await store.commit(Change(releases=(back,), records=(reason,)))

        assert world.releases["r"].phase is Phase.ROLLING_BACK
        with pytest.raises(StoreError, match="almost full; free some room"):
            await store.commit(Change(records=(reason,)))  # it would take the room of the next rollback
        (small_disk / "other").unlink()
        await store.commit(Change(records=(reason,)))
        assert (small_disk / "ballast").stat().st_size == 1024 * 1024
        assert verify(store.path).problems == ()
    finally:
        await store.close()


async def test_a_write_that_fails_for_another_reason_than_room_gives_none_up(tmp_path, make):
    """A file may grow no further, with room on the disk: like a disk that takes no writes."""
    store = await SqliteStore(tmp_path, ballast=64 * 1024).open()
    back = make.release(phase="rolling_back")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
    try:
        with pytest.raises(StoreError, match=r"takes no writes.*how to go on from a copy"):
            await store.commit(Change(releases=(back,), records=(make.record(reason="x" * 500_000),)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert (tmp_path / "ballast").stat().st_size == 64 * 1024
    world = await store.commit(Change(releases=(back,)))
    assert world.releases["r"].phase is Phase.ROLLING_BACK
    await store.close()


@pytest.mark.parametrize("file", ["turnout.db", "turnout.db-wal"])
@pytest.mark.parametrize("how", ["gone", "cut", "empty", "replaced"])
async def test_a_file_that_is_lost_while_in_use_takes_no_more_decisions(tmp_path, make, file, how):
    store = await SqliteStore(tmp_path).open()
    await store.commit(Change(releases=(make.release(),), records=(make.record(),)))
    path = tmp_path / file
    if how in ("gone", "replaced"):
        content = path.read_bytes()
        path.rename(tmp_path / "elsewhere")
        if how == "replaced":
            path.write_bytes(content)
    else:
        os.truncate(path, 2048 if how == "cut" else 0)
    before = await store.world()

    with pytest.raises(StoreError, match=r"while in use.*restore a copy"):
        await store.commit(Change(records=(make.record(),)))

    assert await store.world() == before
    await store.close()


async def test_a_newer_schema_that_comes_while_in_use_takes_no_more_decisions(tmp_path, make):
    store = await SqliteStore(tmp_path).open()
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")

    with pytest.raises(StoreError, match="schema 99"):
        await store.commit(Change(records=(make.record(),)))
    await store.close()
