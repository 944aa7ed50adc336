"""The five kinds of documents that operators write, as frozen models.

A field that is not here is refused as unknown. The JSON Schema is generated from these classes. What one
part can say about itself is checked here; what parts say about one another, in ``checks``.
Shares are parts per million in whole steps of 0.01 %; durations are ``timedelta``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    Tag,
    model_validator,
)

from controlplane.policy.fields import (
    Address,
    CookieName,
    CookiePattern,
    Duration,
    HeaderName,
    HoldBack,
    Host,
    IpAddress,
    Limit,
    Name,
    PathPrefix,
    Pattern,
    Share,
    StepShare,
    Word,
)
from controlplane.policy.values import format_share

EVERYONE = "everyone"  # the segment of a percentage step, in output and in statistics
ANONYMOUS = "anonymous"  # requests without identity: a group of their own everywhere
RESERVED_SEGMENTS = frozenset({EVERYONE, ANONYMOUS})


def _not_reserved(name: str) -> str:
    if name in RESERVED_SEGMENTS:
        raise ValueError(f"{name!r} is reserved: it names a group of requests in statistics")
    return name


OwnName = Annotated[Name, AfterValidator(_not_reserved)]


class Model(BaseModel):
    """A part of a document: immutable, hashable, strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    one_of: ClassVar[tuple[str, ...]] = ()  # exactly one of these fields is set

    @model_validator(mode="after")
    def _has_exactly_one(self) -> Self:
        given = [field for field in self.one_of if getattr(self, field) is not None]
        if self.one_of and len(given) != 1:
            known = ", ".join(field.rstrip("_") for field in self.one_of)
            found = " and ".join(field.rstrip("_") for field in given) or "none"
            raise ValueError(f"has {found}; exactly one of {known} is needed")
        return self


def _only(fields: int) -> ConfigDict:
    """Tell editors how many fields a part has."""
    return ConfigDict(json_schema_extra={"minProperties": fields, "maxProperties": fields})


# --- Fleet ------------------------------------------------------------------------------------------------


class Nodes(Model):
    """Which proxies belong to the fleet; every field given must match the node."""

    id: str | None = Field(default=None, description="glob over the node id")
    cluster: str | None = None


class Listener(Model):
    """One port on which the fleet's proxies take requests; gRPC clients without a proxy have none."""

    name: Name
    address: IpAddress | None = None
    kind: Literal["edge", "local", "grpc"] = "edge"

    @model_validator(mode="after")
    def _has_its_address(self) -> Self:
        if self.kind == "grpc" and self.address is not None:
            raise ValueError("has an address; gRPC clients listen nowhere, so kind grpc takes none")
        if self.kind != "grpc" and self.address is None:
            raise ValueError(f"has no address; kind {self.kind} needs one")
        return self


class Propagate(Model):
    """When a change counts as having reached the fleet."""

    within: Duration = timedelta(seconds=30)
    at_least: Share = 1_000_000


class Fleet(Model):
    """A set of proxies that are configured alike."""

    kind: Literal["Fleet"]
    name: Name
    nodes: Nodes
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1)]
    propagate: Propagate = Propagate()

    @property
    def grpc(self) -> bool:
        """True for gRPC clients, which have no proxy."""
        return any(listener.kind == "grpc" for listener in self.listeners)


# --- Segment ----------------------------------------------------------------------------------------------


class Range(Model):
    """Whole numbers from ``from`` up to, not including, ``to``."""

    from_: StrictInt = Field(alias="from")
    to: StrictInt

    @model_validator(mode="after")
    def _has_numbers(self) -> Self:
        if self.from_ >= self.to:
            raise ValueError(f"from {self.from_} to {self.to} is empty; 'from' must be less than 'to'")
        return self


class ValueMatch(Model):
    """A named value and exactly one condition on it."""

    model_config = _only(2)
    one_of = ("equals", "prefix", "suffix", "contains", "regex", "present", "range")

    name: str
    equals: Word | None = None
    prefix: Word | None = None
    suffix: Word | None = None
    contains: Word | None = None
    regex: Pattern | None = None
    present: StrictBool | None = None
    range: Range | None = None

    @property
    def condition(self) -> str:
        """The name of the one condition that is set."""
        return next(field for field in self.one_of if getattr(self, field) is not None)


class HeaderMatch(ValueMatch):
    """A condition on a request header."""

    name: HeaderName


class CookieMatch(ValueMatch):
    """A condition on a cookie."""

    name: CookieName
    regex: CookiePattern | None = None


class Cohort(Model):
    """A range of user buckets: the same users as the same range of shares."""

    from_: Share = Field(alias="from", default=0)
    to: Share

    @model_validator(mode="after")
    def _has_users(self) -> Self:
        if self.from_ >= self.to:
            low, high = format_share(self.from_), format_share(self.to)
            raise ValueError(f"from {low} to {high} is empty; 'from' must be less than 'to'")
        return self


class Match(Model):
    """A tree of conditions on a request: exactly one field is set."""

    model_config = _only(1)
    one_of = ("header", "cookie", "cohort", "all", "any", "not_")

    header: HeaderMatch | None = None
    cookie: CookieMatch | None = None
    cohort: Cohort | None = None
    all: Annotated[tuple[Match, ...], Field(min_length=1)] | None = None
    any: Annotated[tuple[Match, ...], Field(min_length=1)] | None = None
    not_: Match | None = Field(default=None, alias="not")


class Segment(Model):
    """A named set of requests."""

    kind: Literal["Segment"]
    name: OwnName
    match: Match


# --- Service ----------------------------------------------------------------------------------------------


class Claim(Model):
    """A host and a path prefix that a service answers for."""

    host: Host
    path: PathPrefix = "/"


class UserSource(Model):
    """One place where a user's identity may be; exactly one field is set."""

    model_config = _only(1)
    one_of = ("header", "cookie")

    header: HeaderName | None = None
    cookie: CookieName | None = None


class User(Model):
    """Who a user is, in order of preference, and what happens to requests that do not say."""

    from_: tuple[UserSource, ...] = Field(default=(), alias="from")
    otherwise: Literal["generate", "random", "baseline"] | None = None


def _mapping_of_address(value: object) -> object:
    return {"address": value} if isinstance(value, str) else value


class Endpoint(Model):
    """One address of a version, with its weight among its peers."""

    address: IpAddress
    weight: Annotated[StrictInt, Field(ge=1, le=1000)] = 1


EndpointItem = Annotated[
    Endpoint, BeforeValidator(_mapping_of_address, json_schema_input_type=Endpoint | str)
]  # '10.0.0.1:8080' stands for {address: '10.0.0.1:8080'}


class ServiceVersion(Model):
    """Where one version of a service answers: fixed endpoints or a DNS name."""

    model_config = _only(1)
    one_of = ("endpoints", "dns")

    endpoints: tuple[EndpointItem, ...] | None = None
    dns: Address | None = None


class Service(Model):
    """What is released: claims, identity of its users, and its versions."""

    kind: Literal["Service"]
    name: Name
    fleets: Annotated[tuple[Name, ...], Field(min_length=1)]
    routes: Annotated[tuple[Claim, ...], Field(min_length=1)]
    user: User = User()
    initial: Name
    versions: Annotated[Mapping[Name, ServiceVersion], Field(min_length=1)]
    timeout: Duration = timedelta(seconds=15)

    def __hash__(self) -> int:
        return hash((self.name, self.fleets, self.routes, self.initial, tuple(sorted(self.versions))))


# --- Policy -----------------------------------------------------------------------------------------------


# In brackets, so that no field of a document is mistaken for the name of an alternative.
def _segment_form(value: Any) -> str:
    return "(name)" if isinstance(value, str) else "(match)"


def _errors_form(value: Any) -> str:
    return "(off)" if isinstance(value, str) else "(against)"


SegmentChoice = Annotated[
    Annotated[Name, Tag("(name)")] | Annotated[Match, Tag("(match)")], Discriminator(_segment_form)
]


class Step(Model):
    """One step: a share of a segment, or of everyone."""

    name: OwnName
    segment: SegmentChoice | None = None
    share: StepShare | None = None
    everyone: StepShare | None = None
    for_: Duration = Field(default=timedelta(0), alias="for")

    @model_validator(mode="after")
    def _has_one_share(self) -> Self:
        of_segment = (self.segment is not None) + (self.share is not None)
        if of_segment != (0 if self.everyone is not None else 2):
            given = [f for f in ("segment", "share", "everyone") if getattr(self, f) is not None]
            raise ValueError(
                f"has {' and '.join(given) or 'none'}; either segment and share, or everyone, is needed"
            )
        return self


class AgainstBaseline(Model):
    """Not worse than the concurrent baseline by more than the margin."""

    against: Literal["baseline"] = "baseline"
    margin: Share = 250_000


class Latency(Model):
    """At most one request in 100, 20, 10 or 2 may be slower than the limit; limits lie on bucket edges."""

    model_config = _only(1)
    one_of = ("p50", "p90", "p95", "p99")

    p50: Limit | None = None
    p90: Limit | None = None
    p95: Limit | None = None
    p99: Limit | None = None

    @property
    def limit(self) -> tuple[float, timedelta]:
        """The percentile, in 0..100, and its limit."""
        field = next(field for field in self.one_of if getattr(self, field) is not None)
        return float(field[1:]), getattr(self, field)


class SuccessRate(Model):
    """At least this share of the requests must not be errors."""

    at_least: Share


ErrorsChoice = Annotated[
    Annotated[AgainstBaseline, Tag("(against)")] | Annotated[Literal["off"], Tag("(off)")],
    Discriminator(_errors_form),
]


class Condition(Model):
    """One condition; exactly one field is set."""

    model_config = _only(1)
    one_of = ("errors", "latency", "success_rate")

    errors: ErrorsChoice | None = None
    latency: Latency | None = None
    success_rate: SuccessRate | None = None


class WhenUnsure(Model):
    """What to do when a step has been judged for ``after`` without proof either way."""

    after: Duration = timedelta(minutes=20)
    do: Literal["hold", "rollback", "advance"] = "hold"


class OnFailure(Model):
    """What to do when a condition fails."""

    do: Literal["rollback", "hold", "freeze"] = "rollback"


class Guard(Model):
    """How long the old version stays warm after the last step, and the share of users who stay with it."""

    for_: Duration = Field(default=timedelta(minutes=30), alias="for")
    hold_back: HoldBack = 0


class Policy(Model):
    """How a release proceeds: steps, conditions, guard, failure."""

    kind: Literal["Policy"]
    name: Name
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    conditions: tuple[Condition, ...]
    when_unsure: WhenUnsure = WhenUnsure()
    on_failure: OnFailure = OnFailure()
    guard: Guard = Guard()


# --- Release ----------------------------------------------------------------------------------------------


class Release(Model):
    """One order: take a service from one version to another under a policy."""

    kind: Literal["Release"]
    name: Name
    service: Name
    from_: Name = Field(alias="from")
    to: Name
    policy: Name
    attempt: Annotated[StrictInt, Field(ge=1)] = 1
    start: Literal["auto", "manual"]


Document = Fleet | Service | Segment | Policy | Release
Key = tuple[str, str]  # kind and name of a document

KINDS: Mapping[str, type[Model]] = {
    "Fleet": Fleet,
    "Policy": Policy,
    "Release": Release,
    "Segment": Segment,
    "Service": Service,
}
