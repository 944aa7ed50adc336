"""Segment: which requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    Tag,
    model_validator,
)

from controlplane.policy.documents.model import Model, OwnName, only
from controlplane.policy.fields import (
    ClaimName,
    CookieName,
    HeaderName,
    Identity,
    InnerPattern,
    Method,
    Name,
    Network,
    OneHost,
    Pattern,
    QueryName,
    Share,
    UrlWord,
    UsersFile,
    Word,
)
from controlplane.policy.values import format_share

MAX_USERS = 10_000
TOO_MANY_USERS = (
    "has {count} users; at most 10000 are allowed: have the application mark them with a cookie, a header or"
    " a claim of their token, and choose by that; or take a cohort"
)


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

    model_config = only(2)
    one_of = ("equals", "prefix", "suffix", "contains", "regex", "present", "range")

    name: str
    equals: Word | None = None
    prefix: Word | None = None
    suffix: Word | None = None
    contains: Word | None = None
    regex: Pattern | None = None
    present: StrictBool | None = None
    range: Range | None = None


class HeaderMatch(ValueMatch):
    """A condition on a request header."""

    name: HeaderName


class CookieMatch(ValueMatch):
    """A condition on a cookie."""

    name: CookieName
    regex: InnerPattern | None = None


class QueryMatch(ValueMatch):
    """A condition on a query parameter, as it is sent: percent-encoded."""

    name: QueryName
    equals: UrlWord | None = None
    prefix: UrlWord | None = None
    suffix: UrlWord | None = None
    contains: UrlWord | None = None
    regex: InnerPattern | None = None


class ClaimMatch(ValueMatch):
    """A condition on a claim of a verified token; only text, numbers and booleans can be compared."""

    name: ClaimName


class PathMatch(Model):
    """A condition on the path without its query, as it is sent: percent-encoded."""

    model_config = only(1)
    one_of = ("equals", "prefix", "suffix", "contains", "regex")

    equals: UrlWord | None = None
    prefix: UrlWord | None = None
    suffix: UrlWord | None = None
    contains: UrlWord | None = None
    regex: InnerPattern | None = None


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


def _some_users(users: tuple[str, ...]) -> tuple[str, ...]:
    if len(users) > MAX_USERS:
        raise ValueError(TOO_MANY_USERS.format(count=len(users)))
    return tuple(sorted(set(users)))


Users = Annotated[tuple[Identity, ...], Field(min_length=1), AfterValidator(_some_users)]


class Match(Model):
    """A tree of conditions on a request: exactly one field is set."""

    model_config = only(1)
    one_of = (
        "header",
        "cookie",
        "query",
        "path",
        "method",
        "host",
        "user_agent",
        "source",
        "claim",
        "users",
        "users_file",
        "cohort",
        "all",
        "any",
        "not_",
    )

    header: HeaderMatch | None = None
    cookie: CookieMatch | None = None
    query: QueryMatch | None = None
    path: PathMatch | None = None
    method: Method | None = None
    host: OneHost | None = None
    user_agent: Literal["Chrome", "Edge", "Firefox", "Safari"] | None = None
    source: Network | None = None
    claim: ClaimMatch | None = None
    users: Users | None = None
    users_file: UsersFile | None = None
    cohort: Cohort | None = None
    all: Annotated[tuple[Match, ...], Field(min_length=1)] | None = None
    any: Annotated[tuple[Match, ...], Field(min_length=1)] | None = None
    not_: Match | None = Field(default=None, alias="not")


# In brackets, so that no field of a document is mistaken for the name of an alternative.
def _segment_form(value: Any) -> str:
    return "(name)" if isinstance(value, str) else "(match)"


SegmentChoice = Annotated[
    Annotated[Name, Tag("(name)")] | Annotated[Match, Tag("(match)")], Discriminator(_segment_form)
]


class Segment(Model):
    """A named set of requests."""

    kind: Literal["Segment"]
    name: OwnName
    match: Match
