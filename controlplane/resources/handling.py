"""How a proxy handles the requests of a claim: time, path, host, upgrades, retries."""

from __future__ import annotations

import re
from datetime import timedelta

from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from controlplane._pb.matcher_pb2 import RegexMatchAndSubstitute, RegexMatcher
from controlplane._pb.previoushosts_pb2 import PreviousHostsPredicate
from controlplane._pb.route_pb2 import RetryPolicy, RouteAction
from controlplane.policy.documents import REPEATED, Claim, Retries, Rewrite, Service
from controlplane.resources.readable import packed
from controlplane.resources.upstreams import duration

_WEBSOCKET_IDLE = timedelta(hours=1)  # a socket on which nobody says anything is no fault
_ANOTHER_HOST = RetryPolicy.RetryHostPredicate(
    name="envoy.retry_host_predicates.previous_hosts", typed_config=packed(PreviousHostsPredicate())
)

# A balancer may draw the endpoint that just failed again: of two, ten times in a row once in a thousand.
_PICKS = 10


def handle(action: RouteAction, service: Service, claim: Claim) -> None:
    """Write into a route's action how the service and the claim want its requests to be handled."""
    if service.idle_timeout is not None:
        action.idle_timeout.CopyFrom(duration(service.idle_timeout))
    elif claim.websockets:
        action.idle_timeout.CopyFrom(duration(_WEBSOCKET_IDLE))
    if claim.websockets is not None:
        action.upgrade_configs.add(upgrade_type="websocket", enabled=BoolValue(value=claim.websockets))
    if claim.rewrite is not None:
        _rewrite(action, claim.path, claim.rewrite)
    if service.retries is not None:
        action.retry_policy.CopyFrom(_retry_policy(service.retries))


def _retry_policy(retries: Retries) -> RetryPolicy:
    policy = RetryPolicy(
        retry_on=",".join(retries.on),
        num_retries=UInt32Value(value=retries.attempts),
        retry_host_predicate=[_ANOTHER_HOST],
        host_selection_retry_max_attempts=_PICKS,
        refresh_cluster_on_retry=retries.other_version,
    )
    if any(failure in REPEATED for failure in retries.on):
        # The service may have acted on the request already: only what may be repeated is.
        method = policy.retriable_request_headers.add(name=":method")
        method.string_match.safe_regex.regex = "GET|HEAD|OPTIONS"
    return policy


def _rewrite(action: RouteAction, path: str, rewrite: Rewrite) -> None:
    """Replace the claimed prefix; what follows it is empty or begins with a slash, also afterwards."""
    if rewrite.host is not None:
        action.host_rewrite_literal = rewrite.host
        action.append_x_forwarded_host = True
    if rewrite.path is None:
        return
    target = rewrite.path.rstrip("/")
    if path.endswith("/"):
        action.prefix_rewrite = f"{target}/"
    elif target:
        action.prefix_rewrite = target
    else:
        # As a prefix, '/' would leave two slashes in front of what follows.
        pattern = RegexMatcher(regex=f"^{re.escape(path)}/?")
        action.regex_rewrite.CopyFrom(RegexMatchAndSubstitute(pattern=pattern, substitution="/"))
