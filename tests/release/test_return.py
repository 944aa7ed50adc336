"""The way back: how many endpoints are left for it, and what a failure past the point of no return does."""

from datetime import timedelta

import pytest

from controlplane.evidence.verdict import Outcome
from controlplane.policy.documents import Approve, Irreversible
from controlplane.release.decide import decide
from controlplane.release.moves import act, apply
from controlplane.release.seen import Links
from controlplane.release.state import Action, Phase
from controlplane.release.traffic import Endpoints

HOUR = timedelta(hours=1)
TWENTY = tuple(f"10.0.1.{n}:80" for n in range(20))


def final(make, **over):
    """Return a policy whose second step is irreversible."""
    steps = list(make.policy().steps)
    steps[1] = steps[1].model_copy(
        update={"irreversible": Irreversible(because="drops a column"), "approve": Approve()}
    )
    return make.policy(steps=tuple(steps), **over)


@pytest.mark.parametrize(
    ("phase", "step", "past"),
    [
        (Phase.WAITING, 0, False),
        (Phase.PROGRESSING, 0, False),
        (Phase.PROGRESSING, 1, True),
        (Phase.PROGRESSING, 2, True),
        (Phase.GUARDING, 3, True),
        (Phase.PROMOTED, 3, True),
    ],
)
def test_an_irreversible_step_is_the_point_of_no_return_when_it_begins(make, phase, step, past):
    assert bool(make.state(phase, step=step, policy=final(make)).past) is past


@pytest.mark.parametrize("do", ["rollback", "step_back", "hold", "freeze"])
@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.GUARDING])
def test_a_failure_past_the_point_of_no_return_freezes_whatever_the_policy_says(make, do, phase):
    state = make.state(phase, policy=final(make, on_failure={"do": do}))

    after = apply(state, decide(state, seen := make.seen(verdicts=(make.verdict(Outcome.FAIL),))), seen)

    assert (after.phase, after.halt) == (phase, "frozen")
    assert "past the point of no return (step 'ten': drops a column)" in after.because
    assert decide(after, seen).action is None


@pytest.mark.parametrize(
    ("policy", "state", "links"),
    [
        ({"when_unsure": {"after": "1s", "do": "rollback"}}, {"judged": HOUR}, Links()),
        ({"deadline": "1h", "on_timeout": "rollback"}, {"running": HOUR}, Links()),
        ({}, {}, Links(fallen="another went back")),
        ({}, {"halt": "paused"}, Links(superseded="another takes its place")),
        ({"on_failed_dependency": "rollback"}, {}, Links(failed="a dependency went back")),
    ],
)
def test_no_other_reason_goes_back_past_it_either(make, policy, state, links):
    before = make.state(policy=final(make, **policy), **state)

    decision = decide(before, make.seen(verdicts=(make.verdict(Outcome.NOT_YET),), links=links))

    assert decision.action is Action.FREEZE
    frozen = apply(before, decision, make.seen())
    assert decide(frozen, make.seen(links=links)).action is None


def test_before_it_a_failure_goes_back(make):
    state = make.state(step=0, policy=final(make))

    assert decide(state, make.seen(verdicts=(make.verdict(Outcome.FAIL),))).action is Action.ROLL_BACK


@pytest.mark.parametrize(("left", "goes"), [(20, True), (16, True), (15, False), (2, False)])
def test_no_share_grows_while_the_old_version_could_not_take_it_back(make, left, goes):
    waiting = make.state(Phase.WAITING, policy=make.policy(guard={"for": "1m", "keep_endpoints": "80%"}))
    started = act(waiting, Action.START, "go", Endpoints({"v1": TWENTY, "v2": ("x",)}))
    assert started.way_back == 20
    state = started.model_copy(update={"stage": "judge", "judged": HOUR})

    decision = decide(state, make.seen(endpoints={"v1": TWENTY[:left], "v2": ("x",)}))

    assert (decision.action is Action.ADVANCE) is goes
    if not goes:
        assert (decision.code, f"v1 has {left} of 20 endpoints" in decision.reason) == ("no-way-back", True)
