"""A proxy that acknowledges everything and does not split: its owner's route stands in front of ours."""

from __future__ import annotations

import pytest

from controlplane.demo.ports import free_ports

pytestmark = [pytest.mark.envoy]

HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def in_front(bootstrap, port, cluster):
    """Return the bootstrap with a listener of the owner's, whose route leads straight to a cluster."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    manager = {
        "@type": HTTP,
        "stat_prefix": "owner",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
        "route_config": {
            "validate_clusters": False,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "owner",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": filters}],
    }
    resources = bootstrap["static_resources"] | {"listeners": [listener]}
    return bootstrap | {"static_resources": resources}


async def test_a_route_in_front_of_ours_holds_the_release_and_is_named(site):
    (front,) = free_ports(1)
    await site.serve()
    world = site.world("edge")
    await site.apply(*world)
    owned = in_front(site.bootstrap("edge-2"), front, "shop~v1")
    await site.start(edge_1=site.bootstrap("edge-1"), edge_2=owned)
    await site.come(150, site.ports["edge"], front)
    await site.apply(*site.order("name: half, everyone: 50%"))

    async def named():  # at first both may be partial: each has just come
        shown = await site.release()
        told = "past Turnout's routes" in shown["because"] and "edge-1" not in shown["because"]
        return shown if shown["hold"] == "stale" and told else None

    held = await site.until(named)
    shown = await site.get("/v1/proxies")
    before = held["canary_requests"]

    async def more():
        return (await site.release())["canary_requests"] > before + 50

    await site.until(more)
    later = await site.release()
    seen = await site.leave()

    assert "statistics of edge-2 are partial: " in held["because"]
    assert "requests reached shop~v1 past Turnout's routes" in held["because"]
    assert {proxy["id"]: proxy["state"] for proxy in shown} == {"edge-1": "synced", "edge-2": "synced"}
    assert (later["phase"], later["stage"], later["hold"]) == ("progressing", "verify", "stale")
    assert later["judged_seconds"] == 0
    assert seen.unexplained == 0
    assert await site.reached("edge-1", "v2") > 0
