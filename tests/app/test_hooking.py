"""Hooks over real HTTP: what a release waits for, what it is told, and nothing skipped by a crash."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from controlplane.app.hooking import Hooking
from controlplane.app.posting import Poster, poster_client
from controlplane.release.state import Phase
from controlplane.web.asked import Act, Documents

POLICY = """\
kind: Policy
name: quick
steps: [{name: ten, everyone: 10%, for: 5s}, {name: all, everyone: 100%, for: 5s}]
conditions: [{latency: off}, {client_errors: off}]
guard: {for: 5s, hold_back: 2%}
on_failure: {do: rollback}
hooks:
"""


@pytest.fixture
def desk(kit, tmp_path, receiver):
    """Start a site whose policy has hooks at some points; `go` ticks and calls until a condition holds."""

    async def start(*points, policy="rollback"):
        hooks = "".join(
            f"  - {{at: {point}, url: '{receiver.url}?{point}', timeout: 1m}}\n" for point in points
        )
        text = POLICY.replace("{do: rollback}", f"{{do: {policy}}}") + hooks
        site = await kit.start(tmp_path, quick=text, release=kit.RELEASE)
        site.hooking = Hooking(site.store, site.loop, site.clock)
        return site

    return start


async def call(site):
    async with poster_client() as client:
        tasks = site.hooking.begin(Poster(client, {}))
        await asyncio.gather(*tasks)


async def go(kit, site, condition, most=40):
    for _ in range(most):
        world = await kit.tick(site)
        if condition(world.releases["shop-2"]):
            return world.releases["shop-2"]
        await call(site)
    raise AssertionError(world.releases["shop-2"])


async def hooks_of(site):
    return [r for r in await site.store.records("shop-2", 1000) if r.kind == "hook"]


async def test_a_release_asks_at_each_point_and_goes_on_when_all_say_yes(kit, desk, receiver):
    site = await desk("start", "before_step", "judging", "before_promote")

    await go(kit, site, lambda r: r.phase is Phase.PROMOTED)

    asked = [(body["data"]["point"], body["data"]["step"]) for _, _, body in receiver.got]
    assert asked == [
        ("start", "ten"),
        ("before_step", "ten"),
        ("judging", "ten"),
        ("before_step", "all"),
        ("judging", "all"),
        ("before_promote", "promoted"),
    ]
    assert all(body["id"] == key for key, _, body in receiver.got)
    assert len({key for key, _, _ in receiver.got}) == 6
    assert [r.action for r in await hooks_of(site)] == [f"hook {point}" for point, _ in asked]
    await site.store.close()


async def test_no_traffic_moves_before_the_first_yes(kit, desk, receiver):
    receiver.answers = [409, 409]
    site = await desk("start")

    world = await kit.tick(site)
    await call(site)
    world = await kit.tick(site, 3)

    state = world.releases["shop-2"]
    assert (state.phase, state.hold) == (Phase.WAITING, "hook-refused")
    assert "said no (answered 409, 1 times)" in state.because
    assert len(receiver.got) == 1  # asked again after half a minute, not at once
    site.clock.pass_(30)
    await call(site)
    site.clock.pass_(30)
    await call(site)
    await go(kit, site, lambda r: r.phase is Phase.PROGRESSING)
    assert [r.reason.rpartition(" said ")[2] for r in await hooks_of(site)] == ["no: answered 409", "yes"]
    await site.store.close()


async def test_a_clock_that_goes_back_does_not_hold_a_question_back(kit, desk, receiver):
    receiver.answers = [500]
    site = await desk("before_step")
    await kit.tick(site)
    await call(site)
    site.clock.now -= timedelta(hours=2)
    await call(site)

    assert len(receiver.got) == 2
    await site.store.close()


async def test_a_judge_that_says_no_fails_the_step(kit, desk, receiver):
    receiver.answers = [412]
    site = await desk("judging", "failure", "end")

    state = await go(kit, site, lambda r: r.phase is Phase.ROLLED_BACK)

    assert "which said no (answered 412" in state.reason
    told = [m.body["data"]["point"] for m in await site.store.waiting()]
    assert told == ["failure", "end"]
    await site.store.close()


async def test_an_unknown_answer_is_no_yes_and_is_asked_again_with_the_same_key(kit, desk, receiver):
    receiver.answers = [500, 503]
    site = await desk("before_step")
    await kit.tick(site)
    await call(site)
    await call(site)
    assert len(receiver.got) == 1
    site.clock.pass_(1)
    await call(site)
    site.clock.pass_(2)
    await call(site)

    assert len(receiver.got) == 3
    assert len({key for key, _, _ in receiver.got}) == 1
    assert next(r.reason for r in await hooks_of(site)).endswith("cannot be asked: answered 500")
    await go(kit, site, lambda r: r.phase is Phase.PROGRESSING)
    await site.store.close()


async def test_a_process_that_dies_in_a_call_makes_it_again_with_the_same_key(kit, desk, receiver):
    site = await desk("start")
    await kit.tick(site)
    async with poster_client() as client, site.loop.lock:  # held: the answer cannot be stored
        (task,) = site.hooking.begin(Poster(client, {}))
        assert await asyncio.to_thread(receiver.wait, 1)
        task.cancel()
    await site.store.close()

    again = await kit.Site(await type(site.store)(site.store.path.parent).open(), site.clock).restore()
    hooking = Hooking(again.store, again.loop, again.clock)
    again.hooking = hooking
    await call(again)

    assert [key for key, _, _ in receiver.got] == [receiver.got[0][0]] * 2
    world = await kit.tick(again, 2)
    assert world.releases["shop-2"].phase is Phase.PROGRESSING
    await again.store.close()


async def test_nobody_is_asked_for_a_release_that_is_paused_or_rolled_back(kit, desk, receiver):
    receiver.answers = [500]
    site = await desk("before_step")
    await kit.tick(site)
    await call(site)
    await site.plane.act("shop-2", "rollback", Act(actor="ann"))
    site.clock.pass_(timedelta(minutes=5).total_seconds())
    await call(site)

    assert len(receiver.got) == 1
    await site.store.close()


async def test_a_judge_is_asked_anew_about_endpoints_that_took_the_place_of_those_it_knew(
    kit, desk, receiver
):
    site = await desk("judging")
    await go(kit, site, lambda r: bool(r.calls))
    await call(site)
    assert (await site.store.world()).releases["shop-2"].calls[0].answer == "yes"
    others = kit.SERVICE.replace('"10.0.0.2:80"', '"10.0.0.9:80"')
    await site.plane.apply(Documents(files={"shop.yaml": others}, actor="ann"))
    receiver.answers = [409]

    state = await go(kit, site, lambda r: r.phase is Phase.ROLLED_BACK)

    assert "which said no" in state.reason
    (first, _, _), (second, _, body) = receiver.got
    assert first != second
    assert (body["data"]["point"], body["data"]["step"]) == ("judging", "ten")
    await site.store.close()


@pytest.mark.parametrize("retry", ["", ", retry: {after: 10s}"])
async def test_a_step_that_begins_again_after_a_step_back_asks_other_questions(kit, desk, receiver, retry):
    site = await desk("before_step", "judging", policy=f"step_back{retry}")
    await go(kit, site, lambda r: r.step == 1 and r.stage == "judge")
    receiver.answers = [409]
    await go(kit, site, lambda r: r.step == 0)
    if not retry:
        await go(kit, site, lambda r: r.hold == "stepped-back")
        await site.plane.act("shop-2", "advance", Act(actor="ann"))

    await go(kit, site, lambda r: r.phase is Phase.PROMOTED)

    about = [(key, body["data"]["point"], body["data"]["step"]) for key, _, body in receiver.got]
    assert len({key for key, _, _ in about}) == len(about), "each question has a key of its own"
    judged = [step for _, point, step in about if point == "judging"]
    assert judged == ["ten", "all", "ten", "all"]
    await site.store.close()


async def test_an_order_that_is_edited_while_it_waits_is_another_question(kit, desk, receiver):
    receiver.answers = [409]
    site = await desk("start")
    await kit.tick(site)
    await call(site)
    other = POLICY.replace("everyone: 10%", "everyone: 20%")
    hooks = f"  - {{at: start, url: '{receiver.url}?start', timeout: 1m}}\n"
    await site.plane.apply(Documents(files={"quick.yaml": other + hooks}, actor="ann"))

    await go(kit, site, lambda r: r.phase is Phase.PROGRESSING)

    (first, _, _), (second, _, _) = receiver.got
    assert first != second
    await site.store.close()


async def told(site):
    return [m.body["data"]["point"] for m in await site.store.waiting()]


@pytest.mark.parametrize("do", ["rollback", "step_back", "hold", "freeze"])
async def test_a_failure_is_told_once_whatever_it_leads_to(kit, desk, receiver, do):
    receiver.answers = [200, 409] if do == "step_back" else [409]
    site = await desk("judging", "failure", policy=do)
    signs = {"hold": "failed", "freeze": "frozen"}

    await go(kit, site, lambda r: r.hold == signs.get(do) or r.phase is Phase.ROLLED_BACK or r.barred)
    await kit.tick(site, 10)

    assert await told(site) == ["failure"]
    await site.store.close()


async def test_each_attempt_tells_of_its_end_once_and_that_another_one_begins(kit, desk, receiver):
    receiver.answers = [409]
    site = await desk("judging", "failure", "end", policy="rollback, retry: {after: 20s}")
    await go(kit, site, lambda r: r.phase is Phase.RETRYING)
    assert await told(site) == ["failure", "end"]

    await site.plane.act("shop-2", "rollback", Act(actor="ann"))
    assert (await site.store.world()).releases["shop-2"].phase is Phase.ROLLED_BACK
    assert await told(site) == ["failure", "end"], "calling the retry off is no end of its own"
    await site.store.close()
