"""Argo Rollouts' documented examples, field by field."""

QUERY = (
    'sum(irate(istio_requests_total{{destination_service=~"{0}",response_code!~"5.*"}}[5m])) / '
    'sum(irate(istio_requests_total{{destination_service=~"{0}"}}[5m]))'
)


def condition(service: str, name: str):
    body = {"name": name, "query": QUERY.format(service), "at_least": 0.95, "every": "5m"}
    return {"prometheus": body, "grace": "1m"}


def test_a_canary_becomes_steps_with_approvals_mirror_and_conditions(imported):
    documents, _ = imported("argo-canary.yaml")

    background = condition("guestbook-svc.default.svc.cluster.local", "success-rate")
    assert list(documents) == [("Policy", "guestbook")]
    policy = documents["Policy", "guestbook"]
    assert policy["conditions"] == [background]
    assert policy["steps"] == [
        {
            "name": "header-route-1",
            "segment": {"header": {"name": "version", "equals": "2"}},
            "share": "100%",
            "for": "5m",
        },
        {"name": "share-20", "everyone": "20%", "for": "10m"},
        {
            "name": "share-40",
            "everyone": "40%",
            "mirror": {
                "segment": {
                    "all": [
                        {"method": "GET"},
                        {"path": {"prefix": "/"}},
                        {"header": {"name": "agent-1b", "equals": "firefox"}},
                    ]
                },
                "share": "35%",
            },
        },
        {
            "name": "share-60",
            "everyone": "60%",
            "approve": {"role": "releaser"},
            "conditions": [condition("other", "success-rate-2")],
        },
        {"name": "share-80", "everyone": "80%", "for": "1h"},
        {"name": "all", "everyone": "100%"},
    ]


def test_a_blue_green_rollout_becomes_one_approved_step_and_a_guard(imported):
    documents, notes = imported("argo-blue-green.yaml")

    policy = documents["Policy", "guestbook-bluegreen"]
    assert policy["steps"] == [{"name": "all", "everyone": "100%", "approve": {"role": "releaser"}}]
    assert policy["guard"] == {"for": "10m"}
    assert policy["conditions"] == [
        {
            "prometheus": {
                "name": "total-errors",
                "query": 'sum(irate(requests{hash="$version"}[5m]))',
                "at_most": 10,
                "every": "5m",
            }
        }
    ]
    assert any("prePromotionAnalysis" in note and "measures before users come" in note for note in notes)
    assert any("metrics[1].provider: 'smoke' is not a source" in note for note in notes)


def test_what_has_no_equivalent_is_listed(imported):
    _, notes = imported("argo-canary.yaml")

    for where in ("replicas", "selector", "strategy.canary.maxSurge", "strategy.canary.trafficRouting",
                  "strategy.canary.steps[7].setCanaryScale", "metrics[0].failureLimit",
                  "strategy.canary.analysis.startingStep"):  # fmt: skip
        assert any(f"spec.{where}: " in note for note in notes), where
