"""Raw Envoy fields in documents: checked against the complete API, and turned into what is merged.

The API is kept as descriptors, made from envoy-data-plane by scripts/api.py. They are read when a document
has raw fields, not before.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final

from google.protobuf import (
    any_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

MAX_SIZE = 32_768  # characters of one part, as JSON

_KNOWN = (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"

PARTS: Final[Mapping[str, str]] = {
    "cluster": "envoy.config.cluster.v3.Cluster",
    "connection_manager": _MANAGER,
    "route": "envoy.config.route.v3.Route",
    "virtual_host": "envoy.config.route.v3.VirtualHost",
}
# What Turnout writes itself, and by which field of a document it is said, if by any.
OWNED: Final[Mapping[str, Mapping[str, str]]] = {
    "cluster": {
        "name": "",
        "alt_stat_name": "",
        "type": "",
        "cluster_type": "",
        "eds_cluster_config": "",
        "load_assignment": "versions",
        "lb_policy": "balance",
        "load_balancing_policy": "balance",
        "health_checks": "health",
        "outlier_detection": "outliers",
        "circuit_breakers": "limits",
        "transport_socket": "upstream_tls",
        "transport_socket_matches": "upstream_tls",
        "typed_extension_protocol_options": "protocol",
        "http2_protocol_options": "protocol",
        "lrs_server": "",
    },
    "connection_manager": {
        "stat_prefix": "",
        "rds": "",
        "route_config": "",
        "scoped_routes": "",
        "early_header_mutation_extensions": "",
        "strip_any_host_port": "",
        "strip_matching_host_port": "",
        "use_remote_address": "kind",
        "normalize_path": "",
        "merge_slashes": "",
        "path_with_escaped_slashes_action": "",
        "path_normalization_options": "",
        "upgrade_configs": "websockets",
    },
    "route": {
        "match": "",
        "redirect": "",
        "direct_response": "",
        "filter_action": "",
        "non_forwarding_action": "",
        "metadata": "",
        "route.cluster": "",
        "route.cluster_header": "",
        "route.weighted_clusters": "",
        "route.cluster_specifier_plugin": "",
        "route.inline_cluster_specifier_plugin": "",
        "route.hash_policy": "balance",
        "route.timeout": "timeout",
        "route.idle_timeout": "idle_timeout",
        "route.retry_policy": "retries",
        "route.retry_policy_typed_config": "retries",
        "route.hedge_policy": "retries",
        "route.request_mirror_policies": "mirror of a step",
        "route.upgrade_configs": "websockets",
        "route.prefix_rewrite": "rewrite",
        "route.regex_rewrite": "rewrite",
        "route.path_rewrite": "rewrite",
        "route.path_rewrite_policy": "rewrite",
        "route.host_rewrite_literal": "rewrite",
        "route.auto_host_rewrite": "rewrite",
        "route.host_rewrite_header": "rewrite",
        "route.host_rewrite_path_regex": "rewrite",
        "route.host_rewrite": "rewrite",
        "route.append_x_forwarded_host": "rewrite",
        "route.internal_redirect_policy": "",
    },
    "virtual_host": {
        "name": "",
        "domains": "routes",
        "routes": "routes",
        "matcher": "",
        "retry_policy": "retries",
        "retry_policy_typed_config": "retries",
        "hedge_policy": "retries",
        "request_mirror_policies": "mirror of a step",
    },
}
# Wherever they stand, since they may be nested in filters that we do not know.
CRASHING: Final[Mapping[str, str]] = {
    "envoy.extensions.router.cluster_specifiers.matcher.v3.MatcherClusterSpecifier": "Envoy 1.40.0",
}


def canonical(part: str, value: object) -> str:
    """Return raw fields as JSON with sorted keys.

    Raises:
        ValueError: If Envoy has no such fields, Turnout owns one of them, or Envoy would crash; all of these
            are named.
    """
    if not isinstance(value, dict):
        raise ValueError("is not a mapping of Envoy's fields")
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("has values that JSON does not have") from error
    if len(text) > MAX_SIZE:
        raise ValueError(f"has {len(text)} characters as JSON; at most {MAX_SIZE} are allowed")
    message = _parsed(part, text)
    if found := [f"{name} crashes {where}" for name, where in CRASHING.items() if name in text]:
        raise ValueError("; ".join(found))
    if found := [*_owned(part, message)]:
        raise ValueError(f"{'; '.join(found)}. Turnout's own are: {', '.join(OWNED[part])}")
    return text


@lru_cache(maxsize=256)
def encoded(part: str, text: str) -> bytes:
    """Return raw fields, as ``canonical`` returned them, as a message of Envoy's."""
    return _parsed(part, text).SerializeToString(deterministic=True)


def merge(message: Message, part: str, text: str) -> None:
    """Merge raw fields, as ``canonical`` returned them: a value replaces, a list is appended to."""
    message.MergeFromString(encoded(part, text))
    for path in _defaults(part, text):
        _clear(message, path)


@lru_cache(maxsize=256)
def _defaults(part: str, text: str) -> tuple[tuple[str, ...], ...]:
    """Return the single values that are Envoy's defaults, which are not sent and so replace nothing."""
    return tuple(_unsent(_parsed(part, text), json.loads(text)))


def _unsent(message: Any, given: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for field in message.DESCRIPTOR.fields:
        value = given.get(field.name, given.get(field.json_name))
        if value is None or field.is_repeated or (field.message_type and not isinstance(value, dict)):
            continue
        inner = getattr(message, field.name)
        if field.message_type is None:
            if not field.has_presence and inner == field.default_value:
                yield (field.name,)
        elif not field.message_type.full_name.startswith("google.protobuf."):
            yield from ((field.name, *path) for path in _unsent(inner, value))


def _clear(message: Any, path: tuple[str, ...]) -> None:
    name, *rest = path
    if name not in message.DESCRIPTOR.fields_by_name:
        return  # Turnout never writes it
    if rest and message.HasField(name):
        _clear(getattr(message, name), tuple(rest))
    elif not rest:
        message.ClearField(name)


def _parsed(part: str, text: str) -> Message:
    return parsed(PARTS[part], json.loads(text))


def parsed(kind: str, value: dict[str, Any]) -> Message:
    """Return a message of Envoy's API, given its full name and its fields as in JSON.

    Raises:
        ValueError: If Envoy has no such message, or the message no such fields.
    """
    message = message_class(kind)()
    try:
        ParseDict(value, message, descriptor_pool=_api(), max_recursion_depth=50)
    except (ParseError, TypeError, ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"is not what Envoy's {kind.rpartition('.')[2]} can be: {why}") from error
    return message


def message_class(kind: str) -> type[Message]:
    """Return the class of a message of Envoy's API, given its full name.

    Raises:
        ValueError: If Envoy has no such message.
    """
    try:
        made: type[Message] = message_factory.GetMessageClass(_api().FindMessageTypeByName(kind))
    except KeyError as error:
        raise ValueError(f"Envoy has no {kind!r}") from error
    return made


def _owned(part: str, message: Message) -> Iterator[str]:
    for path, instead in OWNED[part].items():
        if _has(message, path.split(".")):
            yield f"{path} is Turnout's own" + (f"; `{instead}` says it" if instead else "")
    for extension in getattr(message, "http_filters", ()):
        if extension.typed_config.type_url.rpartition("/")[2] == _ROUTER:
            yield "http_filters has a router; there is one already, after all others"


def _has(message: Any, path: list[str]) -> bool:
    inner = {field.name: value for field, value in message.ListFields()}.get(path[0])
    return inner is not None and (len(path) == 1 or _has(inner, path[1:]))


@cache
def _api() -> DescriptorPool:
    pool = DescriptorPool()
    for module in _KNOWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    packed = files("controlplane.policy").joinpath("envoy_api.binpb.xz").read_bytes()
    for file in FileDescriptorSet.FromString(lzma.decompress(packed)).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
