from datetime import timedelta

import pytest

from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Match, Policy, Segment
from controlplane.policy.pinned import PinnedPolicy, PinnedStep
from controlplane.policy.pinning import pin

STAFF = {"cookie": {"name": "staff", "equals": "yes"}}
BETA = {"cookie": {"name": "beta", "present": True}}


def policy(*conditions):
    return Policy.model_validate({
        "kind": "Policy", "name": "p", "conditions": list(conditions),
        "steps": [
            {"name": "one", "segment": "staff", "share": "100%", "for": "1m"},
            {"name": "two", "segment": BETA, "share": "50%"},
            {"name": "all", "everyone": "100%"},
        ],
    })  # fmt: skip


CATALOG = Catalog.of(Segment.model_validate({"kind": "Segment", "name": "staff", "match": STAFF}))


def test_each_step_has_its_segment_spelled_out():
    assert pin(policy(), CATALOG).steps == (
        PinnedStep(
            name="one",
            segment="staff",
            match=Match.model_validate(STAFF),
            share=1_000_000,
            for_=timedelta(minutes=1),
        ),
        PinnedStep(name="two", segment="two", match=Match.model_validate(BETA), share=500_000),
        PinnedStep(name="all", segment="everyone", match=None, share=1_000_000),
    )


def conditions(*written, kinds=()):
    return {c.title: c for c in pin(policy(*written), CATALOG, kinds).conditions}


def test_errors_client_errors_and_latency_are_compared_with_the_baseline_unless_switched_off():
    assert list(conditions()) == ["errors", "client errors", "latency"]
    assert conditions()["client errors"].client_errors.margin == 500_000
    assert conditions({"errors": {"margin": "5%"}})["errors"].errors.margin == 50_000
    assert list(conditions({"errors": "off"}, {"latency": "off"})) == ["client errors"]
    assert list(conditions({"client_errors": "off"})) == ["errors", "latency"]


def test_grpc_clients_are_not_judged_by_what_they_do_not_report():
    assert list(conditions(kinds=("edge", "grpc"))) == ["errors"]
    assert list(conditions({"latency": {"p99": "400ms"}}, kinds=("edge", "grpc"))) == [
        "errors",
        "latency p99",
    ]


def test_limits_stand_beside_the_comparison_of_latencies():
    found = conditions(
        {"latency": {"p99": "400ms"}},
        {"latency": {"margin": "20%"}, "grace": "30s"},
        {"latency": {"p50": "50ms"}},
        {"error_rate": {"at_most": "1%"}},
    )

    assert list(found) == ["errors", "client errors", "latency", "latency p99", "latency p50", "error rate"]
    assert found["latency"].latency.margin == 200_000
    assert found["latency"].grace == timedelta(seconds=30)


def test_what_version_0_1_stored_is_read():
    old = {
        "name": "p", "steps": [{"name": "all", "segment": "everyone", "share": "100%"}],
        "errors": {"against": "baseline", "margin": "25%"}, "latency": [[99.0, "400ms"]],
        "success_rate": "99%",
    }  # fmt: skip

    assert [c.title for c in PinnedPolicy.model_validate(old).conditions] == [
        "errors", "latency p99", "success rate",
    ]  # fmt: skip
    assert PinnedPolicy.model_validate(old | {"errors": None, "latency": []}).conditions[0].title == (
        "success rate"
    )


def test_a_segment_that_is_not_there_is_an_error():
    with pytest.raises(KeyError):
        pin(policy(), Catalog())
