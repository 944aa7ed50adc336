"""A rollback is told as done only when no proxy that had the canary may still serve it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.evidence.learned import Learned
from controlplane.policy.values import NAMED
from controlplane.release.confirming import GONE, KEPT, SOON
from controlplane.release.moves import act
from controlplane.release.notices import event_of
from controlplane.release.seen import Moment, Propagation
from controlplane.release.state import Action, Phase, ReleaseState
from controlplane.release.traffic import Endpoints
from controlplane.release.turn import Progress, turn
from controlplane.release.unconfirmed import Unconfirmed, named
from controlplane.release.way_back import describe

INTERVAL = timedelta(seconds=5)
BOTH = Propagation(("a", "b"), ("a", "b"))
ONE = Propagation(("a",), ("a",))
NOBODY = Propagation()
STRAY = replace(ONE, unserved=(("b", "belongs to no fleet"),))
LEFT = replace(ONE, left=("b",))


class Life:
    """A release, turn by turn."""

    def __init__(self, make, phase=Phase.ROLLING_BACK, **over):
        self.make = make
        gate = over.pop("gate", (("a", 0.0), ("b", 0.0)))
        self.state = make.state(phase, gate=gate, turned_at=make.T0, reason="bad", **over)
        self.at = make.T0
        self.records = []
        self.codes = []

    def see(self, propagation, seconds=5, *, elapsed=None):
        """Let turns pass in which the proxies are like this."""
        for _ in range(round(seconds / 5)):
            self.at += INTERVAL
            moment = Moment(
                at=self.at,
                elapsed=INTERVAL if elapsed is None else elapsed,
                propagation=propagation,
                endpoints=self.make.ENDPOINTS,
                stable="v1",
            )
            took = turn(Progress(self.state), Learned(), moment)
            self.state = took.after.state
            self.records += took.records
            self.codes.append(took.decision.code)
        return self

    @property
    def told(self):
        """What people and other systems are told."""
        return [event for record in self.records if (event := event_of(record, self.state))]

    @property
    def moved(self):
        """What was done to it."""
        return [r.action for r in self.records if r.action not in ("hold", "held", "cleared")]

    @property
    def rollback(self):
        return describe(self.state, Endpoints(dict(self.make.ENDPOINTS)), "v1")


@pytest.fixture
def life(make):
    return Life(make)


def test_a_rollback_that_all_acknowledged_is_done(life):
    life.see(BOTH)

    assert life.state.phase is Phase.ROLLED_BACK
    assert life.state.because == "2 of 2 proxies acknowledged"
    assert life.rollback == "done: v1 has every request"
    assert life.told == ["rolled_back"]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(BOTH, acked=("a",)), "may still serve the canary: b"),
        (STRAY, "may still serve the canary: b (belongs to no fleet)"),
        (replace(NOBODY, unserved=STRAY.unserved), "may still serve the canary: b (belongs to no fleet)"),
    ],
    ids=["behind", "of no fleet", "of no fleet, and nobody else is there"],
)
def test_a_rollback_does_not_end_while_a_connected_proxy_may_serve_the_canary(make, seen, words):
    life = Life(make, gate=(("b", 0.0),) if not seen.live else (("a", 0.0), ("b", 0.0)))

    life.see(seen, 3600)

    assert life.state.phase is Phase.ROLLING_BACK
    assert life.state.because.endswith(words)
    assert life.told == ["held"]  # it lasts


def test_a_proxy_that_is_of_a_fleet_without_the_service_and_has_replaced_it_is_not_waited_for(life):
    life.see(STRAY, 60).see(LEFT)

    assert life.state.phase is Phase.ROLLED_BACK
    assert life.rollback == "done: v1 has every request"


def test_a_proxy_that_never_had_the_release_is_not_waited_for(make):
    life = Life(make, gate=(("a", 0.0),))

    life.see(ONE)

    assert life.rollback == "done: v1 has every request"


def test_a_proxy_that_went_away_is_waited_for_a_minute_and_then_the_end_is_not_confirmed(life):
    life.see(ONE, 5)
    absent = life.state.because
    life.see(ONE, 50)
    away = life.state.because
    life.see(ONE, 5)

    assert absent == "may still serve the canary: b (not connected)"
    assert away == "may still serve the canary: b (last seen 2026-03-01 12:00:00 UTC)"
    assert life.state.phase is Phase.ROLLED_BACK
    assert life.state.because == (
        "1 of 1 proxies acknowledged; NOT CONFIRMED: b (last seen 2026-03-01 12:00:00 UTC) may still serve v2"
    )
    assert (
        life.rollback
        == "NOT CONFIRMED: b (last seen 2026-03-01 12:00:00 UTC) may still serve v2; all others have v1"
    )
    assert set(life.told) == {"held"}


def test_an_end_is_confirmed_by_the_proxy_that_comes_back(life):
    life.see(ONE, 60).see(ONE, 120).see(replace(BOTH, acked=("a",)), 10)
    before = life.rollback
    life.see(BOTH)

    assert before.startswith("NOT CONFIRMED: b (last seen 2026-03-01 12:03:10 UTC)")
    assert life.state.phase is Phase.ROLLED_BACK
    assert life.state.because == "confirmed: 2 of 2 proxies acknowledged"
    assert life.rollback == "done: v1 has every request"
    assert life.moved == ["finish", "confirm"]
    assert life.told[-1] == "rolled_back"


def test_a_proxy_that_stays_away_while_others_are_there_is_taken_for_gone(life):
    life.see(ONE, GONE.total_seconds() - 5)
    before = life.state.unconfirmed
    life.see(ONE, 5)

    assert [each.proxy for each in before] == ["b"]
    assert life.state.because == (
        "confirmed: 1 of 1 proxies acknowledged; taken for gone: b (last seen 2026-03-01 12:00:00 UTC)"
    )
    assert life.told[-1] == "rolled_back"


def test_where_nobody_is_left_a_rollback_ends_and_is_never_confirmed_by_time(life):
    life.see(NOBODY, 55)
    before = life.state.phase
    life.see(NOBODY, 2 * GONE.total_seconds())
    resting = life.state
    life.see(NOBODY, 5)

    assert before is Phase.ROLLING_BACK
    assert life.state.phase is Phase.ROLLED_BACK
    assert life.state.because.startswith("no proxy is connected; NOT CONFIRMED: a (last seen ")
    assert life.state == resting  # nothing is written any more
    assert set(life.told) == {"held"}

    life.see(BOTH)

    assert life.rollback == "done: v1 has every request"
    assert life.told[-1] == "rolled_back"


def test_a_rollback_of_what_no_proxy_ever_had_ends(make):
    life = Life(make, gate=())

    life.see(NOBODY, SOON.total_seconds() + 5)

    assert life.state.because == "no proxy is connected"
    assert life.rollback == "done: v1 has every request"


def test_who_went_away_long_before_the_rollback_is_named_but_not_waited_for(make):
    life = Life(make, Phase.PROGRESSING, policy=make.policy(conditions=()))
    life.see(ONE, GONE.total_seconds())
    life.state = life.state.model_copy(update={"phase": Phase.ROLLING_BACK})
    life.see(ONE)

    assert life.state.phase is Phase.ROLLED_BACK
    assert life.state.because == (
        "1 of 1 proxies acknowledged; taken for gone: b (last seen 2026-03-01 12:00:00 UTC)"
    )
    assert life.told[-1] == "rolled_back"


def test_while_the_control_plane_is_away_nobody_is_taken_for_gone(life):
    life.see(ONE, 20)
    life.at += timedelta(hours=5)

    life.see(ONE, 5, elapsed=timedelta(0))

    assert life.state.phase is Phase.ROLLING_BACK
    assert life.state.unconfirmed[0].away == timedelta(seconds=20)
    assert named(life.state.unconfirmed) == "b (last seen 2026-03-01 12:00:00 UTC)"


def test_what_starts_again_by_itself_does_so_once_its_rollback_is_confirmed(make):
    life = Life(make, rest=timedelta(seconds=30))
    life.see(ONE, 60)
    ended = life.state
    life.see(ONE, 60)
    held = life.state
    life.see(BOTH)
    confirmed = life.state
    life.see(BOTH)

    assert (ended.phase, held.phase, confirmed.phase) == (Phase.RETRYING,) * 3
    assert held.because.startswith("does not start again before its rollback is confirmed; NOT CONFIRMED: b ")
    assert life.state.phase is Phase.WAITING
    assert life.state.attempt == 2
    assert life.moved == ["rest", "confirm", "retry"]
    assert "cleared" not in life.told[: life.told.index("rolled_back")]


def test_another_attempt_knows_whom_the_one_before_left_unconfirmed(life):
    life.see(ONE, 60)
    life.state = life.state.model_copy(update={"phase": Phase.RETRYING})

    again = act(life.state, Action.RETRY, "by ann")

    assert [each.proxy for each in again.unconfirmed] == ["b"]


def test_a_promotion_is_confirmed_when_every_proxy_that_was_there_has_acknowledged_it(make):
    life = Life(make, Phase.GUARDING)
    life.state = act(life.state, Action.PROMOTE, "promote by ann")
    at_once = life.state.unconfirmed
    life.see(replace(BOTH, acked=()), 10).see(ONE, 60)
    partly = life.state.unconfirmed
    life.see(STRAY, GONE.total_seconds())
    stray = life.state.unconfirmed
    life.see(BOTH)

    assert [each.proxy for each in at_once] == ["a", "b"]
    assert [each.proxy for each in partly] == [each.proxy for each in stray] == ["b"]
    assert life.state.unconfirmed == ()
    assert life.state.because == "promote by ann"
    assert not life.records


def test_of_a_fleet_that_comes_and_goes_all_the_latest_are_remembered_and_few_of_the_others(make):
    life = Life(make, Phase.PROGRESSING, gate=(), policy=make.policy(conditions=()))
    for number in range(4 * KEPT):
        life.see(Propagation((f"p{number:02}",), (f"p{number:02}",)), 60)

    names = [each.proxy for each in life.state.unconfirmed]
    assert names == [f"p{number:02}" for number in range(4 * KEPT - 1 - KEPT, 4 * KEPT - 1)]
    assert named(life.state.unconfirmed).endswith(f" and {KEPT - NAMED} more")


def test_a_stored_release_of_before_has_nobody_who_is_not_confirmed(make):
    plain = make.state(Phase.ROLLED_BACK).model_dump(mode="json", by_alias=True)
    del plain["unconfirmed"], plain["turned_at"]

    state = ReleaseState.model_validate(plain)

    assert (state.unconfirmed, state.turned_at) == ((), None)


def test_a_release_with_unconfirmed_proxies_is_stored_and_read(make):
    state = make.state(unconfirmed=(Unconfirmed(proxy="b", seen=make.T0, away=SOON),))

    assert ReleaseState.model_validate_json(state.model_dump_json(by_alias=True)) == state
