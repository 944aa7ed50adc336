"""What gRPC clients without a proxy cannot do, and what is refused because of it.

They know neither cookies nor users, report no latencies, and resolve no names. A condition that they would
skip is refused: dropping it would widen a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from controlplane.policy.documents import Document, Fleet, Match, Policy, Release, Segment, Service
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.pinning import pin
from controlplane.policy.problems import Finding
from controlplane.policy.segments import headers

Find = Callable[[str, str], Document | None]  # by kind and name


def grpc_fleets(service: Service, find: Find) -> tuple[tuple[int, str], ...]:
    """Return position and name of those of a service's fleets that are gRPC clients."""
    named = ((index, find("Fleet", name)) for index, name in enumerate(service.fleets))
    return tuple((index, fleet.name) for index, fleet in named if isinstance(fleet, Fleet) and fleet.grpc)


def unmatchable(match: Match) -> str | None:
    """Return the part of a condition that gRPC clients cannot evaluate, or None."""
    if match.cohort is not None:
        return "a cohort of users"
    if match.cookie is not None:
        return f"cookie {match.cookie.name!r}"
    if binary := next((name for name in headers(match) if name.endswith("-bin")), None):
        return f"binary metadata {binary!r}"
    parts = match.all or match.any or ((match.not_,) if match.not_ else ())
    return next((found for part in parts if (found := unmatchable(part))), None)


def unfit(policy: PinnedPolicy) -> str | None:
    """Return why a policy cannot run where gRPC clients take part, or None."""
    for step in policy.steps:
        if step.match is not None and (part := unmatchable(step.match)):
            return f"step {step.name!r} chooses by {part}; gRPC clients match text metadata only (`header`)"
    return "it has a latency condition; gRPC clients report no latencies" if policy.latency else None


def findings(document: Document, find: Find) -> Iterator[Finding]:
    """Yield the errors of a service on a grpc fleet, or of a release of one."""
    match document:
        case Service():
            for _, fleet in grpc_fleets(document, find)[:1]:
                yield from _service(document, fleet)
        case Release():
            service, policy = find("Service", document.service), find("Policy", document.policy)
            if isinstance(service, Service) and isinstance(policy, Policy) and grpc_fleets(service, find):
                try:
                    reason = unfit(pin(policy, _Segments(find)))
                except KeyError:
                    return  # the policy names a segment that is not there, and is refused for that
                if reason is not None:
                    fleet = grpc_fleets(service, find)[0][1]
                    text = f"{policy.name!r} does not fit {service.name!r} on grpc fleet {fleet!r}: {reason}"
                    yield Finding(("policy",), text)
        case _:
            return


def warnings(service: Service, find: Find) -> Iterator[Finding]:
    """Yield what a service on a grpc fleet has to know."""
    for index, fleet in grpc_fleets(service, find):
        text = f"clients of grpc fleet {fleet!r} draw a version for each call; users do not keep theirs"
        yield Finding(("fleets", index), text, "warning")
        for name, version in service.versions.items():
            if any(endpoint.weight != 1 for endpoint in version.endpoints or ()):
                text = f"clients of grpc fleet {fleet!r} take endpoints in turn, whatever their weights"
                yield Finding(("versions", name, "endpoints"), text, "warning")


def _service(service: Service, fleet: str) -> Iterator[Finding]:
    for name, version in service.versions.items():
        if version.dns is not None:
            text = f"clients of grpc fleet {fleet!r} resolve no names; give `endpoints`"
            yield Finding(("versions", name, "dns"), text)
    if service.user.otherwise == "baseline":
        text = f"calls from grpc fleet {fleet!r} have no user, so `baseline` would keep all of them there"
        yield Finding(("user", "otherwise"), text)


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
