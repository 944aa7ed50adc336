"""Shares to buckets: the largest share wins, hold-back, and that nobody flips back while shares grow."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.policy.documents import Match, Service
from controlplane.policy.pinned import PinnedMirror
from controlplane.policy.values import format_share
from controlplane.release.state import RETURNING, Phase
from controlplane.release.traffic import BUCKETS, Copies, Resolved, endpoints, splits, traffic

SEGMENTS = {name: Match.model_validate({"cookie": {"name": name, "present": True}}) for name in "abc"}
COHORT = Match.model_validate({"cohort": {"from": "20%", "to": "40%"}})
SERVICE = Service.model_validate(
    {
        "kind": "Service",
        "name": "shop",
        "fleets": ["edge"],
        "routes": [{"host": "*"}],
        "initial": "v1",
        "versions": {
            "v1": {"endpoints": ["10.0.0.1:80"]},
            "v2": {"endpoints": ["10.0.0.2:80", "10.0.0.3:80"]},
            "v3": {"dns": "v3.svc:80"},
        },
    }
)


def policy(make, *rules, hold_back=0):
    """Rules are (segment, share in ppm); 'everyone' and 'cohort' are themselves."""
    steps = [
        make.step(f"s{i}", share, segment=segment, match={"cohort": COHORT, **SEGMENTS}.get(segment))
        for i, (segment, share) in enumerate(rules)
    ]
    return make.policy(steps=tuple(steps), guard={"hold_back": format_share(hold_back)})


def canary(groups, member_of, bucket):
    """Return whether a request goes to the canary, as the router decides: the first match wins."""
    split = next(s for s in groups if s.match is None or s.segment in member_of)
    return any(start <= bucket < end for start, end in split.canary)


def shape(groups):
    return [(s.segment, s.canary) for s in groups]


def test_before_the_first_step_nobody_has_the_canary(make):
    assert shape(splits(policy(make, ("a", 1_000_000)), -1)) == [("everyone", ())]


@pytest.mark.parametrize(
    ("rules", "hold_back", "expected"),
    [
        ([("a", 500_000)], 0, [("a", ((0, 5000),)), ("everyone", ())]),
        ([("a", 500_000), ("everyone", 100_000)], 0, [("a", ((0, 5000),)), ("everyone", ((0, 1000),))]),
        ([("a", 50_000), ("everyone", 100_000)], 0, [("a", ((0, 1000),)), ("everyone", ((0, 1000),))]),
        (
            [("a", 100_000), ("b", 500_000)],
            0,
            [("b", ((0, 5000),)), ("a", ((0, 1000),)), ("everyone", ())],
        ),
        ([("a", 100_000), ("a", 300_000)], 0, [("a", ((0, 3000),)), ("everyone", ())]),
        ([("everyone", 990_000)], 20_000, [("everyone", ((0, 9800),))]),
        ([("everyone", 1_000_000)], 20_000, [("everyone", ((0, 9800),))]),
        ([("a", 1_000_000)], 20_000, [("a", ((0, BUCKETS),)), ("everyone", ())]),
        ([("a", 990_000)], 20_000, [("a", ((0, 9800),)), ("everyone", ())]),
        ([("cohort", 500_000)], 0, [("everyone", ((2000, 3000),))]),
        ([("cohort", 1_000_000)], 700_000, [("everyone", ((2000, 3000),))]),
        ([("cohort", 1_000_000), ("everyone", 100_000)], 0, [("everyone", ((0, 1000), (2000, 4000)))]),
        ([("cohort", 1_000_000), ("everyone", 200_000)], 0, [("everyone", ((0, 4000),))]),
        (
            [("cohort", 500_000), ("a", 250_000)],
            0,
            [("a", ((0, 3000),)), ("everyone", ((2000, 3000),))],
        ),
        ([("everyone", 100)], 0, [("everyone", ((0, 1),))]),
    ],
)
def test_the_largest_share_wins_and_the_hold_back_is_reserved(make, rules, hold_back, expected):
    rules = policy(make, *rules, hold_back=hold_back)

    assert shape(splits(rules, len(rules.steps))) == expected


growing = st.lists(
    st.tuples(
        st.sampled_from(["everyone", "cohort", *SEGMENTS]), st.integers(1, 10_000).map(lambda n: n * 100)
    ),
    min_size=1,
    max_size=8,
).map(
    lambda rules: [
        (name, max(s for n, s in rules[: i + 1] if n == name)) for i, (name, _) in enumerate(rules)
    ]
)


@given(
    growing,
    st.integers(0, 5000).map(lambda n: n * 100),
    st.sets(st.sampled_from("abc")),
    st.lists(st.integers(0, BUCKETS - 1), min_size=1, max_size=30),
)
def test_nobody_who_has_the_canary_loses_it_while_shares_grow(make, rules, hold_back, member_of, buckets):
    rules = policy(make, *rules, hold_back=hold_back)
    edges = {
        edge for i in range(len(rules.steps)) for s in splits(rules, i) for span in s.canary for edge in span
    }
    for bucket in {*buckets, *(edge % BUCKETS for edge in edges), *((edge - 1) % BUCKETS for edge in edges)}:
        had = [canary(splits(rules, i), member_of, bucket) for i in range(-1, len(rules.steps) + 1)]

        assert had == sorted(had)


@given(growing, st.integers(0, 5000).map(lambda n: n * 100), st.sets(st.sampled_from("abc")))
def test_everyone_100_lifts_everybody_but_the_hold_back(make, rules, hold_back, member_of):
    rules = policy(make, *rules, ("everyone", 1_000_000), hold_back=hold_back)
    groups = splits(rules, len(rules.steps))
    whole = {s.segment for s in rules.steps if s.share == 1_000_000 and s.match not in (None, COHORT)}
    limit = BUCKETS - hold_back // 100

    for bucket in {0, limit - 1, limit, BUCKETS - 1} - {-1, BUCKETS}:
        exempt = bool(whole & member_of)
        assert canary(groups, member_of, bucket) is (bucket < limit or exempt)


@given(growing, st.integers(0, 5000).map(lambda n: n * 100))
def test_splits_are_what_the_compiler_needs(make, rules, hold_back):
    """Disjoint sorted spans in range, largest group first, everyone last and once."""
    rules = policy(make, *rules, hold_back=hold_back)
    for i in range(-1, len(rules.steps) + 1):
        groups = splits(rules, i)
        assert [s.match is None for s in groups] == [False] * (len(groups) - 1) + [True]
        assert [s.buckets for s in groups[:-1]] == sorted((s.buckets for s in groups[:-1]), reverse=True)
        for split in groups:
            flat = [edge for span in split.canary for edge in span]
            assert flat == sorted(set(flat))
            assert all(0 <= edge <= BUCKETS for edge in flat)


# --- one service ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", Phase)
def test_a_service_follows_the_phase_of_its_release(make, phase):
    release = make.state(phase, step=3 if phase in (Phase.GUARDING, Phase.PROMOTED) else 1)

    got = traffic(SERVICE, "v1", release, "baseline")

    if phase in (Phase.PROGRESSING, Phase.GUARDING):
        assert (got.canary, got.release, got.salt) == ("v2", "r", "r.1")
        assert got.splits == splits(release.policy, release.step)
    elif phase in RETURNING:
        assert (got.canary, got.release) == ("v2", "r")
        assert shape(got.splits) == [("everyone", ())]
    else:
        assert (got.canary, got.release, got.salt) == (None, None, "shop")
        assert shape(got.splits) == [("everyone", ())]
    assert {got.stable, got.canary, *got.warm} - {None} == {"v1", "v2", "v3"}


def test_a_guard_keeps_the_shares_of_the_last_step(make):
    last, guard = make.state(step=2), make.state(Phase.GUARDING)

    assert traffic(SERVICE, "v1", last, "random") == replace(traffic(SERVICE, "v1", guard, "random"))


def test_addresses_are_those_of_the_documents():
    assert endpoints(SERVICE).places == {
        "v1": ("10.0.0.1:80",),
        "v2": ("10.0.0.2:80", "10.0.0.3:80"),
        "v3": ("v3.svc:80",),
    }


def test_what_is_behind_a_name_is_counted_where_it_is_known():
    resolved = {"v3.svc:80": Resolved(("10.0.0.4:80", "10.0.0.5:80", "10.0.0.6:80"))}
    known = (endpoints(SERVICE), endpoints(SERVICE, resolved), endpoints(SERVICE, {}))

    assert [where.count("v2") for where in known] == [2, 2, 2]
    assert [where.count("v3") for where in known] == [None, 3, 0]


def test_a_step_mirrors_only_while_it_lasts(make):
    steps = [make.step(f"s{i}", share) for i, share in enumerate((10_000, 100_000, 1_000_000))]
    steps[1] = steps[1].model_copy(update={"mirror": PinnedMirror(match=SEGMENTS["a"], share=50_000)})
    state = make.state(policy=make.policy(steps=tuple(steps)))

    found = [
        traffic(SERVICE, "v1", state.model_copy(update={"step": step, "phase": phase}), "random").copies
        for step, phase in ((0, Phase.PROGRESSING), (1, Phase.PROGRESSING), (2, Phase.PROGRESSING),
                            (3, Phase.GUARDING), (1, Phase.ROLLING_BACK))
    ]  # fmt: skip

    assert found == [None, Copies(SEGMENTS["a"], 50_000), None, None, None]
