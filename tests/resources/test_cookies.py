from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.policy.documents import Range
from controlplane.resources.cookies import identity
from controlplane.resources.regexes import confine, integers


@given(
    st.integers(-2000, 2000), st.integers(1, 3000), st.integers(-4000, 4000), st.sampled_from(["", "0", "00"])
)
def test_numbers_are_those_of_the_range(start: int, size: int, number: int, zeros: str):
    pattern = integers(Range.model_validate({"from": start, "to": start + size}))
    text = ("-" if number < 0 else "") + zeros + str(abs(number))

    assert bool(re.fullmatch(pattern, text)) is (start <= number < start + size)


def test_numbers_have_signs_but_no_words():
    pattern = integers(Range.model_validate({"from": -1, "to": 10}))

    found = [
        text for text in ("+5", "-0", "-1", "-2", "10", "", "5 ", "x", "1.0") if re.fullmatch(pattern, text)
    ]

    assert found == ["+5", "-0", "-1"]


@pytest.mark.parametrize(
    ("regex", "confined"),
    [
        (".*", "(?:[^;]){0,}"),
        ("^a.$", "a[^;]"),
        ("[^a]+", "(?:[^;a]){1,}"),
        ("[a;]", "[a]"),
        ("[;]", r"[^\x00-\xFF]"),
        (r"[\W]", r"[\x00-\x2F\x3A\x3C-\x40\x5B-\x5E\x60\x7B-\x7F\x80-\xFF]"),
        ("(?i)b|c", "(?i:[b-c])"),
        ("(a)(?:b|cd)?", "(?:a)(?:(?:b|cd)){0,1}"),
    ],
)
def test_a_regex_is_confined_to_its_cookie(regex: str, confined: str):
    assert confine(regex, ";") == confined


def test_a_class_beyond_ascii_is_refused():
    with pytest.raises(ValueError, match="beyond ASCII in a class"):
        confine("[a-é]", ";")


def test_an_anchor_in_the_middle_is_refused():
    with pytest.raises(ValueError, match="at its very ends only"):
        confine("a|^b", ";")


def test_an_identity_is_the_last_value_that_is_not_empty():
    pattern = identity("uid")
    headers = {
        "uid=a": "a",
        "x=1; uid=a; y=2": "a",
        "xuid=b; uid=a": "a",
        "uid=a; uid=b": "b",
        "uid=a;uid=": "a",
        "uid=a=b ;c=d": "a=b",
        "uid=": None,
        "xuid=a": None,
        "a=b": None,
    }

    assert {h: (m := re.match(pattern, h)) and m[1] for h in headers} == {h: headers[h] for h in headers}
