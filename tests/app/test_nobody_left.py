"""What is told where everybody has the canary: nothing is left to compare with, and the words say so."""

from __future__ import annotations

import pytest

from controlplane.release.state import Phase
from controlplane.web.asked import Order

TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")
POLICY = """\
kind: Policy
name: quick
steps: [{name: ten, everyone: 10%}, {name: all, everyone: 100%}]
conditions: [{latency: off}, {client_errors: off}]
guard: {for: 1m, hold_back: 0%}
"""


@pytest.fixture
async def guarding(tmp_path, kit):
    made = await kit.start(tmp_path, quick=POLICY)
    await kit.tick(made, 20)
    await made.plane.order(TO_V2)
    await kit.until(made, lambda w: w.releases["shop-v2"].phase is Phase.GUARDING)
    await kit.tick(made, 3)
    yield made
    await made.store.close()


async def test_errors_that_nothing_is_left_to_compare_with_are_told_against_what_is_usual(guarding, kit):
    guarding.traffic.mode = "both"  # a tenth of all fails
    world = await kit.tick(guarding, 30)
    release = world.releases["shop-v2"]

    assert (release.phase, release.hold) == (Phase.GUARDING, "not-yet")
    assert release.because.startswith(
        "errors are above what is usual, and nothing is left to compare with: this alone takes nothing back, "
        "`turnout rollback` does: canary "
    )
    assert release.because.endswith(" %), usually 0.1 %; nobody is left on the baseline")
    for untrue in ("alike", "too few", "at this traffic", "rest of the service", "baseline 0 of 0"):
        assert untrue not in release.because


async def test_few_requests_where_nothing_is_left_to_compare_with_take_the_time_that_is_told(tmp_path, kit):
    site = await kit.start(tmp_path, quick=POLICY)
    await kit.tick(site, 20)
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].phase is Phase.GUARDING)
    for _ in range(20):
        site.clock.pass_(5)
        site.traffic.arrive(await site.store.world(), requests=40)
        await site.loop.tick(site.clock.now, site.clock.monotonic)
    because = site.plane.release("shop-v2").because

    assert because.startswith("errors look as usual, too few requests to be sure: canary 0 of ")
    assert " usually 0.1 %; about " in because
    assert "at this traffic" in because
    await site.store.close()
