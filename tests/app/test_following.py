"""A followed folder and `apply` beside each other: neither undoes the other without a word."""

from __future__ import annotations

import pytest

from controlplane.release.state import Phase
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Act, Documents, Order
from controlplane.web.port import RefusedError
from tests.app.test_importing import Desk

NOTE = "# a remark\n"


@pytest.fixture
async def desk(tmp_path, kit):
    site = await kit.Site(await SqliteStore(tmp_path / "data").open(), kit.Clock()).restore()
    site.clock = site.plane._clock
    made = Desk(tmp_path / "policies", site)
    made.write(fleet=kit.FLEET, shop=kit.SERVICE, quick=kit.POLICY)
    await made.rest()
    assert not made.problems
    yield made
    await site.store.close()


async def apply(desk, name="mine.yaml", text="", actor="ann", **more):
    return await desk.site.plane.apply(Documents(files={name: text}, actor=actor, **more))


def ten(world):
    return next(s.everyone for s in world.catalog.policy("quick").steps if s.name == "ten")


async def test_who_applies_what_the_folder_has_otherwise_is_told_and_so_is_everybody(desk, kit):
    done = await apply(desk, text=kit.POLICY.replace("10%", "20%"))
    world = await desk.rest()

    place = f"{desk.folder}/quick.yaml:1:1"
    (warning,) = done.warnings
    assert warning.startswith(
        f"Policy quick stands otherwise at {place}, which is followed, and comes back when"
    )
    (problem,) = desk.problems
    assert problem.startswith(f"{desk.folder}: differs from what is in force: ~Policy quick ({place}); ")
    assert f"`turnout apply -f {desk.folder} --prune` takes it in" in problem
    assert ten(world) == 200_000


async def test_another_file_that_changes_does_not_undo_what_was_applied(desk, kit):
    await apply(desk, text=kit.POLICY.replace("10%", "20%"))
    await desk.rest()
    desk.write(fleet=kit.FLEET + NOTE, more=kit.POLICY.replace("quick", "other"))

    world = await desk.rest()

    assert ten(world) == 200_000
    assert world.catalog.policy("other"), "a file that changed is taken"
    assert [p.partition(": ")[2][:7] for p in desk.problems] == ["differs"]


async def test_the_file_itself_that_changes_is_taken_and_ends_the_difference(desk, kit):
    await apply(desk, text=kit.POLICY.replace("10%", "20%"))
    desk.write(quick=kit.POLICY.replace("10%", "30%"))

    world = await desk.rest()

    assert (ten(world), desk.problems) == (300_000, ())


async def test_what_is_changed_in_the_folder_as_well_ends_the_difference(desk, kit):
    await apply(desk, text=kit.POLICY.replace("10%", "20%"))
    desk.write(quick=kit.POLICY.replace("10%", "20%"))

    await desk.rest()

    assert desk.problems == ()


async def test_a_document_that_only_was_applied_stays_until_the_folder_is_taken_in(desk, kit):
    done = await apply(desk, text=kit.POLICY.replace("quick", "other"))
    desk.write(fleet=kit.FLEET + NOTE)
    world = await desk.rest()
    kept, problems = world.catalog.get("Policy", "other"), desk.problems

    texts = {str(path): path.read_text() for path in desk.folder.iterdir()}
    taken = await desk.site.plane.apply(Documents(files=texts, actor="ann", prune=True))
    world = await desk.rest()

    assert done.warnings == (
        f"Policy other is in no file of {desk.folder}, which is followed: put it there as well",
    )
    assert kept is not None
    assert "-Policy other (mine.yaml:1:1)" in problems[0]
    assert (taken.removed, taken.warnings, desk.problems) == (("Policy other",), (), ())
    assert world.catalog.get("Policy", "other") is None


async def test_after_a_start_only_files_that_change_are_taken_until_nothing_differs(desk, kit):
    desk.write(quick=kit.POLICY.replace("10%", "20%"))  # nobody watches
    later = Desk(desk.folder, desk.site)
    await later.rest()
    later.write(fleet=kit.FLEET + NOTE)
    world = await later.rest()
    before = ten(world), len(later.problems)
    later.write(quick=kit.POLICY.replace("10%", "20%") + NOTE)
    world = await later.rest()

    assert before == (100_000, 1)
    assert (ten(world), later.problems) == (200_000, ())


async def test_a_file_that_goes_takes_its_documents_along_while_others_differ(desk, kit):
    desk.write(other=kit.POLICY.replace("quick", "other"), third=kit.POLICY.replace("quick", "third"))
    await desk.rest()
    await apply(desk, text=kit.POLICY.replace("10%", "20%"))
    await desk.rest()
    (desk.folder / "other.yaml").unlink()
    (desk.folder / "third.yaml").rename(desk.folder / "renamed.yaml")

    world = await desk.rest()

    assert [p.name for p in world.catalog.policies()] == ["quick", "third"]
    assert ten(world) == 200_000


async def test_a_file_with_a_mistake_removes_nothing_while_others_differ(desk, kit):
    desk.write(other=kit.POLICY.replace("quick", "other"))
    await desk.rest()
    await apply(desk, text=kit.POLICY.replace("10%", "20%"))
    await desk.rest()
    desk.write(other="kind: Policy\nnam: other\n")

    world = await desk.rest()

    assert world.catalog.get("Policy", "other") is not None
    assert any("other.yaml:2" in problem for problem in desk.problems)


async def test_a_list_of_users_that_changes_is_taken_with_what_names_it(desk, kit):
    desk.write(staff="kind: Segment\nname: crew\nmatch: {users_file: crew.txt}\n")
    (desk.folder / "crew.txt").write_text("ann\n")
    await desk.rest()
    await apply(desk, text=kit.POLICY.replace("10%", "20%"))
    await desk.rest()
    (desk.folder / "crew.txt").write_text("ann\nbob\n")

    world = await desk.rest()

    assert world.catalog.segment("crew").match.users == ("ann", "bob")
    assert ten(world) == 200_000


async def test_what_was_refused_of_the_folder_is_tried_again_with_its_next_change(desk, kit):
    await desk.site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.until(desk.site, lambda w: w.releases["shop-v2"].phase is Phase.PROGRESSING)
    fewer = kit.SERVICE.replace('  v2: {endpoints: ["10.0.0.2:80"]}\n', "") + NOTE
    desk.write(shop=fewer)
    await desk.rest()
    refused = desk.problems
    await desk.site.plane.act("shop-v2", "rollback", Act(actor="ann"))
    await kit.until(desk.site, lambda w: w.releases["shop-v2"].ended)
    desk.write(fleet=kit.FLEET + NOTE)

    world = await desk.rest()

    assert "shop.yaml:7:1: versions: v2 of 'shop' cannot be removed" in refused[0]
    assert "differs from what is in force: ~Service shop" in refused[1]
    assert ([*world.catalog.service("shop").versions], desk.problems) == (["v1"], ())


async def test_what_is_applied_at_the_very_moment_is_not_undone(desk, kit, monkeypatch):
    take, other = desk.site.plane.take, kit.POLICY.replace("10%", "20%")

    async def late(*args):
        monkeypatch.undo()
        await apply(desk, text=other)
        return await take(*args)

    monkeypatch.setattr(desk.site.plane, "take", late)
    desk.write(fleet=kit.FLEET + NOTE)
    await desk.rest()

    world = await desk.rest()  # it looks again

    assert ten(world) == 200_000
    assert [p.partition(": ")[2][:7] for p in desk.problems] == ["differs"]


# --- the generation that somebody has read ----------------------------------------------------------------


async def test_documents_of_another_generation_by_now_are_refused_with_who_changed_them(desk, kit):
    seen = desk.site.plane.documents()
    other = kit.POLICY.replace("10%", "20%")
    done = await apply(desk, text=other, actor="bob", generation=seen.generation)

    with pytest.raises(RefusedError) as error:
        await apply(desk, text=kit.POLICY.replace("10%", "30%"), generation=seen.generation)

    assert done.generation == seen.generation + 1
    at = f"{desk.site.clock.now:%Y-%m-%d %H:%M:%S} UTC"
    told, _, whose = str(error.value).partition(". Changed since: ")
    assert (error.value.status, told) == (
        409,
        "the documents are of generation 2, not 1; nothing was changed",
    )
    assert whose == f"by bob at {at} (accepted: ~Policy quick)"
    assert ten(await desk.site.store.world()) == 200_000


async def test_a_generation_that_never_was_is_refused(desk, kit):
    with pytest.raises(RefusedError) as error:
        await apply(desk, text=kit.POLICY, generation=9)

    assert str(error.value) == "the documents are of generation 1, not 9; nothing was changed"


async def test_the_documents_in_force_are_listed_with_where_they_were_read(desk):
    shown = desk.site.plane.documents()

    assert [(d.kind, d.name) for d in shown.documents] == [
        ("Fleet", "edge"), ("Policy", "quick"), ("Service", "shop"),
    ]  # fmt: skip
    assert {d.file for d in shown.documents} == {str(path) for path in desk.folder.iterdir()}
