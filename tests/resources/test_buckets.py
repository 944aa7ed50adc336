from __future__ import annotations

from controlplane.policy.segments import Request
from controlplane.release.traffic import Split
from controlplane.resources.buckets import Pick, bucket, identity, pick


def test_the_formula_never_changes():
    # Everybody's version hangs on it; that Envoy computes the same is seen in tests/envoy.
    assert [bucket("salt", f"user-{i}") for i in range(1, 4)] == [6084, 3880, 3773]


def test_the_first_source_that_names_a_user_counts(traffic):
    state = traffic()

    assert identity(state, Request(headers=(("x-user-id", "a"), ("cookie", "uid=b")))) == "a"
    assert identity(state, Request(headers=(("x-user-id", ""), ("cookie", "uid=b")))) == "b"
    assert identity(state, Request(headers=(("cookie", "uid=; xuid=c"),))) is None
    assert identity(state, Request(headers=(("cookie", "turnout-user=d"),))) is None


def test_a_generated_identity_is_the_last_source(traffic):
    state = traffic(anonymous="generate")

    assert identity(state, Request(headers=(("cookie", "turnout-user=d"),))) == "d"
    assert identity(state, Request(headers=(("cookie", "turnout-user=d; uid=b"),))) == "b"


def test_requests_without_identity(traffic):
    half, everyone = [Split("everyone", None, ((0, 5000),))], [Split("everyone", None, ((0, 10_000),))]

    assert pick(traffic(half), Request()) == Pick("anonymous", None, None)
    assert pick(traffic(half, anonymous="baseline"), Request()) == Pick("anonymous", "v1", None)
    assert pick(traffic(half, anonymous="generate"), Request()) == Pick("everyone", None, None)
    assert pick(traffic(everyone, anonymous="baseline"), Request()) == Pick("anonymous", "v2", None)
