import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.policy.documents import Match
from controlplane.policy.segments import Request, alternatives, cohorts, headers, matches


def match(**plain):
    return Match.model_validate(plain)


def header(**condition):
    return match(header={"name": "x-a", **condition})


def sent(*values):
    return Request(headers=tuple(("x-a", value) for value in values))


@pytest.mark.parametrize(
    ("condition", "inside", "outside"),
    [
        ({"equals": "eu"}, ["eu"], ["EU", "eu-1", " eu", ""]),
        ({"prefix": "eu-"}, ["eu-", "eu-1"], ["eu", "a-eu-"]),
        ({"suffix": "-1"}, ["-1", "eu-1"], ["-1-", "1"]),
        ({"contains": "u-"}, ["u-", "eu-1"], ["u", "U-"]),
        ({"regex": "eu-[0-9]+"}, ["eu-1", "eu-22"], ["eu-", "xeu-1", "eu-1x", "eu-1\n"]),
        ({"regex": r"\d"}, ["1"], ["١"]),
        ({"present": True}, ["", "x"], []),
        ({"present": False}, [], ["", "x"]),
        (
            {"range": {"from": -1, "to": 3}},
            ["-1", "0", "2", "+1", "-0", "0" * 30 + "2"],
            ["-2", "9" * 30, "3", "", "x", "1.0", " 1", "0x1"],
        ),
    ],
)
def test_a_condition_on_one_value(condition, inside, outside):
    assert all(matches(header(**condition), sent(value)) for value in inside)
    assert not any(matches(header(**condition), sent(value)) for value in outside)


def test_a_header_that_is_not_sent_is_outside_of_every_condition_and_inside_of_its_opposite():
    for condition in (
        {"equals": "a"},
        {"prefix": "a"},
        {"regex": ".*"},
        {"present": True},
        {"range": {"from": 0, "to": 1}},
    ):
        assert not matches(header(**condition), Request())
        assert matches(match(**{"not": header(**condition)}), Request())
    assert matches(header(present=False), Request())


def test_of_repeated_lines_any_may_match():
    assert matches(header(equals="b"), sent("a", "b"))
    assert not matches(header(equals="a,b"), sent("a", "b"))
    assert not matches(match(**{"not": header(equals="b")}), sent("a", "b"))


@pytest.mark.parametrize(
    ("lines", "inside"),
    [
        (["beta=1"], True),
        (["a=0; beta=1; c=2"], True),
        (["a=0;beta=1"], True),
        (["a=0", "beta=1"], True),
        (["beta=0; beta=1"], True),
        (["xbeta=1"], False),
        (["beta=11"], False),
        (["beta"], False),
        (["a=beta=1"], False),
        ([], False),
    ],
)
def test_cookies_are_found_in_all_cookie_lines(lines, inside):
    request = Request(headers=tuple(("cookie", line) for line in lines))

    assert matches(match(cookie={"name": "beta", "equals": "1"}), request) is inside


def test_a_cohort_is_a_range_of_buckets():
    cohort = match(cohort={"from": "1%", "to": "2.5%"})

    assert [b for b in (None, 0, 99, 100, 249, 250) if matches(cohort, Request(bucket=b))] == [100, 249]


def test_everyone_matches_without_a_condition():
    assert matches(None, Request())


a, b, c = header(equals="a"), header(equals="b"), header(equals="c")
trees = st.recursive(
    st.sampled_from([a, b, c]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: match(all=parts)),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: match(any=parts)),
        inner.map(lambda part: match(**{"not": part})),
    ),
    max_leaves=8,
)


@given(trees, trees, st.lists(st.sampled_from("abc"), max_size=3))
def test_trees_follow_logic(left, right, values):
    request = sent(*values)
    both, either = matches(left, request), matches(right, request)

    assert matches(match(all=[left, right]), request) == (both and either)
    assert matches(match(any=[left, right]), request) == (both or either)
    assert matches(match(**{"not": left}), request) is not both
    assert matches(match(**{"not": {"all": [left, right]}}), request) == matches(
        match(any=[{"not": left}, {"not": right}]), request
    )


def test_alternatives_count_the_conjunctions():
    either = match(any=[a, b, c])

    assert alternatives(a) == alternatives(match(all=[a, b])) == 1
    assert alternatives(either) == 3
    assert alternatives(match(all=[either, either])) == 9
    assert alternatives(match(**{"not": match(all=[a, b])})) == 2
    assert alternatives(match(**{"not": either})) == 1
    assert alternatives(match(**{"not": match(**{"not": either})})) == 3
    assert alternatives(match(**{"not": header(regex=".*")})) == 2


def test_what_a_tree_holds_is_found_at_any_depth():
    tree = match(
        all=[a, {"not": {"any": [{"cohort": {"to": "5%"}}, {"header": {"name": "x-b", "present": True}}]}}]
    )

    assert cohorts(tree)
    assert not cohorts(a)
    assert sorted(headers(tree)) == ["x-a", "x-b"]
