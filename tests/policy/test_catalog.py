from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.policy.catalog import Catalog, Entry, canonical
from controlplane.policy.documents import KINDS, Policy, Release, Segment, Service
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.pinning import pin

names = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,8}[a-z0-9])?", fullmatch=True).filter(
    lambda n: n not in ("everyone", "anonymous")
)
words = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)
shares = st.integers(1, 10_000).map(lambda n: f"{n / 100:.2f}%")
durations = st.integers(0, 10**9).map(lambda n: timedelta(milliseconds=n))
leaves = st.one_of(
    *(
        st.fixed_dictionaries({kind: st.fixed_dictionaries({"name": st.just("x-a"), condition: words})})
        for kind in ("header", "cookie")
        for condition in ("equals", "prefix", "suffix", "contains")
    ),
    st.fixed_dictionaries({"header": st.just({"name": "x-a", "range": {"from": -3, "to": 9}})}),
    st.fixed_dictionaries({"cookie": st.just({"name": "B", "present": False})}),
)
matches = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)
segments = st.fixed_dictionaries({"kind": st.just("Segment"), "name": names, "match": matches})
steps = st.fixed_dictionaries({"name": names, "for": durations}).flatmap(
    lambda step: st.one_of(
        shares.map(lambda share: step | {"everyone": share}),
        st.tuples(matches, shares).map(lambda pair: step | {"segment": pair[0], "share": pair[1]}),
    )
)
policies = st.fixed_dictionaries(
    {
        "kind": st.just("Policy"),
        "name": names,
        "steps": st.lists(steps, min_size=1, max_size=4),
        "conditions": st.lists(
            st.sampled_from(
                [
                    {"errors": "off"},
                    {"errors": {"margin": "5%"}},
                    {"latency": {"p99": "400ms"}},
                    {"latency": {"p50": "1s"}},
                ]
            ),
            max_size=3,
        ),
        "guard": st.fixed_dictionaries({"for": durations, "hold_back": st.sampled_from(["0%", "2%"])}),
    }
)
services = st.fixed_dictionaries(
    {
        "kind": st.just("Service"),
        "name": names,
        "fleets": st.lists(names, min_size=1, max_size=2),
        "routes": st.just([{"host": "*.a.com", "path": "/x"}]),
        "initial": names,
        "versions": st.dictionaries(
            names,
            st.sampled_from(
                [{"dns": "a.svc:80"}, {"endpoints": ["10.0.0.1:80", {"address": "[::1]:80", "weight": 2}]}]
            ),
            min_size=1,
            max_size=3,
        ),
    }
)


@settings(max_examples=60)
@given(st.lists(st.one_of(segments, policies, services), max_size=5))
def test_a_catalog_survives_the_store(plain):
    catalog = Catalog.of(
        *(Entry(KINDS[p["kind"]].model_validate(p), "a.yaml", i, 3) for i, p in enumerate(plain))
    )

    again = Catalog.from_json(catalog.to_json())

    assert again == catalog
    assert again.to_json() == catalog.to_json()
    assert again.digests() == catalog.digests()


@settings(max_examples=60)
@given(policies)
def test_a_pinned_policy_survives_the_store(plain):
    pinned = pin(Policy.model_validate(plain), Catalog())

    assert PinnedPolicy.model_validate_json(pinned.model_dump_json(by_alias=True)) == pinned


def release(**fields):
    plain = {
        "kind": "Release",
        "name": "r",
        "service": "s",
        "from": "v1",
        "to": "v2",
        "policy": "p",
        "start": "auto",
    }
    return Release.model_validate(plain | fields)


def test_documents_are_found_by_kind_and_name():
    catalog = Catalog.of(release(name="b"), release(name="a"))

    assert [r.name for r in catalog.releases()] == ["a", "b"]
    assert catalog.release("a") == catalog.get("Release", "a")
    assert catalog.get("Policy", "a") is None
    with pytest.raises(KeyError):
        catalog.policy("a")


def test_a_catalog_cannot_be_changed():
    with pytest.raises(TypeError):
        Catalog.of(release()).entries["Release", "x"] = Entry(release())


def test_the_digest_is_of_the_content_alone():
    a, b = Catalog.of(Entry(release(), "a.yaml", 1, 1)), Catalog.of(Entry(release(), "b.yaml", 9, 1))

    assert a != b
    assert a.digests() == b.digests() != Catalog.of(release(attempt=2)).digests()


def test_canonical_json_is_sorted_and_without_unset_fields():
    assert canonical(
        Segment.model_validate({"name": "s", "kind": "Segment", "match": {"cohort": {"to": "2.5%"}}})
    ) == ('{"kind":"Segment","match":{"cohort":{"from":"0%","to":"2.5%"}},"name":"s"}')


def test_services_are_equal_whatever_the_order_of_their_versions():
    plain = {"kind": "Service", "name": "s", "fleets": ["f"], "routes": [{"host": "a.com"}], "initial": "v1"}
    one, two = ({"v1": {"dns": "a:1"}, "v2": {"dns": "b:1"}}, {"v2": {"dns": "b:1"}, "v1": {"dns": "a:1"}})
    a, b = (Service.model_validate(plain | {"versions": versions}) for versions in (one, two))

    assert a == b
    assert hash(a) == hash(b)
    assert canonical(a) == canonical(b)


def test_what_was_compared_is_not_written_out_again_to_be_stored(monkeypatch):
    written = []
    monkeypatch.setattr("controlplane.policy.catalog.canonical", lambda d: written.append(d) or canonical(d))
    segment = Segment.model_validate(
        {"kind": "Segment", "name": "s", "match": {"cookie": {"name": "c", "present": True}}}
    )
    compared = Catalog.of(segment)
    compared.digests()

    text = compared.to_json()

    assert written == [segment]
    assert text == Catalog.of(segment).to_json()
    assert Catalog.from_json(text) == compared
