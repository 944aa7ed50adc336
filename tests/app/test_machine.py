"""The whole loop over a real store, with crashes at every await: what must never happen, as a state machine.

Every committed change is checked against the state before it and against what the world outside was like at
that moment; the records alone must lead to the same state; what is read after a crash is what was committed.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from controlplane.release.failure import step_below
from controlplane.release.moves import next_action
from controlplane.release.ports import StoreError, World
from controlplane.release.state import RETURNING, Action, Phase, Stage
from controlplane.release.transitions import TRANSITIONS
from controlplane.release.watch import Watch
from controlplane.web.asked import Act, Documents, Order, Switch
from controlplane.web.port import RefusedError
from tests.app.crashing import Crash, Crashing, opened
from tests.app.lives import Lives
from tests.app.site import Clock, Site, files, plain
from tests.documents import POLICY, SERVICE

LONG = int(os.environ.get("TURNOUT_CHAOS", "0"))  # `make chaos N=30`
GROWING = (Action.ADVANCE, Action.GUARD, Action.PROMOTE)
LEAST = {"staff": 5, "ten": 10, "all": 5, "trial": 20, "guarding": 15}  # seconds, as the policies say
POLICIES = ("quick", "brave", "frosty", "again", "stepping", "asking", "reporting", "wondering")
FAULTS = st.sampled_from([None] * 5 + ["refuse"] * 2 + [0, 1, 2, 3])  # a full disk, or the await to crash at
BRAVE = "when_unsure: {after: 20s, do: advance}\n"
FROSTY = "on_failure: {do: freeze}\n"
AGAIN = "on_failure: {do: rollback, retry: {after: 20s, times: 1}}\n"
STEPPING = "on_failure: {do: step_back, retry: {after: 20s, times: 1}}\n"
TESTS = {"reporting": "report", "wondering": "ask"}
ASKING = "everyone: 10%, approve: {expires: 60s, on_expiry: rollback},"


class LoopMachine(Lives):
    @initialize()
    def begin(self):
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR"))
        self.clock = Clock()
        self.totals = Counter()
        self.stored = {"evidence": {}, "learned": {}, "cursors": {}}
        self.observed = Counter()
        self.expected: World | None = None
        self.by_loop = False
        self.judged: dict[str, float] = {}  # seconds that counted, by our own account, by release
        self.last_tick: float | None = None
        self.mode = ("good", "all")
        self._open()
        kinds = (("brave", BRAVE), ("frosty", FROSTY), ("again", AGAIN), ("stepping", STEPPING))
        texts = [POLICY, *(POLICY.replace("quick", name) + more for name, more in kinds)]
        texts.append(POLICY.replace("quick", "asking").replace("everyone: 10%,", ASKING))
        test = re.sub(r"  - {name: all.*\n|guard: .*\n", "", POLICY)
        test = test.replace("name: ten, everyone: 10%, for: 10s", "name: trial, everyone: 10%")
        texts += [test.replace("quick", n) + f"ends: {{after: 20s, do: {do}}}\n" for n, do in TESTS.items()]
        self._run(self.site.plane.take(files(quick="---\n".join(texts)), "test"))
        assert not self.site.plane.problems()
        self.order("v2", "quick", None, None, 0)

    def teardown(self):
        if hasattr(self, "loop"):
            self._run(self.store.close())
            self.loop.close()
            self.folder.cleanup()

    def _open(self):
        self.store = self._run(opened(Path(self.folder.name)))
        self.gates = Crashing(self.store, self._committed)
        self.site = self._run(Site(self.gates, self.clock).restore(self.totals))
        self.last_tick = None

    # --- what happens -------------------------------------------------------------------------------------

    @rule(
        first=st.integers(0, 12),
        quality=st.sampled_from(["good"] * 2 + ["bad", "none", "silent", "partial"]),
        fleet=st.sampled_from(["all"] * 5 + ["some", "nack", "none"]),
        seconds=st.sampled_from([5.0, 5.0, 1.0, 60.0]),
        jump=st.sampled_from([0] * 6 + [3600, -7200, 10 * 365 * 86400]),
        fault=FAULTS,
        times=st.integers(1, 4),
    )
    def ticks(self, first, quality, fleet, seconds, jump, fault, times):
        """Some good intervals, to be somewhere, and then some that are not."""
        self.good_ticks(first)
        self.clock.now += timedelta(seconds=jump)
        for _ in range(times):
            self._tick(quality, fleet, seconds, None)
        self._tick(quality, fleet, seconds, fault)

    def good_ticks(self, count):
        for _ in range(count):
            self._tick("good", "all", 5.0, None)

    def _tick(self, quality, fleet, seconds, fault):
        self.clock.pass_(seconds)
        self.mode = quality, fleet
        traffic, self.site.fleet.mode = self.site.traffic, fleet
        traffic.mode = quality
        traffic.arrive(self._run(self.store.world()))
        self.totals = traffic.totals
        self.by_loop = True
        self._guarded(self.site.loop.tick(self.clock.now, self.clock.monotonic), fault)

    @rule(
        action=st.sampled_from(
            ["resume"] * 3 + ["approve"] * 2 + ["pause", "advance", "promote", "rollback", "retry", "end"]
        ),
        fault=FAULTS,
        then=st.integers(0, 8),
        data=st.data(),
    )
    @precondition(lambda self: self.expected is not None and self.expected.releases)
    def operate(self, action, fault, then, data):
        name = data.draw(st.sampled_from(sorted(self.expected.releases)))
        self.by_loop = False
        self._guarded(self.site.plane.act(name, action, Act(actor="ann")), fault)
        self.good_ticks(then)

    @rule(
        to=st.sampled_from(["v1", "v2"]),
        policy=st.sampled_from(POLICIES),
        name=st.sampled_from([None, "other"]),
        fault=FAULTS,
        then=st.integers(0, 20),
    )
    def order(self, to, policy, name, fault, then):
        self.by_loop = False
        order = Order(service="shop", to=to, policy=policy, name=name, actor="ann")
        self._guarded(self.site.plane.order(order), fault)
        self.good_ticks(then)

    @rule(version=st.sampled_from(["v1", "v2"]), fault=FAULTS)
    def switch(self, version, fault):
        self.by_loop = False
        self._guarded(self.site.plane.switch("shop", Switch(version=version, actor="ann")), fault)

    @rule(number=st.integers(0, 1), version=st.sampled_from(["2", "1"]), then=st.integers(0, 8))
    def move_endpoints(self, number, version, then):
        self.by_loop = False
        text = SERVICE.replace(f'"10.0.0.{version}:80"', f'"10.0.{number}.{version}:80"')
        self._guarded(self.site.plane.apply(Documents(files={"shop.yaml": text}, actor="ann")), None)
        self.good_ticks(then)

    def _guarded(self, coroutine, fault):
        before = self._run(self.store.world())
        self.gates.refuse = fault == "refuse"
        self.gates.countdown.left = fault if isinstance(fault, int) else None
        try:
            self._run(coroutine)
        except Crash:
            self._crash()
        except (StoreError, RefusedError):
            assert self._run(self.store.world()) == before
        else:
            if self.by_loop:
                self.last_tick = self.clock.monotonic
        finally:
            self.gates.refuse, self.gates.countdown.left = False, None

    def _crash(self):
        self._run(self.gates.settle())
        self._run(self.store.close())
        self.clock.monotonic = 1.0  # another process, another boot
        self._open()
        world, memory = self._run(self.store.world()), self._run(self.store.memory())
        if self.expected is not None:
            assert world == self.expected
        for table, rows in self.stored.items():
            assert getattr(memory, table) == rows
        assert self.site.loop.watches == {n: Watch.from_json(b) for n, b in memory.evidence.items()}

    # --- what must never happen ---------------------------------------------------------------------------

    async def _committed(self, before, change, after):
        """Check one change, and remember it as the truth."""
        assert after.revision == before.revision + change.visible_after(before)
        moved = {}
        for state in change.releases:
            was, now = before.releases.get(state.name), after.releases[state.name]
            assert now == state.model_copy(update={"revision": (was.revision if was else 0) + 1})
            moved[state.name] = self._moved(was, now, change)
        self._counted(before, after, moved)
        if change.catalog is None:
            promoted = {n for n, a in moved.items() if a is Action.PROMOTE}
            switched = any(r.action == "switch" for r in change.records)
            assert bool(change.stable) is bool(promoted or switched)
            assert switched or set(change.stable.values()) == {after.releases[n].to_version for n in promoted}
        for table, rows in self.stored.items():
            rows.update(plain(dict(getattr(change, table))))
        if change.catalog is not None or any(state.ended for state in change.releases):
            going = {state.key for state in after.releases.values() if not state.ended}
            for key in self.stored["evidence"].keys() - going:
                del self.stored["evidence"][key]  # nothing reads it any more
        for name, turn in change.turns:
            assert after.releases[name].active or before.releases[name].active
            assert turn.moment.at is not None
        self.expected = after

    def _moved(self, was, now, change):
        """Return what happened to a release; there is a record of it, and only one."""
        told = ("held", "cleared")  # besides, that something is wrong for long, or over
        records = [r for r in change.records if r.release == now.name and r.action not in told]
        if was is None or now.attempt != was.attempt:
            action = records[0].action
            assert len(records) == 1
            assert action == "order" or (was.phase, Action(action)) in TRANSITIONS
            assert was is None or was.ended or action == "retry"
            assert (now.phase, now.attempt) == (Phase.WAITING, was.attempt + 1 if was else 1)
            assert was is None or now.salt != was.salt
            assert not now.approvals
            return None
        if was.ended:
            said = now.because if [r.action for r in records] == ["confirm"] else was.because
            after = {"undone": now.undone, "unconfirmed": now.unconfirmed, "because": said}
            assert now == was.model_copy(update=after | {"revision": now.revision}), "an end is final"
            assert was.phase is Phase.PROMOTED or not now.undone
            return None
        assert now.policy == was.policy
        assert now.salt == was.salt
        if (was.phase, was.step, was.stage) == (now.phase, now.step, now.stage):
            return None
        if self.by_loop and [r.numbers["code"] for r in records] == ["restarted"]:
            assert (now.phase, now.step, now.stage) == (was.phase, was.step, Stage.PROPAGATE)
            return None
        assert len(records) == 1
        action = meant(records[0], was)
        assert TRANSITIONS[was.phase, action] is now.phase
        expected = {Action.START: 0, Action.ADVANCE: was.step + 1, Action.GUARD: was.step + 1}
        expected[Action.STEP_BACK] = step_below(was)
        assert now.step == expected.get(action, was.step)
        if action is Action.GUARD:
            assert now.step == now.steps
        if action in (Action.START, Action.ADVANCE, Action.GUARD):
            assert change.evidence.get(now.key, Watch().to_json())["step"] == []
            begun = was.policy.steps[now.step] if now.step < now.steps else None
            assert begun is None or begun.approve is None or was.approved(begun.name)
        if action in (Action.START, Action.STEP_BACK):
            assert change.evidence.get(now.key, Watch().to_json()) == Watch().to_json()
        if action in GROWING and self.by_loop:
            self._deserved(was, records[0])
        if action is Action.END and self.by_loop:
            assert was.policy.name == "reporting"
            assert self.judged.get(was.name, 0.0) + self._elapsed() >= LEAST[was.at] - 1e-6
        assert (records[0].actor == "turnout") is self.by_loop
        return action

    def _deserved(self, was, record):
        """Check that the loop had every reason to give the canary more."""
        assert self.mode[0] in ("good", "none", "bad"), "fresh and complete data"
        assert self.mode[1] in ("all", "some")
        assert was.stage is Stage.JUDGE
        assert was.halt is None
        spent = self.judged.get(was.name, 0.0) + self._elapsed()
        assert spent >= LEAST[was.at] - 1e-6, f"{was.at} was judged for {spent} s"
        if was.phase is not Phase.GUARDING and record.numbers["code"] != "without-proof":
            assert {v["outcome"] for v in record.numbers["verdicts"]} == {"pass"}
        assert record.numbers["suspicion"] < 10

    def _elapsed(self):
        return self.clock.monotonic - self.last_tick if self.last_tick is not None and self.by_loop else 0.0

    def _counted(self, before, after, moved):
        """Keep our own account of the time of judging; the release's never exceeds it."""
        for name, now in after.releases.items():
            was = before.releases.get(name)
            if was is None or (was.attempt, was.phase, was.step, was.stage) != (
                now.attempt, now.phase, now.step, now.stage,
            ):  # fmt: skip
                self.judged[name] = 0.0
            elif (
                self.by_loop
                and was.stage is Stage.JUDGE
                and was.halt is None
                and self.mode[0] in ("good", "bad", "none")
                and self.mode[1] in ("all", "some")
            ):
                self.judged[name] = self.judged.get(name, 0.0) + self._elapsed()
            if now.phase in (Phase.PROGRESSING, Phase.GUARDING):
                assert now.judged.total_seconds() <= self.judged[name] + 1e-6

    @invariant()
    def at_most_one_release_of_a_service_has_traffic(self):
        if self.expected is not None:
            assert sum(r.active for r in self.expected.releases.values()) <= 1

    @invariant()
    def the_records_lead_to_the_state(self):
        """No step is skipped, repeated or lost: the records alone give phase and step."""
        if not hasattr(self, "store"):
            return
        for name, state in (self.expected.releases if self.expected else {}).items():
            shadow = None
            for record in self._run(self.store.records(name, 10_000)):
                if record.action in ("order", "retry"):
                    # An earlier attempt may have been ordered to another version.
                    target = re.search(r"-> (\S+), policy", record.reason)
                    to = target[1] if target else (shadow or state).to_version
                    shadow = state.model_copy(update={"phase": Phase.WAITING, "step": 0, "to_version": to})
                elif record.action not in ("hold", "held", "cleared"):
                    action = meant(record, shadow)
                    if action is None:
                        continue
                    step = shadow.step + (action in (Action.ADVANCE, Action.GUARD))
                    if action is Action.STEP_BACK:
                        step = step_below(shadow)
                    phase = TRANSITIONS[shadow.phase, action]
                    shadow = shadow.model_copy(
                        update={"phase": phase, "step": 0 if action is Action.START else step}
                    )
            assert (shadow.phase, shadow.step) == (state.phase, state.step)


def meant(record, state):
    """Return the action on a release that a record tells of; None if a switch left it alone."""
    if record.action == "switch":
        if state.phase in RETURNING or state.ended:
            return None
        return Action.PROMOTE if record.reason.startswith(f"to {state.to_version}") else Action.ROLL_BACK
    if record.action == "advance" and record.actor != "turnout":
        return next_action(state)
    return Action(record.action)


TestLoop = LoopMachine.TestCase
TestLoop.pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(600 + 60 * LONG)]  # to shrink
TestLoop.settings = settings(
    max_examples=20 * (LONG or 1),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
