"""When an order is taken, what becomes of it while it waits, and what its documents can and cannot do."""

import pytest

from controlplane.app.taking import drifted
from controlplane.release.state import Phase
from controlplane.web.asked import Act, Documents, Order, Switch
from controlplane.web.port import RefusedError
from tests.documents import RELEASE, SERVICE

ANN = Act(actor="ann")
THREE = SERVICE + '  v3: {endpoints: ["10.0.0.3:80"]}\n'


@pytest.fixture
async def three(tmp_path, kit):
    """A site whose service has three versions."""
    made = await kit.start(tmp_path, shop=THREE)
    yield made
    await made.store.close()


def to(version, **over):
    return Order(**({"service": "shop", "to": version, "policy": "quick", "actor": "ann"} | over))


async def apply(site, **texts):
    """Hand in documents by the names of their files."""
    applied = await site.plane.apply(
        Documents(files={f"{name}.yaml": text for name, text in texts.items()}, actor="ann")
    )
    assert not applied.problems
    return applied


# --- orders by a command ----------------------------------------------------------------------------------


async def test_a_command_orders_from_what_is_stable_when_its_turn_comes(three, kit):
    await three.plane.order(to("v2"))
    await kit.until(three, lambda w: w.releases["shop-v2"].active)
    await three.plane.order(to("v3"))
    await kit.tick(three)
    assert three.plane.release("shop-v3").hold == "busy"
    assert "waits behind release 'shop-v2'" in three.plane.release("shop-v3").because

    world = await kit.until(three, lambda w: w.releases["shop-v3"].active)
    assert world.stable == {"shop": "v2"}
    assert world.releases["shop-v3"].from_version == "v2"
    world = await kit.until(three, lambda w: w.releases["shop-v3"].ended)

    assert (world.releases["shop-v3"].phase, world.stable) == (Phase.PROMOTED, {"shop": "v3"})


async def test_by_hand_too_it_starts_from_what_is_stable(three, kit):
    await three.plane.order(to("v2"))
    await kit.until(three, lambda w: w.releases["shop-v2"].active)
    await three.plane.order(to("v3"))
    await three.plane.act("shop-v2", "promote", ANN)

    shown = await three.plane.act("shop-v3", "advance", ANN)

    assert (shown.phase, shown.from_version) == ("progressing", "v2")


async def test_a_version_is_ordered_once_at_a_time(three, kit):
    await three.plane.order(to("v2"))

    with pytest.raises(RefusedError, match="'v2' of 'shop' is ordered already: release 'shop-v2'"):
        await three.plane.order(to("v2", name="again"))


async def test_a_document_is_from_what_it_says_and_the_way_out_is_named(three, kit):
    await three.plane.order(to("v2"))
    await kit.until(three, lambda w: w.releases["shop-v2"].active)
    await apply(three, third=RELEASE.replace("to: v2", "to: v3").replace("shop-2", "third"))

    await kit.until(three, lambda w: w.releases["shop-v2"].ended)
    await kit.tick(three, 3)

    shown = three.plane.release("third")
    assert (shown.phase, shown.from_version) == ("waiting", "v1")
    assert "stable is 'v2', but the order is from 'v1'" in shown.because
    assert "`turnout rollback third`" in shown.because
    assert "`turnout release shop v3 --policy quick`" in shown.because


@pytest.mark.parametrize("retrying", [False, True])
async def test_an_order_that_has_no_traffic_is_called_off_whatever_the_old_version_is(
    tmp_path, kit, retrying
):
    again = kit.POLICY + "on_failure: {do: rollback, retry: {after: 1h}}\n"
    site = await kit.start(tmp_path, quick=again)
    await site.plane.order(to("v2"))
    if retrying:
        await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
        site.traffic.mode = "bad"
        await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.RETRYING)
    await apply(site, shop=SERVICE.replace('"10.0.0.1:80"', ""))

    shown = await site.plane.act("shop-v2", "rollback", ANN)

    assert shown.phase == "rolled_back"
    await site.store.close()


async def test_to_let_a_paused_order_start_by_itself_ends_its_pause(three, kit):
    await three.plane.order(to("v2"))
    await kit.until(three, lambda w: w.releases["shop-v2"].active)
    by_hand = RELEASE.replace("to: v2", "to: v3").replace("shop-2", "third").replace("auto", "manual")
    await apply(three, third=by_hand)
    await three.plane.act("third", "pause", ANN)

    shown = await three.plane.act("third", "advance", ANN)
    assert (shown.halt, "starts by itself: waits behind" in shown.because) == (None, True)
    await three.plane.act("shop-v2", "rollback", ANN)

    await kit.until(three, lambda w: w.releases["third"].active)


# --- documents --------------------------------------------------------------------------------------------

OTHER = "kind: Segment\nname: other\nmatch: {method: GET}\n"


def edited(*pairs):
    text = RELEASE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


SECOND = edited(("start:", "attempt: 2\nstart:"))


@pytest.fixture
async def going(three, kit):
    """A release of a document at its second step."""
    await apply(three, order=RELEASE)
    await kit.until(three, lambda w: w.releases["shop-2"].at == "ten")
    return three


def drift(site, name="shop-2"):
    found = site.plane.release(name).drift
    assert all(f"release {name}: {text}" in site.plane.problems() for text in found)
    return " | ".join(found)


@pytest.mark.parametrize("when", ["progressing", "rolling_back"])
async def test_an_edit_during_a_release_never_acts_and_is_shown_until_it_is_taken(going, kit, when):
    if when == "rolling_back":
        going.fleet.mode = "nack"
        await going.plane.act("shop-2", "rollback", ANN)
        await kit.tick(going)
    await apply(going, order=SECOND)
    assert "says attempt: 2; the release goes on with 1; `turnout retry shop-2` takes" in drift(going)
    going.fleet.mode = "all"
    if when == "progressing":
        await going.plane.act("shop-2", "rollback", ANN)
    world = await kit.until(going, lambda w: w.releases["shop-2"].ended)

    await apply(going, unrelated=OTHER)

    assert (await kit.tick(going, 3)).releases == world.releases
    assert "the release has ended with 1; `turnout retry shop-2` takes the order" in drift(going)
    shown = await going.plane.act("shop-2", "retry", ANN)
    assert (shown.attempt, shown.drift) == (2, ())
    assert going.plane.problems() == ()


async def test_a_retry_takes_the_order_as_its_document_has_it(going, kit):
    await apply(going, order=edited(("to: v2", "to: v3"), ("start:", "attempt: 7\nstart:")))
    await going.plane.act("shop-2", "rollback", ANN)
    await kit.until(going, lambda w: w.releases["shop-2"].ended)

    shown = await going.plane.act("shop-2", "retry", ANN)
    assert (shown.to_version, shown.attempt, shown.salt) == ("v3", 7, "shop-2.7")
    world = await kit.until(going, lambda w: w.releases["shop-2"].ended)

    assert world.stable == {"shop": "v3"}
    assert drift(going) == ""


async def test_what_is_promoted_runs_again_by_another_order_only(going, kit):
    await kit.until(going, lambda w: w.releases["shop-2"].ended)
    with pytest.raises(RefusedError, match="is promoted: 'v2' is what is stable already"):
        await going.plane.act("shop-2", "retry", ANN)
    await apply(going, order=edited(("from: v1", "from: v2"), ("to: v2", "to: v3")))
    assert "`turnout retry shop-2` takes the order" in drift(going)

    shown = await going.plane.act("shop-2", "retry", ANN)

    assert (shown.from_version, shown.to_version, shown.attempt) == ("v2", "v3", 2)


async def test_a_retry_without_a_document_is_an_order_by_command(going, kit):
    await going.plane.take(kit.files(shop=THREE), "test")
    assert "its order was removed; the release goes on, and `turnout rollback shop-2`" in drift(going)
    await going.plane.act("shop-2", "rollback", ANN)
    await kit.until(going, lambda w: w.releases["shop-2"].ended)
    assert drift(going) == ""
    await going.plane.switch("shop", Switch(version="v3", actor="ann"))

    await going.plane.act("shop-2", "retry", ANN)

    world = await kit.until(going, lambda w: w.releases["shop-2"].active)
    assert world.releases["shop-2"].from_version == "v3"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ("group: sale", "group: sale; the release goes on with none"),
        ("after: [{release: shop-2-before}]", "after: shop-2-before promoted; the release goes on with none"),
        ("supersedes: shop-2-before", "supersedes: shop-2-before; the release goes on with none"),
        ("reason: hurry", "reason: hurry; the release goes on with none"),
    ],
)
async def test_every_field_that_is_edited_is_shown(going, kit, edit, says):
    before = edited(("name: shop-2", "name: shop-2-before"), ("to: v2", "to: v3"), ("auto", "manual"))
    await apply(going, before=before, order=edited(("start:", f"{edit}\nstart:")))
    assert says in drift(going)
    await apply(going, before=before, order=edited(("start: auto", "start: manual")))
    assert "start: manual; the release goes on with auto" in drift(going)
    await apply(going, before=before, order=RELEASE)
    assert drift(going) == ""


async def test_an_order_that_is_renamed_does_not_start_when_the_first_has_failed(going, kit):
    renamed = edited(("name: shop-2", "name: shop-2b"))
    await going.plane.take(kit.files(shop=THREE, order=renamed), "test")
    assert "its order was removed" in drift(going)
    await going.plane.act("shop-2", "rollback", ANN)
    await kit.until(going, lambda w: w.releases["shop-2"].ended)

    world = await kit.tick(going, 3)

    assert world.releases["shop-2b"].phase is Phase.WAITING
    why = going.plane.release("shop-2b").because
    assert "release 'shop-2' goes from v1 to v2 already; `turnout advance shop-2b` starts it" in why
    await going.plane.act("shop-2b", "advance", ANN)
    await kit.until(going, lambda w: w.releases["shop-2b"].active)


async def test_who_says_whose_place_it_takes_is_no_mistake(going, kit):
    await apply(going, hot=edited(("name: shop-2", "name: hot"), ("start:", "supersedes: shop-2\nstart:")))

    world = await kit.until(going, lambda w: w.releases["hot"].active)

    assert world.releases["shop-2"].phase is Phase.ROLLED_BACK


# --- orders that wait -------------------------------------------------------------------------------------


@pytest.fixture
async def waiting(three, kit):
    """An order of a document that waits for a person, with an approval given ahead."""
    gated = kit.POLICY.replace("name: ten, everyone: 10%,", "name: ten, everyone: 10%, approve: {},")
    await apply(three, quick=gated)
    await apply(three, order=edited(("auto", "manual")))
    await three.plane.act("shop-2", "approve", ANN)
    three.gated = gated
    return three


async def state_of(site, name="shop-2"):
    return (await site.store.world()).releases[name]


async def test_an_order_that_waits_follows_its_document_whatever_the_attempt(waiting, kit):
    by_hand = ("auto", "manual")
    await apply(waiting, order=edited(by_hand, ("start:", "attempt: 3\nstart:")))
    assert (await state_of(waiting)).key == "shop-2#3"
    assert (await state_of(waiting)).approvals == (), "given to another attempt"

    await apply(waiting, order=edited(by_hand, ("start:", "reason: sale\nstart:")))
    assert ((await state_of(waiting)).key, (await state_of(waiting)).purpose) == ("shop-2#3", "sale")
    await apply(waiting, quick=waiting.gated.replace("10%", "20%"))
    assert (await state_of(waiting)).policy.steps[1].share == 200_000
    assert drift(waiting) == ""


async def test_an_edit_of_something_else_changes_nothing_of_an_order_that_waits(waiting, kit):
    before = await state_of(waiting)

    await apply(waiting, unrelated=OTHER)
    assert await state_of(waiting) == before

    await apply(waiting, order=edited(("auto", "manual"), ("to: v2", "to: v3")))
    assert (await state_of(waiting)).approvals == (), "given to another version"


async def test_an_edit_before_a_retry_does_not_reach_the_next_attempt(three, kit):
    await apply(three, quick=kit.POLICY + "on_failure: {do: rollback, retry: {after: 10s}}\n")
    await apply(three, order=RELEASE)
    await kit.until(three, lambda w: w.releases["shop-2"].at == "ten")
    await apply(three, order=edited(("to: v2", "to: v3"), ("start:", "attempt: 2\nstart:")))
    three.traffic.mode = "bad"
    await kit.until(three, lambda w: w.releases["shop-2"].phase is Phase.RETRYING)
    assert "`turnout rollback shop-2` and then `turnout retry shop-2` takes the order" in drift(three)
    three.fleet.mode = "none"
    await apply(three, shop=THREE.replace('"10.0.0.2:80"', ""))
    await kit.until(three, lambda w: w.releases["shop-2"].phase is Phase.WAITING)

    await apply(three, unrelated=OTHER)

    state = await state_of(three)
    assert (state.key, state.to_version, state.tries) == ("shop-2#2", "v2", 1)
    assert "to: v3; the release goes on with v2" in drift(three)


async def test_an_order_by_command_follows_its_policy_while_it_waits(three, kit):
    await three.plane.order(to("v2"))
    await kit.until(three, lambda w: w.releases["shop-v2"].active)
    await three.plane.order(to("v3"))

    await apply(three, quick=kit.POLICY.replace("10%", "20%"))
    assert (await state_of(three, "shop-v3")).policy.steps[1].share == 200_000
    assert (await state_of(three, "shop-v2")).policy.steps[1].share == 100_000

    await apply(three, quick=kit.POLICY.replace("{latency: off}", "{latency: off}, {metric: {name: sales}}"))
    assert (await state_of(three, "shop-v3")).policy.metrics == ()
    for name in ("shop-v2", "shop-v3"):
        assert "has no metric 'sales'" in drift(three, name)


async def test_an_order_whose_service_is_removed_is_called_off(three, kit):
    await three.plane.act((await three.plane.order(to("v2"))).name, "pause", ANN)

    await three.plane.take(kit.files(shop=None), "test")

    state = await state_of(three, "shop-v2")
    assert (state.phase, state.reason) == (Phase.ROLLED_BACK, "its service was removed before it started")
    await kit.tick(three, 2)


async def test_who_brings_an_order_that_has_run_is_told(going, kit):
    await going.plane.act("shop-2", "rollback", ANN)
    await kit.until(going, lambda w: w.releases["shop-2"].ended)
    await going.plane.act("shop-2", "retry", ANN)
    await going.plane.act("shop-2", "rollback", ANN)
    await kit.until(going, lambda w: w.releases["shop-2"].ended)

    applied = await apply(going, order=SECOND)

    (told,) = [text for text in applied.warnings if "shop-2" in text]
    assert "attempt 2 has run (rolled_back); `attempt: 3` or `turnout retry shop-2` runs it again" in told
    assert (await going.store.records("shop-2"))[-1].action == "drift"


async def test_to_retry_into_another_order_takes_who_may_order(going, kit):
    await going.plane.act("shop-2", "rollback", ANN)
    await kit.until(going, lambda w: w.releases["shop-2"].ended)
    assert going.plane.need("retry", "shop-2", ANN).role == "operator"

    hot = kit.POLICY.replace("name: quick", "name: hot") + "emergency: true\n"
    await apply(going, order=edited(("to: v2", "to: v3")))
    assert going.plane.need("retry", "shop-2", ANN).role == "releaser"
    await apply(going, hot=hot, order=edited(("policy: quick", "policy: hot\nreason: down")))
    assert going.plane.need("retry", "shop-2", ANN).role == "admin"


async def test_a_state_of_an_older_store_is_compared_with_what_it_has(going, kit):
    old = (await state_of(going)).model_copy(update={"document": None})

    assert drifted(old, going.plane.world.catalog) == ()
    await apply(going, order=SECOND)
    assert "attempt: 2" in drifted(old, going.plane.world.catalog)[0]


async def test_an_order_that_needs_what_was_refused_is_refused_with_it_and_its_group(three, kit):
    cart = kit.SERVICE.replace("name: shop", "name: cart").replace("shop.", "cart.")
    await apply(three, cart=cart)
    less = THREE.replace("  v1:", "  v4:").replace("initial: v1", "initial: v4")  # v1 is stable
    texts = {
        "shop.yaml": less,
        "order.yaml": edited(("from: v1", "from: v4"), ("start:", "group: sale\nstart:")),
        "cart-order.yaml": edited(("shop", "cart"), ("start:", "group: sale\nstart:")),
    }

    applied = await three.plane.apply(Documents(files=texts, actor="ann"))

    world = await three.store.world()
    assert world.releases == {}
    assert world.catalog.releases() == ()
    assert any(
        "Release 'shop-2' needs service 'shop', whose change is refused" in p for p in applied.problems
    )
    assert any("group 'sale' is taken as a whole, and 'shop-2' is refused" in p for p in applied.problems)


async def test_a_point_of_no_return_that_was_passed_is_not_forgotten_by_another_attempt(tmp_path, kit):
    final = "for: 10s, approve: {}, irreversible: {because: migrated}}"
    policy = kit.POLICY.replace("for: 10s}", final).replace("hold_back: 2%", "hold_back: 0%")
    site = await kit.start(tmp_path, shop=THREE, quick=policy, order=RELEASE)
    await site.plane.act("shop-2", "approve", ANN)
    await kit.tick(site, 2)
    await site.plane.act("shop-2", "promote", ANN)
    again = edited(("from: v1", "from: v2"), ("to: v2", "to: v3"), ("start:", "attempt: 2\nstart:"))

    await apply(site, order=again)

    assert (await state_of(site)).attempt == 1
    assert "stays known under this name: give the order another" in drift(site)
    for asked in (site.plane.act("shop-2", "retry", ANN), site.plane.order(to("v3", name="shop-2"))):
        with pytest.raises(RefusedError, match="release 'shop-2' is past step 'ten': migrated; its point"):
            await asked
    with pytest.raises(RefusedError, match="--past-point-of-no-return"):
        await site.plane.switch("shop", Switch(version="v1", actor="ann"))
    await site.store.close()
