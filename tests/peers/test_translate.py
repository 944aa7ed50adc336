"""What holds for all systems."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.peers import translate
from controlplane.policy.loading import load
from tests.peers.conftest import EXAMPLES

FLEET = (
    b"kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners: [{name: http, address: '0.0.0.0:8080'}]\n"
)


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.iterdir()))
def test_imported_documents_are_accepted(example):
    found = translate({example: (EXAMPLES / example).read_text()}, "edge")

    loaded = load({"fleet.yaml": FLEET, "imported.yaml": found.yaml().encode()})

    assert [str(problem) for problem in loaded.errors] == []
    assert {(d["kind"], d["name"]) for d in found.documents} <= set(loaded.catalog.entries)


def test_a_file_that_is_neither_yaml_nor_json_is_named():
    with pytest.raises(ValueError, match=r"^a\.yaml: is neither YAML nor JSON"):
        translate({"a.yaml": "{"}, "edge")


def test_documents_of_no_known_system_are_named():
    found = translate({"d.yaml": "kind: Deployment\nmetadata: {name: x}\n"}, "edge")

    assert found.documents == ()
    assert found.unknown == (
        "d.yaml: 'Deployment' is of no system that can be imported; known: Argo Rollouts, Flagger, Vamp",
    )


@pytest.mark.parametrize(("key", "value"), [("iterations", 1440000000000.0), ("interval", "99999999999999h")])
def test_what_would_take_over_a_year_is_told_and_left_out(key, value):
    bodies = list(yaml.safe_load_all((EXAMPLES / "flagger-ab.yaml").read_text()))
    holder = next(holder for holder, field in _places(bodies) if field == key)
    holder[key] = value

    found = translate({"x.yaml": yaml.safe_dump_all(bodies)}, "edge")

    assert any(note.where.endswith(key) and "year" in note.why for note in found.notes)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=8), t, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(
    example=st.sampled_from(sorted(path.name for path in EXAMPLES.iterdir())),
    index=st.integers(0, 400),
    value=TREES,
)
def test_no_value_anywhere_crashes_the_import(example, index, value):
    bodies = list(yaml.safe_load_all((EXAMPLES / example).read_text()))
    places = list(_places(bodies))
    holder, key = places[index % len(places)]
    holder[key] = value

    found = translate({"x.yaml": yaml.safe_dump_all(bodies)}, "edge")

    assert len(list(yaml.safe_load_all(found.yaml()))) == len(found.documents)


def _places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)
