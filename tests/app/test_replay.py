"""A release that the loop ran, decided again from what the store kept of it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.evidence.observation import Reading
from controlplane.release.ports import Change
from controlplane.release.replay import replay
from controlplane.release.state import Phase
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Act, Order

ANN = Act(actor="ann")


@pytest.fixture(autouse=True)
def keep(monkeypatch):
    """The site's clock stands in the past; what the store forgets it forgets by its own."""
    monkeypatch.setattr("controlplane.stores.rows.KEEP_TURNS", timedelta(days=10_000))


async def ordered(site):
    return (await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))).name


async def decided(site, name):
    """Return what the loop wrote down since the release began."""
    records = [r for r in await site.store.records(name, 1000) if r.kind == "decision"]
    begins = next(i for i, r in enumerate(records) if r.action == "start")
    return [r.model_dump(exclude={"number"}) for r in records[begins:]]


async def again(site, name, policy=None):
    recording = await site.store.recording(name)
    return list(replay(recording.origin, recording.turns, policy))


def written(taken):
    return [r.model_dump(exclude={"number"}) for each in taken for r in each.turn.records]


@pytest.mark.parametrize("end", ["good", "bad"])
async def test_a_replay_decides_as_the_loop_did_with_the_same_numbers(site, kit, end):
    await kit.tick(site, 5)  # the past that teaches
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    site.traffic.mode = end
    world = await kit.until(site, lambda w: w.releases[name].ended)

    taken = await again(site, name)

    assert written(taken) == await decided(site, name)
    state = taken[-1].turn.after.state
    assert state.phase is (Phase.PROMOTED if end == "good" else Phase.ROLLED_BACK)
    assert state == world.releases[name].model_copy(update={"revision": state.revision})


async def test_a_replay_crosses_a_point_of_no_return_as_the_loop_did_and_calls_nobody(kit, tmp_path):
    policy = kit.POLICY.replace("{latency: off}]", "{latency: off}, {success_rate: {at_least: 90%}}]")
    policy = policy.replace(", hold_back: 2%", "") + "point_of_no_return: {approve: {}, run: 'http://x/y'}\n"
    site = await kit.start(tmp_path, quick=policy)
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].hold == "approval")
    await site.plane.act(name, "approve", ANN)
    await kit.until(site, lambda w: w.releases[name].crossing is not None)
    totals = site.traffic.totals
    await site.store.close()

    later = await kit.Site(await SqliteStore(tmp_path).open(), site.clock).restore(totals)
    world = await kit.tick(later, 2)
    assert world.releases[name].halt == "frozen"
    await later.plane.act(name, "promote", ANN)

    taken = await again(later, name)

    assert written(taken) == await decided(later, name)
    state = taken[-1].turn.after.state
    assert (state.halt, state.crossing) == ("frozen", world.releases[name].crossing)
    await later.store.close()


async def test_a_replay_follows_silence_stragglers_operators_and_a_restart(site, kit, tmp_path):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    site.fleet.mode = "some"
    await kit.tick(site, 4)
    site.fleet.mode = "all"
    site.traffic.mode = "silent"
    await kit.tick(site, 4)
    site.traffic.mode = "good"
    await site.plane.act(name, "pause", ANN)
    await kit.tick(site, 3)
    await site.plane.act(name, "resume", ANN)
    await site.plane.act(name, "advance", ANN)
    await kit.tick(site, 2)
    await site.store.close()
    site = await kit.start(site.store.path.parent, site.clock)
    await kit.until(site, lambda w: w.releases[name].ended)

    taken = await again(site, name)

    assert written(taken) == await decided(site, name)
    assert not any(each.left_out for each in taken)


async def test_a_replay_is_held_for_want_of_data_as_the_loop_was_and_tells_it_the_same(kit, tmp_path):
    query = """{prometheus: {name: queue, query: 'max(queue{version="$version"})', at_most: 10, every: 5s}}"""
    policy = kit.POLICY.replace("{latency: off}]", f"{{latency: off}}, {query}]")
    site = await kit.start(tmp_path, quick=policy)
    site.traffic.read = (Reading("queue", 3.0),)
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    site.traffic.read = (Reading("queue", None, None, "Prometheus is down"),)
    await kit.tick(site, 20)
    site.traffic.read = (Reading("queue", 3.0),)
    await kit.until(site, lambda w: w.releases[name].ended)

    taken = await again(site, name)

    assert written(taken) == await decided(site, name)
    held = [r for r in written(taken) if r["numbers"].get("code") == "no-data" and r["action"] == "hold"]
    assert [(r["step"], r["reason"]) for r in held] == [("ten", "prometheus queue: Prometheus is down")]
    told = [r["reason"] for r in written(taken) if r["action"] in ("held", "cleared")]
    assert told[0] == "for 30s: prometheus queue: Prometheus is down"
    assert told[1].startswith("over: prometheus queue: Prometheus is down; now: ")
    assert taken[-1].turn.after.state.phase is Phase.PROMOTED
    await site.store.close()


async def test_what_was_judged_before_a_rollback_is_not_what_ended_it(site, kit):
    """Nor does it matter whether the process that ended it had seen it."""
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    await site.plane.act(name, "rollback", ANN)
    await site.store.close()
    site = await kit.start(site.store.path.parent, site.clock)
    await kit.until(site, lambda w: w.releases[name].ended)

    taken = await again(site, name)

    assert written(taken) == await decided(site, name)
    assert written(taken)[-1]["numbers"]["verdicts"] == []
    await site.store.close()


async def test_a_release_that_a_person_started_is_decided_again_too(site, kit):
    await site.plane.take(kit.files(order=kit.RELEASE.replace("auto", "manual")), "ann")
    await kit.tick(site, 3)
    await site.plane.act("shop-2", "advance", ANN)
    world = await kit.until(site, lambda w: w.releases["shop-2"].ended)

    taken = await again(site, "shop-2")

    records = [
        r for r in await site.store.records("shop-2", 1000) if r.kind == "decision" and r.step != "waiting"
    ]
    assert written(taken) == [r.model_dump(exclude={"number"}) for r in records]
    assert taken[-1].turn.after.state.phase is world.releases["shop-2"].phase


async def test_another_policy_may_decide_differently_on_the_same_counts(site, kit):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    site.traffic.mode = "bad"
    world = await kit.until(site, lambda w: w.releases[name].ended)
    lenient = world.releases[name].policy.model_copy(update={"conditions": ()})

    taken = await again(site, name, lenient)

    assert "rollback" not in [r["action"] for r in written(taken)]
    assert written(await again(site, name)) == await decided(site, name)


def with_half(policy):
    """Return a policy that gives half of the requests where it gave a tenth."""
    steps = tuple(s.model_copy(update={"share": 500_000}) if s.name == "ten" else s for s in policy.steps)
    return policy.model_copy(update={"steps": steps})


async def test_other_shares_do_not_accuse_the_proxies_that_split_as_they_were_asked(site, kit):
    name = await ordered(site)
    world = await kit.until(site, lambda w: w.releases[name].ended)
    half = with_half(world.releases[name].policy)

    taken = await again(site, name, half)

    assert half.steps[1].share == 500_000
    assert "split" not in [r["numbers"]["code"] for r in written(taken)]
    assert taken[-1].turn.after.state.phase is Phase.PROMOTED


async def test_a_split_that_was_wrong_then_is_wrong_under_other_shares(site, kit):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    site.traffic.large = 0.9
    world = await kit.tick(site, 12)

    taken = await again(site, name, with_half(world.releases[name].policy))

    held = [r["reason"] for r in written(taken) if r["numbers"]["code"] == "split" and r["action"] == "hold"]
    assert held == [r["reason"] for r in await decided(site, name) if r["numbers"]["code"] == "split"][:1]
    assert "10 % should" in held[0]


async def test_a_new_attempt_is_recorded_anew(site, kit):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    await site.plane.act(name, "rollback", ANN)
    await kit.until(site, lambda w: w.releases[name].ended)
    await ordered(site)
    await kit.until(site, lambda w: w.releases[name].ended)

    recording = await site.store.recording(name)

    assert recording.origin.state.attempt == 2
    assert written(await again(site, name))[-1]["action"] == "promote"


async def test_a_recording_is_read_in_parts(site, kit):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].ended)
    whole = await site.store.recording(name)

    parts, last = [], 0
    while (part := await site.store.recording(name, last, 3)).turns:
        parts += part.turns
        last = part.last

    assert tuple(parts) == whole.turns
    assert len(parts) > 6
    assert (await site.store.recording("other")).origin is None


async def test_what_seldom_changes_is_stored_once(site, kit):
    name = await ordered(site)
    await kit.until(site, lambda w: w.releases[name].at == "ten")
    turns = (await site.store.recording(name)).turns
    same = replace(turns[-1], moment=replace(turns[-1].moment, elapsed=timedelta(seconds=5)))

    await site.store.commit(Change(turns=((name, same),) * 50))

    rows = site.store._db.execute("SELECT around FROM turns WHERE release = ?", (name,)).fetchall()
    assert sum(bool(around) for (around,) in rows) == 1
    assert (await site.store.recording(name)).turns[-1] == same
