"""The process is killed at every point of a decision, again and again: outside, nobody can tell."""

from __future__ import annotations

import asyncio
import os
import random
import time

import httpx
import pytest

from controlplane.failpoints import POINTS
from tests.chaos.ledger import Weights, count, told
from tests.chaos.lives import Mortal
from tests.waiting import PATIENCE

KILLS = int(os.environ.get("TURNOUT_CHAOS", "4"))  # of each point; `make chaos N=30`
SEED = 7
LONGEST = 240.0  # seconds for a life that takes five: a busy machine has late statistics, which hold a step
STEPS = {"third": 3000, "most": 6000, "all": 9500}
# Seconds; the second one is long enough for a restart to cut it short, if it could.
DWELL = {3000: 0.3, 6000: 4.0, 9500: 0.3}
DEEP = {"before-read": 4, "after-evaluate": 3, "before-commit": 3, "after-commit": 3}
EVENTS = "[ordered, started, asking, advanced, held, guarding, promoted, rolling_back, rolled_back, frozen]"
POLICY = """\
kind: Policy
name: chaos
steps:
  - {{name: third, everyone: 30%, for: 300ms}}
  - {{name: most, everyone: 60%, for: 4s}}
  - {{name: all, everyone: 100%, for: 300ms}}
conditions:
  - errors: off
  - client_errors: off
  - latency: off
  - success_rate: {{at_least: 90%}}
hooks:
  - {{at: before_step, url: "{url}"}}
  - {{at: judging, url: "{url}"}}
notify:
  - {{webhook: "{url}", on: {events}}}
guard: {{for: 300ms, hold_back: 5%}}
"""

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.chaos,
    pytest.mark.long,
    pytest.mark.timeout(LONGEST * KILLS),
]


def lives(kills):
    """Return (point, passing) of each life; a hook is killed twice in a row, for it is asked again."""
    bursts = []
    for point in POINTS:
        of_point = [(point, 1 + number % DEEP.get(point, 1)) for number in range(kills)]
        size = 2 if point == "hook" else 1
        bursts += [of_point[start : start + size] for start in range(0, kills, size)]
    random.Random(SEED).shuffle(bursts)
    return [life for burst in bursts for life in burst]


class Operator:
    """Orders a release as soon as the one before it is promoted, to and fro, until told to stop."""

    def __init__(self, site, receiver):
        self.releases = []
        self._site, self._receiver = site, receiver
        self._last = asyncio.Event()
        self._task = asyncio.create_task(self._order())

    async def finish(self):
        """Order no more, and wait for the last one."""
        self._last.set()
        await self._task

    async def _order(self):
        while not self._last.is_set():
            name = f"r{len(self.releases) + 1}"
            self.releases.append(name)
            order = {"service": "shop", "to": "v2" if len(self.releases) % 2 else "v1", "policy": "chaos"}
            order |= {"name": name, "actor": "tester"}
            await self._site.until(lambda order=order: self._accepted(order))
            await self._site.until(lambda name=name: self._promoted(name), LONGEST * KILLS)

    async def _accepted(self, order):
        try:
            answer = await self._site.client.post("/v1/releases", json=order)
        except httpx.TransportError:
            return False  # killed meanwhile: it may be ordered, and it may be not
        known = answer.status_code == 409 and "let it end" in answer.text
        assert answer.is_success or known or answer.status_code == 503, answer.text
        return answer.is_success or known

    async def _promoted(self, name):
        events, _ = told(list(self._receiver.got))
        ends = ("turnout.release.promoted", f"/turnout/releases/{name}")
        return any((event["type"], event["source"]) == ends for event in events.values())


def ladder(releases):
    """Return the weights of v2 that an Envoy has, one after the other."""
    up = [*STEPS.values(), 10_000]
    down = [10_000 - weight for weight in up]
    return [0, *(w for number in range(len(releases)) for w in (down if number % 2 else up))]


async def test_a_process_killed_anywhere_loses_repeats_and_skips_nothing(tmp_path, receiver):
    """The gate kills once at each passing of a point, four times at least; `make chaos N=30` more often."""
    async with Mortal(tmp_path, "100ms") as site:
        await site.live()
        await site.until(site.up)
        policy = POLICY.format(url=receiver.url, events=EVENTS)
        await site.apply(*site.world("edge"), policy)
        await site.start(edge_1=site.eager("edge-1"))
        await site.come(400)
        weights = await Weights(site.envoys["edge-1"]).begin()
        operator = Operator(site, receiver)
        site.end()
        await site.death()

        began, took = time.monotonic(), {}
        for point, passing in lives(KILLS):
            born = time.monotonic()
            await site.live(f"{point}:{passing}")
            await site.death(LONGEST)
            took.setdefault(point, []).append(time.monotonic() - born)
        spent = time.monotonic() - began
        await site.live()
        await asyncio.wait_for(operator.finish(), LONGEST)

        # What has not come by now will not: it is counted below.
        await within(PATIENCE, lambda: not count(list(receiver.got), list(STEPS), operator.releases).lost)
        await within(PATIENCE, lambda: weights.sequence == ladder(operator.releases))
        seen = await site.leave()
        await weights.stop()

    counted = count(receiver.got, list(STEPS), operator.releases)
    slow = {point: round(sum(times), 1) for point, times in took.items()}
    print(
        f"{sum(map(len, took.values()))} kills in {spent:.0f} s {slow}, {len(operator.releases)} releases,"
        f" {counted.decisions} messages of decisions, {counted.deliveries} deliveries,"
        f" {seen.requests} requests; lost, repeated, skipped, uncommitted: {counted.faults or 0}"
    )
    assert {point: len(times) for point, times in took.items()} == dict.fromkeys(POINTS, KILLS)
    assert not counted.faults
    assert weights.sequence == ladder(operator.releases)
    for weight, seconds in weights.dwelt():
        assert seconds >= (DWELL.get(weight) or DWELL[10_000 - weight])
    assert seen.unexplained == 0, seen.examples


async def within(seconds, condition):
    """Return when something is so, or when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - a thread and an Envoy tell
        await asyncio.sleep(0.05)
