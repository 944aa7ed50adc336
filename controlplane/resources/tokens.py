"""The filter that verifies tokens and writes their claims into headers, before a route is chosen again."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from controlplane._pb.core_pb2 import DataSource
from controlplane._pb.hcm_pb2 import HttpFilter
from controlplane._pb.jwtauthn_pb2 import (
    JwtAuthentication,
    JwtClaimToHeader,
    JwtHeader,
    JwtProvider,
    JwtRequirement,
    JwtRequirementOrList,
    RequirementRule,
)
from controlplane._pb.route_pb2 import RouteMatch
from controlplane.policy.documents import Tokens
from controlplane.resources.names import claim_header
from controlplane.resources.readable import packed

_PROVIDER = "tokens"


def token_filter(tokens: Tokens) -> HttpFilter:
    """Return the filter; a request without a token, or with a wrong one, goes on without claims.

    Envoy takes the claims' headers off each request first, and the listener has done so before.
    """
    keys = (
        DataSource(filename=tokens.jwks_file) if tokens.jwks_file else DataSource(inline_string=tokens.jwks)
    )
    provider = JwtProvider(
        issuer=tokens.issuer,
        audiences=tokens.audiences,
        local_jwks=keys,
        forward=True,  # the service behind may want it too
        from_headers=[
            JwtHeader(name=tokens.header, value_prefix="Bearer " if tokens.header == "authorization" else "")
        ],
        claim_to_headers=[
            JwtClaimToHeader(header_name=claim_header(name), claim_name=name) for name in tokens.claims
        ],
        clear_route_cache=True,
    )
    either = JwtRequirementOrList(
        requirements=[
            JwtRequirement(provider_name=_PROVIDER),
            JwtRequirement(allow_missing_or_failed=Empty()),
        ]
    )
    rule = RequirementRule(match=RouteMatch(prefix="/"), requires=JwtRequirement(requires_any=either))
    message = JwtAuthentication(providers={_PROVIDER: provider}, rules=[rule])
    return HttpFilter(name="envoy.filters.http.jwt_authn", typed_config=packed(message))
