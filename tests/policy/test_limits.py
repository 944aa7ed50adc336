"""Limits that nothing keeps, and those of what is better, are found when they are loaded."""

from __future__ import annotations

import pytest

from controlplane.policy.loading import load

POLICY = """\
kind: Policy
name: p
steps:
  - {{name: ten, everyone: 10%}}
  - {{name: all, everyone: 100%, conditions: [{own}]}}
conditions: [{condition}]
guard: {{for: 30m, hold_back: 2%}}
"""
FLEET = """\
kind: Fleet
name: edge
nodes: {cluster: edge}
listeners: [{name: http, address: "0.0.0.0:8080"}]
"""
SERVICE = """\
kind: Service
name: {name}
fleets: [edge]
routes: [{{host: {name}.example.com}}]
initial: v1
versions: {{v1: {{endpoints: ["10.0.0.1:80"]}}}}
metrics: {{tickets: {{header: x-ticket, better: {better}}}, orders: {{header: x-order, better: more}}}}
"""
QUERY = "name: q, query: 'max(q{v=\"$version\"})'"


def problems(condition, own="", **services):
    texts = [FLEET, *(SERVICE.format(name=name, better=better) for name, better in services.items())]
    files = {"p.yaml": POLICY.format(condition=condition, own=own), "services.yaml": "---\n".join(texts)}
    found = load({name: text.encode() for name, text in files.items()}).problems
    return [str(problem) for problem in found if problem.file == "p.yaml"]


def test_that_nothing_fails_cannot_be_shown():
    text = (
        "conditions[0].success_rate.at_least: 100% cannot be shown by counting, and the first error breaks it"
    )

    assert problems("{success_rate: {at_least: 100%}}") == [f"p.yaml:6:40: {text}; write 99.99% at most"]
    assert problems("{success_rate: {at_least: 99.99%}}") == []
    assert "steps[1].conditions[0].success_rate" in problems("", own="{success_rate: {at_least: 100%}}")[0]


@pytest.mark.parametrize(
    ("field", "loosest", "tighter"),
    [
        ("success_rate.at_least", "0%", "0.01%"),
        ("error_rate.at_most", "100%", "99.99%"),
        ("retries.at_most", "100%", "99.99%"),
        ("grpc_status.at_most", "100%", "99.99%"),
    ],
)
def test_a_limit_that_nothing_breaks_is_refused(field, loosest, tighter):
    kind, limit = field.split(".")
    codes = "codes: [ABORTED], " if kind == "grpc_status" else ""

    (found,) = problems(f"{{{kind}: {{{codes}{limit}: {loosest}}}}}")

    text = f"{field}: {loosest} is a limit that nothing breaks; leave the condition out"
    assert found.endswith(text)
    assert problems(f"{{{kind}: {{{codes}{limit}: {tighter}}}}}") == []


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("metric: {name: orders, margin: 100%}", True),
        ("metric: {name: orders, margin: 99%}", False),
        ("metric: {name: tickets, margin: 100%}", False),  # twice as many
        (f"prometheus: {{{QUERY}, against: baseline, better: more, margin: 100%}}", True),
        (f"prometheus: {{{QUERY}, against: baseline, margin: 100%}}", False),
    ],
)
def test_a_margin_within_which_all_may_be_lost_is_warned_about(condition, told):
    found = problems(f"{{{condition}}}", a="less")

    assert ["margin: 100% of what more is better of" in one for one in found] == ([True] if told else [])


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (
            "against: baseline, at_least: 3",
            "limits what is better: of 'q' less is, unless `better: more` says",
        ),
        ("against: baseline, better: more, at_most: 3", "limits what is better: of 'q' more is"),
        ("against: baseline, better: more, at_least: 3", None),
        ("against: baseline, at_most: 3", None),
        ("at_least: 3", None),  # what a limit alone asks for is better
    ],
)
def test_a_limit_of_a_query_that_contradicts_its_comparison_is_warned_about(limit, told):
    found = problems(f"{{prometheus: {{{QUERY}, {limit}}}}}")

    assert [told in one and "warning: " in one for one in found] == ([True] if told else [])


@pytest.mark.parametrize(
    ("condition", "services", "told"),
    [
        (
            "name: tickets, at_least: 5%",
            {"a": "less"},
            "metric.at_least: limits what is better: of 'tickets' less is",
        ),
        (
            "name: orders, at_most: 5%",
            {"a": "less"},
            "metric.at_most: limits what is better: of 'orders' more is",
        ),
        ("name: tickets, at_most: 5%", {"a": "less"}, None),
        ("name: tickets, at_most: 5%, at_least: 1%", {"a": "less"}, None),  # a range
        ("name: tickets, at_least: 5%", {"a": "less", "b": "more"}, None),  # it is right for one
        ("name: tickets, at_least: 5%", {}, None),
    ],
)
def test_a_limit_of_a_metric_against_its_own_direction_is_warned_about(condition, services, told):
    for found in (
        problems(f"{{metric: {{{condition}}}}}", **services),
        problems("", f"{{metric: {{{condition}}}}}", **services),
    ):
        assert [told in one and "warning: " in one for one in found] == ([True] if told else [])
