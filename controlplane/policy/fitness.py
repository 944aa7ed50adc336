"""Whether services and releases fit the listeners of their fleets, by the table of ``capabilities``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from controlplane.policy.capabilities import Feature, Kind, ignored, refusal
from controlplane.policy.documents import (
    Document,
    Fleet,
    Match,
    MetricCondition,
    Policy,
    Release,
    Segment,
    Service,
)
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.pinning import MEASURED, metrics, pin
from controlplane.policy.problems import Finding, Path, meant
from controlplane.policy.segments import claims, headers

# Of a service, how a proxy connects to its endpoints.
SETTINGS = (
    "idle_timeout",
    "health",
    "outliers",
    "limits",
    "balance",
    "upstream_tls",
    "retries",
    "explain_header",
    "envoy",
)

Find = Callable[[str, str], Document | None]  # by kind and name
Place = tuple[int, Fleet, Kind]  # where a service names a fleet, and a kind of listener that it has


def places(service: Service, find: Find) -> tuple[Place, ...]:
    """Return the fleets of a service that are there, with each kind of listener that they have."""
    named = ((index, find("Fleet", name)) for index, name in enumerate(service.fleets))
    return tuple(
        (index, fleet, kind) for index, fleet in named if isinstance(fleet, Fleet) for kind in fleet.kinds
    )


def unmatchable(match: Match, kind: Kind) -> str | None:
    """Return the part of a condition that a kind of listener cannot evaluate, with the reason, or None."""
    parts = (
        (Feature.COHORT, match.cohort, "a cohort of users"),
        (Feature.COOKIE, match.cookie, f"cookie {match.cookie.name!r}" if match.cookie else ""),
        (Feature.QUERY, match.query, f"query parameter {match.query.name!r}" if match.query else ""),
        (Feature.PATH, match.path, "the path"),
        (Feature.METHOD, match.method, "the method"),
        (Feature.HOST, match.host, "the host"),
        (Feature.USER_AGENT, match.user_agent, "the browser"),
        (Feature.SOURCE, match.source, "the client's address"),
        (Feature.CLAIM, match.claim, f"claim {match.claim.name!r}" if match.claim else ""),
        (Feature.USERS, match.users, "a list of users"),
        (Feature.HEADER, match.header, f"header {match.header.name!r}" if match.header else ""),
    )
    for feature, present, what in parts:
        if present is not None and (reason := refusal(kind, feature)):
            return f"{what}; {reason}"
    binary = next((name for name in headers(match) if name.endswith("-bin")), None)
    if kind == "grpc" and binary:
        return f"binary metadata {binary!r}; {refusal(kind, Feature.COOKIE)}"
    inner = match.all or match.any or ((match.not_,) if match.not_ else ())
    return next((found for part in inner if (found := unmatchable(part, kind))), None)


def unverified(policy: PinnedPolicy, fleet: Fleet) -> str | None:
    """Return why a policy cannot run on a fleet: it asks for a claim that is not verified there; or None."""
    matches = [s.match for s in policy.steps if s.match is not None]
    matches += [kept.match for step in policy.steps for kept in step.exclude]
    matches += [kept.match for kept in policy.hold_out]
    asked = [claim for match in matches for claim in claims(match)]
    asked += [source.claim for source in (policy.user.from_ if policy.user else ()) if source.claim]
    return next((_unread(fleet, claim) for claim in asked if claim not in fleet.claims), None)


def _unread(fleet: Fleet, claim: str) -> str:
    known = ", ".join(sorted(fleet.claims)) or "none"
    return f"claim {claim!r} is not one of `tokens.claims` of fleet {fleet.name!r}; those are: {known}"


def unfit(policy: PinnedPolicy, kind: Kind, fleet: Fleet) -> str | None:
    """Return why a policy cannot run where listeners of this kind of a fleet take part, or None."""
    for step in policy.steps:
        if step.match is not None and (part := unmatchable(step.match, kind)):
            return f"step {step.name!r} chooses by {part}"
        for kept in step.exclude:
            if part := unmatchable(kept.match, kind):
                return f"step {step.name!r} excludes {kept.name!r}, which chooses by {part}"
        if step.mirror is not None and (reason := refusal(kind, Feature.MIRROR)):
            return f"step {step.name!r} mirrors; {reason}"
    for kept in policy.hold_out:
        if part := unmatchable(kept.match, kind):
            return f"the service holds out {kept.name!r}, which chooses by {part}"
    return unmeasured(policy, kind) or unverified(policy, fleet)


def unmeasured(policy: PinnedPolicy, kind: Kind) -> str | None:
    """Return which condition listeners of a kind report nothing for, or None."""
    for condition in (*policy.conditions, *(c for step in policy.steps for c in step.conditions)):
        feature = MEASURED.get(condition.given)
        if feature is not None and (reason := refusal(kind, feature)):
            return f"it has a condition on {condition.title}; {reason}"
    counted = next((metric.name for metric in policy.metrics if not metric.pushed), None)
    if counted is not None and (reason := refusal(kind, Feature.METRICS)):
        return f"it looks at metric {counted!r}, which stands in a header; {reason}"
    return None


def uncounted(policy: Policy, service: Service) -> str | None:
    """Return why a policy cannot run because of what is not counted of the service, or None."""
    every = (*policy.conditions, *(c for step in policy.steps for c in step.conditions))
    coded = next((c.title for c in every if c.grpc_status is not None), None)
    if coded is not None and service.protocol != "grpc":
        return f"it has a condition on {coded}; codes are counted of a service with `protocol: grpc`"
    missing = [name for name in metrics(policy) if name not in service.metrics]
    if missing:
        known = ", ".join(service.metrics) or "none"
        hint = meant(missing[0], service.metrics) if len(missing) == 1 else ""
        return f"the service has no metric {', '.join(map(repr, missing))}; it has {known}{hint}"
    limits = (c.metric for c in every if c.metric is not None)
    return next((why for limit in limits if (why := _beyond(limit, service))), None)


def _beyond(limit: MetricCondition, service: Service) -> str | None:
    """Return why a limit on a counted metric says nothing or cannot be kept, or None."""
    metric = service.metrics[limit.name]
    if metric.sum or metric.per is not None:
        return None
    counted = f"metric {limit.name!r} is counted, a share of the requests"
    if limit.at_most is not None and limit.at_most >= 1:
        return f"{counted}, so none is above `at_most: {limit.at_most:g}`; at_most is below 1, or below 100%"
    if limit.at_least is not None and limit.at_least > 1:
        return f"{counted}, so none keeps `at_least: {limit.at_least:g}`; at_least is 1, or 100%, at most"
    return None


def findings(document: Document, find: Find) -> Iterator[Finding]:
    """Yield the errors of a service, or of a release of one, that does not fit a fleet of it."""
    match document:
        case Service():
            told: set[Path] = set()
            for _, fleet, kind in places(document, find):
                for path, reason in _service(document, kind, fleet):
                    if path not in told:
                        told.add(path)
                        yield Finding(path, f"not on {kind} fleet {fleet.name!r}: {reason}")
        case Release():
            service, policy = find("Service", document.service), find("Policy", document.policy)
            if isinstance(service, Service) and isinstance(policy, Policy):
                yield from _misfits(service, policy, find)
        case _:
            return


def _misfits(service: Service, policy: Policy, find: Find) -> Iterator[Finding]:
    """Yield where and why a policy cannot run for a service, once."""
    if missing := uncounted(policy, service):
        yield Finding(("policy",), f"{policy.name!r} does not fit {service.name!r}: {missing}")
        return
    kinds = {kind for *_, kind in places(service, find)}
    try:
        pinned = pin(policy, _Segments(find), kinds, service)
    except KeyError:
        return  # the policy names a segment that is not there, and is refused for that
    for _, fleet, kind in places(service, find):
        if why := unfit(pinned, kind, fleet):
            where = f"{service.name!r} on {kind} fleet {fleet.name!r}"
            yield Finding(("policy",), f"{policy.name!r} does not fit {where}: {why}")
            return


def warnings(service: Service, find: Find) -> Iterator[Finding]:
    """Yield what a service has to know that is given to listeners which ignore a part of it."""
    for index, fleet, kind in places(service, find):
        where = f"{kind} fleet {fleet.name!r}"
        if reason := ignored(kind, Feature.STICKY):
            yield Finding(
                ("fleets", index), f"users of {where} do not keep their version: {reason}", "warning"
            )
        if without := ignored(kind, Feature.WEIGHT):
            for name, version in service.versions.items():
                if any(endpoint.weight != 1 for endpoint in version.endpoints or ()):
                    path = ("versions", name, "endpoints")
                    yield Finding(path, f"weights have no effect on {where}: {without}", "warning")
        yield from (Finding(at, text, "warning") for at, text in _without_effect(service, kind, where))


def _without_effect(service: Service, kind: Kind, where: str) -> Iterator[tuple[Path, str]]:
    if service.version_header and (without := ignored(kind, Feature.TELL)):
        yield ("version_header",), f"is not told on {where}: {without}"
    if without := ignored(kind, Feature.SETTINGS):
        for setting in (name for name in SETTINGS if name in service.model_fields_set):
            yield (setting,), f"has no effect on {where}: {without}"
    if uncounted := refusal(kind, Feature.METRICS):
        for name, metric in service.metrics.items():
            if metric.header is not None:
                yield ("metrics", name), f"is not counted on {where}: {uncounted}"


def _service(service: Service, kind: Kind, fleet: Fleet) -> Iterator[tuple[Path, str]]:
    for index, source in enumerate(service.user.from_):
        if source.claim is not None and source.claim not in fleet.claims:
            unread = refusal(kind, Feature.CLAIM) or _unread(fleet, source.claim)
            yield ("user", "from", index, "claim"), unread
    for name, version in service.versions.items():
        if version.dns is not None and (reason := refusal(kind, Feature.DNS)):
            yield ("versions", name, "dns"), reason
    if service.retries is not None and (reason := refusal(kind, Feature.RETRIES)):
        yield ("retries",), reason
    if service.protocol == "grpc" and (reason := refusal(kind, Feature.GRPC)):
        yield ("protocol",), reason
    choice = {"baseline": Feature.BASELINE, "generate": Feature.GENERATE}.get(service.user.otherwise or "")
    if choice and (reason := refusal(kind, choice)):
        yield ("user", "otherwise"), reason


class _Segments:
    """Segments by name, for pinning."""

    def __init__(self, find: Find) -> None:
        self._find = find

    def segment(self, name: str) -> Segment:
        """Return the segment, or raise ``KeyError``."""
        found = self._find("Segment", name)
        if not isinstance(found, Segment):
            raise KeyError(name)
        return found
