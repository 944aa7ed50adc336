"""Values of business metrics that are pushed: which of them may be taken in."""

from __future__ import annotations

from controlplane.app.ordering import service_named
from controlplane.policy.documents import EVERYONE, UNCOMPARED, BusinessMetric, Match
from controlplane.release.ports import World
from controlplane.web.asked import Push
from controlplane.web.port import RefusedError


def check_push(world: World, service: str, metric: str, push: Push) -> BusinessMetric:
    """Return the metric that a push is of.

    Raises:
        RefusedError: If it could not count: nothing is dropped without a word.
    """
    document = service_named(world, service)
    known = document.metrics.get(metric)
    if known is None or known.header is not None:
        pushable = [name for name, m in document.metrics.items() if m.header is None]
        allowed = ", ".join(pushable) or "none"
        raise RefusedError(
            404, f"service {service!r} has no metric {metric!r} that is pushed; those are {allowed}"
        )
    if push.version not in document.versions:
        versions = ", ".join(sorted(document.versions))
        raise RefusedError(400, f"version: {push.version!r} is not one of {versions}")
    if push.segment in UNCOMPARED:
        raise RefusedError(400, f"segment: {push.segment!r} is in no comparison of versions")
    if push.segment not in (names := _segments(world, service)):
        raise RefusedError(400, f"segment: {push.segment!r} is not one of {', '.join(sorted(names))}")
    if not (known.sum or known.per or push.sum <= push.n or push.users):
        raise RefusedError(
            400,
            f"sum: {push.sum:g} of n {push.n}; {metric!r} is counted, so at most n have it; see sum: true",
        )
    return known


def _segments(world: World, service: str) -> frozenset[str]:
    """Return the segments of documents, those within policies, and those of the release in progress."""
    steps = (step for policy in world.catalog.policies() for step in policy.steps)
    inline = {step.name for step in steps if isinstance(step.segment, Match)}
    active = world.active.get(service)
    pinned = set() if active is None else {step.segment for step in active.policy.steps}
    return frozenset({EVERYONE, *(s.name for s in world.catalog.segments()), *inline, *pinned})
