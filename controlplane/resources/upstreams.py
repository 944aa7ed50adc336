"""How a proxy treats the endpoints of a version: protocol, health, limits, balance, TLS, headers."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from controlplane._pb.cluster_pb2 import CircuitBreakers, Cluster, OutlierDetection
from controlplane._pb.core_pb2 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    Http2ProtocolOptions,
    KeepaliveSettings,
    TransportSocket,
)
from controlplane._pb.headermutation_pb2 import HeaderMutation, Mutations
from controlplane._pb.health_pb2 import HealthCheck
from controlplane._pb.matcher_pb2 import StringMatcher
from controlplane._pb.mutation_pb2 import HeaderMutation as Mutation
from controlplane._pb.tls_pb2 import (
    CertificateValidationContext,
    CommonTlsContext,
    SubjectAltNameMatcher,
    UpstreamTlsContext,
)
from controlplane._pb.type_pb2 import HTTP1, HTTP2, Percent
from controlplane._pb.upstream_pb2 import HttpProtocolOptions
from controlplane._pb.upstreamcodec_pb2 import UpstreamCodec
from controlplane.policy.documents import Health, Limits, Outliers, Service, UpstreamTls
from controlplane.release.following import told
from controlplane.resources.names import MIRROR_HEADER, VERSION_HEADER
from controlplane.resources.readable import packed

_POLICIES: Final = {
    "least_request": Cluster.LEAST_REQUEST,
    "random": Cluster.RANDOM,
    "ring_hash": Cluster.RING_HASH,
    "round_robin": Cluster.ROUND_ROBIN,
}
_LONGEST_CHECK = timedelta(seconds=2)
# Below this share of healthy endpoints all of them get requests. Envoy's own 50 % would send half of the
# requests to dead endpoints while the other half is well; 0 would fail all when a check itself is wrong.
_PANIC_PERCENT = 10.0
_MOST_OUT_PERCENT = 50
_RETRIES_PERCENT = 20.0  # of the requests in progress


def treat(message: Cluster, service: Service, version: str, copies: bool) -> None:
    """Write into a version's cluster how the service wants its endpoints to be treated.

    With ``copies`` the cluster gets copies of requests, and tells so.
    """
    message.lb_policy = _POLICIES[service.balance]
    if service.protocol != "http" or service.version_header or service.explain_header or copies:
        options = packed(_http_options(service, version, copies))
        message.typed_extension_protocol_options[options.type_url.rpartition("/")[2]].CopyFrom(options)
    if service.health is not None:
        message.health_checks.append(_check(service, service.health))
        message.ignore_health_on_host_removal = True  # an endpoint that is taken out gets nothing more
    if service.outliers is not None:
        message.outlier_detection.CopyFrom(_outliers(service.outliers))
    if service.health is not None or service.outliers is not None:
        message.common_lb_config.healthy_panic_threshold.CopyFrom(Percent(value=_PANIC_PERCENT))
    if service.limits is not None or service.retries is not None:
        message.circuit_breakers.thresholds.append(_limits(service))
    if service.upstream_tls is not None:
        message.transport_socket.CopyFrom(_tls(service.upstream_tls, service.protocol != "http"))


def duration(value: timedelta) -> Duration:
    """Return a time as a message."""
    message = Duration()
    message.FromTimedelta(value)
    return message


def _http_options(service: Service, version: str, copies: bool) -> HttpProtocolOptions:
    options = HttpProtocolOptions()
    if service.protocol == "http":
        options.explicit_http_config.http_protocol_options.SetInParent()
    else:
        options.explicit_http_config.http2_protocol_options.CopyFrom(_http2(service))
    # In the cluster and not in a route: there every attempt is told the version that it goes to.
    mutations = Mutations()
    if copies:
        mutations.request_mutations.append(_overwrite(MIRROR_HEADER, "true"))
    if service.version_header:
        mutations.request_mutations.append(_overwrite(service.version_header, told(service.name, version)))
    if service.explain_header:
        asked = f"%CEL('{service.explain_header}' in request.headers ? '{version}' : '')%"
        mutations.response_mutations.append(_overwrite(VERSION_HEADER, asked))
    if mutations != Mutations():
        tell = packed(HeaderMutation(mutations=mutations))
        options.http_filters.add(name="envoy.filters.http.header_mutation", typed_config=tell)
        options.http_filters.add(
            name="envoy.filters.http.upstream_codec", typed_config=packed(UpstreamCodec())
        )
    return options


def _overwrite(header: str, value: str) -> Mutation:
    return Mutation(
        append=HeaderValueOption(
            header=HeaderValue(key=header, value=value),
            append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
    )


def _http2(service: Service) -> Http2ProtocolOptions:
    # A connection that hangs would take every stream on it along.
    keepalive = KeepaliveSettings(interval=Duration(seconds=30), timeout=Duration(seconds=5))
    websockets = any(claim.websockets for claim in service.routes)
    return Http2ProtocolOptions(connection_keepalive=keepalive, allow_connect=websockets)


def _check(service: Service, health: Health) -> HealthCheck:
    check = HealthCheck(
        timeout=duration(min(health.every, _LONGEST_CHECK)),
        interval=duration(health.every),
        interval_jitter_percent=10,
        unhealthy_threshold=UInt32Value(value=3),
        healthy_threshold=UInt32Value(value=2),
        no_traffic_interval=duration(health.every),  # a version without requests is to be known too
    )
    if health.path is None:
        check.grpc_health_check.SetInParent()
    else:
        codec = HTTP1 if service.protocol == "http" else HTTP2
        host = service.upstream_tls.name if service.upstream_tls else service.name
        check.http_health_check.CopyFrom(
            HealthCheck.HttpHealthCheck(host=host, path=health.path, codec_client_type=codec)
        )
    return check


def _outliers(outliers: Outliers) -> OutlierDetection:
    return OutlierDetection(
        consecutive_5xx=UInt32Value(value=outliers.consecutive_5xx),
        interval=Duration(seconds=10),
        base_ejection_time=Duration(seconds=30),
        max_ejection_percent=UInt32Value(value=_MOST_OUT_PERCENT),
        enforcing_consecutive_5xx=UInt32Value(value=100),
        enforcing_success_rate=UInt32Value(value=0),
    )


def _limits(service: Service) -> CircuitBreakers.Thresholds:
    found = CircuitBreakers.Thresholds()
    if (limits := service.limits) is not None:
        found.max_connections.value = limits.connections
        found.max_pending_requests.value = limits.pending
        found.max_requests.value = limits.requests
    if (retries := service.retries) is not None and retries.other_version:
        # The other version is asked instead, not more often. A budget of the broken one spares few users:
        # its requests end at once, so that few are in progress.
        found.max_retries.value = found.max_requests.value or Limits().requests
    elif retries is not None:
        # A version that fails is not to be asked twice as often for it.
        found.retry_budget.budget_percent.value = _RETRIES_PERCENT
        found.retry_budget.min_retry_concurrency.value = 10
    return found


def _tls(tls: UpstreamTls, http2: bool) -> TransportSocket:
    name = SubjectAltNameMatcher(san_type=SubjectAltNameMatcher.DNS, matcher=StringMatcher(exact=tls.name))
    trusted = CertificateValidationContext(
        trusted_ca=DataSource(filename=tls.ca), match_typed_subject_alt_names=[name]
    )
    context = CommonTlsContext(validation_context=trusted, alpn_protocols=["h2" if http2 else "http/1.1"])
    return TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=packed(UpstreamTlsContext(common_tls_context=context, sni=tls.name)),
    )
