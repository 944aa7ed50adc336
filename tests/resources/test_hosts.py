from __future__ import annotations

import re

from controlplane.resources.hosts import VALUE_LIMIT, groups, scope_values
from controlplane.resources.names import group_first


def scope(values: tuple[str, ...], host: str) -> str:
    """Evaluate the values as early header mutation does."""
    found = ""
    for value in values:
        expression = value.removeprefix("%CEL(").removesuffix(")%")
        found = (evaluate(expression, host) if expression != value else value) or found
    return found


def evaluate(expression: str, host: str) -> str:
    text = expression.strip()
    if text.startswith("("):
        depth = 0
        for at, char in enumerate(text):
            depth += (char == "(") - (char == ")")
            if depth == 0:
                return evaluate(text[1:at], host)
    condition, sign, rest = text.partition(" ? ")
    if not sign:
        return text.strip("'")
    first, second = halves(rest)
    return evaluate(first if all(holds(part, host) for part in condition.split(" && ")) else second, host)


def halves(text: str) -> tuple[str, str]:
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0 and text[at : at + 3] == " : ":
            return text[:at], text[at + 3 :]
    raise AssertionError(text)


def holds(condition: str, host: str) -> bool:
    if found := re.fullmatch(r"request\.host\.matches\('(.*)'\)", condition):
        return re.search(found[1], host) is not None
    if found := re.fullmatch(r"request\.host\.endsWith\('(.*)'\)", condition):
        return host.endswith(found[1])
    if found := re.fullmatch(r"request\.host\.size\(\) == (\d+)", condition):
        return len(host) == int(found[1])
    operator, word = re.fullmatch(r"request\.host (<=|>=|<|==) '(.*)'", condition).groups()
    return {"<": host < word, "<=": host <= word, ">=": host >= word, "==": host == word}[operator]


def test_exact_hosts_win_over_wildcards_and_longer_ones_over_shorter():
    values = scope_values(
        {"a.x.test": "exact", "*.x.test": "wild", "*.b.x.test": "wilder", "*": "rest", "x.test": "bare"}
    )

    expected = {
        "a.x.test": "exact",
        "A.X.test": "exact",
        "c.x.test": "wild",
        "b.x.test": "wild",
        "c.b.x.test": "wilder",
        "C.B.x.test": "wilder",
        "x.test": "bare",
        "ax.test": "rest",
        "": "rest",
    }
    assert {host: scope(values, host) for host in expected} == expected


def test_an_unknown_host_has_a_scope_of_no_service():
    assert scope(scope_values({"x.test": "a"}), "y.test") == "-"
    assert scope(scope_values({}), "y.test") == "-"


def test_any_number_of_hosts_fits():
    hosts = {f"h{i}.service-{i % 1000}.example.com": f"service-{i % 1000}" for i in range(2000)}

    values = scope_values(hosts)

    assert max(map(len, values)) <= VALUE_LIMIT
    for host in list(hosts)[::97]:
        assert scope(values, host) == scope(values, host.upper()) == hosts[host]


def test_long_and_nested_hosts_are_found():
    long = "-".join(["0123456789"] * 14) + ".test"
    nested = ["a" * length for length in range(1, 64)]
    hosts = {host: f"s{i}" for i, host in enumerate([long, long.replace("9.test", "8.test"), *nested])}

    values = scope_values({**hosts, f"*.{long}": "wild"})

    assert {host: scope(values, host) for host in hosts} == hosts
    assert {host: scope(values, host.upper()) for host in hosts} == hosts
    assert scope(values, f"a.{long}") == "wild"
    assert scope(values, "A" * 64) == "-"


def test_groups_are_connected_by_hosts():
    found = groups({"d": ["4"], "c": ["1", "2"], "b": ["2", "3"], "a": ["3"], "e": ["*"]})

    assert list(found.values()) == [("a", "b", "c"), ("d",), ("e",)]
    assert list(found)[1:] == ["d~4", "e~."]


def test_other_hosts_are_another_group():
    """So that a proxy keeps the routes of the former one until nothing leads to them."""
    names = [name for hosts in ("1", "12", "123", "13", "23", "*1") for name in groups({"a": list(hosts)})]

    assert len(set(names)) == len(names)
    assert names[0] == "a~1"
    assert {group_first(name) for name in names} == {"a"}


def test_a_group_is_named_by_its_first_service_and_host():
    (name,) = groups({"b": ["2", "1"], "a": ["2"]})

    assert name.startswith("a~1~")
    assert group_first(name) == "a"
