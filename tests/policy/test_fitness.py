"""Fleets of gRPC clients: what is refused for them, and what is warned about."""

from __future__ import annotations

import pytest

from controlplane.policy.capabilities import Feature, refusal
from controlplane.policy.loading import load

FLEET = "kind: Fleet\nname: mesh\nnodes: {cluster: mesh}\nlisteners: [{name: calls, kind: grpc}]\n"
EDGE = "kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners: [{name: http, address: '0.0.0.0:80'}]\n"
SERVICE = """\
kind: Service
name: shop
fleets: [mesh]
routes: [{host: shop}]
initial: v1
versions:
  v1: {endpoints: ["10.0.0.1:80"]}
  v2: {endpoints: ["10.0.0.2:80"]}
"""
SEGMENT = "kind: Segment\nname: beta\nmatch: {header: {name: x-beta, present: true}}\n"
POLICY = """\
kind: Policy
name: careful
steps:
  - {name: beta, segment: beta, share: 100%}
  - {name: all, everyone: 100%}
conditions: [{success_rate: {at_least: 99%}}]
guard: {hold_back: 2%}
"""
RELEASE = "kind: Release\nname: r1\nservice: shop\nfrom: v1\nto: v2\npolicy: careful\nstart: manual\n"
CODED = "grpc_status: {codes: [NOT_FOUND, ABORTED], at_most: 1%}"
BY_CALL = (
    "shop.yaml:3:10: warning: fleets[0]: users of grpc fleet 'mesh' do not keep their version: a version is"
    " drawn for each call"
)


def loaded(last=None, **changed):
    texts = {
        "fleet": FLEET,
        "shop": SERVICE,
        "segment": SEGMENT,
        "policy": POLICY,
        "release": RELEASE,
    } | changed
    return load({f"{name}.yaml": text.encode() for name, text in texts.items()}, last)


def test_a_service_is_taken_and_told_that_shares_go_by_call():
    found = loaded()

    assert [str(problem) for problem in found.problems] == [BY_CALL]
    assert found.catalog.fleet("mesh").grpc
    assert found.catalog.anonymous(found.catalog.service("shop")) == "random"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            SERVICE + "user: {otherwise: baseline}\n",
            (
                "9:19: user.otherwise: not on grpc fleet 'mesh': calls have no user, so all of them would"
                " stay there"
            ),
        ),
    ],
)
def test_a_service_that_clients_cannot_be_given_is_refused(text, problem):
    found = loaded(shop=text)

    assert f"shop.yaml:{problem}" in [str(error) for error in found.errors]
    assert ("Service", "shop") in found.refused


def test_weights_of_endpoints_are_warned_about():
    found = loaded(shop=SERVICE.replace('"10.0.0.2:80"', '{address: "10.0.0.2:80", weight: 3}'))

    assert not found.errors
    assert "weights have no effect on grpc fleet 'mesh'" in str(found.problems[1])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"segment": SEGMENT.replace("header: {name: x-beta", "cookie: {name: beta")},
            "step 'beta' chooses by cookie 'beta'; gRPC clients match text metadata only (`header`)",
        ),
        (
            {"segment": SEGMENT.replace("{header: {name: x-beta, present: true}}", "{cohort: {to: 5%}}")},
            "step 'beta' chooses by a cohort of users; gRPC clients match text metadata only (`header`)",
        ),
        (
            {"policy": POLICY.replace("success_rate: {at_least: 99%}", "latency: {p99: 400ms}")},
            "it has a condition on latency p99; gRPC clients report no latencies",
        ),
        (
            {
                "shop": SERVICE + "protocol: grpc\n",
                "policy": POLICY.replace("success_rate: {at_least: 99%}", "grpc_status: {codes: [ABORTED]}"),
            },
            f"it has a condition on grpc status ABORTED; {refusal('grpc', Feature.GRPC_STATUS)}",
        ),
    ],
)
def test_a_release_by_a_policy_that_does_not_fit_is_refused_with_the_reason(changed, reason):
    found = loaded(**changed)

    [error] = found.errors
    assert str(error) == (
        f"release.yaml:6:9: policy: 'careful' does not fit 'shop' on grpc fleet 'mesh': {reason}"
    )
    assert found.refused == (("Release", "r1"),)


def test_the_same_policy_fits_a_service_behind_proxies():
    cookie = SEGMENT.replace("header: {name: x-beta", "cookie: {name: beta")

    found = loaded(fleet=EDGE, shop=SERVICE.replace("mesh", "edge"), segment=cookie)

    assert not found.errors


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("at_most: 2", "none is above `at_most: 2`; at_most is below 1, or below 100%"),
        ("at_most: 100%", "none is above `at_most: 1`; at_most is below 1, or below 100%"),
        ("at_least: 1.1", "none keeps `at_least: 1.1`; at_least is 1, or 100%, at most"),
        ("at_most: 99%", None),
        ("at_least: 100%", None),
    ],
)
def test_a_share_of_requests_has_limits_up_to_all_of_them(limit, reason):
    """What is divided by another metric, or summed, may be any number."""
    limited = POLICY.replace("success_rate: {at_least: 99%}", f"metric: {{name: calls, {limit}}}")

    def told(metrics):
        service = SERVICE.replace("mesh", "edge") + f"metrics: {{{metrics}}}\n"
        found = loaded(fleet=EDGE, shop=service, policy=limited)
        return [problem.text for problem in found.errors]

    calls, orders = "calls: {header: x-call, better: less", "orders: {header: x-order, better: more}"
    assert told(f"{calls}, per: orders}}, {orders}") == told(f"{calls}, sum: true}}") == []
    begin = "'careful' does not fit 'shop': metric 'calls' is counted, a share of the requests, so"
    assert told(f"{calls}}}") == ([f"{begin} {reason}"] if reason else [])


def test_a_metric_that_the_service_does_not_have_is_named_with_those_that_it_has():
    shop = f"{SERVICE.replace('mesh', 'edge')}metrics: {{orders: {{header: x-order, better: more}}}}\n"
    policy = POLICY.replace("success_rate: {at_least: 99%}", "metric: {name: ordres}")

    found = loaded(fleet=EDGE, policy=policy, shop=shop)

    text = "policy: 'careful' does not fit 'shop': the service has no metric 'ordres'; it has orders"
    [error] = found.errors
    assert str(error) == f"release.yaml:6:9: {text}; did you mean 'orders'?"


def test_codes_are_counted_of_a_service_that_speaks_grpc():
    proxies = {"fleet": EDGE, "policy": POLICY.replace("success_rate: {at_least: 99%}", CODED)}

    plain = loaded(shop=SERVICE.replace("mesh", "edge"), **proxies)
    coded = loaded(shop=SERVICE.replace("mesh", "edge") + "protocol: grpc\n", **proxies)

    [error] = plain.errors
    assert str(error).startswith(
        "release.yaml:6:9: policy: 'careful' does not fit 'shop': it has a condition"
    )
    assert str(error).endswith("ABORTED NOT_FOUND; codes are counted of a service with `protocol: grpc`")
    assert not coded.errors


def test_gRPC_clients_do_not_change_what_proxies_do_without_identity():  # noqa: N802 - its name
    found = loaded(edge=EDGE, shop=SERVICE.replace("[mesh]", "[mesh, edge]"))

    assert found.catalog.anonymous(found.catalog.service("shop")) == "generate"


def test_a_service_may_be_at_a_name_and_is_told_which_settings_have_no_effect():
    named = SERVICE.replace('endpoints: ["10.0.0.2:80"]', "dns: 'a.svc:80'")

    settings = "limits: {pending: 5}\nupstream_tls: {ca: /ca, name: a.svc}\nretries: {}\n"
    metrics = "metrics: {sold: {header: x-sold, better: more}}\n"

    found = loaded(shop=named + settings + metrics)

    alone = "has no effect on grpc fleet 'mesh': a gRPC client decides itself how it connects"
    assert {str(problem) for problem in found.problems} == {
        BY_CALL,
        f"shop.yaml:9:9: warning: limits: {alone}",
        f"shop.yaml:10:15: warning: upstream_tls: {alone}",
        f"shop.yaml:11:10: warning: retries: {alone}",
        (
            "shop.yaml:12:17: warning: metrics.sold: is not counted on grpc fleet 'mesh': gRPC clients report"
            " calls only"
        ),
    }


ADOPT = "kind: Fleet\nname: owned\nnodes: {cluster: owned}\nlisteners: [{name: public, kind: adopt}]\n"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"shop": "user: {otherwise: generate}\n"},
            "user.otherwise: not on adopt fleet 'owned': only a listener of ours gives users an identity",
        ),
        (
            {"shop": "protocol: grpc\n"},
            (
                "protocol: not on adopt fleet 'owned': only a listener of ours counts gRPC failures, which"
                " are 200 to HTTP"
            ),
        ),
        (
            {"segment": "kind: Segment\nname: beta\nmatch: {source: 10.0.0.0/8}\n"},
            (
                "policy: 'careful' does not fit 'shop' on adopt fleet 'owned': step 'beta' chooses by the"
                " client's address; only a listener of ours tells routes the client's address"
            ),
        ),
    ],
)
def test_what_an_owners_listener_cannot_do_is_refused(changed, problem):
    shop = SERVICE.replace("mesh", "owned") + changed.pop("shop", "")

    found = loaded(fleet=ADOPT, shop=shop, **changed)

    assert [str(error).partition(": ")[2] for error in found.errors if str(error).endswith(problem)] == [
        problem
    ]


def test_an_owner_may_have_several_listeners_but_no_other_kind_beside_them():
    both = ADOPT.replace("]", ", {name: partners, kind: adopt}]")
    mixed = ADOPT.replace("]", ", {name: http, address: '0.0.0.0:80'}]")

    assert not loaded(fleet=both, shop=SERVICE.replace("mesh", "owned")).errors
    assert "is adopt, and there are other listeners" in str(loaded(fleet=mixed).errors[0])


@pytest.mark.parametrize("part", ["address: '0.0.0.0:80'", "tls: {certificate: /a, key: /b}"])
def test_an_owners_listener_has_nothing_of_ours(part):
    found = loaded(fleet=ADOPT.replace("kind: adopt", f"kind: adopt, {part}"))

    assert "and kind adopt takes none: the listener is its owner's" in str(found.errors)


def test_a_step_mirrors_only_where_copies_are_told_from_requests():
    shop = SERVICE.replace("mesh", "owned")
    policy = POLICY.replace("share: 100%}", "share: 100%, mirror: {share: 10%}}", 1)

    [error] = loaded(fleet=ADOPT, shop=shop, policy=policy).errors

    assert "mirrors; only a listener of ours tells copies from requests" in str(error)
