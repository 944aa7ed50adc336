"""An Envoy with a listener and configuration of its owner's, which takes only its routes from us."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml

from controlplane.demo.ports import free_ports
from controlplane.demo.users import population

pytestmark = [pytest.mark.envoy]

FLEET = """\
kind: Fleet
name: owned
nodes: {cluster: owned}
listeners: [{name: public, kind: adopt}]
"""
FILTERS = "type.googleapis.com/envoy.extensions.filters"
# What an owner has: a listener with a filter of theirs, a route of theirs to a cluster of theirs beside ours.
LISTENER = """\
name: mine
address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": {filters}.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: http
      rds:
        route_config_name: public
        config_source: {{ads: {{}}, resource_api_version: V3}}
      http_filters:
      - name: envoy.filters.http.health_check
        typed_config:
          "@type": {filters}.http.health_check.v3.HealthCheck
          pass_through_mode: false
          headers: [{{name: ":path", string_match: {{exact: /healthz}}}}]
      - name: envoy.filters.http.router
        typed_config: {{"@type": {filters}.http.router.v3.Router}}
"""
FIFTH = "name: fifth, everyone: 20%, for: 10m"
REQUEST = b"GET / HTTP/1.1\r\nhost: shop.example.com:8080\r\nx-user-id: someone\r\n\r\n"
DOTTED = ("v1:", "v1.0:"), ("v2:", "v2.0:"), ("initial: v1", "initial: v1.0")


def renamed(document):
    """Give the versions dots in their names, which Envoy's statistics cut names at."""
    for before, after in (*DOTTED, ("from: v1", "from: v1.0"), ("to: v2", "to: v2.0")):
        document = document.replace(before, after)
    return document


async def test_an_owners_listener_takes_routes_and_a_release_is_judged_and_rolled_back(site):
    (port,) = free_ports(1)
    _, service = site.world("owned")
    hand_written = yaml.safe_load(LISTENER.format(port=port, filters=FILTERS))
    bootstrap = site.bootstrap("owned-1", "owned", adopt={"public": "127.0.0.1:1"})
    bootstrap["static_resources"]["listeners"] = [hand_written]
    await site.serve()
    await site.apply(FLEET, renamed(service))
    await site.start(owned_1=bootstrap)
    await site.come(300, port)
    cookie = "name: beta, segment: {cookie: {name: beta, equals: '1'}}, share: 100%"

    await site.apply(*map(renamed, site.order(cookie, "name: half, everyone: 50%, for: 10m")))

    half = await site.released(step="half", stage="judge")
    await site.act("rollback")
    ended = await site.released(phase="rolled_back")
    after = set(await site.ask(port, [REQUEST] * 50))
    await site.synced()
    seen = await site.leave()

    [share] = half["proxies"]
    assert 0.35 < share["observed"] < 0.65
    assert ended["canary_requests"] > 0
    assert after == {"v1"}
    assert seen.unexplained == 0, seen.examples


@pytest.mark.chaos
@pytest.mark.skipif("TURNOUT_CHAOS" not in os.environ, reason="takes half a minute; see `make chaos`")
async def test_an_owners_listener_is_left_alone_when_the_store_was_lost(site):
    (port,) = free_ports(1)
    _, service = site.world("owned")
    hand_written = yaml.safe_load(LISTENER.format(port=port, filters=FILTERS))
    bootstrap = site.bootstrap("owned-1", "owned", adopt={"public": "127.0.0.1:1"})
    bootstrap["static_resources"]["listeners"] = [hand_written]
    users = [user.requests[0] for user in population(200) if user.id]

    async def is_(state):
        return [proxy["state"] for proxy in await site.get("/v1/proxies")] == [state]

    await site.serve()
    await site.apply(FLEET, service)
    await site.start(owned_1=bootstrap)
    await site.come(300, port)
    await site.apply(*site.order(FIFTH))
    await site.released(step="fifth", stage="judge")
    seen = [await site.ask(port, users)]
    await site.kill()
    shutil.rmtree(site.folder / "data")
    for documents in ([FLEET, service, *site.order(FIFTH)], [service + "timeout: 20s\n"]):
        await site.serve()
        await site.apply(*documents)
        await site.until(lambda: is_("alone"))
        seen.append(await site.ask(port, users))
        await site.kill()
    await site.serve()
    await site.until(lambda: is_("alone"))
    await site.post("/v1/adopt", adopt={"shop": "v1"})
    await site.until(lambda: is_("synced"))
    after = await site.ask(port, users)
    load = await site.leave()

    assert 0.1 < seen[0].count("v2") / len(users) < 0.3
    assert seen == [seen[0]] * 3
    assert set(after) == {"v1"}
    assert load.unexplained == 0, load.examples
