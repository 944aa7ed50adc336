"""Values that are pushed: sums, users that count once, keys, and that nothing is stored twice or lost."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from controlplane.evidence import Evidence, Learned, Limits, Outcome, Stage, fold, next_step, verdicts
from controlplane.evidence.account import EMPTY, Interval
from controlplane.evidence.blocks import Blocks
from controlplane.evidence.blocks import total as total_row
from controlplane.evidence.conversions import Conversions, LeastShare, MostShare
from controlplane.evidence.measures import Measured
from controlplane.evidence.observation import Measure, Observation, Users
from controlplane.evidence.sums import Sums
from controlplane.evidence.table import rows_of
from controlplane.sources.pushed import MAX_KEYS, Pushed, Values, cell

START = datetime(2026, 1, 1, tzinfo=UTC)
V2 = cell("everyone", "v2")
PLACE = ("shop", "orders", V2)


def test_pushes_add_up_until_they_are_stored():
    pushed = Pushed(clock=lambda: 0.0)
    pushed.receive(PLACE, Values(10, 2), "", summed=False)
    pushed.receive(PLACE, Values(5, 1), "", summed=False)

    assert pushed.take() == {"shop": (Measure(V2, "orders", 3, 15, age=0.0),)}
    pushed.receive(PLACE, Values(1, 1), "", summed=False)
    pushed.commit()
    assert pushed.take() == {"shop": (Measure(V2, "orders", 1, 1, age=0.0),)}
    pushed.commit()
    assert pushed.take() == {}


def test_a_push_with_a_key_counts_once():
    pushed = Pushed(clock=lambda: 0.0)

    first = pushed.receive(PLACE, Values(10, 2), "a", summed=False)
    again = pushed.receive(PLACE, Values(10, 2), "a", summed=False)

    assert (first, again) == (True, False)
    assert pushed.take()["shop"][0].n == 10
    for number in range(MAX_KEYS):
        pushed.receive(PLACE, Values(1, 0), f"k{number}", summed=False)
    assert pushed.receive(PLACE, Values(1, 0), "a", summed=False)  # the oldest keys are forgotten


@pytest.mark.parametrize(("summed", "total"), [(False, 2), (True, 37)])
def test_a_user_counts_once_and_converts_once_while_sums_add_up(summed, total):
    pushed = Pushed(clock=lambda: 0.0)
    pushed.receive(PLACE, Values(users={"ada": 0, "bob": 12}), "", summed=summed)
    pushed.take()
    pushed.commit()
    pushed.receive(PLACE, Values(users={"ada": 20, "bob": 5, "eve": 0}), "", summed=summed)
    [measure] = pushed.take()["shop"]

    assert measure.n == 1  # eve is new
    assert measure.total + (12 if summed else 1) == total


def test_one_run_of_a_job_may_name_all_of_its_pushes_alike():
    pushed = Pushed(clock=lambda: 0.0)
    places = [("shop", "orders", cell("everyone", "v1")), PLACE, ("shop", "spend", V2)]
    places += [("shop", "orders", cell("beta", "v2")), ("cart", "orders", V2)]

    taken = [pushed.receive(place, Values(10, 2), "run-7", summed=False) for place in (*places, *places)]

    assert taken == [True] * 5 + [False] * 5


def test_in_a_new_era_every_user_is_new_and_none_acts_without_being_counted():
    pushed, came_to = Pushed(clock=lambda: 0.0, born="a"), Users("a.1", 3, 1.0, 1.0)
    pushed.receive(PLACE, Values(users={"ada": 0, "bob": 1}), "", summed=False)
    pushed.take()
    pushed.commit()
    pushed.receive(PLACE, Values(users={"ada": 1}), "", summed=False)
    pushed.begin("shop", "v2#1/first")
    assert pushed.take() == {}

    pushed.receive(PLACE, Values(users={"ada": 1, "bob": 0, "eve": 0}), "", summed=False)
    assert pushed.take()["shop"] == (Measure(V2, "orders", 1, 3, among=3, age=0.0, users=came_to),)
    pushed.commit()
    pushed.receive(PLACE, Values(users={"bob": 1}), "", summed=False)
    pushed.begin("shop", "v2#1/first")
    came_to = Users("a.1", 3, 2.0, 2.0)
    # ada has acted
    assert pushed.take()["shop"] == (Measure(V2, "orders", 1, 0, among=2, age=0.0, users=came_to),)
    pushed.commit()
    assert pushed.take()["shop"] == (Measure(V2, "orders", 0, 0, among=1, age=0.0, users=came_to),)


def test_what_each_user_came_to_is_known_until_all_are_new(monkeypatch):
    monkeypatch.setattr("controlplane.sources.pushed.MAX_USERS", 100)
    pushed, told = Pushed(clock=lambda: 0.0, born="a"), []
    for era in ("v2#1/first", "v2#1/second"):
        pushed.begin("shop", era)
        for users in ({"ada": 3, "bob": 0}, {"ada": 4, "eve": 2}):
            pushed.receive(PLACE, Values(users=users), "", summed=True)
            told.append(pushed.take()["shop"][0].users)
            pushed.commit()
    pushed.receive(PLACE, Values(users={f"u{i}": 1.0 for i in range(150)}), "", summed=True)
    sampled = pushed.take()["shop"][0].users
    other = Pushed(clock=lambda: 0.0)
    other.begin("shop", "v2#1/second")
    other.receive(PLACE, Values(users={"ada": 1}), "", summed=True)

    first, second = Users("a.1", 2, 3.0, 9.0), Users("a.1", 3, 9.0, 53.0)
    assert told == [first, second, first._replace(epoch="a.2"), second._replace(epoch="a.2")]
    assert sampled.n < 100
    assert sampled.total <= sampled.n + 6  # of those who are left, and theirs alone
    assert other.take()["shop"][0].users.epoch not in ("a.1", "a.2")  # another process knows nobody


def test_during_a_release_it_is_known_how_old_the_last_push_is():
    now = 0.0
    pushed = Pushed(clock=lambda: now)
    pushed.begin("shop", "v2#1/first")
    pushed.receive(PLACE, Values(10, 2), "", summed=False)
    pushed.take()
    pushed.commit()
    now = 60.0

    assert pushed.take()["shop"] == (Measure(V2, "orders", 0, 0, age=60.0),)


def test_a_push_that_is_sent_again_makes_nothing_younger():
    now = 0.0
    pushed = Pushed(clock=lambda: now)
    pushed.begin("shop", "v2#1/first")
    for moment in (0.0, 600.0, 1200.0):
        now = moment
        pushed.receive(PLACE, Values(10, 2), "batch-1", summed=False)
    pushed.take()
    pushed.commit()

    assert pushed.take()["shop"] == (Measure(V2, "orders", 0, 0, age=1200.0),)


def test_of_very_many_users_a_part_counts_of_both_versions_alike(monkeypatch):
    monkeypatch.setattr("controlplane.sources.pushed.MAX_USERS", 1000)
    pushed, v1 = Pushed(clock=lambda: 0.0), cell("everyone", "v1")
    pushed.begin("shop", "v2#1/first")
    for number in range(100):
        for version, users in ((v1, 60), (V2, 40)):
            named = {f"{version.version}.{number}.{i}": float(i % 5 == 0) for i in range(users)}
            pushed.receive(("shop", "orders", version), Values(users=named), "", summed=False)
        pushed.take()
        pushed.commit()
    old, new = pushed.take()["shop"]

    assert old.among is not None
    assert new.among is not None
    assert old.among <= 1000
    assert new.among / old.among == pytest.approx(40 / 60, rel=0.2)


def judged(seed, canary, ladder=(0.1, 0.5), ticks=180):
    """Pushes go on since before the release; users come again and again, and may order each time."""
    rng, pushed = np.random.default_rng(seed), Pushed(clock=lambda: 0.0)
    metric = Conversions("orders", Measured("orders", "orders", pushed=True), 0.05, 100)
    limits, evidence, passed = Limits(errors_margin=None, added=(metric,)), Evidence(), 0
    for step, share in enumerate((0.0, *ladder)):
        pushed.begin("shop", f"step {step}" if step else "")
        for _ in range(ticks):
            named = {"v1": {}, "v2": {}}
            for user in rng.integers(0, 20_000, 100):
                version = "v2" if user < 20_000 * share else "v1"
                rate = 0.03 * (canary if version == "v2" else 1)
                named[version][str(user)] = float(rng.random() < rate)
            for version, users in named.items():
                if users:
                    where = ("shop", "orders", cell("everyone", version))
                    pushed.receive(where, Values(users=users), "", summed=False)
            measures = pushed.take()["shop"]
            pushed.commit()
            if not step:
                continue
            passed += 10
            seen = Observation("shop", START, START + timedelta(seconds=10), fresh=("p",), measures=measures)
            at = Stage("v2", "v1", limits, timedelta(seconds=passed), 0.5)
            evidence = fold(evidence, Learned(), seen, at)
            if verdicts(evidence, Learned(), at)[0].outcome is Outcome.FAIL:
                return passed
        evidence = next_step(evidence)
    return None


def test_users_who_were_known_before_the_release_do_not_roll_it_back():
    good = [judged(seed, canary=1.0) for seed in range(6)]
    bad = [judged(seed, canary=0.4) for seed in range(3)]

    assert good == [None] * 6
    assert all(bad)


def rhythm(metric, offset, rates, every=300, hours=2.0, segments=("everyone", "everyone"), value=1.0):
    """Fold pushes of 1000, the baseline's ``offset`` seconds later; yield each second and its verdict."""
    rng, now = np.random.default_rng(3), 0.0
    pushed, evidence = Pushed(clock=lambda: now), Evidence()
    pushed.begin("shop", "v2#1/first")
    limits = Limits(errors_margin=None, added=(metric,))
    sides = list(zip(("v2", "v1"), (0, offset), rates, segments, strict=True))
    while now < hours * 3600:
        begin, now = now, now + 5
        for version, at, rate, segment in sides:
            if at is not None and (now - at) // every > (begin - at) // every:
                total = float(rng.binomial(1000, rate)) * value
                place = ("shop", "orders", cell(segment, version))
                pushed.receive(place, Values(1000, total), "", summed=value != 1)
        measures = pushed.take().get("shop", ())
        pushed.commit()
        interval = START + timedelta(seconds=begin), START + timedelta(seconds=now)
        at = Stage("v2", "v1", limits, timedelta(seconds=begin), 0.5, since=timedelta(seconds=begin))
        seen = Observation("shop", *interval, fresh=("p",), measures=measures)
        evidence = fold(Evidence.from_json(evidence.to_json()), Learned(), seen, at)
        [verdict] = verdicts(evidence, Learned(), at)
        yield now, verdict


def rhythmic(*arguments, **more):
    """Return when the first verdict was that is not "not yet", or the last one, and that verdict."""
    for found in rhythm(*arguments, **more):
        if found[1].outcome is not Outcome.NOT_YET:
            break
    return found


ORDERS = Measured("orders", "orders", pushed=True)


@pytest.mark.parametrize("offset", [0, 5, 60, 150, 295])
def test_versions_that_push_at_moments_of_their_own_are_compared(offset):
    lost, gone = rhythmic(Conversions("orders", ORDERS, 0.05, 100), offset, (0.0, 0.03))
    good, kept = rhythmic(Conversions("orders", ORDERS, 0.2, 100), offset, (0.05, 0.05))

    assert (gone.outcome, kept.outcome) == (Outcome.FAIL, Outcome.PASS)
    assert lost <= 1500
    assert good <= 3600


@pytest.mark.parametrize(
    ("limit", "bad"), [(LeastShare("orders", ORDERS, 0.03), 0.0), (MostShare("orders", ORDERS, 0.06), 0.3)]
)
def test_limits_too_are_judged_by_what_comes_at_moments_of_its_own(limit, bad):
    lost, broken = rhythmic(limit, 60, (bad, 0.045))
    _, kept = rhythmic(limit, 60, (0.045, 0.045))
    _, alike = rhythmic(limit, 60, (bad, bad), hours=1)

    assert (broken.outcome, kept.outcome, alike.outcome) == (Outcome.FAIL, Outcome.PASS, Outcome.NOT_YET)
    assert lost <= 1500


def test_sums_of_both_versions_need_not_come_in_the_same_minute():
    _, verdict = rhythmic(Sums("orders", ORDERS, 0.05), 90, (0.005, 0.05), hours=24, value=25.0)

    assert verdict.outcome is Outcome.FAIL


def test_values_that_never_come_for_the_same_segment_are_told():
    _, verdict = rhythmic(
        Conversions("orders", ORDERS, 0.05, 100), 60, (0.03, 0.03), segments=("beta", "everyone")
    )

    assert (verdict.outcome, verdict.lacking) == (Outcome.NOT_YET, True)
    assert "did not come for the same segment: of the canary for beta, of the baseline for everyone" in (
        verdict.reason
    )


def test_a_sum_whose_orders_are_pushed_apart_waits_for_all_four():
    """Revenue per order: what divides it is pushed too, 20 s before, and the baseline's a minute later."""
    money = Measured("revenue", "revenue", per="orders", pushed=True, per_pushed=True)
    seen = {25: ("orders", "v2", 10.0), 45: ("revenue", "v2", 400.0), 85: ("orders", "v1", 20.0)}
    seen |= {105: ("revenue", "v1", 800.0)}
    at = Stage("v2", "v1", Limits(), timedelta(0), 0.5)
    account, found = EMPTY, {}
    for second in range(5, 200, 5):
        name, version, total = seen.get(second, ("", "", 0.0))
        measures = (Measure(cell("everyone", version), name, total, 10, age=1.0),) if name else ()
        begin, end = START + timedelta(seconds=second - 5), START + timedelta(seconds=second)
        interval = Interval(
            Blocks.of((), rows_of([]), rows_of([]), np.array([], bool), total_row(rows_of([]))),
            Learned(), at, 5.0, 0, True,
            Observation("shop", begin, end, measures=measures),
        )  # fmt: skip
        account, ready = money.paired(account, interval, money.counts(interval))
        found |= {second: ready} if ready else {}

    assert found == {105: {"everyone": (10, 400, 20, 800)}}


@pytest.mark.parametrize(("metric", "each"), [
    (Conversions("orders", replace(ORDERS, every=3600.0), 0.05, 100), 3600),
    (Sums("orders", replace(ORDERS, every=3600.0), 0.05), 3600),
    (Conversions("orders", ORDERS, 0.05, 100), 300),
])  # fmt: skip
def test_the_time_still_needed_is_that_of_pushes_and_is_not_lacking_between_them(metric, each):
    value = 25.0 if isinstance(metric, Sums) else 1.0
    looked = {round(part * each) for part in (0.5, 8.05, 8.3, 8.9, 9.1)}
    told = rhythm(metric, 60, (0.03, 0.03), each, max(looked) / 3600, value=value)
    young, *steady = [verdict for second, verdict in told if second in looked]

    assert len(steady) == 4
    assert {verdict.outcome for verdict in (young, *steady)} == {Outcome.NOT_YET}
    assert not young.lacking
    assert "no values of both versions in this step yet, they should come every" in young.reason
    assert not any(verdict.lacking for verdict in steady)
    seconds = [verdict.seconds_needed for verdict in steady]
    assert min(seconds) >= each
    assert max(seconds) <= 1.5 * min(seconds)
    assert all("more pushes of each version" in verdict.reason for verdict in steady)


def test_what_is_not_pushed_for_three_times_its_rhythm_is_lacking():
    now, verdict = rhythmic(Conversions("orders", ORDERS, 0.05, 100), None, (0.03, 0.03), hours=0.3)

    assert (now, verdict.lacking) == (1080, True)
    assert "no value of the baseline was pushed for 18 min, they should come every 5 min" in verdict.reason


def test_a_sum_of_which_nothing_is_left_is_found_too():
    lost, verdict = rhythmic(Sums("orders", ORDERS, 0.05), 90, (0.0, 0.03), hours=4, value=25.0)

    assert verdict.outcome is Outcome.FAIL
    assert lost <= 2 * 3600
