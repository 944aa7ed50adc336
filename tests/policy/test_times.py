"""Times of a policy that contradict each other are found when it is loaded."""

from __future__ import annotations

import pytest

from controlplane.policy.loading import load

POLICY = """\
kind: Policy
name: p
steps:
  - {name: ten, everyone: 10%, for: 1h, within: 3h}
  - {name: all, everyone: 100%, for: 2h}
conditions: [{requests: {at_least: 500}, grace: 5m}]
guard: {for: 30m, hold_back: 2%}
"""


def problems(*lines, text=POLICY):
    text += "".join(f"{line}\n" for line in lines)
    return [str(problem) for problem in load({"p.yaml": text.encode()}).problems]


SHORT = "p.yaml:8:11: deadline: is over before anything could be promoted: its steps and its guard take"


@pytest.mark.parametrize("deadline", ["10m", "3h30m"])
def test_a_deadline_leaves_time_for_the_steps_and_the_guard(deadline):
    assert problems(f"deadline: {deadline}") == [f"{SHORT} 3h30m at least (`for`, `grace`)"]
    assert problems("deadline: 3h31m") == []


def test_a_grace_is_time_that_every_step_and_the_guard_take():
    longer = POLICY.replace("grace: 5m", "grace: 90m")

    assert problems("deadline: 4h", text=longer) == [f"{SHORT} 5h at least (`for`, `grace`)"]


def test_a_deadline_leaves_time_for_the_test_and_the_steps_before_it():
    test = POLICY.replace("100%, for: 2h", "50%") + "ends: {after: 7d}\n"
    test = test.replace("guard: {for: 30m, hold_back: 2%}\n", "")

    (problem,) = problems("deadline: 169h", text=test)

    assert "its steps and its test take 7d1h5m at least" in problem


@pytest.mark.parametrize(("do", "what"), [("advance", "steps go on"), ("rollback", "good releases go back")])
def test_there_is_time_for_proof_before_a_step_is_called_unsure(do, what):
    text = f"when_unsure.after: is over before there can be proof: {what} without any"

    (refused,), (warned,) = (problems(f"when_unsure: {{after: {t}, do: {do}}}") for t in ("0s", "59s"))

    assert refused.startswith(f"p.yaml:8:22: {text}")
    assert warned.startswith(f"p.yaml:8:22: warning: {text}")
    assert problems(f"when_unsure: {{after: 1m, do: {do}}}") == []
    assert problems("when_unsure: {after: 0s, do: hold}") == []  # which is what it does anyway


def test_a_grace_is_over_before_its_step_must_have_passed():
    longer = POLICY.replace("grace: 5m", "grace: 3h")
    own = POLICY.replace("for: 2h}", "for: 2h, conditions: [{requests: {at_least: 9}, grace: 4h}]}")

    (problem,) = problems(text=longer)

    assert problem == (
        "p.yaml:6:49: conditions[0].grace: is not over before step 'ten' must have passed (`within: 3h`);"
        " it never could"
    )
    assert problems(text=own) == []  # of a step that may take its time


def test_what_acts_without_proof_acts_before_the_step_or_the_deadline_is_over():
    at = "p.yaml:8:22: warning: when_unsure.after: is not over before"

    assert problems("when_unsure: {after: 3h, do: advance}") == [
        f"{at} 'ten' must have passed (`within`), so it does not act there"
    ]
    assert problems("when_unsure: {after: 5h, do: advance}", "deadline: 4h") == [
        f"{at} the deadline, 4h, so it never acts"
    ]
    assert problems("when_unsure: {after: 2h59m, do: advance}", "deadline: 4h") == []
    assert problems("when_unsure: {after: 3h, do: hold}") == []  # which is what it does anyway
