"""The policy folder: only whole changes that were seen to happen, whatever lies in it."""

import asyncio
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlplane.app import logs
from controlplane.app.folder import MAX_FILES, FolderError, read_file, read_folder
from controlplane.app.importing import Importer
from controlplane.release.ports import StoreError
from controlplane.release.state import Phase
from tests.waiting import until

EXAMPLES = Path(__file__).parents[2] / "policies"


class Desk:
    """An editor of the folder; `rest` scans twice, more than a second apart, as when nobody writes."""

    def __init__(self, folder, site):
        self.folder, self.site = folder, site
        self.importer = Importer(folder, site.plane)

    def write(self, **texts):
        self.folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            (self.folder / f"{name}.yaml").write_bytes(text.encode() if isinstance(text, str) else text)

    async def scan(self, after=0.6):
        self.site.clock.pass_(after)
        await self.importer.scan(self.site.clock.now)

    async def rest(self):
        for _ in range(3):
            await self.scan()
        return await self.site.store.world()

    @property
    def problems(self):
        return self.site.plane.problems()


@pytest.fixture
async def desk(tmp_path, kit):
    from controlplane.stores.sqlite import SqliteStore

    site = await kit.Site(await SqliteStore(tmp_path / "data").open(), kit.Clock()).restore()
    made = Desk(tmp_path / "policies", site)
    made.write(fleet=kit.FLEET, shop=kit.SERVICE, quick=kit.POLICY)
    await made.rest()
    assert not made.problems
    yield made
    await site.store.close()


async def test_a_change_is_taken_when_it_has_come_to_rest(desk, kit):
    before = (await desk.site.store.world()).generation
    desk.write(order=kit.RELEASE)
    await desk.scan()
    assert (await desk.site.store.world()).generation == before
    await desk.scan(0.9)
    assert (await desk.site.store.world()).generation == before

    await desk.scan(0.1)

    assert (await desk.site.store.world()).releases["shop-2"].phase is Phase.WAITING
    assert (await desk.site.store.records())[0].actor == "policy folder"


async def test_what_is_taken_with_a_warning_is_logged_once(desk, kit):
    desk.site.plane.answers_queries = False
    asks = "conditions: [{prometheus: {name: q, query: up, at_most: 1}}, "
    desk.write(asks=kit.POLICY.replace("quick", "asking").replace("conditions: [", asks))

    logs.configure("info")
    with capture_logs() as first:
        await desk.rest()
    desk.write(order=kit.RELEASE)
    with capture_logs() as then:
        await desk.rest()
    logs.quiet()

    told = [line["warning"] for line in first if line["event"] == "documents taken all the same"]
    assert len([w for w in told if w.startswith("Policy 'asking' asks Prometheus, and this server")]) == 1
    assert "documents accepted" in [line["event"] for line in then]
    assert not [line for line in then if line["event"] == "documents taken all the same"]


async def test_a_wall_clock_that_jumps_does_not_make_a_folder_settle(desk, kit, monkeypatch):
    """The importer's own loop: an hour passes on the wall, and no time at all."""

    looks = []

    class Wall(datetime):
        @classmethod
        def now(cls, tz=None):
            looks.append("wall")
            return datetime.fromtimestamp(3600 * len(looks), tz)

    class Steady:
        @staticmethod
        def monotonic():
            looks.append("steady")
            return 100.0

    monkeypatch.setattr("controlplane.app.importing.datetime", Wall)
    monkeypatch.setattr("controlplane.app.importing.time", Steady)
    desk.write(order=kit.RELEASE)
    scanning = asyncio.create_task(Importer(desk.folder, desk.site.plane, every=0.01).run())
    await until(lambda: len(looks) > 12)
    scanning.cancel()

    assert not desk.problems  # a folder that differs is reported when it was seen at rest


async def test_a_file_that_is_still_being_written_is_not_taken(desk, kit):
    before = await desk.site.store.world()
    for end in range(0, len(kit.RELEASE), 10):
        desk.write(order=kit.RELEASE[:end])
        await desk.scan(0.9)

    assert await desk.site.store.world() == before


@pytest.mark.parametrize("file", sorted(p.relative_to(EXAMPLES).as_posix() for p in EXAMPLES.rglob("*.yaml")))
async def test_a_half_written_file_that_is_left_behind_moves_nothing(tmp_path, kit, file):
    """At rest, while a release runs: shares, stable and the release stay as they are.

    Each third end of a line, with its newline and without, the middle and nothing. That no other beginning
    passes for a file either is tested of `whole`, and `make chaos` leaves every one in a folder.
    """
    from controlplane.stores.sqlite import SqliteStore

    site = await kit.Site(await SqliteStore(tmp_path / "data").open(), kit.Clock()).restore()
    shutil.copytree(EXAMPLES, tmp_path / "policies")
    desk = Desk(tmp_path / "policies", site)
    world = await desk.rest()
    site.fleet.mode = "all"
    from controlplane.web.asked import Act

    await site.plane.act("checkout-2.4.0", "advance", Act(actor="ann"))
    before = await site.store.world()
    data = (EXAMPLES / file).read_bytes()
    lines = [end for end, byte in enumerate(data[:-1]) if byte == 10]
    for end in (0, len(data) // 2, *lines[::3], *(end + 1 for end in lines[::3])):
        (desk.folder / file).write_bytes(data[:end])
        world = await desk.rest()
        assert world.releases == before.releases
        assert world.stable == before.stable
        assert world.catalog.digests() == before.catalog.digests(), end
    (desk.folder / file).write_bytes(data)
    world = await desk.rest()

    assert not desk.problems
    assert world.catalog.digests() == before.catalog.digests()
    await site.store.close()


async def test_a_file_that_was_cut_is_reported_until_it_is_whole_or_changed(desk, kit):
    before = await desk.site.store.world()
    desk.write(quick=kit.POLICY.partition("guard")[0])
    assert await desk.rest() == before
    assert [p.partition(": ")[0] for p in desk.problems] == [f"{desk.folder}/quick.yaml:8:1"]
    assert "as if half-written" in desk.problems[0]

    desk.write(quick=kit.POLICY, order=kit.RELEASE)
    world = await desk.rest()
    assert (desk.problems, "shop-2" in world.releases) == ((), True)

    desk.write(quick=kit.POLICY.partition("guard")[0] + "# no guard any more\n")
    world = await desk.rest()
    assert not desk.problems
    assert world.catalog.digests() != before.catalog.digests()


async def test_a_file_that_was_cut_stays_so_while_others_change(desk, kit):
    desk.write(quick=kit.POLICY.partition("guard")[0])
    before = await desk.rest()
    desk.write(more=kit.POLICY.replace("name: quick", "name: other"))

    world = await desk.rest()

    assert world.catalog.policy("quick") == before.catalog.policy("quick")
    assert world.catalog.policy("other")


async def test_a_folder_that_vanishes_deletes_nothing_and_is_reported(desk):
    before = await desk.site.store.world()
    desk.folder.rename(desk.folder.with_name("elsewhere"))

    assert await desk.rest() == before
    assert "cannot be read" in desk.problems[0]
    desk.folder.with_name("elsewhere").rename(desk.folder)
    assert await desk.rest() == before
    assert not desk.problems


async def test_a_folder_that_is_replaced_is_seen(desk, kit):
    new = desk.folder.with_name("new")
    shutil.copytree(desk.folder, new)
    (new / "order.yaml").write_text(kit.RELEASE)
    shutil.rmtree(desk.folder)
    new.rename(desk.folder)

    assert "shop-2" in (await desk.rest()).releases


async def test_a_config_map_that_swaps_its_link_is_seen(desk, kit):
    """Kubernetes links each file through a hidden folder and exchanges that folder's link."""
    files = list(desk.folder.iterdir())
    for number, extra in (("1", None), ("2", kit.RELEASE)):
        hidden = desk.folder / f"..{number}"
        hidden.mkdir()
        for file in files:
            shutil.copy(file if file.is_symlink() is False else file.resolve(), hidden / file.name)
        if extra:
            (hidden / "order.yaml").write_text(extra)
    (desk.folder / "..data").symlink_to("..1")
    for file in files:
        file.unlink()
        file.symlink_to(f"..data/{file.name}")
    (desk.folder / "order.yaml").symlink_to("..data/order.yaml")
    first = await desk.rest()
    (desk.folder / "..tmp").symlink_to("..2")
    (desk.folder / "..tmp").rename(desk.folder / "..data")

    assert "shop-2" not in first.releases
    assert "shop-2" in (await desk.rest()).releases


async def test_a_bad_file_keeps_its_last_good_version_and_stops_no_other(desk, kit):
    desk.write(
        quick=kit.POLICY.replace("10%", "400%"), order=kit.RELEASE.replace("policy: quick", "policy: x")
    )
    second = kit.SERVICE.replace("name: shop", "name: cart").replace("shop.example", "cart.example")
    desk.write(cart=second)

    world = await desk.rest()

    assert world.stable == {"shop": "v1", "cart": "v1"}
    assert [s.everyone for s in world.catalog.policy("quick").steps][1] == 100_000
    assert world.releases == {}
    assert any("quick.yaml:5:" in problem for problem in desk.problems)
    desk.write(quick=kit.POLICY, order=kit.RELEASE)
    assert (await desk.rest()).releases
    assert not desk.problems


@pytest.mark.parametrize(
    "hostile",
    [b"[" * 50_000, b"a: &a [x]\n" + b"b: *a\n" * 100_000, b"\0\xff\xfe", b"!!python/object:os.system [x]"],
    ids=["nested", "aliases", "bytes", "tags"],
)
async def test_a_hostile_file_is_refused_and_harms_nothing(desk, kit, hostile):
    desk.write(evil=hostile, order=kit.RELEASE)

    world = await desk.rest()

    assert "shop-2" in world.releases
    assert any("evil.yaml" in problem for problem in desk.problems)


@pytest.mark.parametrize("kind", ["unreadable", "dangling", "pipe", "folder"])
async def test_a_path_that_cannot_be_read_stops_no_other_file(desk, kit, kind):
    path = desk.folder / "odd.yaml"
    if kind == "unreadable":
        path.symlink_to("/proc/self/mem")  # regular, opens, and cannot be read
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    desk.write(order=kit.RELEASE)

    world = await desk.rest()

    assert "shop-2" in world.releases
    if kind in ("unreadable", "dangling"):
        assert any("odd.yaml" in problem for problem in desk.problems)


async def test_a_document_whose_file_becomes_unreadable_stays_in_force(desk, kit):
    (desk.folder / "quick.yaml").unlink()
    (desk.folder / "quick.yaml").symlink_to("nowhere")

    world = await desk.rest()

    assert world.catalog.policies()
    assert any("quick.yaml" in problem for problem in desk.problems)


async def test_a_folder_that_differs_at_the_start_is_reported_and_not_taken(desk, kit):
    desk.write(order=kit.RELEASE)
    before = await desk.site.store.world()

    later = Desk(desk.folder, desk.site)
    world = await later.rest()

    assert world == before
    assert "differs from what is in force" in later.problems[0]
    assert "turnout apply" in later.problems[0]
    later.write(order=kit.RELEASE + "# seen\n")
    assert "shop-2" in (await later.rest()).releases, "a change that it saw happen is taken"


async def test_a_folder_that_is_the_same_at_the_start_says_nothing(desk):
    later = Desk(desk.folder, desk.site)
    await later.rest()

    assert not later.problems


async def test_the_first_documents_of_a_new_store_start_no_release(tmp_path, kit):
    from controlplane.stores.sqlite import SqliteStore

    site = await kit.Site(await SqliteStore(tmp_path / "data").open(), kit.Clock()).restore()
    desk = Desk(tmp_path / "policies", site)
    desk.write(fleet=kit.FLEET, shop=kit.SERVICE, quick=kit.POLICY, order=kit.RELEASE)

    await desk.rest()
    world = await kit.tick(site, 5)

    assert (world.releases["shop-2"].phase, world.releases["shop-2"].hold) == (Phase.WAITING, "manual")
    await site.store.close()


async def test_a_store_that_fails_is_tried_again(desk, kit, monkeypatch):
    async def full(change):
        raise StoreError("disk full")

    desk.write(order=kit.RELEASE)
    with monkeypatch.context() as broken:
        broken.setattr(desk.site.store, "commit", full)
        await desk.rest()
        assert any("disk full" in problem for problem in desk.problems)

    assert "shop-2" in (await desk.rest()).releases
    assert not desk.problems


async def test_a_clock_that_goes_back_only_delays(desk, kit):
    desk.write(order=kit.RELEASE)
    await desk.scan()
    desk.site.clock.now -= timedelta(days=1)

    assert "shop-2" in (await desk.rest()).releases


# --- reading ----------------------------------------------------------------------------------------------


def test_yaml_files_and_lists_are_read_wherever_they_lie(tmp_path):
    for name in ("a.yaml", "b.yml", "c.txt", "d.csv", ".d.yaml", "sub/e.yaml", ".git/f.yaml", "g.yaml~"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())

    found = read_folder(tmp_path)

    assert sorted(Path(p).relative_to(tmp_path).as_posix() for p in found) == [
        "a.yaml",
        "b.yml",
        "c.txt",
        "sub/e.yaml",
    ]


def test_too_many_files_are_refused_as_a_whole(tmp_path):
    for n in range(MAX_FILES + 1):
        (tmp_path / f"{n}.yaml").touch()

    with pytest.raises(FolderError, match="more than 2000 files"):
        read_folder(tmp_path)


def test_a_huge_file_is_not_read_whole(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"x" * 10_000_000)

    (content,) = read_folder(tmp_path).values()

    assert len(content) < 1_000_000


@pytest.mark.parametrize("path", ["/dev/zero", "nowhere.yaml", "."])
def test_a_single_file_must_be_one(path):
    with pytest.raises(FolderError):
        read_file(Path(path))


# --- an order that is edited after its start --------------------------------------------------------------


@pytest.fixture
async def started(desk, kit):
    """The release of a document at its second step, and its state then."""
    v3 = '  v3: {endpoints: ["10.0.0.3:80"]}\n'
    staff = 'kind: Segment\nname: staff\nmatch: {cookie: {name: staff, equals: "yes"}}\n'
    named = kit.POLICY.replace('{cookie: {name: staff, equals: "yes"}}', "staff")
    desk.write(shop=kit.SERVICE + v3, order=kit.RELEASE, seg=staff, quick=named)
    desk.write(other=named.replace("name: quick", "name: other"))
    await desk.rest()
    await kit.until(desk.site, lambda world: world.releases["shop-2"].at == "ten")
    assert desk.site.plane.release("shop-2").drift == ()
    desk.named, desk.staff = named, staff
    return desk


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (("to: v2", "to: v3"), "the document now says to: v3; the release goes on with v2"),
        (("from: v1", "from: v3"), "the document now says from: v3; the release goes on with v1"),
        (("policy: quick", "policy: other"), "says policy: other; the release goes on with quick"),
        (("start:", "attempt: 2\nstart:"), "the document now says attempt: 2; the release goes on with 1"),
    ],
)
async def test_an_order_that_is_edited_after_its_start_is_shown_and_never_acts(started, kit, edit, says):
    before = (await started.site.store.world()).releases["shop-2"]
    started.write(order=kit.RELEASE.replace(*edit))

    world = await started.rest()

    assert world.releases["shop-2"] == before
    (shown,) = started.site.plane.release("shop-2").drift
    assert says in shown
    assert started.problems == (f"release shop-2: {shown}",)
    records = [r for r in await started.site.store.records("shop-2") if r.action == "drift"]
    assert [(r.reason, r.actor) for r in records] == [(shown, "policy folder")]
    world = await kit.until(started.site, lambda world: world.releases["shop-2"].ended)
    assert (world.releases["shop-2"].phase, world.stable["shop"]) == (Phase.PROMOTED, "v2")
    started.write(unrelated="kind: Segment\nname: other\nmatch: {method: GET}\n")
    assert (await started.rest()).releases == world.releases, "nor later, by an edit of something else"
    (shown,) = started.site.plane.release("shop-2").drift
    assert "`turnout retry shop-2` takes the order" in shown
    assert started.problems == (f"release shop-2: {shown}",)
    started.write(order=kit.RELEASE)
    await started.rest()
    assert started.site.plane.release("shop-2").drift == started.problems == ()


async def test_edits_of_what_was_pinned_are_shown_and_never_act(started, kit):
    pinned = (await started.site.store.world()).releases["shop-2"]
    shop = (started.folder / "shop.yaml").read_text()
    for texts, says in (
        ({"quick": started.named.replace("for: 15s", "for: 20s")}, "policy 'quick' was edited (guard);"),
        ({"quick": started.named.replace("10%", "20%")}, "policy 'quick' was edited (steps);"),
        ({"seg": started.staff.replace("yes", "no")}, "segment 'staff' was edited;"),
        ({"shop": shop.replace("initial:", "hold_out: staff\ninitial:")},
         "the service was edited (hold_out);"),
    ):  # fmt: skip
        before = {name: (started.folder / f"{name}.yaml").read_text() for name in texts}
        started.write(**texts)
        assert (await started.rest()).releases["shop-2"] == pinned

        (shown,) = started.site.plane.release("shop-2").drift
        assert shown == f"{says} the release goes on with what was pinned"
        started.write(**before)
        await started.rest()
        assert started.problems == started.site.plane.release("shop-2").drift == ()


async def test_drift_outlives_a_restart_and_names_a_policy_that_is_gone(started, kit):
    from controlplane.web.asked import Act, Order

    site = started.site
    await site.plane.act("shop-2", "rollback", Act(actor="ann"))
    await kit.until(site, lambda world: world.releases["shop-2"].ended)
    await site.plane.order(Order(service="shop", to="v3", policy="other", actor="ann"))
    await kit.until(site, lambda world: world.releases["shop-v3"].at == "ten")
    (started.folder / "other.yaml").unlink()
    await started.rest()

    again = await kit.Site(site.store, site.clock).restore(site.traffic.totals)

    for plane in (site.plane, again.plane):
        assert plane.release("shop-v3").drift == (
            "policy 'other' is not there any more; the release goes on with what was pinned",
        )
