"""What resources of anyone's refer to."""

from __future__ import annotations

import pytest

from controlplane.policy.overrides import message_class
from controlplane.server import from_yaml
from controlplane.server.references import LEADS, read
from controlplane.xds.type_urls import CLUSTER, LISTENER, ROUTE

TCP = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
THRIFT = "envoy.extensions.filters.network.thrift_proxy.v3.ThriftProxy"
AUTHZ = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"
WEIGHTED = "{clusters: [{name: a, weight: 1}, {name: b, weight: 2}]}"
TO_A = "{'@type': envoy.config.route.v3.Route, match: {prefix: /}, route: {cluster: a}}"
ACTION = f"{{action: {{name: x, typed_config: {TO_A}}}}}"
PLUGIN = "envoy.extensions.router.cluster_specifiers.matcher.v3"
CHOSEN = f"{{action: {{name: x, typed_config: {{'@type': {PLUGIN}.ClusterAction, cluster: a}}}}}}"


def found(text):
    """The clusters to which the only resource leads."""
    ((url, of),) = from_yaml(f"[{text}]").items()
    ((name, message),) = of.items()
    return read(url, name, message.SerializeToString()).clusters


def one_route(action):
    return f"routes: [{{match: {{prefix: /}}, route: {{{action}}}}}]"


@pytest.mark.parametrize(
    ("host", "led"),
    {
        "route": (one_route("cluster: a"), "a"),
        "weights": (one_route(f"weighted_clusters: {WEIGHTED}"), "ab"),
        "matcher": (f"matcher: {{on_no_match: {ACTION}}}", "a"),
        "matcher tree": (
            f"matcher: {{matcher_tree: {{input: {{name: x}}, exact_match_map: {{map: {{y: {ACTION}}}}}}}}}",
            "a",
        ),
        "plugin": (
            one_route(
                f"inline_cluster_specifier_plugin: {{extension: {{name: x, typed_config: {{'@type': "
                f"{PLUGIN}.MatcherClusterSpecifier, cluster_matcher: {{on_no_match: {CHOSEN}}}}}}}}}"
            ),
            "a",
        ),
        "mirror": (one_route("cluster: a, request_mirror_policies: [{cluster: b}]"), "a"),
        "header": (one_route("cluster_header: x-to"), ""),
    }.values(),
)
def test_clusters_are_found_wherever_routes_lead_to_them(host, led):
    text = f"name: r, virtual_hosts: [{{name: h, domains: ['*'], {host}}}]"

    assert found(f"{{'@type': {ROUTE}, {text}}}") == set(led)


@pytest.mark.parametrize(
    ("config", "led"),
    {
        "tcp": (f"'@type': {TCP}, stat_prefix: t, cluster: a", "a"),
        "tcp weights": (f"'@type': {TCP}, stat_prefix: t, weighted_clusters: {WEIGHTED}", "ab"),
        "thrift": (
            f"'@type': {THRIFT}, route_config: {{routes: [{{match: {{}}, route: {{cluster: a}}}}]}}",
            "a",
        ),
        "authorization": (
            f"'@type': {AUTHZ}, grpc_service: {{envoy_grpc: {{cluster_name: a}}}}",
            "",
        ),
    }.values(),
)
def test_clusters_are_found_wherever_listeners_lead_to_them(config, led):
    filters = f"filter_chains: [{{filters: [{{name: f, typed_config: {{{config}}}}}]}}]"

    assert found(f"{{'@type': {LISTENER}, name: l, {filters}}}") == set(led)


@pytest.mark.parametrize("kind", ["aggregate", "composite"])
def test_clusters_of_clusters_are_found(kind):
    members = {"aggregate": "[a, b]", "composite": "[{name: a}, {name: b}]"}[kind]
    config = f"{{'@type': envoy.extensions.clusters.{kind}.v3.ClusterConfig, clusters: {members}}}"

    text = f"{{'@type': {CLUSTER}, name: all, cluster_type: {{name: x, typed_config: {config}}}}}"

    assert found(text) == {"a", "b"}


def test_what_is_packed_and_broken_is_told():
    listener = from_yaml(f"[{{'@type': {LISTENER}, name: l, filter_chains: [{{filters: [{{name: f}}]}}]}}]")
    packed = listener[LISTENER]["l"].filter_chains[0].filters[0].typed_config
    packed.type_url, packed.value = f"type.googleapis.com/{TCP}", b"\xff"

    with pytest.raises(ValueError, match="'l' is not a TcpProxy"):
        read(LISTENER, "l", listener[LISTENER]["l"].SerializeToString())


@pytest.mark.parametrize("field", sorted(LEADS))
def test_fields_that_lead_somewhere_are_fields_of_envoy(field):
    kind, _, name = field.rpartition(".")

    assert name in message_class(kind).DESCRIPTOR.fields_by_name
