"""What the HTTP API is asked for: the bodies of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


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


class Resend(Who):
    """The node id of a proxy that is to be sent again what it refused."""

    node: str


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


class CohortAsked(BaseModel):
    """Whose membership is asked for: of requests in a segment, at a step; by default everyone, now."""

    model_config = ConfigDict(extra="forbid")
    users: tuple[str, ...] = Field(default=(), max_length=100_000)
    segment: str = "everyone"
    step: str | None = None


class Documents(BaseModel):
    """Files to take in at once, by name; the rest of what is in force stays, or with ``prune`` goes.

    With ``generation`` nothing is taken if the documents in force are of another one by now.
    """

    model_config = ConfigDict(extra="forbid")
    files: Mapping[str, str] = Field(min_length=1)
    actor: str = Field(min_length=1)
    generation: int | None = Field(default=None, ge=0)
    prune: bool = False


Value = Annotated[float, Field(strict=True)]  # "3" and true are no numbers


class Push(BaseModel):
    """Values of one metric of one version: ``n`` and ``sum``, or the value of each user by its id.

    ``sum`` is how many of the ``n`` have it, for a metric that is counted. ``key`` names the push: one that
    is sent again counts once.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    version: str
    segment: str = "everyone"
    n: int = Field(default=0, strict=True, ge=0, le=1_000_000_000)
    sum: Value = Field(default=0.0, ge=0, le=1e15)
    users: Mapping[str, Annotated[Value, Field(ge=0, le=1e12)]] = Field(default={}, max_length=10_000)
    key: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        # A sum that was left out is not 0: of complaints that would be good news.
        given = self.model_fields_set & {"n", "sum", "users"}
        if given not in ({"n", "sum"}, {"users"}) or not (self.n or self.users):
            raise ValueError("either n, 1 at least, with sum, or users, is needed")
        return self
