"""What the statistics need of a policy: its conditions, as what a release is held to."""

from __future__ import annotations

from dataclasses import replace

from controlplane.evidence import better
from controlplane.evidence.account import ALPHA, Limits, Metric
from controlplane.evidence.better import MetricTest
from controlplane.evidence.cluster_stats import AtMost, Retries
from controlplane.evidence.conversions import Conversions, LeastShare, MostShare
from controlplane.evidence.measures import Measured
from controlplane.evidence.scalars import ScalarLimit, Scalars
from controlplane.evidence.statuses import Statuses
from controlplane.evidence.sums import Sums
from controlplane.policy.documents import (
    AgainstBaseline,
    AgainstClientErrors,
    AgainstLatency,
    Condition,
    GrpcStatus,
    Latency,
    MetricCondition,
    PrometheusCondition,
)
from controlplane.policy.grpc_codes import CODES, MEASURE
from controlplane.policy.latency import edge_index
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.stats import EJECTIONS
from controlplane.policy.values import PPM


def tests(policy: PinnedPolicy) -> tuple[MetricTest, ...]:
    """Return what an A/B test looks at: every business metric; those with a condition decide."""
    if policy.ends is None:
        return ()
    judged = (*policy.conditions, *policy.steps[-1].conditions)
    decisive = {condition.metric.name for condition in judged if condition.metric}
    return better.metric_tests(policy.metrics, decisive, policy.ends.per_user or 1)


def limits(policy: PinnedPolicy, step: int | None = None) -> Limits:
    """Return what the statistics need of a policy, at one of its steps or in the guard (None)."""
    found = _limits(policy.conditions, policy)
    observed = tuple(m for name in policy.observe for m in _business(MetricCondition(name=name), policy))
    found = replace(found, observed=observed, emergency=policy.emergency)
    if step is None or step >= len(policy.steps):
        return found
    if step + 1 == len(policy.steps):
        found = replace(found, tests=tuple(half for test in tests(policy) for half in test.parts))
    if not policy.steps[step].conditions:
        return found
    own = policy.steps[step]
    return replace(found, step=(own.name, _limits(own.conditions, policy)))


def _limits(conditions: tuple[Condition, ...], policy: PinnedPolicy) -> Limits:
    by = {condition.given: condition for condition in conditions}
    against = [c.latency for c in conditions if isinstance(c.latency, AgainstLatency)]
    percentiles = sorted(c.latency.limit for c in conditions if isinstance(c.latency, Latency))
    edges = [(percentile / 100, edge_index(limit)) for percentile, limit in percentiles]
    least = by["success_rate"].success_rate if "success_rate" in by else None
    most = by["error_rate"].error_rate if "error_rate" in by else None
    volume = by["requests"].requests if "requests" in by else None
    return Limits(
        errors_margin=_margin(by["errors"].errors) if "errors" in by else None,
        client_errors_margin=_margin(by["client_errors"].client_errors) if "client_errors" in by else None,
        latency_margin=_margin(against[0]) if against else None,
        latency=tuple((quantile, edge) for quantile, edge in edges if edge is not None),
        success_rate=least.at_least / PPM if least else None,
        error_rate=most.at_most / PPM if most else None,
        requests=volume.at_least if volume else None,
        grace=tuple((name, c.grace) for c in conditions if c.grace for name in _metrics(c, policy)),
        added=tuple(metric for c in conditions for metric in _added(c, policy)),
    )


def _margin(against: AgainstBaseline | AgainstClientErrors | AgainstLatency | str | None) -> float | None:
    return None if against is None or isinstance(against, str) else against.margin / PPM


def _metrics(condition: Condition, policy: PinnedPolicy) -> tuple[str, ...]:
    """Return the metrics of a condition: slowness is looked for in the body and in the tail."""
    if condition.title == "latency":
        return ("latency", "latency tail")
    return tuple(metric.name for metric in _added(condition, policy)) or (condition.title,)


def _added(condition: Condition, policy: PinnedPolicy) -> tuple[Metric, ...]:
    """Return what a condition beside the default rule is judged by."""
    title = condition.title
    if condition.retries:
        return (Retries(title, condition.retries.at_most / PPM),)
    if condition.ejections:
        return (AtMost(title, EJECTIONS, condition.ejections.at_most),)
    if condition.stat:
        return (AtMost(title, condition.stat.name, condition.stat.at_most),)
    if condition.grpc_status:
        return _statuses(title, condition.grpc_status)
    if condition.metric:
        return _business(condition.metric, policy)
    return _prometheus(title, condition.prometheus) if condition.prometheus else ()


def _statuses(title: str, wanted: GrpcStatus) -> tuple[Metric, ...]:
    counts = frozenset(f"{MEASURE}{CODES[code]}" for code in wanted.codes)
    found = (Statuses(title, counts, wanted.margin / PPM),) if wanted.compared else ()
    if wanted.at_most is None:
        return found
    name = f"{title} limit" if found else title
    return (*found, Statuses(name, counts, limit=wanted.at_most / PPM))


def _business(condition: MetricCondition, policy: PinnedPolicy) -> tuple[Metric, ...]:
    found = next(metric for metric in policy.metrics if metric.name == condition.name)
    title, more = f"metric {found.name}", found.better == "more"
    every = found.every.total_seconds()
    measured = Measured(title, found.name, found.per or "", more, found.pushed, every, found.per_pushed)
    margin = condition.margin / PPM if condition.compared else None
    compared: tuple[Metric, ...] = ()
    if margin is not None:
        test = (
            Sums(title, measured, margin, by_user=True)
            if found.sum
            else Conversions(title, measured, margin, 1 / ALPHA)
        )
        compared = (test,)
    limits = (("at least", condition.at_least), ("at most", condition.at_most))
    given = [(which, limit) for which, limit in limits if limit is not None]
    kept = (
        _limit(
            f"{title} {which if len(given) > 1 else 'limit'}",
            replace(measured, more=which == "at least"),
            limit,
            found.sum,
        )
        for which, limit in given
    )
    return (*compared, *kept)


def _limit(name: str, measured: Measured, limit: float, sums: bool) -> Metric:
    """Return what keeps a business metric to a limit: the least if more is better, else the most."""
    if sums:
        return Sums(name, measured, None, limit)
    return (LeastShare if measured.more else MostShare)(name, measured, limit)


def _prometheus(title: str, wanted: PrometheusCondition) -> tuple[Metric, ...]:
    every, found = wanted.every.total_seconds(), []
    if wanted.against:
        apart = max(every, wanted.reach.total_seconds())
        more = wanted.better == "more"
        found.append(Scalars(title, wanted.name, wanted.margin / PPM, more, every, apart))
    limit = wanted.at_least if wanted.at_most is None else wanted.at_most
    if limit is None:
        return tuple(found)
    name = f"{title} limit" if wanted.against else title
    return (*found, ScalarLimit(name, wanted.name, limit, wanted.at_most is not None, every))
