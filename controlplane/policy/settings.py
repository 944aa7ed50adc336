"""What the settings of a service say about one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from controlplane.policy.documents import (
    REPEATED,
    STATUSES,
    UNTOUCHED,
    Document,
    Key,
    Match,
    Policy,
    Release,
    Segment,
    Service,
)
from controlplane.policy.problems import Finding
from controlplane.policy.segments import cohorts, lists
from controlplane.policy.yaml_source import Value

Raw = dict[str, Value]
Find = Callable[[str, str], Document | None]  # by kind and name


def findings(raw: Raw) -> Iterator[Finding]:
    """Yield what does not fit together in a service as it was written."""
    protocol = raw.get("protocol", "http")
    yield from _health(raw.get("health"), protocol)
    yield from _retries(raw.get("retries"), protocol)
    routes, versions = raw.get("routes"), raw.get("versions")
    for index, claim in enumerate(routes if isinstance(routes, list) else ()):
        if isinstance(claim, dict) and claim.get("websockets") is True and protocol == "grpc":
            text = "is true, but the service speaks grpc; websockets need http or http2"
            yield Finding(("routes", index, "websockets"), text)
    for name, version in versions.items() if isinstance(versions, dict) else ():
        endpoints = version.get("endpoints") if isinstance(version, dict) else None
        items = endpoints if isinstance(endpoints, list) else []
        zones = sum(isinstance(item, dict) and "zone" in item for item in items)
        if 0 < zones < len(items):
            text = f"{zones} of {len(items)} endpoints have a zone; give each of them one, or none"
            yield Finding(("versions", name, "endpoints"), text)


def _retries(retries: Value, protocol: Value) -> Iterator[Finding]:
    items = retries.get("on") if isinstance(retries, dict) else None
    for index, failure in enumerate(items if isinstance(items, list) else ()):
        if protocol == "grpc" and failure in REPEATED:
            text = f"{failure!r} is of HTTP, and the service speaks grpc; allowed then: "
            yield Finding(("retries", "on", index), text + ", ".join((*UNTOUCHED, *STATUSES)))
        elif protocol in ("http", "http2") and failure in STATUSES:
            text = f"{failure!r} is a status of gRPC, and the service speaks {protocol}; allowed then: "
            yield Finding(("retries", "on", index), text + ", ".join((*UNTOUCHED, *REPEATED)))


def _health(health: Value, protocol: Value) -> Iterator[Finding]:
    if not isinstance(health, dict):
        return
    if protocol == "grpc" and "path" in health:
        text = "the service speaks grpc, and is asked by gRPC's own health service; leave the path out"
        yield Finding(("health", "path"), text)
    elif protocol in ("http", "http2") and "path" not in health:
        yield Finding(("health", "path"), "missing; a path that answers 200 while an endpoint is well")


def warnings(service: Service, anonymous: str) -> Iterator[Finding]:
    """Yield what has less effect than it seems; ``anonymous`` is what happens without identity."""
    if service.balance == "ring_hash" and anonymous != "generate" and not service.user.from_:
        text = "is ring_hash, but nobody has an identity by which to keep an endpoint; give `user.from`"
        yield Finding(("balance",), text, "warning")


def mirror_findings(document: Document, find: Find) -> Iterator[Finding]:
    """Yield where a step cannot mirror: a cohort is chosen too late for it, and calls are not repeatable."""
    match document:
        case Policy():
            for index, step in enumerate(document.steps):
                if step.mirror is None or step.mirror.segment is None:
                    continue
                chosen = step.mirror.segment
                named = find("Segment", chosen) if isinstance(chosen, str) else None
                match = named.match if isinstance(named, Segment) else chosen
                if isinstance(match, Match) and (cohorts(match) or lists(match)):
                    text = "has a cohort or a list of users; requests are mirrored before users are drawn"
                    yield Finding(("steps", index, "mirror", "segment"), text)
        case Release():
            service, policy = find("Service", document.service), find("Policy", document.policy)
            steps = policy.steps if isinstance(policy, Policy) else ()
            mirrors = next((step.name for step in steps if step.mirror), None)
            if mirrors and isinstance(service, Service) and service.protocol == "grpc":
                text = f"{document.policy!r} mirrors in step {mirrors!r}, but {service.name!r} speaks grpc"
                yield Finding(("policy",), f"{text}: which calls change nothing is unknown")
        case _:
            return


def raw_clashes(documents: Mapping[Key, Document]) -> Iterator[tuple[Key, Finding]]:
    """Yield services that share a host, each with other raw fields for its virtual host."""
    given: dict[tuple[str, str], dict[Key, str]] = defaultdict(dict)
    for key, document in documents.items():
        if isinstance(document, Service) and (raw := document.envoy.virtual_host):
            for fleet in document.fleets:
                for claim in document.routes:
                    given[fleet, claim.host][key] = raw
    for (fleet, host), raws in given.items():
        for key, raw in raws.items():
            if other := next((other for other, theirs in raws.items() if theirs != raw), None):
                text = f"host {host} on fleet {fleet!r} has other raw fields by Service {other[1]!r}"
                yield key, Finding(("envoy", "virtual_host"), f"{text}; one of both may have them")
