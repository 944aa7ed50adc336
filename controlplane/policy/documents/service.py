"""Service: what is released."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    model_validator,
)

from controlplane.policy.documents.model import Model, only
from controlplane.policy.documents.segment import SegmentChoice
from controlplane.policy.documents.settings import (
    Balance,
    Health,
    Limits,
    Outliers,
    Overrides,
    Protocol,
    Retries,
    Rewrite,
    UpstreamTls,
)
from controlplane.policy.fields import (
    Address,
    ClaimName,
    CookieName,
    Duration,
    HeaderName,
    Host,
    IpAddress,
    Name,
    PathPrefix,
    QueryName,
    ToldHeader,
)


class Claim(Model):
    """A host and a path prefix that a service answers for."""

    host: Host
    path: PathPrefix = "/"
    rewrite: Rewrite | None = None
    websockets: StrictBool | None = None


class UserSource(Model):
    """One place where a user's identity may be; exactly one field is set."""

    model_config = only(1)
    one_of = ("header", "cookie", "query", "claim")

    header: HeaderName | None = None
    cookie: CookieName | None = None
    query: QueryName | None = None
    claim: ClaimName | None = None


class User(Model):
    """Who a user is, in order of preference, and what happens to requests that do not say."""

    from_: tuple[UserSource, ...] = Field(default=(), alias="from")
    otherwise: Literal["generate", "random", "baseline"] | None = None


def _mapping_of_address(value: object) -> object:
    return {"address": value} if isinstance(value, str) else value


class Endpoint(Model):
    """One address of a version, with its weight among its peers and its zone."""

    address: IpAddress
    weight: Annotated[StrictInt, Field(ge=1, le=1000)] = 1
    zone: Name | None = None


EndpointItem = Annotated[
    Endpoint, BeforeValidator(_mapping_of_address, json_schema_input_type=Endpoint | str)
]  # '10.0.0.1:8080' stands for {address: '10.0.0.1:8080'}


class ServiceVersion(Model):
    """Where one version of a service answers: fixed endpoints or a DNS name."""

    model_config = only(1)
    one_of = ("endpoints", "dns")

    endpoints: tuple[EndpointItem, ...] | None = None
    dns: Address | None = None


EVERY = timedelta(minutes=5)  # between pushed values of a version, unless a metric says


class BusinessMetric(Model):
    """What a service is for, counted per version and segment.

    With a ``header`` Envoy counts the responses that have it, with a value that is not empty, ``0``, ``no``
    or ``false``; with ``sum``, it adds its values up, whole numbers of up to 12 digits. Without a header the
    metric is pushed to the HTTP API, of each version at least ``every`` so often.
    """

    header: HeaderName | None = None
    better: Literal["more", "less"]
    sum: StrictBool = False
    per: Name | None = None
    every: Duration | None = None

    @model_validator(mode="after")
    def _only_pushes_have_a_rhythm(self) -> Self:
        if self.every is not None and self.header is not None:
            raise ValueError("every is how often values are pushed; what Envoy counts has none")
        if self.every is not None and not timedelta(seconds=1) <= self.every <= timedelta(days=1):
            raise ValueError("every is 1s to 1d")
        return self

    @property
    def rhythm(self) -> timedelta:
        """How often values are pushed, of a metric that is."""
        return self.every or EVERY


class Service(Model):
    """What is released: claims, identity of its users, and its versions."""

    kind: Literal["Service"]
    name: Name
    fleets: Annotated[tuple[Name, ...], Field(min_length=1)]
    routes: Annotated[tuple[Claim, ...], Field(min_length=1)]
    user: User = User()
    hold_out: SegmentChoice | None = None
    initial: Name
    versions: Annotated[Mapping[Name, ServiceVersion], Field(min_length=1)]
    metrics: Mapping[Name, BusinessMetric] = {}
    protocol: Protocol = "http"
    timeout: Duration = timedelta(seconds=15)
    idle_timeout: Duration | None = None
    retries: Retries | None = None
    health: Health | None = None
    outliers: Outliers | None = None
    limits: Limits | None = None
    balance: Balance = "least_request"
    upstream_tls: UpstreamTls | None = None
    version_header: ToldHeader | None = None
    explain_header: HeaderName | None = None
    envoy: Overrides = Overrides()

    def __hash__(self) -> int:
        return hash((self.name, self.fleets, self.routes, self.initial, tuple(sorted(self.versions))))
