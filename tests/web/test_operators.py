"""The file of operators: what it may say, how it is followed, and how it grows."""

from __future__ import annotations

import pytest

from controlplane.web.operators import Operators, OperatorsError, enrol, new_token, parse

TOKEN, DIGEST = new_token()


def line(name="ada", role="releaser", token=DIGEST, more=""):
    return f'  - {{name: {name}, role: {role}, token: "{token}"{more}}}\n'


def test_a_token_is_known_by_its_hash_alone(tmp_path):
    path = tmp_path / "operators.yaml"
    path.write_text("operators:\n" + line(more=", services: [shop]"))

    known = Operators(path)

    assert known.of(TOKEN).name == "ada"
    assert known.of(TOKEN).services == ("shop",)
    assert known.of(DIGEST) is None
    assert known.of("") is None
    assert TOKEN not in path.read_text()


def test_all_mistakes_are_said_with_their_place():
    text = "operators:\n" + line(role="releasr") + line(name="' b'", token="sha256:1") + "  - {nam: c}\n"

    with pytest.raises(OperatorsError) as refused:
        parse("o.yaml", text.encode())

    said = str(refused.value).splitlines()
    assert said[0].startswith("o.yaml:2:23: operators[0].role: 'releasr' is not allowed; allowed: viewer, ")
    assert {one.split(": ")[1] for one in said} == {
        "operators[0].role",
        "operators[1].name",
        "operators[1].token",
        "operators[2].nam",
        "operators[2].name",
        "operators[2].role",
        "operators[2].token",
    }


@pytest.mark.parametrize(
    "text", ["", "[]", "operators: []", "operators: {}", "---\na: 1\n---\nb: 2\n", "a: [", "x"]
)
def test_what_is_no_list_of_operators_is_refused(text):
    with pytest.raises(OperatorsError, match=r"^o\.yaml:\d+:\d+: "):
        parse("o.yaml", text.encode())


def test_nobody_and_no_token_stands_twice():
    with pytest.raises(
        OperatorsError,
        match=r"\[1\]\.name: 'ada' stands twice, first in operators\[0\]\n.*\[1\]\.token: stands twice",
    ):
        parse("o.yaml", ("operators:\n" + line() * 2).encode())


def test_a_changed_file_counts_and_a_broken_one_does_not(tmp_path):
    path = tmp_path / "operators.yaml"
    path.write_text("operators:\n" + line())
    known = Operators(path)
    later, digest = new_token()

    enrol(path, "bob", "viewer", ("shop", "cart"), digest)
    assert known.of(later).services == ("shop", "cart")
    assert known.of(TOKEN).name == "ada"

    path.write_text("operators: what")
    assert known.of(later).name == "bob"
    path.unlink()
    assert known.of(later).name == "bob"

    path.write_text("operators:\n" + line())
    assert known.of(later) is None


def test_a_file_grows_only_by_what_it_may_say(tmp_path):
    path = tmp_path / "operators.yaml"
    enrol(path, "ada", "admin", (), DIGEST)
    before = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600

    for name, services in (("ada", ()), ("bob", ("No Name",)), (" ", ())):
        with pytest.raises(OperatorsError):
            enrol(path, name, "viewer", services, new_token()[1])

    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]
