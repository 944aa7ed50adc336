"""The process is killed around the point of no return: one call or none, and never one unknown to people."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.chaos.lives import Mortal

POLICY = """\
kind: Policy
name: final
steps: [{{name: all, everyone: 100%}}]
conditions: [{{errors: off}}, {{client_errors: off}}, {{latency: off}}, {{success_rate: {{at_least: 90%}}}}]
guard: {{for: 1h}}
point_of_no_return: {{approve: {{}}, run: {{url: "{url}", timeout: 30s}}}}
"""

pytestmark = [pytest.mark.chaos, pytest.mark.waits]


@pytest.fixture
async def site(tmp_path):
    async with Mortal(tmp_path, "100ms") as site:
        yield site


async def live(site, failpoint=""):
    """Begin a life, in which the release stands as it did."""
    await site.live(failpoint)
    await site.until(site.up)


async def guarding(site, receiver, failpoint=""):
    """Begin a life with a release in its guard, and consent to its point of no return."""
    await live(site, failpoint)
    await site.apply(*site.world("edge"), POLICY.format(url=receiver.url))
    await site.post("/v1/releases", service="shop", to="v2", policy="final")
    await site.released(phase="progressing")
    await site.act("advance")
    await site.act("approve")


async def paused(site, receiver, failpoint):
    """Begin a life that dies at the failpoint as soon as anything is decided, with that release paused."""
    await guarding(site, receiver)
    await site.act("pause")
    await site.released(hold="paused")  # then nothing else is decided
    site.end()
    await site.death()
    await live(site, failpoint)


async def cross(site):
    """Let a person advance to the point; the process may die of it."""
    try:
        await site.act("advance")
    except httpx.TransportError:
        return


async def crossings(site):
    return [action for _, action in await site.actions() if action == "cross"]


async def frozen(site, receiver, calls):
    """Assert that the release froze, says why, and calls nobody in many looks at what is due."""
    shown = await site.released(halt="frozen", phase="guarding")
    assert "whether it was done is unknown, Turnout ended before an answer was stored" in shown["because"]
    assert shown["point_of_no_return"].startswith(f"passed at the call of {receiver.url}")
    assert await crossings(site) == ["cross"]
    await asyncio.sleep(1)  # five looks
    assert len(receiver.got) == calls


async def test_killed_before_the_crossing_is_committed_nothing_was_crossed(site, receiver):
    await paused(site, receiver, "before-commit")
    await cross(site)
    await site.death()

    await live(site)
    shown = await site.release()

    assert shown["point_of_no_return"].startswith("1 step away")
    assert (shown["halt"], await crossings(site), receiver.got) == ("paused", [], [])
    await cross(site)
    await site.released(phase="promoted")
    assert len(receiver.got) == 1


async def test_killed_when_the_crossing_is_committed_it_freezes_and_calls_nobody(site, receiver):
    await paused(site, receiver, "after-commit")
    await cross(site)
    await site.death()

    await live(site)

    await frozen(site, receiver, 0)
    await site.act("resume")
    await site.released(phase="promoted")
    assert len(receiver.got) == 1


async def test_killed_in_the_call_it_freezes_and_repeats_nothing(site, receiver):
    await guarding(site, receiver)
    receiver.go_on.clear()
    await cross(site)
    assert await asyncio.to_thread(receiver.wait, 1)
    site.end()
    await site.death()
    receiver.go_on.set()

    await live(site)

    await frozen(site, receiver, 1)
    await site.act("resume")
    await site.released(phase="promoted")
    assert len({key for key, _, _ in receiver.got}) == 1, "the same key, by which the other side can tell"


async def test_killed_with_an_answer_that_is_not_stored_it_freezes_and_repeats_nothing(site, receiver):
    await guarding(site, receiver, "hook")
    await cross(site)
    await site.death()

    await live(site)

    await frozen(site, receiver, 1)
    await site.act("promote")
    assert (await site.release())["phase"] == "promoted"
    assert len(receiver.got) == 1
