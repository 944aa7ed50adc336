from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.policy.documents import Match, Service
from controlplane.policy.segments import Request, matches
from controlplane.release.following import decided
from controlplane.release.traffic import BUCKETS, ServiceTraffic, Split
from controlplane.resources.buckets import bucket, pick
from controlplane.resources.routes import service_routes

WORDS = st.sampled_from(
    ["1", "beta", "eu-1", "eu", "a=b", "x.y", "b e", "Beta", "12", "-3", "1;2", "é", "ab\\c"]
)
PATTERNS = st.sampled_from(
    [
        ".*",
        "b.*",
        "[^a]+",
        "(?i)beta",
        "eu-[0-9]",
        r"\d+",
        "a|b.a",
        r"[\W]",
        "",
        "[;1]",
        "x?",
        r"\S+",
        "^beta$",
        ".;.",
    ]
)
VALUES = st.one_of(WORDS, st.text(st.sampled_from('ab1 -=;.?"é'), max_size=5))
HEADERS = ("x-a", "x-b")
COOKIES = ("beta", "b", "u.d")


def condition(
    kind: str, name: str, words: st.SearchStrategy[str] = WORDS, patterns: st.SearchStrategy[str] = PATTERNS
) -> st.SearchStrategy[dict[str, Any]]:
    word = dict.fromkeys(("equals", "prefix", "suffix", "contains"), words)
    options = [st.fixed_dictionaries({"name": st.just(name), key: value}) for key, value in word.items()]
    options.append(st.builds(lambda regex: {"name": name, "regex": regex}, patterns.filter(bool)))
    options.append(st.builds(lambda present: {"name": name, "present": present}, st.booleans()))
    low = st.integers(-130, 130)
    size = st.integers(1, 200)
    options.append(st.builds(lambda a, n: {"name": name, "range": {"from": a, "to": a + n}}, low, size))
    return st.one_of(options).map(lambda found: {kind: found})


URL_WORDS = WORDS.filter(lambda word: word.isascii() and word.isalnum())
URL_PATTERNS = PATTERNS.filter(bool)
PATHS = st.one_of(
    st.sampled_from(["equals", "prefix", "suffix", "contains"]).flatmap(
        lambda kind: st.sampled_from(["/", "/shop", "/shop/a", "a", "p"]).map(lambda word: {kind: word})
    ),
    st.sampled_from(["/.*", "/sho[^a]+", ".*a", "/[^x]*?"]).map(lambda regex: {"regex": regex}),
)
WEBKIT, GECKO = (
    "AppleWebKit/537.36 (KHTML, like Gecko)",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101",
)
AGENTS = {
    "Chrome": f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/131.0.0.0 Safari/537.36",
    "Edge": f"Mozilla/5.0 (Windows NT 10.0) {WEBKIT} Chrome/131.0.0.0 Safari/537.36 Edg/131.0.2903.63",
    "Firefox": "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Safari": f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT} Version/18.1 Safari/605.1.15",
}
SOURCES = ["10.1.2.3", "10.2.0.1", "192.0.2.1", "2001:db8::1", "2001:db8:1::2", "::1"]
PLAIN = st.one_of(
    PATHS.map(lambda condition: {"path": condition}),
    st.sampled_from(["GET", "POST"]).map(lambda method: {"method": method}),
    st.sampled_from(["shop.test", "*.test", "kiss.test"]).map(lambda host: {"host": host}),
    st.sampled_from(sorted(AGENTS)).map(lambda name: {"user_agent": name}),
    st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/33", "2001:db8::/48", "::1"]).map(
        lambda network: {"source": network}
    ),
)
LISTED = st.sampled_from(["1", "12", "beta", "eu-1", "a=b", "x=1", "-3"]).map(
    lambda one: {"users": [one, "bob", *(f"user-{n}" for n in range(120))]}
)
LEAVES = st.one_of(
    [condition("header", name) for name in HEADERS]
    + [condition("cookie", name) for name in COOKIES]
    + [condition("query", name, URL_WORDS, URL_PATTERNS) for name in ("beta", "u.d")]
    + [condition("claim", name) for name in ("plan", "Org.unit_id")]
    + [PLAIN, LISTED]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=4,
).map(Match.model_validate)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    headers = [
        (name, draw(VALUES).strip())
        for name in (*HEADERS, "x-user-id")
        if draw(st.sampled_from([True, False]))
    ]
    pairs = draw(
        st.lists(
            st.tuples(st.sampled_from([*COOKIES, "uid", "turnout-user", "xuid", "eta"]), VALUES), max_size=4
        )
    )
    separator = draw(st.sampled_from(["; ", ";", ";  "]))
    if pairs:
        headers.append(("cookie", separator.join(f"{name}={value}" for name, value in pairs).strip()))
    if agent := draw(st.sampled_from([None, *AGENTS.values()])):
        headers.append(("user-agent", agent))
    query = draw(
        st.lists(
            st.builds(
                "{}{}{}".format,
                st.sampled_from(["beta", "u.d", "user", "xuser", ""]),
                st.sampled_from(["=", "=", ""]),
                st.sampled_from(["", "1", "beta", "eu-1", "12", "-3", "x=1", "%31"]),
            ),
            max_size=3,
        )
    )
    path = draw(st.sampled_from(["/", "/shop", "/shop/a", "/shop/ap"]))
    return Request(
        method=draw(st.sampled_from(["GET", "POST", "HEAD"])),
        host=draw(st.sampled_from(["shop.test", "SHOP.test:8080", "Kiss.Test", "test"])),
        path=f"{path}?{'&'.join(query)}" if query else path,
        headers=tuple(headers),
        source=draw(st.sampled_from(SOURCES)),
        claims=tuple((name, draw(VALUES)) for name in ("plan", "Org.unit_id", "sub") if draw(st.booleans())),
    )


@st.composite
def traffics(draw: st.DrawFn) -> ServiceTraffic:
    trees = draw(st.lists(TREES, max_size=3))
    spans = st.sampled_from(
        [(), ((0, 500),), ((0, 5000),), ((0, 200), (5000, 9000)), ((3, 9800),), ((0, BUCKETS),)]
    )
    drawn = st.sampled_from([None, None, 0, 700, BUCKETS])
    splits = [Split(f"s{i}", tree, draw(spans), draw(drawn)) for i, tree in enumerate(trees)]
    splits.sort(key=lambda split: -split.buckets)
    splits.append(Split("everyone", None, draw(spans), draw(drawn)))
    user = draw(
        st.sampled_from(
            [
                [],
                [{"header": "x-user-id"}],
                [{"cookie": "uid"}, {"header": "x-user-id"}],
                [{"query": "user"}, {"cookie": "uid"}],
                [{"claim": "sub"}, {"header": "x-user-id"}],
            ]
        )
    )
    service = Service.model_validate(
        {
            "kind": "Service",
            "name": "shop",
            "fleets": ["edge"],
            "routes": [{"host": "*"}],
            "user": {"from": user},
            "initial": "v1",
            "versions": {"v1": {"endpoints": []}, "v2": {"endpoints": []}},
        }
    )
    anonymous = draw(st.sampled_from(["generate", "random", "baseline"]))
    return ServiceTraffic(
        service, "v1", "v2", "r1", draw(st.sampled_from(["s", "a\\1b"])), tuple(splits), anonymous
    )


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(traffics(), st.lists(requests(), min_size=1, max_size=12))
def test_routes_do_what_the_model_says(envoy, traffic: ServiceTraffic, found: list[Request]):
    routes = service_routes(traffic, "/")

    for request in found:
        choice, expected = envoy.choose(routes, request), pick(traffic, request)
        assert choice is not None
        assert choice.segment == expected.segment
        assert choice.cluster == (expected.version and f"shop~{expected.version}")
        if choice.bucket is not None:
            assert choice.bucket == expected.bucket


TOLD = ["checkout=v6", "checkout=v7", "cart=v1", "cart=v2", "checkout=v8", "v7", "shop=v2", None]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(traffics(), st.lists(requests(), min_size=1, max_size=6), st.sampled_from(["random", "ring_hash"]))
def test_what_was_decided_elsewhere_holds_and_moves_nobody_else(envoy, traffic, found, balance):
    header = "x-turnout-version"
    service = traffic.service.model_copy(update={"balance": balance, "version_header": header})
    own = replace(traffic, service=service)
    sides = {"checkout=v6": "v1", "cart=v1": "v1", "checkout=v7": "v2", "cart=v2": "v2"}
    first = tuple(decided(header, value, canary=version == "v2") for value, version in sides.items())
    following = replace(own, splits=(*first, *own.splits))
    routes, alone = service_routes(following, "/"), service_routes(own, "/")

    for plain, told in product(found, TOLD):
        more = () if told is None else ((header, told),)
        request = replace(plain, headers=(*plain.headers, *more))
        choice, expected = envoy.choose(routes, request), pick(following, request)
        if told in sides:
            assert (choice.segment, choice.cluster) == ("followed", f"shop~{sides[told]}")
            assert (expected.segment, expected.version) == ("followed", sides[told])
        else:
            assert choice == envoy.choose(alone, request)
            assert choice.segment == expected.segment


@settings(max_examples=200, deadline=None)
@given(TREES, requests())
def test_a_segment_and_its_opposite_share_no_request(tree: Match, request: Request):
    opposite = Match.model_validate({"not": tree.model_dump(by_alias=True, exclude_none=True)})

    assert matches(tree, request) is not matches(opposite, request)


BETA = Match.model_validate({"cookie": {"name": "beta", "equals": "1"}})


def user(name: str, **cookies: str) -> Request:
    pairs = "; ".join(f"{key}={value}" for key, value in cookies.items())
    return Request(headers=(("x-user-id", name), *((("cookie", pairs),) if pairs else ())))


def test_the_largest_share_wins(envoy, traffic):
    state = traffic([Split("beta", BETA, ((0, 5000),)), Split("everyone", None, ((0, 100),))])
    routes = service_routes(state, "/")

    for name in map(str, range(200)):
        beta, plain = envoy.choose(routes, user(name, beta="1")), envoy.choose(routes, user(name))
        place = bucket("salt", name)
        assert (beta.cluster, beta.segment) == ("checkout~v2" if place < 5000 else "checkout~v1", "beta")
        assert (plain.cluster, plain.segment) == ("checkout~v2" if place < 100 else "checkout~v1", "everyone")


def test_nobody_loses_the_canary_while_shares_grow(envoy, traffic):
    had: set[str] = set()
    for share in (1, 100, 500, 1000, 2500, 5000, 9800, BUCKETS):
        routes = service_routes(traffic([Split("everyone", None, ((0, share),))]), "/")
        have = {n for n in map(str, range(500)) if envoy.choose(routes, user(n)).cluster == "checkout~v2"}
        assert had <= have
        had = have
    assert len(had) == 500


def test_a_prefix_does_not_take_its_longer_neighbour(envoy, traffic):
    routes = service_routes(traffic(), "/shop")

    taken = {
        path: envoy.choose(routes, Request(path=path)) is not None
        for path in ("/shop", "/shop/a", "/shop?x=1", "/shops", "/")
    }

    assert taken == {"/shop": True, "/shop/a": True, "/shop?x=1": True, "/shops": False, "/": False}


def test_only_a_split_that_draws_sets_the_cookie(envoy, traffic):
    drawn = traffic([Split("everyone", None, ((0, 500),))], anonymous="generate")
    idle = traffic(anonymous="generate")

    assert envoy.choose(service_routes(drawn, "/"), Request()).sets_cookie
    assert not envoy.choose(service_routes(drawn, "/"), user("a")).sets_cookie
    assert not envoy.choose(service_routes(idle, "/"), Request()).sets_cookie


def test_anonymous_requests_are_a_segment_even_where_nothing_is_split(envoy, traffic):
    for share in (0, BUCKETS):
        routes = service_routes(traffic([Split("everyone", None, ((0, share),) if share else ())]), "/")
        assert envoy.choose(routes, Request()).segment == "anonymous"
        assert envoy.choose(routes, user("a")).segment == "everyone"


def test_too_many_alternatives_are_refused_with_advice(traffic):
    part = {"any": [{"header": {"name": f"x-{i}", "equals": "1"}} for i in range(12)]}
    wide = Match.model_validate({"all": [part, part, part]})

    with pytest.raises(
        ValueError, match=r"service 'checkout', segment 'wide': it needs 1728 routes.*one regex"
    ):
        service_routes(traffic([Split("wide", wide, ((0, 1),)), Split("everyone", None, ())]), "/")


def test_buckets_without_a_canary_are_refused(traffic):
    with pytest.raises(ValueError, match="there is no canary"):
        service_routes(traffic([Split("everyone", None, ((0, 1),))], canary=None), "/")


@pytest.mark.parametrize("anonymous", ["random", "baseline", "generate"])
@pytest.mark.parametrize("share", [0, 500, BUCKETS])
def test_affinity_to_endpoints_changes_nobodys_version(envoy, traffic, share, anonymous):
    everyone = [Split("everyone", None, ((0, share),) if share else ())]
    plain = service_routes(traffic(everyone, anonymous=anonymous), "/")
    affine = service_routes(traffic(everyone, anonymous=anonymous, balance="ring_hash"), "/")

    for request in (Request(), *map(user, map(str, range(50)))):
        chosen = envoy.choose(plain, request), envoy.choose(affine, request)
        assert chosen[0].cluster == chosen[1].cluster
        assert chosen[0].segment == chosen[1].segment
    assert all(route.route.hash_policy for route in affine if route.metadata != affine[-1].metadata)
    assert envoy.choose(affine, user("a")).cluster is not None
