"""3000 users over two Envoys: everybody's version is the one that the published script works out."""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import pairwise
from math import sqrt
from pathlib import Path

import pytest

pytestmark = [pytest.mark.envoy]

SCRIPT = Path(__file__).parents[2] / "docs" / "cohort.py"
SHARES = (1, 5, 10, 25, 50, 100)
STEPS = [f"name: s{share}, everyone: {share}%, for: 10m" for share in SHARES]
USERS = [f"user-{number}" for number in range(3000)]
BAND = 3.2905  # standard deviations on each side of 99.9 %


def request(user, extra=""):
    return f"GET /a HTTP/1.1\r\nhost: shop.example.com\r\n{extra}x-user-id: {user}\r\n\r\n".encode()


async def worked_out(folder, published):
    """Return each user's version as the script in the docs says it."""
    file = folder / "published.json"
    file.write_text(json.dumps(published))
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, file, "everyone",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate("\n".join(USERS).encode())
    assert process.returncode == 0
    return [line.split(",")[2] for line in out.decode().splitlines()]


async def test_every_pick_is_the_one_that_the_script_works_out_and_nobody_is_lost(site, tmp_path):
    documents = [*site.world("edge", "west"), *site.order(*STEPS, hold_back="0%")]
    await site.serve()
    await site.apply(*documents[:-2])
    await site.start(edge_1=site.bootstrap("edge-1", "edge"), west_1=site.bootstrap("west-1", "west"))
    await site.apply(*documents[-2:])

    async def acknowledged():
        shown = await site.release()
        acked = [proxy["acked"] for proxy in shown["proxies"]]
        return shown["step"] == f"s{SHARES[len(seen)]}" and acked == [True, True]

    seen = []

    async def post(path, **body):
        return (await site.client.post(path, json=body)).raise_for_status().json()

    for share in SHARES:
        if seen:
            await site.act("advance")
        await site.until(acknowledged)
        edge, west = site.ports["edge"], site.ports["west"]
        even, odd, both = await asyncio.gather(
            site.ask(edge, map(request, USERS[::2])),
            site.ask(west, map(request, USERS[1::2])),
            site.ask(edge, map(request, USERS[1:200:2])),
        )
        versions = [version for pair in zip(even, odd, strict=True) for version in pair]
        assert both == odd[:100]
        published = await post("/v1/releases/shop-v2/cohort", users=USERS)
        assert versions == await worked_out(tmp_path, published)
        assert [u["canary"] for u in published["users"]] == [v == "v2" for v in versions]
        seen.append(versions)
        got, due = versions.count("v2"), share / 100 * len(USERS)
        assert abs(got - due) <= BAND * sqrt(due * (1 - share / 100)) + 0.5

    for number in range(0, 3000, 150):  # and so says the explanation of the request
        text = f"GET http://shop.example.com/a x-user-id: {USERS[number]}"
        assert (await post("/v1/explain", request=text))["version"] == seen[-1][number]

    for before, after in pairwise(seen):
        assert all(new == "v2" for old, new in zip(before, after, strict=True) if old == "v2")
    assert set(seen[-1]) == {"v2"}
