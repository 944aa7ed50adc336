"""What a release does that has no proof for long: missing data never lets it go on, and may take it back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.evidence.learned import Learned, learn
from controlplane.evidence.observation import Cell, Observation, Reading, Tally
from controlplane.evidence.verdict import Outcome
from controlplane.release.decide import decide
from controlplane.release.state import Phase, Stage
from controlplane.release.turn import Moment, Progress, Propagation, turn

TEN, AFTER = timedelta(seconds=10), timedelta(minutes=5)
WHO = Propagation(live=("a",), acked=("a",))
QUEUE = {"name": "queue", "query": "q", "at_most": 10, "every": "10s"}
DOWN = Reading("queue", None, problem="Prometheus cannot be reached")
FEW = {"v1": 270, "v2": 30}  # requests in an interval: enough to verify, too few to prove
ABOVE = {"v1": (270, 29), "v2": (30, 4)}  # above 10 %, and hardly above the baseline
BROKEN = {"v1": (270, 200), "v2": (30, 20)}


def interval(start, counts, **more):
    rows = ((version, (n, 0) if isinstance(n, int) else n) for version, n in counts.items())
    cells = tuple((Cell("a", "everyone", version), Tally(*row)) for version, row in sorted(rows))
    return Observation("shop", start, start + TEN, cells, **({"fresh": ("a",)} | more))


class Releasing:
    """A release of the step `ten` under a policy, interval by interval."""

    def __init__(self, make, do, *conditions, **over):
        self.make, self.now, self.learned = make, make.T0, Learned()
        for n in range(30, 0, -1):
            self.learned = learn(self.learned, interval(make.T0 - n * TEN, {"v1": 3000}), "v1")
        rules = make.policy(
            when_unsure={"after": AFTER, "do": do},
            conditions=conditions or ({"errors": {}},),
        )
        begun = {"stage": Stage.PROPAGATE, "running": timedelta(hours=1)}
        self.progress = Progress(make.state(policy=rules, **(begun | over)))

    @property
    def state(self):
        return self.progress.state

    def sees(self, counts, times=1, acked=WHO, **more):
        """Return what was decided last, after intervals that are alike, or until the step ends."""
        last = None
        for _ in range(times):
            seen = interval(self.now, counts, **more)
            self.now += TEN
            moment = Moment(self.now, TEN, seen, settle=TEN, propagation=acked, endpoints=self.make.ENDPOINTS)
            took = turn(self.progress, self.learned, moment)
            self.learned = learn(self.learned, seen, "v1")
            before, self.progress, last = self.state, took.after, took.decision
            if (before.phase, before.step) != (self.state.phase, self.state.step):
                break
        return last


LONG = 2 * AFTER // TEN


def test_few_requests_that_are_all_there_advance_without_proof_after_the_time(make):
    release = Releasing(make, "advance")

    decision = release.sees(FEW, LONG)

    assert (decision.code, release.state.step) == ("without-proof", 2)
    assert decision.reason.startswith("advanced without proof; unsure for 5m")


@pytest.mark.parametrize(
    ("conditions", "counts", "more", "words"),
    [
        (({"prometheus": QUEUE},), FEW, {"readings": (DOWN,)}, "Prometheus cannot be reached"),
        (({"ejections": {"at_most": 0}},), FEW, {}, "not reported by a, whose bootstrap is older"),
        (({"requests": {"at_least": 9000}},), FEW, {}, "of 9000 canary requests judged in this step"),
        (({"errors": {}},), BROKEN, {}, "errors: the baseline itself has "),
        (({"errors": {}, "grace": "1h"},), FEW, {}, "in grace"),
    ],
)
def test_what_cannot_be_known_never_lets_a_step_go_on(make, conditions, counts, more, words):
    release = Releasing(make, "advance", *conditions)

    decision = release.sees(counts, LONG, **more)

    assert (decision.action, release.state.step) == (None, 1)
    assert words in decision.reason


def reading(value):
    return {"readings": (Reading("queue", value),)}


@pytest.mark.parametrize(
    ("condition", "counts", "more", "words"),
    [
        ({"prometheus": QUEUE}, FEW, lambda n: reading(1.0 if n % 3 == 0 else 900.0), "readings within it"),
        ({"success_rate": {"at_least": "90%"}}, ABOVE, lambda n: {}, "allowed 10 %"),
    ],
)
def test_nothing_goes_on_while_what_was_seen_speaks_against_the_canary(make, condition, counts, more, words):
    """Not beyond doubt, so nothing is rolled back either; for an hour, and not in a good moment either."""
    release = Releasing(make, "advance", {"errors": "off"}, condition)

    decisions = [release.sees(counts, **more(n)) for n in range(360)]

    assert {decision.action for decision in decisions[20:]} == {None}
    assert release.state.step == 1
    assert words in decisions[-1].reason


def test_a_suspicion_of_one_condition_keeps_a_step_from_going_on(make):
    """Latency fails at 1200, so an E of 100 is less than a tenth of it; but that is no lack of requests."""
    verdict = replace(make.verdict(Outcome.NOT_YET, "latency"), doubtful=True)
    state = make.state(
        policy=make.policy(when_unsure={"after": AFTER, "do": "advance"}), unproved=AFTER, sighted=AFTER
    )

    held = decide(state, make.seen(verdicts=(verdict,)))
    gone = decide(state, make.seen(verdicts=(replace(verdict, doubtful=False),)))

    assert (held.action, held.code, gone.code) == (None, "not-yet", "without-proof")


@pytest.mark.parametrize("served", [15, 28])
def test_traffic_that_stopped_lets_nothing_go_on(make, served):
    release = Releasing(make, "advance")
    release.sees(FEW, served)

    decision = release.sees({"v1": 300}, LONG)

    assert (decision.action, release.state.step) == (None, 1)


@pytest.mark.parametrize("more", [{"late": ("b",)}, {"silent": ("b",)}, {"partial": (("b", "a gap"),)}])
def test_one_proxy_without_fresh_data_keeps_an_interval_from_counting(make, more):
    release = Releasing(make, "hold")
    plenty = {"v1": 27_000, "v2": 3000}
    release.sees(plenty, 2)

    decision = release.sees(plenty, 6, **more)

    assert (decision.code, release.state.step) == ("stale", 1)
    assert "b" in decision.reason
    assert release.sees(plenty, 3).code == "passed"


def test_time_without_data_is_no_time_of_judging_without_proof(make):
    """A source that returns is listened to before it is done without."""
    release = Releasing(make, "advance", {"errors": {}}, {"prometheus": QUEUE})
    release.sees(FEW, LONG, readings=(DOWN,))

    decision = release.sees(FEW, readings=(Reading("queue", 1.0),))

    assert (decision.action, release.state.step) == (None, 1)


def test_proof_begins_the_time_without_it_anew(make):
    release = Releasing(make, "rollback", {"prometheus": QUEUE})
    release.progress = Progress(release.state.model_copy(update={"rest": timedelta(hours=9)}))
    release.sees(FEW, 20, readings=(Reading("queue", 1.0),))
    assert release.state.hold == "resting"

    decision = release.sees(FEW, AFTER // TEN - 1, readings=(DOWN,))

    assert (decision.action, decision.code) == (None, "no-data")
    assert release.sees(FEW, 2, readings=(DOWN,)).code == "unsure/everyone"


@pytest.mark.parametrize(
    ("counts", "more", "words"),
    [
        ({}, {}, "no request of shop has come for "),
        ({"v1": 9, "v2": 1}, {}, "50 canary requests must be due"),
        ({}, {"fresh": (), "silent": ("a",)}, "no statistics from a"),
        (FEW, {"partial": (("a", "a gap"),)}, "statistics of a are partial: a gap"),
        ({"v1": 270, "v2": 600}, {}, "a acknowledged but does not split as asked"),
    ],
)
@pytest.mark.parametrize("do", ["hold", "rollback", "advance"])
def test_a_step_that_starves_holds_and_then_does_what_the_policy_says(make, do, counts, more, words):
    release = Releasing(make, do)

    early = release.sees(counts, AFTER // TEN - 1, **more)
    late = release.sees(counts, 3, **more)

    assert early.action is None
    assert words in early.reason
    assert (release.state.phase is Phase.ROLLING_BACK) is (do == "rollback")
    if do == "rollback":
        assert late.reason.startswith("unsure for 5m")
        assert words in late.reason
    assert release.state.step == 1


def test_a_halt_is_no_time_without_proof(make):
    release = Releasing(make, "rollback")
    release.sees({}, 2)
    release.progress = Progress(release.state.model_copy(update={"halt": "paused"}))
    release.sees({}, LONG)
    release.progress = Progress(release.state.model_copy(update={"halt": None}))

    assert release.sees({}).action is None


def test_what_verifies_a_split_says_how_long_it_takes(make):
    """One canary request in 10 s: 40 s have passed of the 500 s that 50 take."""
    release = Releasing(make, "hold")

    release.sees({"v1": 9, "v2": 1}, 5)

    assert "50 canary requests must be due, 8 min more at the traffic of this step" in release.state.because


def test_a_record_has_the_reason_of_each_verdict_and_what_is_still_needed(make):
    release = Releasing(make, "hold")
    release.sees(FEW, 3)
    before = release.progress
    moment = Moment(release.now, TEN, interval(release.now, FEW), propagation=WHO, endpoints=make.ENDPOINTS)

    took = turn(Progress(before.state.model_copy(update={"hold": ""}), before.watch), release.learned, moment)

    (verdict,) = took.records[0].numbers["verdicts"]
    assert "too few requests to be sure" in verdict["reason"]
    assert verdict["requests_needed"] > 0
    assert verdict["seconds_needed"] > 0


@pytest.mark.parametrize("acked", [WHO, Propagation(live=("a", "b"), acked=("a",))])
def test_grace_ends_by_the_clock_also_while_a_step_is_not_verified_or_not_everywhere(make, acked):
    """With three requests of the canary in 10 s, verification alone takes three minutes."""
    release = Releasing(make, "hold", {"errors": {}, "grace": "30s"})
    failing = {"v1": 27, "v2": (3, 3)}

    release.sees(failing, 3, acked=acked)
    assert release.state.phase is Phase.PROGRESSING
    decision = release.sees(failing, 12, acked=acked)

    assert (decision.code, release.state.phase) == ("errors/everyone", Phase.ROLLING_BACK)
    assert release.state.judged == timedelta(0)
