"""What a release may spoil: of which requests, for how long, and what follows when it is spent."""

from datetime import timedelta
from functools import reduce

import pytest

from controlplane.evidence.learned import Learned, learn
from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.evidence.verdict import Outcome
from controlplane.release.seen import Moment, Propagation
from controlplane.release.state import Action
from controlplane.release.turn import Progress, turn
from controlplane.release.watch import Watch

TEN = timedelta(seconds=10)
WHO = Propagation(("a",), ("a",))


def interval(make, number, *cells):
    """Return an interval; cells are (segment, version, requests, errors)."""
    tallies = tuple(sorted((Cell("a", s, v), Tally(n, k)) for s, v, n, k in cells))
    start = make.T0 + number * TEN
    return Observation("shop", start, start + TEN, tallies, ("a",))


def known(make, *cells):
    return reduce(lambda so_far, n: learn(so_far, interval(make, n, *cells), "v1"), range(-60, 0), Learned())


def turns(make, state, *cells, count, watch=None):
    """Yield the turns of a release, in intervals that are all alike."""
    progress = Progress(state, watch or Watch())
    learned = known(make, *(cell for cell in cells if cell[1] == "v1"))
    for number in range(count):
        seen = interval(make, number, *cells)
        moment = Moment(seen.end, TEN, seen, settle=TEN, propagation=WHO, endpoints=make.ENDPOINTS)
        took = turn(progress, learned, moment)
        yield took
        progress, learned = took.after, learn(learned, seen, "v1")
        if took.decision.action not in (None, Action.ADVANCE, Action.PROCEED):
            return


def said(took):
    return next(v for v in took.after.verdicts if v.metric == "budget")


def spending(make, do="rollback", **over):
    rules = {"conditions": (), "budget": {"failed": 30}, "on_failure": {"do": do}}
    return make.state(policy=make.policy(**(rules | over)), step=1, elapsed=TEN)


def test_versions_that_are_alike_spoil_nothing_where_segments_have_other_rates_and_shares(make):
    steps = (
        make.step("beta", "50%", segment="staff", match=make.STAFF, for_="1h"),
        make.step("ten", "10%"),
        make.step("all", "100%"),
    )
    state = make.state(
        policy=make.policy(conditions=(), steps=steps, budget={"failed": 30}), step=0, elapsed=TEN
    )
    cells = (("everyone", "v1", 9000, 27), ("staff", "v1", 500, 15), ("staff", "v2", 500, 15))

    *_, last = turns(make, state, *cells, count=100)

    assert (said(last).outcome, said(last).reason) == (Outcome.PASS, "0 of at most 30 requests spoiled")


@pytest.mark.parametrize(("failed", "spent"), [(9, False), (30, True)])
def test_a_segment_without_a_baseline_of_its_own_has_twice_the_rate_of_the_others(make, failed, spent):
    cells = (("everyone", "v1", 9000, 45), ("everyone", "v2", 1000, 5), ("staff", "v2", 1000, failed))

    *_, last = turns(make, spending(make), *cells, count=100)

    assert (last.decision.code == "budget/everyone") is spent
    assert said(last).note.startswith("segment staff has no baseline of its own: twice the rate of the rest")


def test_what_is_spoiled_stays_spoiled_after_a_step_back(make):
    cells = (("everyone", "v1", 9000, 9), ("everyone", "v2", 1000, 60))
    rules = {"conditions": ({"errors": {}},), "budget": {"failed": 10_000}}

    *_, last = turns(make, spending(make, "step_back", **rules), *cells, count=20)

    assert last.decision.action is Action.STEP_BACK
    assert last.after.watch.spoiled.own.failures > 50
    assert not last.after.watch.evidence.accounts


def test_a_spent_budget_is_not_given_out_again_by_a_step_back_or_a_retry(make):
    cells = (("everyone", "v1", 9000, 9), ("everyone", "v2", 1000, 11))
    again = {"on_failure": {"do": "step_back", "retry": {"after": "1m", "times": 5}}}

    *_, last = turns(make, spending(make, **again), *cells, count=60)

    assert (last.decision.action, last.decision.code) == (Action.ROLL_BACK, "budget/everyone")
    assert last.decision.rest is None
    assert int(last.decision.reason.split()[0]) > 30  # it does not deny itself


def test_an_outage_of_both_spoils_nothing_where_few_are_left_on_the_baseline(make):
    state = spending(make)
    cells = (("everyone", "v1", 200, 1), ("everyone", "v2", 9800, 49))
    *_, before = turns(make, state, *cells, count=20)

    outage = (("everyone", "v1", 200, 40), ("everyone", "v2", 9800, 1990))
    *_, last = turns(make, before.after.state, *outage, count=9, watch=before.after.watch)

    assert said(last).reason == "0 of at most 30 requests spoiled"


def test_a_failure_waits_until_there_is_something_to_compare_it_with(make):
    few = (("everyone", "v1", 3, 0), ("everyone", "v2", 400, 200))

    taken = list(turns(make, spending(make), *few, count=4))

    spoiled = [took.after.watch.spoiled.own.failures for took in taken]
    assert spoiled == [0, 0, 0, 800]


@pytest.mark.parametrize(
    ("failed", "beside", "spoiled"), [(19, True, False), (19, False, False), (30, False, True)]
)
def test_what_a_whole_segment_spoils_while_nobody_else_comes_is_beyond_twice_the_usual(
    make, failed, beside, spoiled
):
    """The others come in every second interval, or in none at all; 1 % of their requests fail."""
    state = spending(make, do="hold").model_copy(update={"step": 0})
    learned, watch = known(make, ("everyone", "v1", 1000, 10)), Watch()
    staff, others = ("staff", "v2", 1000, failed), ("everyone", "v1", 1000, 10)
    progress = Progress(state, watch)
    for number in range(120):
        seen = interval(make, number, staff, *((others,) if beside and number % 2 else ()))
        moment = Moment(seen.end, TEN, seen, settle=TEN, propagation=WHO, endpoints=make.ENDPOINTS)
        took = turn(progress, learned, moment)
        progress = took.after

    assert (said(took).outcome is Outcome.FAIL) is spoiled
    assert spoiled or said(took).reason == "0 of at most 30 requests spoiled"


def test_where_nobody_is_left_on_the_old_version_failures_beyond_the_usual_are_spoiled(make):
    guard = {"for": "1m", "hold_back": "0%"}
    state = spending(make, do="hold", guard=guard).model_copy(update={"step": 2})
    learned = known(make, ("everyone", "v1", 1000, 10))
    progress = Progress(state)
    for number in range(10):
        # A request of the old version that began long ago may still end.
        late = (("everyone", "v1", 1, 0),) if number % 2 else ()
        seen = interval(make, number, ("everyone", "v2", 1000, 40), *late)
        moment = Moment(seen.end, TEN, seen, settle=TEN, propagation=WHO, endpoints=make.ENDPOINTS)
        took = turn(progress, learned, moment)
        progress = took.after

    assert progress.watch.spoiled.own.failures == pytest.approx(300, rel=0.02)
    assert not progress.watch.spoiled.pending


def test_the_sums_of_an_older_store_are_read(make):
    old = Watch().to_json() | {"spoiled": [12.5, 40.0]}

    spoiled = Watch.from_json(old).spoiled

    assert (spoiled.own.failures, spoiled.own.variance, dict(spoiled.lent)) == (12.5, 40.0, {})
    assert Watch.from_json(Watch.from_json(old).to_json()).spoiled == spoiled
