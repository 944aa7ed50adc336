"""A rollback is done when no proxy that had the canary may still serve it, wherever it is now."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.envoy]


async def test_a_proxy_that_a_fleet_edit_took_out_keeps_a_rollback_from_its_end(site):
    """It is connected to this very server, and serves what it was given."""
    fleet, service = site.world("edge")
    await site.serve()
    await site.apply(fleet, service)
    await site.start(edge_1=site.bootstrap("edge-1"))
    await site.come(100)
    await site.apply(*site.order("name: half, everyone: 50%, for: 10m"))
    await site.released(step="half", stage="judge")

    typo = fleet.replace("cluster: edge", "cluster: edgy")
    applied = await site.post("/v1/documents", files={"fleet.yaml": typo})
    held = await site.released(hold="nack")
    await site.act("rollback")
    told = await site.until(lambda: why(site, "edge-1 (belongs to no fleet"))
    before = await site.reached("edge-1", "v2")

    async def canary_is_served():
        return await site.reached("edge-1", "v2") > before + 20

    await site.until(canary_is_served)
    still = await site.release()
    await site.post("/v1/documents", files={"fleet.yaml": fleet})
    done = await site.released(phase="rolled_back", unconfirmed="")
    served = await site.reached("edge-1", "v2")
    await site.answered(50)
    users = await site.leave()

    assert applied["problems"] == []
    assert "edge-1 is connected and leaves it (belongs to no fleet" in applied["warnings"][0]
    assert held["because"].startswith("edge-1 is not served: belongs to no fleet")
    assert "may still serve the canary: edge-1 (belongs to no fleet" in told
    assert still["phase"] == "rolling_back"
    assert done["return_point"] == "done: v1 has every request"
    assert await site.reached("edge-1", "v2") == served
    assert users.unexplained == 0, users.examples


async def test_a_proxy_that_is_given_to_another_fleet_is_done_once_it_has_replaced_what_it_had(site):
    edge, west, service = site.world("edge", "west")
    alone = service.replace("fleets: [edge, west]", "fleets: [edge]")
    await site.serve()
    await site.apply(edge, west, alone)
    await site.start(edge_1=site.bootstrap("edge-1"), edge_2=site.bootstrap("edge-2"))
    await site.apply(*site.order("name: half, everyone: 50%, for: 10m"))
    await site.released(step="half", stage="verify")

    swapped = (edge.replace("cluster: edge", "id: edge-2"), west.replace("cluster: west", "id: edge-1"))
    applied = await site.post("/v1/documents", files={"fleets.yaml": "---\n".join(swapped)})
    await site.act("rollback")
    await site.released(phase="rolled_back", unconfirmed="")
    clusters = await site.stats("edge-1", r"^cluster\.shop~v2\.membership_total$")

    assert "edge-1 is connected and leaves it (is of fleet 'west' then)" in applied["warnings"][0]
    assert clusters == {}


async def why(site, words):
    because = (await site.release())["because"]
    return because if words in because else None
