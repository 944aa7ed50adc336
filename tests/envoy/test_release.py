"""Releases under load: proxies that come and go, an operator who goes back, a canary that fails."""

from __future__ import annotations

import io
import os
import signal
from itertools import pairwise

import pytest
from rich.console import Console

from controlplane.demo.fault import Fault
from controlplane.demo.run import Options, run
from controlplane.demo.users import population
from controlplane.demo.view import LineView

pytestmark = [pytest.mark.envoy]


async def started(site, *steps, proxies=1):
    """Start everything and the first step of a release; return the Envoys' node ids."""
    await site.serve()
    await site.apply(*site.world("edge"))
    nodes = [f"edge-{number + 1}" for number in range(proxies)]
    await site.start(**{node: site.bootstrap(node) for node in nodes})
    await site.come(150)
    await site.apply(*site.order(*steps))
    return nodes


# A proxy that stands still for a moment while it joins is late by less than two of these.
@pytest.mark.parametrize("site", ["3s"], indirect=True)
async def test_a_proxy_that_joins_gets_the_step_and_does_not_restart_its_clock(site):
    await started(site, "name: half, everyone: 50%, for: 10m")
    seen = [await site.until(lambda: judged(site, 0.5))]
    users = [user.requests[0] for user in population(100) if user.id]
    alone = await site.ask(site.ports["edge"], users)
    await site.start(edge_2=site.bootstrap("edge-2"))
    shared = await site.ask(site.ports["edge"], users)  # over new connections, which both Envoys take

    async def onwards():
        seen.append(await site.release())
        acked = [proxy["proxy"] for proxy in seen[-1]["proxies"] if proxy["acked"]]
        more = seen[-1]["judged_seconds"] - seen[0]["judged_seconds"]
        return acked == ["edge-1", "edge-2"] and more >= 2

    await site.until(onwards)
    joined = [await site.reached("edge-2", version) for version in ("v1", "v2")]
    load = await site.leave()

    assert {(shown["step"], shown["stage"]) for shown in seen} == {("half", "judge")}
    assert all(b["judged_seconds"] >= a["judged_seconds"] for a, b in pairwise(seen))
    assert not [shown["because"] for shown in seen if "statistics of edge-2" in shown["because"]]
    assert min(joined) > 0
    assert shared == alone  # it had the step, and the same users in it, from its first request on
    assert load.unexplained == 0, load.examples
    assert site.load.moved_back() == 0


async def judged(site, seconds):
    shown = await site.release()
    return shown if shown["stage"] == "judge" and shown["judged_seconds"] >= seconds else None


async def test_a_proxy_that_hangs_holds_a_step_and_one_that_is_gone_does_not(site):
    await site.serve()
    await site.apply(*site.world("edge"))
    await site.start(edge_1=site.bootstrap("edge-1"), edge_2=site.bootstrap("edge-2"))
    await site.apply(*site.order("name: ten, everyone: 10%", "name: half, everyone: 50%"))
    await site.released(step="ten", stage="verify")

    os.kill(site.envoys["edge-2"].pid, signal.SIGSTOP)
    await site.act("advance")
    # On a busy machine the other one may be late, too.
    await site.released(hold="propagate", because="not yet acknowledged by edge-2")
    os.kill(site.envoys["edge-2"].pid, signal.SIGKILL)
    after = await site.released(step="half", stage="verify")

    assert [p["proxy"] for p in after["proxies"]] == ["edge-1"]


async def test_an_operator_takes_the_canary_off_all_proxies_at_once(site):
    nodes = await started(site, "name: half, everyone: 50%, for: 10m", proxies=2)

    async def reached(version):
        return [await site.reached(node, version) for node in nodes]

    async def served():
        return min(await reached("v2")) > 20

    await site.until(served)
    await site.act("rollback")
    await site.released(phase="rolled_back")
    left, baseline = await reached("v2"), await reached("v1")
    await site.answered(400)
    users = await site.leave()

    assert await reached("v2") == left
    assert sum(await reached("v1")) >= sum(baseline) + 190
    assert users.unexplained == 0, users.examples
    assert [each for each in await site.actions() if each[1] in ("rollback", "finish")] == [
        ("half", "rollback"),
        ("rolling_back", "finish"),
    ]


@pytest.mark.long
async def test_a_canary_with_errors_is_rolled_back_by_its_errors():
    options = Options(fault=Fault.parse("errors=10%"), rps=400, seconds=60)

    facts = await run(options, LineView(Console(file=io.StringIO())))

    assert facts.outcome == "rolled_back"
    assert facts.reason.metric == "errors"
    assert facts.load.unexplained == 0, facts.load.examples
    assert facts.moved_back == 0
