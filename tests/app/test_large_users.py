"""Users so large that a small step of a right split looks wrong: what a person can do, and a policy."""

from __future__ import annotations

import pytest

from controlplane.release.state import Phase, Stage
from controlplane.web.asked import Act, Order

LARGE = "kind: Segment\nname: large\nmatch: {users: [acme, globex]}\n"
PART = 0.25  # of all requests, from two of a hundred customers


POLICY = """\
kind: Policy
name: quick
steps:
  - {{name: five, everyone: 5%{exclude}}}
  - {{name: quarter, everyone: 25%}}
  - {{name: all, everyone: 100%}}
conditions: [{{latency: off}}]
guard: {{for: 15s, hold_back: 2%}}
"""


async def ordered(folder, kit, text):
    site = await kit.start(folder, quick=text, large=LARGE)
    site.publisher.publish(await site.store.world())
    site.traffic.large = PART
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    return site


async def test_a_person_who_knows_why_goes_past_a_split_that_a_few_users_move(tmp_path, kit):
    site = await ordered(tmp_path, kit, POLICY.format(exclude=""))
    world = await kit.tick(site, 60)
    held = world.releases["shop-v2"]

    assert (held.at, held.stage, held.hold) == ("five", Stage.VERIFY, "split")
    assert "`turnout advance shop-v2` goes on all the same" in held.because
    assert "`turnout advance shop-v2` goes on all the same" in site.plane.problems()[0]

    await site.plane.act("shop-v2", "advance", Act(actor="ann", reason="acme and globex are in it"))

    world = await site.store.world()
    assert (world.releases["shop-v2"].at, world.releases["shop-v2"].stage) == ("quarter", Stage.PROPAGATE)
    record = (await site.store.records("shop-v2"))[-1]
    assert (record.action, record.actor, record.reason) == ("advance", "ann", "acme and globex are in it")
    # There they weigh less: the split is verified, and the step needs its proof as ever.
    world = await kit.until(site, lambda w: w.releases["shop-v2"].ended)
    assert world.releases["shop-v2"].phase is Phase.PROMOTED
    records = [r for r in await site.store.records("shop-v2", 1000) if r.step == "quarter"]
    assert {"verified", "passed"} <= {record.numbers.get("code") for record in records}
    await site.store.close()


@pytest.mark.parametrize("mode", ["good", "bad"])
async def test_a_policy_that_excludes_large_users_from_small_steps_is_verified_at_each(tmp_path, kit, mode):
    site = await ordered(tmp_path, kit, POLICY.format(exclude=", exclude: [large]"))
    await kit.until(site, lambda w: w.releases["shop-v2"].stage is Stage.JUDGE)
    site.traffic.mode = mode
    world = await kit.until(site, lambda w: w.releases["shop-v2"].ended)

    records = await site.store.records("shop-v2", 1000)
    assert "split" not in [record.numbers.get("code") for record in records]
    assert world.releases["shop-v2"].phase is (Phase.PROMOTED if mode == "good" else Phase.ROLLED_BACK)
    await site.store.close()
