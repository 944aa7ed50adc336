"""How proxies count requests: series, outcome classes, and the cap on their number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.wrappers_pb2 import UInt32Value, UInt64Value

from controlplane._pb.accesslog_pb2 import AccessLog, AccessLogFilter
from controlplane._pb.celfilter_pb2 import ExpressionFilter
from controlplane._pb.statslog_pb2 import Config
from controlplane._pb.type_pb2 import Scope
from controlplane.policy.documents import ANONYMOUS, Service
from controlplane.release.traffic import ServiceTraffic
from controlplane.resources.names import ATTEMPTS, METADATA
from controlplane.resources.readable import packed

PREFIX: Final = "turnout"  # series are turnout.rq, turnout.t and turnout.failed
REQUESTS: Final = "rq"
DURATION: Final = "t"  # histogram, milliseconds
FAILED: Final = "failed"  # attempts, where a request may have several
COUNTED: Final = "n"  # turnout.n.HEADER: responses that have a header
SUMMED: Final = "s"  # turnout.s.HEADER: sum of a header's values
STATUS: Final = "grpc"  # turnout.grpc: calls by gRPC status, where a service speaks gRPC

OK: Final = "ok"
CLIENT_ERROR: Final = "c4"  # 4xx without 429, and the gRPC codes that blame the client
LIMITED: Final = "limited"  # 429, RESOURCE_EXHAUSTED
BAD: Final = "bad"  # 5xx, gRPC failures, resets, timeouts, no host
ABORTED: Final = "abort"  # the client gave up before it had an answer
CLASSES: Final = (OK, CLIENT_ERROR, LIMITED, BAD, ABORTED)

# Beyond its caps a proxy drops new series without a word, and series of former releases stay until it
# restarts: so a fleet may need a quarter of what a proxy takes.
MAX_COUNTERS: Final = 48_000
MAX_HISTOGRAMS: Final = 9_600
SERIES_LIMIT: Final = MAX_COUNTERS // 4

_FAILED = ("2", "4", "13", "14", "15")  # UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS
_EXHAUSTED = ("8",)
_REFUSED = ("3", "5", "6", "7", "9", "10", "11", "12", "16")
# What Envoy says when an answer broke off after it had begun; the code then is that of the begin.
_BROKEN = ("upstream_reset_after_response_started", "response_timeout", "stream_idle_timeout")
_LEFT = ("downstream_remote_disconnect", "http2.remote_reset")


def _grpc(codes: Iterable[str]) -> str:
    known = "[" + ",".join(f"'{code}'" for code in codes) + "]"
    return " || ".join(
        f"('grpc-status' in {part} && {part}['grpc-status'] in {known})"
        for part in ("response.trailers", "response.headers")
    )


def _details(prefixes: Iterable[str]) -> str:
    return " || ".join(f"response.code_details.startsWith('{prefix}')" for prefix in prefixes)


# Not response.grpc_status: without a gRPC answer Envoy derives it from the HTTP code, 200 as UNKNOWN.
_CLASS = (
    f"%CEL(!has(response.code) || response.code == 0 ? '{ABORTED}'"
    f" : response.code >= 500 ? '{BAD}'"
    f" : response.code == 429 ? '{LIMITED}'"
    f" : response.code >= 400 ? '{CLIENT_ERROR}'"
    f" : {_details(_BROKEN)} ? '{BAD}'"
    f" : {_details(_LEFT)} ? '{ABORTED}'"
    f" : {_grpc(_FAILED)} ? '{BAD}'"
    f" : {_grpc(_EXHAUSTED)} ? '{LIMITED}'"
    f" : {_grpc(_REFUSED)} ? '{CLIENT_ERROR}'"
    f" : '{OK}')%"
)


# Attempts that failed without an answer have a flag, and those that a client gave up have none.
_FAILED_ATTEMPT = (
    f"has(xds.route_metadata.filter_metadata.{METADATA}.{ATTEMPTS}) && ("
    "has(response.code) && response.code > 0"
    f" ? response.code >= 500 || {_grpc(_FAILED)}"
    " : has(response.flags) && response.flags != 0)"
)


def series(services: Iterable[ServiceTraffic]) -> int:
    """Return how many counters the services need: segments and anonymous, times versions, times classes."""
    return sum(
        len({split.segment for split in traffic.splits} | {ANONYMOUS})
        * len({traffic.stable, traffic.canary or traffic.stable})
        * (len(CLASSES) + (traffic.service.retries is not None) + _statuses(traffic.service))
        for traffic in services
    )


def _statuses(service: Service) -> int:
    """Return how many gRPC statuses are planned for; a service that uses all 17 is within the quarter."""
    return len(CLASSES) if service.protocol == "grpc" else 0


@dataclass(frozen=True, slots=True, order=True)
class HeaderMetric:
    """A response header that is counted (how often it is there) or summed."""

    header: str
    sum: bool

    @property
    def series(self) -> str:
        """Name of its counter below PREFIX; the reader knows it by that."""
        return f"{SUMMED if self.sum else COUNTED}.{self.header}"

    @property
    def value(self) -> str:
        """What a response adds: a number in any case, since Envoy logs what is none."""
        value, added = f"response.headers['{self.header}']", "'1'"
        good = f"!{value}.matches('^(?i:0|no|false)?$')"
        if self.sum:
            # Whole numbers of a dozen digits cannot run a 64-bit counter over.
            good, added = f"{value}.matches('^[0-9]{{1,12}}$')", value
        return f"%CEL('{self.header}' in response.headers && {good} ? {added} : '0')%"


def header_metrics(services: Iterable[Service]) -> tuple[HeaderMetric, ...]:
    """Return what the proxies of some services count beside requests, sorted."""
    found = (metric for service in services for metric in service.metrics.values())
    return tuple(sorted({HeaderMetric(m.header, m.sum) for m in found if m.header is not None}))


def check_series(count: int, metrics: int = 0) -> None:
    """Raise ValueError if the services need more counters than a fleet may have.

    ``count`` is their `series`, one per class; each of the ``metrics`` needs one more in each place.
    """
    count += count // len(CLASSES) * metrics
    if count > SERIES_LIMIT:
        what = "classes" if not metrics else f"classes and {metrics} business metrics"
        raise ValueError(
            f"the fleet's services need {count} counters (segments x versions x {what}), at most "
            f"{SERIES_LIMIT} are allowed; release fewer services at once, use fewer segments, or split it"
        )


def attempt_logger() -> AccessLog:
    """Return the logger that counts failed attempts of services with retries; the last of a request is one.

    The other logger knows only how a request ended, and on which version: that a version which fails is asked
    first and another answers shows here alone.
    """
    return _counter(Config.Stat(name=FAILED, tags=_where()), _FAILED_ATTEMPT)


def status_logger() -> AccessLog:
    """Return the logger that counts calls by their gRPC status, also those that end with OK.

    By those that are OK it is known that a proxy counts. Other requests are not counted.
    """
    status = Config.Tag(name="status", value_format="%GRPC_STATUS_NUMBER%")
    answered = " || ".join(f"'grpc-status' in {part}" for part in ("response.trailers", "response.headers"))
    return _counter(Config.Stat(name=STATUS, tags=[*_where(), status]), answered)


def _counter(stat: Config.Stat, expression: str) -> AccessLog:
    """Return a logger that counts the requests of which an expression is true."""
    only = AccessLogFilter()
    only.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
    only.extension_filter.typed_config.CopyFrom(packed(ExpressionFilter(expression=expression)))
    counter = Config.Counter(stat=stat, value_fixed=UInt64Value(value=1))
    config = Config(counters=[counter], stats_scope=_scope())
    return AccessLog(name="envoy.access_loggers.stats", filter=only, typed_config=packed(config))


def _where() -> list[Config.Tag]:
    return [
        Config.Tag(name="service", value_format=f"%METADATA(ROUTE:{METADATA}:service)%"),
        Config.Tag(name="segment", value_format=f"%METADATA(ROUTE:{METADATA}:segment)%"),
        Config.Tag(name="cluster", value_format="%UPSTREAM_CLUSTER%"),
    ]


def _scope() -> Scope:
    return Scope(
        max_counters=UInt32Value(value=MAX_COUNTERS),
        max_histograms=UInt32Value(value=MAX_HISTOGRAMS),
        prefix=PREFIX,
        sharing_name=PREFIX,  # counters outlive a change of the listener
    )


def stats_logger(metrics: Iterable[HeaderMetric] = ()) -> Config:
    """Return the access logger that counts every request by service, segment, cluster and outcome class.

    ``metrics`` are counted by service, segment and cluster.
    """
    where = _where()
    outcome = Config.Tag(name="class", value_format=_CLASS)
    return Config(
        counters=[
            Config.Counter(
                stat=Config.Stat(name=REQUESTS, tags=[*where, outcome]), value_fixed=UInt64Value(value=1)
            ),
            *(
                Config.Counter(stat=Config.Stat(name=metric.series, tags=where), value_format=metric.value)
                for metric in metrics
            ),
        ],
        histograms=[
            Config.Histogram(
                stat=Config.Stat(name=DURATION, tags=where),
                unit=Config.Histogram.Milliseconds,
                value_format="%DURATION%",
            )
        ],
        stats_scope=_scope(),
    )
