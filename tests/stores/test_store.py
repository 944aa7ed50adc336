"""What every store promises: all or nothing, no lost update, the same again after a restart."""

import asyncio
from dataclasses import replace

import pytest

from controlplane.evidence.observation import Cell, Measure, Users
from controlplane.policy.catalog import Catalog
from controlplane.release.ports import Change, Memory, StoreConflictError, StoreError, World
from controlplane.release.recording import Recording
from controlplane.release.state import Phase
from controlplane.stores.packing import pack_observation, unpack_observation
from tests.waiting import PATIENCE, until


async def contents(store):
    return (
        await store.world(),
        await store.memory(),
        await store.records(limit=1000),
        await store.recording("r"),
    )


async def test_a_new_store_is_empty(opened):
    world, memory, records, recording = await contents(await opened())

    assert world == World(revision=world.revision, catalog=Catalog(), began=world.revision)
    assert memory == Memory({}, {}, {})
    assert (records, recording) == ((), Recording(None, (), 0))


async def test_a_change_is_read_back_whole_also_after_a_restart(opened, make):
    store, change = await opened(), make.everything()
    after = await store.commit(change)
    before = await contents(store)

    await store.close()
    again = await contents(await opened())

    assert again == before
    assert again[0] == after
    assert after.releases["r"] == change.releases[0].model_copy(update={"revision": 1})
    assert (after.stable, after.generation) == ({"shop": "v1"}, 1)
    assert after.catalog.digests() == change.catalog.digests()
    assert again[1] == Memory(change.evidence, change.learned, change.cursors)
    assert [r.model_copy(update={"number": 0}) for r in again[2]] == [*change.records]
    assert again[3] == Recording(make.origin(), (make.recorded(),), 1)


@pytest.mark.parametrize(
    "broken",
    [
        {"evidence": {"r": {"minute": object()}}},
        {"learned": {"shop": {1, 2}}},
        {"cursors": {"edge-1": object()}},
        {"turns": (("r", None),)},
        {"origins": {"r": None}},
        {"stable": {"shop": object()}},
    ],
    ids=lambda broken: next(iter(broken)),
)
async def test_nothing_of_a_change_that_fails_is_left(opened, make, broken):
    store = await opened()
    await store.commit(make.everything())
    before = await contents(store)
    change = replace(make.everything(), releases=(make.release(revision=1), make.release("other")), **broken)

    with pytest.raises((TypeError, AttributeError, StoreError)):
        await store.commit(change)

    assert await contents(store) == before
    assert (await store.commit(Change(stable={"shop": "v2"}))).stable == {"shop": "v2"}
    await store.close()
    assert (await (await opened()).memory()) == before[1]


async def test_a_release_that_was_changed_in_between_is_not_written(opened, make):
    store = await opened()
    await store.commit(Change(releases=(make.release(),)))
    await store.commit(Change(releases=(make.release(revision=1, halt="paused"),)))
    before = await contents(store)

    for stale in (0, 1, 3):
        with pytest.raises(StoreConflictError, match="'r' was changed by somebody else"):
            await store.commit(Change(releases=(make.release(revision=stale),), records=(make.record(),)))

    assert await contents(store) == before


async def test_concurrent_writers_of_one_release_do_not_lose_each_others_updates(opened, make):
    store = await opened()
    await store.commit(Change(releases=(make.release(),)))

    async def bump():
        state = (await store.world()).releases["r"]
        await store.commit(Change(releases=(state.model_copy(update={"step": state.step + 1}),)))

    done = await asyncio.gather(*(bump() for _ in range(8)), return_exceptions=True)

    assert {type(result) for result in done} <= {type(None), StoreConflictError}
    assert (await store.world()).releases["r"].step == done.count(None) >= 1


async def test_the_revision_grows_with_what_proxies_may_see_and_only_with_it(opened, make):
    store = await opened()
    changes = (
        Change(releases=(make.release(),)),
        Change(releases=(make.release(revision=1, because="still", halt="paused"),)),
        Change(records=(make.record(),), evidence={"r": {}}, cursors={"edge-1": {}}),
        Change(releases=(make.release(revision=2, phase=Phase.PROGRESSING),)),
        Change(stable={"shop": "v2"}),
        Change(catalog=Catalog()),
    )

    first = (await store.world()).revision
    revisions = [(await store.commit(change)).revision - first + 1 for change in changes]

    assert revisions == [2, 2, 2, 3, 4, 5]


async def test_a_forgotten_cursor_is_gone(opened):
    store = await opened()
    await store.commit(Change(cursors={"a": {"n": 1}, "b": {"n": 2}}))

    await store.commit(Change(cursors={"a": None, "b": {"n": 3}, "c": None}))

    assert (await store.memory()).cursors == {"b": {"n": 3}}


async def test_only_the_newest_documents_are_in_force(opened, make):
    store = await opened()
    for name in ("one", "two"):
        await store.commit(Change(catalog=Catalog.of(make.segment(name))))
    await store.close()

    world = await (await opened()).world()

    assert (world.generation, [s.name for s in world.catalog.segments()]) == (2, ["two"])


async def test_records_are_the_newest_oldest_first_of_one_release_or_all(opened, make):
    store = await opened()
    for n in range(5):
        await store.commit(Change(records=(make.record("a", f"a{n}"), make.record("b", f"b{n}"))))

    every, some = await store.records(limit=3), await store.records("a", 2)

    assert [r.reason for r in every] == ["b3", "a4", "b4"]
    assert [r.reason for r in some] == ["a3", "a4"]
    assert [r.number for r in every] == [8, 9, 10]
    assert await store.records("unknown") == ()


async def test_numbers_of_records_go_on_after_a_restart(opened, make):
    store = await opened()
    await store.commit(Change(records=(make.record(),)))
    await store.close()

    store = await opened()
    await store.commit(Change(records=(make.record(),)))

    assert [r.number for r in await store.records()] == [1, 2]


# --- changes ----------------------------------------------------------------------------------------------


async def test_a_reader_of_changes_starts_with_the_present_and_a_slow_one_gets_only_the_latest(opened):
    store = await opened()
    changes = store.changes()
    first = await anext(changes)
    for version in ("v1", "v2", "v3"):
        await store.commit(Change(stable={"shop": version}))

    second = await anext(changes)
    nothing = asyncio.ensure_future(anext(changes))
    await store.commit(Change(cursors={"a": {}}))
    await asyncio.sleep(0)
    waited = not nothing.done()
    await store.commit(Change(stable={"shop": "v4"}))

    assert (second.revision - first.revision, second.stable) == (3, {"shop": "v3"})
    assert waited
    assert (await asyncio.wait_for(nothing, PATIENCE)).stable == {"shop": "v4"}


async def test_readers_of_changes_end_with_the_store(opened):
    store = await opened()
    first = (await store.world()).revision

    read = [[], []]

    async def follow(revisions):
        async for world in store.changes():
            revisions.append(world.revision)

    readers = [asyncio.ensure_future(follow(revisions)) for revisions in read]
    await until(lambda: all(read))
    await store.close()
    await asyncio.wait_for(asyncio.gather(*readers), PATIENCE)

    assert read == [[first], [first]]


# --- packing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [{}, {"cells": (), "fresh": (), "silent": (), "partial": ()}])
def test_a_packed_observation_is_the_observation(make, over):
    before = make.observation(**over)

    assert unpack_observation(pack_observation(before)) == before


def test_what_users_came_to_is_packed_and_older_rows_have_nothing_of_it(make):
    told = Measure(Cell("pushed", "everyone", "v2"), "spend", 12.0, 2, 3, 5.0, Users("a.1", 3, 40.0, 900.0))
    before = make.observation(measures=(told,))
    older = pack_observation(before).replace(',["a.1",3,40.0,900.0]', "")

    assert unpack_observation(pack_observation(before)) == before
    assert unpack_observation(older).measures == (replace(told, users=None),)


def test_a_version_without_a_healthy_endpoint_is_read_from_rows_that_had_no_counts(make):
    before = make.observation(healthy=(("edge-1", "v2", 0),))

    older = pack_observation(before).replace('["edge-1","v2",0]', '["edge-1","v2"]')

    assert unpack_observation(older) == before


# --- in place of a store that was lost --------------------------------------------------------------------


async def test_revisions_of_a_new_store_are_above_those_of_one_that_was_lost(opened, tmp_path, make):
    lost = await opened(tmp_path / "lost")
    for version in ("v1", "v2") * 10:
        last = await lost.commit(Change(stable={"shop": version}))
    await lost.close()
    await asyncio.sleep(0.05)  # its life was longer than a thousandth of a second for each change

    new = await (await opened(tmp_path / "new")).world()

    assert last.began < last.revision < new.revision == new.began


async def test_what_was_said_of_services_is_kept_and_a_first_version_says_nothing(opened):
    store = await opened()
    first = await store.commit(Change(stable={"shop": "v1", "web": "v1"}))
    second = await store.commit(Change(stable={"shop": "v2"}))
    third = await store.commit(Change(settled=frozenset({"gone"})))
    await store.close()

    world = await (await opened()).world()

    assert (first.settled, second.settled) == (frozenset(), {"shop"})
    assert third.revision == second.revision + 1
    assert (world.began, world.settled) == (first.began, {"shop", "gone"})


async def test_a_revision_that_proxies_have_seen_is_passed_and_all_before_it_is_another_stores(opened):
    store = await opened()
    before = await store.commit(Change(stable={"shop": "v1"}, settled=frozenset({"shop"})))
    seen = before.revision + 1000

    await store.commit(Change(stable={"web": "v1"}, settled=frozenset({"web"}), above=seen))
    await store.close()

    world = await (await opened()).world()
    assert (world.began, world.revision, world.settled) == (seen + 1, seen + 1, {"web"})
