"""The five kinds of documents that operators write, as frozen models.

A field that is not here is refused as unknown. The JSON Schema is generated from these classes. What one
part can say about itself is checked here; what parts say about one another, in ``checks``.
Shares are parts per million in whole steps of 0.01 %; durations are ``timedelta``.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.policy.documents.calendar import Blackout, Window
from controlplane.policy.documents.condition import (
    AgainstBaseline,
    AgainstClientErrors,
    AgainstLatency,
    Condition,
    ErrorRate,
    ErrorsChoice,
    GrpcStatus,
    Latency,
    MetricCondition,
    PrometheusCondition,
    Requests,
    SuccessRate,
)
from controlplane.policy.documents.fleet import Fleet, Listener, Locality, Nodes, Propagate, Tls
from controlplane.policy.documents.hook import Hook, Point
from controlplane.policy.documents.model import (
    ANONYMOUS,
    EVERYONE,
    FOLLOWED,
    HOLD_OUT,
    RESERVED_SEGMENTS,
    UNCOMPARED,
    Model,
    OwnName,
)
from controlplane.policy.documents.notify import Event, Notify
from controlplane.policy.documents.policy import (
    Approve,
    Budget,
    Conduct,
    Ends,
    Guard,
    Irreversible,
    Mirror,
    OnFailure,
    PointOfNoReturn,
    Policy,
    Retry,
    Step,
    WhenUnsure,
)
from controlplane.policy.documents.release import After, Release
from controlplane.policy.documents.segment import (
    MAX_USERS,
    TOO_MANY_USERS,
    ClaimMatch,
    Cohort,
    CookieMatch,
    HeaderMatch,
    Match,
    PathMatch,
    QueryMatch,
    Range,
    Segment,
    SegmentChoice,
    ValueMatch,
)
from controlplane.policy.documents.service import (
    EVERY,
    BusinessMetric,
    Claim,
    Endpoint,
    EndpointItem,
    Service,
    ServiceVersion,
    User,
    UserSource,
)
from controlplane.policy.documents.settings import (
    REPEATED,
    STATUSES,
    UNTOUCHED,
    Health,
    Limits,
    Outliers,
    Overrides,
    Retries,
    Rewrite,
    UpstreamTls,
)
from controlplane.policy.documents.tokens import Tokens

Document = Fleet | Service | Segment | Policy | Release
Key = tuple[str, str]  # kind and name of a document

KINDS: Mapping[str, type[Model]] = {
    "Fleet": Fleet,
    "Policy": Policy,
    "Release": Release,
    "Segment": Segment,
    "Service": Service,
}

__all__ = [
    "ANONYMOUS",
    "EVERY",
    "EVERYONE",
    "FOLLOWED",
    "HOLD_OUT",
    "KINDS",
    "MAX_USERS",
    "REPEATED",
    "RESERVED_SEGMENTS",
    "STATUSES",
    "TOO_MANY_USERS",
    "UNCOMPARED",
    "UNTOUCHED",
    "After",
    "AgainstBaseline",
    "AgainstClientErrors",
    "AgainstLatency",
    "Approve",
    "Blackout",
    "Budget",
    "BusinessMetric",
    "Claim",
    "ClaimMatch",
    "Cohort",
    "Condition",
    "Conduct",
    "CookieMatch",
    "Document",
    "Endpoint",
    "EndpointItem",
    "Ends",
    "ErrorRate",
    "ErrorsChoice",
    "Event",
    "Fleet",
    "GrpcStatus",
    "Guard",
    "HeaderMatch",
    "Health",
    "Hook",
    "Irreversible",
    "Key",
    "Latency",
    "Limits",
    "Listener",
    "Locality",
    "Match",
    "MetricCondition",
    "Mirror",
    "Model",
    "Nodes",
    "Notify",
    "OnFailure",
    "Outliers",
    "Overrides",
    "OwnName",
    "PathMatch",
    "Point",
    "PointOfNoReturn",
    "Policy",
    "PrometheusCondition",
    "Propagate",
    "QueryMatch",
    "Range",
    "Release",
    "Requests",
    "Retries",
    "Retry",
    "Rewrite",
    "Segment",
    "SegmentChoice",
    "Service",
    "ServiceVersion",
    "Step",
    "SuccessRate",
    "Tls",
    "Tokens",
    "UpstreamTls",
    "User",
    "UserSource",
    "ValueMatch",
    "WhenUnsure",
    "Window",
]
