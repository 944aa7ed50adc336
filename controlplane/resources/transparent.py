"""A listener that is given the connections of a machine, whatever they were meant for.

Requests to hosts of services are split. Everything else goes where it was meant to go, as it came: requests
to other hosts and paths, and connections that do not begin like HTTP. Connections of the proxy's own user
must not be given to it, or they would come back for ever.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.core_pb2 import HttpProtocolOptions as Common
from controlplane._pb.hcm_pb2 import HttpConnectionManager
from controlplane._pb.httpinspector_pb2 import HttpInspector
from controlplane._pb.listener_pb2 import Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter
from controlplane._pb.originaldst_pb2 import OriginalDst
from controlplane._pb.route_pb2 import Route, RouteAction, RouteConfiguration, RouteMatch
from controlplane._pb.tcpproxy_pb2 import TcpProxy
from controlplane._pb.upstream_pb2 import HttpProtocolOptions
from controlplane.resources.names import (
    FRESH_USER_HEADER,
    PASSTHROUGH,
    SCOPE_HEADER,
    SCOPE_NONE,
    SOURCE_HEADER,
)
from controlplane.resources.readable import packed

_HTTP = ("http/1.0", "http/1.1", "h2c")  # what the inspector finds
# A server that speaks first gets its connection this late, since the client is waited for till then.
_PATIENCE = Duration(nanos=500_000_000)


def take_over(message: Listener) -> None:
    """Make of a listener with one HTTP chain one that takes connections over."""
    http = message.filter_chains[0]
    http.filter_chain_match.application_protocols.extend(_HTTP)
    message.listener_filters.extend(
        (
            ListenerFilter(name="envoy.filters.listener.original_dst", typed_config=packed(OriginalDst())),
            ListenerFilter(
                name="envoy.filters.listener.http_inspector", typed_config=packed(HttpInspector())
            ),
        )
    )
    message.listener_filters_timeout.CopyFrom(_PATIENCE)
    message.continue_on_listener_filters_timeout = True
    # Who connects to the port itself was meant for nobody else: passing that on would lead back here.
    port = message.address.socket_address.port_value
    direct = FilterChainMatch(destination_port=UInt32Value(value=port))
    message.filter_chains.append(FilterChain(filter_chain_match=direct))
    other = TcpProxy(stat_prefix=PASSTHROUGH, cluster=PASSTHROUGH)
    message.default_filter_chain.filters.append(
        Filter(name="envoy.filters.network.tcp_proxy", typed_config=packed(other))
    )


def untouched(manager: HttpConnectionManager) -> None:
    """Let requests be as the client sent them: they may not be for a service of ours."""
    manager.normalize_path.CopyFrom(BoolValue(value=False))
    manager.merge_slashes = False
    manager.path_with_escaped_slashes_action = HttpConnectionManager.KEEP_UNCHANGED
    manager.common_http_protocol_options.headers_with_underscores_action = Common.ALLOW
    manager.preserve_external_request_id = True


def passthrough() -> Cluster:
    """Return the cluster that leads where a connection was meant to go, in the protocol of the client."""
    options = HttpProtocolOptions()
    options.use_downstream_protocol_config.http2_protocol_options.SetInParent()
    name = options.DESCRIPTOR.full_name.removeprefix("turnout.")
    return Cluster(
        name=PASSTHROUGH,
        type=Cluster.ORIGINAL_DST,
        lb_policy=Cluster.CLUSTER_PROVIDED,
        connect_timeout=Duration(seconds=10),
        typed_extension_protocol_options={name: packed(options)},
    )


def passthrough_route() -> Route:
    """Return the route of every request that no service claims; it may take as long as it likes."""
    action = RouteAction(cluster=PASSTHROUGH, timeout=Duration(), idle_timeout=Duration())
    return Route(match=RouteMatch(prefix="/"), route=action, request_headers_to_remove=[FRESH_USER_HEADER])


def passthrough_hosts() -> RouteConfiguration:
    """Return the routes of hosts that no service claims."""
    message = RouteConfiguration(name=SCOPE_NONE, request_headers_to_remove=[SCOPE_HEADER, SOURCE_HEADER])
    message.virtual_hosts.add(name=PASSTHROUGH, domains=["*"], routes=[passthrough_route()])
    return message
