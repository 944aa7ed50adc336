"""The bootstrap of a proxy: where its control plane is, who it is, what it reports.

One proxy, one bootstrap: statistics are known by the node's id, and a shared one makes a fleet look like
one proxy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from controlplane.policy.latency import EDGES_MS
from controlplane.policy.stats import CLUSTER_STATS, REPORTS, REPORTS_KEY
from controlplane.resources.statistics import DURATION, PREFIX

VERSIONED: Final = "~"  # clusters of services are named service~version
CONTROL_PLANE: Final = "turnout"  # name of its cluster in the bootstrap
FALLBACK: Final = "turnout-fallback"

REPORTED: Final = "|".join(
    (
        rf"{PREFIX}\..*",
        r"http\..*\.downstream_rq_(active|completed|total)",
        r"cluster\..*\.(membership_healthy|upstream_rq_total)",
        rf"cluster\..*{VERSIONED}.*\.({'|'.join(map(re.escape, CLUSTER_STATS))})",
        r"server\.(live|state|uptime|version)",
    )
)

# Of listeners that are adopted nothing is known but what clusters count, whose names have a segment.
ADOPTED: Final = "|".join(
    (
        r"cluster\.[^.]*~[^.]*~[^.]*\.upstream_rq_(completed|[1-5]xx|429|time)",
        r"cluster\.[^.]*~[^.]*~[^.]*\.membership_healthy",
        rf"cluster\.[^.]*~[^.]*~[^.]*\.({'|'.join(map(re.escape, CLUSTER_STATS))})",
        r"server\.(live|state|uptime|version)",
    )
)

_TYPES = "type.googleapis.com/envoy."
_MONITORS = _TYPES + "extensions.resource_monitors"
_SINK = _TYPES + "extensions.stat_sinks.open_telemetry.v3.SinkConfig"
_TIMES: Final = rf"{PREFIX}\.{DURATION}(\..*)?"
_ADOPTED_TIMES: Final = r"cluster\..*~.*~.*\.upstream_rq_time"
_MAX_PROGRAM_SIZE = 1000  # of a regular expression; 100 is too little for a cookie among others
_MAX_CONNECTIONS = 20_000


@dataclass(frozen=True, slots=True)
class Tls:
    """Files on the proxy with which it and the control plane know each other.

    Attributes:
        certificate: Chain of the proxy's certificate.
        key: Its private key.
        ca: Who signs the control plane's certificate.
        name: DNS name that the control plane's certificate must have.
    """

    certificate: str
    key: str
    ca: str
    name: str


def bootstrap(  # noqa: PLR0913 - each is an option of the command
    node_id: str,
    cluster: str,
    control_planes: Sequence[str],
    *,
    variant: Literal["delta", "sotw"] = "delta",
    flush: timedelta = timedelta(seconds=5),
    admin: str | None = "127.0.0.1:9901",
    tls: Tls | None = None,
    adopt: Mapping[str, str] | None = None,
    fallback: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Return an Envoy bootstrap as plain data, fit for YAML or JSON.

    Args:
        node_id: Name of the proxy, its own.
        cluster: What fleets know it by.
        control_planes: ``host:port``, the first preferred.
        variant: How much comes with a change.
        flush: How often statistics are pushed.
        admin: Address of the admin page; None for none.
        tls: Files for the connection to the control plane; None for plain text.
        adopt: Listeners of the proxy's owner that take their routes from us, with their addresses.
        fallback: Address of a listener that needs no control plane, and of the server that it leads to.
    """
    if not node_id or not cluster or not control_planes:
        raise ValueError("a bootstrap needs a node id, a node cluster and at least one control plane")
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "5s"}
    listening = {} if adopt else {"lds_config": source}
    listeners = [_owned(name, address) for name, address in (adopt or {}).items()]
    clusters = [_cluster(control_planes, tls)]
    if fallback is not None:
        listeners.append(_fallback(fallback[0]))
        clusters.append(_fallback_cluster(fallback[1]))
    return {
        "node": {"id": node_id, "cluster": cluster, "metadata": {REPORTS_KEY: REPORTS}},
        **({"admin": {"address": _socket(admin)}} if admin else {}),
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if variant == "delta" else "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": _patient(), "timeout": "0s"}],
            },
            "cds_config": source,
            **listening,
        },
        "stats_flush_interval": f"{flush.total_seconds():g}s",
        "stats_sinks": [_sink(node_id, cluster, ADOPTED if adopt else REPORTED)],
        "stats_config": {
            "histogram_bucket_settings": [
                {
                    "match": {"safe_regex": {"regex": _ADOPTED_TIMES if adopt else _TIMES}},
                    "buckets": list(EDGES_MS),
                }
            ]
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {"re2.max_program_size.error_level": _MAX_PROGRAM_SIZE},
                },
                {"name": "admin", "admin_layer": {}},
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": _MAX_CONNECTIONS,
                    },
                }
            ]
        },
        "static_resources": {
            "clusters": clusters,
            **({"listeners": listeners} if listeners else {}),
        },
    }


def _owned(name: str, address: str) -> dict[str, Any]:
    """Return a listener for its owner to replace; what has to be in it is where the routes come from."""
    source = {"ads": {}, "resource_api_version": "V3"}
    return _listener(name, address, {"rds": {"route_config_name": name, "config_source": source}})


def _fallback(address: str) -> dict[str, Any]:
    """Return a listener that passes everything on, for whoever comes while ours cannot be had."""
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": FALLBACK, "timeout": "15s"}}]
    hosts = [{"name": FALLBACK, "domains": ["*"], "routes": routes}]
    return _listener(FALLBACK, address, {"route_config": {"name": FALLBACK, "virtual_hosts": hosts}})


def _listener(name: str, address: str, routes: Mapping[str, Any]) -> dict[str, Any]:
    router = {"@type": _TYPES + "extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": _TYPES + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        **routes,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": name, "address": _socket(address), "filter_chains": [chain]}


def _fallback_cluster(address: str) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _socket(address)}}]}]
    return {
        "name": FALLBACK,
        "type": "STRICT_DNS",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": FALLBACK, "endpoints": endpoints},
    }


def _socket(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _patient() -> dict[str, Any]:
    """Return a gRPC client that tries again within 5 s; Envoy's own pause grows to 30 s."""
    pause = {"base_interval": "0.25s", "max_interval": "5s"}
    return {"cluster_name": CONTROL_PLANE, "retry_policy": {"retry_back_off": pause}}


def _sink(node_id: str, cluster: str, names: str) -> dict[str, Any]:
    """Return the sink that pushes cumulative counters and histograms, of these names only."""
    reported = {
        "input": {
            "name": "stat_name",
            "typed_config": {
                "@type": _TYPES + "extensions.matching.common_inputs.stats.v3.StatFullNameMatchInput"
            },
        },
        "value_match": {"safe_regex": {"google_re2": {}, "regex": names}},
    }
    drop = {"name": "drop", "typed_config": {"@type": f"{_SINK}.DropAction"}}
    identity = {
        "@type": _TYPES
        + "extensions.tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig",
        "attributes": {"service.instance.id": node_id, "service.name": cluster},
    }
    return {
        "name": "envoy.stat_sinks.open_telemetry",
        "typed_config": {
            "@type": _SINK,
            "grpc_service": {"envoy_grpc": {"cluster_name": CONTROL_PLANE}},
            "resource_detectors": [
                {
                    "name": "envoy.tracers.opentelemetry.resource_detectors.static_config",
                    "typed_config": identity,
                }
            ],
            "custom_metric_conversions": {
                "matcher_list": {
                    "matchers": [
                        {
                            "predicate": {"not_matcher": {"single_predicate": reported}},
                            "on_match": {"action": drop},
                        }
                    ]
                }
            },
        },
    }


def _cluster(control_planes: Sequence[str], tls: Tls | None) -> dict[str, Any]:
    """Return the control plane's cluster; keepalive notices one that hangs, priorities lead to the next."""
    keepalive = {"interval": "10s", "timeout": "5s"}
    found: dict[str, Any] = {
        "name": CONTROL_PLANE,
        "type": "STRICT_DNS",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPES + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": keepalive}},
            }
        },
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 30}},
        "load_assignment": {
            "cluster_name": CONTROL_PLANE,
            "endpoints": [
                {"priority": place, "lb_endpoints": [{"endpoint": {"address": _socket(address)}}]}
                for place, address in enumerate(control_planes)
            ],
        },
    }
    if len(control_planes) > 1:
        found["outlier_detection"] = {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_local_origin_failure": 100,
            "interval": "1s",
            "base_ejection_time": "10s",
            "max_ejection_percent": 100,
        }
    if tls is not None:
        found["transport_socket"] = _transport_socket(tls)
    return found


def _transport_socket(tls: Tls) -> Mapping[str, Any]:
    chain, key = {"filename": tls.certificate}, {"filename": tls.key}
    trusted = {
        "trusted_ca": {"filename": tls.ca},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": tls.name}}],
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TYPES + "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": tls.name,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [{"certificate_chain": chain, "private_key": key}],
                "validation_context": trusted,
            },
        },
    }
