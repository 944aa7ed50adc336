"""What a claim makes of a path: what is left after its prefix is empty or begins with a slash."""

from __future__ import annotations

import re

import pytest

from controlplane._pb.route_pb2 import RouteAction
from controlplane.policy.documents import Claim
from controlplane.resources.handling import handle


def rewritten(action: RouteAction, claimed: str, path: str) -> str:
    """Return a path as Envoy rewrites it, by its documentation."""
    if action.HasField("regex_rewrite"):
        rewrite = action.regex_rewrite
        return re.sub(rewrite.pattern.regex, rewrite.substitution, path, count=1)
    return action.prefix_rewrite + path.removeprefix(claimed) if action.prefix_rewrite else path


@pytest.mark.parametrize(
    ("claimed", "target", "path", "found"),
    [
        ("/a", "/b", "/a", "/b"),
        ("/a", "/b", "/a/x", "/b/x"),
        ("/a", "/b/", "/a/x", "/b/x"),
        ("/a", "/", "/a", "/"),
        ("/a", "/", "/a/x", "/x"),
        ("/a.b", "/", "/a.b/x", "/x"),
        ("/a/", "/b", "/a/x", "/b/x"),
        ("/a/", "/", "/a/x", "/x"),
        ("/", "/b", "/x", "/b/x"),
        ("/", "/b", "/", "/b/"),
    ],
)
def test_a_prefix_is_replaced_whole(service, claimed, target, path, found):
    action = RouteAction()

    handle(
        action, service(), Claim.model_validate({"host": "h", "path": claimed, "rewrite": {"path": target}})
    )

    assert rewritten(action, claimed, path) == found


def test_a_claim_that_says_nothing_leaves_a_route_alone(service):
    action = RouteAction()

    handle(action, service(), Claim(host="h"))

    assert action == RouteAction()
