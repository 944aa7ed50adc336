"""The table of failures: what each leads to where, and what a person's `resume` makes of a freeze by it.

The other two tables are in `release.transitions`: which action is possible in which phase, and in which halt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Failure(StrEnum):
    """What keeps a release from going on as it does, or from going on at all."""

    CONDITION = "condition"
    UNSURE = "unsure"
    LATE = "late"
    APPROVAL = "approval"
    CALL = "call"
    DEPENDENCY = "dependency"
    GROUP = "group"
    SUPERSEDED = "superseded"


class Place(StrEnum):
    """Where a failure meets a release, whether it is halted or not; past its point means in progress, too."""

    WAITING = "waiting"
    GOING = "progressing, guarding"
    PAST = "past the point of no return"
    RETURNING = "rolling back, ending"
    RETRYING = "retrying"


class Outcome(StrEnum):
    """What a failure leads to; a release that waits or retries goes back by ending, for it has no traffic."""

    NOTHING = "-"
    POLICY = "as the policy says"
    POLICY_FROZEN = "as the policy says; frozen, where that is to go back"
    BACK = "goes back"
    FREEZES = "is frozen"


class Remedy(StrEnum):
    """What `resume` of a release does that a failure froze: the same does not freeze it again at once."""

    ANEW = "begins the step again, with new evidence"
    ASK = "asks again, for as long; `approve` lets it go on at once"
    CALL = "calls it again, with the same key"
    OVERRULE = "goes on all the same, until the end of this attempt"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table.

    Attributes:
        what: The failure, in words.
        field: Where the policy says what it leads to; '' if it has no say.
        places: What it leads to, where that is not nothing.
        halted: Whether it is looked for while the release is paused or frozen, too.
        resumed: What a person's `resume` does after it has frozen the release.
    """

    what: str
    field: str
    places: Mapping[Place, Outcome]
    halted: bool
    resumed: Remedy

    def at(self, place: Place) -> Outcome:
        """Return what it leads to at a place."""
        return self.places.get(place, Outcome.NOTHING)


_EVERYWHERE = {Place.WAITING: Outcome.BACK, Place.GOING: Outcome.BACK, Place.PAST: Outcome.FREEZES}
_IN_PROGRESS = {Place.GOING: Outcome.POLICY, Place.PAST: Outcome.POLICY_FROZEN}

# A release that is frozen stays so where the table has it freeze, or the policy has it hold: the further
# failure is told once, and joins what froze it. What would take it back takes it back.
FAILURES: Mapping[Failure, Rule] = {
    Failure.CONDITION: Rule(
        what="a condition fails, the budget is spent, a hook judges no",
        field="on_failure.do",
        places={Place.GOING: Outcome.POLICY, Place.PAST: Outcome.FREEZES},
        halted=True,
        resumed=Remedy.ANEW,
    ),
    Failure.UNSURE: Rule(
        what="no proof either way for too long",
        field="when_unsure.do",
        places=_IN_PROGRESS,
        halted=False,
        resumed=Remedy.ANEW,
    ),
    Failure.LATE: Rule(
        what="a step or the release takes too long",
        field="on_timeout",
        places=_IN_PROGRESS,
        halted=False,
        resumed=Remedy.OVERRULE,
    ),
    Failure.APPROVAL: Rule(
        what="nobody approved in time",
        field="approve.on_expiry",
        places={Place.WAITING: Outcome.POLICY, **_IN_PROGRESS},
        halted=False,
        resumed=Remedy.ASK,
    ),
    Failure.CALL: Rule(
        what="the call of the point of no return brought no yes",
        field="",
        places={Place.PAST: Outcome.FREEZES},
        halted=True,
        resumed=Remedy.CALL,
    ),
    Failure.DEPENDENCY: Rule(
        what="a release that it comes after went back",
        field="on_failed_dependency",
        places={Place.WAITING: Outcome.POLICY, **_IN_PROGRESS},
        halted=True,
        resumed=Remedy.OVERRULE,
    ),
    Failure.GROUP: Rule(
        what="a release of its group goes back",
        field="",
        places=_EVERYWHERE,
        halted=True,
        resumed=Remedy.OVERRULE,
    ),
    Failure.SUPERSEDED: Rule(
        what="another release takes its place",
        field="",
        places={**_EVERYWHERE, Place.RETRYING: Outcome.BACK},
        halted=True,
        resumed=Remedy.OVERRULE,
    ),
}
