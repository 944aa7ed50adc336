"""Another policy for a release that was recorded: pinned as if the release had been ordered under it."""

from __future__ import annotations

from collections.abc import Callable

from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Condition, Policy, PrometheusCondition, Service
from controlplane.policy.fitness import places
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.pinning import only, pin


def pin_again(
    policy: Policy, catalog: Catalog, own: PinnedPolicy, service: str
) -> tuple[PinnedPolicy, tuple[str, ...]]:
    """Return the policy, and the titles of conditions of which nothing was recorded: they are left out.

    Args:
        policy: The other policy.
        catalog: Where its segments are. If the service is there too, it says what else is counted, and by
            which kinds of listeners.
        own: The policy under which the release ran.
        service: Name of the service that was released.
    """
    found = catalog.get("Service", service)
    known = found if isinstance(found, Service) else None
    counted = {metric.name for metric in own.metrics} | set(known.metrics if known else ())
    coded = known is not None and known.protocol == "grpc"
    kinds = {kind for _, _, kind in places(known, catalog.get)} if known else ()
    kept, left_out = only(policy, _recorded(own, counted, coded), counted.__contains__)
    return pin(kept, catalog, kinds, known, own), left_out


def _recorded(own: PinnedPolicy, counted: set[str], coded: bool) -> Callable[[Condition], bool]:
    """Return whether there are data for a condition: Envoy's counters always, queries if they were asked.

    Calls are counted by gRPC status if the service is known to speak gRPC (``coded``), or was asked for them.
    """
    every = (*own.conditions, *(c for step in own.steps for c in step.conditions))
    asked = [c.prometheus for c in every if c.prometheus]

    coded = coded or any(c.grpc_status for c in every)

    def told(condition: Condition) -> bool:
        if condition.grpc_status:
            return coded
        if condition.metric:
            return condition.metric.name in counted
        wanted = condition.prometheus
        return wanted is None or any(_answers(query, wanted) for query in asked)

    return told


def _answers(asked: PrometheusCondition, wanted: PrometheusCondition) -> bool:
    """Return whether what was asked answers what is wanted; the baseline was asked for only if compared."""
    same = (asked.name, asked.query) == (wanted.name, wanted.query)
    return same and (asked.against is not None or wanted.against is None)
