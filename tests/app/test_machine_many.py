"""The whole loop over a real store with all that a policy can say, crashes at every await, and many releases.

Policies are drawn, and then whatever can happen to a few services: groups, dependencies, releases that take
another's place, hooks that say no or nothing, blackouts, windows, endpoints that go, failures, operators. The
properties are in `never.py`; at the end the log's chain holds, every message has reached somebody under one
id, and each release decided again from what was recorded comes to the same.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from controlplane.app import logs
from controlplane.app.hooking import Hooking
from controlplane.app.outbox import Outbox
from controlplane.release.ports import StoreError
from controlplane.release.state import Phase
from controlplane.release.watch import Watch
from controlplane.stores.upkeep import verify
from controlplane.web.asked import Act, Declare, Order, Switch, Who
from controlplane.web.port import RefusedError
from tests.app import at_last
from tests.app.crashing import Crash, Crashing, Ears, opened
from tests.app.drawn import order, policies
from tests.app.lives import Lives
from tests.app.never import IN_PROGRESS, Never, Outside, past
from tests.app.site import INTERVAL, Clock, Many, Site, plain
from tests.documents import FLEET, SERVICE

LONG = int(os.environ.get("TURNOUT_CHAOS", "0"))  # `make chaos N=30`
SERVICES = ("back", "mid", "front", "shop")
BACK = (Phase.ROLLING_BACK, Phase.RETRYING, Phase.ROLLED_BACK)
POLICIES = ("one", "two")
FAULTS = st.sampled_from([None] * 6 + ["refuse", 0, 1, 2, 3, 4, 5])  # a full disk, or the await to crash at
SOON = 10  # intervals in which a failing canary is found, also without a past that teaches
SERVICE_OF = st.sampled_from(SERVICES)


@pytest.fixture(scope="module", autouse=True)
def _kept():
    """The clock stands in the past; what the store forgets it forgets by its own."""
    logs.quiet()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("controlplane.stores.rows.KEEP_TURNS", timedelta(days=100_000))
        yield


class ManyMachine(Lives):
    @initialize(one=policies("one"), two=policies("two"), joint=policies("joint", grouped=True))
    def begin(self, one, two, joint):
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR"))
        self.clock = Clock()
        self.outside = Outside(self.clock.now)
        self.totals = defaultdict(Counter)
        self.stored = {"evidence": {}, "learned": {}, "cursors": {}}
        self.expected = None
        self.last_tick = None
        self.ears = None
        self.never = None
        self._open()
        self.texts = {"fleet.yaml": FLEET, "one.yaml": one, "two.yaml": two, "joint.yaml": joint}
        for name in SERVICES:
            text = SERVICE.replace("name: shop", f"name: {name}").replace("shop.", f"{name}.")
            self.texts[f"{name}.yaml"] = text + ('  v3: {endpoints: ["10.0.0.3:80"]}\n' * (name == "shop"))
        self._take()
        assert not self.applied.problems, self.applied.problems

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        try:
            if self.expected is not None and sys.exc_info()[0] is None:
                self._at_the_end()
        finally:
            self._run(self.store.close())
            self._run(self.ears.poster.client.aclose())
            self.loop.close()
            self.folder.cleanup()

    def _open(self):
        """Begin a life of the process."""
        self.store = self._run(opened(Path(self.folder.name)))
        self.gates = Crashing(self.store, self._committed)
        heard = self.ears.heard if self.ears else []
        self.ears = Ears(self.gates.countdown)
        self.ears.heard = heard
        self.never = self.never or Never(self.outside, self.ears)
        self.never.ears = self.ears
        self.site = Site(self.gates, self.clock)
        cursors = self._run(self.site.loop.restore())
        self.site.traffic = self.site.statistics = Many(SERVICES, cursors)
        for name, traffic in self.site.traffic.of.items():
            traffic.totals = self.totals[name]
        self.hooking = Hooking(self.gates, self.site.loop, self.clock)
        self.outbox = Outbox(self.gates, self.clock)
        self.last_tick = None

    async def _committed(self, before, change, after):
        self.never.check(before, change, after)
        for table, rows in self.stored.items():
            rows.update(plain(dict(getattr(change, table))))
        if change.catalog is not None or any(state.ended for state in change.releases):
            going = {state.key for state in after.releases.values() if not state.ended}
            for key in self.stored["evidence"].keys() - going:
                del self.stored["evidence"][key]  # nothing reads it any more
        self.expected = after

    def _guarded(self, coroutine, fault=None, by="person", **outside):
        """Run until the end, or until the process ends; a refusal changes nothing."""
        self.outside.now, self.outside.by = self.clock.now, by
        self.outside.switching, self.outside.past = (
            outside.get("switching", False),
            outside.get("past", False),
        )
        before = self._run(self.store.world())
        self.gates.refuse = fault == "refuse"
        self.gates.countdown.left = fault if isinstance(fault, int) else None
        try:
            return self._run(coroutine)
        except Crash:
            self._crash()
        except (StoreError, RefusedError):
            assert by == "hook" or self._run(self.store.world()) == before
        finally:
            self.gates.refuse, self.gates.countdown.left = False, None
        return None

    def _crash(self):
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self._run(self.gates.settle())
        self._run(asyncio.sleep(0))
        self._run(self.store.close())
        self._run(self.ears.poster.client.aclose())
        self.clock.monotonic = 1.0  # another process, another boot
        self._open()
        world, memory = self._run(self.store.world()), self._run(self.store.memory())
        if self.expected is not None:
            assert world == self.expected
        for table, rows in self.stored.items():
            assert getattr(memory, table) == rows
        assert self.site.loop.watches == {n: Watch.from_json(b) for n, b in memory.evidence.items()}

    # --- time passes --------------------------------------------------------------------------------------

    def _intervals(self, count, fault=None, where="tick"):
        if self.expected and all(state.ended for state in self.expected.releases.values()):
            count = min(count, 1)  # nothing happens
        for number in range(count):
            last = number == count - 1
            self._tick(fault if last and where == "tick" else None)
            self._call(fault if last and where == "hook" else None)
            self._send(fault if last and where == "outbox" else None)

    def _tick(self, fault=None, seconds=5.0):
        self.clock.pass_(seconds)
        world = self._run(self.store.world())
        for name, traffic in self.site.traffic.of.items():
            quality = self.outside.quality.get(name, "good")
            if quality == "reset":
                traffic.reset()
                quality = self.outside.quality[name] = "good"
            traffic.mode = quality
            traffic.arrive(world)
            self.totals[name] = traffic.totals
        self.site.fleet.of = self.outside.fleet
        since = None if self.last_tick is None else timedelta(seconds=self.clock.monotonic - self.last_tick)
        self.outside.elapsed = timedelta(0) if since is None else min(since, 2 * INTERVAL)
        life, at = self.site, self.clock.monotonic
        self._guarded(self._ticked(), fault, by="loop")
        if life is self.site and self.site.loop._ticked_at == at:
            self.last_tick = at

    async def _ticked(self):
        await self.site.loop.tick(self.clock.now, self.clock.monotonic)

    def _call(self, fault=None):
        async def all_():
            await asyncio.gather(*self.hooking.begin(self.ears.poster))

        self._guarded(all_(), fault, by="hook")

    def _send(self, fault=None):
        self._guarded(self.outbox.send(self.ears.poster), fault, by="hook")

    @rule(
        count=st.integers(1, 12),
        status=st.sampled_from([200] * 6 + [409, 500, 0]),
        fault=FAULTS,
        where=st.sampled_from(["tick", "tick", "hook", "outbox"]),
    )
    def good(self, count, status, fault, where):
        self._intervals(count)
        self.ears.status = status
        self._intervals(1, fault, where)
        self.ears.status = 200

    @rule(count=st.integers(5, 20))
    def well(self, count):
        """All is as it should be for a while."""
        self._intervals(count)

    @rule(
        service=SERVICE_OF,
        quality=st.sampled_from(["silent", "partial", "none", "reset", "both"]),
        fleet=st.sampled_from(["all", "all", "some", "nack", "none"]),
        count=st.integers(1, 6),
        fault=FAULTS,
    )
    def blind(self, service, quality, fleet, count, fault):
        """Statistics or proxies of one service are not what they should be for a while."""
        self.outside.quality[service], self.outside.fleet[service] = quality, fleet
        self._intervals(count, fault)
        self.outside.quality.pop(service)
        self.outside.fleet.pop(service)

    @rule(data=st.data(), fault=FAULTS, then=st.integers(0, 8))
    @precondition(lambda self: any(r.phase in IN_PROGRESS for r in self.expected.releases.values()))
    def fails(self, data, fault, then):
        """A canary fails; what the policy says is done, whatever the calendar says."""
        going = sorted(r.service for r in self.expected.releases.values() if r.phase in IN_PROGRESS)
        service = data.draw(st.sampled_from(going))
        self.outside.quality[service] = "bad"
        for number in range(SOON):
            was = self.expected.of_service(service)
            self._intervals(1, fault if not number else None)
            if was is None or self._reacted(was, self.expected.releases[was.name]):
                break
        else:
            raise AssertionError(f"{was.policy.on_failure}, at {was.at}: {was.hold}: {was.because}")
        self.outside.quality.pop(service)
        self._intervals(then)

    def _reacted(self, was, now):
        """Return whether a failure had its consequence, or has none; wrong ones are not to be."""
        fails = (was.current.on_failure if was.current else None) or was.policy.on_failure
        back = now.key != was.key or now.phase in BACK
        if was.phase not in IN_PROGRESS or was.halt == "frozen":
            return True
        if was.step >= was.steps - 1 and not was.policy.guard.hold_back:
            return True  # without a baseline only a limit speaks, and that takes its time
        if past(was):
            return now.halt == "frozen" and not back
        signs = {
            "rollback": back,
            "hold": now.hold == "failed",
            "freeze": now.halt == "frozen",
            "step_back": now.step < was.step,
        }
        return signs[fails.do] or back or now.doomed or now.halt == "frozen" or now.hold == "unsafe"

    @rule(hours=st.sampled_from([1, 3, 5, 9, -2, 24 * 365]), then=st.integers(0, 6))
    def clock_jumps(self, hours, then):
        self.clock.now += timedelta(hours=hours)
        self._intervals(then)

    @rule(then=st.integers(4, 12))
    def night_falls(self, then):
        """It is two o'clock, when no window of a policy is open."""
        self.clock.now += timedelta(hours=(26 - self.clock.now.hour) % 24 or 24)
        self._intervals(then)

    @rule(then=st.integers(0, 6))
    def restarts(self, then):
        self._crash()
        self._intervals(then)

    # --- people -------------------------------------------------------------------------------------------

    @rule(then=st.integers(1, 12), fault=FAULTS)
    def consents(self, then, fault):
        """Somebody lets everything go on that waits for a person."""
        for name, state in sorted(self.expected.releases.items()):
            action = "approve" if state.hold.startswith("approval") else "resume" if state.halt else ""
            if action:
                self._guarded(self.site.plane.act(name, action, Act(actor="ann")), fault)
        self._intervals(then)

    @rule(
        data=st.data(),
        action=st.sampled_from(["approve", "pause", "advance", "advance", "promote", "rollback", "retry"]),
        past=st.booleans(),
        fault=FAULTS,
        then=st.integers(0, 8),
    )
    @precondition(lambda self: self.expected.releases)
    def acts(self, data, action, past, fault, then):
        states = self.expected.releases.values()
        names = sorted(state.name for state in states if state.ended == (action == "retry"))
        if names:
            name = data.draw(st.sampled_from(names))
            wanted = Act(actor="ann", past_point_of_no_return=past)
            self._guarded(self.site.plane.act(name, action, wanted), fault, past=past)
        self._intervals(then)

    @rule(
        service=SERVICE_OF,
        version=st.sampled_from(["v1", "v2", None]),
        past=st.booleans(),
        fault=FAULTS,
        then=st.integers(0, 4),
    )
    def switches(self, service, version, past, fault, then):
        """Make a version stable at once; without one, that of before the last promotion."""
        if version is None:
            undo = Act(actor="ann", past_point_of_no_return=past)
            work = self.site.plane.undo(service, undo)
        else:
            wanted = Switch(version=version, actor="ann", past_point_of_no_return=past)
            work = self.site.plane.switch(service, wanted)
        self._guarded(work, fault, switching=True, past=past)
        self._intervals(then)

    @rule(data=st.data(), declare=st.booleans(), fault=FAULTS, then=st.integers(1, 4))
    def blackouts(self, data, declare, fault, then):
        """Declare one, or withdraw the one that there is."""
        if self.outside.blackouts:
            gone = data.draw(st.sampled_from(sorted(self.outside.blackouts)))
            self._guarded(self.site.plane.withdraw(gone, Who(actor="ann")), fault)
        elif declare:
            self._guarded(self.site.plane.declare(Declare(fleet="edge", for_="2h", actor="ann")), fault)
        self._blackouts()
        self._intervals(then)

    def _blackouts(self):
        """Note what was declared, to the minute: from the begin of this one to the end of the last."""
        known = self._run(self.store.world()).blackouts
        begin = self.clock.now.replace(second=0, microsecond=0)
        end = begin + timedelta(hours=2)
        for new in known.keys() - self.outside.blackouts.keys():
            self.outside.blackouts[new] = (begin, end)
        for gone in self.outside.blackouts.keys() - known.keys():
            del self.outside.blackouts[gone]

    # --- documents ----------------------------------------------------------------------------------------

    def _take(self, fault=None):
        files = {name: text.encode() for name, text in self.texts.items()}
        self.applied = self._guarded(self.site.plane.take(files, "ann"), fault)

    @rule(
        data=st.data(),
        what=st.sampled_from(["one", "one", "group", "dependant", "dependant", "hotfix", "removal"]),
        start=st.sampled_from(["auto", "auto", "manual"]),
        fault=FAULTS,
        then=st.integers(0, 16),
    )
    def orders(self, data, what, start, fault, then):
        if what == "one":
            service, to = data.draw(SERVICE_OF), data.draw(st.sampled_from(["v2", "v2", "v1"]))
            policy = data.draw(st.sampled_from(POLICIES))
            wanted = Order(service=service, to=to, policy=policy, actor="ann", reason="because")
            self._guarded(self.site.plane.order(wanted), fault)
        else:
            getattr(self, f"_write_{what}")(data, start)
            self._take(fault)
        self._intervals(then)

    @rule(data=st.data(), rounds=st.integers(2, 8), fault=FAULTS, then=st.integers(0, 8))
    def a_group_fails(self, data, rounds, fault, then):
        """A group goes on as far as people let it, and then one of its canaries fails."""
        self._write_group(data, "auto")
        self._take()
        for _ in range(rounds):
            self.consents(then=2, fault=None)
        releases = self.expected.releases.values()
        if going := sorted(r.service for r in releases if r.group and r.phase in IN_PROGRESS):
            service = data.draw(st.sampled_from(going))
            self.outside.quality[service] = "bad"
            self._intervals(SOON, fault)
            self.outside.quality.pop(service)
        self._intervals(then)

    def _write_group(self, data, start):
        size = data.draw(st.integers(2, 3))
        names = SERVICES[:size]
        attempt = self._attempt(*(f"{name}-group" for name in names))
        for before, name in zip((None, *names), names, strict=False):
            after = before and f"[{{release: {before}-group}}]"
            more = {"group": "summer", "after": after, "attempt": attempt, "start": start}
            self._write(f"{name}-group", name, "joint", **more)
        for name in SERVICES[size:]:
            self.texts.pop(f"{name}-group.yaml", None)

    def _write_dependant(self, data, start):
        policy, attempt = data.draw(st.sampled_from(POLICIES)), self._attempt("back-first", "front-then")
        self._write("back-first", "back", policy, attempt=attempt, start=start)
        after = f"[{{release: back-first, reached: {data.draw(st.sampled_from(['guarding', 'promoted']))}}}]"
        self._write("front-then", "front", policy, after=after, attempt=attempt)

    def _write_hotfix(self, data, start):
        going = [r.name for r in self.expected.releases.values() if r.service == "shop" and not r.ended]
        more = {"supersedes": next((name for name in going if name != "hotfix"), None), "start": start}
        policy = data.draw(st.sampled_from(POLICIES))
        self._write("hotfix", "shop", policy, to="v3", attempt=self._attempt("hotfix"), **more)

    def _write_removal(self, data, start):
        names = sorted(name for name, text in self.texts.items() if text.startswith("kind: Release"))
        if names:
            self.texts.pop(data.draw(st.sampled_from(names)))

    @rule(
        service=SERVICE_OF,
        version=st.sampled_from(["1", "2"]),
        places=st.sampled_from(['"10.0.1.{}:80"', '"10.0.0.{}:80"', '"10.0.0.{}:80", "10.0.1.{}:80"', ""]),
        then=st.integers(0, 4),
    )
    def moves_endpoints(self, service, version, places, then):
        name = f"{service}.yaml"
        lines = self.texts[name].splitlines()
        own = f"  v{version}: "
        new = f"{own}{{endpoints: [{places.format(version, version)}]}}"
        self.texts[name] = "\n".join(new if line.startswith(own) else line for line in lines) + "\n"
        self._take()
        self._intervals(then)

    def _attempt(self, *names):
        """Return the attempt that runs these anew if all of them have ended, else the present one."""
        known = [self.expected.releases[name] for name in names if name in self.expected.releases]
        last = max((state.attempt for state in known), default=0)
        return last + all(state.ended for state in known)

    def _write(self, name, service, policy, to=None, **more):
        stable = self.expected.stable[service]
        to = to or ("v1" if stable == "v2" else "v2")
        if to != stable:
            self.texts[f"{name}.yaml"] = order(name, service, stable, to, policy, **more)

    # --- what holds at any time, and at the end -----------------------------------------------------------

    def _at_the_end(self):
        for _ in range(20):
            self._send()
            self.clock.now += timedelta(minutes=11)
        assert not self._run(self.store.waiting())
        at_last.told_once(self.ears.heard, self.never.messages)
        at_last.asked_by_key(self.ears.heard)
        records = self._run(self.store.records(limit=1_000_000))
        assert [(r.release, r.attempt, r.action, r.reason) for r in records] == self.never.records
        found = verify(self.store.path)
        assert (found.records, found.problems) == (len(records), ())
        for name in self.expected.releases:
            recording = self._run(self.store.recording(name, limit=1_000_000))
            at_last.decided_again(recording, [r for r in records if r.release == name])


TestMany = ManyMachine.TestCase
TestMany.pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(600 + 60 * LONG)]  # to shrink
TestMany.settings = settings(
    max_examples=20 * (LONG or 1),
    derandomize=not LONG,  # the same histories each time; `make chaos` draws others
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
