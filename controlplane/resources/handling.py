"""How a proxy handles the requests of a claim, whatever version they go to: time, path, host, upgrades."""

from __future__ import annotations

import re
from datetime import timedelta

from google.protobuf.wrappers_pb2 import BoolValue

from controlplane._pb.matcher_pb2 import RegexMatchAndSubstitute, RegexMatcher
from controlplane._pb.route_pb2 import RouteAction
from controlplane.policy.documents import Claim, Rewrite, Service
from controlplane.resources.upstreams import duration

_WEBSOCKET_IDLE = timedelta(hours=1)  # a socket on which nobody says anything is no fault


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
