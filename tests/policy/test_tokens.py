import pytest

from controlplane.policy.loading import load

FLEET = """
kind: Fleet
name: edge
nodes: {cluster: edge}
listeners: [{name: http, address: "0.0.0.0:80"}]
tokens: TOKENS
---
"""
TOKENS = "{issuer: https://id.test, jwks_file: /etc/jwks.json, claims: [sub, plan]}"
REST = """
kind: Service
name: shop
fleets: [edge]
routes: [{host: shop.test}]
user: {from: [{claim: CLAIM}]}
initial: v1
versions: {v1: {endpoints: ["10.0.0.1:80"]}, v2: {endpoints: ["10.0.0.2:80"]}}
---
kind: Policy
name: careful
steps:
  - {name: some, segment: {not: {claim: {name: STEP, equals: a}}}, share: 5%}
  - {name: all, everyone: 100%}
conditions: []
guard: {hold_back: 1%}
---
kind: Release
name: r
service: shop
from: v1
to: v2
policy: careful
start: auto
"""


def errors(tokens=TOKENS, claim="sub", step="plan"):
    text = FLEET.replace("TOKENS", tokens) + REST.replace("CLAIM", claim).replace("STEP", step)
    return [str(problem) for problem in load({"f": text.encode()}).errors]


def test_claims_that_the_fleet_verifies_are_taken():
    assert errors() == []


def test_a_user_by_a_claim_that_is_not_verified_is_refused():
    found = errors(claim="uid")

    assert (
        "user.from[0].claim: not on edge fleet 'edge': claim 'uid' is not one of `tokens.claims`" in found[0]
    )
    assert found[0].endswith("those are: plan, sub")


def test_a_release_by_a_claim_that_is_not_verified_is_refused():
    [error] = errors(step="org")

    assert "policy: 'careful' does not fit 'shop' on edge fleet 'edge': claim 'org' is not one of" in error


def test_a_fleet_whose_listeners_verify_nothing_takes_no_tokens():
    text = FLEET.replace("TOKENS", TOKENS).replace('address: "0.0.0.0:80"', "kind: grpc")
    [error] = [str(problem) for problem in load({"f": text.encode()}).errors]

    assert "tokens: kind grpc takes none: gRPC clients verify no tokens" in error


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        ("{issuer: i, claims: [sub]}", "has none of jwks_file and jwks; exactly one is needed"),
        ("{issuer: i, claims: [], jwks_file: /a}", "claims: is empty; at least 1 is needed"),
        ("{issuer: i, claims: [sub, sub], jwks_file: /a}", "claims has a name twice"),
        ("{issuer: i, claims: [a b], jwks_file: /a}", "'a b' is not the name of a claim"),
        ("{issuer: i, claims: [sub], jwks: 'x'}", "jwks: is not JSON"),
        ("{issuer: i, claims: [sub], jwks: '{}'}", "jwks: is not a key set"),
    ],
)
def test_tokens_that_cannot_be_verified_are_refused(tokens, why):
    assert why in "\n".join(errors(tokens))
