"""Segments as lists of header matchers: a tree of conditions becomes alternatives, each a conjunction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from controlplane._pb.matcher_pb2 import RegexMatcher, StringMatcher
from controlplane._pb.route_pb2 import HeaderMatcher
from controlplane._pb.type_pb2 import Int64Range
from controlplane.policy.agents import AGENTS
from controlplane.policy.documents import Match, UserSource, ValueMatch
from controlplane.resources import addresses, cookies, targets, userlists
from controlplane.resources.names import SOURCE_HEADER, claim_header, whole_header

ALTERNATIVES_LIMIT = 1000  # of one segment

Conjunction = tuple[HeaderMatcher, ...]
_EVERY: tuple[Conjunction, ...] = ((),)
_NONE: tuple[Conjunction, ...] = ()


def alternatives(
    match: Match | None, negated: bool = False, source: UserSource | None = None
) -> tuple[Conjunction, ...]:
    """Return conjunctions of which at least one holds exactly for the requests in the segment.

    Args:
        match: The segment, without cohorts.
        negated: Whether its opposite is meant.
        source: What names the user in these requests; None if nothing does, so that no list has them.

    Raises:
        ValueError: If there are too many.
    """
    if match is None:
        return _NONE if negated else _EVERY
    if match.not_ is not None:
        return alternatives(match.not_, not negated, source)
    if match.all is None and match.any is None:
        return _leaf(match, negated, source)
    parts = [alternatives(part, negated, source) for part in match.all or match.any or ()]
    return _any(parts) if (match.any is not None) is not negated else _all(parts)


def identified(source: UserSource) -> HeaderMatcher:
    """Return a matcher for requests in which the source names a user."""
    header, pattern = identity(source)
    return _regex(header, ".+" if whole_header(source) else pattern)


def identity(source: UserSource) -> tuple[str, str]:
    """Return the header that an identity is in, and a pattern for all of it; group 1 is the identity."""
    if source.header or source.claim:
        return whole_header(source) or "", "^(.*)$"
    if source.query:
        return ":path", targets.identity(source.query)
    return "cookie", cookies.identity(source.cookie or "")


def unidentified(source: UserSource) -> HeaderMatcher:
    """Return the exact opposite of ``identified``."""
    matcher = HeaderMatcher(invert_match=True, treat_missing_header_as_empty=True)
    matcher.MergeFrom(identified(source))
    return matcher


def _leaf(match: Match, negated: bool, source: UserSource | None) -> tuple[Conjunction, ...]:
    if match.header is not None:
        return _header(match.header.name, match.header, negated)
    if match.claim is not None:
        return _header(claim_header(match.claim.name), match.claim, negated)
    if match.method is not None:
        method = StringMatcher(exact=match.method)
        return ((HeaderMatcher(name=":method", string_match=method, invert_match=negated),),)
    if match.user_agent is not None:
        return alternatives(AGENTS[match.user_agent], negated)
    if match.users is not None:
        return _users(match.users, negated, source)
    named = match.cookie or match.query
    absent = named is not None and named.present is False
    return _whole(*_pattern(match), negated is not absent)


def _pattern(match: Match) -> tuple[str, str | None]:
    """Return a header, and a pattern for the whole of it if the condition holds; None if it never does."""
    if match.cookie is not None:
        return "cookie", cookies.pattern(match.cookie)
    if match.query is not None:
        return ":path", targets.query(match.query)
    if match.path is not None:
        return ":path", targets.path(match.path)
    if match.host is not None:
        return ":authority", targets.host(match.host)
    if match.source is not None:
        return SOURCE_HEADER, addresses.network(match.source)
    raise ValueError("a cohort is no condition of a route; its buckets belong to the split")


def _users(users: tuple[str, ...], negated: bool, source: UserSource | None) -> tuple[Conjunction, ...]:
    if source is None:
        return _EVERY if negated else _NONE
    parts = [_whole(name, pattern, negated) for name, pattern in userlists.patterns(users, source)]
    return _all(parts) if negated else _any(parts)


def _any(parts: Sequence[tuple[Conjunction, ...]]) -> tuple[Conjunction, ...]:
    return _limited(sum(map(len, parts))) and tuple(one for part in parts for one in part)


def _all(parts: Sequence[tuple[Conjunction, ...]]) -> tuple[Conjunction, ...]:
    count = 1
    for part in parts:
        count *= len(part)
    return _limited(count) and tuple(sum(choice, ()) for choice in product(*parts))


def _limited(count: int) -> tuple[Conjunction, ...]:
    if count > ALTERNATIVES_LIMIT:
        raise ValueError(
            f"it needs {count} routes, at most {ALTERNATIVES_LIMIT} are allowed; "
            "write lists of values as one regex, or have a proxy mark them with one header"
        )
    return _EVERY if count else _NONE


def _header(name: str, match: ValueMatch, negated: bool) -> tuple[Conjunction, ...]:
    if match.present is not None:
        return ((HeaderMatcher(name=name, present_match=match.present is not negated),),)
    matcher = HeaderMatcher(name=name)
    match match.given:
        case "equals":
            matcher.string_match.exact = match.equals or ""
        case "prefix":
            matcher.string_match.prefix = match.prefix or ""
        case "suffix":
            matcher.string_match.suffix = match.suffix or ""
        case "contains":
            matcher.string_match.contains = match.contains or ""
        case "regex":
            matcher.string_match.safe_regex.regex = match.regex or ""
        case _:
            assert match.range is not None
            matcher.range_match.CopyFrom(Int64Range(start=match.range.from_, end=match.range.to))
    if not negated:
        return ((matcher,),)
    matcher.invert_match = True
    if match.regex is not None and re.compile(match.regex, re.ASCII).fullmatch(""):
        # Taken as empty, a missing header would meet the condition; it must not.
        return ((HeaderMatcher(name=name, present_match=False),), (matcher,))
    matcher.treat_missing_header_as_empty = True
    return ((matcher,),)


def _whole(name: str, pattern: str | None, negated: bool) -> tuple[Conjunction, ...]:
    """Return a condition on the whole text of a header; None is a pattern that nothing matches."""
    if pattern is None:
        return _EVERY if negated else _NONE
    matcher = _regex(name, pattern)
    if negated:
        matcher.invert_match = matcher.treat_missing_header_as_empty = True
    return ((matcher,),)


def _regex(name: str, pattern: str) -> HeaderMatcher:
    return HeaderMatcher(name=name, string_match=StringMatcher(safe_regex=RegexMatcher(regex=pattern)))
