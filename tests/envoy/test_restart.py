"""The control plane is killed in the middle of a step: nobody notices, and the release ends all the same."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import pytest
import yaml

from controlplane.demo.ports import free_ports

pytestmark = [pytest.mark.envoy, pytest.mark.long]

CONTENT = ("ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump", "ScopedRoutesConfigDump")


async def printed_bootstrap(site, node):
    """Return what `turnout bootstrap` prints for a node."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from controlplane.cli import main; main()", "bootstrap", f"--node={node}",
        "--cluster=edge", f"--control-plane=127.0.0.1:{site.xds}", f"--flush={site.interval}",
        f"--admin=127.0.0.1:{free_ports(1)[0]}", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0
    return yaml.safe_load(output)


async def content(site, node):
    """Return what an Envoy was given: each resource, its version, since when; and how many updates came."""
    dump = json.loads(await site.envoys[node].admin("/config_dump?include_eds"))
    resources = [part for part in dump["configs"] if part["@type"].endswith(CONTENT)]
    return resources, await site.stats(node, r"(cds|lds|rds\..*|~v.)\.update_(success|rejected)$")


async def settled(site):
    """Return the release once both proxies are back and the tick has seen them."""
    shown = await site.release()
    back = [proxy["state"] for proxy in await site.get("/v1/proxies")]
    return shown if back == ["synced", "synced"] and len(shown["proxies"]) == 2 else None


def evidence(shown):
    """Return what was counted: requests by proxy, and the sum."""
    by_proxy = {p["proxy"]: p["canary_requests"] + p["baseline_requests"] for p in shown["proxies"]}
    return by_proxy | {"canary": shown["canary_requests"]}


async def test_a_killed_control_plane_goes_on_where_it_was(site):
    await site.serve()
    await site.apply(*site.world("edge"))
    nodes = ("edge-1", "edge-2")
    first, second = await asyncio.gather(*(printed_bootstrap(site, node) for node in nodes))
    await site.start(edge_1=first, edge_2=second)
    await site.come(200)
    steps = ("name: beta, everyone: 30%", "name: half, everyone: 50%, for: 9s")
    await site.apply(*site.order(*steps, guard="1s"))

    async def judging():
        shown = await site.release()
        return shown if shown["step"] == "half" and shown["judged_seconds"] >= 2 else None

    before = await site.until(judging)
    had = await asyncio.gather(*(content(site, node) for node in nodes))
    await site.kill()
    await site.answered(150)  # users come while nobody is in control
    await site.serve()
    at_once = await site.release()
    after = await site.until(lambda: settled(site))
    have = await asyncio.gather(*(content(site, node) for node in nodes))
    promoted = await site.released(phase="promoted")
    seen = await site.leave()

    assert (at_once["step"], at_once["stage"]) == (after["step"], after["stage"]) == ("half", "judge")
    assert at_once["judged_seconds"] >= before["judged_seconds"]
    old, new = evidence(before), evidence(after)
    assert {key: new[key] >= old[key] for key in old} == dict.fromkeys(old, True)
    assert have == had
    assert len(had[0][1]) >= 8  # updates of clusters, endpoints, listeners, scopes and routes
    assert seen.unexplained == 0, seen.examples
    assert promoted["phase"] == "promoted"
    assert [s["stable"] for s in await site.get("/v1/services")] == ["v2"]
    done = await site.actions()
    assert [each for each in done if each[1] != "proceed"] == [
        ("waiting", "order"),
        ("waiting", "start"),
        ("beta", "advance"),
        ("half", "advance"),
        ("all", "guard"),
        ("guarding", "promote"),
    ]
    twice = dict.fromkeys(("beta", "half", "all", "guarding"), 2)  # to verify, and to judge
    assert Counter(step for step, action in done if action == "proceed") == twice
    assert site.load.moved_back() == 0
