# ruff: noqa: E501  (a table of whole messages)
"""Raw Envoy fields: the complete API knows them, and none of Turnout's own is among them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane._pb.core_pb2 import HttpProtocolOptions
from controlplane._pb.hcm_pb2 import HttpConnectionManager
from controlplane.policy.overrides import OWNED, PARTS, canonical, encoded, merge

ROOT = Path(__file__).parents[2]
UPSTREAM = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
CONFIGURATION = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SPECIFIER = (
    "type.googleapis.com/envoy.extensions.router.cluster_specifiers.matcher.v3.MatcherClusterSpecifier"
)
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("cluster", {"max_requests_per_connection": 5, "connect_timeout": "3s", "dns_jitter": "1s"}),
        ("cluster", {"least_request_lb_config": {"choice_count": 3}, "trackTimeoutBudgets": True}),
        ("route", {"decorator": {"operation": "x"}, "route": {"priority": "HIGH"}}),
        ("route", {"typed_per_filter_config": {"f": {"@type": UPSTREAM, "mutations": {}}}}),
        ("virtual_host", {"response_headers_to_add": [{"header": {"key": "a", "value": "b"}}]}),
        ("connection_manager", {"server_name": "x", "http_filters": [{"name": "f", "is_optional": True}]}),
    ],
)
def test_fields_become_what_the_complete_api_reads(part, fields):
    body = encoded(part, canonical(part, fields))

    package, _, name = PARTS[part].rpartition(".")
    theirs = getattr(importlib.import_module(f"envoy_data_plane.{package}"), name).parse(body)
    assert body
    assert not theirs._unknown_fields


@pytest.mark.parametrize(
    ("part", "fields", "found"),
    [
        ("cluster", "text", "is not a mapping of Envoy's fields"),
        ("cluster", {"nope": 1}, 'is not what Envoy\'s Cluster can be: Message type "envoy.config.cluster.v3.Cluster" has no'),
        ("cluster", {"connect_timeout": "3x"}, 'must end with letter "s": 3x'),
        ("cluster", {"ringHashLbConfig": {"hash_function": "NONE"}}, "Invalid enum value NONE"),
        ("cluster", {"filters": [{"typed_config": {"@type": "type.googleapis.com/no.Such"}}]}, "no.Such"),
        ("cluster", {"lbPolicy": "RANDOM"}, "lb_policy is Turnout's own; `balance` says it. Turnout's own are: name, "),
        ("route", {"route": {"cluster": "x", "timeout": "1s"}}, "route.cluster is Turnout's own; route.timeout is Turnout's own; `timeout`"),
        ("virtual_host", {"domains": ["*"]}, "domains is Turnout's own; `routes` says it"),
        ("connection_manager", {"http_filters": [{"typed_config": {"@type": ROUTER}}]}, "http_filters has a router"),
        ("route", {"typed_per_filter_config": {"f": {"@type": SPECIFIER}}}, "MatcherClusterSpecifier crashes Envoy 1.40.0"),
        ("connection_manager", {"http_filters": [{"name": "f", "typed_config": {"@type": CONFIGURATION, "cluster_specifier_plugins": [{"extension": {"name": "x", "typed_config": {"@type": SPECIFIER}}}]}}]}, "MatcherClusterSpecifier crashes Envoy 1.40.0"),
        ("connection_manager", {"normalize_path": False}, "normalize_path is Turnout's own"),
        ("cluster", {"metadata": {"filter_metadata": {"x": {"y": "z" * 40_000}}}}, "at most 32768 are allowed"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_reason(part, fields, found):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        canonical(part, fields)

    assert found in str(caught.value)


def test_a_default_of_envoys_replaces_too():
    protocol = HttpProtocolOptions(headers_with_underscores_action=HttpProtocolOptions.REJECT_REQUEST)
    protocol.idle_timeout.seconds = 5
    manager = HttpConnectionManager(stat_prefix="a", common_http_protocol_options=protocol)
    raw = {
        "skipXffAppend": False,
        "common_http_protocol_options": {"headersWithUnderscoresAction": "ALLOW", "max_headers_count": 9},
    }

    merge(manager, "connection_manager", canonical("connection_manager", raw))

    inner = manager.common_http_protocol_options
    assert inner.headers_with_underscores_action == HttpProtocolOptions.ALLOW
    assert (inner.idle_timeout.seconds, manager.stat_prefix) == (5, "a")
    assert inner.ByteSize() > protocol.idle_timeout.ByteSize() + 2  # with what our messages do not know


def test_what_is_nested_without_end_is_refused():
    deep: dict[str, object] = {}
    for _ in range(2000):
        deep = {"a": deep}

    with pytest.raises(
        ValueError, match=r"is not what Envoy's Cluster can be|values that JSON does not have"
    ):
        canonical("cluster", {"metadata": {"filter_metadata": {"x": deep}}})


@pytest.mark.parametrize("part", OWNED)
def test_every_field_of_our_own_exists(part):
    package, _, name = PARTS[part].rpartition(".")
    message = getattr(importlib.import_module(f"envoy_data_plane.{package}"), name)
    for path in OWNED[part]:
        first, _, inner = path.partition(".")
        fields = {field.rstrip("_") for field in message.__dataclass_fields__}
        assert first in fields
        if inner:
            action = importlib.import_module("envoy_data_plane.envoy.config.route.v3").RouteAction
            assert inner in {field.rstrip("_") for field in action.__dataclass_fields__}


def test_the_descriptors_are_those_of_envoy_data_plane():
    subprocess.run([sys.executable, ROOT / "scripts" / "api.py", "--check"], check=True, timeout=60)
