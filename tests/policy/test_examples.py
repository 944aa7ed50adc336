"""The example policies, and what an editor or a half-written copy makes of them."""

import json
from pathlib import Path

import pytest

from controlplane.policy.documents import KINDS
from controlplane.policy.loading import load
from controlplane.policy.pinning import pin
from controlplane.policy.schema import schema
from controlplane.policy.yaml_source import read

FOLDER = Path(__file__).parents[2] / "policies"
FILES = {
    path.relative_to(FOLDER.parent).as_posix(): path.read_bytes() for path in sorted(FOLDER.rglob("*.yaml"))
}
GOOD = load(FILES).catalog


def test_the_folder_is_accepted_in_whole_without_a_warning():
    loaded = load(FILES)

    assert not loaded.problems
    assert {kind for kind, _ in loaded.catalog.entries} == set(KINDS)
    assert [step.segment for step in pin(GOOD.policy("careful"), GOOD).steps][:3] == [
        "staff",
        "beta-eu",
        "everyone",
    ]


RELEASES = [
    file
    for file, data in FILES.items()
    if any(source.value["kind"] == "Release" for source in read(file, data)[0])
]


@pytest.mark.parametrize("file", RELEASES)
def test_a_half_written_order_is_no_order(file):
    data = FILES[file].rstrip()
    for start in range(len(data)):
        assert not load(FILES | {file: data[:start]}).catalog.releases()


@pytest.mark.parametrize("file", FILES)
def test_a_half_written_file_removes_nothing_that_it_does_not_replace(file):
    """A prefix never takes a document away; that it may shorten one is what waiting for rest is for."""
    data, place = FILES[file], [key for key, entry in GOOD.entries.items() if entry.file == file][:1]
    for end in range(0, len(data), 7):
        assert place[0] in load(FILES | {file: data[:end]}, GOOD).catalog.entries


def conforms(value, node, defs):
    """Return whether a value fits the parts of JSON Schema that the generated one uses for shape."""
    if "$ref" in node:
        return conforms(value, defs[node["$ref"].rpartition("/")[2]], defs)
    for choice in ("anyOf", "oneOf"):
        if choice in node:
            return any(conforms(value, option, defs) for option in node[choice])
    if "const" in node and value != node["const"]:
        return False
    if isinstance(value, dict):
        known = node.get("properties", {})
        extra = next(iter(node.get("patternProperties", {}).values()), None)
        return (
            node.get("type") == "object"
            and set(node.get("required", ())) <= set(value)
            and node.get("minProperties", 0) <= len(value) <= node.get("maxProperties", 99)
            and all(k in known or extra for k in value)
            and all(conforms(v, known.get(k, extra), defs) for k, v in value.items())
        )
    if isinstance(value, list):
        return node.get("type") == "array" and all(conforms(v, node["items"], defs) for v in value)
    return node.get("type") == {bool: "boolean", int: "integer", str: "string"}[type(value)]


def test_the_schema_accepts_the_examples_and_refuses_unknown_fields():
    whole = schema()
    for file, data in FILES.items():
        for source in read(file, data)[0]:
            assert conforms(source.value, whole, whole["$defs"])
            assert not conforms(source.value | {"unknown": 1}, whole, whole["$defs"])


def test_the_schema_speaks_the_operators_language():
    whole = schema()
    text = json.dumps(whole)

    assert {option["$ref"].rpartition("/")[2] for option in whole["anyOf"]} == set(KINDS)
    assert '"null"' not in text
    assert whole["$defs"]["Guard"]["properties"]["for"]["default"] == "30m"
    assert whole["$defs"]["AgainstBaseline"]["properties"]["margin"]["default"] == "25%"
    assert "for_" not in text
    assert all(part.get("description") for part in whole["$defs"].values())
