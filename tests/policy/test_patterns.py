import pytest

from controlplane.policy.patterns import check_inner_pattern, check_pattern


@pytest.mark.parametrize(
    "pattern", [r"eu-.*", r"(?i)abc|x+?", r"[^;]+", r"[0-9a-f-]{36}", r"\\Z", r"\d{1,20}(\.\w)?", "x" * 256]
)
def test_what_re2_runs_is_accepted(pattern):
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(", "is not a regular expression: missing ), unterminated subpattern at position 0"),
        (r"(a)\1", "has a backreference, which RE2, the engine of Envoy, cannot run"),
        ("(?P<n>a)(?P=n)", "has a backreference, which RE2, the engine of Envoy, cannot run"),
        ("(?=x)a", "has a lookahead or lookbehind, which RE2, the engine of Envoy, cannot run"),
        ("x|(b(?<!x)a)*", "has a lookahead or lookbehind, which RE2, the engine of Envoy, cannot run"),
        ("a++", "has a possessive repeat, which RE2, the engine of Envoy, cannot run"),
        ("(?>a)", "has an atomic group, which RE2, the engine of Envoy, cannot run"),
        ("(a)?(?(1)b)", "has a conditional group, which RE2, the engine of Envoy, cannot run"),
        (r"a\Z", r"has '\\Z', which RE2, the engine of Envoy, reads differently"),
        ("(?x)a", "has '(?x', which RE2, the engine of Envoy, reads differently"),
        ("[[:alpha:]]", "has '[[', which RE2, the engine of Envoy, reads differently"),
        ("a{2000}", "repeats more than 1000 times, which RE2, the engine of Envoy, refuses"),
        ("((a{20}){20}){20}", "is too large for Envoy: about 8841 instructions, at most 500; repeat less"),
        ("", "has 0 characters; a regex has 1 to 256"),
        ("x" * 257, "has 257 characters; a regex has 1 to 256"),
    ],
)
def test_what_re2_cannot_run_is_refused_with_the_reason(pattern, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check_pattern(pattern)

    found = str(caught.value)
    assert found == text or ("instructions" in text and "too large for Envoy" in found)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "pattern", ["(" * 128 + ")" * 128, "(?:" * 60 + ")*" * 38, "[" * 255, "\\" * 255, "a{1000}" * 36]
)
def test_hostile_patterns_end(pattern):
    try:
        check_pattern(pattern)
    except ValueError:
        return


@pytest.mark.parametrize("pattern", ["^a.*b$", r"\Aa\b.", "a|b", "(a{2})+$"])
def test_a_cookie_may_be_anchored_at_its_ends(pattern):
    assert check_inner_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["^a|b$", "(^a)", "a$b", "(?:a|(b$))*", "x^"])
def test_an_anchor_inside_would_be_the_header_s(pattern):
    with pytest.raises(ValueError, match="at its very ends only"):
        check_inner_pattern(pattern)
