# ruff: noqa: E501  (messages and data stay on one line)
import pytest

from controlplane.policy.catalog import Catalog
from controlplane.policy.loading import load
from controlplane.policy.problems import Problem

FLEET = "kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners: [{name: http, address: '0.0.0.0:80'}]\n"
SEGMENT = "kind: Segment\nname: staff\nmatch: {cookie: {name: staff, present: true}}\n"
POLICY = """\
kind: Policy
name: careful
steps:
  - {name: staff, segment: staff, share: 100%}
  - {name: all, everyone: 100%}
conditions: []
guard: {hold_back: 2%}
"""
RELEASE = "kind: Release\nname: r1\nservice: shop\nfrom: v1\nto: v2\npolicy: careful\nstart: manual\n"
TEXTS = {"fleet": FLEET, "segment": SEGMENT, "policy": POLICY, "release": RELEASE}


def service(
    name="shop",
    host="shop.example.com",
    versions=("v1", "v2"),
    rest="user: {otherwise: baseline, from: [{cookie: u}]}",
):
    endpoints = "".join(f"  {version}: {{dns: 'a.svc:80'}}\n" for version in versions)
    return (
        f"kind: Service\nname: {name}\nfleets: [edge]\nroutes:\n  - {{host: {host}}}\n"
        f"initial: v1\nversions:\n{endpoints}{rest}\n"
    )


def files(**texts):
    """Return the folder, with some files replaced, added or (None) removed."""
    every = TEXTS | {"shop": service()} | texts
    return {
        f"{name}.yaml": text.encode() if isinstance(text, str) else text
        for name, text in every.items()
        if text is not None
    }


def told(loaded):
    return [str(problem) for problem in loaded.problems]


def edit(text, before, after):
    assert before in text
    return text.replace(before, after)


@pytest.fixture
def good():
    loaded = load(files())
    assert not loaded.problems
    return loaded.catalog


def test_a_right_folder_is_taken_whole(good):
    assert list(good.entries) == [
        ("Fleet", "edge"), ("Policy", "careful"), ("Release", "r1"), ("Segment", "staff"), ("Service", "shop"),
    ]  # fmt: skip
    assert good.entries["Release", "r1"].place == "release.yaml:1:1"


def test_one_file_holds_several_documents(good):
    one = load({"all.yaml": "---\n".join([*TEXTS.values(), service()]).encode()})

    assert not one.problems
    assert one.catalog.digests() == good.digests()


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (
            {"policy": edit(POLICY, "segment: staff", "segment: stuff")},
            "policy.yaml:4:28: steps[0].segment: no Segment is named 'stuff'; known: staff; did you mean 'staff'?",
        ),
        ({"segment": None}, "policy.yaml:4:28: steps[0].segment: no Segment is named 'staff'; there is no Segment at all"),
        ({"fleet": None}, "shop.yaml:3:10: fleets[0]: no Fleet is named 'edge'; there is no Fleet at all"),
        (
            {"release": edit(RELEASE, "shop", "shopp")},
            "release.yaml:3:10: service: no Service is named 'shopp'; known: shop; did you mean 'shop'?",
        ),
        (
            {"release": edit(RELEASE, "to: v2", "to: v3")},
            "release.yaml:5:5: to: 'v3' is not a version of 'shop'; known: v1, v2",
        ),
        (
            {"release": edit(RELEASE, "from: v1", "from: v0")},
            "release.yaml:4:7: from: 'v0' is not a version of 'shop'; known: v1, v2",
        ),
        (
            {"second": service()},
            "second.yaml:2:7: name: Service 'shop' stands twice; also at shop.yaml:2:7",
        ),
        (
            {"second": service("pay")},
            "second.yaml:5:5: routes[0]: shop.example.com/ on fleet 'edge' is claimed by Service 'shop' too, at shop.yaml:1:1",
        ),
        (
            {"second": edit(FLEET, "name: edge", "name: rim")},
            "second.yaml:3:8: nodes: Fleet 'edge' has such nodes too, at fleet.yaml:1:1; a node belongs to one fleet",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told(changed, found):
    assert found in told(load(files(**changed)))


def test_of_two_claims_both_are_refused_and_both_named():
    loaded = load(files(pay=service("pay"), release=None))

    assert loaded.refused == (("Service", "pay"), ("Service", "shop"))
    assert told(loaded) == [
        "pay.yaml:5:5: routes[0]: shop.example.com/ on fleet 'edge' is claimed by Service 'shop' too, at shop.yaml:1:1",
        "shop.yaml:5:5: routes[0]: shop.example.com/ on fleet 'edge' is claimed by Service 'pay' too, at pay.yaml:1:1",
    ]  # fmt: skip


def test_a_service_that_is_renamed_while_a_release_names_it_is_told_what_has_its_routes(good):
    loaded = load(files(shop=service("basket")), good)

    has = "Service 'shop' too, which no file has any more and which stays while other documents name it"
    assert f"shop.yaml:5:5: routes[0]: shop.example.com/ on fleet 'edge' is claimed by {has}" in told(loaded)


def test_a_new_claim_never_takes_a_host_from_the_service_in_force(good):
    loaded = load(files(pay=service("pay")), good)

    assert loaded.refused == (("Service", "pay"), ("Service", "shop"))
    assert loaded.catalog == good


def test_hosts_may_be_swapped_in_one_edit():
    before = load(files(pay=service("pay", "pay.example.com"))).catalog

    loaded = load(files(shop=service(host="pay.example.com"), pay=service("pay")), before)

    assert not loaded.problems
    assert loaded.catalog.service("pay").routes[0].host == "shop.example.com"


def test_of_two_documents_of_one_name_neither_counts_and_the_last_good_stays(good):
    loaded = load(files(second=service(host="other.example.com")), good)

    assert loaded.refused == (("Service", "shop"),)
    assert loaded.catalog == good
    assert len(loaded.errors) == 2


@pytest.mark.parametrize("broken", ["kind: [", "", b"\xff", edit(POLICY, "100%}\n  -", "101%}\n  -"), edit(POLICY, "name: careful\n", ""),
                                    edit(POLICY, "kind: Policy", "kind: Polcy"), Problem("policy.yaml", 1, 1, "", "cannot be read")])  # fmt: skip
def test_a_document_that_cannot_be_read_stays_as_it_was_last_accepted(good, broken):
    loaded = load(files(policy=broken), good)

    assert loaded.errors
    assert loaded.catalog == good


def test_a_mistake_blocks_only_what_refers_to_it():
    loaded = load(files(segment=edit(SEGMENT, "present: true", "present: 5")))

    assert loaded.refused == (("Policy", "careful"), ("Release", "r1"), ("Segment", "staff"))
    assert list(loaded.catalog.entries) == [("Fleet", "edge"), ("Service", "shop")]
    assert "policy.yaml:4:28: steps[0].segment: Segment 'staff' is refused" in told(loaded)


def test_other_documents_are_taken_beside_a_refused_one(good):
    loaded = load(files(policy="kind: [", shop=service(versions=("v1", "v2", "v3"))), good)

    assert set(loaded.catalog.service("shop").versions) == {"v1", "v2", "v3"}
    assert loaded.catalog.policy("careful") == good.policy("careful")


def test_a_new_order_does_not_start_under_the_old_version_of_a_refused_policy(good):
    order = edit(RELEASE, "name: r1", "name: r2")

    loaded = load(files(policy=edit(POLICY, "hold_back: 2%", "hold_back: 200%"), order=order), good)

    assert loaded.refused == (("Policy", "careful"), ("Release", "r2"))
    assert loaded.catalog == good


def test_a_document_that_is_gone_is_removed(good):
    loaded = load(files(release=None), good)

    assert not loaded.problems
    assert loaded.catalog.get("Release", "r1") is None


def test_a_document_that_something_in_force_names_is_not_removed(good):
    loaded = load(files(fleet=None, policy=None), good)

    assert loaded.catalog == good
    assert loaded.refused == (("Release", "r1"), ("Service", "shop"))


def test_a_document_may_move_to_another_file_while_its_old_one_cannot_be_read(good):
    loaded = load(files(policy="kind: [", moved=edit(POLICY, "2%", "3%")), good)

    assert loaded.catalog.policy("careful").guard.hold_back == 30_000


def test_a_part_of_the_folder_may_be_handed_in(good):
    loaded = load({"-": edit(POLICY, "2%", "3%").encode()}, good, keep_absent=True)

    assert not loaded.problems
    assert set(loaded.catalog.entries) == set(good.entries)
    assert loaded.catalog.policy("careful").guard.hold_back == 30_000


def test_an_empty_folder_removes_everything(good):
    assert load({}, good).catalog == Catalog()


@pytest.mark.parametrize(
    ("user", "kind", "anonymous", "warning"),
    [
        ("", "edge", "generate", None),
        ("user: {otherwise: random}", "local", "random", None),
        ("", "local", "random", "shop.yaml:1:1: warning: user.otherwise: requests without identity get a version at random, each anew; `baseline` spares them"),
        ("user: {otherwise: baseline}", "edge", "baseline", "shop.yaml:10:7: warning: user.from: is empty and `otherwise: baseline` keeps everyone there; shares of everyone move nobody"),
    ],
)  # fmt: skip
def test_requests_without_identity_go_by_the_kind_of_listener(user, kind, anonymous, warning):
    fleet = edit(FLEET, "'0.0.0.0:80'", f"'0.0.0.0:80', kind: {kind}")

    loaded = load(files(fleet=fleet, shop=service(rest=user)))

    assert loaded.catalog.anonymous(loaded.catalog.service("shop")) == anonymous
    assert told(loaded) == ([warning] if warning else [])


def test_a_header_that_anyone_may_send_is_warned_about_on_edge_fleets_only():
    header = edit(SEGMENT, "cookie: {name: staff", "header: {name: x-staff")
    text = "anyone may send x-staff to edge fleet 'edge', and choose the version by it"

    assert told(load(files(segment=header))) == [f"segment.yaml:3:8: warning: match: {text}"]
    assert not load(
        files(segment=header, fleet=edit(FLEET, "'0.0.0.0:80'", "'0.0.0.0:80', kind: local"))
    ).problems


@pytest.mark.parametrize(
    ("match", "warned"),
    [
        ("all: [{header: {name: x-staff, equals: y}}, {source: 10.0.0.0/8}]", False),
        ("all: [{source: 10.0.0.0/8}, {not: {header: {name: x-staff, equals: y}}}]", False),
        ("all: [{method: GET}, {header: {name: x-staff, equals: y}}]", True),
        ("all: [{not: {source: 10.0.0.0/8}}, {header: {name: x-staff, equals: y}}]", True),
        ("any: [{header: {name: x-staff, equals: y}}, {source: 10.0.0.0/8}]", True),
    ],
)
def test_a_header_that_counts_only_in_a_network_of_yours_is_not_anyones(match, warned):
    segment = f"kind: Segment\nname: staff\nmatch: {{{match}}}\n"

    assert bool(load(files(segment=segment)).problems) is warned


@pytest.mark.parametrize("part", range(1, 8))
def test_every_reference_in_force_leads_somewhere_whatever_is_gone(good, part):
    some = {
        name: data for index, (name, data) in enumerate(sorted(files().items())) if index % part or part == 7
    }

    catalog = load(some, good).catalog

    assert load(some | {}, catalog).catalog == catalog
    for service in catalog.services():
        assert [catalog.fleet(name) for name in service.fleets]
    for release in catalog.releases():
        assert catalog.policy(release.policy)
        assert catalog.service(release.service)


def test_a_mistake_in_a_name_removes_nothing(good):
    loaded = load(files(release=edit(RELEASE, "name: r1", "name: R1")), good)

    assert loaded.catalog == good
    assert loaded.refused == (("Release", "R1"),)


def test_a_new_order_under_a_policy_that_cannot_be_read_is_refused(good):
    loaded = load(files(policy="kind: [", order=edit(RELEASE, "name: r1", "name: r2")), good)

    assert "order.yaml:6:9: policy: Policy 'careful' cannot be read; policy.yaml has a mistake" in told(
        loaded
    )
    assert loaded.catalog == good
