"""Business metrics of a whole segment are compared with users of other habits: told when it is loaded."""

from __future__ import annotations

import pytest

from controlplane.policy.loading import load

TEXT = """\
kind: Policy
name: p
steps:
{steps}
  - {{name: ten, everyone: 10%{later}}}
  - {{name: all, everyone: 100%}}
conditions: [{condition}]
guard: {{for: 30m, hold_back: 2%}}
---
kind: Segment
name: staff
match: {{header: {{name: x-staff, present: true}}}}
---
kind: Segment
name: few
match: {{cohort: {{from: 0%, to: 2%}}}}
"""
STAFF = "  - {name: own, segment: staff, share: 100%}"
BETA = "  - {name: beta, segment: {cookie: {name: beta, present: true}}, share: 100%}"
HALF = "  - {name: own, segment: staff, share: 50%}"
FEW = "  - {name: some, segment: few, share: 100%}"
ORDERS = "{metric: {name: orders, margin: 10%}}"
LIMIT = "{metric: {name: orders, at_least: 1%}}"


def warned(*steps, condition=ORDERS, later=""):
    text = TEXT.format(steps="\n".join(steps), condition=condition, later=later)
    return [str(problem) for problem in load({"p.yaml": text.encode()}).problems]


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        ((STAFF,), "'own'"),
        ((BETA,), "'beta'"),
        ((STAFF, BETA), "'own', 'beta'"),
        ((STAFF, FEW, BETA), "'own'"),  # who is not in the cohort has the old version
        ((HALF,), None),
        ((HALF, BETA), None),
        ((FEW,), None),
        ((), None),
    ],
)
def test_a_comparison_of_the_policy_at_a_whole_segment_is_warned_about(steps, named):
    found = warned(*steps)

    assert len(found) == (named is not None)
    for one in found:
        assert f"warning: conditions[0].metric: compares 'orders' at {named} with other users" in one
        assert one.endswith("write it as a condition of the later steps")


def test_what_is_written_at_a_step_is_warned_about_there_and_nowhere_else():
    own = f"  - {{name: own, segment: staff, share: 100%, conditions: [{ORDERS}]}}"

    (found,) = warned(own, condition="")

    assert "warning: steps[0].conditions[0].metric: compares 'orders' here" in found
    assert warned(STAFF, condition="", later=f", conditions: [{ORDERS}]") == []


def test_a_limit_asks_nobody_else():
    assert warned(STAFF, condition=LIMIT) == []
