"""How proxies treat the versions of a service: attempts, health, limits, balance, TLS, rewriting."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    model_validator,
)

from controlplane.policy.documents.model import Model
from controlplane.policy.fields import Duration, FilePath, Host, PathPrefix
from controlplane.policy.overrides import canonical

Protocol = Literal["http", "http2", "grpc"]
Balance = Literal["least_request", "round_robin", "ring_hash", "random"]
# Failures before a service has seen the request, those after which it may have acted on it, gRPC statuses.
UNTOUCHED: Final = ("connect-failure", "refused-stream", "reset-before-request")
REPEATED: Final = ("reset", "gateway-error", "5xx")
STATUSES: Final = ("unavailable", "internal", "deadline-exceeded")
Failure = Literal[
    "connect-failure",
    "refused-stream",
    "reset-before-request",
    "reset",
    "gateway-error",
    "5xx",
    "unavailable",
    "internal",
    "deadline-exceeded",
]
Count = Annotated[StrictInt, Field(ge=1, le=1_000_000)]


def _exact(host: str) -> str:
    if host.startswith("*"):
        raise ValueError(f"{host!r} is a pattern; one host is needed")
    return host


def _interval(every: timedelta) -> timedelta:
    if not timedelta(milliseconds=100) <= every <= timedelta(minutes=5):
        raise ValueError("is not between 100ms and 5m")
    return every


ExactHost = Annotated[Host, AfterValidator(_exact)]


class Retries(Model):
    """When a request that failed is tried again, and how often at most.

    With ``other_version`` a further attempt goes to another version of those among which was drawn, so that
    users are spared one that is broken; its failed attempts count against it all the same.
    """

    attempts: Annotated[StrictInt, Field(ge=1, le=3)] = 1
    on: Annotated[tuple[Failure, ...], Field(min_length=1)] = UNTOUCHED
    other_version: StrictBool = False


class Health(Model):
    """Active checks of every endpoint: a path that answers 200, or the health service of gRPC."""

    path: PathPrefix | None = None
    every: Annotated[Duration, AfterValidator(_interval)] = timedelta(seconds=5)


class Outliers(Model):
    """Endpoints that fail in a row are left out for a while; never more than half of them."""

    consecutive_5xx: Annotated[StrictInt, Field(ge=1, le=1000)] = 5


class Limits(Model):
    """What one proxy sends to one version at a time; beyond it requests fail at once."""

    connections: Count = 1024
    pending: Count = 1024
    requests: Count = 1024


class UpstreamTls(Model):
    """TLS to the endpoints: who signs their certificates, and the name in them."""

    ca: FilePath
    name: ExactHost


def _raw(part: str) -> BeforeValidator:
    return BeforeValidator(lambda value: canonical(part, value), json_schema_input_type=dict[str, Any])


# A mapping in documents, kept as JSON.
_PLAIN = PlainSerializer(json.loads, return_type=dict[str, Any])
ClusterFields = Annotated[str, _raw("cluster"), _PLAIN]
ManagerFields = Annotated[str, _raw("connection_manager"), _PLAIN]
RouteFields = Annotated[str, _raw("route"), _PLAIN]
VirtualHostFields = Annotated[str, _raw("virtual_host"), _PLAIN]


class Overrides(Model):
    """Raw Envoy fields, merged into what Turnout renders for a service."""

    cluster: ClusterFields | None = None
    virtual_host: VirtualHostFields | None = None
    route: RouteFields | None = None


class ListenerOverrides(Model):
    """Raw Envoy fields, merged into a listener's connection manager; filters go before the router."""

    connection_manager: ManagerFields | None = None


class Rewrite(Model):
    """What a claim's path prefix and host become on the way to the service."""

    path: PathPrefix | None = None
    host: ExactHost | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.path is None and self.host is None:
            raise ValueError("has none; path or host is needed")
        return self
