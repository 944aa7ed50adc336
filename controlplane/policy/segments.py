"""Whether a request is in a segment, by the same rules as in Envoy."""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from controlplane.policy.agents import AGENTS
from controlplane.policy.documents import (
    ClaimMatch,
    Cohort,
    CookieMatch,
    Match,
    PathMatch,
    QueryMatch,
    ValueMatch,
)
from controlplane.policy.values import STEP_PPM

_PORT = re.compile(r":[0-9]+\Z")
_INTEGER = re.compile(r"([-+]?)0*([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class Request:
    """What a request says about itself.

    Attributes:
        headers: Lines as (lower-case name, value), repeated names as often as they came.
        path: With the query, as it was sent.
        source: The client's address as the proxy sees it; None if that is not known.
        claims: Of a verified token, as (name, value).
        user: The values of the source that names the user; empty without identity.
        bucket: The user's bucket in 0..9999; None without identity.
    """

    method: str = "GET"
    host: str = ""
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    source: str | None = None
    claims: tuple[tuple[str, str], ...] = ()
    user: tuple[str, ...] = ()
    bucket: int | None = None

    def header(self, name: str) -> tuple[str, ...]:
        """Return the values of all lines of a header."""
        return tuple(value for key, value in self.headers if key == name)

    def claim(self, name: str) -> tuple[str, ...]:
        """Return the value of a claim, if there is one."""
        return tuple(value for key, value in self.claims if key == name)

    def cookie(self, name: str) -> tuple[str, ...]:
        """Return the values of a cookie, from all ``cookie`` lines; quotes are part of a value."""
        pairs = (pair.strip(" ").partition("=") for line in self.header("cookie") for pair in line.split(";"))
        return tuple(value for key, sign, value in pairs if key == name and sign)

    def query(self, name: str) -> tuple[str, ...]:
        """Return the values of a query parameter, not decoded; one without ``=`` is empty."""
        pairs = (pair.partition("=") for pair in self.path.partition("?")[2].split("&"))
        return tuple(value for key, _, value in pairs if key == name)


def matches(match: Match | None, request: Request) -> bool:
    """Return whether ``request`` is in the segment; None means every request.

    A header, cookie or query parameter that stands several times matches if any of its values does. ``not``
    is the logical opposite, so an absent header is outside of any condition and inside of its ``not``.
    """
    if match is None:
        return True
    if match.all or match.any:
        results = (matches(part, request) for part in match.all or match.any or ())
        return all(results) if match.all else any(results)
    if match.not_:
        return not matches(match.not_, request)
    return _leaf(match, request)


def _leaf(match: Match, request: Request) -> bool:  # noqa: PLR0911 - one per kind of condition
    if named := match.header or match.cookie or match.query or match.claim:
        return _any_matches(named, _values(named, request))
    if match.path:
        return _holds(match.path, request.path.partition("?")[0])
    if match.method:
        return request.method == match.method
    if match.host:
        return _is_host(match.host, request.host)
    if match.user_agent:
        return matches(AGENTS[match.user_agent], request)
    if match.source:
        return request.source is not None and _is_in(match.source, request.source)
    if match.users:
        return any(_listed(match.users, value) for value in request.user)
    return match.cohort is not None and _chosen(match.cohort, request.bucket)


def _values(named: ValueMatch, request: Request) -> tuple[str, ...]:
    match named:
        case CookieMatch():
            return request.cookie(named.name)
        case QueryMatch():
            return request.query(named.name)
        case ClaimMatch():
            return request.claim(named.name)
        case _:
            return request.header(named.name)


def _listed(users: tuple[str, ...], value: str) -> bool:
    at = bisect_left(users, value)
    return at < len(users) and users[at] == value


def _is_host(wanted: str, host: str) -> bool:
    name = _PORT.sub("", host).lower()
    return len(name) >= len(wanted) and name.endswith(wanted[1:]) if wanted[0] == "*" else name == wanted


def _is_in(network: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network)
    except ValueError:
        return False


def _chosen(cohort: Cohort, bucket: int | None) -> bool:
    return bucket is not None and cohort.from_ <= bucket * STEP_PPM < cohort.to


def alternatives(match: Match, inverted: bool = False) -> int:
    """Return how many plain conjunctions the tree expands to; each of them is a route of its own."""
    if match.not_:
        return alternatives(match.not_, not inverted)
    if match.user_agent:
        return alternatives(AGENTS[match.user_agent], inverted)
    value = match.header or match.claim
    if inverted and value and value.regex and _compiled(value.regex).fullmatch(""):
        return 2  # without the header, and with another value: Envoy takes an absent header for an empty one
    counts = [alternatives(part, inverted) for part in match.all or match.any or ()]
    if bool(match.any) is not inverted:
        return sum(counts) or 1
    product = 1
    for count in counts:
        product *= count
    return product


def cohorts(match: Match) -> bool:
    """Return whether a cohort stands anywhere in the tree."""
    return match.cohort is not None or any(cohorts(part) for part in parts(match))


def lists(match: Match) -> bool:
    """Return whether a list of users stands anywhere in the tree."""
    return match.users is not None or any(lists(part) for part in parts(match))


def claims(match: Match) -> Iterator[str]:
    """Yield the names of the claims in the tree."""
    if match.claim:
        yield match.claim.name
    for part in parts(match):
        yield from claims(part)


def headers(match: Match) -> Iterator[str]:
    """Yield the names of the headers in the tree."""
    if match.header:
        yield match.header.name
    for part in parts(match):
        yield from headers(part)


def forgeable(match: Match) -> Iterator[str]:
    """Yield the headers by which anyone gets in: those beside which no network and no claim is asked for."""
    if match.header:
        yield match.header.name
    if not any(part.source or part.claim for part in match.all or ()):
        for part in parts(match):
            yield from forgeable(part)


def parts(match: Match) -> tuple[Match, ...]:
    """Return the conditions right inside of a condition."""
    return match.all or match.any or ((match.not_,) if match.not_ else ())


def _any_matches(condition: ValueMatch, values: tuple[str, ...]) -> bool:
    if condition.present is not None:
        return bool(values) is condition.present
    return any(_holds(condition, value) for value in values)


def _holds(condition: ValueMatch | PathMatch, value: str) -> bool:
    match condition.given:
        case "equals":
            return value == condition.equals
        case "prefix":
            return value.startswith(condition.prefix or "")
        case "suffix":
            return value.endswith(condition.suffix or "")
        case "contains":
            return (condition.contains or "") in value
        case "regex":
            return _compiled(condition.regex or "").fullmatch(value) is not None
        case _:
            assert isinstance(condition, ValueMatch)
            bounds = condition.range
            assert bounds is not None
            number = _INTEGER.fullmatch(value)
            return number is not None and bounds.from_ <= int(number[1] + number[2]) < bounds.to


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)
