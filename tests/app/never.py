"""What must never happen, as properties of each committed change; by an account of their own, not the loop's.

``Never.check`` sees every change right after its commit, with the world before it and after it. What was
going on outside at that moment the machine has told it: who acted, the time, what the statistics and the
proxies of each service said.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from controlplane.app.treatment import Treatment
from controlplane.policy.segments import Request
from controlplane.release.state import Phase, Stage
from controlplane.resources.buckets import pick

IN_PROGRESS = (Phase.PROGRESSING, Phase.GUARDING)
HAS_TRAFFIC = (*IN_PROGRESS, Phase.ROLLING_BACK)
REACHED = {"guarding": (Phase.GUARDING, Phase.PROMOTED), "promoted": (Phase.PROMOTED,)}
WITHIN = timedelta(seconds=30)  # a change's time to reach the proxies, as the fleet says
INDIA = timedelta(hours=5, minutes=30)
USERS = tuple(
    Request(host="shop.example.com", headers=(("cookie", f"u=user-{number}{more}"),))
    for number in range(12)
    for more in ("", "; staff=yes", "; beta=1", "; staff=yes; beta=1")
)


@dataclass
class Outside:
    """What is going on when a change is committed."""

    now: datetime
    by: str = "person"  # person, loop, hook
    switching: bool = False
    past: bool = False  # somebody means to go back past the point of no return
    elapsed: timedelta = timedelta(0)
    quality: dict[str, str] = field(
        default_factory=dict
    )  # by service: good, bad, both, none, silent, partial
    fleet: dict[str, str] = field(default_factory=dict)  # by service: all, some, nack, none
    blackouts: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)

    def counts(self, service):
        """True if an interval of the service counts: fresh and complete statistics, and live proxies."""
        fresh = self.quality.get(service, "good") in ("good", "bad", "both", "none", "reset")
        return fresh and self.fleet.get(service, "all") in ("all", "some")

    def open_(self, policy):
        """True if the calendar lets a step of a policy begin."""
        if policy.emergency:
            return True
        if any(begin <= self.now < end for begin, end in self.blackouts.values()):
            return False
        return not policy.windows or any(self._within(window) for window in policy.windows)

    def _within(self, window):
        local = self.now.astimezone(UTC) + (INDIA if window.zone == "Asia/Kolkata" else timedelta(0))
        minute = local.hour * 60 + local.minute
        if window.from_ < window.to:
            return window.from_ <= minute < window.to
        return minute >= window.from_ or minute < window.to


class Never:
    def __init__(self, outside, ears):
        self.outside = outside
        self.ears = ears
        self.judged: dict[str, timedelta] = {}  # time that counted, of the present stage, by release
        self.served: Counter[str] = Counter()  # intervals of it in which requests came
        self.reached: set[str] = set()  # releases that proxies were seen to be given
        self.dooming: dict[str, timedelta] = {}  # since its going back was decided
        self.given: dict[str, list[str]] = {}  # by service: the version of each of USERS
        self.asked_from: dict[str, int] = {}  # by attempt: what was answered before counts no more
        self.records: list[tuple] = []  # all that were committed, in order
        self.messages = 0
        self._treatment = Treatment()

    def check(self, before, change, after):
        """Check one committed change."""
        assert after.revision == before.revision + change.visible_after(before)
        for state in change.releases:
            was, now = before.releases.get(state.name), after.releases[state.name]
            if was is not None and now.attempt == was.attempt:
                self._moved(before, was, now, change)
            else:
                assert now.phase is Phase.WAITING
                assert was is None or was.ended or was.phase in (Phase.RETRYING, Phase.WAITING)
                assert was is None or (now.salt != was.salt and not now.approvals and not now.calls)
        for service in {state.service for state in after.releases.values()}:
            active = [r.name for r in after.releases.values() if r.service == service and r.active]
            assert len(active) <= 1, f"{service}: {active}"
        if change.catalog is None:
            self._stable(before, change, after)
        self._nobody_moves_back(before, after)
        self._account(before, after)
        self.records += [(r.release, r.attempt, r.action, r.reason) for r in change.records]
        told = self._told(before, change, after)
        assert len(change.messages) == told, [record.action for record in change.records]
        self.messages += told

    def _moved(self, before, was, now, change):
        if was.ended:
            after = {"undone": now.undone, "revision": now.revision, "unconfirmed": now.unconfirmed}
            if was.unconfirmed and not now.unconfirmed and was.phase is Phase.ROLLED_BACK:
                after["because"] = now.because
            assert now == was.model_copy(update=after), "an end is final"
            assert was.phase is Phase.PROMOTED or not now.undone
            assert {each.proxy for each in now.unconfirmed} <= {each.proxy for each in was.unconfirmed}
            return
        assert now.salt == was.salt
        assert now.policy == was.policy or was.phase is Phase.WAITING, "pinned"
        if (was.phase, was.step) == (now.phase, now.step):
            return
        records = [r for r in change.records if r.release == now.name]
        assert len(records) == 1, "one record of each decision"
        if now.phase in IN_PROGRESS and was.phase in (Phase.WAITING, *IN_PROGRESS):
            begins = now.step > was.step or was.phase is Phase.WAITING
            if begins:
                assert now.step == (0 if was.phase is Phase.WAITING else was.step + 1), "no step is skipped"
                self._begins(before, was, now, records[0])
            else:
                assert now.phase is Phase.PROGRESSING
                assert now.step == min(was.step, was.steps - 1) - 1
                self._goes_back(was)
                self.asked_from[now.key] = len(self.ears.heard)
        elif now.phase is Phase.PROMOTED and not self.outside.switching:
            self._begins(before, was, now, records[0])
        elif now.phase is Phase.ROLLING_BACK:
            self._goes_back(was)
            self._in_reverse(before, was)
        elif now.phase in (Phase.ROLLED_BACK, Phase.RETRYING) and was.phase is Phase.ROLLING_BACK:
            there = self.outside.fleet.get(was.service, "all")
            assert there in ("all", "none"), "every proxy has it"
            assert there == "all" or was.key not in self.reached or now.unconfirmed, "nobody said so"

    # --- a step, the guard or the end begins --------------------------------------------------------------

    def _begins(self, before, was, now, record):
        following = was.step + 1 if was.phase in IN_PROGRESS else 0
        assert self.outside.open_(was.policy), "not in a blackout, and in a window"
        assert was.halt is None or self.outside.by == "person"
        coming = was.policy.steps[following] if following < was.steps else None
        if coming is not None and coming.approve is not None:
            assert was.approved(coming.name), "a person consented"
        if coming is not None and coming.irreversible is not None:
            assert was.approved(coming.name)
        self._after_others(before, was, following)
        if self.outside.by != "loop":
            return
        self._said_yes(was, following)
        if was.phase in IN_PROGRESS:
            self._deserved(was, record)

    def _deserved(self, was, record):
        """Check that the loop had every reason to give the canary more."""
        assert self.outside.counts(was.service), "fresh and complete data, live proxies"
        assert was.stage is Stage.JUDGE
        least = was.policy.guard.for_ if was.phase is Phase.GUARDING else was.policy.steps[was.step].for_
        spent = self.judged.get(was.key, timedelta(0)) + self.outside.elapsed
        assert spent >= least, f"{was.at} was judged for {spent}, not {least}"
        assert record.numbers["suspicion"] < 10
        if record.numbers["code"] == "without-proof":
            assert was.policy.when_unsure.do == "advance"
            assert was.phase is Phase.PROGRESSING
            assert spent >= was.policy.when_unsure.after
            assert self.outside.quality.get(was.service, "good") != "none", "somebody was served now"
            return
        assert {v["outcome"] for v in record.numbers["verdicts"]} == {"pass"}
        now = self.outside.quality.get(was.service, "good") in ("good", "both", "reset")
        assert self.served[was.key] + now > 0, "somebody was served in this step"

    def _after_others(self, before, was, following):
        for after in was.after:
            other = before.releases.get(after.release)
            outside = not was.group or other is None or other.group != was.group
            if outside and was.phase is Phase.WAITING:
                assert other is not None
                assert other.phase in REACHED[after.reached], "dependencies first"
        for other in members(was, before):
            if other.ended:
                continue
            there = other.step if other.phase in IN_PROGRESS else -1
            assert there >= following - 1, f"{other.name} is behind"
            if other.name in {after.release for after in was.after} and following < was.steps:
                assert there >= following, f"{other.name} comes first"

    def _said_yes(self, was, following):
        """Check that every system that has a say said yes, in this attempt, to this step."""
        heard = self.ears.heard[self.asked_from.get(was.key, 0) :]
        yes = {
            (h.body["data"]["point"], h.body["data"]["step"])
            for h in heard
            if 200 <= h.status < 300
            and (h.body["data"]["release"], h.body["data"]["attempt"]) == (was.name, was.attempt)
            and "point" in h.body["data"]
        }
        for point in {hook.at for hook in was.policy.hooks}:
            if point == "start" and was.phase is Phase.WAITING:
                assert ("start", was.policy.steps[0].name) in yes
            if point == "before_step" and following < was.steps:
                assert ("before_step", was.policy.steps[following].name) in yes
            if point == "before_promote" and was.phase is Phase.GUARDING:
                assert ("before_promote", "promoted") in yes

    # --- back ---------------------------------------------------------------------------------------------

    def _goes_back(self, was):
        if past(was):
            assert self.outside.by == "person", "no way back but by a person's word"
            assert self.outside.past

    def _in_reverse(self, before, was):
        if self.outside.switching:
            return
        first = [
            other.name
            for other in members(was, before)
            if other.phase in HAS_TRAFFIC and was.name in {after.release for after in other.after}
        ]
        waited = self.dooming.get(was.key, timedelta(0)) + self.outside.elapsed
        assert not first or waited >= WITHIN, f"{first} depend on {was.name} and go back before it"

    # --- users --------------------------------------------------------------------------------------------

    def _stable(self, before, change, after):
        promoted = {
            n.service: n.to_version
            for n in change.releases
            if n.phase is Phase.PROMOTED and before.releases[n.name].phase is not Phase.PROMOTED
        }
        assert dict(change.stable) == promoted or self.outside.switching

    def _nobody_moves_back(self, before, after):
        if after.revision == before.revision:
            return
        for fleet in after.catalog.fleets():
            for name, traffic in self._treatment.of(after, fleet).items():
                now = [pick(traffic, user).version for user in USERS]
                self._who_has_what(before, after, name, now)
                self.given[name] = now

    def _who_has_what(self, before, after, name, now):
        was, state = before.of_service(name), after.of_service(name)
        if state is None or state.phase not in IN_PROGRESS:
            assert set(now) == {after.stable[name]}, "without a release everybody has what is stable"
            return
        assert set(now) <= {state.from_version, state.to_version}
        if was is None or was.key != state.key or was.phase not in IN_PROGRESS:
            return
        if state.step > was.step:
            kept = [new for old, new in zip(self.given[name], now, strict=True) if old == state.to_version]
            assert set(kept) <= {state.to_version}, "whoever has the canary keeps it"
        elif state.step == was.step:
            assert now == self.given[name], "nobody moves while the step stays"
        else:
            kept = [new for old, new in zip(self.given[name], now, strict=True) if old == state.from_version]
            assert set(kept) <= {state.from_version}, "a step back gives nobody the canary"

    # --- accounts -----------------------------------------------------------------------------------------

    def _account(self, before, after):
        """Keep the time of judging by our own account; the release's never exceeds it."""
        for name, now in after.releases.items():
            was = before.releases.get(name)
            same = was is not None and (was.key, was.phase, was.step, was.stage) == (
                now.key, now.phase, now.step, now.stage,
            )  # fmt: skip
            if not same:
                self.judged[now.key], self.served[now.key] = timedelta(0), 0
            elif self._counted(was):
                self.judged[now.key] += self.outside.elapsed
                self.served[now.key] += self.outside.quality.get(now.service, "good") != "none"
            if now.phase in IN_PROGRESS:
                assert now.judged <= self.judged[now.key], f"{name} counts {now.judged}"
            if self.outside.by == "loop" and was is not None and was.phase in IN_PROGRESS:
                self.reached |= {now.key} if self.outside.fleet.get(now.service, "all") != "none" else set()
            if self.outside.by == "loop" and was is not None and was.doomed and now.key == was.key:
                self.dooming[now.key] = self.dooming.get(now.key, timedelta(0)) + self.outside.elapsed

    def _counted(self, was):
        """Return whether the interval counts as judged."""
        judging = self.outside.by == "loop" and was.stage is Stage.JUDGE and was.halt is None
        return judging and self.outside.counts(was.service)

    def _told(self, before, change, after):
        """Return how many messages a change must leave: one to everyone who wants each event."""
        count = 0
        for record in change.records:
            if not record.release:
                continue
            was, now = before.releases.get(record.release), after.releases[record.release]
            event = happened(record.action, was, now)
            count += sum(event in notify.on for notify in now.policy.notify)
            points = {hook.at for hook in now.policy.hooks}
            called_off = was is not None and was.phase is Phase.RETRYING and record.action != "confirm"
            count += "end" in points and event in ("promoted", "rolled_back") and not called_off
            fails = event in ("rolling_back", "frozen", "stepped_back")
            off = event in ("rolled_back", "held") and now.phase is Phase.ROLLED_BACK is not was.phase
            fails |= off and was.phase in (Phase.WAITING, Phase.RETRYING)
            fails |= record.action == "hold" and now.hold in ("failed", "late", "approval-expired", "unsafe")
            count += "failure" in points and fails and self.outside.by == "loop"
        return count


def happened(action, was, now):
    """Return what became of a release that was there before, in the words of notifications.

    That everyone is back is told once no proxy may serve the canary any more.
    """
    if action == "confirm":
        return "rolled_back"
    event = _happened(action, was, now)
    return "held" if event == "rolled_back" and now.unconfirmed else event


def _happened(action, was, now):
    again = {"pause": "paused", "order": "ordered", "freeze": "frozen", "unsafe": "held"}
    again |= {"held": "held", "safe": "cleared", "cleared": "cleared"}
    if action in again:  # once more too: an order is edited while it waits, another failure joins
        return again[action]
    if was.attempt != now.attempt:
        return "retried" if action == "retry" else None
    if was.phase is not now.phase:
        return {
            Phase.PROGRESSING: "started" if was.phase is Phase.WAITING else "stepped_back",
            Phase.GUARDING: "guarding",
            Phase.PROMOTED: "promoted",
            Phase.ROLLING_BACK: "rolling_back",
            Phase.RETRYING: "rolled_back",
            Phase.ROLLED_BACK: "rolled_back",
        }.get(now.phase)
    if was.step != now.step:
        return "advanced" if now.step > was.step else "stepped_back"
    if was.halt != now.halt and now.halt is not None:
        return now.halt
    return None


def past(state):
    """True if an irreversible step has begun."""
    begun = state.policy.steps[: state.step + 1] if state.phase in IN_PROGRESS else ()
    return any(step.irreversible for step in begun)


def members(state, world):
    """Return the others of a release's group, in the same attempt."""
    return [
        other
        for other in world.releases.values()
        if state.group and other.group == state.group and other.attempt == state.attempt
        if other.name != state.name
    ]
