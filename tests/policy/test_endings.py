"""What a policy that ends (an A/B test) may say, and what it must."""

import pytest

from controlplane.policy.loading import load

POLICY = """\
kind: Policy
name: ab
steps:
  - {name: ten, everyone: 10%, for: 1h}
  - {name: half, everyone: 50%}
conditions: [{metric: {name: orders}}]
ends: {after: 14d, do: promote_if_better, per_user: 3}
guard: {for: 1h, hold_back: 10%}
"""
REPORT = POLICY.replace("promote_if_better", "report").replace("guard: {for: 1h, hold_back: 10%}\n", "")


def problems(policy):
    return [str(problem) for problem in load({"p.yaml": policy.encode()}).problems]


@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        REPORT,
        POLICY.replace("promote_if_better", "ask"),
        POLICY.replace("50%}", "50%, approve: {role: admin}}"),
        POLICY.replace("everyone: 50%", "segment: {cookie: {name: beta, present: true}}, share: 50%"),
        POLICY.replace("conditions: [{metric: {name: orders}}]", "conditions: []").replace(
            "50%}", "50%, conditions: [{metric: {name: orders}}]}"
        ),
        POLICY + "deadline: 20d\n",
    ],
)
def test_what_a_test_may_be(policy):
    assert problems(policy) == []


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (
            POLICY.replace("everyone: 50%}", "everyone: 100%}"),
            (
                "p.yaml:5:28: steps[1].everyone: the last step is the test; with 100% nobody is left on the "
                "old version to compare with"
            ),
        ),
        (
            POLICY.replace("everyone: 50%}", "everyone: 50%, for: 1h}"),
            "p.yaml:5:38: steps[1].for: the last step is the test, and lasts as long as `ends.after` says",
        ),
        (
            POLICY.replace("everyone: 50%}", "everyone: 50%, within: 20d}"),
            "p.yaml:5:41: steps[1].within: the last step is the test, and lasts as long as `ends.after` says",
        ),
        (
            POLICY.replace(
                "for: 1h}\n", "irreversible: {because: drops a column}, approve: {}}\n", 1
            ).replace(", hold_back: 10%", ""),
            (
                "p.yaml:4:46: steps[0].irreversible: is irreversible, but at the end of a test (`ends`) "
                "everyone returns"
            ),
        ),
        (
            REPORT + "guard: {for: 1h}\n",
            (
                "p.yaml:8:1: guard: watches what everyone gets, but `ends.do: report` gives nobody more; "
                "allowed with ask and promote_if_better"
            ),
        ),
        (
            POLICY.replace("10%}\n", "0%}\n")
            + "point_of_no_return: {approve: {}, run: https://ops.example.com/drop}\n",
            (
                "p.yaml:9:1: point_of_no_return: comes after the guard, but at the end of a test (`ends`) "
                "everyone may return; not allowed in one"
            ),
        ),
        (
            POLICY + "deadline: 14d\n",
            "p.yaml:9:11: deadline: is over before the test, which lasts 14d (`ends.after`)",
        ),
        (
            POLICY.replace("[{metric: {name: orders}}]", "[]"),
            (
                "p.yaml:7:24: ends.do: promote_if_better needs a business metric that can be better: a "
                "condition `metric`, of the policy or of the last step"
            ),
        ),
        (
            POLICY.replace("14d", "0s"),
            "p.yaml:7:7: ends: after is how long the test lasts; it must be longer than 0s",
        ),
        (
            POLICY.replace("after: 14d, ", ""),
            "p.yaml:7:7: ends.after: missing; it is required",
        ),
    ],
)
def test_what_does_not_go_with_an_end_is_refused_with_what_is_allowed(policy, problem):
    assert problem in problems(policy)


CONDITION = "conditions: [{metric: {name: orders}}]"
OBSERVED = "conditions: []\nobserve: [orders]"


@pytest.mark.parametrize(
    ("do", "tested"),
    [
        ("report", CONDITION),
        ("ask", CONDITION),
        ("promote_if_better", CONDITION),
        ("report", OBSERVED),
        ("ask", OBSERVED),
    ],
)
def test_a_test_of_events_says_how_many_one_user_makes(do, tested):
    found = POLICY.replace("promote_if_better", do).replace(CONDITION, tested)
    found = found if do != "report" else "\n".join(r for r in found.split("\n") if "guard" not in r)

    (problem,) = problems(found.replace(", per_user: 3", ""))

    assert "1: warning: ends: takes every event for another user's" in problem
    assert "or is pushed with `users`" in problem
    assert problems(found) == []


def test_a_test_of_no_metric_asks_for_nothing():
    bare = REPORT.replace("[{metric: {name: orders}}]", "[]").replace(", per_user: 3", "")

    assert problems(bare) == []


def test_a_guard_without_hold_back_is_warned_about_but_not_the_test():
    (problem,) = problems(POLICY.replace(", hold_back: 10%", ""))

    assert "hold-back is 0%: the guard is judged by absolute limits alone" in problem


def test_every_mistake_is_reported_at_once():
    wrong = POLICY.replace("everyone: 50%}", "everyone: 100%, for: 1h}") + "deadline: 1d\n"

    assert len(problems(wrong)) == 3
