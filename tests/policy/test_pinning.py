from datetime import timedelta

import pytest

from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import AgainstBaseline, Match, Policy, Segment
from controlplane.policy.pinned import PinnedStep
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


def test_errors_against_the_baseline_are_on_unless_switched_off():
    assert pin(policy(), CATALOG).errors == AgainstBaseline()
    assert pin(policy({"errors": {"margin": "5%"}}), CATALOG).errors.margin == 50_000
    assert pin(policy({"errors": "off"}), CATALOG).errors is None


def test_limits_are_gathered():
    pinned = pin(
        policy(
            {"latency": {"p99": "400ms"}}, {"success_rate": {"at_least": "99%"}}, {"latency": {"p50": "50ms"}}
        ),
        CATALOG,
    )

    assert pinned.latency == ((50.0, timedelta(milliseconds=50)), (99.0, timedelta(milliseconds=400)))
    assert pinned.success_rate == 990_000


def test_a_segment_that_is_not_there_is_an_error():
    with pytest.raises(KeyError):
        pin(policy(), Catalog())
