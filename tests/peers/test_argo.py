"""Argo Rollouts' documented examples, field by field, and what its orders mean."""

import pytest

from controlplane.peers import translate

QUERY = (
    'sum(irate(istio_requests_total{{destination_service=~"{0}",response_code!~"5.*"}}[5m])) / '
    'sum(irate(istio_requests_total{{destination_service=~"{0}"}}[5m]))'
)


class Steps(list):
    """Steps, with the conditions of their policy."""

    conditions = ()


@pytest.fixture
def steps():
    """Translate a Rollout of these steps: ours, and the notes as lines."""

    def of(*orders: str, more: str = "maxSurge: 1", documents: str = ""):
        canary = f"{more}, steps: [{', '.join(orders)}]"
        text = f"kind: Rollout\nmetadata: {{name: web}}\nspec: {{strategy: {{canary: {{{canary}}}}}}}\n"
        found = translate({"a.yaml": text + documents}, "edge")
        policy = found.documents[0]
        made = Steps(policy["steps"])
        made.conditions = policy["conditions"]
        return made, [str(note) for note in found.notes]

    return of


def condition(service: str, name: str):
    body = {"name": name, "query": QUERY.format(service), "at_least": 0.95, "every": "5m"}
    return {"prometheus": body, "grace": "1m"}


def test_a_canary_becomes_steps_with_approvals_mirror_and_conditions(imported):
    documents, _ = imported("argo-canary.yaml")

    mirror = {
        "segment": {
            "all": [
                {"method": "GET"},
                {"path": {"prefix": "/"}},
                {"header": {"name": "agent-1b", "equals": "firefox"}},
            ]
        },
        "share": "35%",
    }
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
            "mirror": mirror,
        },
        {
            "name": "share-60",
            "everyone": "60%",
            "approve": {"role": "releaser"},
            "mirror": mirror,
            "conditions": [condition("other", "success-rate-2")],
        },
        {"name": "share-80", "everyone": "80%", "for": "1h", "mirror": mirror},
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

    for where in ("replicas", "selector", "strategy.canary.maxSurge", "strategy.canary.trafficRouting.istio",
                  "strategy.canary.steps[7].setCanaryScale", "metrics[0].failureLimit",
                  "strategy.canary.analysis.startingStep"):  # fmt: skip
        assert any(f"spec.{where}: " in note for note in notes), where


def test_pauses_in_a_row_add_up(steps):
    found, _ = steps("{setWeight: 20}", "{pause: {duration: 5m}}", "{pause: {duration: 10m}}")

    assert found[0] == {"name": "share-20", "everyone": "20%", "for": "15m"}


def test_an_approval_that_no_step_is_left_for_is_noted(steps):
    found, notes = steps("{setWeight: 20}", "{setWeight: 100}", "{pause: {}}")

    assert not any("approve" in step for step in found)
    assert any("steps[2].pause: '{}' asks for an approval when everybody" in note for note in notes)


def test_weights_are_parts_of_the_greatest_weight(steps):
    found, _ = steps("{setWeight: 20}", "{setWeight: 500}", more="trafficRouting: {maxTrafficWeight: 1000}")

    assert [step["everyone"] for step in found] == ["2%", "50%", "100%"]


MIRROR = "{setMirrorRoute: {name: m, percentage: 10, match: [{method: {exact: GET}}]}}"


def test_a_mirror_is_on_from_its_step_to_its_removal(steps):
    found, _ = steps(
        "{setWeight: 20}", MIRROR, "{pause: {duration: 5m}}", "{setWeight: 40}",
        "{setMirrorRoute: {name: m}}", "{setWeight: 60}",
    )  # fmt: skip

    assert [step["everyone"] for step in found if "mirror" in step] == ["20%", "40%"]


def test_a_mirror_that_ends_before_any_step_is_noted(steps):
    found, notes = steps(MIRROR, "{pause: {duration: 5m}}", "{setMirrorRoute: {name: m}}", "{setWeight: 60}")

    assert not any("mirror" in step for step in found)
    assert any("steps[0].setMirrorRoute.name: 'm' ended before a step of ours" in note for note in notes)


def test_a_mirror_never_copies_more_than_was_asked_for(steps):
    found, notes = steps(
        MIRROR.replace("{exact: GET}", "{exact: GET}, scheme: {exact: https}"), "{setWeight: 5}"
    )

    assert "mirror" not in found[0]
    assert any("match[0].scheme" in note and "would be wider" in note for note in notes)


@pytest.mark.parametrize(
    ("limit", "bounds"),
    [
        ("failureCondition: result >= 10 || result < 2", {"at_most": 10, "at_least": 2}),
        ("failureCondition: result >= 2 && result < 10", {}),  # holds outside: no limits of ours say that
        ("successCondition: result >= 2 && result < 10", {"at_most": 10, "at_least": 2}),
        ("successCondition: 'result >= {{args.least}}'", {"at_least": 0.5}),
    ],
)
def test_limits_mean_what_they_meant(steps, limit, bounds):
    template = f"""---
kind: AnalysisTemplate
metadata: {{name: t}}
spec: {{metrics: [{{name: m, {limit}, provider: {{prometheus: {{query: up}}}}}}]}}
"""
    analysis = "analysis: {templates: [{templateName: t}], args: [{name: least, value: 0.5}]}"
    found, _ = steps(more=analysis, documents=template)

    bodies = [each["prometheus"] for each in found.conditions]
    assert {key: body[key] for body in bodies for key in ("at_most", "at_least") if key in body} == bounds
