"""What each kind of listener can do, and why it cannot do the rest: one table.

Load checks and compilers ask it, and docs/envoy.md has it as a table that a test keeps equal. What a kind
cannot do is refused with the reason that stands here, never left out: a condition that is left out would
make a segment wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

Kind = Literal["edge", "local", "transparent", "adopt", "grpc"]
KINDS: Final[tuple[Kind, ...]] = ("edge", "local", "transparent", "adopt", "grpc")


class Feature(StrEnum):
    """What documents may ask of a listener; the value is how the docs call it."""

    ADDRESS = "`address`"
    TLS = "`tls`"
    SHARED = "other listeners in the fleet"
    ROUTES = "services by host and path"
    STICKY = "users keep their version"
    GENERATE = "`otherwise: generate`"
    BASELINE = "`otherwise: baseline`"
    HEADER = "`header`"
    COOKIE = "`cookie`"
    QUERY = "`query`"
    PATH = "`path`"
    METHOD = "`method`"
    HOST = "`host`"
    USER_AGENT = "`user_agent`"
    SOURCE = "`source`"
    CLAIM = "`claim`, `tokens`"
    USERS = "`users`, `users_file`"
    COHORT = "`cohort`"
    DNS = "versions by `dns`"
    WEIGHT = "`weight` of endpoints"
    GRPC = "`protocol: grpc`"
    RETRIES = "`retries`"
    TIMEOUT = "`timeout`"
    LATENCY = "`latency` conditions"
    CLIENT_ERRORS = "`client_errors` conditions"
    GRPC_STATUS = "`grpc_status` conditions"
    SETTINGS = "health checks, limits, balance, TLS to endpoints"
    MIRROR = "`mirror` of a step"
    MANAGER = "raw fields of the connection manager"
    CLUSTER_STATS = "`retries`, `ejections` and `stat` conditions"
    METRICS = "business metrics in headers"
    TELL = "`version_header` told to endpoints"
    FOLLOW = "`version_header` followed in a group"


@dataclass(frozen=True, slots=True)
class Limit:
    """Why a kind of listener cannot do something.

    ``ignored`` is True where a document may ask for it all the same, since another fleet of the service may
    be able to; it then has no effect here.
    """

    reason: str
    ignored: bool = False


_EDGE: Final[Mapping[Feature, Limit]] = {
    Feature.FOLLOW: Limit("what comes from outside is not believed", ignored=True),
}
_LOCAL: Final[Mapping[Feature, Limit]] = {
    Feature.TLS: Limit("requests come from the same machine"),
}
_TRANSPARENT: Final[Mapping[Feature, Limit]] = {
    Feature.TLS: Limit("connections with TLS pass through unread"),
    Feature.SHARED: Limit("all connections of the machine are led to its one port"),
}
_OWNER = Limit("the listener is its owner's")
_STATUS = Limit("only a listener of ours counts gRPC failures, which are 200 to HTTP")
_ADOPT: Final[Mapping[Feature, Limit]] = {
    Feature.METRICS: Limit("only a listener of ours counts headers"),
    Feature.ADDRESS: _OWNER,
    Feature.TLS: _OWNER,
    Feature.SHARED: Limit("listeners of ours and of an owner are fleets of their own"),
    Feature.GENERATE: Limit("only a listener of ours gives users an identity"),
    Feature.SOURCE: Limit("only a listener of ours tells routes the client's address"),
    Feature.CLAIM: Limit("only a listener of ours verifies tokens"),
    Feature.MANAGER: _OWNER,
    Feature.FOLLOW: Limit("only a listener of ours takes away what comes from outside", ignored=True),
    Feature.RETRIES: Limit("only a listener of ours counts the attempts that a retry hides"),
    Feature.MIRROR: Limit("only a listener of ours tells copies from requests"),
    Feature.GRPC: _STATUS,
    Feature.GRPC_STATUS: _STATUS,
}
_METADATA = Limit("gRPC clients match text metadata only (`header`)")
_GRPC: Final[Mapping[Feature, Limit]] = {
    Feature.ADDRESS: Limit("gRPC clients listen nowhere"),
    Feature.TLS: Limit("the channel credentials are the client's own"),
    Feature.SHARED: Limit("gRPC clients are a fleet of their own"),
    Feature.ROUTES: Limit("a client asks for a service by its name", ignored=True),
    Feature.STICKY: Limit("a version is drawn for each call", ignored=True),
    Feature.GENERATE: Limit("a version is drawn for each call", ignored=True),
    Feature.BASELINE: Limit("calls have no user, so all of them would stay there"),
    Feature.COOKIE: _METADATA,
    Feature.QUERY: _METADATA,
    Feature.PATH: _METADATA,
    Feature.METHOD: _METADATA,
    Feature.HOST: _METADATA,
    Feature.USER_AGENT: _METADATA,
    Feature.SOURCE: _METADATA,
    Feature.CLAIM: Limit("gRPC clients verify no tokens"),
    Feature.USERS: _METADATA,
    Feature.COHORT: _METADATA,
    Feature.WEIGHT: Limit("gRPC clients take endpoints in turn", ignored=True),
    Feature.LATENCY: Limit("gRPC clients report no latencies"),
    Feature.CLUSTER_STATS: Limit("gRPC clients report calls only"),
    Feature.METRICS: Limit("gRPC clients report calls only"),
    Feature.CLIENT_ERRORS: Limit("gRPC clients report calls as good or failed, not whose fault it was"),
    Feature.GRPC_STATUS: Limit("gRPC clients report calls as good or failed, not with which code"),
    Feature.RETRIES: Limit("a gRPC client decides itself how it connects", ignored=True),
    Feature.TELL: Limit("a gRPC client sends what its program says", ignored=True),
    Feature.SETTINGS: Limit("a gRPC client decides itself how it connects", ignored=True),
    Feature.MIRROR: Limit("gRPC clients send no copies"),
    Feature.MANAGER: Limit("gRPC clients listen nowhere"),
}
LIMITS: Final[Mapping[Kind, Mapping[Feature, Limit]]] = {
    "edge": _EDGE,
    "local": _LOCAL,
    "transparent": _TRANSPARENT,
    "adopt": _ADOPT,
    "grpc": _GRPC,
}


def refusal(kind: Kind, feature: Feature) -> str | None:
    """Return why a document that asks this of a kind of listener is refused, or None."""
    limit = LIMITS[kind].get(feature)
    return None if limit is None or limit.ignored else limit.reason


def ignored(kind: Kind, feature: Feature) -> str | None:
    """Return why this has no effect on a kind of listener, or None."""
    limit = LIMITS[kind].get(feature)
    return limit.reason if limit is not None and limit.ignored else None


def table() -> str:
    """Return the table in Markdown: one row per feature, one column per kind, and the reasons below."""
    reasons = dict.fromkeys(limit.reason for kind in KINDS for limit in LIMITS[kind].values())
    number = {text: place for place, text in enumerate(reasons, 1)}

    def cell(limit: Limit | None) -> str:
        if limit is None:
            return "yes"
        return f"{'no effect' if limit.ignored else 'no'} ({number[limit.reason]})"

    rows = [f"| | {' | '.join(f'`{kind}`' for kind in KINDS)} |", f"|---{'|---' * len(KINDS)}|"]
    rows += [
        f"| {feature} | {' | '.join(cell(LIMITS[kind].get(feature)) for kind in KINDS)} |"
        for feature in Feature
    ]
    return "\n".join([*rows, "", *(f"{place}. {text}" for text, place in number.items())])
