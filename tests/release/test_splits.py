"""Rules to splits, against the meaning of the rules, written down bucket by bucket."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.policy.cohorts import BUCKETS, conditions
from controlplane.policy.documents import Match
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.segments import Request, cohorts, matches
from controlplane.policy.values import format_share
from controlplane.release.splits import splits

EDGES = [0, 500, 1000, 2500, 7000, BUCKETS]
LEAVES = st.one_of(
    st.sampled_from("abc").map(lambda name: {"header": {"name": f"x-{name}", "present": True}}),
    st.sampled_from([(low, high) for low in EDGES for high in EDGES if low < high]).map(
        lambda span: {"cohort": {"from": f"{span[0] / 100:g}%", "to": f"{span[1] / 100:g}%"}}
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=3,
)
SHARES = st.sampled_from([1, 100, 1000, 5000, 9990, BUCKETS])


@st.composite
def policies(draw):
    trees = draw(st.lists(TREES, min_size=1, max_size=3))
    kept = draw(st.lists(TREES, max_size=2))
    steps, had = [], {}
    for number in range(draw(st.integers(1, 4))):
        which = draw(st.sampled_from([*range(len(trees)), None]))
        had[which] = max(draw(SHARES), had.get(which, 0))
        rule = {} if which is None else {"segment": f"s{which}", "match": trees[which]}
        steps.append({"name": f"step{number}", "share": had[which] * 100, **rule})
    for number, step in enumerate(steps):
        last = draw(st.integers(-1, len(steps)))
        step["exclude"] = [{"name": f"kept{i}", "match": m} for i, m in enumerate(kept) if i + number <= last]
    for step, following in pairwise(steps):  # what is excluded only gets less
        names = {each["name"] for each in step["exclude"]}
        following["exclude"] = [each for each in following["exclude"] if each["name"] in names]
    held = draw(st.one_of(st.none(), st.sampled_from("ab")))
    hold_out = (
        [{"name": "hold-out", "match": {"header": {"name": f"x-{held}", "present": True}}}] if held else []
    )
    guard = {"hold_back": format_share(draw(st.sampled_from([0, 200, 3000])) * 100)}
    return PinnedPolicy.model_validate({"name": "p", "steps": steps, "guard": guard, "hold_out": hold_out})


def meant(policy: PinnedPolicy, step: int, request: Request) -> bool:
    """Return whether a user gets the canary, as DOCUMENTS says it, one rule at a time."""
    current = policy.steps[min(step, len(policy.steps) - 1)]
    if any(matches(kept.match, request) for kept in (*policy.hold_out, *current.exclude)):
        return False
    limit = BUCKETS - policy.guard.hold_back // 100
    for rule in policy.steps[: step + 1]:
        if not matches(rule.match, request):
            continue
        share = rule.share // 100
        mine = (
            [b for b in range(BUCKETS) if matches(rule.match, at(request, b))]
            if (rule.match is not None and cohorts(rule.match))
            else range(BUCKETS)
        )
        count = max(1, len(mine) * share // BUCKETS)
        whole = rule.match is not None and share == len(mine) == BUCKETS
        if whole or (mine.index(request.bucket) < count and request.bucket < limit):
            return True
    return False


def at(request: Request, bucket: int) -> Request:
    return Request(headers=request.headers, bucket=bucket)


def routed(policy: PinnedPolicy, step: int, request: Request) -> bool:
    """Return the same as the router finds it: the first split that matches."""
    split = next(s for s in splits(policy, step) if matches(s.match, request))
    return any(start <= request.bucket < end for start, end in split.canary)


HEADERS = st.sets(st.sampled_from("abc")).map(
    lambda names: tuple((f"x-{name}", "1") for name in sorted(names))
)


@settings(max_examples=150, deadline=None)
@given(
    policies(), HEADERS, st.sampled_from([0, 1, 9, 499, 500, 999, 1000, 2499, 2500, 6999, 7000, 9799, 9999])
)
def test_splits_are_what_the_rules_mean(policy, headers, bucket):
    request = Request(headers=headers, bucket=bucket)

    for step in range(len(policy.steps) + 1):
        assert routed(policy, step, request) is meant(policy, step, request)


@settings(max_examples=150, deadline=None)
@given(policies(), HEADERS, st.integers(0, BUCKETS - 1))
def test_nobody_loses_the_canary_whatever_the_trees(policy, headers, bucket):
    request = Request(headers=headers, bucket=bucket)
    had = [routed(policy, step, request) for step in range(len(policy.steps) + 1)]

    assert had == sorted(had)


@settings(max_examples=150, deadline=None)
@given(policies(), HEADERS)
def test_requests_without_identity_are_in_no_cohort(policy, headers):
    request = Request(headers=headers)
    limit = BUCKETS - policy.guard.hold_back // 100
    for step in range(len(policy.steps) + 1):
        current = policy.steps[min(step, len(policy.steps) - 1)]
        kept = any(matches(each.match, request) for each in (*policy.hold_out, *current.exclude))
        due = [
            BUCKETS if rule.match is not None and rule.share == 1_000_000 else min(rule.share // 100, limit)
            for rule in policy.steps[: step + 1]
            if matches(rule.match, request)
        ]
        split = next(s for s in splits(policy, step) if matches(s.match, request))

        assert split.drawn == (0 if kept else max(due, default=0))


@settings(max_examples=150, deadline=None)
@given(policies())
def test_a_name_in_statistics_is_one_share(policy):
    for step in range(len(policy.steps) + 1):
        names = [split.segment for split in splits(policy, step)]
        assert len(names) == len(set(names))
        assert names[-1] == "everyone"


def test_a_cohort_inside_of_a_condition_is_a_share_of_those_requests():
    tree = {"all": [{"header": {"name": "x-a", "present": True}}, {"cohort": {"from": "10%", "to": "20%"}}]}
    step = {"name": "some", "segment": "some", "match": tree, "share": "50%"}
    policy = PinnedPolicy.model_validate({"name": "p", "steps": [step]})

    some, everyone = splits(policy, 0)

    assert (some.segment, some.match, some.canary, some.drawn) == (
        "some",
        Match.model_validate(tree["all"][0]),
        ((1000, 1500),),
        0,
    )
    assert (everyone.segment, everyone.canary) == ("everyone", ())
    assert conditions([Match.model_validate(tree)]) == 1


def test_segments_that_overlap_with_a_cohort_are_counted_apart():
    staff = {"header": {"name": "x-staff", "present": True}}
    mixed = {"all": [{"header": {"name": "x-a", "present": True}}, {"cohort": {"from": "50%", "to": "100%"}}]}
    steps = [
        {"name": "one", "segment": "staff", "match": staff, "share": "20%"},
        {"name": "two", "segment": "mixed", "match": mixed, "share": "100%"},
    ]
    policy = PinnedPolicy.model_validate({"name": "p", "steps": steps})

    assert [(s.segment, s.canary, s.drawn) for s in splits(policy, 1)] == [
        ("staff+mixed", ((0, 2000), (5000, 10_000)), 2000),
        ("staff", ((0, 2000),), 2000),
        ("mixed", ((5000, 10_000),), 0),
        ("everyone", (), 0),
    ]
