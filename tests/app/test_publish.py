"""From the store to snapshots: who belongs where, and that one that cannot be rendered harms no other."""

import asyncio
from dataclasses import replace

import pytest

from controlplane.app import publish
from controlplane.app.publish import Publisher
from controlplane.app.renderable import Fitting
from controlplane.release.traffic import traffic
from controlplane.resources import statistics
from controlplane.resources.rendering import Rendering
from controlplane.web.asked import Act, Documents, Order, Switch
from controlplane.xds.snapshot import Snapshot
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE, SCOPED_ROUTE
from tests.waiting import until


def names(site, type_url, fleet="edge"):
    return set(site.publisher.server.snapshot(fleet).of(type_url))


async def test_a_world_is_published_with_its_revision(site):
    world = await site.store.world()

    site.publisher.publish(world)

    assert names(site, CLUSTER) == {"shop~v1", "shop~v2"}
    assert site.publisher.server.snapshot("edge").revision == site.publisher.revision == world.revision
    assert site.plane.ready
    assert site.publisher.listens("http")
    assert not site.publisher.listens("admin")


async def test_only_the_routes_change_when_a_step_begins(site, kit):
    site.publisher.publish(await site.store.world())
    before = site.publisher.server.snapshot("edge")
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))

    site.publisher.publish(await kit.tick(site))

    after = site.publisher.server.snapshot("edge")
    changed = {t.rpartition(".")[2] for t in after.resources if after.of(t) != before.of(t)}
    assert changed == {"RouteConfiguration"}


async def test_what_documents_come_to_is_not_rendered_again_once_they_are_taken(site, kit, monkeypatch):
    """A rollback right behind a large change would wait for that."""
    monkeypatch.setattr(publish, "MANY", 0)
    site.publisher.publish(await site.store.world())
    changed = kit.SERVICE.replace("10.0.0.1:80", "10.0.0.9:80")
    await site.plane.apply(Documents(files={"shop.yaml": changed}, actor="ann"))
    world = await site.store.world()
    fresh = Publisher(site.store)
    fresh.publish(world)
    monkeypatch.setattr(publish, "render", None)

    site.publisher.publish(world)

    snapshot, expected = (each.server.snapshot("edge") for each in (site.publisher, fresh))
    for url in expected.order:
        found = {name: (each.body, each.version.hash) for name, each in snapshot.of(url).items()}
        assert found == {name: (each.body, each.version.hash) for name, each in expected.of(url).items()}
    revisions = {name: each.version.revision for name, each in snapshot.of(ENDPOINT).items()}
    assert revisions == {"shop~v1": world.revision, "shop~v2": world.revision - 1}
    assert site.publisher.problems == {}


async def test_nothing_is_acknowledged_before_it_is_published(site):
    world = await site.store.world()
    site.publisher.publish(world)

    ahead = site.publisher.propagation(replace(world, revision=world.revision + 1), "shop")

    assert not ahead.complete
    assert site.publisher.propagation(world, "gone").live == ()


@pytest.fixture
def poison(monkeypatch):
    """Let services of a name be impossible to render."""
    real = publish.render

    def poison(name):
        def render(fleet, services, *rest):
            services = tuple(services)
            if any(s.service.name == name and s.service.timeout.total_seconds() == 13 for s in services):
                raise ValueError(f"service {name!r}: cannot be")
            return real(fleet, services, *rest)

        monkeypatch.setattr(publish, "render", render)

    return poison


async def test_a_service_that_cannot_be_rendered_keeps_its_last_good_routes_and_harms_no_other(
    tmp_path, kit, poison
):
    cart = kit.SERVICE.replace("name: shop", "name: cart").replace("shop.example", "cart.example")
    site = await kit.start(tmp_path, cart=cart)
    world = await site.store.world()
    site.publisher.publish(world)
    before = site.publisher.server.snapshot("edge")
    poison("cart")
    bad = kit.load(kit.files(cart=cart + "timeout: 13s\n", shop=kit.SERVICE.replace("v2", "v3"))).catalog

    site.publisher.publish(replace(world, catalog=bad, revision=world.revision + 1))

    assert names(site, CLUSTER) == {"shop~v1", "shop~v3", "cart~v1", "cart~v2"}
    assert site.plane.problems() == ("service cart: service 'cart': cannot be",)
    own = [site.publisher.server.snapshot("edge").of(CLUSTER)["cart~v1"], before.of(CLUSTER)["cart~v1"]]
    assert own[0] == own[1]
    assert "cannot be" in site.publisher.propagation(site.plane.world, "cart").nacked[0][1]

    site.publisher.publish(replace(world, revision=world.revision + 2))
    assert site.plane.problems() == ()
    await site.store.close()


async def test_a_restart_takes_no_service_away_where_not_all_releases_have_a_place(
    tmp_path, kit, monkeypatch
):
    others = {n: kit.SERVICE.replace("shop", n) for n in ("cart", "mail")}
    site = await kit.start(tmp_path, **others)
    for service in ("shop", "cart"):
        site.clock.pass_(1)
        await site.plane.order(Order(service=service, to="v2", policy="quick", actor="ann"))
    world = await kit.tick(site, 2)
    whole = Publisher(site.store)
    whole.publish(world)
    monkeypatch.setattr(statistics, "SERIES_LIMIT", whole._renderings["edge"].series - 1)

    after = Publisher(site.store)
    after.publish(world)

    had, has = (each.server.snapshot("edge") for each in (whole, after))
    for type_url in (CLUSTER, ENDPOINT, ROUTE, SCOPED_ROUTE):
        assert has.of(type_url).keys() == had.of(type_url).keys()
    # The one that was ordered first has its place, the other is as without a release.
    assert list(after.problems) == ["cart"]
    assert after.problems["cart"].endswith("; until then v1 serves everyone")
    routes = {n.split("~")[0]: has.of(ROUTE)[n].body == had.of(ROUTE)[n].body for n in has.of(ROUTE)}
    assert routes == {"cart": False, "mail": True, "shop": True}
    await site.store.close()


def test_a_few_culprits_of_many_are_found_in_few_renderings(kit):
    catalog = kit.load(kit.files()).catalog
    service = catalog.service("shop")
    services = {
        name: traffic(service.model_copy(update={"name": name}), "v1", None, "baseline")
        for name in (f"s{i:03}" for i in range(256))
    }
    culprits, tried = {"s007", "s200"}, []

    def compile_(some, last):
        tried.append(len(some))
        if any(each.service.name in culprits for each in some):
            raise ValueError("cannot be")
        names = {each.service.name: each for each in some}
        return Rendering(Snapshot(1, {}), catalog.fleet("edge"), names, {}, {})

    fitting = Fitting(compile_, None)
    fitting.fit(services, {})

    assert fitting.problems == dict.fromkeys(sorted(culprits), "cannot be")
    assert set(fitting.rendering.services) == services.keys() - culprits
    assert len(tried) < 40


async def test_documents_that_cannot_be_rendered_are_refused_at_the_door(tmp_path, kit, poison):
    site = await kit.start(tmp_path)
    poison("shop")
    before = await site.store.world()

    done = await site.plane.apply(
        Documents(files={"shop.yaml": kit.SERVICE + "timeout: 13s\n", "r.yaml": kit.RELEASE}, actor="ann")
    )

    world = await site.store.world()
    assert done.accepted == ("Release shop-2",)
    assert "cannot be" in done.problems[0]
    assert world.catalog.service("shop") == before.catalog.service("shop")
    await site.store.close()


async def test_a_fleet_that_is_gone_leaves_no_problem_behind(tmp_path, kit):
    site = await kit.start(tmp_path)
    site.publisher.publish(await site.store.world())

    await site.plane.take(kit.files(fleet=None, shop=None, quick=kit.POLICY), "test")
    site.publisher.publish(await site.store.world())

    assert site.plane.problems() == ()
    assert site.plane.services() == ()
    await site.store.close()


async def test_a_release_whose_service_and_fleet_left_the_folder_goes_on(tmp_path, kit):
    site = await kit.start(tmp_path)
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.tick(site, 6)

    done = await site.plane.take({}, "test")
    site.publisher.publish(await site.store.world())
    world = await kit.tick(site, 40)

    assert len(done.problems) == 1
    assert world.stable == {"shop": "v2"}
    assert names(site, ROUTE)
    assert site.plane.release("shop-v2").phase == "promoted"
    await site.store.close()


async def test_a_service_that_takes_the_routes_of_one_in_use_is_refused(tmp_path, kit):
    site = await kit.start(tmp_path)
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.tick(site, 2)
    renamed = kit.SERVICE.replace("name: shop", "name: store")
    of = "of release 'shop-v2' (progressing)"
    whose = f"v1 is stable and the baseline {of}, v2 is the canary {of}"

    done = await site.plane.take(kit.files(shop=renamed), "test")

    assert [s.name for s in (await site.store.world()).catalog.services()] == ["shop"]
    assert [p.partition(": ")[2] for p in done.problems] == [
        f"the document that was last read here is gone: v1, v2 of 'shop' cannot be removed: {whose}",
        "routes: 'shop' has one of them and is in use",
    ]
    await site.plane.act("shop-v2", "rollback", Act(actor="ann"))
    await kit.until(site, lambda w: w.releases["shop-v2"].ended)
    assert not (await site.plane.take(kit.files(shop=renamed), "test")).problems
    assert [s.name for s in site.plane.services()] == ["store"]
    assert (await site.plane.switch("store", Switch(actor="a", version="v2"))).stable == "v2"
    await site.store.close()


async def test_the_publisher_follows_the_store(site):
    following = asyncio.ensure_future(site.publisher.run())
    for version in ("v2", "v1", "v2"):
        await site.plane.switch("shop", Switch(actor="a", version=version))
        world = await site.store.world()
        await until(lambda world=world: site.publisher.revision >= world.revision)
    following.cancel()

    assert site.publisher.server.snapshot("edge").revision == world.revision
