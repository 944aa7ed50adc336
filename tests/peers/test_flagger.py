"""Flagger's documented examples, field by field, and what its fields mean."""

import pytest

from controlplane.peers import translate

COOKIE = "^(.*?;)?({})(;.*)?$"


@pytest.fixture
def analysis():
    """Translate a Canary of this analysis: service, policy, and the notes as lines."""

    def of(text: str, spec: str = "service: {port: 80}"):
        canary = "kind: Canary\nmetadata: {name: web, namespace: test}\n"
        canary += f"spec: {{{spec}, analysis: {{{text}}}}}\n"
        found = translate({"a.yaml": canary}, "edge")
        return *found.documents, [str(note) for note in found.notes]

    return of


def test_a_canary_becomes_a_service_and_a_policy(imported):
    documents, _ = imported("flagger-canary.yaml")

    assert documents["Service", "podinfo"] == {
        "kind": "Service",
        "name": "podinfo",
        "fleets": ["edge"],
        "routes": [{"host": "podinfo.test", "path": "/api", "rewrite": {"path": "/"}}],
        "initial": "primary",
        "versions": {
            "primary": {"dns": "podinfo-primary.test:9898"},
            "canary": {"dns": "podinfo-canary.test:9898"},
        },
        "timeout": "5s",
        "retries": {"attempts": 3},
    }
    policy = documents["Policy", "podinfo"]
    assert policy["steps"] == [
        {"name": "share-20", "everyone": "20%", "for": "1m"},
        {"name": "share-40", "everyone": "40%", "for": "1m"},
        {
            "name": "share-60",
            "everyone": "60%",
            "for": "1m",
        },  # Flagger overshoots its maximum in the same way
        {"name": "all", "everyone": "100%", "for": "1m"},
    ]
    assert policy["on_failure"] == {"do": "rollback"}


def test_metrics_become_conditions_with_their_variables_filled_in(imported):
    documents, notes = imported("flagger-canary.yaml")

    success, latency, prometheus = documents["Policy", "podinfo"]["conditions"]
    assert success == {"success_rate": {"at_least": "99%"}}
    assert latency == {"latency": {"p99": "500ms"}}  # 450 ms lies between bucket edges
    assert prometheus["prometheus"] == {
        "name": "404s-percentage",
        "query": '100 - sum(rate(istio_requests_total{destination_workload_namespace="test", '
        'destination_workload="podinfo",response_code!="404"}[1m]))',
        "at_most": 5,
        "every": "1m",
    }
    assert any("'450ms' lies between bucket edges" in note for note in notes)


def test_webhooks_become_hooks_and_alerts_become_notifications(imported):
    documents, notes = imported("flagger-canary.yaml")

    policy = documents["Policy", "podinfo"]
    assert [(hook["at"], hook["timeout"]) for hook in policy["hooks"]] == [
        ("start", "10s"),
        ("start", "15s"),
        ("judging", "10s"),
        ("before_step", "10s"),
        ("before_promote", "10s"),
        ("end", "5s"),
    ]
    assert policy["notify"] == [
        {"slack": "https://hooks.slack.example.com/services/1", "on": ["rolled_back"]}
    ]
    assert any("webhooks[6].type: 'rollback' asks for a rollback from outside" in note for note in notes)


def test_what_has_no_equivalent_is_listed(imported):
    _, notes = imported("flagger-canary.yaml")

    for where in (
        "spec.progressDeadlineSeconds",
        "spec.autoscalerRef",
        "spec.service.retries.perTryTimeout",
        "spec.analysis.threshold",
        "spec.provider.address",
    ):
        assert any(f": {where}: " in note for note in notes), where


def test_an_ab_test_becomes_a_segment_then_everyone(imported):
    documents, _ = imported("flagger-ab.yaml")

    assert documents["Service", "frontend"]["routes"] == [{"host": "app.example.com"}]
    assert documents["Policy", "frontend"]["steps"] == [
        {
            "name": "segment",
            "segment": {
                "any": [
                    {"header": {"name": "x-canary", "regex": ".*insider.*"}},
                    {"cookie": {"name": "canary", "equals": "always"}},
                ]
            },
            "share": "100%",
            "for": "10m",
        },
        {"name": "all", "everyone": "100%", "for": "1m"},
    ]


@pytest.mark.parametrize(
    ("match", "tree"),
    [
        (
            f"headers: {{cookie: {{regex: '{COOKIE.format('tier=gold')}'}}}}",
            {"cookie": {"name": "tier", "equals": "gold"}},
        ),
        ("headers: {cookie: {regex: '.*beta.*'}}", {"header": {"name": "cookie", "regex": ".*beta.*"}}),
        (
            f"headers: {{cookie: {{regex: '{COOKIE.format('tier=(gold|silver)')}'}}}}",
            {"header": {"name": "cookie", "regex": COOKIE.format("tier=(gold|silver)")}},
        ),
        ("headers: {cookie: {exact: a=b}}", {"header": {"name": "cookie", "equals": "a=b"}}),
        ("headers: {X-Any: {}}", {"header": {"name": "x-any", "present": True}}),
        ("queryParams: {Beta: {exact: '1'}}", {"query": {"name": "Beta", "equals": "1"}}),
        ("withoutHeaders: {x: {exact: a}}", {"not": {"header": {"name": "x", "equals": "a"}}}),
        (
            "uri: {prefix: /api}, method: {exact: GET}",
            {"all": [{"method": "GET"}, {"path": {"prefix": "/api"}}]},
        ),
    ],
)
def test_a_match_becomes_the_same_segment(analysis, match, tree):
    _, policy, _ = analysis(f"iterations: 2, match: [{{{match}}}]")

    assert policy["steps"][0]["segment"] == tree


def test_a_match_that_would_get_wider_is_left_out(analysis):
    _, policy, notes = analysis("iterations: 2, match: [{headers: {x: {exact: a}}, sourceLabels: {app: b}}]")

    assert [step["name"] for step in policy["steps"]] == ["all"]
    assert any("match[0].sourceLabels" in note and "would be wider" in note for note in notes)


def test_listed_weights_win_over_a_regular_ladder(analysis):
    _, policy, notes = analysis("stepWeights: [1, 5, 60], stepWeight: 7, maxWeight: 9")

    assert [step["everyone"] for step in policy["steps"]] == ["1%", "5%", "60%", "100%"]
    assert any("stepWeight: '7' is ignored by Flagger too" in note for note in notes)


def test_two_canaries_of_one_name_are_not_made_into_one():
    canary = "kind: Canary\nmetadata: {name: web, namespace: %s}\nspec: {service: {port: 80}}\n"

    found = translate({"a.yaml": canary % "a" + "---\n" + canary % "b"}, "edge")

    assert len(found.documents) == 2
    assert found.unknown == ("a.yaml: Canary/web is there twice; import this one by itself",)
