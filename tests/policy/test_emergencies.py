"""What an emergency policy may say, and what an order under one must."""

import pytest

from controlplane.policy.loading import load
from tests import documents
from tests.documents import FLEET

SERVICE = documents.SERVICE + "metrics: {orders: {header: x-order, better: more}}\n"
RELEASE = documents.RELEASE.replace("quick", "urgent")
POLICY = """\
kind: Policy
name: urgent
steps: [{name: all, everyone: 100%}]
conditions: [{success_rate: {at_least: 99%}}, {latency: {p99: 400ms}}]
guard: {for: 5m, hold_back: 2%}
emergency: true
"""


def loaded(policy=POLICY, release=RELEASE):
    texts = {"f": FLEET, "s": SERVICE, "p": policy, "r": release}
    return load({f"{name}.yaml": text.encode() for name, text in texts.items()})


def test_an_order_under_an_emergency_policy_says_why():
    why = RELEASE.replace("start:", "reason: v1 loses orders\nstart:")

    (problem,) = loaded().errors

    assert str(problem) == (
        "r.yaml:6:9: policy: 'urgent' is an emergency, so the order needs a reason: add `reason:`"
    )
    assert not loaded(release=why).errors
    assert loaded(release=why).catalog.releases()[0].reason == "v1 loses orders"
    assert not loaded(policy=POLICY.replace("emergency: true\n", "")).errors


@pytest.mark.parametrize(
    "condition",
    [
        "{stat: {name: upstream_rq_pending_overflow, at_most: 0}}",
        "{ejections: {at_most: 0}}",
        "{metric: {name: orders, at_least: 3%}}",
        "{prometheus: {name: queue, query: 'q{v=\"$version\"}', at_most: 3}}",
    ],
)
def test_a_limit_on_the_canary_alone_is_refused_in_an_emergency(condition):
    for more in (f"conditions: [{condition},", None):
        policy = POLICY.replace("conditions: [", more) if more else POLICY.replace(
            "everyone: 100%}", f"everyone: 100%, conditions: [{condition}]}}"
        )  # fmt: skip
        errors = [str(e) for e in loaded(policy=policy).errors if e.file == "p.yaml"]

        assert len(errors) == 1
        assert "limits the canary alone" in errors[0]
        assert "latency, success_rate, error_rate, grpc_status, retries, and comparisons" in errors[0]
        usual = policy.replace("emergency: true", "emergency: false")
        assert not loaded(policy=usual).errors


def test_what_an_emergency_passes_is_warned_about():
    policy = (
        POLICY.replace("hold_back: 2%", "hold_back: 2%, keep_endpoints: 80%") + "windows: [{days: mon-thu}]\n"
    )

    warnings = [str(p) for p in loaded(policy=policy).problems if p.file == "p.yaml"]

    assert len(warnings) == 2
    assert any("windows: an emergency passes them" in w for w in warnings)
    assert any("keep_endpoints" in w and "goes on without them" in w for w in warnings)
