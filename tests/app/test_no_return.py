"""The point of no return after the guard, over real HTTP: what operators see, and what they may do."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.app.hooking import Hooking
from controlplane.app.posting import Poster, poster_client
from controlplane.release.ports import StoreError
from controlplane.release.state import Phase
from controlplane.web.asked import Act, Order
from controlplane.web.port import RefusedError

ANN = Act(actor="ann")
SURE = Act(actor="ann", past_point_of_no_return=True)
POLICY = """\
kind: Policy
name: quick
steps: [{name: ten, everyone: 10%, for: 5s}, {name: all, everyone: 100%, for: 5s}]
conditions: [{latency: off}, {client_errors: off}, {errors: off}, {success_rate: {at_least: 90%}}]
guard: {for: 5s}
"""


@pytest.fixture
async def site(kit, tmp_path, receiver):
    """Serve a release that waits at the end of its guard for consent to the point of no return."""
    block = f"point_of_no_return: {{approve: {{role: admin}}, run: {{url: '{receiver.url}', timeout: 1m}}}}\n"
    site = await kit.start(tmp_path, quick=POLICY + block)
    site.hooking = Hooking(site.store, site.loop, site.clock)
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    away = "away: after the guard, the call of"
    assert site.plane.release("shop-v2").point_of_no_return.startswith(f"4 steps {away} {receiver.url} (not")
    await kit.until(site, lambda w: w.releases["shop-v2"].hold == "approval")
    assert site.plane.release("shop-v2").point_of_no_return.startswith(f"1 step {away}")
    yield site
    await site.store.close()


async def call(site):
    async with poster_client() as client:
        await asyncio.gather(*site.hooking.begin(Poster(client, {})))


async def cross(kit, site):
    """Consent, and let the loop write the call down."""
    await site.plane.act("shop-v2", "approve", Act(actor="ann", step="point_of_no_return"))
    await kit.until(site, lambda w: w.releases["shop-v2"].crossing is not None)


async def freeze(kit, site, receiver, status=500):
    receiver.answers = [status]
    await cross(kit, site)
    await call(site)
    world = await kit.tick(site)
    assert (world.releases["shop-v2"].phase, world.releases["shop-v2"].halt) == (Phase.GUARDING, "frozen")
    return world.releases["shop-v2"]


async def test_a_yes_promotes_and_the_log_says_when_it_was_crossed(kit, site, receiver):
    with pytest.raises(RefusedError, match="`turnout advance shop-v2` goes on to it"):
        await site.plane.act("shop-v2", "promote", ANN)
    await cross(kit, site)
    assert not receiver.got
    shown = site.plane.release("shop-v2")
    when = f"{site.clock.now:%Y-%m-%d %H:%M:%S} UTC by turnout"
    assert shown.point_of_no_return == f"passed at the call of {receiver.url} ({when}): no answer yet"
    assert "NO WAY BACK" in shown.return_point
    for asked, words in (("rollback", "--past-point-of-no-return"), ("promote", "the answer of .* decides")):
        with pytest.raises(RefusedError, match=words):
            await site.plane.act("shop-v2", asked, ANN)

    await call(site)
    world = await kit.tick(site)

    assert world.stable["shop"] == "v2"
    ((key, _, body),) = receiver.got
    assert (key, body["type"]) == ("shop-v2#1/0/point_of_no_return", "turnout.hook.point_of_no_return")
    actions = [r.action for r in await site.store.records("shop-v2", 1000)]
    assert [a for a in actions if a not in ("hold", "proceed")][-4:] == [
        "approve", "cross", "hook point_of_no_return", "promote",
    ]  # fmt: skip
    with pytest.raises(RefusedError, match="--past-point-of-no-return"):
        await site.plane.undo("shop", ANN)


@pytest.mark.parametrize("status", [409, 500])
async def test_without_a_yes_it_freezes_and_a_person_has_the_same_call_made_again(
    kit, site, receiver, status
):
    state = await freeze(kit, site, receiver, status)
    assert f"answered {status}" in state.because
    await kit.tick(site, 30)
    await call(site)
    assert len(receiver.got) == 1

    await site.plane.act("shop-v2", "resume", ANN)
    await call(site)
    world = await kit.tick(site)

    assert world.releases["shop-v2"].phase is Phase.PROMOTED
    assert [key for key, _, _ in receiver.got] == [state.crossing.key] * 2


async def test_a_person_who_means_it_may_go_back_or_on_without_a_yes(kit, site, receiver):
    await freeze(kit, site, receiver)
    with pytest.raises(RefusedError, match="--past-point-of-no-return"):
        await site.plane.act("shop-v2", "rollback", ANN)

    assert (await site.plane.act("shop-v2", "rollback", SURE)).phase == "rolling_back"
    await call(site)
    assert len(receiver.got) == 1


async def test_a_person_who_knows_that_it_was_done_may_promote(kit, site, receiver):
    await freeze(kit, site, receiver)

    assert (await site.plane.act("shop-v2", "promote", ANN)).phase == "promoted"


async def begun_again(kit, site, totals=None):
    """Return the next life of a process, over the same store."""
    await site.store.close()
    again = await kit.Site(await type(site.store)(site.store.path.parent).open(), site.clock).restore(totals)
    again.hooking = Hooking(again.store, again.loop, site.clock)
    site.store = again.store  # closed at the end
    return again


@pytest.mark.parametrize("called", [False, True])
async def test_a_process_that_dies_past_it_leaves_it_to_a_person(kit, site, receiver, called):
    await cross(kit, site)
    async with poster_client() as client, site.loop.lock:  # held: the answer cannot be stored
        if called:
            (task,) = site.hooking.begin(Poster(client, {}))
            assert await asyncio.to_thread(receiver.wait, 1)
            task.cancel()

    again = await begun_again(kit, site)
    await call(again)
    world = await kit.tick(again)
    await call(again)

    state = world.releases["shop-v2"]
    assert (state.phase, state.halt) == (Phase.GUARDING, "frozen")
    assert "whether it was done is unknown, Turnout ended before an answer was stored" in state.because
    assert len(receiver.got) == called
    assert "is unknown" in again.plane.release("shop-v2").point_of_no_return

    await again.plane.act("shop-v2", "resume", ANN)
    await call(again)
    assert [key for key, _, _ in receiver.got] == [state.crossing.key] * (1 + called)
    assert (await kit.tick(again)).releases["shop-v2"].phase is Phase.PROMOTED


async def test_a_store_that_fails_meanwhile_makes_nobody_repeat_it(kit, site, receiver, monkeypatch):
    await cross(kit, site)
    commit, failures = site.store.commit, []

    async def failing(change):
        if len(failures) < 2:
            failures.append(change)
            raise StoreError("disk is full")
        return await commit(change)

    monkeypatch.setattr(site.store, "commit", failing)
    await call(site)
    await call(site)

    assert (len(receiver.got), len(failures)) == (1, 2)
    assert (await kit.tick(site)).releases["shop-v2"].phase is Phase.PROMOTED


async def test_an_operator_who_advances_crosses_it_with_consent_only(kit, site):
    with pytest.raises(RefusedError, match="waits for a admin to approve 'point_of_no_return'"):
        await site.plane.act("shop-v2", "advance", ANN)
    await site.plane.act("shop-v2", "approve", ANN)

    assert (await site.plane.act("shop-v2", "advance", ANN)).phase == "guarding"

    assert (await site.store.records())[-1].action == "cross"
    assert site.plane.release("shop-v2").point_of_no_return.startswith("passed at the call of")


async def test_an_emergency_takes_no_place_of_a_release_at_its_point_or_past_it(kit, site, receiver):
    urgent = POLICY.replace("name: quick", "name: urgent") + "emergency: true\n"
    three = kit.SERVICE + "  v3: {endpoints: ['10.0.0.3:80']}\n"
    hotfix = kit.RELEASE.replace("shop-2", "hotfix").replace("to: v2", "to: v3").replace("quick", "urgent")
    hotfix = hotfix.replace("start:", "supersedes: shop-v2\nreason: v1 is broken\nstart:")
    texts = {"quick": None, "urgent": urgent, "shop": three, "hotfix": hotfix}
    assert not (await site.plane.take(kit.files(**texts), "ann")).problems

    world = await kit.tick(site, 3)
    assert (world.releases["shop-v2"].phase, world.releases["hotfix"].hold) == (Phase.GUARDING, "succession")
    assert "`turnout advance shop-v2` goes on to its point" in world.releases["hotfix"].because
    await cross(kit, site)
    world = await kit.tick(site, 3)
    assert (world.releases["shop-v2"].phase, world.releases["hotfix"].hold) == (Phase.GUARDING, "succession")
    assert "the answer of" in world.releases["hotfix"].because

    await site.plane.act("shop-v2", "rollback", SURE)
    world = await kit.until(site, lambda w: w.releases["hotfix"].active)

    assert world.stable == {"shop": "v1"}
    assert not receiver.got, "a call that was not made yet is not made any more"


async def test_another_attempt_asks_for_consent_again_and_calls_with_another_key(kit, site, receiver):
    first = await freeze(kit, site, receiver)
    await site.plane.act("shop-v2", "rollback", SURE)
    await kit.until(site, lambda w: w.releases["shop-v2"].ended)
    await site.plane.act("shop-v2", "retry", ANN)
    world = await kit.until(site, lambda w: w.releases["shop-v2"].hold == "approval")
    assert world.releases["shop-v2"].past == ""

    await cross(kit, site)
    await call(site)

    assert (await kit.tick(site)).stable == {"shop": "v2"}
    assert [key[:9] for key, _, _ in receiver.got] == [first.crossing.key[:9], "shop-v2#2"]


async def test_what_froze_it_besides_the_call_is_told_with_it_and_one_resume_answers_both(
    kit, site, receiver
):
    await cross(kit, site)
    site.traffic.mode = "bad"
    world = await kit.until(site, lambda w: w.releases["shop-v2"].halt == "frozen")
    assert world.releases["shop-v2"].frozen_by == ("condition",)
    totals = site.traffic.totals
    again = await begun_again(kit, site, totals)

    state = (await kit.tick(again, 3)).releases["shop-v2"]

    assert (state.halt, state.frozen_by) == ("frozen", ("condition", "call"))
    assert "the limit is broken" in state.because
    assert "whether it was done is unknown, Turnout ended" in state.because
    await again.plane.act("shop-v2", "resume", ANN)
    await call(again)
    world = await kit.tick(again)
    assert world.releases["shop-v2"].phase is Phase.PROMOTED
    assert [key for key, _, _ in receiver.got] == [state.crossing.key]


async def test_nobody_promotes_while_a_call_that_nobody_made_yet_could_still_be_made(kit, site, receiver):
    await cross(kit, site)
    site.traffic.mode = "bad"
    await kit.until(site, lambda w: w.releases["shop-v2"].halt == "frozen")

    with pytest.raises(RefusedError, match=r"the answer of .* decides; `turnout resume shop-v2` lets it be"):
        await site.plane.act("shop-v2", "promote", ANN)

    assert not receiver.got


async def test_an_answer_that_comes_byte_by_byte_is_none_after_the_timeout():
    async def drip(_, writer):
        while not writer.is_closing():
            writer.write(b"H")
            await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with poster_client() as client:
        came = await Poster(client, {}).post(f"http://127.0.0.1:{port}/", {}, "key", 0.3)
    server.close()

    assert (came.status, came.error) == (None, "no answer within 0.3s")


@pytest.mark.parametrize(
    ("over", "words"),
    [
        (
            {"guard: {for: 5s}": "guard: {hold_back: 2%}"},
            "guard.hold_back: there is a point_of_no_return; it",
        ),
        ({"approve: {}, ": ""}, "point_of_no_return.approve: missing"),
        ({", run: 'http://x/y'": ""}, "point_of_no_return.run: missing"),
        ({"http://x/y": "ftp://x"}, "point_of_no_return.run"),
        ({"guard: {for: 5s}": "emergency: true"}, "point_of_no_return: an emergency passes the calendar and"),
        ({"name: ten,": "name: point_of_no_return,"}, "steps[0].name: 'point_of_no_return' is the name"),
        (
            {"name: all,": "name: all, approve: {}, irreversible: {because: x},"},
            "point_of_no_return: step 'all' is irreversible, so the point lies there",
        ),
    ],
)
def test_the_block_needs_consent_a_call_and_nobody_left_behind(kit, over, words):
    text = POLICY + "point_of_no_return: {approve: {}, run: 'http://x/y'}\n"
    assert not kit.load(kit.files(quick=text)).errors
    for old, new in over.items():
        assert old in text
        text = text.replace(old, new, 1)

    found = [str(problem) for problem in kit.load(kit.files(quick=text)).errors]

    assert len(found) == 1
    assert words in found[0]
