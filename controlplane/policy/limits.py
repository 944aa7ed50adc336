"""Limits that nothing keeps, or that contradict what they limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from controlplane.policy.documents import Condition, MetricCondition, Policy, PrometheusCondition, Service
from controlplane.policy.problems import Finding, Path
from controlplane.policy.values import PPM, format_share

Better = Literal["more", "less"]

# Of shares, what every release keeps.
_LOOSEST = (
    ("success_rate", "at_least", 0),
    ("error_rate", "at_most", PPM),
    ("grpc_status", "at_most", PPM),
    ("retries", "at_most", PPM),
)
_LOSES_ALL = "100% of what more is better of: a new version that has none of it is within the margin"


def check(conditions: Sequence[tuple[Path, Condition]]) -> Iterator[Finding]:
    """Report limits that cannot be shown, what has no effect beside one, and limits of what is better."""
    for path, condition in conditions:
        yield from _without_effect(path, condition)
        if condition.success_rate and condition.success_rate.at_least == PPM:
            text = "100% cannot be shown by counting, and the first error breaks it; write 99.99% at most"
            yield Finding((*path, "success_rate", "at_least"), text)
        for kind, limit, loosest in _LOOSEST:
            part = getattr(condition, kind)
            if part is not None and getattr(part, limit) == loosest:
                text = f"{format_share(loosest)} is a limit that nothing breaks; leave the condition out"
                yield Finding((*path, kind, limit), text)
        query = condition.prometheus
        if query and query.against and query.better == "more" and query.margin == PPM:
            yield Finding((*path, "prometheus", "margin"), _LOSES_ALL, "warning")
        if query and query.against and (field := _wrong(query, query.better)):
            text = f"limits what is better: of {query.name!r} {query.better} is"
            text += "" if "better" in query.model_fields_set else ", unless `better: more` says otherwise"
            yield Finding((*path, "prometheus", field), text, "warning")


def _without_effect(path: Path, condition: Condition) -> Iterator[Finding]:
    """Report what only a comparison uses, beside a limit alone: nobody would look at it."""
    kind = condition.given
    part = condition.grpc_status or condition.metric or condition.prometheus
    if part is None or part.compared:
        return
    for field in ("margin", "better"):
        if field in part.model_fields_set:
            text = (
                "is one of a comparison, and a limit alone is none; add `against: baseline`, or leave it out"
            )
            yield Finding((*path, kind, field), text, at_key=True)


def warnings(policy: Policy, services: Iterable[Service]) -> Iterator[Finding]:
    """Report limits of business metrics that limit what is better, in every service that has the metric."""
    known = tuple(services)
    places: list[tuple[Path, Condition]] = [(("conditions", i), c) for i, c in enumerate(policy.conditions)]
    for at, step in enumerate(policy.steps):
        places += [(("steps", at, "conditions", i), c) for i, c in enumerate(step.conditions)]
    for path, condition in places:
        if condition.metric is None:
            continue
        name = condition.metric.name
        better = {service.metrics[name].better for service in known if name in service.metrics}
        if better == {"more"} and condition.metric.compared and condition.metric.margin == PPM:
            yield Finding((*path, "metric", "margin"), _LOSES_ALL, "warning")
        if len(better) == 1 and (field := _wrong(condition.metric, way := better.pop())):
            text = f"limits what is better: of {name!r} {way} is"
            yield Finding((*path, "metric", field), text, "warning")


def _wrong(limit: MetricCondition | PrometheusCondition, better: Better) -> str | None:
    """Return the only limit of a condition if it is one of too much of what is better."""
    given = [field for field in ("at_least", "at_most") if getattr(limit, field) is not None]
    wrong = "at_most" if better == "more" else "at_least"
    return wrong if given == [wrong] else None
