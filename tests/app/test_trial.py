"""Documents are tried beside the loop: nobody waits for it, and what is taken is true then."""

import asyncio
import contextlib
import threading

import pytest

from controlplane.app.following import Part
from controlplane.app.plane import TRIALS
from controlplane.app.publish import Rehearsal
from controlplane.release.state import Phase
from controlplane.web.asked import Act, Documents, Order, Switch
from controlplane.web.port import RefusedError
from tests.documents import SERVICE
from tests.waiting import PATIENCE, until

ANN = Act(actor="ann", reason="why not")
OTHER = SERVICE.replace("name: shop", "name: other").replace("shop.example.com", "other.example.com")
WITHOUT_V2 = "".join(line for line in SERVICE.splitlines(keepends=True) if not line.startswith("  v2:"))


class Bench:
    """Where trials stand still until they may go on."""

    def __init__(self):
        self.waiting = 0  # trials that wait now
        self.seen = 0  # that came so far
        self._go = threading.Semaphore(0)

    def wait(self):
        self.waiting += 1
        self.seen += 1
        assert self._go.acquire(timeout=PATIENCE)
        self.waiting -= 1

    def go(self, count=1):
        self._go.release(count)

    async def occupied(self):
        await until(lambda: self.waiting)


@pytest.fixture
def bench(monkeypatch):
    made, unrenderable = Bench(), Rehearsal.unrenderable

    def held(rehearsal, world):
        found = unrenderable(rehearsal, world)
        made.wait()
        return found

    monkeypatch.setattr(Rehearsal, "unrenderable", held)
    yield made
    made.go(100)


def taking(site, kit, way, text=OTHER):
    """Bring documents, in one of the ways."""
    if way == "apply":
        asked = site.plane.apply(Documents(files={"more.yaml": text}, actor="team"))
    elif way == "folder":
        asked = site.plane.take(kit.files(more=text), "policy folder")
    else:
        asked = site.plane.take_part(Part({"more.yaml": text.encode()}), "policy folder")
    return asyncio.create_task(asked)


async def soon(asked):
    async with asyncio.timeout(PATIENCE):
        return await asked


@pytest.fixture
async def going(site, kit):
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    return site


@pytest.mark.parametrize("way", ["apply", "folder", "part of a folder"])
async def test_a_person_who_rolls_back_does_not_wait_for_documents(going, kit, bench, way):
    applied = taking(going, kit, way)
    await bench.occupied()

    shown = await soon(going.plane.act("shop-v2", "rollback", ANN))

    assert (shown.phase, applied.done()) == ("rolling_back", False)
    bench.go(2)  # the world has changed: once more
    assert (await soon(applied)).accepted == ("Service other",)
    world = await going.store.world()
    assert world.releases["shop-v2"].phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
    assert world.catalog.service("other")


async def test_the_loop_rolls_back_while_documents_are_tried(going, kit, bench):
    applied = taking(going, kit, "apply")
    await bench.occupied()
    going.traffic.mode = "bad"

    async with asyncio.timeout(PATIENCE):
        await kit.until(going, lambda w: w.releases["shop-v2"].phase is not Phase.PROGRESSING)

    assert not applied.done()
    bench.go(2)
    assert (await soon(applied)).accepted == ("Service other",)


async def test_what_nobody_changed_is_tried_once(going, kit, bench):
    applied = taking(going, kit, "apply")
    await bench.occupied()
    await kit.tick(going)  # counts, and decides nothing
    bench.go()

    assert (await soon(applied)).accepted == ("Service other",)
    assert bench.seen == 1


async def test_documents_meet_the_world_as_it_is_when_they_are_taken(site, kit, bench):
    """They take away a version to which somebody begins to go meanwhile."""
    applied = taking(site, kit, "apply", WITHOUT_V2)
    await bench.occupied()
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.tick(site)
    bench.go(2)

    answer = await soon(applied)

    assert answer.accepted == ()
    assert ["v2 of 'shop' cannot be removed" in problem for problem in answer.problems] == [True]
    assert "v2" in (await site.store.world()).catalog.service("shop").versions


async def test_an_order_that_begins_meanwhile_is_not_given_again(site, kit, bench):
    applied = taking(site, kit, "apply", kit.RELEASE.replace("name: shop-2", "name: shop-v2"))
    await bench.occupied()
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.tick(site)
    bench.go(2)

    await soon(applied)

    records = await site.store.records("shop-v2")
    assert [r.actor for r in records if r.action == "order"] == ["ann"]


async def test_changes_that_never_stop_let_documents_in(site, kit, bench):
    applied = taking(site, kit, "apply")
    for number in range(TRIALS):
        await until(lambda before=number: bench.seen > before)
        await soon(site.plane.switch("shop", Switch(version=f"v{2 - number % 2}", actor="ann")))
        bench.go()
    await until(lambda: bench.seen > TRIALS)

    late = asyncio.create_task(site.plane.switch("shop", Switch(version="v1", actor="ann")))
    bench.go()

    assert (await soon(applied)).accepted == ("Service other",)
    assert (await soon(late)).stable == "v1"


async def test_of_two_who_saw_the_same_generation_the_second_is_refused(site, kit, bench):
    generation = (await site.store.world()).generation

    def apply(actor, text):
        return asyncio.create_task(
            site.plane.apply(Documents(files={"x.yaml": text}, actor=actor, generation=generation))
        )

    first = apply("ann", OTHER)
    await bench.occupied()
    second = apply("bob", OTHER.replace("other", "another"))
    bench.go(2)

    assert (await soon(first)).generation == generation + 1
    with pytest.raises(RefusedError, match="by ann"):
        await soon(second)


async def test_who_leaves_while_documents_are_tried_leaves_all_as_it_was(site, kit, bench):
    before = await site.store.world()
    applied = taking(site, kit, "apply")
    await bench.occupied()

    applied.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await applied
    bench.go()

    assert await site.store.world() is before
    bench.go()
    assert (await soon(taking(site, kit, "apply"))).accepted == ("Service other",)
