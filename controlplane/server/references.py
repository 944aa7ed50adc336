"""What anyone's resources refer to, read from the messages by Envoy's complete API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from controlplane.policy.overrides import message_class
from controlplane.xds.type_urls import CLUSTER, ENDPOINT

_PREFIX: Final = "type.googleapis.com/"
_EDS: Final = 3  # Cluster.DiscoveryType
_EDS_EXTENSION: Final = "envoy.cluster.eds"
_HERE: Final = ("ads", "self")  # config sources that are the stream which brought the cluster
_ANY: Final = "google.protobuf.Any"

# Fields by which traffic is led to a cluster. Not here, though they name one: mirrors, and what filters,
# access logs, tracers and health checks call on the side. Nothing may wait for these: what is sent there does
# not decide whether a request is served, and a route that waits for one that never comes waits for ever.
_NETWORK = "envoy.extensions.filters.network."
LEADS: Final = frozenset({
    "envoy.config.route.v3.RouteAction.cluster",
    "envoy.config.route.v3.WeightedCluster.ClusterWeight.name",
    "envoy.extensions.clusters.aggregate.v3.ClusterConfig.clusters",
    "envoy.extensions.clusters.composite.v3.ClusterConfig.ClusterEntry.name",
    _NETWORK + "dubbo_proxy.v3.RouteAction.cluster",
    _NETWORK + "generic_proxy.action.v3.RouteAction.cluster",
    _NETWORK + "redis_proxy.v3.RedisProxy.PrefixRoutes.Route.cluster",
    _NETWORK + "tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight.name",
    _NETWORK + "tcp_proxy.v3.TcpProxy.cluster",
    _NETWORK + "thrift_proxy.v3.RouteAction.cluster",
    _NETWORK + "thrift_proxy.v3.WeightedCluster.ClusterWeight.name",
    "envoy.extensions.filters.udp.udp_proxy.v3.Route.cluster",
    "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig.cluster",
    "envoy.extensions.router.cluster_specifiers.lua.v3.LuaConfig.default_cluster",
    "envoy.extensions.router.cluster_specifiers.matcher.v3.ClusterAction.cluster",
})  # fmt: skip
# Large, frequent, and without a way to a field that leads anywhere.
_DEAD_ENDS: Final = frozenset({
    "envoy.config.core.v3.HeaderValueOption",
    "envoy.config.core.v3.Metadata",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.route.v3.RouteMatch",
})  # fmt: skip
# Their resources are not called as the message is.
_NAMED_OTHERWISE: Final = frozenset({"envoy.config.route.v3.VirtualHost"})


@dataclass(frozen=True, slots=True)
class References:
    """What one resource says of others.

    Attributes:
        clusters: To which it leads traffic.
        assignment: Of a cluster whose endpoints come by the same stream: the name of its assignment.
        hollow: True for an assignment without endpoints.
    """

    clusters: frozenset[str] = frozenset()
    assignment: str | None = None
    hollow: bool = False


NOTHING: Final = References()


def read(type_url: str, name: str, body: bytes) -> References:
    """Return what a resource refers to; nothing, if its type is not of Envoy's API.

    Raises:
        ValueError: If it is not a message of its type, or has another name.
    """
    kind = type_url.removeprefix(_PREFIX)
    message = _parse(kind, name, body)
    if message is None:
        return NOTHING
    _check_name(message, kind, name)
    if type_url == ENDPOINT:
        return NOTHING if any(map(_has_members, message.endpoints)) else References(hollow=True)
    clusters = frozenset(_led(message, name))
    if type_url == CLUSTER:
        return References(clusters, _assignment(message))
    return References(clusters) if clusters else NOTHING


def _parse(kind: str, name: str, body: bytes) -> Any:
    """Return a message of Envoy's, or None if Envoy has no such kind."""
    try:
        made = message_class(kind)
    except ValueError:
        return None
    wrong = ValueError(f"{name!r} is not a {kind.rpartition('.')[2]}")
    try:
        message = made.FromString(body)
    except DecodeError as error:
        raise wrong from error
    known = message.DESCRIPTOR.fields_by_number
    # What the API has in another form was not understood: it is another kind of message.
    if any(field.field_number in known for field in UnknownFieldSet(message)):  # type: ignore[attr-defined]
        raise wrong
    return message


def _check_name(message: Any, kind: str, name: str) -> None:
    field = "cluster_name" if kind == ENDPOINT.removeprefix(_PREFIX) else "name"
    if kind in _NAMED_OTHERWISE or field not in message.DESCRIPTOR.fields_by_name:
        return
    own = getattr(message, field)
    if own != name:
        raise ValueError(f"{name!r} calls itself {own!r}: a {kind.rpartition('.')[2]} is set by its own name")


def _has_members(locality: Any) -> bool:
    """Return whether a locality has endpoints, or fetches them by itself."""
    return bool(
        locality.lb_endpoints
        or locality.load_balancer_endpoints.lb_endpoints
        or locality.HasField("leds_cluster_locality_config")
    )


def _assignment(cluster: Any) -> str | None:
    if cluster.type != _EDS and cluster.cluster_type.name != _EDS_EXTENSION:
        return None
    config = cluster.eds_cluster_config
    if config.eds_config.WhichOneof("config_source_specifier") not in _HERE:
        return None
    return str(config.service_name or cluster.name)


def _led(message: Message, name: str) -> Iterator[str]:
    """Yield the clusters to which a message leads, wherever in it that is said; ``name`` is for errors."""
    plan = _plan(message.DESCRIPTOR)
    for field, value in message.ListFields():
        step = plan.get(field.number)
        if step is None:
            continue
        if step == "map":
            values: Any = value.values()
        else:
            values = value if field.is_repeated else (value,)
        for each in values:
            if step == "leads":
                if each and not _gets_nothing(message):
                    yield each
            elif isinstance(each, Message):
                yield from _led_by_any(each, name) if _is_any(each) else _led(each, name)


def _is_any(message: Message) -> bool:
    return message.DESCRIPTOR.full_name == _ANY


def _led_by_any(packed: Any, name: str) -> Iterator[str]:
    kind = packed.type_url.rpartition("/")[2]
    if not _relevant(kind):
        return
    inner = _parse(kind, name, packed.value)
    if inner is not None:
        yield from _led(inner, name)


def _gets_nothing(message: Any) -> bool:
    """Return whether this is a cluster of weight 0, which a weight that is not said is not."""
    weight = message.DESCRIPTOR.fields_by_name.get("weight")
    return (
        weight is not None and weight.has_presence and message.HasField("weight") and not message.weight.value
    )


@cache
def _plan(kind: Descriptor) -> Mapping[int, str]:
    """Return the fields that may lead to a cluster, by number, and how: ``leads``, ``map`` or ``message``."""
    found = {}
    for field in kind.fields:
        if field.full_name in LEADS:
            found[field.number] = "leads"
        elif (inner := _inner(field)) is not None and _reaches(inner):
            found[field.number] = "message" if inner is field.message_type else "map"
    return found


def _inner(field: FieldDescriptor) -> Descriptor | None:
    """Return the kind of message that a field has, or the values of a map."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return kind.fields_by_name["value"].message_type
    return kind


@cache
def _reaches(kind: Descriptor) -> bool:
    """Return whether something in such a message may lead to a cluster: by a field, or in an ``Any``."""
    seen, waiting = {kind.full_name}, [kind]
    while waiting:
        each = waiting.pop()
        if each.full_name in _DEAD_ENDS:
            continue
        if each.full_name == _ANY or any(field.full_name in LEADS for field in each.fields):
            return True
        for field in each.fields:
            inner = _inner(field)
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                waiting.append(inner)
    return False


@cache
def _relevant(kind: str) -> bool:
    """Return whether what is packed may lead to a cluster; what Envoy's API does not know cannot."""
    try:
        return _reaches(message_class(kind).DESCRIPTOR)
    except ValueError:
        return False
