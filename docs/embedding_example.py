"""Serve your own clusters, endpoints, routes and listeners to Envoys: python docs/embedding_example.py."""

import asyncio
from string import Template

from controlplane.server import Cache, Callbacks, from_yaml, serve

# Everything that one Envoy has: requests to the port $front go to $port.
WORLD = Template("""
- "@type": envoy.config.cluster.v3.Cluster
  name: $name
  type: EDS
  eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}
- "@type": envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: $name
  endpoints:
  - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $port}}}}]
- "@type": envoy.config.route.v3.RouteConfiguration
  name: routes
  virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: $name}}]}]
- "@type": envoy.config.listener.v3.Listener
  name: front
  address: {socket_address: {address: 127.0.0.1, port_value: $front}}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        "@type": envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: in
        rds: {route_config_name: routes, config_source: {ads: {}, resource_api_version: V3}}
        http_filters:
        - {name: router, typed_config: {"@type": envoy.extensions.filters.http.router.v3.Router}}
""")


async def main():
    """Serve blue, then green, then nothing; print who comes, accepts and refuses what."""
    blue = from_yaml(WORLD.substitute(name="blue", port=9001, front=8080))
    green = from_yaml(WORLD.substitute(name="green", port=9002, front=8080))
    cache = Cache()  # by node id; Cache(lambda node: node.cluster) has one set of resources per cluster
    async with serve(cache, "127.0.0.1:18000", Callbacks(connected=print, acked=print, nacked=print)):
        cache.replace("edge-1", blue)
        await asyncio.sleep(60)
        cache.replace("edge-1", green)  # at once, and no request is lost
        await asyncio.sleep(60)
        cache.clear("edge-1")  # the Envoy has nothing any more
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main())
