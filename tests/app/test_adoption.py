"""A store in place of one that was lost: which services are in question, and what an operator says."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controlplane._pb.discovery_pb2 import DeltaDiscoveryRequest
from controlplane._pb.node_pb2 import Node as NodeMessage
from controlplane.app.adoption import Question, in_question, proven, questioned
from controlplane.policy.values import listed
from controlplane.release.state import Phase
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Act, Adopt, Documents, Order, Switch
from controlplane.web.port import RefusedError
from controlplane.xds.messages import Node
from controlplane.xds.snapshot import Resource
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE
from controlplane.xds.version import Version
from controlplane.xds.view import Peer, StreamView, TypeView
from controlplane.xds.wire import set_hash
from tests.waiting import until

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CART = """\
kind: Service
name: cart
fleets: [edge]
routes: [{host: cart.example.com}]
initial: v1
versions:
  v1: {endpoints: ["10.0.0.3:80"]}
"""
HOME = "shop~shop.example.com"  # of its routes
OWNED = "kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners: [{name: public, kind: adopt}]\n"
CALLS = "kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners: [{name: calls, kind: grpc}]\n"


def has(*strange, clusters=("shop~v1", "shop~v2", "cart~v1"), proxy="edge-1"):
    """Return a stream whose client has these clusters, and something strange."""
    acked = dict.fromkeys(clusters, Version(57, "x"))
    seen = TypeView(CLUSTER, True, True, frozenset(), NOW, acked, acked, {}, None, {}, None)
    types = (seen,) if clusters else ()
    return StreamView(Peer("10.0.0.1:1"), "delta", NOW, Node(proxy), "edge", 9, False, types, strange)


@pytest.fixture
def rendered(kit):
    """Render the fleet of shop and cart, of one kind or another."""

    async def render(folder, **texts):
        site = await kit.start(folder, cart=CART, **texts)
        site.publisher.publish(await site.store.world())
        await site.store.close()
        return site.publisher._renderings["edge"]

    return render


@pytest.mark.parametrize(
    ("strange", "services"),
    [
        ((CLUSTER, "shop~v2"), {"shop"}),
        ((CLUSTER, "shop~v2~mirror"), {"shop"}),
        ((ENDPOINT, "cart~v1"), {"cart"}),
        ((CLUSTER, "gone~v1"), {"gone"}),
        ((CLUSTER, "passthrough"), {"shop", "cart"}),
        ((CLUSTER, "*"), {"shop", "cart"}),
        ((ROUTE, "shop~shop.example.com"), {"shop"}),
        ((ROUTE, "gone~gone.example.com"), {"gone"}),
        ((ROUTE, "-"), {"shop", "cart"}),
        ((SCOPED_ROUTE, "cart.example.com"), {"cart"}),
        ((SCOPED_ROUTE, "~cart~cart.example.com"), {"cart"}),
        ((SCOPED_ROUTE, "~gone~gone.example.com~01234567"), {"gone"}),
        ((SCOPED_ROUTE, "cart"), {"shop", "cart"}),
        ((SCOPED_ROUTE, "*"), {"shop", "cart"}),
        ((LISTENER, "http"), {"shop", "cart"}),
    ],
)
async def test_what_is_strange_puts_its_services_in_question(tmp_path, rendered, strange, services):
    rendering = await rendered(tmp_path)

    assert questioned(has(strange), rendering, frozenset()) == services
    assert questioned(has(strange), rendering, frozenset(services)) == set()
    assert questioned(has(), rendering, frozenset()) == set()


@pytest.mark.parametrize(
    ("fleet", "strange", "services"),
    [
        (OWNED, (ROUTE, "public"), {"shop", "cart"}),
        (OWNED, (CLUSTER, "shop~v2~ten"), {"shop"}),
        (OWNED, (ROUTE, "other"), {"shop"}),
        (CALLS, (LISTENER, "cart"), {"cart"}),
        (CALLS, (ROUTE, "gone"), {"gone"}),
    ],
)
async def test_other_kinds_of_fleets_name_their_resources_otherwise(
    tmp_path, kit, rendered, fleet, strange, services
):
    shop = kit.SERVICE.replace("user: {from: [{cookie: u}]}\n", "") if fleet == CALLS else kit.SERVICE
    rendering = await rendered(tmp_path, fleet=fleet, shop=shop, quick=None)

    assert questioned(has(strange, clusters=("shop~v1~everyone",)), rendering, frozenset()) == services


async def test_a_proxy_that_does_not_tell_its_clusters_has_all_of_the_fleet(tmp_path, rendered):
    rendering = await rendered(tmp_path)

    assert questioned(has((LISTENER, "http"), clusters=()), rendering, frozenset()) == {"shop", "cart"}


async def test_proxies_are_listed_by_service(tmp_path, rendered):
    rendering = await rendered(tmp_path)
    views = [has((ROUTE, HOME), proxy=f"edge-{n}") for n in (2, 1)]

    found = in_question([*views, has((ROUTE, "cart")), has()], {"edge": rendering}, frozenset({"cart"}))

    assert found == {"shop": Question(("edge-1", "edge-2"))}
    assert in_question(views, {}, frozenset()) == {}
    assert listed(f"edge-{n}" for n in range(8)) == "edge-0, edge-1, edge-2, edge-3, edge-4 and 3 more"


async def content(folder, kit, fleet, stable, **texts):
    """Return the hash of the routes of shop at a site where something is stable."""
    site = await kit.start(folder, cart=CART, fleet=fleet, **texts)
    if stable != "v1":
        await site.plane.switch("shop", Switch(actor="ann", version=stable))
    if stable == "v1" and "order" in texts:
        await kit.until(site, lambda world: world.releases["shop-2"].at == "ten")
    site.publisher.publish(await site.store.world())
    await site.store.close()
    return site.publisher._renderings["edge"].snapshot.of(ROUTE)[HOME].version.hash


@pytest.mark.parametrize("kind", ["edge", "local"])
async def test_routes_prove_which_version_all_requests_get(tmp_path, kit, kind):
    fleet = kit.FLEET.replace('8080"}', f'8080", kind: {kind}}}')
    site = await kit.start(tmp_path / "new", cart=CART, fleet=fleet)
    site.publisher.publish(await site.store.world())
    await site.store.close()
    rendering = site.publisher._renderings["edge"]
    had = [await content(tmp_path / version, kit, fleet, version) for version in ("v1", "v2")]
    releasing = await content(tmp_path / "order", kit, fleet, "v1", order=kit.RELEASE)

    last = set_hash({HOME: Resource(HOME, b"", Version(57, had[1]))})  # of a state-of-the-world client

    found = [proven(rendering, "shop", each) for each in (*had, last, releasing, "")]

    assert found == ["v1", "v2", "v2", "", ""]
    assert proven(rendering, "gone", had[0]) == ""


async def test_a_service_had_a_version_if_the_routes_of_all_proxies_prove_it(tmp_path, rendered):
    rendering = await rendered(tmp_path)

    def having(route, proxy):
        view = has((ROUTE, HOME), proxy=proxy)
        routes = TypeView(
            ROUTE, True, False, frozenset({HOME}), NOW, {}, {HOME: Version(57, route)}, {}, None, {}, None
        )
        return replace(view, types=(*view.types, routes))

    def told(*routes):
        views = [having(route, f"edge-{number}") for number, route in enumerate(routes)]
        found = in_question(views, {"edge": rendering}, frozenset(), lambda _r, _s, content: content)
        return found["shop"].had

    assert told("v2", "v2") == "v2"
    assert told("v2", "") == told("v2", "v1") == ""


# --- an operator says what is stable ----------------------------------------------------------------------


class Proxy:
    """A delta client in memory, that brings what another store gave it, and takes what it is sent."""

    def __init__(self, site, name="edge-1", **claims):
        self.peer = Peer("10.0.0.1:1")
        self.sent = []
        self._requests = asyncio.Queue()
        self.task = asyncio.ensure_future(site.publisher.server.serve(self, "delta"))
        message = NodeMessage(id=name, cluster="edge")
        message.user_agent_build_version.version.minor_number = 40
        message.user_agent_build_version.version.major_number = 1
        node = message.SerializeToString()
        for type_url in (CLUSTER, ROUTE):
            names = [] if type_url == CLUSTER else ["shop"]
            brought = claims.get(type_url.rpartition(".")[2], {})
            self._requests.put_nowait(
                DeltaDiscoveryRequest(
                    type_url=type_url, node=node, resource_names_subscribe=names,
                    initial_resource_versions=brought,
                ).SerializeToString()
            )  # fmt: skip
            node = b""

    end = None

    async def read(self):
        return await self._requests.get()

    def write(self, data, done):
        self.sent.append(data)
        done(None)

    def finish(self, status, text):
        self.status = status, text


@pytest.fixture
async def lost(tmp_path, kit):
    """A new store with documents, and a proxy that another store gave something else."""
    site = await kit.start(tmp_path, cart=CART)
    site.publisher.publish(await site.store.world())
    site.fleet = site.publisher
    clusters = {"shop~v1": "57.0", "shop~v2": "57.0"}
    site.proxy = Proxy(site, Cluster=clusters, RouteConfiguration={HOME: "57.0123456789abcdef"})
    await until(lambda: site.plane.left_alone == 1)
    yield site
    site.proxy.task.cancel()
    await asyncio.wait([site.proxy.task])
    await site.store.close()


async def test_whose_load_reports_count_is_known_from_the_begin_of_a_stream_to_its_end(lost):
    present = lost.publisher.present
    before = present("edge-2", "10.0.0.1")

    proxies = [Proxy(lost, "edge-2") for _ in range(2)]
    await until(lambda: [view.group for view in lost.publisher.server.views()] == ["edge"] * 3)
    both, elsewhere = present("edge-2", "10.0.0.1"), present("edge-2", "10.0.0.2")
    left = []
    for proxy in proxies:
        proxy.task.cancel()
        await asyncio.wait([proxy.task])
        left.append(present("edge-2", "10.0.0.1"))

    assert (before, both, elsewhere, left) == (False, True, False, [True, False])


def saying(*gone, reason="", **adopt):
    return Adopt(adopt=adopt, gone=gone, actor="ann", reason=reason)


async def test_a_service_that_proxies_have_from_another_store_is_left_alone_and_shown(lost):
    [proxy] = await lost.plane.proxies()
    [problem] = lost.plane.problems()
    shown = {service.name: service.left_alone for service in lost.plane.services()}

    assert lost.proxy.sent == []
    assert (proxy.state, proxy.problems) == (
        "alone",
        ("has shop from another store: see `turnout store init`",),
    )
    assert problem == (
        "service shop: left alone, edge-1 got it from another store; "
        "`turnout store init --adopt shop=VERSION` says what is stable, of v1, v2"
    )
    assert shown == {"shop": ("edge-1",), "cart": ()}
    assert lost.publisher.propagation(lost.plane.world, "cart").alone == ("edge-1",)


async def test_no_release_starts_while_proxies_are_left_alone_not_even_by_hand(lost, kit):
    await lost.plane.apply(Documents(files={"order.yaml": kit.RELEASE}, actor="ann"))
    world = await kit.tick(lost, 3)

    assert (world.releases["shop-2"].phase, world.releases["shop-2"].hold) == (Phase.WAITING, "left-alone")
    with pytest.raises(RefusedError, match=r"may not go on: proxies are left alone .*: edge-1; see `turnout"):
        await lost.plane.act("shop-2", "advance", Act(actor="ann"))


async def test_what_is_adopted_is_stable_and_goes_out_and_no_release_moves(lost, kit):
    await lost.plane.apply(Documents(files={"order.yaml": kit.RELEASE}, actor="ann"))

    shown = await lost.plane.adopt(saying(shop="v2", reason="it was v2"))
    lost.publisher.publish(await lost.store.world())
    await until(lambda: lost.proxy.sent)
    world = await kit.tick(lost, 3)

    assert [(s.stable, s.left_alone) for s in shown if s.name == "shop"] == [("v2", ())]
    assert lost.plane.left_alone == 0
    assert world.settled == {"shop"}
    assert (world.releases["shop-2"].phase, world.releases["shop-2"].start) == (Phase.WAITING, "manual")
    record = [r for r in await lost.plane.records(None, 100) if r.action == "adopt"]
    assert [(r.service, r.actor, r.reason) for r in record] == [
        ("shop", "ann", "v2 is what is stable; edge-1 had it from another store: it was v2")
    ]


@pytest.mark.parametrize(
    ("wanted", "status", "words"),
    [
        (saying(), 400, "service shop: left alone, edge-1 got it from another store"),
        (saying(web="v1"), 404, "no service is named 'web'; known: cart, shop"),
        (saying(shop="v9"), 404, "service 'shop' has no version 'v9'; known: v1, v2"),
        (saying("shop"), 409, "service 'shop' has a document; adopt one of its versions"),
        (saying("web"), 404, "no proxy has a service 'web' from another store"),
        (saying("web", web="v1", shop="v9"), 404, "known: v1, v2; no service is named 'web'"),
    ],
)
async def test_what_cannot_be_adopted_is_refused_and_nothing_is_changed(lost, wanted, status, words):
    before = await lost.store.world()

    with pytest.raises(RefusedError) as error:
        await lost.plane.adopt(wanted)

    assert error.value.status == status
    assert words in str(error.value)
    assert await lost.store.world() == before


async def test_a_version_that_answers_nowhere_is_not_adopted(lost, kit):
    nowhere = kit.SERVICE.replace('["10.0.0.2:80"]', "[]")
    await lost.plane.apply(Documents(files={"shop.yaml": nowhere}, actor="ann"))

    with pytest.raises(RefusedError, match="v2 of 'shop' has no endpoints"):
        await lost.plane.adopt(saying(shop="v2"))


async def test_what_is_known_is_changed_by_a_switch_and_not_adopted(lost):
    await lost.plane.adopt(saying(cart="v1"))  # no proxy has been here, but somebody knows
    await lost.plane.switch("shop", Switch(actor="ann", version="v2"))
    lost.publisher.publish(await lost.store.world())

    assert lost.plane.left_alone == 0
    for service, version in (("cart", "v1"), ("shop", "v1")):
        with pytest.raises(
            RefusedError, match=f"what is stable of '{service}' is known: .*; `turnout switch`"
        ):
            await lost.plane.adopt(saying(**{service: version}))


async def test_a_service_that_no_document_has_is_kept_until_somebody_says_that_it_is_gone(lost):
    other = Proxy(lost, "edge-2", Cluster={"old~v1": "57.0"})
    await until(lambda: lost.plane.left_alone == 2)
    problems = lost.plane.problems()
    await lost.plane.adopt(saying("old", shop="v1"))
    lost.publisher.publish(await lost.store.world())
    await until(lambda: other.sent)
    other.task.cancel()

    assert problems[0] == (
        "service old: left alone, edge-2 got it from another store; "
        "no document has it: apply it, or take it away by `turnout store init --gone old`"
    )
    assert lost.plane.problems() == ()
    records = {r.service: r.reason for r in await lost.plane.records(None, 100) if r.action == "adopt"}
    assert records["old"] == "old is gone; edge-2 had it from another store"


async def test_a_release_that_started_before_the_proxies_came_goes_back_when_its_service_is_adopted(
    tmp_path, kit
):
    site = await kit.start(tmp_path)
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.until(site, lambda world: world.releases["shop-v2"].at == "ten")

    await site.plane.adopt(saying(shop="v1"))

    assert site.plane.release("shop-v2").phase == "rolling_back"
    await site.store.close()


async def test_no_adoption_goes_back_past_a_point_of_no_return(tmp_path, kit):
    migrating = kit.POLICY.replace(
        "everyone: 10%", "everyone: 10%, irreversible: {because: migration}, approve: {role: admin}"
    )
    migrating = migrating.replace("hold_back: 2%", "hold_back: 0%")
    site = await kit.start(tmp_path, quick=migrating)
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await site.plane.act("shop-v2", "approve", Act(actor="ann", step="ten"))
    await kit.until(site, lambda world: world.releases["shop-v2"].at == "ten")

    with pytest.raises(RefusedError, match=r"past step 'ten': migration; `turnout switch` goes back"):
        await site.plane.adopt(saying(shop="v1"))

    await site.plane.adopt(saying(shop="v2"))
    assert site.plane.release("shop-v2").phase == "promoted"
    await site.store.close()


async def test_proxies_that_are_ahead_of_a_store_are_passed_by_what_is_adopted(lost):
    seen = lost.plane.world.revision + 500
    lost.publisher.server.ahead = seen

    await lost.plane.adopt(saying(shop="v1"))

    world = await lost.store.world()
    assert (world.began, world.revision, world.settled) == (seen + 1, seen + 1, {"shop"})


async def test_the_first_documents_of_a_store_start_no_release(tmp_path, kit):
    site = await kit.Site(await SqliteStore(tmp_path).open(), kit.Clock()).restore()
    texts = {name: data.decode() for name, data in kit.files(order=kit.RELEASE).items()}

    await site.plane.apply(Documents(files=texts, actor="ann"))
    world = await kit.tick(site, 3)

    assert (world.releases["shop-2"].phase, world.releases["shop-2"].hold) == (Phase.WAITING, "manual")
    await site.store.close()
