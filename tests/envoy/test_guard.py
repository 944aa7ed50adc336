"""What comes between a release and its end: the old version goes away, a hotfix."""

from __future__ import annotations

import pytest

from controlplane.demo.ports import free_ports
from controlplane.demo.sample import SampleProcess
from controlplane.demo.users import population

pytestmark = [pytest.mark.envoy]

HOTFIX = """\
kind: Release
name: hotfix
service: shop
from: v2
to: v3
policy: quick
{more}
start: auto
"""
SOUND = "tests.envoy.sound"  # whoever answers a check with an error counts as dead for a moment
USERS = [user.requests[0] for user in population(200) if user.id]


@pytest.fixture
async def other():
    """A second sample service: more endpoints, and another version."""
    sample = SampleProcess(tuple(free_ports(2)), 1, SOUND)
    await sample.start()
    yield sample
    await sample.stop()


def places(service, version, *ports):
    """Return a service document with these endpoints of a version, in place of its own or added."""
    addresses = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    line = f"  {version}: {{endpoints: [{addresses}]}}\n"
    kept = [each for each in service.splitlines(keepends=True) if not each.startswith(f"  {version}:")]
    return "".join([*kept, line])


async def guarding(site, service, guard, hold_back="0%"):
    """Release under load until the guard is judged; return the documents but the order."""
    fleet = site.world("edge")[0]
    *_, policy, order = site.order("name: half, everyone: 50%", guard=guard, hold_back=hold_back)
    await site.serve()
    await site.apply(fleet, service, policy)
    await site.start(edge_1=site.bootstrap("edge-1"))
    await site.come(150)
    await site.apply(order)
    await site.released(phase="guarding", stage="judge")


async def test_a_guard_says_that_the_way_back_is_unsafe_and_nobody_is_sent_where_nothing_is(site, other):
    shop, first, second = site.world("edge")[1], site.sample.ports[0], other.ports[0]
    await guarding(site, places(shop, "v1", first, second), "10m, keep_endpoints: 80%")
    said = [(await site.release())["return_point"]]
    for left in ((first,), ()):
        await site.apply(places(shop, "v1", *left))
        said.append((await site.release())["return_point"])
    refused = await site.client.post("/v1/releases/shop-v2/rollback", json={"actor": "tester"})
    meanwhile = await site.ask(site.ports["edge"], USERS)
    await site.apply(places(shop, "v1", second))
    await site.act("rollback")
    await site.released(phase="rolled_back")
    back = await site.ask(site.ports["edge"], USERS)
    load = await site.leave()

    assert said == [
        "one route change, to 2 endpoints of v1",
        "UNSAFE: v1 has 1 of 2 endpoints (keep_endpoints)",
        "UNSAFE: v1 has no endpoints",
    ]
    assert (refused.status_code, refused.json()["error"]) == (
        409,
        "v1 of 'shop' has no endpoints; nothing was changed",
    )
    assert set(meanwhile) == {"v2"}
    assert set(back) == {"v1"}
    assert load.unexplained == 0, load.examples


async def test_a_guard_sees_the_old_versions_endpoints_die_and_come_back(site, other):
    another = SampleProcess(tuple(free_ports(2)), 2, SOUND)
    await another.start()
    shop = places(site.world("edge")[1], "v1", other.ports[0], another.ports[0])
    # A service that has no requests is checked as well, and each checks that it is in the guard.
    checked = shop + "health: {path: /healthz, every: 100ms}\n"
    await guarding(site, checked, "10m, keep_endpoints: 80%")
    said = [(await site.release())["return_point"]]

    async def changed():
        return (await site.release())["return_point"] != said[-1]

    for sample, happens in ((another, "stop"), (other, "stop"), (other, "start"), (another, "start")):
        await getattr(sample, happens)()
        await site.until(changed)
        shown = await site.release()
        said.append(shown["return_point"])
        if len(said) == 3:
            refused = await site.client.post("/v1/releases/shop-v2/rollback", json={"actor": "tester"})
            problems = await site.problems()
    await site.act("rollback")
    await site.released(phase="rolled_back")
    back = await site.ask(site.ports["edge"], USERS)
    load = await site.leave()
    records = await site.get("/v1/records?release=shop-v2&limit=1000")
    await another.stop()

    dead = "v1 has no endpoints that are healthy, says edge-1"
    assert said == [
        "one route change, to 2 endpoints of v1",
        "UNSAFE: v1 has 1 of 2 endpoints (keep_endpoints)",
        f"UNSAFE: {dead}",
        "UNSAFE: v1 has 1 of 2 endpoints (keep_endpoints)",
        "one route change, to 2 endpoints of v1",
    ]
    assert (refused.status_code, dead.replace("v1 has", "v1 of 'shop' has") in refused.text) == (409, True)
    assert f"release shop-v2: ALARM: a rollback would be unsafe, {dead}" in problems
    assert [r["action"] for r in records if r["action"] in ("unsafe", "safe")] == ["unsafe"] * 3 + ["safe"]
    assert set(back) == {"v1"}
    assert load.unexplained == 0, load.examples


@pytest.mark.parametrize("more", ["", "supersedes: shop-v2"], ids=["plain", "supersedes"])
async def test_a_hotfix_that_is_ordered_in_a_guard_waits_until_a_person_ends_it(site, other, more):
    await guarding(site, places(site.world("edge")[1], "v3", other.ports[1]), "10m")
    await site.apply(HOTFIX.format(more=more))

    async def hotfix(field="because"):
        return (await site.get("/v1/releases/hotfix"))[field]

    why = await site.until(hotfix)
    guard = await site.release()
    await site.act("promote")

    async def judged():
        return await hotfix("stage") == "judge"

    await site.until(judged)
    counts = [(await site.stats("edge-1", f"^cluster.shop~{v}.upstream_rq_total$")) for v in ("v2", "v3")]
    stable = (await site.get("/v1/services"))[0]["stable"]
    load = await site.leave()

    assert why.startswith("stable is 'v1', but the order is from 'v2'; wait for release 'shop-v2'")
    assert guard["phase"] == "guarding"
    assert (await site.release())["phase"] == "promoted"
    assert stable == "v2"
    assert all(min(count.values()) > 0 for count in counts)
    assert load.unexplained == 0, load.examples
