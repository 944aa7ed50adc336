"""Resources as plain data, in Envoy's own JSON form: for people, for files, for golden tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from controlplane._pb import earlymutation_pb2, headermutation_pb2
from controlplane._pb.celfilter_pb2 import ExpressionFilter
from controlplane._pb.cluster_pb2 import Cluster
from controlplane._pb.endpoint_pb2 import ClusterLoadAssignment
from controlplane._pb.hcm_pb2 import HttpConnectionManager
from controlplane._pb.httpinspector_pb2 import HttpInspector
from controlplane._pb.jwtauthn_pb2 import JwtAuthentication
from controlplane._pb.listener_pb2 import Listener
from controlplane._pb.originaldst_pb2 import OriginalDst
from controlplane._pb.previoushosts_pb2 import PreviousHostsPredicate
from controlplane._pb.route_pb2 import RouteConfiguration, ScopedRouteConfiguration
from controlplane._pb.router_pb2 import Router
from controlplane._pb.statslog_pb2 import Config
from controlplane._pb.tcpproxy_pb2 import TcpProxy
from controlplane._pb.tls_pb2 import DownstreamTlsContext, Secret, UpstreamTlsContext
from controlplane._pb.upstream_pb2 import HttpProtocolOptions
from controlplane._pb.upstreamcodec_pb2 import UpstreamCodec

OURS = "turnout."  # what our proto packages have before Envoy's names

_KNOWN: Final[Mapping[str, type[Message]]] = {
    message.DESCRIPTOR.full_name.removeprefix(OURS): message
    for message in (
        Cluster,
        ClusterLoadAssignment,
        Config,
        DownstreamTlsContext,
        ExpressionFilter,
        HttpConnectionManager,
        HttpInspector,
        JwtAuthentication,
        HttpProtocolOptions,
        Listener,
        OriginalDst,
        PreviousHostsPredicate,
        RouteConfiguration,
        Router,
        ScopedRouteConfiguration,
        Secret,
        TcpProxy,
        UpstreamCodec,
        UpstreamTlsContext,
        earlymutation_pb2.HeaderMutation,
        headermutation_pb2.HeaderMutation,
    )
}


def type_url(message: Message) -> str:
    """Return Envoy's type URL of one of our messages."""
    return f"type.googleapis.com/{message.DESCRIPTOR.full_name.removeprefix(OURS)}"


def packed(message: Message) -> AnyMessage:
    """Return the message in an Any, under Envoy's own type URL."""
    return AnyMessage(type_url=type_url(message), value=message.SerializeToString(deterministic=True))


def readable(url: str, body: bytes) -> dict[str, Any]:
    """Return a rendered resource as a mapping that Envoy reads, with ``@type``."""
    return {"@type": url, **_plain(message_type(url.rpartition("/")[2]).FromString(body))}


def message_type(name: str) -> type[Message]:
    """Return our message of an Envoy type, by its full name."""
    return _KNOWN[name]


def _plain(message: Message) -> dict[str, Any]:
    return {field.name: _field(field, value) for field, value in message.ListFields()}


def _field(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: _value(value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_value(item) for item in value]
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else _value(value)


def _value(value: Any) -> Any:
    if isinstance(value, AnyMessage):
        return readable(value.type_url, value.value)
    if isinstance(value, Message):
        well_known = value.DESCRIPTOR.full_name.startswith("google.protobuf.")
        return _ordered(MessageToDict(value)) if well_known else _plain(value)
    return value


def _ordered(value: Any) -> Any:
    """Return a value of a Struct with sorted keys: protobuf's own order differs from run to run."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(item) for item in value] if isinstance(value, list) else value
