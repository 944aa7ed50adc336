"""What the HTTP API shows and what it asks of the control plane behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from controlplane.policy.roles import Role
from controlplane.release.ports import Record
from controlplane.release.recording import Recording


class Shown(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class ServiceShown(Shown):
    """One service: what is stable, and the release in progress."""

    name: str
    fleets: tuple[str, ...]
    hosts: tuple[str, ...]
    versions: tuple[str, ...]
    stable: str
    release: str = ""
    left_alone: tuple[str, ...] = Field(
        default=(), description="proxies that have it from another store; see `turnout store init`"
    )
    had: str = Field(
        default="", description="the version that all requests get there, if their routes prove it"
    )


class StepShown(Shown):
    """One rung of the ladder; ``share`` as operators write it."""

    name: str
    segment: str
    share: str
    state: Literal["done", "current", "todo"]
    approval: str = Field(default="", description="'needed', or who gave it; '' if the step needs none")


class ProxyShare(Shown):
    """One proxy's part in a release.

    ``asked`` and ``observed`` are the canary's shares in 0..1, in the segment of the present step; the latter
    is None without requests since every proxy had the step.
    """

    proxy: str
    acked: bool
    problem: str = ""
    asked: float
    observed: float | None
    canary_requests: int
    baseline_requests: int
    canary_errors: int
    baseline_errors: int


class VerdictShown(Shown):
    """One condition as it stands."""

    metric: str
    segment: str
    outcome: str
    reason: str
    numbers: dict[str, float] = Field(default_factory=dict)
    requests_needed: int | None = None
    seconds_needed: float | None = None


class ResultShown(Shown):
    """What an A/B test has shown of one metric.

    ``change`` is the difference as a part of the baseline, None where that has nothing; ``better`` and
    ``worse`` are e-values, and ``threshold`` is where one of them shows it. ``low`` and ``high`` are between
    what the difference surely lies, None where that has no bound. Only what ``decides`` promotes.
    """

    metric: str
    said: str
    change: float | None
    canary: float
    baseline: float
    canary_n: float
    baseline_n: float
    better: float
    worse: float
    threshold: float
    low: float | None
    high: float | None
    decides: bool


class ReleaseShown(Shown):
    """One release: where it is, why, and what was seen."""

    name: str
    attempt: int
    service: str
    from_version: str
    to_version: str
    policy: str
    emergency: bool = False
    purpose: str = Field(default="", description="why it was ordered; an emergency says it")
    phase: str
    halt: str | None
    stage: str
    step: str
    steps: tuple[StepShown, ...]
    hold: str
    because: str
    judged_seconds: float
    canary_requests: int = 0
    canary_errors: int = 0
    suspicion: float = 1.0
    verdicts: tuple[VerdictShown, ...] = ()
    ends: str = Field(default="", description="how its A/B test ends, and when; '' if it is none")
    results: tuple[ResultShown, ...] = Field(default=(), description="of its A/B test")
    proxies: tuple[ProxyShare, ...] = Field(default=(), description="none once it has ended")
    drift: tuple[str, ...] = Field(
        default=(), description="what the documents say by now; a release that has started never follows"
    )
    return_point: str = Field(description="what a rollback would do now")
    return_unsafe: bool = Field(
        default=False, description="a rollback would not do what it should: too few endpoints, or none"
    )
    point_of_no_return: str = Field(default="", description="how far away it is, or that it is passed")
    retired: bool = Field(
        default=False, description="promoted, and no proxy routes to the old version any more"
    )
    salt: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class TypeShown(Shown):
    """One type of one proxy's stream.

    ``asked`` is ``*`` for everything, a number of names, or both; ``resources`` how many the proxy has;
    ``sent`` and ``acked`` the newest version that went out and that came back; ``waiting_seconds`` the age of
    the response that is not answered yet. Times are None, versions empty, where nothing was.
    """

    type: str
    asked: str
    resources: int
    sent: str
    sent_at: datetime | None
    acked: str
    acked_at: datetime | None
    nacked: str
    nacked_at: datetime | None
    gated: int
    waiting_seconds: float | None


class ProxyShown(Shown):
    """One connected proxy; ``identity`` are the names that its certificate proves."""

    id: str
    fleet: str
    address: str
    identity: tuple[str, ...] = ()
    version: str
    protocol: str
    connected_at: datetime
    state: Literal["synced", "waiting", "nacked", "alone", "behind", "refused", "unknown"]
    problems: tuple[str, ...] = ()
    statistics: str
    types: tuple[TypeShown, ...] = ()


class BlackoutShown(Shown):
    """A blackout of a fleet; ``id`` and ``actor`` are empty for a document's, ``until`` None if not now."""

    id: str
    fleet: str
    when: str
    because: str
    actor: str
    until: datetime | None


class Order(BaseModel):
    """A release to start; the policy and the versions must be known."""

    model_config = ConfigDict(extra="forbid")
    service: str
    to: str
    policy: str
    name: str | None = None
    actor: str = Field(min_length=1)
    reason: str = ""


class Who(BaseModel):
    """Who does something, and why."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    actor: str = Field(min_length=1)
    reason: str = ""


class Act(Who):
    """What an operator does to a release; ``step`` is what to approve, by default the next that needs it."""

    step: str = ""
    past_point_of_no_return: bool = Field(default=False, description="to roll back all the same")


class Declare(Who):
    """A blackout of a fleet, as a document has it; ``for`` alone begins now. ``reason`` is shown with it."""

    fleet: str
    from_: str | None = Field(default=None, alias="from")
    to: str | None = None
    cron: str | None = None
    for_: str | None = Field(default=None, alias="for")
    zone: str | None = None


class Switch(Who):
    """Make a version stable at once."""

    version: str
    past_point_of_no_return: bool = False


class Adopt(Who):
    """What is stable of services that proxies have from another store, and which of them are gone."""

    adopt: Mapping[str, str] = Field(default_factory=dict)
    gone: tuple[str, ...] = ()


class Asked(BaseModel):
    """A request to explain, in one line, with what only a proxy can know of it."""

    model_config = ConfigDict(extra="forbid")
    request: str
    fleet: str | None = None
    source: str | None = None
    claims: Mapping[str, str] = Field(default_factory=dict)


class Explained(Shown):
    """What a proxy does with a request; ``share`` as operators write it, ``version`` '' if it is drawn."""

    fleet: str
    service: str
    claim: str
    release: str
    rule: int
    rules: int
    segment: str
    share: str
    spans: tuple[tuple[int, int], ...]
    user: str | None
    source: str | None
    salt: str
    bucket: int | None
    version: str
    because: str


class CohortAsked(BaseModel):
    """Whose membership is asked for: of requests in a segment, at a step; by default everyone, now."""

    model_config = ConfigDict(extra="forbid")
    users: tuple[str, ...] = Field(default=(), max_length=100_000)
    segment: str = "everyone"
    step: str | None = None


class GroupShown(Shown):
    """One group of requests, and the buckets of its users who get the canary."""

    segment: str
    share: str
    spans: tuple[tuple[int, int], ...]


class MemberShown(Shown):
    """One user."""

    user: str
    bucket: int
    segment: str
    canary: bool


class CohortShown(Shown):
    """All that is needed to work out who gets the canary, and who of those asked for does."""

    release: str
    service: str
    step: str
    stable: str
    canary: str
    salt: str
    formula: str
    groups: tuple[GroupShown, ...]
    users: tuple[MemberShown, ...] = ()


class Documents(BaseModel):
    """Files to take in at once, by name; the rest of what is in force stays."""

    model_config = ConfigDict(extra="forbid")
    files: Mapping[str, str] = Field(min_length=1)
    actor: str = Field(min_length=1)


class Applied(Shown):
    """What came of taking in documents."""

    generation: int
    accepted: tuple[str, ...]
    removed: tuple[str, ...] = ()
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class Push(BaseModel):
    """Values of one metric of one version: ``n`` and ``sum``, or the value of each user by its id.

    ``sum`` is how many of the ``n`` have it, for a metric that is counted. ``key`` names the push: one that
    is sent again counts once.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    version: str
    segment: str = "everyone"
    n: int = Field(default=0, ge=0, le=1_000_000_000)
    sum: float = Field(default=0.0, ge=0, le=1e15)
    users: Mapping[str, Annotated[float, Field(ge=0, le=1e12)]] = Field(default={}, max_length=10_000)
    key: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if bool(self.users) == bool(self.n):
            raise ValueError("either n with sum, or users, is needed")
        return self


class PushShown(Shown):
    """Whether a push counts; it does not if one with its key did."""

    counted: bool


@dataclass(frozen=True, slots=True)
class Need:
    """Who may do something.

    Attributes:
        role: At least this one.
        service: Whose operators; empty if it takes someone whose role holds for all services.
        step: What an approval that names no step would be given to.
    """

    role: Role
    service: str = ""
    step: str = ""


class RefusedError(Exception):
    """The control plane will not do that; ``status`` is the HTTP status, the message is for people."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ControlPlane(Protocol):
    """The application as the HTTP API sees it; every method may raise RefusedError."""

    @property
    def ready(self) -> bool:
        """True once the state is loaded and served."""
        ...

    def need(self, action: str, name: str, wanted: BaseModel) -> Need:
        """Return who may do that to a release or service; ``name`` is empty for what concerns all."""
        ...

    def services(self) -> tuple[ServiceShown, ...]:
        """Return all services, by name."""
        ...

    async def releases(self) -> tuple[ReleaseShown, ...]:
        """Return all releases, newest first."""
        ...

    def release(self, name: str) -> ReleaseShown:
        """Return one release."""
        ...

    async def proxies(self) -> tuple[ProxyShown, ...]:
        """Return all connected proxies, by id."""
        ...

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with the documents in the folder now."""
        ...

    async def records(self, release: str | None, limit: int, after: int | None = None) -> tuple[Record, ...]:
        """Return the newest records, or the first ones after number ``after``; oldest first."""
        ...

    async def recording(self, release: str, after: int, limit: int) -> Recording:
        """Return a part of what a release was decided from, to decide it again."""
        ...

    def follow(self, release: str | None, after: int | None) -> AsyncIterator[Record]:
        """Yield each record after number ``after``, or each that is written from now on, until cancelled."""
        ...

    def explain(self, asked: Asked) -> Explained:
        """Say what a proxy does with a request."""
        ...

    def cohort(self, release: str, asked: CohortAsked) -> CohortShown:
        """Say who is in a release's canary."""
        ...

    async def order(self, order: Order) -> ReleaseShown:
        """Create a release."""
        ...

    async def act(self, release: str, action: str, act: Act) -> ReleaseShown:
        """Do what an operator asks: advance, approve, promote, pause, resume, rollback."""
        ...

    def blackouts(self) -> tuple[BlackoutShown, ...]:
        """Return the blackouts of all fleets, those of documents first."""
        ...

    async def declare(self, declare: Declare) -> tuple[BlackoutShown, ...]:
        """Add a blackout to a fleet."""
        ...

    async def withdraw(self, blackout: str, who: Who) -> tuple[BlackoutShown, ...]:
        """Remove a blackout that an operator added."""
        ...

    def push(self, service: str, metric: str, push: Push) -> PushShown:
        """Take in values of a metric that is pushed."""
        ...

    async def switch(self, service: str, switch: Switch) -> ServiceShown:
        """Make a version stable at once."""
        ...

    async def undo(self, name: str, act: Act) -> ServiceShown:
        """Make stable what was so before the last promotion; by service or release."""
        ...

    async def adopt(self, adopt: Adopt) -> tuple[ServiceShown, ...]:
        """Say what is stable in place of a store that was lost; return all services."""
        ...

    @property
    def left_alone(self) -> int:
        """How many services are left alone, because proxies have them from another store."""
        ...

    async def apply(self, documents: Documents) -> Applied:
        """Take in documents."""
        ...
