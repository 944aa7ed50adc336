"""Which proxies a fleet means, and which two fleets would share one."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.policy.documents import Nodes
from controlplane.policy.loading import load
from controlplane.policy.nodes import globs_meet, matches, overlap
from controlplane.xds.messages import Node

PLACED = Node("a", "x", {"role": "edge", "app": {"tier": 1.0, "on": True}}, "eu", "eu-1", "a")


@pytest.mark.parametrize(
    ("nodes", "node", "mine"),
    [
        ({"cluster": "edge"}, Node("a", "edge"), True),
        ({"cluster": "edge"}, Node("a", "edge2"), False),
        ({"id": "edge-*"}, Node("edge-1", "x"), True),
        ({"id": "edge-*"}, Node("Edge-1", "x"), False),
        ({"id": "edge-?"}, Node("edge-10", "x"), False),
        ({"id": "edge-*", "cluster": "x"}, Node("edge-1", "y"), False),
        ({"id": "*"}, Node("", ""), True),
        ({"locality": {"region": "eu"}}, PLACED, True),
        ({"locality": {"region": "eu", "zone": "eu-2"}}, PLACED, False),
        ({"locality": {"sub_zone": "a"}}, Node("a"), False),
        ({"metadata": {"role": "edge"}}, PLACED, True),
        ({"metadata": {"role": "edge", "app": {"tier": 1}}}, PLACED, True),
        ({"metadata": {"app": {"tier": 2}}}, PLACED, False),
        ({"metadata": {"app": {"on": True}}}, PLACED, True),
        ({"metadata": {"app": {"on": 1}}}, PLACED, False),
        ({"metadata": {"app": "tier"}}, PLACED, False),
        ({"metadata": {"role": {"a": "b"}}}, PLACED, False),
        ({"metadata": {"other": "edge"}}, PLACED, False),
    ],
)
def test_a_node_belongs_to_a_fleet_when_every_condition_holds(nodes, node, mine):
    assert matches(Nodes.model_validate(nodes), node) is mine


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"cluster": "a"}, {"cluster": "b"}, False),
        ({"cluster": "a"}, {"cluster": "a"}, True),
        ({"cluster": "a"}, {"cluster": "a", "id": "x-*"}, True),
        ({"cluster": "a", "id": "y-*"}, {"cluster": "a", "id": "x-*"}, False),
        ({"cluster": "a"}, {"id": "x-*"}, None),
        ({"cluster": "a"}, {"id": "*"}, True),
        ({"id": "edge-*"}, {"id": "*-1"}, True),
        ({"locality": {"zone": "a"}}, {"locality": {"zone": "b"}}, False),
        ({"locality": {"zone": "a"}}, {"locality": {"region": "b"}}, None),
        ({"metadata": {"a": {"b": 1}}}, {"metadata": {"a": {"b": 2}}}, False),
        ({"metadata": {"a": {"b": 1}}}, {"metadata": {"a": {"b": 1}, "c": "d"}}, True),
    ],
)
def test_fleets_overlap_when_they_do_in_every_field(one, other, shared):
    first, second = Nodes.model_validate(one), Nodes.model_validate(other)

    assert overlap(first, second) is overlap(second, first) is shared


GLOBS = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]"]), max_size=5).map("".join)


@given(GLOBS, GLOBS, st.text("ab", max_size=5))
def test_globs_that_share_a_text_meet(one, other, text):
    if fnmatch.fnmatchcase(text, one) and fnmatch.fnmatchcase(text, other):
        assert globs_meet(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("a*", "b*"), ("a?", "a"), ("[ab]x", "c*"), ("*a", "*b"), ("", "a")]
)
def test_globs_that_share_no_text_do_not(one, other):
    assert not globs_meet(one, other)


def fleet(name, nodes):
    listener = "listeners: [{name: http, address: '0.0.0.0:80'}]"
    return f"kind: Fleet\nname: {name}\nnodes: {nodes}\n{listener}\n"


def problems(**nodes):
    files = {f"{name}.yaml": fleet(name, given).encode() for name, given in nodes.items()}
    return [str(problem) for problem in load(files).problems]


OVERLAP = "{0}.yaml:3:8: nodes: Fleet '{1}' has such nodes too, at {1}.yaml:1:1; a node belongs to one fleet"
DOUBT = "{0}.yaml:3:8: warning: nodes: a node that '{1}' has too would be refused; give both the same fields"


def test_fleets_that_share_nodes_are_both_refused():
    found = problems(east="{cluster: edge}", west="{cluster: edge, id: 'w-*'}")

    assert found == [OVERLAP.format("east", "west"), OVERLAP.format("west", "east")]


def test_fleets_that_might_share_nodes_are_told():
    found = problems(east="{cluster: edge}", west="{id: 'w-*'}")

    assert found == [DOUBT.format("east", "west"), DOUBT.format("west", "east")]


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ("{}", "nodes: is empty; id, cluster, locality or metadata is needed"),
        ("{metadata: {}}", "is not a mapping with at least one key"),
        ("{metadata: {a: [1]}}", "a: [1] cannot be compared; text, a whole number, true or false"),
        ("{metadata: {a: {b: 1.5}}}", "a.b: 1.5 cannot be compared"),
        ("{locality: {rack: a}}", "unknown field; known: region, zone, sub_zone"),
    ],
)
def test_what_cannot_be_compared_is_refused(nodes, text):
    assert text in problems(edge=nodes)[0]
