import pytest

from controlplane.policy.loading import load

FLEET = """
kind: Fleet
name: edge
nodes: {cluster: edge}
listeners: [{name: http, address: "0.0.0.0:80"}]
---
"""
SERVICE = """
kind: Service
name: shop
fleets: [edge]
routes: [{host: shop.test}]
user: {from: [{cookie: uid}]}
hold_out: HELD
initial: v1
versions: {v1: {endpoints: ["10.0.0.1:80"]}}
---
"""
SEGMENTS = """
kind: Segment
name: partners
match: {cookie: {name: partner, present: true}}
---
kind: Segment
name: tenth
match: {all: [{cookie: {name: plan, equals: free}}, {cohort: {to: 10%}}]}
"""
POLICY = """
kind: Policy
name: careful
steps: [STEPS]
conditions: []
guard: {hold_back: 1%}
---
"""


def errors(text):
    return [str(problem) for problem in load({"f": text.encode()}).errors]


def service(held):
    return errors(FLEET + SERVICE.replace("HELD", held) + SEGMENTS)


def policy(*steps):
    return errors(POLICY.replace("STEPS", ", ".join(steps)) + SEGMENTS)


def test_a_hold_out_is_a_segment_by_name_or_in_place():
    assert not service("partners")
    assert not service("{users: [a, b]}")
    assert "no Segment is named 'other'" in service("other")[0]


@pytest.mark.parametrize("held", ["tenth", "{cohort: {to: 1%}}"])
def test_a_hold_out_by_cohort_would_change_with_each_release(held):
    [error] = service(held)

    assert "hold_out: has a cohort; its users differ from release to release" in error


def test_what_is_excluded_only_gets_less():
    first = "{name: ten, everyone: 10%, exclude: [partners, tenth]}"
    half = "{name: half, everyone: 50%, exclude: [partners]}"
    last = "{name: all, everyone: 100%}"

    assert not policy(first, half, last)
    [error] = policy("{name: ten, everyone: 10%}", half, last)
    assert error.endswith(
        "steps[1].exclude[0]: step 'half' excludes 'partners', which step 'ten' does not;"
        " who has the new version would lose it"
    )


def test_a_step_does_not_exclude_its_own_segment():
    [error] = policy(
        "{name: one, segment: partners, share: 10%, exclude: [partners]}", "{name: all, everyone: 100%}"
    )

    assert "'partners' is the segment of this step; nobody would get it" in error


def test_a_segment_that_is_excluded_must_be_there():
    [error] = policy("{name: all, everyone: 100%, exclude: [other]}")

    assert "steps[0].exclude[0]: no Segment is named 'other'; known: partners, tenth" in error


def test_conditions_beside_cohorts_are_few():
    tree = "{all: [{cookie: {name: cN, present: true}}, {cohort: {to: 5%}}]}"
    mixed = [f"{{name: sN, segment: {tree}, share: 9%}}".replace("N", str(i)) for i in range(5)]
    last = "{name: all, everyone: 100%}"

    assert not policy(*mixed[:4], last)
    [error] = policy(*mixed, last)
    assert "steps: have 5 different conditions beside cohorts; at most 4 are allowed" in error
