"""The listeners of a fleet: connection manager, scope of the host, statistics logger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from controlplane._pb.accesslog_pb2 import AccessLog
from controlplane._pb.core_pb2 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    TransportSocket,
    TypedExtensionConfig,
    WatchedDirectory,
)
from controlplane._pb.earlymutation_pb2 import HeaderMutation as EarlyHeaderMutation
from controlplane._pb.hcm_pb2 import HttpConnectionManager, HttpFilter, ScopedRds, ScopedRoutes
from controlplane._pb.listener_pb2 import Filter, FilterChain
from controlplane._pb.listener_pb2 import Listener as ListenerMessage
from controlplane._pb.matcher_pb2 import RegexMatcher, StringMatcher
from controlplane._pb.mutation_pb2 import HeaderMutation
from controlplane._pb.router_pb2 import Router
from controlplane._pb.tls_pb2 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
)
from controlplane.policy.documents import Listener, Service, Tls, Tokens
from controlplane.policy.overrides import merge
from controlplane.resources.clusters import ADS, BUFFER_BYTES, socket
from controlplane.resources.names import (
    FRESH_USER_HEADER,
    OWN_HEADERS,
    SCOPE_HEADER,
    SOURCE_HEADER,
    VERSION_HEADER,
)
from controlplane.resources.readable import packed
from controlplane.resources.statistics import (
    HeaderMetric,
    attempt_logger,
    header_metrics,
    stats_logger,
    status_logger,
)
from controlplane.resources.tokens import token_filter
from controlplane.resources.transparent import take_over, untouched

_BUILDER = ScopedRoutes.ScopeKeyBuilder
_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


@dataclass(frozen=True, slots=True)
class Demands:
    """What a fleet and its services ask of its listeners.

    Attributes:
        attempts: Whether attempts are counted.
        tokens: What is verified, and read of it.
        told: Headers in which endpoints are told the version, and pass it on inside; from outside nobody
            sends them.
        metrics: Response headers that are counted or summed.
        statuses: Whether calls are counted by their gRPC status.
    """

    attempts: bool = False
    told: frozenset[str] = frozenset()
    tokens: Tokens | None = None
    metrics: tuple[HeaderMetric, ...] = ()
    statuses: bool = False

    @classmethod
    def of(cls, *services: Service) -> Self:
        """Return what these services ask for."""
        told = frozenset(service.version_header for service in services if service.version_header)
        retried = any(service.retries is not None for service in services)
        coded = any(service.protocol == "grpc" for service in services)
        return cls(retried, told, metrics=header_metrics(services), statuses=coded)


def listener(document: Listener, scopes: Sequence[str], demands: Demands = Demands()) -> ListenerMessage:
    """Return a listener that finds the scope of a request by the given values of its header, in order."""
    assert document.address is not None  # it is one of a proxy
    manager = _manager(document, scopes, demands)
    if document.kind == "transparent":
        untouched(manager)
    if raw := document.envoy.connection_manager:
        ours = list(manager.http_filters)
        del manager.http_filters[:]
        merge(manager, "connection_manager", raw)
        manager.http_filters.extend(ours)  # the router is the last
    filters = [Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager))]
    chain = FilterChain(filters=filters)
    if document.tls is not None:
        chain.transport_socket.CopyFrom(_transport_socket(document.name))
    message = ListenerMessage(
        name=document.name,
        address=socket(document.address),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=UInt32Value(value=BUFFER_BYTES),
    )
    if document.kind == "transparent":
        take_over(message)
    return message


def _manager(document: Listener, scopes: Sequence[str], demands: Demands) -> HttpConnectionManager:
    router = Router(upstream_log=[attempt_logger()] if demands.attempts else ())
    return HttpConnectionManager(
        stat_prefix=document.name,
        http_filters=[
            *([token_filter(demands.tokens)] if demands.tokens is not None else []),
            HttpFilter(name="envoy.filters.http.router", typed_config=packed(router)),
        ],
        http2_protocol_options=Http2ProtocolOptions(
            max_concurrent_streams=UInt32Value(value=100),
            initial_stream_window_size=UInt32Value(value=1 << 16),
            initial_connection_window_size=UInt32Value(value=1 << 20),
        ),
        drain_timeout=Duration(seconds=5),
        access_log=[
            AccessLog(name="envoy.access_loggers.stats", typed_config=packed(stats_logger(demands.metrics))),
            *([status_logger()] if demands.statuses else []),
        ],
        use_remote_address=BoolValue(value=document.kind == "edge"),
        generate_request_id=BoolValue(value=True),
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        stream_idle_timeout=Duration(seconds=300),
        request_timeout=Duration(),
        normalize_path=BoolValue(value=True),
        scoped_routes=_scoped_routes(),
        merge_slashes=True,
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=Duration(seconds=300),
            headers_with_underscores_action=HttpProtocolOptions.REJECT_REQUEST,
        ),
        request_headers_timeout=Duration(seconds=10),
        strip_any_host_port=True,
        path_with_escaped_slashes_action=HttpConnectionManager.UNESCAPE_AND_REDIRECT,
        early_header_mutation_extensions=[
            TypedExtensionConfig(
                name="envoy.http.early_header_mutation.header_mutation",
                typed_config=packed(_mutation(document, scopes, demands.told)),
            )
        ],
    )


def secret(name: str, tls: Tls) -> Secret:
    """Return what a listener of this name proves itself with.

    The files lie on the proxy. Envoy watches the folder of the certificate, and reads both files again when a
    file is moved into it. Seen: only a certificate that came as a secret is watched.
    """
    return Secret(
        name=name,
        tls_certificate=TlsCertificate(
            certificate_chain=DataSource(filename=tls.certificate),
            private_key=DataSource(filename=tls.key),
            watched_directory=WatchedDirectory(path=tls.certificate.rpartition("/")[0] or "/"),
        ),
    )


def _transport_socket(secret_name: str) -> TransportSocket:
    common = CommonTlsContext(
        alpn_protocols=["h2", "http/1.1"],
        tls_certificate_sds_secret_configs=[SdsSecretConfig(name=secret_name, sds_config=ADS)],
    )
    context = DownstreamTlsContext(common_tls_context=common)
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def _scoped_routes() -> ScopedRoutes:
    header = _BUILDER.FragmentBuilder.HeaderValueExtractor(name=SCOPE_HEADER, element_separator="|", index=0)
    return ScopedRoutes(
        name="scopes",
        scope_key_builder=_BUILDER(fragments=[_BUILDER.FragmentBuilder(header_value_extractor=header)]),
        rds_config_source=ADS,
        scoped_rds=ScopedRds(scoped_rds_config_source=ADS),
    )


def _mutation(document: Listener, scopes: Sequence[str], told: frozenset[str]) -> EarlyHeaderMutation:
    inside = document.kind != "edge"
    kept = inside and VERSION_HEADER in told
    pattern = RegexMatcher(regex=f"{OWN_HEADERS}[^v].*")  # it is the only one with a v
    matcher = StringMatcher(safe_regex=pattern) if kept else StringMatcher(prefix=OWN_HEADERS)
    own = HeaderMutation.RemoveOnMatch(key_matcher=matcher)
    gone = [] if inside else sorted(name for name in told if not name.startswith(OWN_HEADERS))
    sets = [(SCOPE_HEADER, value) for value in scopes] + [(FRESH_USER_HEADER, "%UNIQUE_ID%")]
    # Here the address is still that of the connection: Envoy reads the list of addresses afterwards.
    sets.append((SOURCE_HEADER, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"))
    if inside:
        sets.append((SOURCE_HEADER, "%REQ(x-forwarded-for)%"))
    return EarlyHeaderMutation(
        mutations=[
            HeaderMutation(remove_on_match=own),
            *(HeaderMutation(remove=name) for name in gone),
            *(
                HeaderMutation(
                    append=HeaderValueOption(
                        header=HeaderValue(key=key, value=value), append_action=_OVERWRITE
                    )
                )
                for key, value in sets
            ),
        ]
    )
