"""Flagger's documented examples, field by field."""


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
