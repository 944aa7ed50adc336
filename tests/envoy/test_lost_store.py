"""The store is lost while proxies serve: nobody moves until an operator says what is stable."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys

import pytest

from controlplane.demo.users import population
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy]

USERS = [user.requests[0] for user in population(200) if user.id]
NODES = ("edge-1", "edge-2")
FIFTH = "name: fifth, everyone: 20%, for: 10m"
UNKNOWN = "service 'shop' has no version 'v9'; known: v1, v2; no service is named 'web'; known: shop"
ADOPT = "`turnout store init --adopt shop=VERSION` says what is stable, of v1, v2"


async def command(*words):
    """Run a command; return its status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from controlplane.cli import main; main()", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def turnout(site, *words):
    """Run a command against the control plane."""
    return await command(*words, f"--server=http://127.0.0.1:{site.http}")


async def weights(site, node):
    """Return the weights of each split that an Envoy has, by its config dump."""
    dump = json.loads(await site.envoys[node].admin("/config_dump?resource=dynamic_route_configs"))
    found = []
    for config in dump["configs"]:
        for host in config["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                split = route["route"].get("weighted_clusters", {"clusters": [route["route"]]})
                found.append([(c.get("name", c.get("cluster")), c.get("weight")) for c in split["clusters"]])
    return found


async def states(site):
    return sorted((proxy["id"], proxy["state"]) for proxy in await site.get("/v1/proxies"))


async def lose(site):
    """End the control plane as a crash would, with its store, and start it on an empty folder."""
    await site.kill()
    shutil.rmtree(site.folder / "data")
    await site.serve()


async def seen(site):
    """Return who is sent where, and the weights at the Envoys: one speaks delta, one state of the world."""
    return await site.ask(site.ports["edge"], USERS), [await weights(site, node) for node in NODES]


async def test_a_store_that_was_lost_moves_nobody_until_somebody_says_what_is_stable(site):
    documents = [*site.world("edge"), *site.order(FIFTH)]
    await site.serve()
    await site.apply(*documents[:-1])
    await site.start(edge_1=site.bootstrap("edge-1"), edge_2=site.bootstrap("edge-2", variant="sotw"))
    await site.come(150)
    await site.apply(documents[-1])
    await site.released(step="fifth", stage="judge")
    before = await seen(site)

    await lose(site)
    empty = await seen(site)
    await site.apply(*documents)

    async def told():
        return await states(site) == [(node, "alone") for node in NODES]

    await site.until(told)
    (late,) = await site.launch(edge_3=site.bootstrap("edge-3"))
    # Changes that would go out at once, and that pass every revision that the lost store had.
    for number in range(8):
        await site.apply(documents[1] + f"timeout: {number + 20}s\n")
    await site.act("advance")

    async def joined():
        return await states(site) == [(node, "alone") for node in (*NODES, "edge-3")]

    await site.until(joined)
    await site.answered(600)
    alone = await seen(site)
    await site.released(phase="waiting", hold="left-alone")
    problems = await site.problems()
    ready, services = await site.client.get("/readyz"), await site.get("/v1/services")
    metrics = (await site.client.get("/metrics")).text

    wrong = await turnout(site, "store", "init", "--adopt=shop=v9", "--adopt=web=v1")
    said = await turnout(site, "store", "init", "--adopt=shop=v1", "--reason=it was v1", "--actor=ann")
    await late.ready(PATIENCE)

    async def synced():
        return [state for _, state in await states(site)] == ["synced"] * 3

    await site.until(synced)
    await site.answered(300)
    after = await seen(site)
    await site.released(phase="waiting", hold="manual")
    records = await site.get("/v1/records")
    load = await site.leave()

    assert 0.1 < before[0].count("v2") / len(USERS) < 0.3
    assert before == empty == alone
    assert problems == [f"service shop: left alone, edge-1, edge-2 got it from another store; {ADOPT}"]
    assert (ready.status_code, ready.text) == (200, "ok; services left alone: 1, see /v1/problems\n")
    assert services[0]["left_alone"] == list(NODES)
    assert "turnout_services_left_alone 1.0" in metrics
    assert wrong == (1, f"turnout: {UNKNOWN}\n")
    assert said == (0, "shop: v1 is stable\n")
    assert set(after[0]) == {"v1"}
    adopted = [r for r in records if r["action"] == "adopt"]
    assert [(r["service"], r["actor"], r["reason"]) for r in adopted] == [
        ("shop", "ann", "v1 is what is stable; edge-1, edge-2 had it from another store: it was v1")
    ]
    assert await site.problems() == []
    assert load.unexplained == 0, load.examples


async def test_routes_prove_what_was_stable_and_adopting_that_moves_nobody(site):
    documents = site.world("edge")
    await site.serve()
    await site.apply(*documents)
    await site.start(edge_1=site.bootstrap("edge-1"), edge_2=site.bootstrap("edge-2", variant="sotw"))
    await site.post("/v1/services/shop/switch", version="v2")

    async def have_v2():
        return set(await site.ask(site.ports["edge"], USERS)) == {"v2"}

    await site.until(have_v2)
    await site.synced()
    before = await seen(site)
    await lose(site)
    await site.apply(*documents)

    async def told():
        return await states(site) == [(node, "alone") for node in NODES]

    await site.until(told)
    shown = await turnout(site, "get", "services")
    problems = await site.problems()
    said = await turnout(site, "store", "init", "--adopt=shop=v2")
    await site.synced()

    assert set(before[0]) == {"v2"}
    assert "v1? LEFT ALONE WITH v2" in shown[1]
    (problem,) = problems
    assert (
        "edge-1, edge-2 got it from another store, by which all have v2; `turnout store init --adopt"
        in problem
    )
    assert said == (0, "shop: v2 is stable\n")
    assert await seen(site) == before


AHEAD = "has seen newer versions than this store has: restore a newer copy, or `turnout store init`"


async def test_a_copy_that_is_older_than_what_proxies_have_is_passed_by_an_adoption(site):
    copy, data = site.folder / "copy.db", site.folder / "data"
    await site.serve()
    await site.apply(*site.world("edge"))
    await site.start(edge_1=site.bootstrap("edge-1"))
    backup = await command("store", "backup", str(copy), f"--data={data}")
    await site.post("/v1/services/shop/switch", version="v2")

    async def have_v2():
        return set(await site.ask(site.ports["edge"], USERS)) == {"v2"}

    await site.until(have_v2)
    await site.kill()
    restored = await command("store", "restore", str(copy), f"--data={data}")
    await site.serve()

    async def behind():
        return await states(site) == [("edge-1", "behind")]

    await site.until(behind)
    problems = await site.problems()
    said = await turnout(site, "store", "init", "--adopt=shop=v2")

    async def synced():
        return await states(site) == [("edge-1", "synced")]

    await site.until(synced)

    assert (backup[0], restored[0]) == (0, 0)
    assert [problem.partition(";")[0] for problem in problems] == [
        "service shop: left alone, edge-1 got it from another store, by which all have v2",
        f"proxy edge-1 of fleet 'edge': {AHEAD}",
    ]
    assert said == (0, "shop: v2 is stable\n")
    assert await have_v2()
