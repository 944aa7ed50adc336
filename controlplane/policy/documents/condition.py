"""Condition: what the canary is held to, one kind per entry of a list."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, StrictInt, Tag, model_validator

from controlplane.policy.documents.model import Model, only
from controlplane.policy.fields import Amount, Duration, GrpcCode, Limit, Name, Share, SomeShare, StatName
from controlplane.policy.values import format_duration

EACH = "write an entry of the list for each"


# In brackets, so that no field of a document is mistaken for the name of an alternative.
def _off_form(value: Any) -> str:
    return "(off)" if isinstance(value, str) else "(against)"


def _latency_form(value: Any) -> str:
    if isinstance(value, str):
        return "(off)"
    against = isinstance(value, AgainstLatency) or (
        isinstance(value, dict) and value.keys() & {"against", "margin"}
    )
    return "(against)" if against else "(limit)"


class AgainstBaseline(Model):
    """Not worse than the concurrent baseline by more than the margin."""

    against: Literal["baseline"] = "baseline"
    margin: Share = 250_000


class AgainstClientErrors(Model):
    """As ``AgainstBaseline``; a wider margin, since clients make these errors too."""

    against: Literal["baseline"] = "baseline"
    margin: Share = 500_000


class AgainstLatency(Model):
    """As ``AgainstBaseline``; the margin is one of time: 10% slower."""

    against: Literal["baseline"] = "baseline"
    margin: Share = 100_000


class Latency(Model):
    """At most one request in 100, 20, 10 or 2 may be slower than the limit; limits lie on bucket edges."""

    model_config = only(1)
    one_of = ("p50", "p90", "p95", "p99")
    instead = EACH

    p50: Limit | None = None
    p90: Limit | None = None
    p95: Limit | None = None
    p99: Limit | None = None

    @property
    def limit(self) -> tuple[float, timedelta]:
        """The percentile, in 0..100, and its limit."""
        return float(self.given[1:]), getattr(self, self.given)


class SuccessRate(Model):
    """At least this share of the requests must not be errors."""

    at_least: Share


class ErrorRate(Model):
    """At most this share of the requests may be errors."""

    at_most: SomeShare


class GrpcStatus(Model):
    """Calls that end with one of these gRPC codes: against the baseline, to a limit, or both."""

    codes: Annotated[tuple[GrpcCode, ...], Field(min_length=1)]
    against: Literal["baseline"] | None = None
    margin: Share = 500_000
    at_most: SomeShare | None = None

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        for code in self.codes:
            if self.codes.count(code) > 1:
                raise ValueError(f"names {code} twice")
        return self

    @property
    def compared(self) -> bool:
        """Whether the baseline is looked at: that is what a condition without a limit means."""
        return self.against is not None or self.at_most is None


class Requests(Model):
    """At least so many canary requests must have been judged in the step."""

    at_least: Annotated[StrictInt, Field(ge=1, le=1_000_000_000)]


class Retries(Model):
    """At most this share of the canary's requests may be attempts beyond the first."""

    at_most: SomeShare


class Ejections(Model):
    """So many hosts of the canary may be ejected by outlier detection during a release."""

    at_most: Annotated[StrictInt, Field(ge=0, le=1_000_000_000)]


class StatLimit(Model):
    """A counter of the canary's cluster may grow by so much during a release, on all proxies together."""

    name: StatName
    at_most: Annotated[StrictInt, Field(ge=0, le=1_000_000_000_000)]


class MetricCondition(Model):
    """A business metric of the service: against the baseline, to limits, or both."""

    name: Name
    against: Literal["baseline"] | None = None
    margin: Share = 50_000
    at_least: Amount | None = None
    at_most: Amount | None = None

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least is more than at_most, which nothing keeps")
        return self

    @property
    def compared(self) -> bool:
        """Whether the baseline is looked at: that is what a condition without a limit means."""
        return self.against is not None or (self.at_least is None and self.at_most is None)


# Durations of PromQL in milliseconds. Source: Prometheus documentation, "Querying basics", time durations.
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_UNITS["y"] = 365 * _UNITS["d"]
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_RANGE = re.compile(r"\[\s*((?:\d+(?:ms|[smhdwy]))+)\s*(?::[^\]]*)?\]")


class PrometheusCondition(Model):
    """What a query gives for the canary: to a limit, against what it gives for the baseline, or both.

    ``$service``, ``$version``, ``$baseline`` and ``$segment`` in the query are filled in.
    """

    name: Name
    query: Annotated[str, Field(min_length=1, max_length=4096)]
    at_least: Amount | None = None
    at_most: Amount | None = None
    every: Duration = timedelta(seconds=15)
    against: Literal["baseline"] | None = None
    margin: Share = 100_000
    better: Literal["more", "less"] = "less"

    @property
    def reach(self) -> timedelta:
        """How far back the query looks: its longest range, as in ``[5m]``.

        Readings that are less than that apart say in part the same.
        """
        found = (
            sum(_UNITS[u] * int(n) for n, u in _PART.findall(each)) for each in _RANGE.findall(self.query)
        )
        return timedelta(milliseconds=max(found, default=0))

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        given = (self.at_least is not None) + (self.at_most is not None)
        if given > 1:
            raise ValueError(
                "has at_least and at_most; write another condition with a name of its own for one"
            )
        if not given and self.against is None:
            raise ValueError("at_least, at_most or `against: baseline` is needed")
        if self.against is not None and "$version" not in self.query:
            raise ValueError("is compared with the baseline, but its query has no $version")
        if not timedelta(seconds=1) <= self.every <= timedelta(hours=1):
            raise ValueError(f"every is 1s to 1h, not {format_duration(self.every)}")
        return self

    @property
    def compared(self) -> bool:
        """Whether the baseline is looked at."""
        return self.against is not None


Off = Annotated[Literal["off"], Tag("(off)")]
ErrorsChoice = Annotated[Annotated[AgainstBaseline, Tag("(against)")] | Off, Discriminator(_off_form)]
ClientErrorsChoice = Annotated[
    Annotated[AgainstClientErrors, Tag("(against)")] | Off, Discriminator(_off_form)
]
LatencyChoice = Annotated[
    Annotated[Latency, Tag("(limit)")] | Annotated[AgainstLatency, Tag("(against)")] | Off,
    Discriminator(_latency_form),
]


class Condition(Model):
    """One condition; exactly one field is set, besides ``grace``."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 2})
    one_of = (
        "errors",
        "client_errors",
        "latency",
        "success_rate",
        "error_rate",
        "grpc_status",
        "requests",
        "retries",
        "ejections",
        "stat",
        "metric",
        "prometheus",
    )
    instead = EACH

    errors: ErrorsChoice | None = None
    client_errors: ClientErrorsChoice | None = None
    latency: LatencyChoice | None = None
    success_rate: SuccessRate | None = None
    error_rate: ErrorRate | None = None
    grpc_status: GrpcStatus | None = None
    requests: Requests | None = None
    retries: Retries | None = None
    ejections: Ejections | None = None
    stat: StatLimit | None = None
    metric: MetricCondition | None = None
    prometheus: PrometheusCondition | None = None
    grace: Duration = timedelta(0)

    @property
    def off(self) -> bool:
        """Whether it only switches a default off."""
        return bool(getattr(self, self.given) == "off")

    @property
    def title(self) -> str:
        """How verdicts call it; two entries of a list with one title contradict each other."""
        if isinstance(self.latency, Latency):
            return f"latency p{self.latency.limit[0]:g}"
        if self.grpc_status is not None:
            return f"grpc status {' '.join(sorted(self.grpc_status.codes))}"
        named = self.stat or self.metric or self.prometheus
        return self.given.replace("_", " ") + (f" {named.name}" if named else "")

    @property
    def absolute(self) -> bool:
        """Whether it judges without a baseline beside the canary."""
        if isinstance(self.latency, Latency):
            return True
        if self.grpc_status is not None:
            return self.grpc_status.at_most is not None
        limited = self.metric or self.prometheus
        if limited is not None:
            return limited.at_least is not None or limited.at_most is not None
        return self.given in ("success_rate", "error_rate", "retries", "ejections", "stat")
