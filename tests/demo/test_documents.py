from __future__ import annotations

from datetime import timedelta

import pytest
import yaml

from controlplane.demo.documents import POLICY, RELEASE, SERVICE, TIMEOUT_SECONDS, documents
from controlplane.demo.users import HOST
from controlplane.policy.documents import Fleet, Latency, Policy, Release, Service
from controlplane.policy.latency import edge_index
from controlplane.policy.loading import load


@pytest.fixture(params=["fast", "real"])
def found(request):
    loaded = load({"demo.yaml": documents(8080, (9001, 9002), request.param).encode()})
    assert not loaded.problems
    return {kind: entry.document for (kind, _), entry in loaded.catalog.entries.items()}


def test_documents_name_the_ports_and_each_other(found):
    fleet, service, policy, release = (found[kind] for kind in ("Fleet", "Service", "Policy", "Release"))

    assert isinstance(fleet, Fleet)
    assert isinstance(service, Service)
    assert isinstance(policy, Policy)
    assert isinstance(release, Release)
    assert fleet.listeners[0].address == "127.0.0.1:8080"
    assert service.fleets == (fleet.name,)
    assert {v: [e.address for e in d.endpoints or ()] for v, d in service.versions.items()} == {
        "v1": ["127.0.0.1:9001"],
        "v2": ["127.0.0.1:9002"],
    }
    assert service.routes[0].host == HOST
    assert service.timeout == timedelta(seconds=TIMEOUT_SECONDS)
    assert (release.service, release.policy, release.from_, release.to) == (
        service.name,
        policy.name,
        "v1",
        "v2",
    )
    assert (service.name, policy.name, release.name) == (SERVICE, POLICY, RELEASE)
    assert release.start == "auto"


def test_shares_of_everyone_only_grow_and_a_baseline_is_kept(found):
    policy = found["Policy"]
    shares = [step.everyone for step in policy.steps if step.everyone is not None]

    assert shares == sorted(shares)
    assert shares[-1] == 1_000_000
    assert policy.guard.hold_back == 50_000


def test_latency_limit_is_on_a_bucket_edge(found):
    limits = [c.latency.p95 for c in found["Policy"].conditions if isinstance(c.latency, Latency)]

    assert [edge_index(limit) is not None for limit in limits] == [True]


def test_fast_is_faster_than_real():
    def guard(pace):
        policy = next(d for d in yaml.safe_load_all(documents(1, (2, 3), pace)) if d["kind"] == "Policy")
        return Policy.model_validate(policy).guard.for_

    assert guard("fast") < guard("real") / 10
