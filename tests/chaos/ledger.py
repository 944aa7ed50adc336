"""What the world outside saw of releases: told by the receiver of notifications, and by an Envoy's routes.

Nothing here reads the store. A decision is known by the CloudEvent that tells it, whose id the store gives
to the record; the same id twice is a message that was sent twice, which is allowed, and two ids for one
decision are a decision that was taken twice, which is not.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

from tests.waiting import until

NOISE = ("turnout.release.held",)  # a release may wait for many reasons and as often as it likes


@dataclass
class Counted:
    """How many decisions were lost, repeated or skipped, or were told without having been committed."""

    decisions: int = 0
    deliveries: int = 0
    lost: list = field(default_factory=list)
    repeated: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    uncommitted: list = field(default_factory=list)

    @property
    def faults(self):
        return {
            name: found
            for name in ("lost", "repeated", "skipped", "uncommitted")
            if (found := getattr(self, name))
        }


def told(got):
    """Return the events of a receiver by id, and the ids of which two different messages came.

    A message of a decision that was never committed takes its id from a record that another decision will
    become: then two messages with one id differ.
    """
    events, differing = {}, []
    for _, _, body in got:
        if body["type"] in NOISE:
            continue
        if events.setdefault(body["id"], body) != body and body["type"].startswith("turnout.release."):
            differing.append(body)
    return events, differing


def count(got, steps, releases):
    """Compare what a receiver got with what releases by a policy of these steps are made of."""
    events, differing = told(got)
    counted = Counted(len(events), len(got), uncommitted=differing)
    for release in releases:
        mine = [e for e in events.values() if e["source"].endswith(f"/{release}")]
        wanted = _wanted(steps)
        seen = [_what(event) for event in sorted(mine, key=lambda event: event["time"])]
        decided = [what for what in seen if what[0] in _DECISIONS]
        counted.lost += [(release, what) for what in wanted if what not in seen]
        counted.repeated += [(release, what) for what in sorted({*seen}) if seen.count(what) > 1]
        counted.uncommitted += [(release, what) for what in seen if what not in wanted]
        if decided != [what for what in wanted if what[0] in _DECISIONS]:
            counted.skipped.append((release, decided))
    return counted


_DECISIONS = ("started", "advanced", "guarding", "promoted")


def _what(event):
    kind = event["type"].removeprefix("turnout.").removeprefix("release.")
    return kind, event["data"]["step"]


def _wanted(steps):
    asked = [(f"hook.{point}", step) for step in steps for point in ("before_step", "judging")]
    return [
        ("ordered", "waiting"),
        *asked,
        ("started", "waiting"),
        *(("advanced", step) for step in steps[:-1]),
        ("guarding", steps[-1]),
        ("promoted", "guarding"),
    ]


class Weights:
    """The canary's weights that an Envoy had, one after the other, each with the time when it came.

    ``changes`` are (weight of v2, last look without it, first look with it), by the monotonic clock.
    """

    def __init__(self, envoy, service="shop"):
        self.changes = []
        self._envoy = envoy
        self._service = service
        self._task = asyncio.create_task(self._watch())

    async def begin(self):
        """Return once it is known what the Envoy had first."""
        await until(lambda: self._task.done() or self.changes)
        return self

    async def stop(self):
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def are(self, wanted):
        """Check what the Envoy had, once it had as many: what is decided reaches it a moment later."""
        await until(lambda: self._task.done() or len(self.changes) >= len(wanted))
        assert self.sequence == wanted

    @property
    def sequence(self):
        return [weight for weight, _, _ in self.changes]

    def dwelt(self):
        """Return (weight, seconds in force at most) of each step; all and nothing are no steps."""
        pairs = zip(self.changes, self.changes[1:], strict=False)
        return [(before[0], after[2] - before[1]) for before, after in pairs if before[0] not in (0, 10_000)]

    async def _watch(self):
        before = time.monotonic()
        while True:
            dump = json.loads(await self._envoy.admin("/config_dump?resource=dynamic_route_configs"))
            now = time.monotonic()
            weight = _weight(dump, f"{self._service}~v2")
            if weight is not None and (not self.changes or self.changes[-1][0] != weight):
                self.changes.append((weight, before, now))
            before = now
            await asyncio.sleep(0.04)


def _weight(dump, cluster):
    """Return the weight of a cluster where users are split, all or nothing where they are not."""
    hosts = (host for c in dump.get("configs", ()) for host in c["route_config"].get("virtual_hosts", ()))
    actions = [route["route"] for host in hosts for route in host.get("routes", ()) if "route" in route]
    split = [a["weighted_clusters"]["clusters"] for a in actions if "weighted_clusters" in a]
    whole = {a["cluster"] for a in actions if "cluster" in a}
    if split:
        found = {next((c["weight"] for c in shares if c["name"] == cluster), 0) for shares in split}
        assert len(found) == 1, f"one service has several weights: {found}"
        return found.pop()
    return 10_000 * (cluster in whole) if whole else None
