"""What operators ask for: done, or refused in words, with nothing changed."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controlplane.app.metrics import Metrics
from controlplane.release.moves import act
from controlplane.release.ports import Change, StoreConflictError, StoreError
from controlplane.release.state import Action, Phase
from controlplane.release.transitions import TRANSITIONS
from controlplane.web.asked import Act, Documents, Order, Switch
from controlplane.web.port import RefusedError

TEST = """\
kind: Policy
name: quick
steps: [{name: half, everyone: 50%}]
conditions: []
ends: {after: 1h}
"""
ANN = Act(actor="ann", reason="why not")


def wanted(**over):
    return Order(**({"service": "shop", "to": "v2", "policy": "quick", "actor": "ann"} | over))


async def refused(site, asked, status, *words):
    before, records = await site.store.world(), await site.store.records(limit=1000)
    with pytest.raises(RefusedError) as error:
        await asked
    assert error.value.status == status
    for word in words:
        assert word in str(error.value)
    assert await site.store.world() == before
    assert await site.store.records(limit=1000) == records


@pytest.fixture
async def going(site, kit):
    await site.plane.order(wanted())
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    return site


async def reach(site, kit, phase):
    """Bring a release into a phase."""
    if phase is Phase.ROLLING_BACK:
        await site.plane.order(wanted())
        await kit.tick(site, 2)
        site.fleet.mode = "nack"
        await site.plane.act("shop-v2", "rollback", ANN)
    elif phase is Phase.RETRYING:
        again = kit.POLICY + "on_failure: {do: rollback, retry: {after: 1h}}\n"
        await site.plane.apply(Documents(files={"quick.yaml": again}, actor="ann"))
        await site.plane.order(wanted())
        await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
        site.traffic.mode = "bad"
        await kit.until(site, lambda w: w.releases["shop-v2"].phase is phase)
    elif phase is Phase.ROLLED_BACK:
        await site.plane.order(wanted())
        await site.plane.act("shop-v2", "rollback", ANN)
    elif phase in (Phase.ENDING, Phase.ENDED):
        await site.plane.apply(Documents(files={"quick.yaml": TEST}, actor="ann"))
        await site.plane.order(wanted())
        await kit.tick(site, 2)
        await site.plane.act("shop-v2", "end", ANN)
        site.fleet.mode = "nack" if phase is Phase.ENDING else "all"
        await kit.until(site, lambda w: w.releases["shop-v2"].phase is phase)
    else:
        await site.plane.order(wanted())
        await kit.until(site, lambda w: w.releases["shop-v2"].phase is phase)


@pytest.mark.parametrize(
    ("order", "status", "words"),
    [
        ({"service": "shap"}, 404, ["'shap'", "known: shop"]),
        ({"to": "v9"}, 404, ["'v9'", "known: v1, v2"]),
        ({"policy": "rash"}, 404, ["'rash'", "known: quick"]),
        ({"to": "v1"}, 409, ["stable already"]),
        ({"name": "Not A Name"}, 400, ["'Not A Name'", "a-z"]),
        ({"name": "x" * 64}, 400, ["63"]),
    ],
)
async def test_an_order_that_cannot_be_is_refused_with_what_is_known(site, order, status, words):
    await refused(site, site.plane.order(wanted(**order)), status, *words)


async def test_an_order_is_a_new_attempt_once_the_last_has_ended(going, kit):
    await refused(going, going.plane.order(wanted()), 409, "is progressing", "roll it back")
    await going.plane.act("shop-v2", "rollback", ANN)
    await kit.until(going, lambda w: w.releases["shop-v2"].ended)

    again = await going.plane.order(wanted())

    assert (again.attempt, again.salt, again.canary_requests) == (2, "shop-v2.2", 0)


async def test_a_name_belongs_to_one_service(tmp_path, kit):
    second = kit.SERVICE.replace("name: shop", "name: cart").replace("shop.example", "cart.example")
    site = await kit.start(tmp_path, cart=second)
    await site.plane.order(wanted(name="one"))
    await site.plane.act("one", "rollback", ANN)

    await refused(site, site.plane.order(wanted(service="cart", name="one")), 409, "'shop'")
    await site.store.close()


ALLOWED = {
    Phase.WAITING: {"pause", "advance", "rollback", "approve"},
    Phase.PROGRESSING: {"pause", "advance", "rollback", "promote", "approve"},
    Phase.GUARDING: {"pause", "advance", "rollback", "promote", "approve"},
    Phase.ROLLING_BACK: set(),
    Phase.RETRYING: {"pause", "retry", "rollback"},
    Phase.PROMOTED: set(),
    Phase.ROLLED_BACK: {"retry"},
    Phase.ENDING: set(),
    Phase.ENDED: {"retry"},
}
HALTED = [(phase, None) for phase in Phase]
HALTED += [(phase, "paused") for phase in Phase if (phase, Action.PAUSE) in TRANSITIONS]
HALTED += [(phase, "frozen") for phase in Phase if (phase, Action.FREEZE) in TRANSITIONS]


async def halt(site, how):
    """Halt the release; what freezes one is in `test_halts.py`."""
    if how == "paused":
        await site.plane.act("shop-v2", "pause", ANN)
    elif how == "frozen":
        state = (await site.store.world()).releases["shop-v2"]
        await site.plane._commit(Change(releases=(act(state, Action.FREEZE, "it failed"),)))


@pytest.mark.parametrize(
    "action", ["pause", "resume", "advance", "approve", "retry", "rollback", "promote", "end"]
)
@pytest.mark.parametrize(("phase", "halted"), HALTED)
async def test_each_action_in_each_phase_and_halt(site, kit, phase, halted, action):
    await reach(site, kit, phase)
    await halt(site, halted)
    asked = site.plane.act("shop-v2", action, ANN)
    allowed = ALLOWED[phase] | ({"resume"} if halted else set())
    if halted == "frozen":
        allowed -= {"pause"}
    if action not in allowed or action == "approve":
        # Only an A/B test can be ended, and this release is none while it goes; nor does it ask for consent.
        why = "has no `ends`" if (phase, action) == (Phase.PROGRESSING, "end") else f"is {phase}"
        why = "no step ahead waits for an approval" if action == "approve" and action in allowed else why
        await refused(site, asked, 409, why)
        return

    shown = await asked

    record = (await site.store.records("shop-v2"))[-1]
    assert (record.action, record.actor, record.kind) == (action, "ann", "action")
    assert record.reason == "why not"
    assert shown.because.endswith(f"{action} by ann: why not")
    assert shown.halt == ("paused" if action == "pause" else None)
    assert (site.plane.world.stable["shop"] == "v2") is (shown.phase == "promoted")


async def test_what_is_paused_can_be_resumed_once(going):
    await going.plane.act("shop-v2", "pause", ANN)

    shown = await going.plane.act("shop-v2", "resume", ANN)

    assert shown.halt is None
    await refused(going, going.plane.act("shop-v2", "resume", ANN), 409, "neither paused nor frozen")


async def test_names_that_are_not_known_are_refused_with_those_that_are(going):
    await refused(going, going.plane.act("shop-v3", "pause", ANN), 404, "'shop-v3'", "known: shop-v2")
    await refused(
        going, going.plane.act("shop-v2", "halt", ANN), 404, "'halt'", "advance, approve, end, pause, promote"
    )
    await refused(going, going.plane.records("shop-v3", 10), 404, "known: shop-v2")
    await refused(going, going.plane.switch("shap", Switch(actor="a", version="v1")), 404, "known: shop")
    await refused(going, going.plane.switch("shop", Switch(actor="a", version="v9")), 404, "known: v1, v2")
    with pytest.raises(RefusedError, match="known: shop-v2"):
        going.plane.release("shop-v3")


@pytest.mark.parametrize(("version", "action"), [("2", "advance"), ("2", "promote"), ("1", "rollback")])
async def test_nobody_is_sent_to_a_version_without_endpoints(going, kit, version, action):
    text = kit.SERVICE.replace(f'"10.0.0.{version}:80"', "")
    await going.plane.apply(Documents(files={"shop.yaml": text}, actor="ann"))

    await refused(
        going, going.plane.act("shop-v2", action, ANN), 409, f"v{version} of 'shop' has no endpoints"
    )
    await refused(
        going, going.plane.switch("shop", Switch(actor="a", version=f"v{version}")), 409, "no endpoints"
    )


async def test_an_order_cannot_be_started_by_hand_before_its_turn(going, kit):
    later = kit.RELEASE.replace("to: v2", "to: v3").replace("shop-2", "later")
    three = kit.SERVICE + '  v3: {endpoints: ["10.0.0.3:80"]}\n'
    await going.plane.apply(Documents(files={"shop.yaml": three, "later.yaml": later}, actor="ann"))

    await refused(going, going.plane.act("later", "advance", ANN), 409, "waits behind release 'shop-v2'")
    await going.plane.act("shop-v2", "promote", ANN)
    await refused(going, going.plane.act("later", "advance", ANN), 409, "stable is 'v2'", "from 'v1'")


@pytest.mark.parametrize(
    ("phase", "halted", "version", "becomes"),
    [
        (None, None, "v2", None),
        (Phase.PROGRESSING, None, "v2", Phase.PROMOTED),
        (Phase.PROGRESSING, None, "v1", Phase.ROLLING_BACK),
        (Phase.PROGRESSING, None, "v3", Phase.ROLLING_BACK),
        (Phase.PROGRESSING, "paused", "v2", Phase.PROMOTED),
        (Phase.GUARDING, "frozen", "v1", Phase.ROLLING_BACK),
        (Phase.GUARDING, None, "v2", Phase.PROMOTED),
        (Phase.ROLLING_BACK, None, "v2", Phase.ROLLING_BACK),
        (Phase.ROLLING_BACK, None, "v1", Phase.ROLLING_BACK),
        (Phase.ENDING, None, "v2", Phase.ENDING),
        (Phase.PROMOTED, None, "v1", Phase.PROMOTED),
    ],
)
async def test_a_switch_makes_a_version_stable_at_once_and_what_is_shown_can_be_published(
    tmp_path, kit, phase, halted, version, becomes
):
    three = kit.SERVICE + '  v3: {endpoints: ["10.0.0.3:80"]}\n'
    site = await kit.start(tmp_path, shop=three)
    if phase is not None:
        await reach(site, kit, phase)
    await halt(site, halted)

    shown = await site.plane.switch("shop", Switch(actor="ann", version=version, reason="now"))
    world = await site.store.world()
    site.publisher.publish(world)

    assert shown.stable == world.stable["shop"] == version
    assert site.publisher.problems == {}
    if phase is not None:
        assert (world.releases["shop-v2"].phase, world.releases["shop-v2"].halt) == (becomes, None)
        assert site.plane.release("shop-v2").phase == becomes
    assert (await site.store.records())[-1].reason == f"to {version}: now"
    world = await kit.tick(site, 3)
    assert world.stable == {"shop": version}
    await site.store.close()


@pytest.mark.parametrize("error", [StoreConflictError("was changed"), StoreError("disk full")])
async def test_a_store_that_refuses_is_told_and_nothing_is_half_done(going, kit, monkeypatch, error):
    async def fails(*_):
        raise error

    status = 409 if isinstance(error, StoreConflictError) else 503
    watch = going.loop.watches["shop-v2#1"]
    three = kit.SERVICE + '  v3: {endpoints: ["10.0.0.3:80"]}\n'
    await going.plane.apply(Documents(files={"shop.yaml": three}, actor="ann"))
    monkeypatch.setattr(going.store, "commit", fails)
    for asked in (
        going.plane.act("shop-v2", "advance", ANN),
        going.plane.order(wanted(to="v3")),
        going.plane.switch("shop", Switch(actor="a", version="v2")),
        going.plane.apply(Documents(files={"new.yaml": kit.RELEASE}, actor="ann")),
    ):
        await refused(going, asked, status, str(error))

    assert going.plane.world == await going.store.world()
    assert going.loop.watches["shop-v2#1"] is watch


async def test_records_of_a_store_that_fails_are_refused(going, monkeypatch):
    async def fails(*_):
        raise StoreError("disk full")

    monkeypatch.setattr(going.store, "records", fails)

    with pytest.raises(RefusedError, match="disk full") as error:
        await going.plane.records(None, 10)
    assert error.value.status == 503


async def test_documents_that_are_applied_leave_the_others_alone(site, kit):
    before = await site.store.world()

    done = await site.plane.apply(Documents(files={"new.yaml": kit.RELEASE}, actor="ann"))
    same = await site.plane.apply(Documents(files={"new.yaml": kit.RELEASE}, actor="ann"))

    world = await site.store.world()
    assert (done.accepted, done.problems, done.generation) == (("Release shop-2",), (), before.generation + 1)
    assert (same.accepted, same.generation) == ((), world.generation)
    assert len(world.catalog.entries) == len(before.catalog.entries) + 1
    assert world.releases["shop-2"].start == "auto"


async def test_applied_mistakes_are_all_told_and_what_is_right_is_taken(site, kit):
    files = {"a.yaml": kit.POLICY.replace("10%", "400%"), "b.yaml": kit.RELEASE, "c.yaml": "kind: Nope"}

    done = await site.plane.apply(Documents(files=files, actor="ann"))

    assert [p.partition(":")[0] for p in done.problems] == ["a.yaml", "b.yaml", "c.yaml"]
    assert done.accepted == ()


async def test_a_release_is_shown_with_its_ladder(going):
    shown = going.plane.release("shop-v2")

    assert [(s.name, s.share, s.state) for s in shown.steps] == [
        ("staff", "100%", "done"),
        ("ten", "10%", "current"),
        ("all", "100%", "todo"),
    ]
    assert shown.return_point == "one route change, to 1 endpoint of v1"
    assert going.plane.services()[0].release == "shop-v2"
    assert [r.name for r in await going.plane.releases()] == ["shop-v2"]


@pytest.mark.parametrize(("phase", "count"), [(Phase.PROGRESSING, 1), (Phase.ENDED, 0), (Phase.PROMOTED, 1)])
async def test_who_has_acknowledged_is_worked_out_where_it_matters(site, kit, monkeypatch, phase, count):
    await reach(site, kit, phase)
    await kit.tick(site)  # what was promoted is acknowledged
    asked, propagation = [], site.publisher.propagation

    def counted(world, service):
        asked.append(service)
        return propagation(world, service)

    monkeypatch.setattr(site.publisher, "propagation", counted)

    (shown,) = await site.plane.releases()

    assert shown.phase == phase
    assert len(asked) == count  # of a promotion it is asked whether the old version may be taken down


async def test_metrics_show_releases_and_problems_once_the_state_is_loaded(going):
    registry = CollectorRegistry()
    registry.register(Metrics(going.plane))
    assert generate_latest(registry) == b""
    going.publisher.publish(await going.store.world())
    going.plane.folder_problems = ("a.yaml:1:1: wrong", "b.yaml:1:1: wrong")

    text = generate_latest(registry).decode()

    assert 'turnout_release_phase{phase="progressing",release="shop-v2"} 1.0' in text
    assert 'turnout_release_suspicion{release="shop-v2"}' in text
    assert 'turnout_release_return_unsafe{release="shop-v2"} 0.0' in text
    assert "turnout_problems 2.0" in text


async def test_metrics_show_that_a_way_back_is_unsafe(going, kit):
    registry = CollectorRegistry()
    registry.register(Metrics(going.plane))
    going.traffic.healthy = {"v1": 0}
    await kit.tick(going)
    going.publisher.publish(await going.store.world())

    text = generate_latest(registry).decode()

    assert 'turnout_release_return_unsafe{release="shop-v2"} 1.0' in text
    assert "turnout_problems 1.0" in text
