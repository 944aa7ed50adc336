"""Serve your own clusters, endpoints, routes and listeners to Envoys: python docs/embedding_example.py."""

import asyncio

import envoy_data_plane.envoy.config.cluster.v3 as clusters
import envoy_data_plane.envoy.config.endpoint.v3 as endpoints
import envoy_data_plane.envoy.config.listener.v3 as listeners
import envoy_data_plane.envoy.config.route.v3 as routes
import envoy_data_plane.envoy.extensions.filters.http.router.v3
import envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3  # noqa: F401

from controlplane.server import Cache, Callbacks, serve
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE

TYPES = "type.googleapis.com/envoy.extensions.filters"
ADS = {"ads": {}, "resourceApiVersion": "V3"}


def address(port):
    """A port of this machine."""
    return {"socketAddress": {"address": "127.0.0.1", "portValue": port}}


def world(name, upstream, front):
    """Everything that one Envoy has: requests to the port `front` go to the port `upstream`."""
    cluster = {"name": name, "type": "EDS", "edsClusterConfig": {"edsConfig": ADS}}
    members = {
        "clusterName": name,
        "endpoints": [{"lbEndpoints": [{"endpoint": {"address": address(upstream)}}]}],
    }
    rule = {"match": {"prefix": "/"}, "route": {"cluster": name}}
    table = {"name": "routes", "virtualHosts": [{"name": "all", "domains": ["*"], "routes": [rule]}]}
    router = {"name": "router", "typedConfig": {"@type": f"{TYPES}.http.router.v3.Router"}}
    http = f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"
    rds = {"routeConfigName": "routes", "configSource": ADS}
    manager = {"@type": http, "statPrefix": "in", "rds": rds, "httpFilters": [router]}
    chain = {"filters": [{"name": "http", "typedConfig": manager}]}
    listener = {"name": "front", "address": address(front), "filterChains": [chain]}
    return {
        CLUSTER: {name: clusters.Cluster.from_dict(cluster)},
        ENDPOINT: {name: endpoints.ClusterLoadAssignment.from_dict(members)},
        ROUTE: {"routes": routes.RouteConfiguration.from_dict(table)},
        LISTENER: {"front": listeners.Listener.from_dict(listener)},
    }


async def main():
    """Serve blue, then green, then nothing."""
    refused = Callbacks(nacked=lambda stream, type_url, nack: print(stream.node.id, type_url, nack.message))  # noqa: T201
    cache = Cache()  # by node id; Cache(lambda node: node.cluster) has one set of resources per cluster
    async with serve(cache, "127.0.0.1:18000", refused):
        cache.replace("edge-1", world("blue", 9001, 8080))
        await asyncio.sleep(60)
        cache.replace("edge-1", world("green", 9002, 8080))  # at once, and no request is lost
        await asyncio.sleep(60)
        cache.clear("edge-1")  # the Envoy has nothing any more
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main())
