import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.policy.yaml_source import MAX_BYTES, MAX_DEPTH, MAX_NODES, read


def values(text):
    sources, problems = read("f.yaml", text if isinstance(text, bytes) else text.encode())
    assert not problems
    return [source.value for source in sources]


def refusal(data):
    sources, problems = read("f.yaml", data)
    assert not sources
    (problem,) = problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("22:30", "22:30"),
        ("017", 17),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("-3", -3),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("2026-11-24", "2026-11-24"),
        ("~", None),
        ("", None),
        ("True", True),
        ('"true"', "true"),
        ("=", "="),
        ("<<", "<<"),
        ("9" * 19, "9" * 19),
        ("9" * 5000, "9" * 5000),
        (".inf", math.inf),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    assert values(f"a: {text}\n") == [{"a": value}]


def test_keys_stay_text():
    assert values("{1: a, true: b, 1.10: c, ~: d}") == [{"1": "a", "true": "b", "1.10": "c", "~": "d"}]


def test_a_file_has_several_documents_and_empty_ones_are_left_out():
    assert values("---\na: 1\n---\n---\n# nothing\n---\n- x\n") == [{"a": 1}, ["x"]]


def test_a_byte_order_mark_is_left_out():
    assert values(b"\xef\xbb\xbfa: 1\n") == [{"a": 1}]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "f.yaml:1:1: empty: no document"),
        (b"# only a comment\n", "f.yaml:1:1: empty: no document"),
        (b"a: \0", "f.yaml:1:4: has the character '\\x00'; files are text"),
        (b"a: x\nb: \x07", "f.yaml:2:4: has the character '\\x07'; files are text"),
        ("a: é".encode("latin-1"), "f.yaml:1:4: not UTF-8: byte 0xe9; files are UTF-8"),
        ("a: 1".encode("utf-16"), "f.yaml:1:1: not UTF-8: byte 0xff; files are UTF-8"),
        (b"%YAML 1.1\n---\na: 1\n", "f.yaml:1:1: directives such as %YAML and %TAG are not allowed"),
        (b"? [a]\n: b\n", "f.yaml:1:3: a key must be a word"),
        (b"? *a\n: b\n", "f.yaml:1:3: a key must be a word"),
        (b"a: b: c\n", "f.yaml:1:5: not YAML: mapping values are not allowed in this context"),
        (b"\ta: 1\n", "f.yaml:1:1: not YAML: found character that cannot start any token"),
        (b"a" * 10_000_000, "f.yaml:1:1: is too large; a file has at most 256 KB"),
        (b" " * (MAX_BYTES + 1024), "f.yaml:1:1: is too large; a file has at most 256 KB"),
        (b"- " * 33, f"f.yaml:1:65: is nested deeper than {MAX_DEPTH} levels"),
        (b"{a: " * 50_000, f"f.yaml:1:129: is nested deeper than {MAX_DEPTH} levels"),
        (b"[" + b"a," * 120_000, f"f.yaml:1:40000: has more than {MAX_NODES} values"),
    ],
)
def test_an_unfit_file_is_refused_with_its_place(data, text):
    assert refusal(data) == text


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "part", [b"[", b"{", b"- ", b"? ", b"a: [", b"!", b"&a ", b"'", b'"', b"|", b"%", b"\n", b"[{"]
)
def test_a_hostile_file_ends_neither_the_process_nor_the_patience(part):
    sources, problems = read("f.yaml", part * (MAX_BYTES // len(part)))

    assert bool(sources) != bool(problems)


def test_fifty_thousand_brackets_are_refused():
    assert refusal(b"[" * 50_000).startswith("f.yaml:1:")


@pytest.mark.parametrize(
    ("text", "finding", "place"),
    [
        ("a: 1\nb: 2\na: 3\n", "stands twice in one mapping; first at 1:1", (3, 1)),
        ("x:\n  - {a: 1, a: 2}\n", "stands twice in one mapping; first at 2:6", (2, 12)),
        ("1: a\n'1': b\n", "stands twice in one mapping; first at 1:1", (2, 1)),
        ("a: &x 1\nb: *x\n", "alias '*x' is not allowed; write it out", (2, 4)),
        ("a: !!python/object/apply:os.system [x]\n",
         "tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed", (1, 4)),
        ("a: !!str 1\n", "tag 'tag:yaml.org,2002:str' is not allowed", (1, 4)),
    ],
)  # fmt: skip
def test_what_changes_the_meaning_unseen_is_found(text, finding, place):
    (source,), _ = read("f.yaml", text.encode())

    (found,) = source.findings

    assert found.text == finding
    assert (found.place or source.where(found.path)) == place


def test_of_two_equal_keys_the_first_counts():
    (source,), _ = read("f.yaml", b"a: {b: 1}\na: {b: 2, c: 3}\n")

    assert source.value == {"a": {"b": 1}}


def test_every_part_knows_its_place():
    (source,), _ = read("f.yaml", "kind: Policy\nsteps:\n  - {name: é, everyone: 5%}\n  - name: b\n".encode())

    assert source.where(()) == (1, 1)
    assert source.where(("steps", 0, "everyone")) == (3, 25)
    assert source.where(("steps", 0, "everyone"), at_key=True) == (3, 15)
    assert source.where(("steps", 1, "name")) == (4, 11)
    assert source.where(("steps", 1, "missing")) == (4, 5)


@given(
    st.binary(max_size=200)
    | st.text(alphabet="ab:-[]{},#&*!|>'\"%@` \n\t?~\x85\u2028\ufeff", max_size=80).map(str.encode)
)
def test_any_bytes_give_documents_or_a_problem(data):
    sources, problems = read("f.yaml", data)

    assert bool(sources) != bool(problems)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)
