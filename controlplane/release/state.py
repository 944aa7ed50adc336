"""A release's state: where it is, and what it has been through."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from controlplane.evidence.better import Result
from controlplane.policy.documents import After, Model, Point, Release
from controlplane.policy.fields import Duration
from controlplane.policy.pinned import PinnedPolicy, PinnedStep
from controlplane.release.outcomes import Failure
from controlplane.release.unconfirmed import Unconfirmed

NOTHING: Final = timedelta(0)


class Phase(StrEnum):
    """Where a release is in its life; three of them are ends."""

    __hash__ = str.__hash__  # that of an enumeration is a function of Python, and phases are looked up a lot

    WAITING = "waiting"
    PROGRESSING = "progressing"
    GUARDING = "guarding"
    ROLLING_BACK = "rolling_back"
    RETRYING = "retrying"  # rolled back, and starts again after a while
    ROLLED_BACK = "rolled_back"
    ENDING = "ending"  # an A/B test is over, and everyone returns
    ENDED = "ended"
    PROMOTED = "promoted"


class Stage(StrEnum):
    """What a step waits for: every proxy's ACK, the observed split, the evidence."""

    PROPAGATE = "propagate"
    VERIFY = "verify"
    JUDGE = "judge"


class Action(StrEnum):
    """What the loop or an operator does to a release."""

    START = "start"
    PROCEED = "proceed"  # to the next stage of the same step
    ADVANCE = "advance"
    GUARD = "guard"
    CROSS = "cross"  # the point of no return
    PROMOTE = "promote"
    ROLL_BACK = "rollback"
    END = "end"  # an A/B test
    FREEZE = "freeze"
    STEP_BACK = "step-back"
    FINISH = "finish"  # every proxy has acknowledged that everyone returns
    REST = "rest"  # the same, and it starts again after a while
    CONFIRM = "confirm"  # the last proxy that was away when it ended has it, or is taken for gone
    RETRY = "retry"  # as a new attempt
    DOOM = "doom"  # goes back as soon as those of its group that depend on it have
    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    ARM = "arm"  # what was to be started by hand starts as soon as it may


Halt = Literal["paused", "frozen"]
Halted = Halt | None

FINAL = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ENDED})
RETURNING = frozenset({Phase.ROLLING_BACK, Phase.ENDING})  # everyone, to the stable version
RETURNED = frozenset({Phase.ROLLED_BACK, Phase.ENDED})

NO_RETURN: Final = "point_of_no_return"  # where its call is made, and what an approval of it is called


class Approval(Model):
    """Somebody's consent to one step, given once."""

    step: str
    actor: str
    reason: str = ""
    at: datetime


class Answer(StrEnum):
    """What another system said to a call."""

    NONE = "none"  # it was not asked yet
    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"  # it did not answer, or not in words that mean something


class Call(Model):
    """One call to another system; see `release.hooks`.

    Attributes:
        key: Its own and the same in every attempt.
        point: Where in the release.
        step: What it is about.
        due: When it is to be made next; None: at once.
    """

    key: str
    point: Point | Literal["point_of_no_return"]
    step: str
    url: str
    timeout: Duration
    answer: Answer = Answer.NONE
    tries: int = 0
    error: str = ""
    due: datetime | None = None


class Passed(Model):
    """That a release went past its point of no return; it is written down once, and stays.

    Attributes:
        at: When, UTC.
        because: What cannot be undone: ``step 'all': drops a column``, ``the call of URL``.
        actor: Who took it there: ``turnout`` or a person; '' in stores of before this was written down.
    """

    at: datetime
    because: str
    actor: str = "turnout"


class Held(Model):
    """For how long something holds a release, or held it a moment ago.

    Attributes:
        what: Its identity; see `release.holding`.
        lasted: Since it began, short pauses included, by the monotonic clock.
        away: For how long it has not been there.
    """

    what: str
    lasted: Duration = timedelta(0)
    away: Duration = timedelta(0)


class ReleaseState(Model):
    """One release as the store keeps it.

    Attributes:
        name: The order's name; with ``attempt`` its identity.
        service: The service that is released.
        from_version: What was stable when it started.
        to_version: The canary.
        policy: Pinned at creation; later edits do not reach it.
        salt: Salt of the user hash, shown to anyone, so that anyone can recompute who sees what.
        purpose: Why it was ordered, as whoever did it says; an emergency has always one.
        start: ``manual`` waits for an operator's ``advance``.
        phase: See Phase.
        step: Index of the current step; ``len(policy.steps)`` while guarding; meaningless while waiting.
        stage: See Stage.
        halt: A person paused it, or a failure froze it; the clock of the step stands.
        halted: Why, for people; '' if it is not.
        frozen_by: The failures that froze it.
        overruled: Failures that no longer count in this attempt, because a person let it go on after them.
        hold: Why the loop does not go on, '' if it does; a short code, for comparison.
        cause: What of the hold was written down last; see `release.holding`.
        caused: How long ago that was, by the monotonic clock.
        causes: How many causes of this hold were written down after the first one.
        held_for: How long this kind of hold has lasted, by the monotonic clock.
        holds: What holds it, first, and what held it a moment ago.
        kinds: Of holds that were written down since the last action, the newest last.
        unwritten: This kind was not written down again, for it may come and go.
        wrong: How long something has been wrong, short pauses left out; zero if nothing is.
        well: For how long nothing has been wrong since.
        told: The kind of hold of which people were told that it lasts; '' of none.
        told_what: Its identity.
        told_why: The reason that they were told.
        because: The same for people, with names and numbers.
        judged: Time of judging in this step that counted: fresh data, verified split, nothing held.
        unproved: Time in this step since every proxy had it, or since its last proof, without halts.
        sighted: The part of it that counted as judging, with requests of the canary and all data there.
        elapsed: Time in this phase, or in this step: until every proxy has it, then since that; by the
            monotonic clock.
        running: Time since the start, by the monotonic clock.
        stepping: Time in this step until it passed, without halts, by the monotonic clock.
        asking: Time for which an approval has been due, by the monotonic clock.
        approvals: Given so far, in this attempt.
        calls: To other systems, in this attempt.
        passed: Its point of no return, in this attempt; None before it. See `release.point`.
        rest: Time that is left until it goes on by itself after a failure; None if it does not.
        barred: After a step back without a retry: only a person lets it go up again.
        tries: How often it went on again after a failure, over all attempts.
        begun: How often a step began in this attempt, the same one again and a changed order included.
        after: Releases that must have come so far before it starts.
        group: Releases of one name go step by step together; '' for none.
        supersedes: A release of the service that goes back for this one.
        from_stable: While it waits it is from whatever is stable, as a command orders it.
        document: What ordered it; None for a command, and for what older stores have.
        holding: Why it starts by hand although its document does not say so; '' if it does.
        doomed: Why it goes back as soon as those of its group that depend on it have; '' if it does not.
        dooming: Time for which it has waited for them, by the monotonic clock.
        way_back: How many endpoints the old version had at the start, or when that was first known.
        alarmed: Of what kind of danger to the way back people were told; '' of none. See `release.way_back`.
        result: What its A/B test has shown, by metric; empty before the test.
        apart: Whether values that are pushed may tell of a time in which the split of its test was wrong.
        undone: Who made another version stable after its promotion, when and why; '' if nobody did.
        gate: Proxies that must acknowledge the present step, each with the seconds that it has been away.
        unconfirmed: Proxies that were given it and are not known to have left it, or, once it is promoted,
            to have left what was before it. See `release.confirming`.
        turned_at: When the loop last looked at it while it had traffic, UTC.
        canary_endpoints: Addresses of the canary when the step began.
        revision: How often it was written; a writer must have read the newest.
    """

    name: str
    attempt: int
    service: str
    from_version: str
    to_version: str
    policy: PinnedPolicy
    salt: str
    purpose: str = ""
    start: Literal["auto", "manual"] = "auto"
    phase: Phase = Phase.WAITING
    step: int = 0
    stage: Stage = Stage.PROPAGATE
    halt: Halt | None = None
    halted: str = ""
    frozen_by: tuple[Failure, ...] = ()
    overruled: tuple[Failure, ...] = ()
    hold: str = ""
    cause: str = ""
    caused: timedelta = NOTHING
    causes: int = 0
    held_for: timedelta = NOTHING
    holds: tuple[Held, ...] = ()
    kinds: tuple[str, ...] = ()
    unwritten: bool = False
    wrong: timedelta = NOTHING
    well: timedelta = NOTHING
    told: str = ""
    told_what: str = ""
    told_why: str = ""
    because: str = ""
    judged: timedelta = NOTHING
    unproved: timedelta = NOTHING
    sighted: timedelta = NOTHING
    elapsed: timedelta = NOTHING
    running: timedelta = NOTHING
    stepping: timedelta = NOTHING
    asking: timedelta = NOTHING
    approvals: tuple[Approval, ...] = ()
    calls: tuple[Call, ...] = ()
    passed: Passed | None = None
    rest: timedelta | None = None
    barred: bool = False
    tries: int = 0
    begun: int = 0
    after: tuple[After, ...] = ()
    group: str = ""
    supersedes: str = ""
    from_stable: bool = False
    document: Release | None = None
    holding: str = ""
    doomed: str = ""
    dooming: timedelta = NOTHING
    way_back: int = 0
    alarmed: str = ""
    undone: str = ""
    result: tuple[Result, ...] = ()
    apart: bool = False
    gate: tuple[tuple[str, float], ...] = ()
    unconfirmed: tuple[Unconfirmed, ...] = ()
    turned_at: datetime | None = None
    canary_endpoints: tuple[str, ...] = ()
    created_at: datetime
    started_at: datetime | None = None
    step_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str = ""
    revision: int = 0

    @property
    def held(self) -> timedelta:
        """For how long what holds it now has held it; a short pause, as of a late export, is none."""
        now = self.holds[0] if self.holds else None
        return now.lasted if now and now.what.partition(" ")[0] == self.hold else self.held_for

    @property
    def key(self) -> str:
        """Name and attempt: under this, evidence and observations are kept."""
        return f"{self.name}#{self.attempt}"

    def call(self, key: str) -> Call | None:
        """Return a call that was written down, or None."""
        return next((call for call in self.calls if call.key == key), None)

    @property
    def crossing(self) -> Call | None:
        """The call of the point of no return, from when it was crossed."""
        return next((call for call in self.calls if call.point == NO_RETURN), None)

    @property
    def active(self) -> bool:
        """True while it has traffic or may get some: started and not ended."""
        return self.phase in (Phase.PROGRESSING, Phase.GUARDING) or self.phase in RETURNING

    @property
    def may_go_on(self) -> bool:
        """True in the phases from which a next step can begin."""
        return self.phase in (Phase.WAITING, Phase.PROGRESSING, Phase.GUARDING)

    @property
    def shape(self) -> tuple[object, ...]:
        """What the traffic of its service depends on."""
        return (self.phase, self.step, self.attempt, self.to_version, self.salt)

    @property
    def ended(self) -> bool:
        """True if nothing can happen to it any more."""
        return self.phase in FINAL

    @property
    def past(self) -> str:
        """Why there is no way back but by a person's word; '' before the point of no return."""
        return self.passed.because if self.passed else ""

    @property
    def steps(self) -> int:
        """How many steps the policy has; the guard is not one of them."""
        return len(self.policy.steps)

    @property
    def testing(self) -> bool:
        """True in the last step of a policy that ends, which is its A/B test."""
        last = self.phase is Phase.PROGRESSING and self.step + 1 >= self.steps
        return last and self.policy.ends is not None

    @property
    def current(self) -> PinnedStep | None:
        """The step in progress; None outside of PROGRESSING."""
        return self.policy.steps[self.step] if self.phase is Phase.PROGRESSING else None

    def approved(self, step: str) -> Approval | None:
        """Return who approved a step, or None."""
        return next((given for given in self.approvals if given.step == step), None)

    @property
    def at(self) -> str:
        """Where it is, in a word: the step's name or the phase."""
        return self.current.name if self.current else str(self.phase)


def salt(name: str, attempt: int) -> str:
    """Return the salt of the user hash of an order; another attempt chooses other users."""
    return f"{name}.{attempt}"
