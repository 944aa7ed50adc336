"""Releases that know one another, at load: cycles are named, and a group must be able to go in lockstep."""

import pytest

from controlplane.policy.loading import load

BASE = """\
kind: Fleet
name: edge
nodes: {cluster: edge}
listeners: [{name: http, address: "127.0.0.1:8080"}]
---
kind: Policy
name: quick
steps: [{name: ten, everyone: 10%}, {name: all, everyone: 100%}]
conditions: []
guard: {hold_back: 2%}
---
kind: Policy
name: slow
steps: [{name: tenth, everyone: 10%, for: 1h}, {name: all, everyone: 100%, approve: {}}]
conditions: [{success_rate: {at_least: 99%}}]
guard: {hold_back: 2%}
---
kind: Policy
name: other
steps: [{name: ten, everyone: 20%}, {name: all, everyone: 100%}]
conditions: []
guard: {hold_back: 2%}
---
kind: Policy
name: unguarded
steps: [{name: ten, everyone: 10%}, {name: all, everyone: 100%}]
conditions: []
guard: {hold_back: 1%}
---
kind: Policy
name: stepping
steps: [{name: ten, everyone: 10%, on_failure: {do: step_back}}, {name: all, everyone: 100%}]
conditions: []
guard: {hold_back: 2%}
---
kind: Policy
name: test
steps: [{name: ten, everyone: 10%}, {name: half, everyone: 50%}]
conditions: []
ends: {after: 1d}
---
kind: Policy
name: again
steps: [{name: ten, everyone: 10%}, {name: all, everyone: 100%}]
conditions: []
on_failure: {do: rollback, retry: {after: 1h}}
guard: {hold_back: 2%}
"""


def service(name, user="u"):
    return f"""\
---
kind: Service
name: {name}
fleets: [edge]
routes: [{{host: {name}.example.com}}]
user: {{from: [{{cookie: {user}}}]}}
initial: v1
versions: {{v1: {{endpoints: ["10.0.0.1:80"]}}, v2: {{endpoints: ["10.0.0.2:80"]}}}}
"""


def release(name, more="", *, service="back", policy="quick", attempt=1):
    return f"""\
---
kind: Release
name: {name}
service: {service}
from: v1
to: v2
policy: {policy}
attempt: {attempt}
{more}
start: auto
"""


def problems(*texts):
    every = BASE + service("back") + service("front") + service("side", "w") + "".join(texts)
    found = load({"f.yaml": every.encode()}).problems
    return [str(p).partition(": ")[2] for p in found if p.level == "error"]


def test_a_cycle_is_refused_and_named():
    found = problems(
        release("a", "after: [{release: c}]"),
        release("b", "after: [{release: a, reached: guarding}]"),
        release("c", "after: [{release: b}]"),
        release("d", "after: [{release: a}]"),
    )

    assert "after: depends on itself: a -> c -> b -> a" in found
    assert "after: depends on itself: b -> a -> c -> b" in found
    assert "after: depends on itself: c -> b -> a -> c" in found
    assert any(p.startswith("after[0].release: Release 'a' is refused") for p in found)


def test_a_release_after_itself_is_a_cycle_too_and_one_that_nobody_knows_is_refused():
    assert problems(release("a", "after: [{release: a}]"))[0] == "after: depends on itself: a -> a"
    assert "no Release is named 'z'" in problems(release("a", "after: [{release: z}]"))[0]
    assert problems(release("a", "supersedes: a")) == ["supersedes: names the release itself"]


def test_releases_that_wait_for_one_another_without_a_cycle_are_taken():
    diamond = [
        release("a"),
        release("b", "after: [{release: a}]"),
        release("c", "after: [{release: a}]"),
        release("d", "after: [{release: b}, {release: c, reached: guarding}]\nsupersedes: a"),
    ]

    assert problems(*diamond) == []


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({}, None),
        ({"policy": "slow"}, None),  # other names, times, conditions and approvals do not move other users
        ({"policy": "other"}, "policy: 'other' has other steps than 'quick' of 'a'"),
        ({"policy": "unguarded"}, "policy: 'unguarded' has another hold_back"),
        ({"policy": "stepping"}, "policy: policy 'stepping' may go a step back"),
        ({"policy": "again"}, "policy: policy 'again' retries by itself"),
        ({"attempt": 2}, "attempt: is 2, that of 'a' 1"),
        ({"service": "back"}, "service: 'back' is released by 'a' too"),
        ({"service": "side"}, "group: 'side' has other user.from than 'back' of 'a'"),
    ],
)
def test_a_group_must_move_the_same_users_step_by_step(second, words):
    found = problems(release("a", "group: g"), release("b", "group: g", **({"service": "front"} | second)))

    assert [p[: len(words)] for p in found] == [words] if words else found == []


def test_an_ab_test_is_in_no_group():
    found = problems(release("a", "group: g", policy="test"))

    assert [p.partition(" (")[0] for p in found] == ["policy: policy 'test' is an A/B test"]
