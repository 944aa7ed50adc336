"""What newly accepted documents do, and what they never do."""

from dataclasses import replace

import pytest

from controlplane.app.acceptance import accept, in_use
from controlplane.app.taking import order
from controlplane.policy.catalog import Catalog
from controlplane.policy.loading import Loaded
from controlplane.release.ports import World
from controlplane.release.state import Phase


@pytest.fixture(scope="module")
def catalog(kit):
    def make(**texts):
        loaded = kit.load(kit.files(**texts))
        assert not loaded.errors
        return loaded.catalog

    return make


@pytest.fixture(scope="module")
def taken(kit):
    """Take a catalog into a world, as the store would."""

    def take(world, catalog, **options):
        change = accept(world, catalog, "ann", kit.T0, **options)
        releases = {s.name: s.model_copy(update={"revision": s.revision + 1}) for s in change.releases}
        return change, replace(
            world,
            catalog=catalog,
            generation=world.generation + 1,
            stable={**world.stable, **change.stable},
            releases={**world.releases, **releases},
        )

    return take


NEW = World(1, Catalog())


def test_a_service_starts_with_its_initial_version_and_keeps_what_is_stable_ever_after(kit, catalog, taken):
    change, world = taken(NEW, catalog())
    assert change.stable == {"shop": "v1"}

    world = replace(world, stable={"shop": "v2"})
    change, world = taken(world, catalog(shop=kit.SERVICE.replace("timeout", "x")))

    assert change.stable == {}
    assert world.stable == {"shop": "v2"}


def test_a_service_that_comes_back_without_its_stable_version_starts_anew(kit, catalog, taken):
    _, world = taken(NEW, catalog())
    _, world = taken(world, catalog(shop=None))
    text = kit.SERVICE.replace("v1", "v7").replace("v2", "v8")

    _, world = taken(world, catalog(shop=text))

    assert world.stable["shop"] == "v7"


def test_an_order_is_taken_once(kit, catalog, taken):
    change, world = taken(NEW, catalog(order=kit.RELEASE))
    (state,) = change.releases
    assert (state.phase, state.attempt, state.start, state.salt) == (Phase.WAITING, 1, "auto", "shop-2.1")
    assert [(r.action, r.actor) for r in change.records] == [("apply", "ann"), ("order", "ann")]

    change, _ = taken(world, catalog(order=kit.RELEASE))

    assert change.releases == ()


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.GUARDING, Phase.ROLLING_BACK])
@pytest.mark.parametrize("text", ["policy: quick", "attempt: 5\npolicy: quick", None])
def test_a_release_under_way_is_left_alone_whatever_becomes_of_its_files(kit, catalog, taken, phase, text):
    _, world = taken(NEW, catalog(order=kit.RELEASE))
    under_way = world.releases["shop-2"].model_copy(update={"phase": phase})
    world = replace(world, releases={"shop-2": under_way})
    policy = kit.POLICY.replace("everyone: 10%", "everyone: 90%")

    change, _ = taken(world, catalog(order=text and kit.RELEASE.replace("policy: quick", text), quick=policy))

    assert (change.releases, change.stable) == ((), {})


@pytest.mark.parametrize("phase", [Phase.PROMOTED, Phase.ROLLED_BACK])
def test_an_order_that_has_ended_runs_again_only_as_a_higher_attempt(kit, catalog, taken, phase):
    _, world = taken(NEW, catalog(order=kit.RELEASE))
    ended = world.releases["shop-2"].model_copy(update={"phase": phase, "revision": 9})
    world = replace(world, releases={"shop-2": ended})

    same, _ = taken(world, catalog(order=kit.RELEASE))
    change, _ = taken(world, catalog(order=kit.RELEASE.replace("start", "attempt: 2\nstart")))

    assert same.releases == ()
    (again,) = change.releases
    assert (again.attempt, again.phase, again.salt, again.revision) == (2, Phase.WAITING, "shop-2.2", 9)


def test_an_order_that_has_not_started_follows_its_documents(kit, catalog, taken):
    _, world = taken(NEW, catalog(order=kit.RELEASE))
    halted = world.releases["shop-2"].model_copy(update={"halt": "paused"})
    world = replace(world, releases={"shop-2": halted})
    policy = kit.POLICY.replace("everyone: 10%", "everyone: 20%")

    (edited,) = taken(world, catalog(order=kit.RELEASE, quick=policy))[0].releases

    assert [s.share for s in edited.policy.steps] == [1_000_000, 200_000, 1_000_000]
    assert (edited.halt, edited.created_at, edited.revision) == ("paused", kit.T0, 1)


def test_an_order_that_is_removed_before_it_started_is_withdrawn(kit, catalog, taken):
    _, world = taken(NEW, catalog(order=kit.RELEASE))

    change, _ = taken(world, catalog())

    (state,) = change.releases
    assert (state.phase, state.ended_at) == (Phase.ROLLED_BACK, kit.T0)
    assert [r.action for r in change.records] == ["apply", "withdraw"]


def test_an_order_that_came_without_a_file_is_not_withdrawn_by_files(kit, catalog, taken):
    documents = catalog(order=kit.RELEASE)
    state = order(documents, documents.release("shop-2"), kit.T0)
    world = replace(NEW, catalog=catalog(), releases={"shop-2": state}, stable={"shop": "v1"})

    assert taken(world, catalog())[0].releases == ()


def test_the_first_documents_of_a_new_store_start_nothing(kit, catalog, taken):
    change, world = taken(NEW, catalog(order=kit.RELEASE), hold_orders=True)
    assert [s.start for s in change.releases] == ["manual"]

    change, _ = taken(world, catalog(order=kit.RELEASE))

    assert change.releases == (), "nor do they later"


@pytest.mark.parametrize(
    ("stable", "phase", "gone"),
    [
        ("v1", None, "v1"),
        ("v2", None, "v2"),
        ("v1", Phase.PROGRESSING, "v2"),
        ("v1", Phase.GUARDING, "v1"),
        ("v1", Phase.ROLLING_BACK, "v2"),
    ],
)
def test_a_version_in_use_is_not_removed(kit, catalog, taken, stable, phase, gone):
    _, world = taken(NEW, catalog(order=kit.RELEASE))
    state = world.releases["shop-2"].model_copy(update={"phase": phase or Phase.PROMOTED})
    world = replace(world, stable={"shop": stable}, releases={"shop-2": state})
    other = "v1" if gone == "v2" else "v2"
    line = next(line for line in kit.SERVICE.splitlines() if line.startswith(f"  {gone}:"))
    text = kit.SERVICE.replace(line + "\n", "").replace("initial: v1", f"initial: {other}")
    after = kit.load({"mine.yaml": f"# of mine\n{text}".encode()}, catalog(), keep_absent=True)

    kept, problems = in_use(world, after)

    assert set(kept.service("shop").versions) == {"v1", "v2"}
    whose = [
        *(["stable"] if stable == gone else []),
        *([f"the baseline of release 'shop-2' ({phase})"] if phase and gone == "v1" else []),
        *([f"the canary of release 'shop-2' ({phase})"] if phase and gone == "v2" else []),
    ]
    told = f"{gone} of 'shop' cannot be removed: {gone} is {' and '.join(whose)}"
    assert problems == (f"mine.yaml:8:1: versions: {told}",), "the file that was applied, not the one before"


def test_an_unused_version_and_a_quiet_service_may_go(kit, catalog, taken):
    _, world = taken(NEW, catalog())
    fewer = catalog(shop="\n".join(line for line in kit.SERVICE.splitlines() if not line.startswith("  v2")))

    for after in (fewer, catalog(shop=None)):
        assert in_use(world, Loaded(after, (), ())) == (after, ())


def test_a_service_with_a_release_stays_with_all_that_it_refers_to(kit, catalog, taken):
    _, world = taken(NEW, catalog(order=kit.RELEASE))
    going = world.releases["shop-2"].model_copy(update={"phase": Phase.PROGRESSING})
    world = replace(world, releases={"shop-2": going})

    kept, problems = in_use(world, Loaded(Catalog(), (), ()))

    assert set(kept.entries) >= {("Service", "shop"), ("Fleet", "edge")}
    (problem,) = problems
    assert problem.startswith("shop.yaml:1:1: the document that was last read here is gone: v1, v2 of 'shop'")
    assert problem.endswith("v2 is the canary of release 'shop-2' (progressing)")
    assert kept.anonymous(kept.service("shop"))
