"""Resources for an owner's listener: what a step and a rollback change, and what is always there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.policy.documents import Fleet
from controlplane.release.traffic import Split
from controlplane.resources.adopting import render_adopted
from controlplane.xds.snapshot import difference
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE


def split(end):
    return Split("everyone", None, ((0, end),) if end else ())


@pytest.fixture
def owned():
    listeners = [{"name": "public", "kind": "adopt"}, {"name": "partners", "kind": "adopt"}]
    fields = {"kind": "Fleet", "name": "owned", "nodes": {"cluster": "owned"}, "listeners": listeners}
    return Fleet.model_validate(fields)


@pytest.mark.parametrize("end", [100, 10_000, 0])
def test_a_step_and_a_rollback_are_one_route_change_for_each_listener(owned, traffic, end):
    first = render_adopted(owned, [traffic([split(50)])], 1)

    second = render_adopted(owned, [traffic([split(end)])], 2, first)

    assert difference(first.snapshot, second.snapshot).names == {ROUTE: ("partners", "public")}


def test_all_that_requests_may_have_to_go_back_to_is_there(owned, traffic):
    snapshot = render_adopted(owned, [traffic([split(10_000)])], 1).snapshot

    names = {
        f"checkout~{version}~{segment}" for version in ("v1", "v2") for segment in ("everyone", "anonymous")
    }
    assert set(snapshot.of(CLUSTER)) == set(snapshot.of(ENDPOINT)) == names


def test_what_did_not_change_is_the_same(owned, traffic):
    first = render_adopted(owned, [traffic([split(50)])], 1)

    again = render_adopted(owned, [traffic([split(50)])], 2, first)

    assert again.snapshot.resources is first.snapshot.resources
    assert again.snapshot.revision == 2


def test_a_version_that_is_gone_is_named(owned, traffic):
    lost = replace(traffic([split(50)]), canary="v9")

    with pytest.raises(ValueError, match="version 'v9' is in use, but it is not declared"):
        render_adopted(owned, [lost], 1)
