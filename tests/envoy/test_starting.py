"""Every policy to start from, side by side on one Envoy: a good version gets through, a bad one does not."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.demo.fault import Fault
from controlplane.demo.load import Load
from controlplane.demo.ports import free_ports
from controlplane.demo.sample import Sample, SampleProcess
from controlplane.demo.users import HOST, population
from tests.documents import placed

pytestmark = [pytest.mark.envoy, pytest.mark.long]

LONG = pytest.mark.skipif("TURNOUT_CHAOS" not in os.environ, reason="takes half an hour; see `make chaos`")
OUTSIDE = ("", "waiting", "guarding", "point_of_no_return", "rolling_back", "ending")
TEST, ALIKE = "ab-test", "ab-test-alike"
FOLDER = Path(__file__).parents[2] / "policies" / "starting"
POLICIES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.yaml"))}
ORDERS = "metrics: {orders: {header: x-order, better: more}}\n"
RELEASE = """\
kind: Release
name: {name}
service: {name}
from: v1
to: v2
policy: {policy}
reason: to see it
start: auto
"""


class Seller(Sample):
    """A version that sells more: whoever looks at the cart orders, too."""

    def answer(self, head):
        seconds, answer = super().answer(head)
        return seconds, self._order if b" /cart " in head and answer == self._ok else answer


def quick(policy, url=""):
    """Return a policy with a second for each time, any hours, calls to `url`, and loopback as the office.

    An A/B test takes a few windows, of half a minute each.
    """
    policy = policy.replace("after: 14d", "after: 240s")
    policy = re.sub(r"^windows: .*\n", "", policy, flags=re.MULTILINE)
    policy = re.sub(r'url: "[^"]*"', f'url: "{url}"', policy)
    return re.sub(r"\b(for|grace): [0-9]+[smhd]", r"\1: 1s", policy).replace("10.0.0.0/8", "127.0.0.0/8")


def users(service, count=300):
    """Yield the users of a service, every tenth on the staff, under names that no other service has.

    Those of ``canary`` come more often: its first step is the smallest.
    """
    often = 4 if service.startswith("canary") else 1
    for number, user in enumerate(population(count)):
        lines = f"host: {service}.example.com\r\n" + ("x-dark-launch: yes\r\n" if number % 10 == 0 else "")
        staff = "cookie: staff=yes; " if number % 10 == 0 else "cookie: "
        requests = tuple(
            request.replace(f"host: {HOST}\r\n".encode(), lines.encode()).replace(b"cookie: ", staff.encode())
            for request in user.requests
        )
        yield replace(
            user, activity=user.activity * often, id=user.id and f"{service}/{user.id}", requests=requests
        )


@pytest.fixture
async def failing():
    """A sample service whose new version fails every other request."""
    sample = SampleProcess(tuple(free_ports(2)), seed=1)
    await sample.start()
    await sample.inject(Fault.parse("errors=50%"))
    yield sample
    await sample.stop()


@pytest.fixture
async def selling():
    """Two versions of which the new one sells more, side by side: so they are as fast as one another."""
    versions = Sample("v1"), Seller("v2")
    for version in versions:
        await version.start()
    yield tuple(version.port for version in versions)
    for version in versions:
        version.stop()


async def begin(site, failing, selling, rps, url):
    """Release a good and a failing version under every policy; return the users of those that go back.

    What is good in an A/B test sells more; one that does not, ALIKE, is no failure either.
    """
    ports = {"": site.sample.ports, "-bad": failing.ports}
    names = {f"{policy}{how}": (policy, *ports[how]) for how in ports for policy in POLICIES}
    names |= {TEST: (TEST, *selling), ALIKE: (TEST, *site.sample.ports)}
    services = [placed(name, v1, v2) + ORDERS for name, (_, v1, v2) in names.items()]
    await site.serve()
    await site.apply(*site.world("edge"), *services, *(quick(policy, url) for policy in POLICIES.values()))
    await site.start(edge_1=site.bootstrap("edge-1"))

    def load(*services):
        visitors = tuple(user for service in services for user in users(service))
        return Load(visitors, (site.ports["edge"],), rps / 2)

    site.load, spoiled = load(*POLICIES), load(*(f"{policy}-bad" for policy in POLICIES), ALIKE)
    await asyncio.gather(site.load.start(), spoiled.start())
    await site.apply(*(RELEASE.format(name=name, policy=policy) for name, (policy, *_) in names.items()))
    return spoiled


async def ended(site, name, *, push):
    """Return how a release ends; approve what asks, and ``push`` on as soon as a step is judged.

    ALIKE is pushed to the end of its test.
    """
    while True:
        shown = await site.get(f"/v1/releases/{name}")
        if shown["phase"] in ("promoted", "rolled_back", "ended"):
            return shown["phase"]
        asking = [step["name"] for step in shown["steps"] if step["approval"] == "needed"]
        if shown["phase"] == "guarding" and "not approved yet" in shown["point_of_no_return"]:
            asking.append("point_of_no_return")
        if asking and (push or shown["hold"] == "approval"):
            await site.post(f"/v1/releases/{name}/approve", step=asking[0])
        elif push and shown["stage"] == "judge":
            over = name == ALIKE and shown["step"] == "half"
            path = f"/v1/releases/{name}/{'end' if over else 'advance'}"
            answer = await site.client.post(path, json={"actor": "tester"})
            assert answer.is_success or answer.status_code == 409, answer.text  # it went on meanwhile
        await asyncio.sleep(0.2)


async def reached(site, name):
    """Return the steps that a release had, in order."""
    records = await site.get(f"/v1/records?release={name}&limit=10000")
    return [step for step in dict.fromkeys(record["step"] for record in records) if step not in OUTSIDE]


@pytest.mark.parametrize(
    "push",
    [
        pytest.param(True, id="pushed"),
        pytest.param(False, id="by-evidence", marks=[LONG, pytest.mark.chaos, pytest.mark.timeout(3600)]),
    ],
)
async def test_each_policy_takes_a_failing_version_back_and_a_good_one_to_the_end(
    site, failing, selling, receiver, push
):
    """Failing ones by their evidence alone; good ones too in `make chaos`, which takes half an hour."""
    spoiled = await begin(site, failing, selling, 900, receiver.url)
    ends = await asyncio.gather(
        *(ended(site, name, push=push) for name in POLICIES),
        *(ended(site, f"{name}-bad", push=False) for name in POLICIES),
        ended(site, ALIKE, push=push),
    )
    await spoiled.stop()
    load, theirs = await site.leave(), spoiled.counts()

    assert ends == ["promoted"] * len(POLICIES) + ["rolled_back"] * len(POLICIES) + ["ended"]
    for name, policy in POLICIES.items():
        steps = re.findall(r"^  - (?:\{)?name: ([a-z]+)", policy, re.MULTILINE)
        assert await reached(site, name) == steps
        assert await reached(site, f"{name}-bad") == steps[:1]
    assert {s["name"]: s["stable"] for s in await site.get("/v1/services")} == {
        "shop": "v1",
        ALIKE: "v1",
        **dict.fromkeys(POLICIES, "v2"),
        **{f"{name}-bad": "v1" for name in POLICIES},
    }
    assert [body["data"]["service"] for _, _, body in receiver.got] == ["clean-up"]
    assert load.unexplained == theirs.unexplained == 0, load.examples + theirs.examples
    assert site.load.moved_back() == 0


async def test_the_emergency_policy_replaces_a_version_that_is_broken_in_a_blackout(site, failing):
    """The stable version fails every other request; nobody pushes."""
    works, broken = failing.ports
    await site.serve()
    service = placed("orders", broken, works) + ORDERS
    await site.apply(*site.world("edge"), service, quick(POLICIES["emergency"]))
    await site.start(edge_1=site.bootstrap("edge-1"))
    site.load = Load(tuple(users("orders")), (site.ports["edge"],), 800)
    await site.load.start()
    await site.post("/v1/blackouts", fleet="edge", **{"for": "9h"})

    await site.apply(RELEASE.format(name="orders", service="orders", policy="emergency"))
    end = await ended(site, "orders", push=False)
    await site.until(lambda: retired(site, "orders"))
    before = site.load.counts()
    await site.answered(300)
    load = await site.leave()

    assert end == "promoted"
    assert before.failed > 100
    assert load.failed - before.failed < 5
    assert load.unexplained == 0, load.examples


async def retired(site, name):
    """Return whether every proxy has the end of a release: it is decided before."""
    return (await site.get(f"/v1/releases/{name}"))["retired"]
