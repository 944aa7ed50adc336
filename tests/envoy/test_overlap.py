"""Segments that overlap, with shares of their own: each user's version is the one that was foretold."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from controlplane.app.taking import order
from controlplane.policy.catalog import Catalog
from controlplane.policy.loading import load
from controlplane.policy.segments import Request
from controlplane.release.state import Phase
from controlplane.release.traffic import traffic
from controlplane.resources.buckets import pick

pytestmark = [pytest.mark.envoy]

FLEETS = ("edge", "west")
STEPS = (
    'name: beta, segment: {cookie: {name: beta, equals: "1"}}, share: 40%, for: 10m',
    "name: staff, segment: {header: {name: x-role, equals: staff}}, share: 70%, for: 10m",
    "name: ten, everyone: 10%, for: 10m",
    "name: sixty, everyone: 60%, for: 10m",
)


def headers(user):
    """Every third user is in the beta, every fourth is staff, so every twelfth both; half have cookies."""
    cookies = ["beta=1"] if user % 3 == 0 else []
    found = [("x-role", "staff")] if user % 4 == 0 else []
    if user % 2:
        found.append(("x-user-id", f"user-{user}"))
    else:
        cookies.append(f"uid=user-{user}")
    return [*found, ("cookie", "; ".join(cookies))] if cookies else found


def request(user):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers(user))
    return f"GET / HTTP/1.1\r\nhost: shop.example.com\r\n{lines}\r\n".encode()


async def test_overlapping_segments_only_grow_and_everyone_lifts_all(site):
    documents = [*site.world(*FLEETS), *site.order(*STEPS, hold_back="0%")]
    catalog = load({"test.yaml": "---\n".join(documents).encode()}, Catalog()).catalog
    (service,) = catalog.services()
    state = order(catalog, catalog.releases()[0], datetime.now(UTC))

    def foretold(step, user):
        now = state.model_copy(update={"phase": Phase.PROGRESSING, "step": step})
        return pick(traffic(service, "v1", now, "baseline"), Request(headers=tuple(headers(user)))).version

    await site.serve()
    await site.apply(*documents[:-2])
    await site.start(edge_1=site.bootstrap("edge-1", "edge"), west_1=site.bootstrap("west-1", "west"))
    await site.apply(*documents[-2:])

    async def acknowledged():
        shown = await site.release()
        return (
            shown["step"] != "waiting"
            and len(shown["proxies"]) == 2
            and all(p["acked"] for p in shown["proxies"])
        )

    seen, expected = [], []
    for step in range(len(STEPS) + 1):
        if step:
            await site.act("advance")
        await site.until(acknowledged)
        seen.append([await site.ask(site.ports[fleet], map(request, range(300))) for fleet in FLEETS])
        expected.append([foretold(step, user) for user in range(300)])
    shown = await site.release()

    assert (shown["step"], shown["salt"]) == ("all", state.salt)
    assert [edge for edge, _ in seen] == [west for _, west in seen] == expected
    had = [{user for user in range(300) if versions[user] == "v2"} for versions in expected]
    assert all(before < after for before, after in pairwise(had))
    assert [len(users) for users in had[:2]] == [pytest.approx(40, abs=15), pytest.approx(85, abs=20)]
    assert had[-1] == set(range(300))
