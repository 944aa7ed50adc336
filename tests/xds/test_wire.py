"""Our fields against the complete API, and our joined bytes against the encoder."""

from __future__ import annotations

import dataclasses

import envoy_data_plane.envoy.config.core.v3 as core
import envoy_data_plane.envoy.service.discovery.v3 as discovery
import pytest

from controlplane._pb import discovery_pb2, node_pb2
from controlplane._pb.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from controlplane.xds.messages import parse_node
from controlplane.xds.type_urls import CLUSTER
from controlplane.xds.wire import delta_response, set_hash, sotw_response

MESSAGES = {**discovery_pb2.DESCRIPTOR.message_types_by_name, **node_pb2.DESCRIPTOR.message_types_by_name}


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_field_numbers_are_those_of_the_complete_api(name):
    complete = getattr(discovery, name, None) or getattr(core, name)
    fields = dataclasses.fields(complete)
    numbers = {f.name.rstrip("_"): f.metadata[next(iter(f.metadata))].number for f in fields}

    assert {f.name: f.number for f in MESSAGES[name].fields}.items() <= numbers.items()


def test_sotw_response_is_what_an_encoder_would_write(model):
    resources = {name: model.resource(name, "x" * 300) for name in ("b", "a")}

    version, data = sotw_response(CLUSTER, resources, 7, "3", "replica-1")

    message = DiscoveryResponse.FromString(data)
    assert version == message.version_info == f"7.{set_hash(resources)}"
    assert [(r.type_url, r.value) for r in message.resources] == [(CLUSTER, resources[n].body) for n in "ab"]
    assert (message.type_url, message.nonce, message.control_plane.identifier) == (CLUSTER, "3", "replica-1")
    assert len(message.SerializeToString()) == len(data)


def test_delta_response_is_what_an_encoder_would_write(model):
    resource = model.resource("a", "x" * 300)

    message = DeltaDiscoveryResponse.FromString(delta_response(CLUSTER, [resource], ("b",), 7, "3", "me"))

    (sent,) = message.resources
    assert (sent.name, sent.version, sent.resource.value) == ("a", str(resource.version), resource.body)
    assert (message.removed_resources, message.nonce, message.system_version_info) == (["b"], "3", "7")


def test_node_of_a_real_client_is_read():
    node = core.Node(
        id="n",
        cluster="c",
        locality=core.Locality(region="eu", zone="eu-1", sub_zone="a"),
        user_agent_name="envoy",
        user_agent_build_version=core.BuildVersion().from_dict(
            {"version": {"majorNumber": 1, "minorNumber": 40, "patch": 2}}
        ),
    )

    parsed = parse_node(bytes(node))

    assert (parsed.id, parsed.cluster, parsed.version) == ("n", "c", (1, 40, 2))
    assert (parsed.region, parsed.zone, parsed.sub_zone, parsed.user_agent) == ("eu", "eu-1", "a", "envoy")
