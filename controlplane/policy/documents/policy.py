"""Policy: how a release proceeds."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    model_validator,
)

from controlplane.policy.documents.calendar import Window
from controlplane.policy.documents.condition import Condition
from controlplane.policy.documents.hook import Hook, RunChoice
from controlplane.policy.documents.model import Model, OwnName
from controlplane.policy.documents.notify import Notify
from controlplane.policy.documents.segment import SegmentChoice
from controlplane.policy.fields import (
    Duration,
    HoldBack,
    Name,
    StepShare,
)


# In brackets, so that no field of a document is mistaken for the name of an alternative.
class Approve(Model):
    """A person's consent before a step begins; ``expires`` is how long it may take from when it is due."""

    role: Literal["operator", "releaser", "admin"] = "releaser"
    expires: Duration | None = None
    on_expiry: Literal["hold", "rollback", "freeze"] = "hold"


class Retry(Model):
    """Go on again after a while, a limited number of times in the life of the order."""

    after: Duration
    times: Annotated[StrictInt, Field(ge=1, le=100)] = 1


class OnFailure(Model):
    """What to do when a condition fails, and whether to try again afterwards."""

    do: Literal["rollback", "step_back", "hold", "freeze"] = "rollback"
    retry: Retry | None = None

    @model_validator(mode="after")
    def _has_what_to_retry(self) -> Self:
        if self.retry is not None and self.do not in ("rollback", "step_back"):
            raise ValueError(f"retry goes with rollback or step_back; {self.do} leaves nothing to try again")
        return self


class Mirror(Model):
    """Copies of requests that the canary gets besides its own, and whose answers nobody waits for."""

    segment: SegmentChoice | None = None
    share: StepShare


class Irreversible(Model):
    """Why there is no way back once a step has begun."""

    because: Annotated[str, Field(min_length=1, max_length=256)]


class Step(Model):
    """One step: a share of a segment, or of everyone."""

    name: OwnName
    segment: SegmentChoice | None = None
    share: StepShare | None = None
    everyone: StepShare | None = None
    for_: Duration = Field(default=timedelta(0), alias="for")
    within: Duration | None = None
    approve: Approve | None = None
    mirror: Mirror | None = None
    conditions: tuple[Condition, ...] = ()
    on_failure: OnFailure | None = None
    exclude: tuple[Name, ...] = ()
    irreversible: Irreversible | None = None

    @model_validator(mode="after")
    def _has_consent(self) -> Self:
        if self.irreversible is not None and self.approve is None:
            raise ValueError("is irreversible, so a person must consent: it needs 'approve'")
        return self

    @model_validator(mode="after")
    def _has_time(self) -> Self:
        if self.within is not None and self.within <= self.for_:
            raise ValueError("within is the most time for the step to pass; it must be longer than 'for'")
        return self

    @model_validator(mode="after")
    def _has_one_share(self) -> Self:
        of_segment = (self.segment is not None) + (self.share is not None)
        if of_segment != (0 if self.everyone is not None else 2):
            given = [f for f in ("segment", "share", "everyone") if getattr(self, f) is not None]
            raise ValueError(
                f"has {' and '.join(given) or 'none'}; either segment and share, or everyone, is needed"
            )
        return self


class WhenUnsure(Model):
    """What to do when a step has been judged for ``after`` without proof either way."""

    after: Duration = timedelta(minutes=20)
    do: Literal["hold", "rollback", "advance"] = "hold"


class Budget(Model):
    """How many requests a release may spoil: failures of the canary beyond the baseline's rate."""

    failed: Annotated[StrictInt, Field(ge=1, le=1_000_000_000)]


class Guard(Model):
    """How long the old version stays warm after the last step, and the share of users who stay with it."""

    for_: Duration = Field(default=timedelta(minutes=30), alias="for")
    hold_back: HoldBack = 0
    keep_endpoints: StepShare | None = None


class PointOfNoReturn(Model):
    """What cannot be undone, after the guard: a person consents, and another system does it."""

    approve: Approve
    run: RunChoice


class Ends(Model):
    """An A/B test: at its end everyone returns, unless ``do`` and what it has shown say otherwise.

    ``per_user`` is how many of the counted events one user makes in the test.
    """

    after: Duration
    do: Literal["report", "ask", "promote_if_better"] = "report"
    per_user: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _has_time(self) -> Self:
        if not self.after:
            raise ValueError("after is how long the test lasts; it must be longer than 0s")
        return self


class Conduct(Model):
    """What a policy says that refers to nothing else; a release keeps it as it stands."""

    when_unsure: WhenUnsure = WhenUnsure()
    observe: tuple[Name, ...] = ()
    budget: Budget | None = None
    on_failure: OnFailure = OnFailure()
    guard: Guard = Guard()
    point_of_no_return: PointOfNoReturn | None = None
    ends: Ends | None = None
    deadline: Duration | None = None
    on_timeout: Literal["hold", "rollback"] = "hold"
    on_failed_dependency: Literal["hold", "rollback"] = "hold"
    windows: tuple[Window, ...] = ()
    hooks: tuple[Hook, ...] = ()
    notify: tuple[Notify, ...] = ()
    emergency: StrictBool = False


class Policy(Conduct):
    """How a release proceeds: steps, conditions, guard, failure."""

    kind: Literal["Policy"]
    name: Name
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    conditions: tuple[Condition, ...]
