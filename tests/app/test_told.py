"""What a release tells of itself once it has ended: why, where it was, and what can be done."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.app.attention import of_releases
from controlplane.app.switching import undone
from controlplane.release.seen import Propagation
from controlplane.release.state import Phase
from controlplane.web.asked import Act, Adopt, Documents, Order, Switch
from controlplane.web.port import RefusedError

ANN = Act(actor="ann")
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")
RETRY = "`turnout retry shop-v2` runs it again, with other users and new evidence"


async def at_ten(site, kit):
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")


async def promoted(site, kit):
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.PROMOTED)


async def actions(site, release="shop-v2"):
    return [r for r in await site.store.records(release, 1000) if r.kind == "action"]


async def test_a_failure_is_told_with_the_step_where_it_was_while_and_after_it_goes_back(site, kit):
    await at_ten(site, kit)
    site.traffic.mode = "bad"
    await kit.until(site, lambda w: w.releases["shop-v2"].phase is not Phase.PROGRESSING)
    site.fleet.mode = "some"
    await kit.tick(site, 2)

    going = site.plane.release("shop-v2")
    site.fleet.mode = "all"
    await kit.until(site, lambda w: w.releases["shop-v2"].ended)
    after = site.plane.release("shop-v2")

    cause = "errors in segment everyone are above the baseline's: "
    assert going.because.startswith(f"rolling back from ten: {cause}")
    assert going.because.endswith("; may still serve the canary: b")
    assert after.because.startswith(f"rolled back at ten: {cause}")
    assert (going.step, after.step, going.onward, after.onward) == ("ten", "ten", "", RETRY)


async def test_what_a_person_said_of_a_rollback_stays_also_for_who_is_notified(tmp_path, kit):
    told = "notify: [{webhook: 'https://example.com', on: [rolled_back]}]\n"
    site = await kit.start(tmp_path, quick=kit.POLICY + told)
    await at_ten(site, kit)
    await site.plane.act("shop-v2", "rollback", Act(actor="ann", reason="wrong prices"))
    await kit.until(site, lambda w: w.releases["shop-v2"].ended)

    why = "rolled back at ten: rollback by ann: wrong prices; 2 of 2 proxies acknowledged"
    assert site.plane.release("shop-v2").because == why
    assert [m.body["data"]["reason"] for m in await site.store.waiting()] == [why]
    await site.store.close()


async def test_a_release_that_never_started_was_called_off(site, kit):
    manual = kit.RELEASE.replace("auto", "manual")
    await site.plane.take(kit.files(order=manual), "ann")
    await site.plane.act("shop-2", "rollback", ANN)

    shown = site.plane.release("shop-2")

    assert (shown.because, shown.step) == ("called off before it started: rollback by ann", "")


async def test_who_calls_a_retry_off_does_not_take_the_place_of_what_had_failed(tmp_path, kit):
    failing = "on_failure: {do: rollback, retry: {times: 1, after: 10m}}\n"
    site = await kit.start(tmp_path, quick=kit.POLICY + failing)
    await at_ten(site, kit)
    site.traffic.mode = "bad"
    await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.RETRYING)
    await kit.tick(site, 2)
    resting = site.plane.release("shop-v2").because
    await site.plane.act("shop-v2", "rollback", Act(actor="ann", reason="enough"))

    cause = "rolled back at ten: errors in segment everyone are above the baseline's: "
    assert resting.startswith(cause)
    assert "; starts again in " in resting
    assert site.plane.release("shop-v2").because.startswith(cause)
    assert site.plane.release("shop-v2").because.endswith("; not again: rollback by ann: enough")
    await site.store.close()


@pytest.mark.parametrize("how", ["undo", "switch"])
async def test_a_promotion_that_was_undone_says_so_until_its_version_is_stable_again(site, kit, how):
    await promoted(site, kit)
    before = site.plane.release("shop-v2")
    if how == "undo":
        await site.plane.undo("shop", Act(actor="ann", reason="prices"))
    else:
        await site.plane.switch("shop", Switch(actor="ann", version="v1", reason="prices"))

    shown, record = site.plane.release("shop-v2"), (await actions(site))[-1]

    assert (before.undone, before.step, before.onward) == ("", "", "")
    assert shown.undone == shown.because
    assert shown.because == f"undone at {site.clock.now:%Y-%m-%d %H:%M:%S} UTC, {how} to v1 by ann: prices"
    assert (shown.phase, shown.onward) == ("promoted", RETRY)
    assert (record.action, record.actor, record.reason) == (how, "ann", "to v1: prices")
    await site.plane.switch("shop", Switch(actor="ann", version="v2"))
    assert site.plane.release("shop-v2").undone == ""


async def test_a_promotion_that_another_one_followed_was_not_undone(site, kit):
    await promoted(site, kit)
    world = await site.store.world()

    assert undone(world, "shop", "v2", "", site.clock.now) == ()
    assert [r.name for r in undone(world, "shop", "v1", "", site.clock.now)] == ["shop-v2"]


async def test_an_undone_promotion_tells_nobody_of_another_one(tmp_path, kit):
    told = "notify: [{webhook: 'https://example.com', on: [promoted, rolling_back, rolled_back]}]\n"
    site = await kit.start(tmp_path, quick=kit.POLICY + told)
    await promoted(site, kit)

    await site.plane.switch("shop", Switch(actor="ann", version="v1"))
    await site.plane.switch("shop", Switch(actor="ann", version="v2"))

    assert [m.body["type"] for m in await site.store.waiting()] == ["turnout.release.promoted"]
    await site.store.close()


async def test_a_release_that_goes_back_by_an_adoption_has_a_record_of_it(tmp_path, kit):
    site = await kit.start(tmp_path)
    await at_ten(site, kit)
    await site.store.commit(kit.Change(above=10_000))  # what proxies have is another store's

    await site.plane.adopt(Adopt(actor="ann", adopt={"shop": "v1"}, reason="lost"))
    await kit.until(site, lambda w: w.releases["shop-v2"].ended)

    record = (await actions(site))[-1]
    assert (record.action, record.actor, record.step) == ("rollback", "ann", "ten")
    assert record.reason == "adopted: v1 is what is stable: lost"
    told = site.plane.release("shop-v2").because
    assert told.startswith("rolled back at ten: adopted by ann: v1 is what is stable: lost")
    await site.store.close()


async def test_a_record_does_not_say_twice_who_did_what(site, kit):
    await at_ten(site, kit)
    await site.plane.act("shop-v2", "pause", Act(actor="ann", reason="lunch"))
    await site.plane.act("shop-v2", "resume", ANN)

    told = [(r.action, r.actor, r.reason) for r in (await actions(site))[-2:]]

    assert told == [("pause", "ann", "lunch"), ("resume", "ann", "")]


async def test_a_second_pause_keeps_the_first_reason_or_tells_of_it(site, kit):
    await at_ten(site, kit)
    said = []
    for actor, reason in (("ann", "lunch"), ("bob", ""), ("bob", "prices"), ("cid", "more")):
        shown = await site.plane.act("shop-v2", "pause", Act(actor=actor, reason=reason))
        await kit.tick(site, 2)
        assert site.plane.release("shop-v2").because == shown.because
        said.append(shown.because)

    before = "; paused before: pause by ann: lunch"
    assert said[:2] == ["pause by ann: lunch"] * 2
    assert said[2:] == [f"pause by bob: prices{before}", f"pause by cid: more{before}"]


# --- holds ------------------------------------------------------------------------------------------------


async def holds(site):
    return [r for r in await site.store.records("shop-v2", 1000) if r.action == "hold"]


async def test_a_hold_whose_cause_is_another_one_by_now_is_recorded(site, kit):
    await at_ten(site, kit)
    site.traffic.mode = "partial"
    await kit.tick(site, 4)
    site.traffic.mode = "silent"
    await kit.tick(site, 4)

    told = [(r.reason, r.numbers["cause"], r.numbers["again"]) for r in await holds(site)]

    late = "statistics of edge-1 are partial: counters do not add up"
    assert told[-2:] == [
        (late, late, False),
        ("no statistics from edge-1", "no statistics from edge-1", True),
    ]


async def test_a_cause_that_changes_with_every_interval_does_not_flood_the_log(site, kit):
    await at_ten(site, kit)
    before = len(await holds(site))
    for n in range(200):
        site.traffic.mode = ("partial", "silent")[n % 2]
        await kit.tick(site)

    assert before + 2 <= len(await holds(site)) <= before + 8


async def test_a_kind_that_changes_with_every_interval_does_not_flood_the_log(site, kit):
    await at_ten(site, kit)
    site.traffic.mode = "both"  # nothing is proved, nothing fails: the step lasts
    await kit.tick(site, 10)
    before = len(await holds(site))
    for n in range(200):
        site.fleet.mode = ("all", "none")[n % 2]
        await kit.tick(site)
    flapping = len(await holds(site))
    site.fleet.mode = "none"
    await kit.tick(site, 200)  # it has changed for good

    assert before + 2 <= flapping <= before + 10
    assert (await holds(site))[-1].numbers["code"] == "no-proxy"
    assert len(await holds(site)) <= flapping + 2


async def test_a_kind_that_comes_back_after_a_long_time_is_written_at_once(site, kit):
    await at_ten(site, kit)
    site.traffic.mode = "both"  # nothing is proved, nothing fails
    await kit.tick(site, 60)
    for _ in range(5):
        site.fleet.mode = "none"
        await kit.tick(site)
        assert (await holds(site))[-1].numbers["code"] == "no-proxy"
        site.fleet.mode = "all"
        await kit.tick(site, 60)
        assert (await holds(site))[-1].numbers["code"] != "no-proxy"


async def test_another_condition_that_holds_is_another_cause(tmp_path, kit):
    policy = kit.POLICY.replace("{latency: off}]", "{latency: off}, {success_rate: {at_least: 99%}}]")
    site = await kit.start(tmp_path, quick=policy)
    await at_ten(site, kit)
    site.traffic.mode = "both"
    await kit.tick(site, 20)

    last = (await holds(site))[-1]
    assert (last.numbers["code"], last.numbers["cause"]) == ("baseline", "errors, success rate")
    assert (
        "success rate: the baseline breaches the limit itself: 5.19 % failed of late, allowed 1 %"
        in last.reason
    )
    await site.store.close()


async def test_what_has_passed_is_told_by_name_and_the_figures_are_in_the_numbers(site, kit):
    await at_ten(site, kit)
    record = next(r for r in await site.store.records("shop-v2", 1000) if r.action == "advance")

    assert record.reason == "all 2 conditions passed (errors, client errors), judged for 5s"
    verdict = record.numbers["verdicts"][0]
    assert verdict["reason"].startswith("errors do no harm: canary ")
    assert "no baseline of its own" not in verdict["reason"]
    assert verdict["note"].startswith("segment staff has no baseline of its own")


async def test_where_counting_has_not_begun_nobody_looks_for_a_broken_route(site, kit):
    await site.plane.order(TO_V2)
    world = await kit.until(site, lambda w: w.releases["shop-v2"].hold == "verify")

    few = "too few requests to verify the split: segment staff: none counted yet"
    assert world.releases["shop-v2"].because == f"{few}, counting begins 10s after every proxy has the step"


# --- what is wrong, once it has lasted --------------------------------------------------------------------


TOLD = "notify: [{webhook: 'https://example.com'}]\n"


async def told(site):
    return [m.body["type"].removeprefix("turnout.release.") for m in await site.store.waiting()]


@pytest.fixture
async def telling(tmp_path, kit):
    made = await kit.start(tmp_path, quick=kit.POLICY.replace("for: 10s", "for: 10h") + TOLD)
    await at_ten(made, kit)
    await kit.tick(made, 10)
    assert await told(made) == []
    yield made
    await made.store.close()


async def test_a_hiccup_is_recorded_and_told_to_nobody(telling, kit):
    for _ in range(4):
        telling.fleet.mode = "none"
        await kit.tick(telling)
        telling.fleet.mode = "all"
        await kit.tick(telling, 8)

    assert await told(telling) == []
    assert [r.numbers["code"] for r in await holds(telling)].count("no-proxy") >= 2


async def test_a_restart_is_told_to_nobody(telling, kit):
    """No proxy is there when the first tick decides, and the first statistics come an interval later."""
    for _ in range(3):
        again = await kit.Site(telling.store, telling.clock).restore(telling.traffic.totals)
        again.clock, again.fleet.mode = telling.clock, "none"
        await kit.tick(again)
        again.fleet.mode = "all"
        again.traffic.mode = "silent"
        await kit.tick(again)
        again.traffic.mode = "good"
        await kit.tick(again, 8)

    assert await told(telling) == []


async def test_what_lasts_is_told_once_and_so_is_that_it_is_over(telling, kit):
    telling.fleet.mode = "none"
    await kit.tick(telling, 5)
    early = await told(telling)
    await kit.tick(telling, 100)
    lasting = await told(telling)
    telling.fleet.mode = "all"
    await kit.tick(telling, 5)
    doubtful = await told(telling)
    await kit.tick(telling, 20)

    assert (early, lasting, doubtful) == ([], ["held"], ["held"])
    assert await told(telling) == ["held", "cleared"]
    held, cleared = (m.body["data"]["reason"] for m in await telling.store.waiting())
    assert held == "for 30s: no proxy is connected"
    assert cleared.startswith("over: no proxy is connected; now: ")


async def test_what_comes_and_goes_lasts_too(telling, kit):
    for _ in range(12):
        telling.fleet.mode = "none"
        await kit.tick(telling)
        telling.fleet.mode = "all"
        await kit.tick(telling, 3)

    assert await told(telling) == ["held"]


async def test_another_trouble_that_lasts_is_told_as_well(telling, kit):
    telling.fleet.mode = "none"
    await kit.tick(telling, 10)
    telling.fleet.mode = "nack"
    await kit.tick(telling, 4)
    early = await told(telling)
    await kit.tick(telling, 10)

    assert early == ["held"]
    reasons = [m.body["data"]["reason"] for m in await telling.store.waiting()]
    assert reasons[1:] == ["for 30s: b refuses Cluster 'shop~v2': bad"]


def refuses(site, proxy, what):
    """Let one of two proxies refuse something."""
    other = {"a": "b", "b": "a"}[proxy]
    site.fleet.propagation = lambda *_: Propagation(("a", "b"), (other,), ((proxy, what),))


async def test_another_trouble_of_the_same_kind_is_recorded_and_told_with_its_own_time(telling, kit):
    refuses(telling, "b", "Cluster 'shop~v2': bad")
    await kit.tick(telling, 60)
    refuses(telling, "a", "Listener 'http': worse")
    await kit.tick(telling, 1)
    early, recorded = await told(telling), (await holds(telling))[-1]
    await kit.tick(telling, 11)
    state = telling.plane.release("shop-v2")

    assert early == ["held"]
    assert (recorded.reason, recorded.numbers["again"]) == ("a refuses Listener 'http': worse", True)
    reasons = [m.body["data"]["reason"] for m in await telling.store.waiting()]
    assert reasons[1:] == ["for 30s: a refuses Listener 'http': worse"]
    problem = next(of_releases([telling.loop.world.releases["shop-v2"]]))
    assert problem.startswith(
        "release shop-v2: held for 6m, by this for 55s: a refuses Listener 'http': worse"
    )
    assert state.hold == "nack"


async def test_causes_that_change_to_and_fro_do_not_flood_people(telling, kit):
    for n in range(60):
        refuses(telling, "ab"[n % 2], "Cluster 'shop~v2': bad")
        await kit.tick(telling, 8)

    assert 2 <= len(await told(telling)) <= 8


async def test_a_rollback_that_another_proxy_keeps_from_its_end_says_so(telling, kit):
    await telling.plane.act("shop-v2", "rollback", ANN)
    telling.fleet.propagation = lambda *_: Propagation(("a", "b"), ("a",))
    await kit.tick(telling, 60)
    telling.fleet.propagation = lambda *_: Propagation(("a", "b"), ("b",))
    await kit.tick(telling, 20)

    reasons = [m.body["data"]["reason"] for m in await telling.store.waiting()][1:]
    assert reasons == [f"for 30s: may still serve the canary: {who}" for who in "ba"]
    assert [r.reason for r in await holds(telling)][-2:] == [
        f"may still serve the canary: {who}" for who in "ba"
    ]


async def test_a_late_export_does_not_begin_anew_how_long_a_consent_is_waited_for(tmp_path, kit):
    policy = kit.POLICY.replace("name: all, everyone: 100%", "name: all, everyone: 100%, approve: {}")
    site = await kit.start(tmp_path, quick=policy)
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].hold == "approval")
    await kit.tick(site, 200)
    site.traffic.mode = "silent"
    world = await kit.tick(site)
    late = world.releases["shop-v2"]
    site.traffic.mode = "good"
    world = await kit.tick(site, 3)
    state = world.releases["shop-v2"]

    assert (late.hold, state.hold) == ("stale", "approval")
    assert late.held < timedelta(seconds=30)
    assert state.held >= timedelta(seconds=1000)
    assert next(of_releases([state])).startswith("release shop-v2: waits for 17m: ")
    await site.store.close()


async def test_that_both_versions_are_bad_is_told_and_so_is_that_it_is_over(telling, kit):
    telling.traffic.mode = "both"
    await kit.tick(telling, 60)
    (problem,) = of_releases([telling.loop.world.releases["shop-v2"]])
    telling.traffic.mode = "good"
    await kit.tick(telling, 60)

    assert await told(telling) == ["held", "cleared"]
    why = "comparing tells nothing while the old version is not well itself"
    both = "errors: the baseline itself has 9.99 % of late, the canary 9.99 %; usual are 0.114 %"
    assert f"held for 4m: {why}: {both}; see" in problem
    assert "see what both versions suffer from; it goes on by itself" in problem


async def test_while_a_person_has_paused_it_nothing_is_said_to_be_over(telling, kit):
    telling.fleet.mode = "none"
    await kit.tick(telling, 10)
    await telling.plane.act("shop-v2", "pause", ANN)
    telling.fleet.mode = "all"
    await kit.tick(telling, 20)
    paused = await told(telling)
    await telling.plane.act("shop-v2", "resume", ANN)
    await kit.tick(telling, 10)

    assert (paused, await told(telling)) == (["held"], ["held", "cleared"])


async def test_a_release_that_goes_back_is_told_by_that_alone(telling, kit):
    telling.fleet.mode = "none"
    await kit.tick(telling, 10)
    telling.fleet.mode = "all"
    await telling.plane.act("shop-v2", "rollback", ANN)
    await kit.tick(telling, 20)

    assert await told(telling) == ["held", "rolling_back", "rolled_back"]


async def test_a_rollback_that_does_not_end_is_told(telling, kit):
    telling.fleet.mode = "some"
    await telling.plane.act("shop-v2", "rollback", ANN)
    await kit.tick(telling, 20)

    assert await told(telling) == ["rolling_back", "held"]
    assert (await telling.store.waiting())[-1].body["data"][
        "reason"
    ] == "for 30s: may still serve the canary: b"


async def test_what_releases_wait_for_all_the_time_is_told_to_nobody(tmp_path, kit):
    late = "windows: [{days: tue, from: '01:00', to: '02:00'}]\n"
    site = await kit.start(tmp_path, quick=kit.POLICY + TOLD + late)
    await site.plane.order(TO_V2)
    await kit.tick(site, 100)

    assert (site.plane.release("shop-v2").hold, await told(site)) == ("window", [])
    await site.store.close()


# --- the ladder -------------------------------------------------------------------------------------------


def ladder(site, name="shop-v2"):
    return [step.state for step in site.plane.release(name).steps]


async def test_what_was_called_off_before_it_started_has_entered_no_step(site):
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))

    shown = await site.plane.act("shop-v2", "rollback", Act(actor="ann"))

    assert shown.phase == "rolled_back"
    assert ladder(site) == ["todo"] * len(shown.steps)


async def test_steps_that_a_promotion_skips_are_not_shown_as_done(site, kit):
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")

    shown = await site.plane.act("shop-v2", "promote", Act(actor="ann"))

    assert [step.name for step in shown.steps] == ["staff", "ten", "all"]
    assert ladder(site) == ["done", "done", "skipped"]


async def test_steps_that_were_taken_are_done(site, kit):
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))

    await kit.until(site, lambda w: w.releases["shop-v2"].ended)

    assert ladder(site) == ["done"] * 3


async def test_a_version_that_an_order_waits_for_and_that_is_removed_is_warned_about(site, kit):
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    gone = kit.SERVICE.replace("  v2:", "  v3:")

    applied = await site.plane.apply(Documents(files={"shop.yaml": gone}, actor="ann"))

    what = "v2 of 'shop' is not declared any more, and the release cannot start"
    assert applied.problems == ()
    assert applied.warnings[0].startswith(f"Release 'shop-v2' is as it was: {what}")
    assert any(problem.startswith(f"release shop-v2: {what}") for problem in site.plane.problems())
    with pytest.raises(RefusedError, match=r"v2 of .shop. is not declared any more"):
        await site.plane.act("shop-v2", "advance", Act(actor="ann"))

    back = await site.plane.apply(Documents(files={"shop.yaml": kit.SERVICE}, actor="ann"))

    assert back.warnings == ()
    assert not site.plane.release("shop-v2").drift
