"""Inputs of the compiler, and what Envoy would do with its output."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import xxhash

from controlplane._pb.matcher_pb2 import StringMatcher
from controlplane._pb.route_pb2 import HeaderMatcher, Route, RouteMatch
from controlplane.policy.documents import Fleet, Service
from controlplane.policy.segments import Request
from controlplane.release.traffic import ServiceTraffic, Split
from controlplane.resources.names import claim_header


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


@pytest.fixture
def service() -> Callable[..., Service]:
    def make(name: str = "checkout", **fields: Any) -> Service:
        document = {
            "kind": "Service",
            "name": name,
            "fleets": ["edge"],
            "routes": [{"host": f"{name}.example.com"}],
            "user": {"from": [{"header": "x-user-id"}, {"cookie": "uid"}]},
            "initial": "v1",
            "versions": {"v1": {"endpoints": ["10.0.0.1:8080"]}, "v2": {"endpoints": ["10.0.0.2:8080"]}},
        }
        return Service.model_validate(document | fields)

    return make


@pytest.fixture
def fleet() -> Fleet:
    listeners = [
        {"name": "http", "address": "0.0.0.0:8080"},
        {"name": "inside", "address": "[::1]:9090", "kind": "local"},
    ]
    return Fleet.model_validate(
        {"kind": "Fleet", "name": "edge", "nodes": {"cluster": "edge"}, "listeners": listeners}
    )


@pytest.fixture
def traffic(service: Callable[..., Service]) -> Callable[..., ServiceTraffic]:
    def make(
        splits: Sequence[Split] = (Split("everyone", None, ()),),
        canary: str | None = "v2",
        anonymous: Any = "random",
        **fields: Any,
    ) -> ServiceTraffic:
        return ServiceTraffic(
            service(**fields), "v1", canary, "r1" if canary else None, "salt", tuple(splits), anonymous
        )

    return make


@dataclass(frozen=True)
class Choice:
    """What a proxy does with a request: where from, by which bucket; ``cluster`` is None if it is drawn."""

    segment: str
    cluster: str | None
    bucket: int | None
    sets_cookie: bool


class Proxy:
    """A small model of Envoy 1.40's route matching, written from its documentation and from what was seen."""

    def choose(self, routes: Sequence[Route], request: Request) -> Choice | None:
        """Return what the first matching route does."""
        for route in routes:
            if self._matches(route.match, request):
                return self._chosen(route, request)
        return None

    def _matches(self, match: RouteMatch, request: Request) -> bool:
        path = request.path.partition("?")[0]
        if match.WhichOneof("path_specifier") == "prefix":
            under = request.path.startswith(match.prefix)
        else:
            prefix = match.path_separated_prefix
            under = path == prefix or path.startswith(f"{prefix}/")
        return under and all(self._holds(header, request) for header in match.headers)

    @staticmethod
    def _lines(name: str, request: Request) -> tuple[str, ...]:
        """Return the values of a header as the router sees them, with what the listener adds."""
        own = {":path": request.path, ":method": request.method, ":authority": request.host}
        if name.startswith("x-turnout-claim-"):
            return tuple(value for claim, value in request.claims if claim_header(claim) == name)
        if name == "x-turnout-source":
            return () if request.source is None else (request.source,)
        return (own[name],) if name in own else request.header(name)

    def _holds(self, matcher: HeaderMatcher, request: Request) -> bool:
        values = self._lines(matcher.name, request)
        if matcher.WhichOneof("header_match_specifier") == "present_match":
            return matcher.present_match is (bool(values) is not matcher.invert_match)
        if not values and not matcher.treat_missing_header_as_empty:
            return False
        if matcher.WhichOneof("header_match_specifier") == "range_match":
            held = any(self._in_range(matcher, value) for value in values or ("",))
        else:
            held = any(self._equal(matcher.string_match, value) for value in values or ("",))
        return held is not matcher.invert_match

    @staticmethod
    def _in_range(matcher: HeaderMatcher, value: str) -> bool:
        number = re.fullmatch(r"[-+]?[0-9]+", value)
        return bool(number) and matcher.range_match.start <= int(value) < matcher.range_match.end

    @staticmethod
    def _equal(matcher: StringMatcher, value: str) -> bool:
        match matcher.WhichOneof("match_pattern"):
            case "exact":
                return value == matcher.exact
            case "prefix":
                return value.startswith(matcher.prefix)
            case "suffix":
                return value.endswith(matcher.suffix)
            case "contains":
                return matcher.contains in value
            case _:
                return re.fullmatch(python(matcher.safe_regex.regex), value, re.ASCII) is not None

    def _chosen(self, route: Route, request: Request) -> Choice:
        segment = route.metadata.filter_metadata["turnout"]["segment"]
        sets_cookie = any(option.header.key == "set-cookie" for option in route.response_headers_to_add)
        if route.route.cluster:
            return Choice(segment, route.route.cluster, None, sets_cookie)
        clusters = route.route.weighted_clusters
        weights = [(entry.name, entry.weight.value) for entry in clusters.clusters]
        assert sum(weight for _, weight in weights) == 10_000
        bucket = self._hash(route, request) if clusters.use_hash_policy.value else None
        return Choice(segment, None if bucket is None else self._at(weights, bucket), bucket, sets_cookie)

    @classmethod
    def _hash(cls, route: Route, request: Request) -> int | None:
        [policy] = route.route.hash_policy
        values = cls._lines(policy.header.header_name, request)
        if not values:
            return None
        rewrite = policy.header.regex_rewrite

        def written(found: re.Match[str]) -> str:
            return re.sub(
                r"\\(.)",
                lambda part: found[int(part[1])] if part[1].isdigit() else part[1],
                rewrite.substitution,
            )

        text = re.sub(python(rewrite.pattern.regex), written, values[0], count=1)
        return xxhash.xxh64_intdigest(text.encode()) % 10_000

    @staticmethod
    def _at(weights: Sequence[tuple[str, int]], bucket: int) -> str:
        for name, weight in weights:
            if bucket < weight:
                return name
            bucket -= weight
        raise AssertionError("the weights do not cover the bucket")


def python(regex: str) -> str:
    """Return a pattern over bytes, as Envoy compiles it, as one over characters."""
    return regex.replace(r"\xFF", r"\U0010ffff")


@pytest.fixture
def envoy() -> Proxy:
    return Proxy()
