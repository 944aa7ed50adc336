"""Vamp's release policies, both generations, and its condition language."""

import pytest

from controlplane.peers import translate
from controlplane.peers.vamp_conditions import ConditionError, condition


def test_a_policy_of_the_release_agent_keeps_condition_and_strength(imported):
    documents, notes = imported("vamp-agent.json")

    segment = "cookie-vamp-exists"
    assert documents["Segment", segment]["match"] == {"cookie": {"name": "vamp", "present": True}}
    policy = documents["Policy", "vamp-456"]
    assert policy["steps"] == [
        {"name": segment, "segment": segment, "share": "5%", "for": "1m"},
        {"name": f"{segment}-2", "segment": segment, "share": "10%", "for": "1m"},
        {"name": "all", "everyone": "100%"},
    ]
    assert policy["hooks"] == [{"at": "end", "url": "http://test.local"}]
    assert not any("Bearer" in note for note in notes)  # credentials are not printed
    assert any("conditions[1].metric: 'restarts' is about workloads" in note for note in notes)


def test_a_policy_of_vamp_cloud_resolves_its_baselines(imported):
    documents, _ = imported("vamp-cloud.json")

    segment = "header-user-agent-contains-chrome"
    assert documents["Segment", segment]["match"] == {"user_agent": "Chrome"}
    assert documents["Policy", "minor"]["steps"] == [
        {
            "name": segment,
            "segment": segment,
            "share": "100%",
            "for": "2m",
            "conditions": [{"success_rate": {"at_least": "70%"}, "grace": "1m"}],
        },
        {"name": "share-20", "everyone": "20%"},
        {"name": "share-50", "everyone": "50%"},
        {"name": "all", "everyone": "100%"},
    ]


def test_weight_and_strength_add_up_as_in_vamp():
    # Half of the matching users are forced over, and 20 % of the other half come by weight.
    text = """{"type": "release", "name": "both", "steps": [{"source": {"weight": 80},
      "target": {"weight": 20, "condition": "User-Agent = Firefox", "conditionStrength": 50}}]}"""

    found = translate({"both.json": text}, "edge")

    steps = found.documents[-1]["steps"]
    assert [(step.get("share"), step.get("everyone")) for step in steps] == [
        ("60%", None),
        (None, "20%"),
        (None, "100%"),
    ]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("User-Agent==Firefox", {"user_agent": "Firefox"}),
        ("user.agent != Firefox", {"not": {"user_agent": "Firefox"}}),
        ("User-Agent not Firefox", {"not": {"user_agent": "Firefox"}}),
        ("( useragent is IE )", {"header": {"name": "user-agent", "contains": "MSIE"}}),
        ("has cookie vamp", {"cookie": {"name": "vamp", "present": True}}),
        ("misses header X-Beta", {"not": {"header": {"name": "x-beta", "present": True}}}),
        ("cookie vamp contains 12345", {"cookie": {"name": "vamp", "contains": "12345"}}),
        ("header vamp misses 'a b'", {"not": {"header": {"name": "vamp", "contains": "a b"}}}),
        ("host == localhost", {"host": "localhost"}),
        ("host misses localhost", {"not": {"host": "localhost"}}),
        ('( cookie "ex-1" exact "v" )', {"cookie": {"name": "ex-1", "equals": "v"}}),
        ("header: user-agent contains Chrome", {"user_agent": "Chrome"}),
        (
            "has header a or has header b && !(has header c)",
            {
                "any": [
                    {"header": {"name": "a", "present": True}},
                    {
                        "all": [
                            {"header": {"name": "b", "present": True}},
                            {"not": {"header": {"name": "c", "present": True}}},
                        ]
                    },
                ]
            },
        ),
    ],
)
def test_conditions_become_trees(text, tree):
    assert condition(text) == tree


@pytest.mark.parametrize(
    "text", ["", "user-agent", "( has cookie a", "has cookie a b", "< hdr_sub(x) y >", "a = b"]
)
def test_a_condition_outside_the_language_is_refused_with_the_place(text):
    with pytest.raises(ConditionError) as failure:
        condition(text)

    assert text.strip() in str(failure.value)


def test_a_condition_that_cannot_be_translated_leaves_its_segment_out_and_says_so():
    text = '{"type": "release", "name": "raw", "steps": [{"target": {"weight": 0, "condition": "<acl>"}}]}'

    found = translate({"raw.json": text}, "edge")

    assert [step["name"] for step in found.documents[-1]["steps"]] == ["all"]
    assert any("this segment is missing" in str(note) for note in found.notes)
