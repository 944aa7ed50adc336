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
    found = load({"f.yaml": every.encode()}, ordered={}).problems
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
    text = "after[0].release: no release 'z' is in the documents, nor was one ordered"
    assert problems(release("a", "after: [{release: z}]"))[0].startswith(text)
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

    whole = "group: group 'g' is taken as a whole, and 'b' is refused"
    assert {p if words is None else p[: len(words)] if p != whole else p for p in found} == (
        {words, whole} if words else set()
    )


def test_an_ab_test_is_in_no_group():
    found = problems(release("a", "group: g", policy="test"))

    assert [p.partition(" (")[0] for p in found] == ["policy: policy 'test' is an A/B test"]


# --- what the store knows, and what it does not -----------------------------------------------------------


def read(texts, last=None, **options):
    every = {"base.yaml": BASE + service("back") + service("front")} | texts
    loaded = load({name: text.encode() for name, text in every.items()}, last, **options)
    return loaded, [str(p) for p in loaded.problems]


@pytest.mark.parametrize("field", ["after: [{{release: {}}}]", "supersedes: {}"])
def test_another_release_is_known_by_its_document_or_to_the_store(field):
    def of(name, **options):
        text = release("a", field.format(name)).removeprefix("---\n")
        return read({"a.yaml": text, "first.yaml": release("first")}, **options)[1]

    assert of("first", ordered={}) == of("done", ordered={"done": "back"}) == []
    (refused,) = of("frist", ordered={"first": "back"})
    assert "no release 'frist' is in the documents, nor was one ordered; known: first" in refused
    assert "did you mean 'first'" in refused
    (warned,) = of("frist")
    assert "no Release document is named 'frist'; did you mean 'first'?" in warned


def test_nobody_takes_the_place_of_another_services_release():
    for first, ordered in (({"f.yaml": release("first", service="front")}, {}), ({}, {"first": "front"})):
        _, found = read({"a.yaml": release("a", "supersedes: first")} | first, ordered=ordered)
        (text,) = found
        assert "supersedes: 'first' is a release of 'front'; one takes the place" in text


def test_the_file_of_a_dependency_that_has_ended_may_go():
    texts = {"a.yaml": release("a"), "b.yaml": release("b", "after: [{release: a}]", service="front")}
    before, _ = read(texts, ordered={})

    after, found = read({"b.yaml": texts["b.yaml"]}, before.catalog, ordered={"a": "back", "b": "front"})

    assert found == []
    assert [r.name for r in after.catalog.releases()] == ["b"]


MEMBERS = {"a.yaml": release("a", "group: sale"), "b.yaml": release("b", "group: sale", service="front")}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (MEMBERS["b.yaml"].replace("to: v2", "to: v9"), "'b' is refused"),
        (MEMBERS["b.yaml"].replace("to: v2", "too: v2"), "'b' is refused"),
        (MEMBERS["b.yaml"].replace("service: front", "service: fornt"), "'b' is refused"),
        (MEMBERS["b.yaml"].replace("name: b\n", ""), "one is refused"),
        (MEMBERS["b.yaml"] + "]", "b.yaml cannot be read and may have one of it"),
    ],
)
def test_a_group_is_taken_as_a_whole_or_not_at_all(bad, why):
    loaded, found = read(MEMBERS | {"b.yaml": bad, "c.yaml": release("c")}, ordered={})

    assert [r.name for r in loaded.catalog.releases()] == ["c"]
    assert [p for p in found if f"group: group 'sale' is taken as a whole, and {why}" in p]


def test_of_a_group_that_is_there_no_member_is_edited_without_the_others():
    before, _ = read(MEMBERS, ordered={})
    again = {name: text.replace("attempt: 1", "attempt: 2") for name, text in MEMBERS.items()}

    after, _ = read(again | {"b.yaml": again["b.yaml"].replace("v2", "v9")}, before.catalog, ordered={})

    assert [(r.name, r.attempt) for r in after.catalog.releases()] == [("a", 1), ("b", 1)]
    mended, found = read(again, after.catalog, ordered={})
    assert [(r.name, r.attempt) for r in mended.catalog.releases()] == [("a", 2), ("b", 2)]
    assert found == []


def test_a_file_that_cannot_be_read_holds_only_groups_that_it_may_have():
    loaded, _ = read(MEMBERS | {"x.yaml": "kind: Release\ngroup: [other"}, ordered={})

    assert [r.name for r in loaded.catalog.releases()] == ["a", "b"]
