"""Users who are pushed count once while nobody changes versions: by step, by attempt, and not from before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controlplane.app.statistics import StreamStatistics
from controlplane.release.eras import era
from controlplane.release.state import Phase, Stage
from controlplane.sources.lrs import LoadReports
from controlplane.sources.pushed import Pushed, Values, cell
from controlplane.web.asked import Order
from tests.app.site import INTERVAL

METRICS = "metrics: {orders: {better: more}}\n"
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")
USERS = 2000


class Pushing:
    """The made-up proxies' counts, with what is pushed beside them by the stream of the running server."""

    def __init__(self, site):
        self.traffic, self.pushed = site.traffic, Pushed(clock=lambda: site.clock.monotonic)
        self._stream = StreamStatistics(
            site.publisher.server, site.collector, LoadReports(INTERVAL), pushed=self.pushed
        )
        self.seen = {}

    def push(self, version, orders):
        """Say of users whether they ordered, by id."""
        self.pushed.receive(
            ("shop", "orders", cell("everyone", version)), Values(users=orders), "", summed=False
        )

    async def observe(self, world, start, end):
        seen, cursors = await self.traffic.observe(world, start, end)
        pushed, _ = await self._stream.observe(world, start, end)
        self.seen = {measure.cell.version: measure for measure in pushed["shop"].measures}
        return {"shop": replace(seen["shop"], measures=pushed["shop"].measures)}, cursors

    def commit(self):
        self.traffic.commit()
        self._stream.commit()


async def pushing(tmp_path, kit, policy):
    site = await kit.start(tmp_path, shop=kit.SERVICE + METRICS, quick=policy)
    site.statistics = Pushing(site)
    return site, site.statistics


async def pushed_until(site, kit, users, condition, rates, most=400, seed=0):
    """Tick until a condition of the world holds; each time some users of each version come, and may order."""
    rng = np.random.default_rng(seed)
    for _ in range(most):
        world = await site.store.world()
        if condition(world):
            return world
        for version, rate in rates.items():
            named = rng.integers(0, USERS, 80)
            users.push(version, {f"{version}-{user}": float(rng.random() < rate) for user in named})
        await kit.tick(site)
    raise AssertionError({r.name: (r.at, r.stage, r.hold, r.because) for r in world.releases.values()})


async def test_an_era_lasts_from_when_every_proxy_has_a_step_to_the_next_step(site, kit):
    eras = [era((await site.store.world()).active.get("shop"))]
    await site.plane.order(TO_V2)
    held = {}
    for _ in range(200):
        world = await kit.tick(site)
        state = world.active.get("shop")
        eras.append(era(state))
        if state is None or state.ended:
            break
        held.setdefault(eras[-1], set()).add((state.phase, state.step, state.stage))

    lasted = [each for each, before in zip(eras[1:], eras, strict=False) if each != before]
    assert eras[0] == eras[-1] == ""
    assert len(lasted) == len(set(lasted)), "an era does not come back"
    for places in held.values():
        assert len({(phase, step) for phase, step, _ in places}) == 1
        assert len({stage is Stage.PROPAGATE for _, _, stage in places}) == 1
    judged = [{stage for *_, stage in places} for places in held.values()]
    assert any({Stage.VERIFY, Stage.JUDGE} <= stages for stages in judged), "who is verified is judged"


async def test_another_attempt_counts_every_user_anew_and_knows_nothing_of_the_first(tmp_path, kit):
    policy = """\
kind: Policy
name: quick
steps: [{name: half, everyone: 50%}, {name: all, everyone: 100%}]
conditions: [{latency: off}, {client_errors: off}, {metric: {name: orders, margin: 20%}}]
guard: {for: 15s, hold_back: 10%}
on_failure: {do: rollback, retry: {after: 1m, times: 1}}
"""
    site, users = await pushing(tmp_path, kit, policy)
    await site.plane.order(TO_V2)
    worse = {"v1": 0.4, "v2": 0.02}
    world = await pushed_until(
        site, kit, users, lambda w: w.releases["shop-v2"].phase is Phase.RETRYING, worse
    )
    failed = [r for r in await site.store.records("shop-v2", 1000) if r.action == "rollback"]
    assert ["fewer metric orders on the canary" in record.reason for record in failed] == [True]

    verified = (Stage.VERIFY, Stage.JUDGE)
    await kit.until(site, lambda w: w.releases["shop-v2"].active and w.releases["shop-v2"].stage in verified)
    again = (await kit.tick(site)).releases["shop-v2"]  # what came in the interval of a change is dropped
    for version in ("v1", "v2"):
        users.push(version, {f"{version}-{user}": 1.0 for user in range(100)})
    await kit.tick(site)

    assert again.attempt == 2
    assert {v: (m.n, m.total, m.among) for v, m in users.seen.items()} == {
        "v1": (100, 100, 100),
        "v2": (100, 100, 100),
    }
    alike = {"v1": 0.2, "v2": 0.2}
    world = await pushed_until(site, kit, users, lambda w: w.releases["shop-v2"].ended, alike)
    assert world.releases["shop-v2"].phase is Phase.PROMOTED
    await site.store.close()


@pytest.mark.parametrize(("lift", "said"), [(1.0, "no difference seen"), (3.0, "better")])
async def test_an_ab_test_counts_users_who_were_pushed_long_before_it_from_its_own_begin(
    tmp_path, kit, lift, said
):
    policy = """\
kind: Policy
name: quick
steps: [{name: half, everyone: 50%}]
conditions: [{latency: off}, {client_errors: off}, {metric: {name: orders, margin: 20%}}]
ends: {after: 10m, do: report, per_user: 1}
"""
    site, users = await pushing(tmp_path, kit, policy)
    # Every user of the old version is known, and nearly all have ordered.
    before = {f"v1-{user}": float(user % 10 > 0) for user in range(USERS)}
    users.push("v1", before)
    await kit.tick(site, 3)
    assert users.seen == {}, "outside of a release only what is new is told"

    await site.plane.order(TO_V2)
    rates = {"v1": 0.05, "v2": 0.05 * lift}
    world = await pushed_until(site, kit, users, lambda w: w.releases["shop-v2"].ended, rates)

    [result] = world.releases["shop-v2"].result
    assert result.said == said
    # Each came some times in ten minutes: 2000 users, of whom those count who were named since the step.
    assert 0.8 * USERS < result.baseline_n <= USERS
    assert 0.8 * USERS < result.canary_n <= USERS
    await site.store.close()
