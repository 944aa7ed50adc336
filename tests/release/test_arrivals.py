"""Which requests a step is judged by: those that come now, on proxies that are there, under its split."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from controlplane.evidence.learned import Learned, learn
from controlplane.evidence.observation import NO_BUCKETS, Cell, Observation, Tally
from controlplane.policy.latency import EDGES_MS
from controlplane.release.state import Phase, Stage
from controlplane.release.turn import Moment, Progress, Propagation, turn
from controlplane.release.watch import GONE, Watch

TEN = timedelta(seconds=10)
SLOW = Tally(1, slower=(1,) * len(EDGES_MS))  # a request that took longer than any edge
RULES = {"conditions": ({"errors": {}},)}


class Releasing:
    """A release that is judged at a step, interval by interval; its state is stored and read at each."""

    def __init__(self, make, *phase, **over):
        self.make, self.now, self.learned = make, make.T0, Learned()
        for _ in range(60):
            past = self._interval({("a", "everyone", "v1"): 3000, ("a", "staff", "v1"): 300}, ("a",))
            self.learned = learn(self.learned, past, "v1")
        rules = over.pop("policy", None) or make.policy(**RULES)
        begun = {"stage": Stage.PROPAGATE, "running": timedelta(hours=1), "policy": rules}
        self.progress = Progress(make.state(*phase, **(begun | over)))
        self.told = []

    @property
    def state(self):
        return self.progress.state

    def _interval(self, counts, proxies, seconds=10, late=()):
        rows = {Cell(*place): n if isinstance(n, Tally) else Tally(n) for place, n in counts.items()}
        start, self.now = self.now, self.now + timedelta(seconds=seconds)
        return Observation("shop", start, self.now, tuple(sorted(rows.items())), proxies, late=late)

    def sees(self, counts, times=1, proxies=("a",), seconds=10, late=()):
        """Return the last decision after intervals that are alike, or until the step ends.

        Counts are by proxy, segment and version.
        """
        took = None
        for _ in range(times):
            seen = self._interval(counts, proxies, seconds, late)
            moment = Moment(
                self.now,
                timedelta(seconds=seconds),
                seen,
                settle=TEN,
                propagation=Propagation(live=proxies, acked=proxies),
                endpoints=self.make.ENDPOINTS,
            )
            before = self.state
            took = turn(self.progress, self.learned, moment)
            stored = Watch.from_json(json.loads(json.dumps(took.after.watch.to_json())))
            assert stored == took.after.watch
            self.told += [(r.action, r.reason) for r in took.records if r.action in ("held", "cleared")]
            self.progress = took.after
            if (before.phase, before.step) != (self.state.phase, self.state.step):
                break
        return took.decision


def everyone(canary, baseline, proxy="a"):
    counts = {(proxy, "everyone", "v1"): baseline, (proxy, "everyone", "v2"): canary}
    return {place: n for place, n in counts.items() if n}


def policy(make, **over):
    steps = make.step("ten", "10%", for_="10m"), make.step("all", "100%")
    return make.policy(**({"steps": steps} | RULES | over))


def staff_first(make):
    """Return a policy whose first step gives a segment to the canary for long."""
    steps = make.step("staff", "100%", segment="staff", match=make.STAFF, for_="2h"), make.step("all", "100%")
    return make.policy(steps=steps, **RULES)


# --- no traffic --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [{}, {("a", "everyone", "v1"): 2}])
def test_a_step_never_passes_on_the_proof_of_requests_that_no_longer_come(make, after):
    release = Releasing(make, step=0, policy=policy(make))
    release.sees(everyone(300, 2700), 30)
    judged, stopped = release.state.judged, release.now

    decision = release.sees(after, 120)

    assert (decision.action, decision.code, release.state.step) == (None, "quiet", 0)
    assert (
        f"no request of v2 in segment everyone has come since {stopped:%Y-%m-%d %H:%M:%S}" in decision.reason
    )
    assert release.state.judged - judged <= 3 * TEN


def test_a_late_flush_does_not_move_the_time_since_when_nothing_comes(make):
    release = Releasing(make, step=0, policy=policy(make))
    release.sees(everyone(300, 2700), 30)
    stopped = release.now
    first = release.sees({}, 30)

    held = release.sees({}, 3, late=("a",))
    again = release.sees({})

    assert (first.code, held.code, again.code) == ("quiet", "stale", "quiet")
    assert f"has come since {stopped:%Y-%m-%d %H:%M:%S} UTC" in again.reason
    assert again.reason == first.reason


def test_a_request_of_an_interval_that_does_not_count_was_one_all_the_same(make):
    release = Releasing(make, step=0, policy=policy(make))
    release.sees(everyone(300, 2700), 30)
    release.sees({}, 30)
    release.sees(everyone(1, 0), proxies=("a",), late=("b",))
    came = release.now

    assert f"has come since {came:%Y-%m-%d %H:%M:%S} UTC" in release.sees({}, 30).reason


def test_where_no_request_came_in_the_step_the_time_is_from_when_they_are_counted(make):
    release = Releasing(make, step=0, policy=staff_first(make), stage=Stage.JUDGE)
    began = release.now + TEN  # by then no request is of the step before

    assert f"has come since {began:%Y-%m-%d %H:%M:%S} UTC" in release.sees({}, 30).reason


def test_the_guard_does_not_end_while_nothing_comes(make):
    release = Releasing(make, Phase.GUARDING, policy=policy(make, guard={"for": "10m", "hold_back": "10%"}))
    release.sees(everyone(2700, 300), 30)

    assert release.sees({}, 120).code == "quiet"
    assert release.sees(everyone(2700, 300), 120).code == "guarded"


def test_a_step_passes_only_after_requests_have_come_again_for_a_while(make):
    release = Releasing(make, step=0, policy=policy(make, steps=(make.step("ten", "10%", for_="3m"),) * 2))
    release.sees(everyone(300, 2700), 15)
    release.sees({}, 60)

    first = release.sees(everyone(300, 2700))

    assert first.code == "returning"
    assert "come again, and must for another" in first.reason
    assert release.sees(everyone(300, 2700), 30).code == "passed"


def test_nobody_is_told_of_requests_that_come_again(make):
    """What was told before is told to be over, and what was over before its time is not told at all."""
    release = Releasing(make, step=0, policy=policy(make))
    release.sees(everyone(300, 2700), 30)

    release.sees({}, 4)
    release.sees(everyone(300, 2700), 12)
    brief = [*release.told]
    release.sees({}, 12)
    release.sees(everyone(300, 2700), 12)

    assert brief == []
    assert [event for event, _ in release.told] == ["held", "cleared"]
    assert "no request of v2 in segment everyone has come since" in release.told[0][1]


def test_a_service_with_a_request_a_minute_finishes_its_step(make):
    """Of one on the canary each minute, some after three: no time without is unusual here."""
    release = Releasing(make, step=0, policy=policy(make, conditions=({"requests": {"at_least": 30}},)))
    codes = []

    for minute in range(240):
        for tick in range(6):
            canary = int(tick == minute % 6 and minute % 7 != 3)
            codes.append(release.sees(everyone(canary, int(tick % 2 == 0))).code)
        if release.state.step:
            break

    assert release.state.step == 1
    assert "quiet" not in codes


def test_intervals_without_any_proxys_statistics_are_no_time_without_requests(make):
    """Their counts come with the next ones."""
    release = Releasing(make, step=0, policy=policy(make))
    release.sees(everyone(300, 2700), 30)

    assert release.sees({}, 12, proxies=()).code != "quiet"
    assert release.sees(everyone(3000, 27_000), 6).code == "dwell"


# --- the split, of late ------------------------------------------------------------------------------------


def test_a_canary_that_gets_no_more_requests_is_found_by_the_next_hundred_or_two(make):
    release = Releasing(make, step=0, policy=policy(make))
    release.sees(everyone(300, 2700), 50)

    decision = release.sees(everyone(0, 300), 20)  # thirty are due in each

    assert decision.code == "split"
    assert "a acknowledged but does not split as asked" in decision.reason


def test_a_hold_back_that_gets_no_more_requests_is_found(make):
    release = Releasing(make, Phase.GUARDING, policy=policy(make, guard={"for": "1h", "hold_back": "10%"}))
    release.sees(everyone(2700, 300), 50)

    assert release.sees(everyone(300, 0), 20).code == "split"


def test_a_proxy_that_split_wrongly_and_was_replaced_is_forgotten(make):
    release = Releasing(make, step=0, policy=policy(make))
    good = everyone(300, 2700)
    wrong = release.sees(good | everyone(0, 3000, "b"), 30, proxies=("a", "b"))
    assert wrong.reason.startswith("b acknowledged but does not split as asked")

    release.sees(good | everyone(300, 2700, "c"), 6, proxies=("a", "c"))

    assert release.sees(good | everyone(300, 2700, "c"), proxies=("a", "c")).code in ("dwell", "verified")


def test_a_proxy_that_splits_as_asked_after_a_while_is_no_problem_any_more(make):
    release = Releasing(make, step=0, policy=staff_first(make))
    staff = {("a", "everyone", "v1"): 500, ("a", "staff", "v2"): 100}
    late = release.sees(staff | {("a", "staff", "v1"): 50}, 4)
    assert late.reason.startswith("a acknowledged but does not split as asked, segment staff: ")
    assert "baseline requests where none should be" in late.reason

    assert release.sees(staff, 9).code != "split"


def test_requests_that_began_before_the_step_may_end_long_after_it(make):
    """Uploads and sockets: what took longer than the step is there does not say where requests go now."""
    release = Releasing(make, step=0, policy=staff_first(make))
    staff = {("a", "everyone", "v1"): 500, ("a", "staff", "v2"): 100}
    release.sees(staff, 4)
    codes = [release.sees(staff | {("a", "staff", "v1"): SLOW}).code for _ in range(60)]

    assert "split" not in codes


@pytest.mark.parametrize("tally", [Tally(20), Tally(20, slower=(20, *NO_BUCKETS[1:]))])
def test_requests_of_a_whole_segment_that_began_in_the_step_disagree_at_once(make, tally):
    release = Releasing(make, step=0, policy=staff_first(make))
    staff = {("a", "everyone", "v1"): 500, ("a", "staff", "v2"): 100}
    release.sees(staff, 60)

    assert release.sees(staff | {("a", "staff", "v1"): tally}).code == "split"


def test_a_proxy_of_long_requests_that_sends_all_of_a_segment_elsewhere_is_found(make):
    release = Releasing(make, step=0, policy=staff_first(make))
    wrong = {("a", "everyone", "v1"): 500, ("a", "staff", "v1"): SLOW + SLOW, ("a", "staff", "v2"): 1}

    assert release.sees(wrong, 60).code == "split"


def test_calls_of_a_client_that_began_before_the_step_do_not_say_where_calls_go(make):
    """A gRPC client tells how many began; how long they took it does not."""
    release = Releasing(make, step=0, policy=staff_first(make))
    counts = {("a", "staff", "v2"): 100, ("a", "staff", "v1"): 2}
    plain = release._interval

    def reported(counts, proxies, seconds=10, late=()):
        seen = plain(counts, proxies, seconds)
        issued = tuple((cell, began.get(cell.version, 0)) for cell, _ in seen.cells)
        return Observation(seen.service, seen.start, seen.end, seen.cells, seen.fresh, issued=issued)

    release._interval, began = reported, {"v2": 100}

    assert "split" not in [release.sees(counts).code for _ in range(60)]
    began["v1"] = 2
    assert "split" in [release.sees(counts).code for _ in range(60)]


# --- names -------------------------------------------------------------------------------------------------


def test_names_of_proxies_that_are_gone_do_not_add_up(make):
    release = Releasing(make, step=0, policy=policy(make))

    for n in range(40):
        release.sees(everyone(30, 270, f"edge-{n}"), 2, proxies=(f"edge-{n}",))

    watch = release.progress.watch
    assert len(watch.whole) <= 4
    assert GONE in watch.whole
    assert sum(counts[0] for counts in watch.whole.values()) == 40 * 2 * 30
    assert {proxy for proxy, _ in watch.step} | {proxy for proxy, _ in watch.split} <= {
        "",
        "edge-38",
        "edge-39",
    }


def test_what_was_stored_before_windows_were_kept_is_read(make):
    release = Releasing(make, step=0, policy=policy(make))
    release.sees(everyone(300, 2700), 20)
    stored = release.progress.watch.to_json()
    del stored["split"], stored["flow"], stored["since"]
    release.progress = Progress(release.state, Watch.from_json(json.loads(json.dumps(stored))))

    assert release.sees(everyone(300, 2700), 2).code == "dwell"
    assert release.sees({}, 12).code == "quiet"
